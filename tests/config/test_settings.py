"""The settings: their defaults and bounds, and the checks that need more than one of them."""

import dataclasses
import os
import re
import tomllib
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from flashpol import config
from flashpol.config import (
    Address,
    CertificateSource,
    Config,
    ConfigError,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    Server,
    SystemdSocket,
    UpstreamAddress,
    WebSocketPath,
    parse_endpoint,
    settings_of,
    type_of,
)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.1", 0.1), ("3600", 3600.0), (".5", 0.5), ("2.", 2.0)])
def test_number_from_flag_text_is_parsed(text: str, value: float) -> None:
    assert type_of(Server, "watch").read_text("--watch", text) == value


@pytest.mark.parametrize("text", ["", "-1", "0.05", "3601", "nan", "inf", "1e2", "1_0", "٣", " 1", "1\n", "."])
def test_number_from_bad_flag_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--watch '.*': write 0 \(off\) or a number from 0.1 to 3600$"):
        type_of(Server, "watch").read_text("--watch", text)


def test_worker_count_of_auto_is_one_for_each_cpu() -> None:
    assert Server().worker_count == len(os.sched_getaffinity(0))
    assert Server(workers=3).worker_count == 3


@pytest.mark.parametrize(("given", "read"), [("auto", 0), ("1", 1), ("256", 256), (12, 12)])
def test_workers_from_flag_text_is_parsed(given: str | int, read: int) -> None:
    assert type_of(Server, "workers").read_text("--workers", str(given)) == read


@pytest.mark.parametrize("text", ["", "0", "257", "-1", "1.5", "AUTO", "two", "²", "٣", 0, 257, -1])
def test_workers_from_a_bad_value_is_refused(text: str | int) -> None:
    with pytest.raises(ConfigError, match=r'^workers = .*: write "auto" or a number from 1 to 256$'):
        type_of(Server, "workers").read("workers", text)


OWNERS = [Server, ConnectionTimeouts, ConnectionLimits, CertificateSource, PolicySource, Listener, WebSocketPath]
SENTENCE = re.compile(r"[A-Z0-9\[*][^\n]*[.]")


@pytest.mark.parametrize("owner", OWNERS)
def test_every_setting_says_what_it_does_and_why_in_sentences(owner: type) -> None:
    for name, field in settings_of(owner).items():
        assert SENTENCE.fullmatch(field.metadata["does"]), name
        assert SENTENCE.fullmatch(field.metadata["why"]), name


@pytest.mark.parametrize("owner", [Server, ConnectionTimeouts, ConnectionLimits])
def test_every_default_is_within_its_bounds(owner: type) -> None:
    for field in settings_of(owner).values():
        if field.default not in (None, ()):
            kind = field.metadata["type"]
            assert kind.read(field.name, tomllib.loads(f"x = {kind.show(field.default)}")["x"]) == field.default


# -------------------------------------------------------------------------------------- checks of more than one setting


def listeners(*pairs: tuple[str | None, str]) -> Config:
    return Config(Server(), (), tuple(Listener(name, parse_endpoint(text), "p") for name, text in pairs))


@pytest.mark.parametrize(
    "config_",
    [
        listeners(("a", "127.0.0.1:1"), ("b", "127.0.0.1:2")),
        listeners(("a", "127.0.0.1:1"), ("b", "[::1]:1")),
        listeners(("a", "systemd:x"), ("b", "systemd:y"), ("c", "[::]:1")),
        listeners(("a", "[::]:1"), ("b", "0.0.0.0:2")),
        listeners(("a", "[::]:0"), ("b", "0.0.0.0:0")),
        listeners(("a", "127.0.0.1:0"), ("b", "127.0.0.1:0")),
        listeners(
            (None, "127.0.0.1:0"), (None, "127.0.0.1:0")
        ),  # --listen twice: each gets a port of its own from the kernel
    ],
)
def test_check_of_listeners_that_differ_accepts_them(config_: Config) -> None:
    assert config.check(config_) is config_


@pytest.mark.parametrize(
    ("config_", "message"),
    [
        (
            listeners(("a", "[::]:843"), ("b", "0.0.0.0:843")),
            "0.0.0.0:843 overlaps [::]:843, which serves it too: remove one",
        ),
        (
            listeners(("a", "127.0.0.1:843"), ("b", "0.0.0.0:843")),
            "127.0.0.1:843 overlaps 0.0.0.0:843, which serves it too: remove one",
        ),
        (
            listeners((None, "127.0.0.1:9843")),
            "a listener and the admin endpoint are on 127.0.0.1:9843: change one",
        ),
        (listeners(*((None, f"127.0.0.1:{n}") for n in range(1, 1026))), "1025 listeners: one server has at most 1024"),
        # Counted before they are compared with each other, which would take minutes.
        (listeners(*[(None, "127.0.0.1:1")] * 1025), "1025 listeners: one server has at most 1024"),
        (listeners(), "no listener: add --listen IP:PORT or [[listeners]]"),
        (listeners((None, "systemd:x"), (None, "systemd:x")), "two listeners are on systemd:x: change one"),
        (
            Config(Server(admin=SystemdSocket("x")), (), listeners((None, "systemd:x")).listeners),
            "a listener and the admin endpoint are on systemd:x: change one",
        ),
        (
            listeners((None, "[::]:9843")),
            "[::]:9843 overlaps the admin endpoint's 127.0.0.1:9843: give each its own port",
        ),
        (
            Config(Server(admin=Address("0.0.0.0", 843)), (), listeners((None, "127.0.0.1:843")).listeners),
            "127.0.0.1:843 overlaps the admin endpoint's 0.0.0.0:843: give each its own port",
        ),
        (listeners(("a", "127.0.0.1:1"), ("a", "[::1]:1")), "two listeners are named a: rename one"),
        (listeners(("a", "127.0.0.1:0"), ("a", "[::1]:0")), "two listeners are named a: rename one"),
        (listeners(("a", "127.0.0.1:1"), ("b", "127.0.0.1:1")), "two listeners are on 127.0.0.1:1: change one"),
        (
            listeners((None, "127.0.0.1:1"), (None, "127.0.0.1:1")),
            "two listeners are on 127.0.0.1:1: change one",
        ),
    ],
)
def test_check_of_listeners_that_collide_names_both(config_: Config, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(config_)
    assert str(caught.value) == message


def test_check_of_a_listener_that_relays_to_itself_refuses_it() -> None:
    """Its first client would be relayed in a loop until max_sessions is reached."""
    upstream = (UpstreamAddress("192.0.2.1", 7000), UpstreamAddress("127.0.0.1", 7000))
    listener = Listener("a", Address("::", 7000), "p", upstream=upstream)
    with pytest.raises(ConfigError, match=r"^listener a: the upstream of \[::\]:7000 is this listener itself: "):
        config.check(Config(Server(), (), (listener,)))
    listener = dataclasses.replace(listener, upstream=upstream[:1])
    config.check(Config(Server(), (), (listener,)))


NETWORK = (ip_network("192.0.2.0/24"),)


@pytest.mark.parametrize(
    "settings",
    [
        {"allow_networks": NETWORK, "deny_networks": NETWORK},
        {"proxy_protocol": True},
        {"proxy_networks": NETWORK},
        {"upstream": (UpstreamAddress("127.0.0.1", 7000),)},
        {"tls": ("games",), "upstream_proxy": "v1", "upstream_proxy_tls": True},
        {"tls": ("games",), "upstream_proxy_tls": True},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(("name", "title"), [("games", "listener games: "), (None, "listener [::]:7000: ")])
def test_check_of_settings_that_exclude_each_other_names_the_listener(
    name: str | None, title: str, settings: dict[str, Any]
) -> None:
    other = Listener("other", Address("::", 843), "p")
    listener = Listener(name, Address("::", 7000), "p", **settings)
    with pytest.raises(ConfigError) as caught:
        config.check(Config(Server(), (), (other, listener)))
    assert str(caught.value).startswith(title)


V4, V6, UNIX = UpstreamAddress("10.0.0.9", 7001), UpstreamAddress("fd00::9", 7001), UpstreamAddress("", 0, "/run/game")
NAMED = UpstreamAddress("game", 7001)
PROXIED: dict[str, Any] = {"proxy_protocol": True, "proxy_networks": NETWORK}


@pytest.mark.parametrize(
    ("address", "upstream", "settings", "message"),
    [
        (Address("::", 7000), (V4,), {}, None),
        (Address("::", 7000), (V6, NAMED), {"upstream_proxy": "v2"}, None),
        (Address("0.0.0.0", 7000), (V4, NAMED), {}, None),
        (Address("2001:db8::1", 7000), (V6,), {}, None),
        (SystemdSocket("game"), (V4, V6), {}, None),
        (Address("0.0.0.0", 7000), (V6,), PROXIED, None),
        (Address("0.0.0.0", 7000), (V6,), {"websocket": (WebSocketPath("*"),), "forwarded_networks": NETWORK}, None),
        (Address("::", 7000), (V4,), {"websocket": (WebSocketPath("/a", (UNIX,)),)}, "unix:/run/game, since a Unix"),
        (
            Address("0.0.0.0", 7000),
            (V4, V6),
            {},
            "[fd00::9]:7001: no client of 0.0.0.0:7000 has an IPv6 address; write",
        ),
        (
            Address("2001:db8::1", 1),
            (V4,),
            {},
            "10.0.0.9:7001: no client of [2001:db8::1]:1 has an IPv4 address; write",
        ),
        (Address("::", 7000), (V4, UNIX), {}, "unix:/run/game, since a Unix socket has no address"),
        (Address("::", 7000), (UNIX,), PROXIED, "unix:/run/game, since a Unix socket has no address"),
    ],
)
def test_check_of_upstreams_that_no_client_address_reaches_names_them(
    address: config.Endpoint, upstream: tuple[UpstreamAddress, ...], settings: dict[str, Any], message: str | None
) -> None:
    listener = Listener("a", address, "p", upstream=upstream, upstream_source="client", **settings)
    config_ = Config(Server(), (), (listener,))
    assert listener.transparent
    assert listener.source_addresses == ()
    if message is None:
        config.check(config_)
        return
    with pytest.raises(ConfigError) as caught:
        config.check(config_)
    assert f'listener a: upstream_source = "client" cannot reach {message}' in str(caught.value)


def test_addresses_of_this_host_are_not_the_clients() -> None:
    listener = Listener("a", Address("::", 7000), "p", upstream=(UNIX,), upstream_source=(ip_address("192.0.2.1"),))
    assert (listener.transparent, listener.source_addresses) == (False, listener.upstream_source)
    config.check(Config(Server(), (), (listener,)))
