"""TOML that `render` writes means the same when `load` reads it again."""

import dataclasses
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol import config
from flashpol.config import (
    EVERY_PATH_TO_UPSTREAM,
    Address,
    CertificateSource,
    Config,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    ProtocolUpstreams,
    Server,
    SystemdSocket,
    UpstreamAddress,
    WebSocketPath,
    describe,
    settings_of,
)
from flashpol.config.setting_types import Number
from flashpol.config.settings import ENCRYPTING, RELAYING, TLS_PROFILES
from testkit.examples import examples


def read(folder: Path, text: str) -> Config:
    path = folder / "rendered.toml"
    path.write_text(text, encoding="ascii")
    return config.load(path)


def test_defaults_loaded_are_the_default_server_and_an_example(tmp_path: Path) -> None:
    found = read(tmp_path, config.defaults())
    assert found.server == Server()
    assert found.policies == (PolicySource("games", grants=("*.example.com:1935,8000",)),)
    assert found.listeners == (Listener(None, Address("::", 843), "games"),)


def test_defaults_describe_every_setting() -> None:
    text = config.defaults()
    prose = " ".join(re.findall(r"^# (.*)$", text, re.MULTILINE))
    for owner in (
        Server,
        ConnectionTimeouts,
        ConnectionLimits,
        CertificateSource,
        PolicySource,
        Listener,
        WebSocketPath,
        ProtocolUpstreams,
    ):
        for name, setting in settings_of(owner).items():
            assert re.search(rf"^#?{name} = .", text, re.MULTILINE), name
            assert describe(setting) in prose


def test_defaults_with_every_comment_removed_load(tmp_path: Path) -> None:
    text = re.sub(r"^#(?! )", "", config.defaults(), flags=re.MULTILINE)
    for key in ("folder", "grants", "deny_all", "websocket", "upstreams"):
        text = re.sub(rf"^{key} = .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r'^tls = "127.*$', "", text, flags=re.MULTILINE)  # the listener of the example ends TLS
    read_ = config.check(read(tmp_path, text))
    assert read_.policies == (PolicySource("games", file=tmp_path / "games.xml"),)
    assert read_.certificates == (CertificateSource("games", tmp_path / "fullchain.pem", tmp_path / "privkey.pem"),)
    settings = {
        "allow_networks": (ip_network("192.0.2.0/24"),),
        "deny_networks": (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")),
        "proxy_protocol": True,
        "proxy_networks": (ip_network("10.0.0.0/8"),),
        "tls": ("games",),
        "upstream": (UpstreamAddress("127.0.0.1", 7000),),
        "upstreams": ProtocolUpstreams(*((UpstreamAddress("127.0.0.1", port),) for port in (1936, 1937, 8080))),
        "upstream_source": (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
        "upstream_proxy": "v2",
        "rtmpt": True,
        "websocket": (WebSocketPath("/chess", (UpstreamAddress("127.0.0.1", 7001),), 7001),),
        "forwarded_networks": (ip_network("10.0.0.0/8"),),
        "crossdomain_file": tmp_path / "crossdomain.xml",
        "clientaccesspolicy_file": tmp_path / "clientaccesspolicy.xml",
    }
    assert read_.listeners == (Listener("master", Address("::", 843), "games", served_from=843, **settings),)
    assert (read_.server.user, read_.server.group, read_.server.chroot) == ("flashpol", "flashpol", Path("/srv/empty"))


def value_of(owner: type, name: str) -> st.SearchStrategy[Any]:
    kind = settings_of(owner)[name].metadata["type"]
    if isinstance(kind, Number):
        numbers = st.integers(int(kind.low), int(kind.high)) if kind.whole else st.floats(kind.low, kind.high)
        return st.just(settings_of(owner)[name].default) | numbers
    return OTHERS[name]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ENDPOINT = st.sampled_from([Address("::", 843), Address("127.0.0.1", 0), SystemdSocket('a "b"')])
IPS = st.ip_addresses().filter(lambda ip: getattr(ip, "ipv4_mapped", None) is None)
SOURCE = IPS.filter(lambda ip: not (ip.is_unspecified or ip.is_multicast))
NETWORKS = st.lists(IPS.map(ip_network), max_size=2).map(tuple)
REMOTE = st.sampled_from(
    [
        UpstreamAddress("127.0.0.1", 1),
        UpstreamAddress("::1", 65535),
        UpstreamAddress("game_1.example.com", 80),
        UpstreamAddress("", 0, '/run/a "b"'),
    ]
)
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "workers": st.integers(0, 256),
    "admin": st.none() | ENDPOINT,
    "reload_endpoint": st.booleans(),
    "user": st.none() | TEXT,
    "group": st.none() | TEXT,
    "chroot": st.none() | st.sampled_from([Path("/"), Path("/var/a b"), Path('/"\\\n')]),
    "log_file": st.none() | st.sampled_from([Path("/var/log/f.log"), Path('/var/"\\\n')]),
    "host": st.sampled_from("A0z"),
    "rtmpt": st.booleans(),
    "other_http": st.sampled_from(["relay", "refuse"]),
    "log_format": st.sampled_from(config.LOG_FORMATS),
    "exempt_networks": NETWORKS,
    "dialect": st.sampled_from(config.DIALECTS),
    "proxy_protocol": st.booleans(),
    "tls": st.just(()),
    "tls_only": st.booleans(),
    "tls_profile": st.sampled_from(TLS_PROFILES),
    "tls_strict_sni": st.booleans(),
    "upstream_proxy_tls": st.booleans(),
    "upstream": st.lists(REMOTE, max_size=3, unique=True).map(tuple),
    "upstream_source": st.just("client") | st.lists(SOURCE, max_size=3, unique=True).map(tuple),
    "upstream_proxy": st.sampled_from([None, "v1", "v2"]),
    "balance": st.sampled_from(["round-robin", "least-connections"]),
    "upstreams": st.builds(
        ProtocolUpstreams,
        **dict.fromkeys(settings_of(ProtocolUpstreams), st.lists(REMOTE, max_size=2, unique=True).map(tuple)),
    ),
    "path": st.sampled_from(["*", "/", "/chess", "/a%20b/~c'(;=)"]),
    "port": st.none() | st.integers(1, 65535),
    "origins": st.sampled_from(["policy", "any", ("https://*.example.com", "http://[::1]:8080")]),
    "without_origin": st.booleans(),
    "text": st.booleans(),
    "compression": st.booleans(),
}


def built(owner: type, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(owner, **{name: value_of(owner, name) for name in settings_of(owner)}, **more)


TIMEOUTS = built(ConnectionTimeouts)
GRANT = st.tuples(TEXT, TEXT.map(lambda ports: ports.replace(":", ""))).map(":".join)
PATHS = st.sampled_from([Path("/srv/a.xml"), Path('/srv/"q"\\é'), Path("/srv/a\tb")])
POLICIES = st.dictionaries(
    TEXT,
    st.builds(dict, grants=st.lists(GRANT, max_size=3).map(tuple)) | st.builds(dict, file=PATHS)
    | st.builds(dict, folder=PATHS) | st.builds(dict, deny_all=st.just(True)),
    min_size=1, max_size=3,
).map(lambda made: tuple(PolicySource(name, **values) for name, values in made.items()))  # fmt: skip

CERTIFICATES = st.dictionaries(
    TEXT.filter(len), st.tuples(PATHS, st.none() | PATHS), max_size=2
).map(lambda made: tuple(CertificateSource(name, *files) for name, files in made.items()))  # fmt: skip


def _loadable(listener: Listener) -> Listener:
    """Without settings that nothing of the listener needs, which the loader refuses."""
    unused = {"forwarded_networks": (), "other_http": "relay"} if not listener.takes_http else {}
    return dataclasses.replace(listener, **unused)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    policies = draw(POLICIES)
    own: dict[str, st.SearchStrategy[Any]] = {
        "name": st.none() | TEXT.filter(str.strip),
        "address": ENDPOINT,
        "policy": st.sampled_from([source.name for source in policies]),
        "served_from": st.none() | st.integers(1, 65535),
        "allow_networks": NETWORKS,
        "deny_networks": NETWORKS,
        "proxy_networks": NETWORKS,
        "websocket": st.lists(built(WebSocketPath), max_size=2).map(tuple) | st.just(EVERY_PATH_TO_UPSTREAM),
        "crossdomain_file": st.none() | PATHS,
        "clientaccesspolicy_file": st.none() | PATHS,
        "forwarded_networks": NETWORKS,
    }
    certificates = draw(CERTIFICATES)
    rest = {name: value_of(Listener, name) for name in settings_of(Listener) if name not in own}
    # A listener with neither an upstream nor a certificate, with one, with both.
    upstream, tls = rest["upstream"].filter(len), st.just(tuple(each.name for each in certificates))
    kinds = [({}, {*RELAYING, *ENCRYPTING}), ({"upstream": upstream}, {*ENCRYPTING})]
    if certificates:
        kinds += [({"tls": tls}, {*RELAYING}), ({"tls": tls, "upstream": upstream}, set())]
    listener = st.one_of(
        st.builds(
            Listener,
            **own,
            **{name: values for name, values in rest.items() if name not in {*unused, "tls", "upstream"}},
            **more,
            timeouts=st.none() | TIMEOUTS,
        )
        for more, unused in kinds
    ).map(_loadable)
    return Config(
        draw(built(Server, timeouts=TIMEOUTS, connection_limits=built(ConnectionLimits))),
        policies,
        tuple(draw(st.lists(listener, max_size=3))),
        certificates,
    )


@examples(80)
@given(configurations())
def test_as_toml_of_any_configuration_loads_the_same(tmp_path_factory: pytest.TempPathFactory, written: Config) -> None:
    comments = ["# one"] * len(written.listeners)
    back = read(tmp_path_factory.getbasetemp(), config.as_toml(written, comments))
    assert back.server == written.server
    assert back.policies == written.policies
    assert back.certificates == written.certificates
    for ours, theirs in zip(written.listeners, back.listeners, strict=True):
        assert back.timeouts(theirs) == written.timeouts(ours)
        assert dataclasses.replace(theirs, timeouts=None) == dataclasses.replace(ours, timeouts=None)


def test_as_toml_marks_defaults() -> None:
    listener = Listener("a", Address("::", 843), "p", dialect="silverlight")
    lines = config.as_toml(Config(Server(watch=1.0), (), (listener,))).splitlines()
    assert "watch = 1.0" in lines
    assert 'dialect = "silverlight"' in lines
    assert "proxy_protocol = false  # default" in lines
    assert "backlog = 65535  # default" in lines


def test_as_toml_writes_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config_ = Config(
        Server(), (PolicySource("p", file=Path("a.xml")),), (), (CertificateSource("c", Path("a.pem"), Path("b.pem")),)
    )
    text = config.as_toml(config_)
    for line in (f'file = "{tmp_path}/a.xml"', f'chain = "{tmp_path}/a.pem"', f'key = "{tmp_path}/b.pem"'):
        assert line in text


def test_as_toml_of_a_path_that_is_not_utf8_writes_question_marks(tmp_path: Path) -> None:
    source = PolicySource("p", file=Path("/srv/\udcff.xml"))
    assert read(tmp_path, config.as_toml(Config(Server(), (source,), ()))).policy("p").file == Path("/srv/?.xml")
