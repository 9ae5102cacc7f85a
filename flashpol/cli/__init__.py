"""The commands, one file each: they parse arguments, call the library and print; the logic is in the library."""
