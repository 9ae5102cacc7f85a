"""The settings themselves, and what only the whole can show."""

import dataclasses
import os
import tomllib

import pytest

from flashpol import config
from flashpol.config import (
    Address,
    Config,
    ConfigError,
    ConnectionTimeouts,
    Listener,
    Server,
    SystemdSocket,
    UpstreamAddress,
    kind_of,
    parse_endpoint,
    settings_of,
)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.1", 0.1), ("3600", 3600.0), (".5", 0.5), ("2.", 2.0)])
def test_watch_as_text(text: str, value: float) -> None:
    assert kind_of(Server, "watch").read_text("watch", text) == value


@pytest.mark.parametrize("text", ["", "-1", "0.05", "3601", "nan", "inf", "1e2", "1_0", "٣", " 1", "1\n", "."])
def test_no_watch_as_text(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^watch = .*: write 0 \(off\) or a number from 0.1 to 3600$"):
        kind_of(Server, "watch").read_text("watch", text)


def test_workers_auto_is_one_for_each_cpu() -> None:
    assert Server().worker_count == len(os.sched_getaffinity(0))
    assert Server(workers=3).worker_count == 3


@pytest.mark.parametrize(("given", "read"), [("auto", 0), ("1", 1), ("256", 256), (12, 12)])
def test_workers(given: str | int, read: int) -> None:
    assert kind_of(Server, "workers").read_text("workers", str(given)) == read


@pytest.mark.parametrize("text", ["", "0", "257", "-1", "1.5", "AUTO", "two", "²", "٣", 0, 257, -1])
def test_no_number_of_workers(text: str | int) -> None:
    with pytest.raises(ConfigError, match=r'^workers = .*: write "auto" or a number from 1 to 256$'):
        kind_of(Server, "workers").read("workers", text)


@pytest.mark.parametrize("owner", [Server, ConnectionTimeouts])
def test_every_setting_has_a_reason_and_a_default_within_its_bounds(owner: type) -> None:
    for field in settings_of(owner).values():
        assert field.metadata["why"]
        if field.default is not None:
            kind = field.metadata["kind"]
            assert kind.read(field.name, tomllib.loads(f"x = {kind.show(field.default)}")["x"]) == field.default


# ----------------------------------------------------------------------------------------------------------- the whole


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
        listeners((None, "127.0.0.1:0"), (None, "127.0.0.1:0")),  # --listen twice: the kernel gives each its own port
    ],
)
def test_listeners_that_differ(config_: Config) -> None:
    assert config.check(config_) is config_


@pytest.mark.parametrize(
    ("config_", "message"),
    [
        (
            listeners(("a", "[::]:843"), ("b", "0.0.0.0:843")),
            "two listeners are on port 843: [::]:843 serves 0.0.0.0:843 too: leave one out",
        ),
        (
            listeners(("a", "127.0.0.1:843"), ("b", "0.0.0.0:843")),
            "two listeners are on port 843: 0.0.0.0:843 serves 127.0.0.1:843 too: leave one out",
        ),
        (
            listeners((None, "127.0.0.1:9843")),
            "a listener and the admin endpoint are on 127.0.0.1:9843: give each its own",
        ),
        (listeners(*((None, f"127.0.0.1:{n}") for n in range(1, 1026))), "1025 listeners: 1024 at most in one server"),
        # Counted first: to compare them all with each other would take minutes.
        (listeners(*[(None, "127.0.0.1:1")] * 1025), "1025 listeners: 1024 at most in one server"),
        (listeners(), "no listener: add --listen IP:PORT or [[listeners]]"),
        (listeners((None, "systemd:x"), (None, "systemd:x")), "two listeners are on systemd:x: give each its own"),
        (
            Config(Server(admin=SystemdSocket("x")), (), listeners((None, "systemd:x")).listeners),
            "a listener and the admin endpoint are on systemd:x: give each its own",
        ),
        (
            listeners((None, "[::]:9843")),
            "a listener and the admin endpoint are on port 9843: [::]:9843 and 127.0.0.1:9843 overlap: "
            "give each its own port",
        ),
        (
            Config(Server(admin=Address("0.0.0.0", 843)), (), listeners((None, "127.0.0.1:843")).listeners),
            "a listener and the admin endpoint are on port 843: 127.0.0.1:843 and 0.0.0.0:843 overlap: "
            "give each its own port",
        ),
        (listeners(("a", "127.0.0.1:1"), ("a", "[::1]:1")), "two listeners are named a: give each its own"),
        (listeners(("a", "127.0.0.1:0"), ("a", "[::1]:0")), "two listeners are named a: give each its own"),
        (listeners(("a", "127.0.0.1:1"), ("b", "127.0.0.1:1")), "two listeners are on 127.0.0.1:1: give each its own"),
        (
            listeners((None, "127.0.0.1:1"), (None, "127.0.0.1:1")),
            "two listeners are on 127.0.0.1:1: give each its own",
        ),
    ],
)
def test_listeners_that_collide(config_: Config, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(config_)
    assert str(caught.value) == message


def test_a_listener_that_relays_to_itself() -> None:
    """The first client would become as many conversations as there may be."""
    upstream = (UpstreamAddress("192.0.2.1", 7000), UpstreamAddress("127.0.0.1", 7000))
    listener = Listener("a", Address("::", 7000), "p", upstream=upstream)
    with pytest.raises(ConfigError, match=r"the upstream of \[::\]:7000 is this listener itself: "):
        config.check(Config(Server(), (), (listener,)))
    listener = dataclasses.replace(listener, upstream=upstream[:1])
    config.check(Config(Server(), (), (listener,)))
