"""The sessions of a shared port: bytes between a client and the application behind it."""
