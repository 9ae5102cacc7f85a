"""What WebSocket clients say is what wsproto understands, and good ones see every reply that is not exact."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from faults.clients import GoodClients
from faults.hello import LARGEST, VARIED
from faults.places import SAME_LISTENER, URL_POLICY, WS_GAME, WS_PLAYER, WSS_GAME, Kind, Row
from faults.server import MESSAGES, write_messages
from faults.websocket import FORWARDED, ORIGIN, messages
from testkit.polling import eventually
from tests.faults.test_clients import FakeServer, serving

SAID = messages(MESSAGES["hello"], MESSAGES["film"])
Serve = Callable[[socket.socket], None]


def frames(data: bytes, *, client: bool = False, deflate: bool = False) -> list[tuple[Opcode, bytes, bool]]:
    """The frames in what a client has sent, or a server: opcode, payload, and whether the message is complete."""
    extension = PerMessageDeflate(client_no_context_takeover=True, client_max_window_bits=9)
    if deflate:
        extension.finalize("permessage-deflate; client_max_window_bits=9; client_no_context_takeover")
    protocol = FrameProtocol(client=client, extensions=[extension] if deflate else [])
    protocol.receive_bytes(data)
    return [(each.opcode, bytes(each.payload), each.message_finished) for each in protocol.received_frames()]


@pytest.mark.parametrize("name", ["ws-open", "head-stranger", "head-origin", "head-forged", "head-compressed"])
def test_opening_handshake_is_a_request_for_a_websocket(name: str) -> None:
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(SAID[name])
    [event] = server.events()
    assert isinstance(event, Request)
    headers = dict(event.extra_headers)
    assert headers[b"origin"] == (f"https://{VARIED}" if name in ("head-stranger", "head-origin") else ORIGIN).encode()
    assert headers.get(b"x-forwarded-for", b"").decode() == (FORWARDED if name == "head-forged" else "")


def test_half_head_is_as_large_as_a_server_takes_and_has_no_end() -> None:
    assert 8_000 < len(SAID["head-half"]) < 8_192
    assert b"\r\n\r\n" not in SAID["head-half"] + SAID["head-large"]


@pytest.mark.parametrize(
    ("name", "opcode", "payload"),
    [
        ("ws-tiny", Opcode.BINARY, b"e"),
        ("ws-empty", Opcode.BINARY, b""),
        ("ws-pings", Opcode.PING, b"p" * 125),
        ("ws-empty-pings", Opcode.PING, b""),
        ("ws-large", Opcode.BINARY, bytes(LARGEST - 8)),
        ("ws-hello", Opcode.BINARY, MESSAGES["hello"]),
    ],
)
def test_frames_of_a_flood_are_whole_and_alike(name: str, opcode: Opcode, payload: bytes) -> None:
    assert len(SAID[name]) <= LARGEST
    found = frames(SAID[name])
    assert set(found) == {(opcode, payload, True)}
    assert len(found) * (len(payload) + (8 if len(payload) > 125 else 6)) == len(SAID[name])


@pytest.mark.parametrize(("name", "client"), [("ws-close", False), ("ws-closed", True)])
def test_close_has_the_code_of_a_normal_end(name: str, client: bool) -> None:
    protocol = FrameProtocol(client=client, extensions=[])
    protocol.receive_bytes(SAID[name])
    [each] = protocol.received_frames()
    assert (each.opcode, each.payload) == (Opcode.CLOSE, (1000, ""))


@pytest.mark.parametrize(("name", "size"), [("ws-continued", 0), ("ws-fragment", LARGEST - 8)])
def test_fragments_have_no_end(name: str, size: int) -> None:
    assert len(SAID[name]) <= LARGEST
    first, *others = frames(SAID["ws-begin"] + SAID[name])
    assert first == (Opcode.BINARY, b"e", False)
    assert {(len(data), last) for _, data, last in others} == {(size, False)}


def test_frame_that_is_cut_lacks_a_byte() -> None:
    assert b"".join(data for _, data, _ in frames(SAID["ws-cut"])) == bytes(LARGEST - 9)
    assert not any(last for _, _, last in frames(SAID["ws-cut"]))


@pytest.mark.parametrize(("name", "size"), [("ws-bomb", 16 << 20), ("ws-small-bomb", 1 << 20)])
def test_bomb_is_a_message_of_its_size_and_little_on_the_wire(name: str, size: int) -> None:
    found = frames(SAID[name], deflate=True)
    assert sum(len(data) for _, data, _ in found) == size
    assert [last for _, _, last in found][-1]
    assert len(SAID[name]) < size / 200


def test_what_a_server_says_is_not_masked() -> None:
    assert frames(SAID["ws-echo"], client=True) == [(Opcode.BINARY, MESSAGES["hello"], True)]


# ------------------------------------------------------------------------------------------------------ good clients


class HttpServer(FakeServer):
    """One whose clients say what WebSocket clients do."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(port, folder)
        write_messages(folder, SAID)

    def script(self, _: str, steps: str) -> str:
        return steps.format(**{name: self._folder / name for name in (*SAID, *MESSAGES)})


def outcomes(serve: Serve, folder: Path, kind: Kind) -> set[str]:
    """What became of three or more clients of such a server."""
    served: list[None] = []

    def count(client: socket.socket) -> None:
        client.settimeout(10)
        serve(client)
        served.append(None)

    with serving(count) as port:
        with GoodClients(HttpServer(port, folder), folder / "trace", [Row(SAME_LISTENER, "small", kind)]) as good:  # type: ignore[arg-type]
            eventually(lambda: len(served) >= 3, "three clients were served")
        return {each.outcome for each in good.results()[SAME_LISTENER]}


def received(client: socket.socket, wanted: str) -> None:
    data = b""
    while len(data) < len(SAID[wanted]) and (piece := client.recv(len(SAID[wanted]) - len(data))):
        data += piece
    assert data == SAID[wanted]


def playing(
    *, switched: bytes = SAID["ws-switched"], echo: bytes = SAID["ws-echo"], closed: bytes = SAID["ws-closed"]
) -> Serve:
    def serve(client: socket.socket) -> None:
        try:
            for wanted, reply in (("ws-open", switched), ("ws-hello", echo), ("ws-close", closed)):
                received(client, wanted)
                client.sendall(reply)
        except (OSError, AssertionError):  # it has gone
            return

    return serve


@pytest.mark.parametrize(
    ("serve", "outcome"),
    [
        (playing(), "ok"),
        (playing(switched=SAID["ws-switched"].replace(b"Accept: ", b"Accept: x")), "mismatch"),
        (playing(echo=SAID["ws-hello"]), "mismatch"),
        (playing(closed=b""), "short"),
        (playing(closed=SAID["ws-closed"] + b"x"), "mismatch"),
    ],
)
def test_game_sees_each_reply_that_is_not_exact(serve: Serve, outcome: str, tmp_path: Path) -> None:
    assert outcomes(serve, tmp_path, Kind("game", WS_GAME.script, 50)) == {outcome}


def test_player_says_the_same_on_one_websocket_again_and_again(tmp_path: Path) -> None:
    turns: list[None] = []

    def serve(client: socket.socket) -> None:
        try:
            received(client, "ws-open")
            client.sendall(SAID["ws-switched"])
            while len(turns) < 5:
                received(client, "ws-hello")
                client.sendall(SAID["ws-echo"])
                turns.append(None)
            received(client, "ws-open")
        except (OSError, AssertionError):
            return

    kind = Kind("player", WS_PLAYER.script.replace("wait:200", "wait:10"), 50, count=1)
    with serving(serve) as port:
        with GoodClients(HttpServer(port, tmp_path), tmp_path / "trace", [Row(SAME_LISTENER, "small", kind)]) as good:  # type: ignore[arg-type]
            eventually(lambda: len(turns) == 5, "five turns")
        results = good.results()[SAME_LISTENER]
    assert [each.outcome for each in results[:4]] == ["ok"] * 4


@pytest.mark.parametrize(("reply", "outcome"), [(SAID["url-reply"], "ok"), (SAID["url-reply"][:-1], "short")])
def test_client_of_a_policy_by_url_compares_head_and_file(reply: bytes, outcome: str, tmp_path: Path) -> None:
    def serve(client: socket.socket) -> None:
        received(client, "url-request")
        client.sendall(reply)

    assert outcomes(serve, tmp_path, Kind("policy", URL_POLICY.script, 50)) == {outcome}


def test_game_in_tls_has_the_same_script() -> None:
    assert (WSS_GAME.script, WSS_GAME.tls) == (WS_GAME.script, True)
