"""openssl s_client: versions, names, ALPN, renegotiation, resumption, and clients as old as AIR."""

import os
import re
import subprocess
from contextlib import suppress

import pytest

from testkit.client_fixtures import Echo
from testkit.client_site import POLICY, ClientSite
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.programs import needs

pytestmark = [pytest.mark.slow, needs("openssl")]
REQUEST = b"<policy-file-request/>\0"
# s_client refuses what the system's openssl.cnf does not like, as servers do.
ANY = "ALL:@SECLEVEL=0"


def s_client(
    site: ClientSite, server: Flashpol, *arguments: str, data: bytes = REQUEST, name: str | None = "localhost"
) -> str:
    """What it prints, session and received bytes, and the alert on stderr. Fails if the certificate is not trusted."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.place[1]}", "-CAfile", str(site.ca.root)]
    command += ["-servername", name] if name else ["-noservername"]
    done = subprocess.run(
        [*command, "-verify_return_error", "-ign_eof", *arguments],
        input=data, capture_output=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return (done.stdout + done.stderr).decode("latin-1")


def policy_is_in(output: str) -> bool:
    return POLICY.decode() + "\0" in output


def certificate_of(output: str) -> str:
    [found] = re.findall(r"^subject=CN = (\S+)$", output, re.M)
    return found


class Interactive:
    """s_client that takes commands: `R` renegotiates, `k` and `K` update keys, in a line of their own."""

    def __init__(self, site: ClientSite, server: Flashpol, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{server.place[1]}", "-CAfile", site.ca.root, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
        )  # fmt: skip

    def __enter__(self) -> "Interactive":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, line: bytes) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")

    def read_until(self, *wanted: bytes) -> bytes:
        """Until one of them was printed. Fails if the output ends before."""
        assert self.process.stdout
        output = b""
        while not any(text in output for text in wanted):
            data = self.process.stdout.read(4096)
            assert data, output
            output += data
        return output


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_s_client_gets_the_policy_inside_tls_and_a_close_notify(site: ClientSite, version: str) -> None:
    with site.serve() as server:
        output = s_client(site, server, "-" + version.lower().replace("v", "").replace(".", "_"))
        assert policy_is_in(output)
        assert f"New, {version}" in output
        assert "Verification: OK" in output
        assert POLICY.decode() + "\0closed\n" in output, "close_notify, not the end of the stream alone"
        assert ask(server.place) == POLICY + b"\0", "plain text on the same port"
        server.counts(1, "tls_handshakes_total", version=version)
        server.counts(1, "tls_handshakes_total")
        server.counts(2, "replies_total")
        server.counts(0, "tls_truncated_total")
        assert server.stop() == 0
        assert not server.complaints


@pytest.mark.parametrize(
    ("arguments", "alert", "reason"),
    [
        (("-tls1", "-cipher", ANY), "protocol version", "version"),
        (("-tls1_1", "-cipher", ANY), "protocol version", "version"),
        (("-tls1_2", "-cipher", f"AES128-SHA:{ANY[-12:]}"), "handshake failure", "old_client"),
        (("-tls1_2", "-cipher", "ECDHE+AES+SHA1:@SECLEVEL=0"), "handshake failure", "old_client"),
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), "handshake failure", "old_client"),
        (("-alpn", "h2"), "no application protocol", "alpn"),
    ],
    ids=["TLS 1.0", "TLS 1.1", "RSA with CBC", "ECDHE with CBC", "RSA with AEAD", "ALPN h2"],
)
def test_modern_refuses_old_clients_with_the_alert_that_says_why(
    site: ClientSite, arguments: tuple[str, ...], alert: str, reason: str
) -> None:
    with site.serve() as server:
        output = s_client(site, server, *arguments)
        assert re.search(rf"alert {alert}", output), output
        assert "New, (NONE)" in output
        eventually(lambda: server.metrics().total("tls_handshake_failures_total", reason=reason) == 1, "the count")
        server.counts(1, "refused_total", reason="tls_handshake")
        assert policy_is_in(s_client(site, server)), "the next client"
        assert server.stop() == 0
        assert ('need tls_profile = "flash"' in server.log) == (reason == "old_client")


def test_client_without_a_suite_for_the_kind_of_key_is_refused(site: ClientSite) -> None:
    with site.serve(tls=["localhost-rsa"]) as server:
        output = s_client(site, server, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")
        assert "alert handshake failure" in output
        eventually(lambda: server.metrics().total("tls_handshake_failures_total", reason="cipher") == 1, "the count")
        assert policy_is_in(s_client(site, server))


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"])
def test_compatible_admits_ecdhe_with_cbc(site: ClientSite, cipher: str) -> None:
    with site.serve(tls_profile="compatible") as server:
        output = s_client(site, server, "-tls1_2", "-cipher", cipher)
        assert policy_is_in(output)
        assert f"New, TLSv1.2, Cipher is {cipher}" in output or f"Cipher    : {cipher}" in output
        assert "alert protocol version" in s_client(site, server, "-tls1_1", "-cipher", ANY)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1", "TLSv1.2"])
def test_flash_admits_air_with_its_only_cipher(site: ClientSite, echo: Echo, version: str) -> None:
    """AIR and Flash Player: TLS 1.2 at most, RSA key exchange and CBC. They ask for a policy, then connect again."""
    air = ("-" + version.lower().replace("v", "").replace(".", "_"), "-cipher", "AES128-SHA:@SECLEVEL=0")
    with site.serve(tls_profile="flash", upstream=echo.address) as server:
        output = s_client(site, server, *air)
        assert policy_is_in(output)
        assert re.search(rf"^ +Protocol +: {re.escape(version)}\n +Cipher +: AES128-SHA$", output, re.M)
        assert certificate_of(output) == "localhost"
        with Interactive(site, server, *air) as client:
            data = b"hello from AIR" * 1000
            client.send(data)
            client.read_until(data + b"\n")
        server.counts(2, "tls_handshakes_total", version=version)


def test_flash_still_prefers_tls_1_3(site: ClientSite) -> None:
    with site.serve(tls_profile="flash") as server:
        assert "New, TLSv1.3" in s_client(site, server)


@pytest.mark.parametrize(
    ("asked", "subject", "unknown"),
    [
        ("games.example.com", "games.example.com", 0),
        ("GAMES.example.COM", "games.example.com", 0),
        ("chess.games.example.com", "games.example.com", 0),
        ("chat.example.org", "chat.example.org", 0),
        ("a.b.games.example.com", "localhost", 1),
        ("example.net", "localhost", 1),
        (None, "localhost", 0),
    ],
)
def test_certificate_is_that_of_the_name_or_the_first(
    site: ClientSite, asked: str | None, subject: str, unknown: int
) -> None:
    with site.serve() as server:
        output = s_client(site, server, name=asked)
        assert certificate_of(output) == subject
        assert policy_is_in(output)
        server.counts(unknown, "tls_unknown_names_total")


@pytest.mark.parametrize(("algorithms", "kind"), [("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256", "RSA-PSS")])
def test_client_of_one_kind_of_key_gets_a_certificate_of_that_kind(
    site: ClientSite, algorithms: str, kind: str
) -> None:
    with site.serve() as server:
        output = s_client(site, server, "-sigalgs", algorithms, name="chat.example.org")
        assert re.search(rf"Peer signature type: {kind}$", output, re.M), output
        assert certificate_of(output) == "chat.example.org"


def test_strict_sni_refuses_an_unknown_name_and_serves_clients_without_one(site: ClientSite) -> None:
    with site.serve(tls_strict_sni=True) as server:
        assert "tlsv1 unrecognized name" in s_client(site, server, name="example.net")
        assert policy_is_in(s_client(site, server, name=None))
        assert policy_is_in(s_client(site, server, name="chat.example.org"))
        server.counts(1, "tls_handshake_failures_total", reason="name")


def test_alpn_chooses_http_1_1(site: ClientSite) -> None:
    with site.serve() as server:
        assert "ALPN protocol: http/1.1" in s_client(site, server, "-alpn", "h2,http/1.1")
        assert "No ALPN negotiated" in s_client(site, server)


def test_renegotiation_is_refused_and_ends_that_client_alone(site: ClientSite, echo: Echo) -> None:
    with (
        site.serve(upstream=echo.address) as server,
        Interactive(site, server, "-tls1_2") as other,
        Interactive(site, server, "-tls1_2") as client,
    ):
        for each in (other, client):
            each.send(b"hello")
            each.read_until(b"hello\n")
        client.send(b"R")
        client.read_until(b"no renegotiation")
        assert client.process.wait(DEADLINE) == 1
        other.send(b"still here")
        other.read_until(b"still here\n")


@pytest.mark.parametrize("command", [b"k", b"K"], ids=["of the sender", "of both"])
def test_key_update_in_a_session_is_followed(site: ClientSite, echo: Echo, command: bytes) -> None:
    with site.serve(upstream=echo.address) as server, Interactive(site, server, "-tls1_3") as client:
        client.send(b"before")
        client.read_until(b"before\n")
        for number in range(3):
            client.send(command)
            client.read_until(b"KEYUPDATE")
            client.send(b"after %d" % number)
            client.read_until(b"after %d\n" % number)


@pytest.mark.parametrize(("tickets", "resumed"), [(0, 0), (2, 5)])
def test_reconnect_resumes_only_with_tickets(site: ClientSite, tickets: int, resumed: int) -> None:
    """-reconnect connects five more times, with the session of the first."""
    with site.serve(tls_tickets=tickets) as server:
        output = s_client(site, server, "-tls1_2", "-reconnect")
        assert len(re.findall("^Reused, ", output, re.M)) == resumed
        assert len(re.findall("^New, TLSv1.2", output, re.M)) == 6 - resumed
        server.counts(resumed, "tls_resumed_total")
        server.counts(6, "tls_handshakes_total")


def test_ticket_of_tls_1_3_is_taken_by_every_worker(site: ClientSite) -> None:
    """The session is saved with the first connection, and used for the others, whichever worker they reach."""
    with site.serve("--workers", "2", tls_tickets=1) as server:
        saved = site.folder / "session"
        assert policy_is_in(s_client(site, server, "-tls1_3", "-sess_out", str(saved)))
        outputs = [s_client(site, server, "-tls1_3", "-sess_in", str(saved)) for _ in range(8)]
        assert all("Reused, TLSv1.3" in output and policy_is_in(output) for output in outputs)
        server.counts(8, "tls_resumed_total")


def test_client_that_leaves_early_is_counted_and_logged_at_no_level(site: ClientSite) -> None:
    """It closes right after the handshake, with close_notify and without a request."""
    with site.serve() as server:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.place[1]}", "-CAfile", str(site.ca.root)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE, check=True)
        eventually(lambda: server.metrics().total("tls_connections_open") == 0, "the end")
        metrics = server.metrics()
        server.counts(1, "tls_handshakes_total")
        assert metrics.total("connections_accepted_total") == 1 == metrics.total("resets_total")
        assert not server.complaints


def test_client_that_leaves_before_its_tickets_has_completed_a_handshake(site: ClientSite) -> None:
    """s_time closes each connection right after its handshake, while the server writes the tickets."""
    with site.serve(tls_tickets=2) as server:
        command = ["openssl", "s_time", "-connect", f"127.0.0.1:{server.place[1]}", "-new", "-tls1_3", "-time", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
        made = int(re.findall(r"(\d+) connections in \d+ real seconds", done.stdout)[0])
        assert made > 20
        eventually(lambda: server.metrics().total("tls_connections_open") == 0, "the end of all")
        assert server.metrics().total("tls_handshakes_total") >= made


def test_client_that_does_not_trust_the_certificate_is_counted_as_such(site: ClientSite) -> None:
    with site.serve() as server:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.place[1]}", "-verify_return_error"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert "unable to get local issuer certificate" in done.stderr
        eventually(
            lambda: server.metrics().total("tls_handshake_failures_total", reason="certificate") == 1, "the count"
        )


def test_tls_only_refuses_plain_text(site: ClientSite) -> None:
    with site.serve(tls_only=True) as server:
        assert ask(server.place) == b""
        assert policy_is_in(s_client(site, server))
        server.counts(1, "refused_total", reason="tls_only")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the workers' user and root folder")
def test_workers_without_the_right_to_read_a_key_serve_tls(site: ClientSite) -> None:
    """Root starts the server; the keys are root's, and the workers are another user in an empty folder."""
    assert all(pair.key.stat().st_mode & 0o077 == 0 for pair in site.certificates.values())
    empty = site.folder / "empty"
    empty.mkdir()
    with site.serve(server=f'user = "nobody"\nchroot = "{empty}"') as server:
        assert policy_is_in(s_client(site, server, "-tls1_3"))
        assert policy_is_in(s_client(site, server, "-tls1_2", name="chat.example.org"))
        assert server.stop() == 0
        assert not server.complaints
