"""The fail2ban filter of the guide finds the address in the access lines of a real server, and in no other line."""

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.config import Address
from testkit.clients import ask, connect, rest
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "limits.md"
# <ADDR> of fail2ban 1.0 (server/failregex.py), where it does not resolve names.
ADDR = (
    r"\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?"
)
NUMBERS = {"%Y": r"\d{4}", "%m": r"\d\d", "%d": r"\d\d", "%H": r"\d\d", "%M": r"\d\d", "%S": r"\d\d", "%f": r"\d{1,6}"}


class Filter:
    def __init__(self) -> None:
        [text] = re.findall(r"^```ini\n(\[Definition\]\n.*?)^```", GUIDE.read_text(), re.M | re.S)
        parser = configparser.ConfigParser()
        parser.read_string(text)
        section = parser["Definition"]
        date = section["datepattern"]
        for name, pattern in (NUMBERS | {"%z": r"[+-]\d\d:\d\d"}).items():
            date = date.replace(name, pattern)
        self.date = re.compile(date)
        self.fail = re.compile(section["failregex"].replace("<ADDR>", ADDR))

    def addresses(self, lines: list[str]) -> list[str]:
        """As fail2ban does: it takes the date out of a line, and searches the rest."""
        rests = (self.date.subn("", line, count=1) for line in lines)
        found = (self.fail.search(text) for text, dates in rests if dates)
        return [match["ip4"] or match["ip6"] for match in found if match]


@pytest.fixture
def server() -> Iterator[Flashpol]:
    listen = ("127.0.0.1:0", "[::1]:0")
    with Flashpol("--policy", POLICY, "--access-log", "1", listen=listen) as server:
        yield server


def test_fail2ban_filter_finds_refused_clients_and_no_good_ones(server: Flashpol) -> None:
    for address in map(Address.parse, server.addresses):
        assert rest(connect((address.host, address.port), b"\x16\x03\x01")) == b""
        assert ask((address.host, address.port))
    eventually(lambda: server.log.count(" after ") == 4, "four access lines")
    assert Filter().addresses(server.log.splitlines()) == ["127.0.0.1", "::1"]
