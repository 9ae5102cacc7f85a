"""TLS attackers follow their script: what a server by OpenSSL receives of them, and what it says of their records."""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from faults import build, hello
from faults.certificates import make
from faults.clients import HostileClients
from faults.server import MESSAGES, write_messages
from testkit.polling import eventually

pytestmark = pytest.mark.skipif(not build.has_openssl(), reason="needs libssl-dev")
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    write_messages(path, {**MESSAGES, **hello.messages()})
    make(path)
    return path


class FakeServer:
    """What `HostileClients` needs of a server."""

    def __init__(self, port: int, folder: Path) -> None:
        self.ports = {"games": port}
        self._folder = folder

    def script(self, _: str, steps: str) -> str:
        return steps.format(**{file.name: file for file in self._folder.iterdir()})


@contextmanager
def serving(serve: Callable[[socket.socket], object]) -> Iterator[tuple[int, list[object]]]:
    """A server in a thread. Yields its port and what `serve` returned, or raised, for each connection."""
    results: list[object] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.settimeout(10)
                with client:
                    try:
                        results.append(serve(client))
                    except OSError as error:
                        results.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1]), results
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(15)
        assert not thread.is_alive()


def attack(folder: Path, script: str, serve: Callable[[socket.socket], object], **options: object) -> object:
    """One attacker. Returns what the server made of it."""
    with serving(serve) as (port, results):
        bad = HostileClients(
            FakeServer(port, folder), "games", script, connections=1, rate=100, total=1, **options
        )  # type: ignore[arg-type]  # fmt: skip
        with bad:
            eventually(lambda: results, "the server has served it")
    return results[0]


def secured(folder: Path, size: int) -> Callable[[socket.socket], object]:
    """A server with TLS: the version, and so many bytes of what it decrypts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "faults.pem", folder / "faults.key")
    context.options |= ssl.OP_NO_RENEGOTIATION

    def serve(client: socket.socket) -> object:
        with context.wrap_socket(client, server_side=True, suppress_ragged_eofs=False) as tls:
            data = b""
            while len(data) < size and (piece := tls.recv(size - len(data))):
                data += piece
            return tls.version(), data

    return serve


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("secure:12,data:{hello},loop:1", V12),
        ("secure:13,data:{hello},loop:1", V13),
        ("secure:13,records:update*40,data:{hello},loop:1", V13),
        ("secure:13,records:request-update*3,data:{hello},loop:1", V13),
        ("secure:13,records:empty*20,data:{hello},loop:1", V13),
        ("secure:12,records:empty*20,data:{hello},loop:1", V12),
        ("secure:12,records:warning*3,data:{hello},loop:1", V12),
        ("secure:12,renegotiate:{hello-12}*3,data:{hello},loop:1", V12),
        ("hello:13,wait:20,secure:13,data:{hello},loop:3", V13),
    ],
)
def test_attacker_with_keys_sends_records_that_openssl_accepts(
    script: str, version: ssl.TLSVersion, folder: Path
) -> None:
    said = MESSAGES["hello"] * 3
    assert attack(folder, script, secured(folder, len(said))) == (version.name.replace("_", "."), said)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("secure:13,records:change*1", "BAD_RECORD_TYPE|RECORD_LAYER_FAILURE"),
        ("secure:13,records:empty*40", "RECORD_TOO_SMALL|RECORD_LAYER_FAILURE"),
        ("secure:13,cut:{hello}*20,fin", "EOF"),
        ("send:{tls-garbage}", "UNEXPECTED_MESSAGE"),
        ("send:{tls-overlong}", "PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE"),
        ("send:{tls-other}", "UNEXPECTED_MESSAGE"),
        ("send:{tls-empty}", "RECORD_TOO_SMALL|RECORD_LAYER_FAILURE"),
    ],
)
def test_attacker_breaks_the_protocol_as_the_script_says(script: str, reason: str, folder: Path) -> None:
    error = attack(folder, script, secured(folder, 100))
    assert isinstance(error, OSError)
    assert re.search(reason, str(error))  # OpenSSL 3.5 has one name for many


def received(size: int) -> Callable[[socket.socket], object]:
    """A server without TLS: so many bytes, or all until the end."""

    def serve(client: socket.socket) -> object:
        data = b""
        while len(data) < size and (piece := client.recv(size - len(data))):
            data += piece
        return data

    return serve


@pytest.mark.parametrize(
    ("script", "size", "wanted"),
    [
        ("send:{byte},loop:0", 5, b"eeeee"),
        ("send:{hello}*5,fin", 100, MESSAGES["hello"][:5]),
        ("drip:{greeting}*1", 19, MESSAGES["greeting"][:19]),
        ("send:{tls-begin}", 2, b"\x16\x03"),
    ],
)
def test_attacker_in_plain_text_sends_what_the_script_says(script: str, size: int, wanted: bytes, folder: Path) -> None:
    assert attack(folder, script, received(size)) == wanted


def test_attacker_that_resets_does_not_send_fin(folder: Path) -> None:
    assert isinstance(attack(folder, "send:{byte},wait:20,reset", received(100)), ConnectionResetError)


@pytest.mark.parametrize("name", ["hello-13", "hello-12", "hello-p384", "hello-name", "hello-pieces", "hello-large"])
def test_hello_of_each_kind_makes_openssl_reply(name: str, folder: Path) -> None:
    message = (folder / name).read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "faults.pem", folder / "faults.key")
    wire, reply = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(wire, reply, server_side=True)
    wire.write(message[:-1])
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert not reply.pending
    wire.write(message[-1:])
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert reply.read()[:1] == b"\x16"


def test_hello_for_rsa_is_refused_by_a_server_that_has_none(folder: Path) -> None:
    assert "NO_SHARED_CIPHER" in str(attack(folder, "send:{hello-rsa}", secured(folder, 1)))


def test_attacker_that_awaits_the_server_goes_on_after_its_first_byte(folder: Path) -> None:
    def serve(client: socket.socket) -> object:
        first = client.recv(100)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(100)
        client.settimeout(10)
        client.sendall(b"x")
        return first + client.recv(100)

    assert attack(folder, "send:{byte},await,send:{byte}", serve) == b"ee"


def test_attacker_that_sips_reads_a_little_at_a_time(folder: Path) -> None:
    def serve(client: socket.socket) -> object:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        client.recv(1)
        client.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 1 << 22:
                sent += client.send(bytes(100_000))
        return sent

    sent = attack(folder, "send:{byte},sip:10*100", serve, small_window=True)
    assert isinstance(sent, int)
    assert 0 < sent < 100_000


def test_attackers_of_whom_each_varies_say_another_number(folder: Path) -> None:
    at = (folder / "hello-name").read_bytes().index(hello.VARIED.encode())
    size = (folder / "hello-name").stat().st_size
    with serving(received(size)) as (port, results):
        bad = HostileClients(
            FakeServer(port, folder), "games", "send:{hello-name},fin", connections=3, rate=100, total=3, vary=at
        )  # type: ignore[arg-type]  # fmt: skip
        with bad:
            eventually(lambda: len(results) == 3, "three attackers")
    assert sorted(each[at : at + 8] for each in results) == [b"00000000", b"00000001", b"00000002"]  # type: ignore[index]


def test_attackers_vary_digits_with_others_between_them_in_the_first_file_of_a_script(folder: Path) -> None:
    (folder / "forged").write_bytes(b"9: 0000:0000; 0")

    with serving(received(100)) as (port, results):
        bad = HostileClients(
            FakeServer(port, folder), "games", "wait:1,send:{forged},fin", connections=1, rate=100, total=12, vary=3
        )  # type: ignore[arg-type]  # fmt: skip
        with bad:
            eventually(lambda: len(results) == 12, "twelve attackers")
    assert results[0] == b"9: 0000:0000; 0"
    assert results[11] == b"9: 0000:0011; 0"


def test_attackers_count_what_became_of_them(folder: Path) -> None:
    with serving(secured(folder, 1)) as (port, results):
        bad = HostileClients(
            FakeServer(port, folder), "games", "secure:13,data:{byte}", connections=2, rate=100, total=4
        )  # type: ignore[arg-type]  # fmt: skip
        with bad:
            eventually(lambda: len(results) == 4, "four attackers")
    count = bad.output
    assert count["opened"] == count["secured"] == 4
    assert count["ended"] + count["open"] == 4
    assert count["failed"] == count["answered"] == 0
    assert count["taken"] > 0
