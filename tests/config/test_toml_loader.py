"""Configurations read from TOML, and the one-line error for each mistake."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
)
from testkit.examples import examples

POLICY = '[policies.p]\nfile = "p.xml"\n'
LISTENER = '[[listeners]]\naddress = "127.0.0.1:1"\n'
CERTIFICATE = '[certificates.games]\nchain = "chain.pem"\n'


def read(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "flashpol.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(path)


# ----------------------------------------------------------------------------------------------------------- good files


def test_load_of_a_file_with_many_settings(tmp_path: Path) -> None:
    text = """
        [server]
        workers = "auto"
        admin = "127.0.0.1:9844"
        user = "nobody"
        group = "nogroup"
        chroot = "/srv/empty"
        watch = 2
        reload_endpoint = true
        log_format = "json"
        access_log = 0.5
        backlog = 100
        shutdown_timeout = 2
        request_timeout = 1.5
        max_sessions = 7
        [policies.games]
        file = "games.xml"
        [policies.chat]
        grants = [{domain = "*.example.com", ports = "1935,8000-8100"}, {domain = "a.example", ports = 80}]
        [[listeners]]
        name = "master"
        address = "[::]:843"
        policy = "games"
        [[listeners]]
        address = "127.0.0.1:0"
        policy = "chat"
    """
    assert read(tmp_path, text) == Config(
        Server(
            workers=0,
            admin=Address("127.0.0.1", 9844),
            user="nobody",
            group="nogroup",
            chroot=Path("/srv/empty"),
            watch=2.0,
            reload_endpoint=True,
            log_format="json",
            access_log=0.5,
            backlog=100,
            shutdown_timeout=2.0,
            timeouts=ConnectionTimeouts(request_timeout=1.5),
            connection_limits=ConnectionLimits(max_sessions=7),
        ),
        (
            PolicySource("games", file=tmp_path / "games.xml"),
            PolicySource("chat", grants=("*.example.com:1935,8000-8100", "a.example:80")),
        ),
        (Listener("master", Address("::", 843), "games"), Listener(None, Address("127.0.0.1", 0), "chat")),
    )


def test_load_of_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config(Server(), (), ())


def test_listener_without_policy_takes_the_only_one(tmp_path: Path) -> None:
    assert read(tmp_path, POLICY + LISTENER).listeners[0].policy == "p"


def test_policy_with_an_absolute_file_keeps_it(tmp_path: Path) -> None:
    assert read(tmp_path, '[policies.p]\nfile = "/srv/p.xml"').policy("p").file == Path("/srv/p.xml")


def test_policy_folder_is_relative_to_the_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, '[policies.p]\nfolder = "d"').policies == (PolicySource("p", folder=tmp_path / "d"),)


@pytest.mark.parametrize(("text", "dialect"), [("", "flash"), ("flash", "flash"), ("silverlight", "silverlight")])
def test_listener_dialect_decides_about_the_nul(tmp_path: Path, text: str, dialect: str) -> None:
    [listener] = read(tmp_path, POLICY + LISTENER + (f'dialect = "{text}"\n' if text else "")).listeners
    assert (listener.dialect, listener.terminated) == (dialect, dialect == "flash")


def test_listener_with_its_own_time_outs_overrides_the_servers(tmp_path: Path) -> None:
    own = LISTENER + "request_timeout = 0.5\nlinger_bytes = 1\n"
    text = "[server]\nrequest_timeout = 9\nreply_timeout = 8\n" + POLICY + own + LISTENER.replace(":1", ":2")
    config_ = read(tmp_path, text)
    first, second = config_.listeners
    assert config_.timeouts(first) == ConnectionTimeouts(request_timeout=0.5, reply_timeout=8.0, linger_bytes=1)
    assert config_.timeouts(second) is config_.server.timeouts
    assert config_.server.timeouts == ConnectionTimeouts(request_timeout=9.0, reply_timeout=8.0)


def test_listener_with_upstreams_is_a_shared_port(tmp_path: Path) -> None:
    text = POLICY + LISTENER + "upstream = ['a.example:7000', 'unix:/run/b']\nupstream_proxy = 'v1'\nidle_timeout = 0\n"
    config_ = config.check(read(tmp_path, "[server]\ndrain_timeout = 60\n" + text + LISTENER.replace(":1", ":2")))
    shared, plain = config_.listeners
    assert (shared.shared, plain.shared) == (True, False)
    assert config_.upstreams == [(0, UpstreamAddress("a.example", 7000)), (0, UpstreamAddress("", 0, "/run/b"))]
    assert (shared.upstream_proxy, config_.timeouts(shared).idle_timeout) == ("v1", 0)
    assert config_.draining == 60
    assert config.check(read(tmp_path, POLICY + LISTENER)).draining == Server().shutdown_timeout


def test_certificate_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    text = CERTIFICATE + "[certificates.chat]\nchain = '/etc/c.pem'\nkey = 'k.pem'\n"
    assert read(tmp_path, text).certificates == (
        CertificateSource("games", tmp_path / "chain.pem"),
        CertificateSource("chat", Path("/etc/c.pem"), tmp_path / "k.pem"),
    )


def test_listener_with_certificates_has_its_own_tls_settings(tmp_path: Path) -> None:
    text = "[server]\nmax_handshakes = 9\ntls_handshake_timeout = 4\n" + CERTIFICATE + POLICY + LISTENER
    text += "tls = ['games']\ntls_only = true\ntls_profile = 'flash'\ntls_strict_sni = true\ntls_tickets = 2\n"
    text += "tls_handshake_timeout = 3\nupstream = 'a:1'\nupstream_proxy = 'v2'\nupstream_proxy_tls = true\n"
    config_ = config.check(read(tmp_path, text + LISTENER.replace(":1", ":2")))
    encrypted, plain = config_.listeners
    assert (encrypted.tls, encrypted.tls_only, encrypted.tls_profile) == (("games",), True, "flash")
    assert (encrypted.tls_strict_sni, encrypted.tls_tickets, encrypted.upstream_proxy_tls) == (True, 2, True)
    assert (plain.tls, plain.tls_only, plain.tls_profile, plain.tls_tickets) == ((), False, "modern", 0)
    assert [config_.timeouts(each).tls_handshake_timeout for each in config_.listeners] == [3.0, 4.0]
    assert config_.server.connection_limits.max_handshakes == 9


def test_load_of_systemd_sockets(tmp_path: Path) -> None:
    text = "[server]\nadmin = 'systemd:metrics'\n" + POLICY + "[[listeners]]\naddress = 'systemd:policy'"
    config_ = config.check(read(tmp_path, text))
    assert config_.server.admin == SystemdSocket("metrics")
    assert config_.listeners[0].address == SystemdSocket("policy")


def test_admin_off_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, '[server]\nadmin = "off"').server.admin is None


# ------------------------------------------------------------------------------------------------------------ bad files


def test_load_of_an_endless_file_stops_at_the_limit() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: larger than 1,048,576 bytes: is this a configuration file"):
        config.load(Path("/dev/zero"))


# Text of the file -> the position of the mistake, and words of the error: the name, and what to do.
BAD = {
    "nonsense": ("1", "not TOML: ", "Expected '='"),
    "a = 1\na = 2\n": ("2:6", "not TOML: ", "remove one"),
    b"# \xff": ("1", "not TOML: ", "byte 0xff", "UTF-8"),
    "x = " + "[" * 5000: ("", "not TOML: "),
    "[server]\nbacklog = " + "1" * 5000: ("", "digits"),
    "[server]\nbacklog = 0x" + "f" * 5000: ("", "flashpol.toml: "),
    "serve = 1": ("1:1", "top level", "unknown key 'serve'", "did you mean 'server'?"),
    "server = 1": ("1:1", "top level", "server = 1", "write [server]"),
    "policies = []": ("1:1", "top level", "policies = […]", "write [policies.NAME]"),
    "listeners = {}": ("1:1", "top level", "write [[listeners]]"),
    "[listeners]\naddress = '127.0.0.1:1'": ("1:1", "top level", "listeners = ", "write [[listeners]]"),
    "listeners = [1]": ("1:14", "[[listeners]] 1", "must be a table"),
    "[policies]\np = 1": ("2:1", "[policies.p]", "must be a table"),
    "[server]\nworker = 1": ("2:1", "[server]", "unknown key 'worker'", "did you mean 'workers'?"),
    "[server]\nlimits = {}": ("2:1", "[server]", "unknown key 'limits'"),
    "[server]\nworkers = 0": ("2:1", "workers = 0", "a number from 1 to 256"),
    "[server]\nworkers = true": ("2:1", "[server]", 'write "auto" or a number from 1 to 256'),
    "[server]\nworkers = 1.0": ("2:1", "[server]", "workers = 1.0", 'write "auto" or a number from 1 to 256'),
    "[server]\nworkers = 'many'": ("2:1", "workers = 'many'", "a number from 1 to 256"),
    "[server]\nadmin = 'on'": ("2:1", "'on'", "write IP:PORT"),
    "[server]\nadmin = false": ("2:1", "[server]", '"off"'),
    "[server]\nuser = 0": ("2:1", "[server]", "user = 0", "write a user name"),
    "[server]\nbacklog = 0": ("2:1", "[server]", "backlog = 0", "write a whole number from 1 to 65535"),
    "[server]\nbacklog = 1.5": ("2:1", "[server]", "backlog = 1.5", "write a whole number from"),
    "[server]\nbacklog = '5'": ("2:1", "[server]", "backlog = '5'", "write a whole number from"),
    "[server]\nrequest_timeout = 0": ("2:1", "[server]", "request_timeout = 0", "write a number from 0.05 to 3600"),
    "[server]\nrequest_timeout = nan": ("2:1", "[server]", "request_timeout = nan", "write a number from"),
    "[server]\nrequest_timeout = inf": ("2:1", "[server]", "request_timeout = inf", "write a number from"),
    "[server]\nrequest_timeout = true": ("2:1", "[server]", "write a number from"),
    "[server]\nrequest_timeout = 07:30:00": ("2:1", "[server]", "request_timeout = ", "write a number from"),
    "[server]\ngroup = 0": ("2:1", "[server]", "group = 0", "write a group name"),
    "[server]\nchroot = 'jail'": ("2:1", "[server]", "chroot = 'jail'", "absolute path"),
    '[server]\nchroot = "/a\\u0000"': ("2:1", "[server]", "absolute path"),
    "[server]\nwatch = 0.01": ("2:1", "[server]", "watch = 0.01", "write 0 (off) or a number from 0.1 to 3600"),
    "[server]\nwatch = true": ("2:1", "[server]", "write 0 (off)"),
    "[server]\nwatch = nan": ("2:1", "[server]", "watch = nan", "write 0 (off)"),
    "[server]\nreload_endpoint = 1": ("2:1", "[server]", "reload_endpoint = 1", "write true or false"),
    "[server]\nlog_format = 'xml'": ("2:1", "[server]", "log_format = 'xml'", 'write "text" or "json"'),
    "[server]\naccess_log = 2": ("2:1", "[server]", "access_log = 2", "write a number from 0 to 1"),
    "[server]\naccess_log = true": ("2:1", "[server]", "write a number from 0 to 1"),
    POLICY + LISTENER + "request_timeout = 0": ("5:1", "[[listeners]] 1", "request_timeout = 0", "from 0.05 to 3600"),
    POLICY + "[[listeners]]\naddress = 'systemd:'": ("4:1", "[[listeners]] 1", "'systemd:'", "write systemd:NAME"),
    "[policies.p]": ("1:1", "[policies.p]", "set exactly one of file, folder, grants and deny_all"),
    "[policies.p]\nfile = 'p'\ngrants = []": ("1:1", "[policies.p]", "set exactly one of file"),
    "[policies.p]\nfile = 'p'\nfolder = 'p'": ("1:1", "[policies.p]", "set exactly one of file"),
    "[policies.p]\nfile = 1": ("2:1", "[policies.p]", "file = 1", "write a file name"),
    '[policies.p]\nfile = "a\\u0000b"': ("2:1", "[policies.p]", "file = 'a\\x00b'", "write a file name"),
    '[policies."a\\nb"]': ("1:1", "[policies.", "a\\nb", "set exactly one of file, folder, grants and deny_all"),
    "[policies.p]\nfolder = 1": ("2:1", "[policies.p]", "folder = 1", "write a folder name"),
    "[policies.p]\nfiles = 'p'": ("2:1", "[policies.p]", "unknown key 'files'", "did you mean 'file'?"),
    POLICY + LISTENER + "dialect = 'Flash'": ("5:1", "dialect = 'Flash'", 'write "flash" or "silverlight"'),
    POLICY + LISTENER + "dialect = 1": ("5:1", "[[listeners]] 1", "dialect = 1", 'write "flash" or "silverlight"'),
    "[policies.p]\ngrants = 'a:1'": ("2:1", "[policies.p]", "grants = 'a:1'", "write [{domain = "),
    "[policies.p]\ngrants = ['a:1']": ("2:11", "[policies.p], grant 1", "must be a table"),
    "[policies.p]\ngrants = [{}]": ("2:11", "[policies.p], grant 1", "domain is missing", "write a domain"),
    "[policies.p]\ngrants = [{domain = 'a', ports = 1}, {domain = 'b'}]": (
        "2:38",
        "grant 2",
        "ports is missing",
        "write ports",
    ),
    "[policies.p]\ngrants = [{domain = 'a', ports = true}]": ("2:26", "grant 1", "write ports"),
    "[policies.p]\ngrants = [{domain = 'a', ports = 1, secure = 1}]": (
        "2:37",
        "grant 1",
        "unknown key 'secure'",
        "domain, ports",
    ),
    POLICY + "[[listeners]]": ("3:1", "[[listeners]] 1", "address is missing", 'write "IP:PORT" or "systemd:NAME"'),
    POLICY + "[[listeners]]\naddress = 843": (
        "4:1",
        "[[listeners]] 1",
        "address = 843",
        'write "IP:PORT" or "systemd:NAME"',
    ),
    POLICY + "[[listeners]]\naddress = 'all'": ("4:1", "'all'", "write IP:PORT"),
    POLICY + LISTENER + "upstream = 'localhost'": ("5:1", "[[listeners]] 1", "'localhost'", "write HOST:PORT"),
    POLICY + LISTENER + "upstream = []": ("5:1", "[[listeners]] 1", "upstream = […]", '"unix:/PATH" or a list'),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = ['192.0.2.1', '192.0.2.1']": (
        "6:1",
        "[[listeners]] 1",
        "upstream_source: '192.0.2.1' is listed twice",
    ),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = '0.0.0.0'": (
        "6:1",
        "[[listeners]] 1",
        "upstream_source: '0.0.0.0' is not the address of a host",
    ),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = '::ffff:192.0.2.1'": (
        "6:1",
        "[[listeners]] 1",
        "is an IPv4-mapped IPv6 address; write 192.0.2.1",
    ),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = 'fe80::1%eth0'": (
        "6:1",
        "[[listeners]] 1",
        "upstream_source = 'fe80::1%eth0': write an IP address, such as",
    ),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = ['client', '192.0.2.1']": (
        "6:1",
        "[[listeners]] 1",
        'upstream_source: "client" goes with no address: write "client" alone, or addresses',
    ),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_source = 'server'": (
        "6:1",
        "[[listeners]] 1",
        "upstream_source = 'server': write an IP address, such as",
    ),
    POLICY + LISTENER + "upstream_source = '192.0.2.1'": (
        "5:1",
        "[[listeners]] 1",
        "upstream_source needs a shared port",
    ),
    POLICY + LISTENER + "upstream = ['a:1', 'a:1']": ("5:1", "[[listeners]] 1", "upstream: 'a:1' is listed twice"),
    POLICY + LISTENER + "upstream_proxy = 'v2'": ("5:1", "[[listeners]] 1", "upstream_proxy", "set upstream too"),
    "certificates = []": ("1:1", "top level", "write [certificates.NAME]"),
    "[certificates.c]": ("1:1", "[certificates.c]", "chain is missing", 'chain = "fullchain.pem"'),
    "[certificates.c]\nchain = 'c'\nkey = 1": ("3:1", "[certificates.c]", "key = 1", "write a file name"),
    '[certificates.c]\nchain = "a\\u0000b"': ("2:1", "[certificates.c]", "write a file name"),
    "[certificates.c]\ncert = 'c'": ("2:1", "unknown key 'cert': write chain = "),
    "[certificates.c]\nchian = 'c'": ("2:1", "[certificates.c]", "did you mean 'chain'?"),
    POLICY + LISTENER + "certificate = 'c'": ("5:1", "unknown key 'certificate': write tls = ", "[certificates.NAME]"),
    POLICY + LISTENER + "tls = []": ("5:1", "[[listeners]] 1", "tls = […]", 'such as ["games"]'),
    POLICY + LISTENER + "tls = 'c'": ("5:1", "[[listeners]] 1", "tls = 'c'", 'such as ["games"]'),
    POLICY + LISTENER + "tls = ['c', 1]": ("5:1", "[[listeners]] 1", 'such as ["games"]'),
    POLICY + LISTENER + "tls = ['c', 'c']": ("5:1", "[[listeners]] 1", "tls: 'c' is listed twice: remove one"),
    POLICY + LISTENER + "tls = ['c']": ("5:1", "tls names 'c': no certificate is defined; write [certificates.c]"),
    CERTIFICATE + POLICY + LISTENER + "tls = ['d']": (
        "7:1",
        "tls names 'd'",
        "no certificate has this name; write one of games",
    ),
    CERTIFICATE + POLICY + LISTENER + "tls = ['game']": ("7:1", "[[listeners]] 1", "did you mean 'games'?"),
    POLICY + LISTENER + "tls_only = true": ("5:1", "[[listeners]] 1", "tls_only needs a certificate: set tls too"),
    POLICY + LISTENER + "tls_profile = 'flash'": ("5:1", "[[listeners]] 1", "tls_profile needs a certificate"),
    POLICY + LISTENER + "tls_strict_sni = true": ("5:1", "[[listeners]] 1", "tls_strict_sni needs a certificate"),
    POLICY + LISTENER + "tls_tickets = 2": ("5:1", "[[listeners]] 1", "tls_tickets needs a certificate"),
    POLICY + LISTENER + "tls_profile = 'old'": ("5:1", 'write "modern" or "compatible" or "flash"'),
    POLICY + LISTENER + "tls_tickets = -1": ("5:1", "write a whole number from 0 to 8"),
    POLICY + LISTENER + "upstream_proxy_tls = true": ("5:1", "upstream_proxy_tls needs a shared port"),
    POLICY + LISTENER + "upstream = 'a:1'\nupstream_proxy_tls = true": (
        "6:1",
        "upstream_proxy_tls needs a certificate",
    ),
    POLICY + LISTENER + "max_handshakes = 5": ("5:1", "unknown key 'max_handshakes': it belongs in [server]"),
    "[server]\nmax_handshakes = 0": ("2:1", "write a whole number from 1 to 1000000"),
    "[server]\ntls = ['c']": ("2:1", "unknown key 'tls': it belongs in [[listeners]]"),
    POLICY + LISTENER + "balance = 'random'": ("5:1", "[[listeners]] 1", 'write "round-robin" or'),
    POLICY + LISTENER + "served_from = 0": ("5:1", "[[listeners]] 1", "write a whole number from 1 to 65535"),
    POLICY + LISTENER + "name = ' '": ("5:1", "[[listeners]] 1", "name = ' '", "write a name"),
    POLICY + LISTENER + "name = 1": ("5:1", "[[listeners]] 1", "name = 1", "write a name"),
    POLICY + LISTENER + "policy = 'q'": (
        "5:1",
        "[[listeners]] 1",
        "policy = 'q'",
        "no policy has this name; write one of p",
    ),
    POLICY + LISTENER + "polcy = 'p'": ("5:1", "[[listeners]] 1", "unknown key 'polcy'", "did you mean 'policy'?"),
    POLICY + "[policies.q]\nfile = 'q'\n[[listeners]]\naddress = \"127.0.0.1:1\"\n": (
        "5:1",
        "[[listeners]] 1",
        "policy",
        "write one of p, q",
    ),
    LISTENER: ("1:1", "[[listeners]] 1", "policy", "none is defined"),
    "[server\nworkers = 1": ("1:8", "not TOML: "),
    "workers = 1": ("1:1", "it belongs in [server]"),
    "[server]\nmax_conversations = 5": (
        "2:1",
        "max_conversations was renamed: write max_sessions for relayed sessions, max_slow_replies for slow replies",
    ),
    POLICY + LISTENER + "max_conversations = 5": ("5:1", "[[listeners]] 1", "max_sessions", "both in [server]"),
    "[server]\naddress_table = 5": ("2:1", "address_table was renamed: write address_table_size"),
    POLICY + LISTENER + "max_connections = 5": ("5:1", "unknown key 'max_connections': it belongs in [server]"),
    "[server]\nlisten = '[::]:843'": ("2:1", 'write [[listeners]] and in it address = "[::]:843"'),
    "[server]\nlisteners = []": ("2:1", "unknown key 'listeners': write [[listeners]], a table of its own"),
    "[policies.p]\nallow = []": ("2:1", "write grants = [{domain = "),
    "[server]\nfile = 'p'": ("2:1", "it belongs in [policies.NAME]"),
    "[server]\nadmin = 127.0.0.1:1": ("2:14", "not TOML: ", "text in quotes"),
    "[listeners]\naddress = '127.0.0.1:1'\n[listeners]\naddress = '127.0.0.1:2'": (
        "3:11",
        "not TOML: ",
        "[[listeners]]",
    ),
    "[server]\nuser = 'a\nb": ("3", "not TOML: "),
    POLICY + "[policies.games]\nfile='g'\n[[listeners]]\naddress = \"127.0.0.1:1\"\npolicy = 'gamse'": (
        "7:1",
        "[[listeners]] 1",
        "policy = 'gamse'",
        "did you mean 'games'?",
    ),
    POLICY + LISTENER + "\n  [[listeners]]\naddress = \"127.0.0.1:2\"\n  'user' = 1": (
        "8:3",
        "[[listeners]] 2",
        "unknown key 'user'",
        "it belongs in [server]",
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=lambda value: repr(value)[:50])
def test_load_of_a_mistake_is_one_line_with_position_and_advice(
    tmp_path: Path, text: str | bytes, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    place, *parts = words
    assert message.startswith(f"{tmp_path / 'flashpol.toml'}{place and ':'}{place}: ")
    assert "\n" not in message
    for word in parts:
        assert word in message


ACCESS = {
    "allow_networks = ['192.0.2.0/24', '198.51.100.7', '2001:db8::/32']": None,
    "allow_networks = []": "write networks, such as",
    "allow_networks = [1]": "write networks, such as",
    "allow_networks = '192.0.2.0/24'": "write networks, such as",
    "deny_networks = ['192.0.2.1/24']": "'192.0.2.1/24' is an address in 192.0.2.0/24: write that network, or",
    "deny_networks = ['192.0.2.0/33']": "'192.0.2.0/33' is not a network: write IP/PREFIX",
    "deny_networks = ['example.com']": "'example.com' is not a network",
    "deny_networks = ['192.0.2.0/255.255.255.0']": "write the prefix as a number of bits: 192.0.2.0/24",
    "deny_networks = ['::ffff:192.0.2.0/120']": "is an IPv4-mapped IPv6 network; write 192.0.2.0/24",
    "deny_networks = ['192.0.2.0/24']\nallow_networks = ['192.0.2.0/24']": "192.0.2.0/24 is in both",
    "proxy_protocol = true": "proxy_protocol = true requires proxy_networks",
    "proxy_networks = ['10.0.0.0/8']": "proxy_networks requires proxy_protocol = true",
    "proxy_protocol = true\nproxy_networks = ['10.0.0.0/8']": None,
}


@pytest.mark.parametrize(("text", "words"), ACCESS.items())
def test_network_lists_are_loaded_and_checked(tmp_path: Path, text: str, words: str | None) -> None:
    whole = POLICY + LISTENER + text + "\n"
    if words is None:
        [listener] = config.check(read(tmp_path, whole)).listeners
        assert listener.allow_networks or listener.proxy_networks
        return
    with pytest.raises(ConfigError) as caught:
        config.check(read(tmp_path, whole))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'flashpol.toml'}:")
    assert words in message
    assert "\n" not in message


def test_connection_limits_belong_to_the_server(tmp_path: Path) -> None:
    text = "[server]\nmax_connections = 7\nmax_address_rate = 8\nipv6_prefix = 48\n" + POLICY + LISTENER
    assert read(tmp_path, text).server.connection_limits == ConnectionLimits(
        max_connections=7, max_address_rate=8, ipv6_prefix=48
    )
    with pytest.raises(ConfigError, match=r"unknown key 'max_connections': it belongs in \[server\]"):
        read(tmp_path, POLICY + LISTENER + "max_connections = 7\n")
    with pytest.raises(ConfigError, match="write a whole number from 0 to 60000"):
        read(tmp_path, "[server]\nmax_address_connections = 60001\n")


CONFLICTS = {
    LISTENER + "  " + LISTENER: (
        "5:3",
        "two listeners are on 127.0.0.1:1: change one (the other one: ",
        ":3:1)",
    ),
    LISTENER + "name = 'a'\n" + LISTENER.replace(":1", ":2") + "name = 'a'\n": (
        "6:1",
        "two listeners are named a: rename one (the other one: ",
        ":3:1)",
    ),
    LISTENER + LISTENER.replace("127.0.0.1", "0.0.0.0"): (
        "3:1",
        "127.0.0.1:1 overlaps 0.0.0.0:1, which serves it too",
        ":5:1)",
    ),
    LISTENER + "[server]\nadmin = '127.0.0.1:1'\n": ("3:1", "a listener and the admin endpoint are on 127.0.0.1:1"),
}


@pytest.mark.parametrize(("text", "words"), CONFLICTS.items())
def test_check_of_a_conflict_names_both_positions(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(read(tmp_path, POLICY + text))
    place, *parts = words
    assert str(caught.value).startswith(f"{tmp_path / 'flashpol.toml'}:{place}: ")
    for word in parts:
        assert word in str(caught.value)


def test_load_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbf[server]\nworkers = 1\n").server.workers == 1


@pytest.mark.parametrize(
    ("name", "why"), [("none.toml", "No such file"), (".", "Is a directory"), ("a/b", "No such file")]
)
def test_load_of_an_unreadable_file_says_why(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        config.load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be read: ")


# ----------------------------------------------------------------------------------------------------- any input at all

KEYS = st.sampled_from([
    "server", "policies", "listeners", "workers", "admin", "user", "backlog", "request_timeout", "linger_bytes", "file",
    "grants", "domain", "ports", "name", "address", "policy", "x",
    "watch", "chroot", "reload_endpoint",
])  # fmt: skip
SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes() | st.dates() | st.times()
    | st.sampled_from(["auto", "off", "127.0.0.1:1", "[::]:843", "p"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


@examples(150)
@given(st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=5))
def test_load_of_any_table_is_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, table: dict
) -> None:
    lines = [f"{toml(key)} = {toml(value)}" for key, value in table.items()]
    load_or_one_line(tmp_path_factory, "\n".join(lines).encode())


@examples(100)
@given(st.binary() | st.text("[]{}=\"\\\n0123456789xabeserv.#_-+'", max_size=60).map(str.encode))
def test_load_of_any_bytes_is_a_configuration_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    load_or_one_line(tmp_path_factory, data)


def load_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    try:
        result: Config | str = config.load(path)
    except ConfigError as error:
        result = str(error)
    assert isinstance(result, Config) or result.isprintable()
