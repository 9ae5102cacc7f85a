"""The one error of this package, and the escaping that keeps it within a line."""


def one_line(text: str) -> str:
    """The text with every character that is not printable written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ConfigError(Exception):
    """A mistake of the operator: one line that says what is wrong, where, and what to do. The command exits with 2.

    location: where the mistake was written, put in front of the message; anything with a text form, or None.
    """

    def __init__(self, message: str, location: object = None) -> None:
        super().__init__(message if location is None else f"{location}: {message}")

    def __str__(self) -> str:
        # The message quotes file names and keys, which may hold line feeds and escape sequences.
        return one_line(super().__str__())
