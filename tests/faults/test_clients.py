"""Good clients follow their script and see every reply that is not exact; bad clients send what the attack says."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from faults.clients import BadClients, GoodClients, RequestResult, quantile
from faults.places import CHAT, GAME, LATE, PLAYER, POLICY, SAME_LISTENER, SLOW_NETWORK, SPECTATOR, Kind, Row
from faults.server import MESSAGES, write_messages
from faults.shared import application
from testkit.clients import REQUEST, reset
from testkit.polling import eventually

EXPECTED = b"<cross-domain-policy/>\0"
RUN_SECONDS = 0.1  # 20 clients, if the machine is idle


class FakeServer:
    """What `GoodClients` needs of a server: one listener, whose reply is `EXPECTED`, and files."""

    def __init__(self, port: int, folder: Path, reply: bytes = EXPECTED) -> None:
        self.ports = {"small": port}
        self._folder = folder
        write_messages(folder)
        (folder / "reply").write_bytes(reply)

    def script(self, _: str, steps: str) -> str:
        return steps.format(reply=self._folder / "reply", **{name: self._folder / name for name in MESSAGES})


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread that calls `serve` with each connection. Yields its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    serve(client)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()


def run_good(
    port: int, folder: Path, kind: Kind, *, enough: int = 5, reply: bytes = EXPECTED, seconds: float = RUN_SECONDS
) -> list[RequestResult]:
    """Good clients of this kind for a while, or until there are enough results, which must come in time."""
    server, trace = FakeServer(port, folder, reply), folder / "trace"
    with GoodClients(server, trace, [Row(SAME_LISTENER, "small", kind)]) as good:  # type: ignore[arg-type]
        time.sleep(seconds)
    results = good.results()[SAME_LISTENER]
    assert len(results) >= enough
    assert results == sorted(results, key=lambda each: each.started)
    return results


def replying(reply: bytes) -> Callable[[socket.socket], None]:
    def serve(client: socket.socket) -> None:
        assert client.recv(100) == REQUEST
        client.sendall(reply)

    return serve


def abort(client: socket.socket) -> None:
    client.recv(100)
    reset(client)


def wait_for_end(client: socket.socket) -> None:
    client.recv(100)
    client.recv(100)


@pytest.mark.parametrize(
    ("serve", "outcome"),
    [
        (replying(EXPECTED), "ok"),
        (replying(EXPECTED[:-1]), "short"),
        (replying(b""), "short"),
        (replying(EXPECTED[:-1] + b"x"), "mismatch"),
        (replying(EXPECTED + b"x"), "mismatch"),
        (abort, "reset"),
    ],
)
def test_good_clients_by_reply_record_the_outcome(
    serve: Callable[[socket.socket], None], outcome: str, tmp_path: Path
) -> None:
    with serving(serve) as port:
        results = run_good(port, tmp_path, replace(POLICY, rate=200))
    assert {each.outcome for each in results} == {outcome}
    assert all(each.seconds >= 0 for each in results)
    assert {each.kind for each in results} == {"policy"}


def test_good_clients_without_a_listener_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert {each.outcome for each in run_good(port, tmp_path, replace(POLICY, rate=200))} == {"refused"}


@pytest.mark.slow
def test_good_client_without_a_reply_gives_up_after_three_seconds(tmp_path: Path) -> None:
    with serving(wait_for_end) as port:
        results = run_good(port, tmp_path, replace(POLICY, rate=20), enough=1)
    assert {each.outcome for each in results[:1]} == {"timeout"}
    assert results[0].seconds >= 3


@pytest.mark.slow
def test_late_client_sends_late_and_its_wait_does_not_count(tmp_path: Path) -> None:
    with serving(replying(EXPECTED)) as port:
        [*results] = run_good(port, tmp_path, LATE, enough=1, seconds=0.05)
    assert {each.outcome for each in results} == {"ok"}
    assert all(each.waited == pytest.approx(1.2) and each.ended - each.started >= 1.2 for each in results)
    assert all(each.seconds < 1.2 for each in results)


def test_slow_network_client_reads_a_piece_at_a_time(tmp_path: Path) -> None:
    kind = replace(SLOW_NETWORK, script=SLOW_NETWORK.script.replace("16384/100", "10/20"), rate=20)
    with serving(replying(EXPECTED * 5)) as port:
        results = run_good(port, tmp_path, kind, enough=1, reply=EXPECTED * 5)
    assert {each.outcome for each in results} == {"ok"}
    assert all(each.seconds >= 0.2 for each in results)


def test_player_stays_connected_and_counts_each_turn(tmp_path: Path) -> None:
    kind = replace(PLAYER, script=PLAYER.script.replace("200", "10"), count=2)
    with application() as address:
        results = run_good(int(address.partition(":")[2]), tmp_path, kind)
    assert {each.outcome for each in results} == {"ok"}
    assert all(each.waited <= 0.011 for each in results)


def test_player_whose_session_ends_is_lost_even_while_it_waits(tmp_path: Path) -> None:
    def echo_once(client: socket.socket) -> None:
        client.sendall(client.recv(100))

    kind = replace(PLAYER, script=PLAYER.script.replace("200", "2000"), count=1)
    with serving(echo_once) as port:
        [result] = run_good(port, tmp_path, kind, enough=1)
    assert result.outcome in ("short", "reset")
    assert result.ended - result.started < 1, "the end of the run wakes it up"


def test_game_and_chat_with_an_application_that_speaks_first_get_their_bytes(tmp_path: Path) -> None:
    write_messages(tmp_path)
    with application(tmp_path / "greeting", tmp_path / "tick", 5000) as address:
        port = int(address.partition(":")[2])
        assert {each.outcome for each in run_good(port, tmp_path, replace(CHAT, rate=200))} == {"ok"}
        assert {each.outcome for each in run_good(port, tmp_path, replace(GAME, rate=200))} == {"mismatch"}


def test_spectator_gets_a_tick_only_after_it_was_silent(tmp_path: Path) -> None:
    write_messages(tmp_path)
    with application(tmp_path / "greeting", tmp_path / "tick", 20) as address:
        port = int(address.partition(":")[2])
        results = run_good(port, tmp_path, SPECTATOR, seconds=0.3)
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"hello")
            client.settimeout(0.2)
            received = b""
            with suppress(TimeoutError):
                while data := client.recv(100):
                    received += data
    assert {each.outcome for each in results} == {"ok"}
    assert received == MESSAGES["greeting"] + b"hello"


@pytest.mark.parametrize(
    ("say", "then", "wanted"),
    [
        ("nothing", "close", b""),
        ("half", "close", REQUEST[:11]),
        ("whole", "close", REQUEST),
        ("file", "close", MESSAGES["proxy"]),
        ("file", "finish", MESSAGES["proxy"]),
        ("nothing", "drip", REQUEST[:3]),
    ],
)
def test_bad_clients_by_mode_send_what_it_says(say: str, then: str, wanted: bytes, tmp_path: Path) -> None:
    received: list[bytes] = []

    def serve(client: socket.socket) -> None:
        data = b""
        while len(data) < len(wanted) or then != "drip":
            piece = client.recv(100)
            if not piece:
                break
            data += piece
        received.append(data)

    (tmp_path / "file").write_bytes(MESSAGES["proxy"])
    words = tmp_path / "file" if say == "file" else say
    with serving(serve) as port, BadClients(port, connections=2, rate=50, say=words, then=then, every=0.01):
        eventually(lambda: len(received) >= 3, "three connections")
    assert all(data[: len(wanted)] == wanted for data in received[:3])  # the last ones were cut off


def test_bad_clients_with_a_total_do_not_come_again() -> None:
    served: list[int] = []
    with serving(lambda _: served.append(1)) as port:
        with BadClients(port, connections=2, rate=1_000, say="nothing", then="hold", total=4) as bad:
            eventually(lambda: len(served) == 4, "four connections")
            time.sleep(0.05)
        assert bad.output["opened"] == bad.output["ended"] + bad.output["open"] == 4


def test_quantile_is_the_smallest_value_with_its_share() -> None:
    assert quantile([], 0.99) == 0.0
    assert quantile(range(1, 101), 0.5) == 51
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
