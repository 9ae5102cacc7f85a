"""What a real server shows of real TLS clients: metrics, status, log, and that every connection has one outcome."""

import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashpol._fastpath import REASONS
from testkit.certificates import CertificateFiles, in_days, make_ca
from testkit.clients import REQUEST, connect, reset, rest
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, Flashpol

pytestmark = pytest.mark.slow

pytest.importorskip("flashpol._tls", reason="flashpol was built without OpenSSL")

NAME = "games.example.com"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_ca(tmp_path_factory.mktemp("ca")).issue(NAME, "*.games.example.com")


@pytest.fixture(scope="module")
def server(files: CertificateFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    config = tmp_path_factory.mktemp("tls") / "flashpol.toml"
    config.write_text(
        f'[server]\ntls_handshake_timeout = 0.3\nlog_format = "json"\n{files.toml()}'
        f'[policies.games]\nfile = "{POLICY}"\n'
        '[[listeners]]\nname = "secure"\naddress = "127.0.0.1:0"\ntls = ["games"]\n'
        '[[listeners]]\nname = "plain"\naddress = "127.0.0.1:0"\n'
    )
    with Flashpol("-c", config, listen=(), workers=2) as server:
        yield server


def trusting(files: CertificateFiles) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.ca))


def shake(server: Flashpol, context: ssl.SSLContext, name: str = NAME) -> bytes:
    """The policy. Raises ssl.SSLError."""
    plain = socket.create_connection(server.place, DEADLINE)
    with context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False) as client:
        client.sendall(REQUEST)
        return rest(client)


def fails(attempt: Callable[[], object]) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        attempt()


def total(server: Flashpol, name: str, **labels: str) -> float:
    return server.metrics().total(name, listener="secure", **labels)


def counts(server: Flashpol, name: str, before: float = 0, by: float = 1, **labels: str) -> None:
    server.counts(before + by, name, listener="secure", **labels)


def events(server: Flashpol, event: str) -> list[dict[str, Any]]:
    lines = [line for line in server.log.splitlines() if line.startswith("{")]
    return [parsed for line in lines if (parsed := json.loads(line)).get("event") == event]


@pytest.mark.parametrize(
    ("version", "label"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
def test_handshake_of_a_client_is_counted_by_its_version(
    server: Flashpol, files: CertificateFiles, version: ssl.TLSVersion, label: str
) -> None:
    context = trusting(files)
    context.minimum_version = context.maximum_version = version
    before, timed = (
        total(server, "tls_handshakes_total", version=label),
        total(server, "tls_handshake_duration_seconds_count"),
    )
    assert shake(server, context).endswith(b"</cross-domain-policy>\n\0")
    counts(server, "tls_handshakes_total", before, version=label)
    counts(server, "tls_handshake_duration_seconds_count", timed)


def test_client_for_an_unknown_name_is_counted(server: Flashpol, files: CertificateFiles) -> None:
    before = total(server, "tls_unknown_names_total")
    context = trusting(files)
    context.check_hostname = False
    shake(server, context, "unknown.example.org")
    counts(server, "tls_unknown_names_total", before)


def test_old_client_is_counted_and_in_the_log_with_what_to_do(server: Flashpol, files: CertificateFiles) -> None:
    context = trusting(files)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    before = total(server, "tls_handshake_failures_total", reason="old_client")
    fails(lambda: shake(server, context))
    counts(server, "tls_handshake_failures_total", before, reason="old_client")
    [line, *_] = eventually(lambda: events(server, "tls-old-clients"), "the line")
    assert (line["level"], line["listener"], line["refused"]) == ("WARNING", "secure", 1)
    assert line["message"].endswith('AIR and Flash clients need tls_profile = "flash"')


def test_client_that_speaks_another_protocol_is_counted_by_reason(server: Flashpol, files: CertificateFiles) -> None:
    context = trusting(files)
    context.set_alpn_protocols(["h2"])
    before, refused = (
        total(server, "tls_handshake_failures_total", reason="alpn"),
        total(server, "refused_total", reason="tls_handshake"),
    )
    fails(lambda: shake(server, context))
    counts(server, "tls_handshake_failures_total", before, reason="alpn")
    counts(server, "refused_total", refused, reason="tls_handshake")


def test_overdue_handshake_is_a_timeout_and_a_client_that_leaves_a_reset(server: Flashpol) -> None:
    timeouts, resets = total(server, "timeouts_total"), total(server, "resets_total")
    with connect(server.place, b"\x16\x03\x01\x02\x00\x01") as silent:
        counts(server, "timeouts_total", timeouts)
        counts(server, "tls_handshake_failures_total", reason="timeout")
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(100)[:1] in (b"", b"\x15")
    reset(connect(server.place, b"\x16\x03\x01\x02\x00\x01"))
    counts(server, "resets_total", resets)


def test_open_tls_connections_are_a_gauge_and_hold_a_place_until_their_request(
    server: Flashpol, files: CertificateFiles
) -> None:
    plain = socket.create_connection(server.place, DEADLINE)
    with trusting(files).wrap_socket(plain, server_hostname=NAME) as client:
        counts(server, "tls_connections_open")
        counts(server, "tls_handshakes_open")
        client.sendall(REQUEST)
        counts(server, "tls_handshakes_open", by=0)
    counts(server, "tls_connections_open", by=0)


def test_every_connection_has_one_outcome_with_tls_too(server: Flashpol, files: CertificateFiles) -> None:
    shake(server, trusting(files))
    fails(lambda: shake(server, ssl.create_default_context()))
    rest(connect(server.place, REQUEST))
    fields = ("replies_total", "refused_total", "relayed_total", "timeouts_total", "resets_total")

    def balanced() -> bool:
        found = server.metrics()
        accepted = found.total("connections_accepted_total", listener="secure")
        return accepted == sum(found.total(field, listener="secure") for field in fields)

    eventually(balanced, "accepted = replies + refused + relayed + timeouts + resets")
    failures = total(server, "tls_handshake_failures_total")
    assert 1 <= failures <= sum(total(server, field) for field in ("refused_total", "timeouts_total", "resets_total"))


def test_status_has_the_tls_of_the_listener_and_none_of_the_other(server: Flashpol, files: CertificateFiles) -> None:
    shake(server, trusting(files))
    secure, plain = json.loads(server.get("/-/status").body)["listeners"]
    assert (secure["certificates"], secure["tls_profile"], plain["certificates"]) == (["games"], "modern", [])
    assert sum(secure["handshakes"].values()) > 0 == sum(plain["handshakes"].values())
    assert set(secure["refused"]) == set(REASONS)


def test_counters_of_tls_go_on_after_a_reload_that_takes_a_new_certificate(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    old, new = ca.issue(NAME), ca.issue(NAME, not_after=in_days(9.5))
    config = tmp_path / "flashpol.toml"
    config.write_text(
        f'{old.toml()}[policies.games]\nfile = "{POLICY}"\n'
        '[[listeners]]\nname = "secure"\naddress = "127.0.0.1:0"\ntls = ["games"]\n'
    )
    with Flashpol("-c", config, listen=()) as server:
        for _ in range(3):
            shake(server, trusting(old))
        counts(server, "tls_handshakes_total", by=3)
        before = server.metrics().total("tls_certificate_not_after_timestamp_seconds", certificate="games")
        os.replace(new.chain, old.chain)
        os.replace(new.key, old.key)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in server.log, "the reload")
        shake(server, trusting(old))
        counts(server, "tls_handshakes_total", by=4)
        after = server.metrics().total("tls_certificate_not_after_timestamp_seconds", certificate="games")
        assert after != before
        assert abs(after - time.time() - 9.5 * 86_400) < 3_600
        [problem] = [
            each for each in json.loads(server.get("/-/status").body)["problems"] if each["kind"][:4] == "cert"
        ]
        assert (problem["kind"], problem["severity"]) == ("certificate-expiring", "warning")
        assert f'The certificate "games" of {NAME} expires in 9 days' in problem["message"]
