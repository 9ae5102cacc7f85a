"""The one error of this package, and how it stays within a line."""


def one_line(text: str) -> str:
    """The text with all that is not printable written as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ConfigError(Exception):
    """The operator's mistake: one line that says what is wrong, where, and what to do. The command exits with 2."""

    def __init__(self, message: str, place: object = None) -> None:
        super().__init__(message if place is None else f"{place}: {message}")

    def __str__(self) -> str:
        # One line, whatever stands in the names that it quotes.
        return one_line(super().__str__())
