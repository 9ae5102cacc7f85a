"""Certificates of a running server: a reload or a watched file takes new ones, and a bad one changes nothing."""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.certificates import CA, CertificateFiles, in_days, make_ca, make_key
from testkit.clients import REQUEST
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, one_line, run

pytestmark = pytest.mark.slow

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

HOST = "games.example.com"


class Site:
    """A server with one certificate, whose files are links as certbot makes them: live/… into archive/…."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, make_ca(folder / "ca")
        self.live = CertificateFiles(folder / "live" / "fullchain.pem", folder / "live" / "privkey.pem", self.ca.file)
        self.live.chain.parent.mkdir()
        self.config = folder / "flashpol.toml"
        self.numbers = 0
        self.renew()

    def write(self, server: str = "") -> None:
        self.config.write_text(
            f'[server]\nadmin = "127.0.0.1:0"\nworkers = 2\n{server}\n{self.live.toml()}'
            '[policies.main]\ngrants = [{domain = "*", ports = "1935"}]\n'
            '[[listeners]]\naddress = "127.0.0.1:0"\ntls = ["games"]\n'
        )

    def issue(self, **options: object) -> CertificateFiles:
        """New files in archive/, to which no link leads."""
        self.numbers += 1
        into = self.folder / "archive" / str(self.numbers)
        return self.ca.issue(HOST, intermediate=True, into=into, **options)  # type: ignore[arg-type]

    def link(self, chain: Path, key: Path) -> None:
        for link, file in ((self.live.chain, chain), (self.live.key, key)):
            link.unlink(missing_ok=True)
            link.symlink_to(file)

    def renew(self, **options: object) -> str:
        """SHA-256 of the new certificate."""
        files = self.issue(**options)
        self.link(files.chain, files.key)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(files.chain.read_text().split("-----END")[0] + END)).hexdigest()

    def serve(self, server: str = "", **options: object) -> Flashpol:
        self.write(server)
        return Flashpol("-c", self.config, listen=(), admin=None, workers=None, **options)  # type: ignore[arg-type]


END = "-----END CERTIFICATE-----\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextlib.contextmanager
def client(server: Flashpol, ca: CA) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=ca.file)
    with (
        socket.create_connection(server.place, DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as wrapped,
    ):
        yield wrapped


def served(server: Flashpol, ca: CA) -> str:
    """SHA-256 of the certificate that a client gets."""
    with client(server, ca) as wrapped:
        return hashlib.sha256(wrapped.getpeercert(True) or b"").hexdigest()


def reload(server: Flashpol, *, accepted: bool) -> None:
    word = " reloaded: " if accepted else "not reloaded"
    before = server.log.count(word)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.log.count(word) > before, f"{word} {server.log}")


def test_reload_takes_the_renewed_certificate_and_keeps_open_connections(site: Site) -> None:
    with site.serve() as server:
        first = served(server, site.ca)
        with client(server, site.ca) as early:
            second = site.renew()
            reload(server, accepted=True)
            assert {served(server, site.ca) for _ in range(8)} == {second} != {first}
            early.sendall(REQUEST)
            assert early.recv(1000).endswith(b"\0")
        assert not [line for line in server.complaints if "certificate" in line]


def test_watch_takes_the_renewed_certificate(site: Site) -> None:
    with site.serve("watch = 0.1") as server:
        second = site.renew()
        eventually(lambda: " reloaded: " in server.log, "the reload")
        assert served(server, site.ca) == second
        server.logs(f"{site.live.chain}, {site.live.key} changed; reloading")


def test_reload_with_a_bad_certificate_changes_nothing(site: Site) -> None:
    with site.serve() as server:
        first = served(server, site.ca)
        expired = site.issue(not_before=in_days(-9), not_after=in_days(-1))
        foreign, good = site.issue(), site.issue()
        for chain, key, words in (
            (expired.chain, expired.key, f"{site.live.chain}: expired on "),
            (good.chain, foreign.key, f"{site.live.key}: the private key is another certificate's: write the one"),
            (good.chain, site.folder / "missing", f"{site.live.key}: cannot be read: No such file or directory"),
        ):
            site.link(chain, key)
            reload(server, accepted=False)
            server.logs(f"{site.config}:5:1: {words}")
            assert served(server, site.ca) == first
            server.counts(0, "config_last_reload_successful")
        site.link(good.chain, good.key)
        reload(server, accepted=True)
        assert served(server, site.ca) != first


def test_reload_that_brings_the_first_certificate_forbids_core_dumps(site: Site) -> None:
    site.write()
    encrypted = site.config.read_text()
    plain = encrypted.replace(site.live.toml(), "").replace('tls = ["games"]\n', "")
    site.config.write_text(plain)
    with Flashpol("-c", site.config, listen=(), admin=None, workers=None) as server:
        site.config.write_text(encrypted)
        reload(server, accepted=True)
        eventually(lambda: len(server.children) == 3, "the end of the old processes")
        for pid in (server.process.pid, *(child.pid for child in server.children)):
            assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()


def test_start_with_a_bad_certificate_is_refused_in_one_line(site: Site) -> None:
    site.write()
    expired = site.issue(not_before=in_days(-9), not_after=in_days(-1))
    site.link(expired.chain, expired.key)
    line = one_line(run("serve", "-c", site.config))
    assert line.startswith(f"{site.config}:5:1: {site.live.chain}: expired on ")
    assert line.endswith(" UTC: renew it")


def test_start_with_findings_serves_and_logs_them(site: Site) -> None:
    site.renew(not_after=in_days(3.5), key=make_key("rsa", 4096))
    with site.serve() as server:
        assert served(server, site.ca)
        [long, end] = [line for line in server.complaints if "certificate" in line]
        assert f"WARNING: certificate games: {site.live.chain}: has a long key, RSA 4096" in long
        assert f"WARNING: certificate games: {site.live.chain}: expires in 3 days, on " in end


def test_certificate_that_expires_while_running_is_served_and_logged(site: Site) -> None:
    site.renew(not_after=in_days(3 / 86_400))
    with site.serve(prelude="import flashpol.supervisor.certificate_expiry as e; e.CHECK_EVERY = 0.5") as server:
        text = f"ERROR: certificate games: {site.live.chain}: expired on "
        eventually(lambda: text in server.log, "the error")
        context = ssl.create_default_context(cafile=site.ca.file)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(server.place, DEADLINE) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            wrapped.sendall(REQUEST)
            assert wrapped.recv(1000).endswith(b"\0")
        assert server.log.count(text) == 1
        reload(server, accepted=False)  # as a start would be
        assert os.path.exists(site.live.chain)
