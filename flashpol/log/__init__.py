"""Log lines: how they are written, formatted and limited in number."""
