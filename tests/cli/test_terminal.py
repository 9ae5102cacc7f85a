"""What commands write on a real terminal: carets where the place is, within its width; colour where it is wanted."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from testkit.processes import ROOT, command, run

GRANT = '<allow-access-from domain="*" to-ports="90-80"/>'
LONG = f"<cross-domain-policy><!-- {'x' * 300} -->{GRANT}<!-- {'y' * 300} --></cross-domain-policy>"


def on_a_terminal(*arguments: object, columns: int, **variables: str) -> list[str]:
    """The lines that a command writes to a terminal of so many columns (0: it does not say)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    without = ("NO_COLOR", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment |= {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", **variables}
    output = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=theirs, env=environment)
        os.close(theirs)
        try:
            while part := terminal.read(4096):
                output += part
        except OSError:  # the other end is closed: what a terminal has instead of an end of file
            pass
        done.wait(10)
    return output.decode().splitlines()


@pytest.mark.parametrize("asked", [("check",), ("decide", "--from", "http://a.example/", "--port", "80")])
@pytest.mark.parametrize("columns", [40, 80, 132])
def test_excerpt_of_a_long_line_fits_the_terminal(tmp_path: Path, asked: tuple[str, ...], columns: int) -> None:
    file = tmp_path / "policy.xml"
    file.write_text(LONG)
    lines = on_a_terminal(*asked, file, columns=columns, NO_COLOR="1")
    at = next(number for number, line in enumerate(lines) if line.startswith("  1 | "))
    assert len(lines[at]) <= columns
    assert lines[at][lines[at + 1].index("^") :].startswith("90-80")


def test_excerpt_on_a_terminal_without_width_shows_the_place(tmp_path: Path) -> None:
    file = tmp_path / "policy.xml"
    file.write_text(LONG)
    _, source, caret, *_ = on_a_terminal("check", file, columns=0, NO_COLOR="1")
    assert source[caret.index("^") :].startswith("90-80")


@pytest.mark.parametrize("asked", [("check",), ("decide", "--from", "http://a.example/", "--port", "80")])
@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_written_to_terminals_that_want_it(
    tmp_path: Path, asked: tuple[str, ...], variables: dict[str, str], coloured: bool
) -> None:
    file = tmp_path / "policy.xml"
    file.write_text(LONG)
    assert any("\033[" in line for line in on_a_terminal(*asked, file, columns=80, **variables)) is coloured
    assert "\033" not in run(*asked, file).stdout
