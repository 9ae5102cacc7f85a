"""The commands, one file each: they parse arguments, call the library and print. No logic of their own."""
