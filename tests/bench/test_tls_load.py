"""TLS of the load generator sees every fault, the peers relay and reply through TLS, and the scenarios run."""

import json
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, build, load, measure, relay_load, servers
from bench.report import Results
from bench.scenarios import handshakes, tls
from bench.servers import Server
from bench.servers.certificate import Certificate, certificate
from bench.servers.certificate import missing as certificate_missing
from bench.servers.tls import OURS, POLICIES, RELAYS, TlsPeer, ours_missing
from bench.settings import Settings
from testkit.broken_servers import Serve, broken_server
from testkit.clients import REQUEST
from testkit.polling import eventually

pytestmark = pytest.mark.skipif(
    bool(build.openssl_missing() or certificate_missing()), reason=f"{build.openssl_missing() or certificate_missing()}"
)

VERSIONS = ("1.2", "1.3")
REPLY = b"<cross-domain-policy/>\0"
Inside = Callable[[ssl.SSLSocket], None]


@pytest.fixture(scope="module")
def files() -> Iterator[Certificate]:
    with certificate() as made:
        yield made


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    with relay_load.application(None) as port:
        yield port


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    path = tmp_path / "expected"
    path.write_bytes(REPLY)
    return path


def through(files: Certificate, serve: Inside) -> Serve:
    """A function for `broken_server`, which calls `serve` after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)

    def inside(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as wrapped:
            serve(wrapped)

    return inside


@contextmanager
def broken(serve: Serve) -> Iterator[Server]:
    with broken_server(serve) as port:
        yield Server("broken", port, 0, Path(), 0.0)


def exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        assert piece
        received += piece
    return received


def end(connection: ssl.SSLSocket) -> None:
    """Send close_notify, and wait for the client's."""
    connection.unwrap()


def closed(port: int, expected: Path, count: int, *options: str) -> dict[str, Any]:
    command = [str(build.load_generator()), "closed", "--port", str(port), "--expect", str(expected)]
    command += ["--connections", "8", "--count", str(count), "--seconds", "5", "--tls", "1.3", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if result["failed"] else 0)
    return result


# ------------------------------------------------------------------------------------------------- requests and replies


@pytest.mark.parametrize("version", VERSIONS)
def test_closed_loop_through_tls_has_a_full_handshake_for_each_reply(
    version: str, files: Certificate, expected: Path
) -> None:
    seen: list[tuple[str | None, bool | None, bytes]] = []

    def serve(connection: ssl.SSLSocket) -> None:
        seen.append((connection.version(), connection.session_reused, exactly(connection, len(REQUEST))))
        connection.sendall(REPLY)
        end(connection)

    with broken_server(through(files, serve)) as port:
        result = closed(port, expected, 20, "--tls", version)
    assert (result["started"], result["ok"], result["failed"]) == (20, 20, 0)
    assert result["reply_bytes"] == 20 * len(REPLY)
    assert seen == [(f"TLSv{version}", False, REQUEST)] * 20


def test_open_loop_through_tls_starts_as_many_clients_as_its_rate(files: Certificate, expected: Path) -> None:
    def serve(connection: ssl.SSLSocket) -> None:
        exactly(connection, len(REQUEST))
        connection.sendall(REPLY)
        end(connection)

    with broken_server(through(files, serve)) as port:
        server = Server("server", port, 0, expected, 0.0, ports=(port,))
        options = ["--tls", "1.3"]
        result = load.open_loop(server, rate=50, seconds=0.2, cpu=None, connections=20, options=options)
        with load.background(server, rate=50, cpu=None, connections=20, options=options) as results:
            assert not results
    assert (result.replies, result.failed) == (20, 0)  # with the warm-up
    assert results[0].failed == 0


def wrong_reply(connection: ssl.SSLSocket) -> None:
    exactly(connection, len(REQUEST))
    connection.sendall(REPLY.replace(b"cross", b"crass"))
    end(connection)


def longer_reply(connection: ssl.SSLSocket) -> None:
    exactly(connection, len(REQUEST))
    connection.sendall(REPLY + b"x")
    end(connection)


def shorter_reply(connection: ssl.SSLSocket) -> None:
    exactly(connection, len(REQUEST))
    connection.sendall(REPLY[:-1])
    end(connection)


def no_close_notify(connection: ssl.SSLSocket) -> None:
    exactly(connection, len(REQUEST))
    connection.sendall(REPLY)
    connection.shutdown(socket.SHUT_WR)  # of the socket


def reset(connection: ssl.SSLSocket) -> None:
    exactly(connection, len(REQUEST))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (wrong_reply, "mismatch"),
        (longer_reply, "mismatch"),
        (shorter_reply, "short"),
        (no_close_notify, "short"),
        (reset, "reset"),
    ],
    ids=["wrong", "longer", "shorter", "no-close-notify", "reset"],
)
def test_closed_loop_through_tls_counts_every_fault_by_its_kind(
    serve: Inside, kind: str, files: Certificate, expected: Path
) -> None:
    with broken_server(through(files, serve)) as port:
        result = closed(port, expected, 10)
    assert (result[kind], result["ok"]) == (10, 0)


def test_closed_loop_through_tls_with_a_plain_server_counts_tls_errors(expected: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"this is no TLS at all")

    with broken_server(serve) as port:
        result = closed(port, expected, 10)
    assert result["tls_error"] == 10


def test_closed_loop_through_tls_without_a_listener_counts_refusals(expected: Path) -> None:
    assert closed(servers.free_port(), expected, 10)["refused"] == 10


def test_closed_loop_through_tls_without_a_handshake_counts_timeouts(expected: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        result = closed(listening.getsockname()[1], expected, 8, "--timeout", "0.2")
    assert result["timeout"] == 8


# --------------------------------------------------------------------------------------------------------------- relays


def echo(connection: ssl.SSLSocket) -> None:
    while piece := connection.recv(65536):
        connection.sendall(piece)
    end(connection)


@pytest.mark.parametrize("version", VERSIONS)
def test_tls_echo_compares_every_round_and_has_full_handshakes(version: str, files: Certificate) -> None:
    versions: list[tuple[str | None, bool | None]] = []

    def serve(connection: ssl.SSLSocket) -> None:
        versions.append((connection.version(), connection.session_reused))
        echo(connection)

    with broken(through(files, serve)) as server:
        result, _ = relay_load.steady_echo(server, None, connections=3, size=65536, seconds=0.1, tls=version)
    assert result.rounds >= 3
    assert result.bytes == result.rounds * 65536
    assert versions == [(f"TLSv{version}", False)] * 3


def test_held_tls_sessions_echo_once_per_call(files: Certificate) -> None:
    with (
        broken(through(files, echo)) as server,
        relay_load.HeldSessions(server, [20, 140], None, tls="1.3") as held,  # more than 128 handshakes, its limit
    ):
        assert held.echo() == 320
        assert held.echo() == 480


def other_bytes(connection: ssl.SSLSocket) -> None:
    connection.sendall(exactly(connection, 100)[:-1] + b"?")


def too_few(connection: ssl.SSLSocket) -> None:
    connection.sendall(exactly(connection, 100)[:-1])
    end(connection)


def cut(connection: ssl.SSLSocket) -> None:
    connection.sendall(exactly(connection, 100)[:-1])
    connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("serve", "words"),
    [(other_bytes, "other bytes"), (too_few, "closed early"), (cut, "closed without close_notify")],
)
def test_tls_relay_client_with_a_wrong_echo_raises_by_kind(serve: Inside, words: str, files: Certificate) -> None:
    with broken(through(files, serve)) as server, pytest.raises(BenchError, match=words):
        relay_load.short(server, None, connections=1, size=100, total=1, tls="1.3")


def test_tls_relay_client_with_a_plain_server_raises_with_the_reason() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"this is no TLS at all")

    with broken(serve) as server, pytest.raises(BenchError, match="wrong version number"):
        relay_load.short(server, None, connections=1, size=100, total=1, tls="1.3")


# ---------------------------------------------------------------------------------------------------------------- peers


def skip_if_missing(peer: TlsPeer) -> None:
    missing = peer.missing()
    if missing:
        pytest.skip(missing)


@pytest.mark.slow
@pytest.mark.parametrize("peer", RELAYS, ids=lambda peer: peer.name)
def test_tls_peer_relays_and_is_measured(peer: TlsPeer, files: Certificate, application: int) -> None:
    skip_if_missing(peer)
    with peer.start(None, files, application) as server:
        assert server.name == peer.name
        for version in VERSIONS:
            assert relay_load.short(server, None, connections=4, size=100, total=20, tls=version).rounds == 20
            assert relay_load.bulk(server, None, connections=2, size=300_000, tls=version).bytes == 600_000
            assert relay_load.upload(server, None, connections=2, size=300_000, tls=version).bytes == 600_000
        result, cpu = relay_load.steady_echo(server, None, connections=8, size=100, seconds=0.1, tls="1.3")
        assert result.rounds >= 8
        assert cpu > 0


@pytest.mark.slow
@pytest.mark.parametrize("peer", POLICIES, ids=lambda peer: peer.name)
def test_tls_peer_replies_with_the_policy(peer: TlsPeer, files: Certificate) -> None:
    skip_if_missing(peer)
    with peer.start(None, files) as server:
        assert server.name == peer.name
        for version in VERSIONS:
            result = load.closed(server, connections=4, count=20, cpu=None, options=["--tls", version])
            assert result.replies == 20
        if server.plain or server.name == OURS:
            port = server.plain or server.port
            plain = Server(server.name, port, server.pid, server.expected, 0.0, ports=(port,))
            assert load.closed(plain, connections=4, count=20, cpu=None).replies == 20


def test_cpu_of_threads_that_have_ended_is_counted() -> None:
    code = (
        "import sys, threading\n"
        "thread = threading.Thread(target=lambda: sum(range(5_000_000)))\n"
        "thread.start(); thread.join()\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        tasks = Path(f"/proc/{process.pid}/task")
        eventually(lambda: len(list(tasks.iterdir())) == 1, "the thread has ended")
        alive = int((tasks / str(process.pid) / "schedstat").read_text().split()[0])
        assert measure.cpu_ns(process.pid) > alive + 10_000_000
        process.stdin.close()


# ------------------------------------------------------------------------------------------------------------ scenarios


def test_load_generator_without_openssl_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "openssl_missing", lambda: "no headers")
    program = build.load_generator()
    done = subprocess.run(
        [program, "relay", "--tls", "1.3", "echo", "1", "1", "100", "1"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "built without OpenSSL" in done.stderr
    assert "libssl-dev" in done.stderr


@pytest.mark.parametrize("scenario", [tls, handshakes], ids=["tls", "handshakes"])
def test_tls_scenario_without_openssl_is_a_note(scenario: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "openssl_missing", lambda: "no headers")
    results = Results()
    scenario.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    assert not results.figures
    assert [note.endswith("not measured: no headers") for note in results.notes] == [True]


@pytest.mark.slow
def test_tls_scenario_without_a_peer_measures_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every peer but one is missing, which is also the case of a machine that has only that one."""
    kept = RELAYS[0] if not ours_missing() else RELAYS[-1]
    skip_if_missing(kept)
    others = [TlsPeer(peer.name, peer.start, lambda: "it is not installed") for peer in RELAYS if peer != kept]
    monkeypatch.setattr(tls, "RELAYS", (kept, *others))
    results = Results()
    tls.run(Settings.on_this_machine(1, peers_only=False, quick=True), results)
    assert results.notes == [f"tls: {peer.name} was not measured: it is not installed" for peer in others]
    figures = {figure.name: figure.value.median for figure in results.figures}
    assert {f"{kept.name}: {name}" for name in tls.UNITS} <= set(figures)
    assert not [name for name in figures if "/" in name]
    if kept.name == OURS:
        assert figures["600 over 2 workers: open after each of 2 echoes"] == 600


@pytest.mark.slow
@pytest.mark.alone
def test_handshakes_scenario_has_a_ratio_for_each_target() -> None:
    results = Results()
    handshakes.run(Settings.on_this_machine(1, peers_only=bool(ours_missing()), quick=True), results)
    targets = [figure.name for figure in results.figures if figure.target]
    if ours_missing() or POLICIES[1].missing():
        assert not targets
    else:
        assert len(targets) == 3
