"""One connection inside TLS: the record of the handshake, of the bytes and of the end, also with hostile servers."""

import socket
import ssl
import struct
import time
from pathlib import Path

import broken
import pytest
import tls_servers
from broken import POLICY
from loopback import SHORT, Handler, Server, closed_port, dropping_port
from tls_servers import NAME, inside, server_context

from flashpol.probe.exchange import Address, End, Exchange, Reached, Step, Timeouts, What, exchange
from flashpol.probe.tls import channel
from flashpol.probe.tls.handshake import ALERTS, Handshake, Outcome
from flashpol.probe.tls.offers import VERSIONS, Offer
from testkit.certificates import CA, CertificateFiles, make_ca

LOCALHOST = Address(socket.AF_INET, "127.0.0.1")
ASK = (Step(broken.REQUEST),)
ANY = Offer(name=NAME)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(ca: CA) -> CertificateFiles:
    return ca.issue(NAME, intermediate=True)


def connect(
    handler: Handler, offer: Offer = ANY, steps: tuple[Step, ...] | None = ASK, timeouts: Timeouts = SHORT
) -> tuple[Exchange, Handshake]:
    with Server(handler) as server:
        seen = exchange(LOCALHOST, server.port, steps, timeouts, offer)
    assert seen.tls is not None
    return seen, seen.tls


def test_correct_server_is_recorded_with_version_chain_and_end(files: CertificateFiles) -> None:
    seen, handshake = connect(inside(files))
    assert (seen.reached, seen.end, seen.opened) == (Reached.CONNECTED, End.CLOSED, True)
    whats = [event.what for event in seen.events]
    assert whats == [What.CONNECTED, What.SECURED, What.SENT, What.RECEIVED, What.ENDED]
    assert seen.data == POLICY + b"\0"
    assert (handshake.outcome, handshake.version) == (Outcome.COMPLETED, "TLS 1.3")
    assert handshake.suite.startswith("TLS_AES_")
    assert len(handshake.chain) == 2
    assert handshake.close_notify is True
    assert seen.segments is None
    assert 0 < handshake.ended <= seen.events[1].at


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_is_taken_from_a_server_that_has_no_other(files: CertificateFiles, version: str) -> None:
    name = VERSIONS[version]
    only = inside(server_context(files, lowest=name, highest=name))
    for offer in (ANY, ANY.of_version(name)):
        seen, handshake = connect(only, offer)
        assert (handshake.version, seen.data) == (version, POLICY + b"\0")
    other = next(value for value in VERSIONS.values() if value != name)
    _, handshake = connect(only, ANY.of_version(other), None)
    assert (handshake.completed, handshake.version) == (False, "")


@pytest.mark.parametrize(("verify", "outcome"), [(True, Outcome.UNTRUSTED), (False, Outcome.COMPLETED)])
def test_certificate_of_an_unknown_ca_ends_the_handshake_if_it_is_verified(
    files: CertificateFiles, verify: bool, outcome: Outcome
) -> None:
    seen, handshake = connect(inside(files), ANY._replace(verify=verify))
    assert (handshake.outcome, handshake.verified, bool(handshake.verify_code)) == (outcome, verify, verify)
    assert (seen.end is End.ABORTED, seen.opened) == (verify, not verify)


def test_certificate_of_a_given_ca_passes_the_verification(ca: CA, files: CertificateFiles) -> None:
    _, handshake = connect(inside(files), ANY._replace(verify=True, ca=str(ca.file)))
    assert (handshake.outcome, handshake.verify_code) == (Outcome.COMPLETED, 0)


@pytest.mark.parametrize("number", [*ALERTS, 200])
def test_alert_of_the_server_is_known_by_its_number(number: int) -> None:
    if number in (0, 90, 100):
        pytest.skip("OpenSSL does not take these for refusals")
    _, handshake = connect(tls_servers.alert(number), steps=None)
    assert (handshake.outcome, handshake.alert) == (Outcome.ALERT, number)


@pytest.mark.parametrize("highest", ["TLSv1_2", "TLSv1_3"])
def test_alert_that_is_encrypted_is_known_by_its_name(files: CertificateFiles, ca: CA, highest: str) -> None:
    context = server_context(files, highest=highest)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.file)
    seen, handshake = connect(inside(context))
    assert (handshake.outcome, handshake.alert) == (Outcome.ALERT, 40 if highest == "TLSv1_2" else 116)
    assert (seen.end, seen.opened) == (End.ABORTED, False)


def test_end_without_close_notify_is_seen(files: CertificateFiles) -> None:
    seen, handshake = connect(inside(files, tls_servers.without_close_notify))
    assert (seen.end, handshake.close_notify, seen.data) == (End.CLOSED, False, POLICY + b"\0")


def test_reset_after_the_reply_is_seen(files: CertificateFiles) -> None:
    def handle(connection: socket.socket) -> None:
        if broken.whole(connection).startswith(broken.REQUEST):
            connection.sendall(POLICY + b"\0")
            broken.reset(connection)

    seen, handshake = connect(inside(files, handle))
    assert (seen.end, handshake.close_notify, seen.data) == (End.RESET, None, POLICY + b"\0")


def test_server_that_waits_for_close_notify_gets_it(files: CertificateFiles) -> None:
    """Python's unwrap, for example, waits for it before the connection is closed."""
    ended = []

    def handle(connection: socket.socket) -> None:
        assert isinstance(connection, ssl.SSLSocket)
        if broken.whole(connection).startswith(broken.REQUEST):
            connection.sendall(POLICY + b"\0")
            connection.settimeout(5)
            connection.unwrap()
            ended.append(True)

    seen, handshake = connect(inside(files, handle))
    assert (seen.end, handshake.close_notify, ended) == (End.CLOSED, True, [True])


def test_probe_says_goodbye_to_a_silent_server(files: CertificateFiles) -> None:
    """A server counts an end without close_notify as a truncation."""
    received = []

    def handle(connection: socket.socket) -> None:
        received.append(connection.recv(100))

    with Server(inside(files, handle)) as server:
        seen = exchange(LOCALHOST, server.port, None, SHORT, ANY)
    assert (seen.end, received) == (End.OPEN, [b""])


@pytest.mark.parametrize("highest", ["TLSv1_2", "TLSv1_3"])
def test_reply_in_one_segment_with_the_handshake_is_read(files: CertificateFiles, highest: str) -> None:
    def handle(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = server_context(files, highest=highest).wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(4096))
        session.write(POLICY + b"\0")
        connection.sendall(outgoing.read())  # its Finished, or its tickets, and the policy
        broken.silent(connection)

    seen, _ = connect(handle, steps=())
    assert seen.data == POLICY + b"\0"
    assert seen.received[0].at < SHORT.reply


def test_half_close_is_close_notify_and_fin_and_the_reply_still_comes(files: CertificateFiles) -> None:
    def handle(connection: socket.socket) -> None:
        data = b""
        while part := connection.recv(100):
            data += part
        if data == broken.REQUEST:
            connection.sendall(POLICY + b"\0")
        broken.end(connection)

    seen, _ = connect(inside(files, handle), steps=(Step(broken.REQUEST, finish=True),))
    assert seen.data == POLICY + b"\0"


def test_request_in_parts_is_sent_in_records_of_its_own(files: CertificateFiles) -> None:
    received = []

    def handle(connection: socket.socket) -> None:
        while part := connection.recv(100):
            received.append(part)
            if part.endswith(b"\0"):
                connection.sendall(POLICY + b"\0")
                broken.end(connection)
                return

    connect(inside(files, handle), steps=(Step(broken.REQUEST[:11]), Step(broken.REQUEST[11:], 0.1)))
    assert received == [broken.REQUEST[:11], broken.REQUEST[11:]]


@pytest.mark.parametrize("listener", [closed_port, dropping_port])
def test_port_without_a_server_has_no_handshake(listener: object) -> None:
    assert callable(listener)
    with listener() as port:
        seen = exchange(LOCALHOST, port, ASK, SHORT, ANY)
    assert (seen.tls, seen.opened) == (None, False)


# ------------------------------------------------------------------------------------------------------ hostile servers


def flooding(record: bytes) -> Handler:
    """Send the same record without end, whatever comes."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        while True:
            connection.sendall(record * 100)

    return handle


def trickling(connection: socket.socket) -> None:
    """A handshake record of 16 KB, a byte at a time."""
    connection.recv(4096)
    connection.sendall(struct.pack(">BHH", 0x16, 0x0303, 16384))
    for _ in range(1000):
        connection.sendall(b"\x02")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"<!-- and so on -->" * 1000)


@pytest.mark.parametrize(
    "handler",
    [
        trickling,
        tls_servers.half_a_handshake,
        flooding(b"\x16\x03\x03\0\x04\0\0\0\0"),  # HelloRequest: TLS 1.2 ignores it
        flooding(b"\x15\x03\x03\0\x02\x01\x5a"),  # a warning: user_canceled
        flooding(b"\x16\x03\x03\0\0"),  # empty
    ],
)
def test_handshake_with_a_hostile_server_ends_in_time(handler: Handler) -> None:
    began = time.monotonic()
    _, handshake = connect(handler, timeouts=Timeouts(reply=0.3))
    assert not handshake.completed
    assert time.monotonic() - began < 10


def test_endless_reply_is_a_flood(files: CertificateFiles) -> None:
    seen, _ = connect(inside(files, endless))
    assert seen.end is End.FLOOD


def test_name_that_cannot_be_sent_is_a_failed_handshake(files: CertificateFiles) -> None:
    _, handshake = connect(inside(files), Offer(name="."))
    assert handshake.outcome is Outcome.FAILED
    assert handshake.error


# --------------------------------------------------------------------------------------------------------- this machine


def test_check_ca_says_what_is_wrong_with_a_file(tmp_path: Path, ca: CA) -> None:
    (tmp_path / "empty.pem").write_text("")
    assert channel.check_ca(str(ca.file)) == ""
    assert channel.check_ca(str(tmp_path / "empty.pem")) == "there is no certificate in PEM in it"
    assert channel.check_ca(str(tmp_path / "none.pem")) == "No such file or directory"


def test_machine_has_cas_if_its_folder_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: CA) -> None:
    def has_cas() -> bool:
        channel.machine_has_cas.cache_clear()
        return channel.machine_has_cas()

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not has_cas()
    (tmp_path / "0123abcd.0").write_bytes(ca.file.read_bytes())
    assert has_cas()
    (tmp_path / "0123abcd.0").unlink()
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    assert has_cas()
    channel.machine_has_cas.cache_clear()
