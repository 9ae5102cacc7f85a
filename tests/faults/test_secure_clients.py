"""Good clients with TLS: what they lose is seen, and so is an end of the stream that TLS does not allow."""

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from faults import build
from faults.certificates import make
from faults.clients import GoodClients
from faults.places import SAME_LISTENER, TLS_FAR, TLS_GAME, TLS_PLAYER, TLS_POLICY, Kind, Row
from testkit.clients import REQUEST, reset
from testkit.polling import eventually
from tests.faults.test_clients import EXPECTED, FakeServer, serving

pytestmark = pytest.mark.skipif(not build.has_openssl(), reason="needs libssl-dev")

Serve = Callable[[ssl.SSLSocket], None]


class SecureServer(FakeServer):
    """One with a certificate, which the clients expect."""

    def __init__(self, port: int, folder: Path, authority: Path) -> None:
        super().__init__(port, folder)
        self.authority = authority


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two of them, each a chain and a key."""
    return [make(tmp_path_factory.mktemp("certificate")) for _ in range(2)]


def outcomes(
    serve: Serve, folder: Path, certificate: tuple[Path, Path], kind: Kind, *, authority: Path | None = None
) -> set[str]:
    """What became of three or more clients of a server with this certificate. authority: the one that they expect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    served: list[None] = []

    def secure(client: socket.socket) -> None:
        client.settimeout(10)
        with suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
            serve(tls)
        served.append(None)

    with serving(secure) as port:
        server, trace = SecureServer(port, folder, authority or certificate[0]), folder / "trace"
        with GoodClients(server, trace, [Row(SAME_LISTENER, "small", kind)]) as good:  # type: ignore[arg-type]
            eventually(lambda: len(served) >= 3, "three clients were served")
    return {each.outcome for each in good.results()[SAME_LISTENER]}


def replying(reply: bytes, end: Serve) -> Serve:
    def serve(tls: ssl.SSLSocket) -> None:
        assert tls.recv(100) == REQUEST
        tls.sendall(reply)
        end(tls)

    return serve


def say_goodbye(tls: ssl.SSLSocket) -> None:
    """Send close_notify, and do not wait for the client's."""
    tls.setblocking(False)
    with suppress(ssl.SSLWantReadError):
        tls.unwrap()


def close(tls: ssl.SSLSocket) -> None:
    say_goodbye(tls)
    tls.shutdown(socket.SHUT_WR)
    tls.setblocking(True)
    tls.settimeout(10)
    socket.socket.recv(tls, 1000)


def truncate(tls: ssl.SSLSocket) -> None:
    tls.shutdown(socket.SHUT_WR)


def close_and_reset(tls: ssl.SSLSocket) -> None:
    say_goodbye(tls)
    reset(tls)


def say_more(tls: ssl.SSLSocket) -> None:
    say_goodbye(tls)
    os.write(tls.fileno(), b"x")


@pytest.mark.parametrize(
    ("serve", "outcome"),
    [
        (replying(EXPECTED, close), "ok"),
        (replying(EXPECTED, truncate), "truncated"),
        (replying(EXPECTED[:-1], close), "short"),
        (replying(EXPECTED[:-1] + b"x", close), "mismatch"),
        (replying(EXPECTED + b"x", close), "mismatch"),
        (replying(EXPECTED, say_more), "tls"),
        (replying(EXPECTED, close_and_reset), "reset"),
        (replying(b"", reset), "reset"),
    ],
)
def test_secure_client_by_reply_and_end_records_the_outcome(
    serve: Serve, outcome: str, tmp_path: Path, certificates: list[tuple[Path, Path]]
) -> None:
    assert outcomes(serve, tmp_path, certificates[0], replace(TLS_POLICY, rate=100)) == {outcome}


def test_secure_client_with_another_certificate_is_lost(tmp_path: Path, certificates: list[tuple[Path, Path]]) -> None:
    first, other = certificates
    kind = replace(TLS_POLICY, rate=100)
    assert outcomes(replying(EXPECTED, close), tmp_path, first, kind, authority=other[0]) == {"tls"}


def test_secure_client_with_a_server_without_tls_is_lost(tmp_path: Path, certificates: list[tuple[Path, Path]]) -> None:
    served: list[None] = []

    def serve(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(EXPECTED)
        served.append(None)

    with serving(serve) as port:
        server, trace = SecureServer(port, tmp_path, certificates[0][0]), tmp_path / "trace"
        row = Row(SAME_LISTENER, "small", replace(TLS_POLICY, rate=100))
        with GoodClients(server, trace, [row]) as good:  # type: ignore[arg-type]
            eventually(lambda: served, "a client was served")
    assert {each.outcome for each in good.results()[SAME_LISTENER]} == {"tls"}


def test_far_client_sends_its_second_message_late_and_its_wait_does_not_count(
    tmp_path: Path, certificates: list[tuple[Path, Path]]
) -> None:
    kind = replace(TLS_FAR, script=TLS_FAR.script.replace("400", "50"), rate=100)
    assert outcomes(replying(EXPECTED, close), tmp_path, certificates[0], kind) == {"ok"}


def test_secure_player_stays_connected_and_its_end_is_a_close_notify(
    tmp_path: Path, certificates: list[tuple[Path, Path]]
) -> None:
    echoes, ends = [], []

    kind = replace(TLS_PLAYER, script=TLS_PLAYER.script.replace("200", "10"), count=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates[0])

    def secure(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True, suppress_ragged_eofs=False) as tls:
            while data := tls.recv(100):  # an end without close_notify raises
                tls.sendall(data)
                echoes.append(data)
            ends.append(data)

    with serving(secure) as port:
        server, trace = SecureServer(port, tmp_path, certificates[0][0]), tmp_path / "trace"
        with GoodClients(server, trace, [Row(SAME_LISTENER, "small", kind)]) as good:  # type: ignore[arg-type]
            eventually(lambda: len(echoes) >= 3, "three echoes")
    assert {each.outcome for each in good.results()[SAME_LISTENER]} == {"ok"}
    assert ends == [b""]


def test_clients_with_and_without_tls_have_results_of_their_own_places(
    tmp_path: Path, certificates: list[tuple[Path, Path]]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates[0])
    served = {"plain": 0, "tls": 0}

    def serve(client: socket.socket) -> None:
        client.settimeout(10)
        if client.recv(1, socket.MSG_PEEK) == b"\x16":
            with suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
                tls.sendall(tls.recv(100))
                served["tls"] += 1
        else:
            client.sendall(client.recv(100))
            served["plain"] += 1

    plain = replace(TLS_GAME, name="game", tls=False, rate=100)
    rows = [Row("here", "small", plain), Row("here, TLS", "small", replace(TLS_GAME, rate=100))]
    with serving(serve) as port:
        server = SecureServer(port, tmp_path, certificates[0][0])
        with GoodClients(server, tmp_path / "trace", rows) as good:  # type: ignore[arg-type]
            eventually(lambda: min(served.values()) >= 2, "both were served")
    results = good.results()
    assert [*results] == ["here", "here, TLS"]
    assert {each.kind for each in results["here"]} == {"game"}
    assert {each.kind for each in results["here, TLS"]} == {"TLS game"}
    assert {each.outcome for place in results.values() for each in place} == {"ok"}
