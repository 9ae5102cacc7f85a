"""How an upstream address is written, and whether it leads back to a listener."""

import pytest

from flashpol.config import Address, ConfigError, UpstreamAddress
from flashpol.config.setting_types import UPSTREAM


@pytest.mark.parametrize(
    ("text", "upstream_address"),
    [
        ("127.0.0.1:7000", UpstreamAddress("127.0.0.1", 7000)),
        ("[::1]:7000", UpstreamAddress("::1", 7000)),
        ("[2001:DB8:0::1]:1", UpstreamAddress("2001:db8::1", 1)),
        ("[fe80::1%lo]:1", UpstreamAddress("fe80::1%lo", 1)),
        ("localhost:65535", UpstreamAddress("localhost", 65535)),
        ("game_1.example.com:7000", UpstreamAddress("game_1.example.com", 7000)),
        ("games.example.:7000", UpstreamAddress("games.example.", 7000)),
        ("unix:/run/game.sock", UpstreamAddress("", 0, "/run/game.sock")),
    ],
)
def test_upstream_address_of_valid_text_round_trips(text: str, upstream_address: UpstreamAddress) -> None:
    assert UpstreamAddress.parse(text) == upstream_address
    assert UpstreamAddress.parse(str(upstream_address)) == upstream_address
    assert upstream_address.is_ip == (upstream_address.host[:1] in {"1", "2", ":", "f"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost", "write HOST:PORT"),
        ("localhost:", "write HOST:PORT"),
        ("localhost:0", "the port from 1 to 65535"),
        ("localhost:65536", "the port from 1 to 65535"),
        ("localhost:7e3", "write HOST:PORT"),
        (":7000", "'' is neither a host name"),
        ("::1:7000", "'::1' is neither a host name"),
        ("[localhost]:7000", "'localhost' is neither a host name"),
        ("[127.0.0.1]:7000", "is neither a host name"),
        ("two words:7000", "'two words' is neither a host name"),
        ("-a.example:7000", "is neither a host name"),
        (f"{'a' * 64}.example:7000", "is neither a host name"),
        ("http://localhost:7000", "is neither a host name"),
        ("[fe80::1]:7000", r"link-local, which is an address of one interface: write \[fe80::1%eth0\]:7000"),
        ("[::1%lo]:7000", r"only a link-local address has an interface: write \[::1\]:7000"),
        ("unix:game.sock", "an absolute path"),
        (f"unix:/{'x' * 107}", "at most 107 bytes"),
        ("unix:/a\0b", "an absolute path"),
    ],
)
def test_upstream_address_of_bad_text_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        UpstreamAddress.parse(text)


def test_upstream_setting_takes_one_address_or_a_list() -> None:
    one, other = UpstreamAddress("a", 1), UpstreamAddress("b", 2)
    assert UPSTREAM.read("upstream", "a:1") == (one,)
    assert UPSTREAM.read("upstream", ["a:1", "b:2"]) == (one, other)
    for wrong in ([], [1], 7000, ["a:1"] * 65):
        with pytest.raises(ConfigError, match=r"^upstream"):
            UPSTREAM.read("upstream", wrong)
    with pytest.raises(ConfigError, match="'a:1' is listed twice"):
        UPSTREAM.read("upstream", ["a:1", "b:2", "a:1"])


@pytest.mark.parametrize(
    ("upstream_address", "listening", "same"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000", True),
        ("127.0.0.1:7000", "0.0.0.0:7000", True),
        ("127.0.0.1:7000", "[::]:7000", True),
        ("[::1]:7000", "[::]:7000", True),
        ("localhost:7000", "[::]:7000", True),
        ("192.0.2.1:7000", "192.0.2.1:7000", True),
        ("127.0.0.1:7001", "127.0.0.1:7000", False),
        ("127.0.0.1:7000", "192.0.2.1:7000", False),
        ("[::1]:7000", "0.0.0.0:7000", False),
        ("192.0.2.1:7000", "[::]:7000", False),  # of this host or of another
        ("games.example:7000", "[::]:7000", False),
        ("unix:/run/game", "[::]:7000", False),
    ],
)
def test_arrives_at_knows_addresses_of_this_host(upstream_address: str, listening: str, same: bool) -> None:
    assert UpstreamAddress.parse(upstream_address).arrives_at(Address.parse(listening)) is same
