"""Sessions of a shared port: bytes to an upstream and back."""
