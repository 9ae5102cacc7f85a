"""The client of RTMPT by hand: the bytes that it writes, and that it takes no reply for good that is not."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from testkit.clients import until_end
from testkit.polling import DEADLINE
from testkit.rtmpt_client import BadReply, Ended, Reply, RtmptClient, head
from testkit.rtmpt_server import RtmptServer, rtmpt_server

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x05ab"
Script = Callable[..., "Server"]


class Server:
    """Sends each client the next bytes, and FIN. It keeps what it received."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = replies
        self.received: list[bytes] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place = self.listening.getsockname()[:2]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        for reply in self.replies:
            client, _ = self.listening.accept()
            with client:
                client.settimeout(DEADLINE)
                client.sendall(reply)
                client.shutdown(socket.SHUT_WR)
                self.received.append(until_end(client)[0])


@pytest.fixture
def script() -> Iterator[Script]:
    running: list[Server] = []

    def start(*replies: bytes) -> Server:
        running.append(Server(*replies))
        return running[-1]

    yield start
    for server in running:
        server.thread.join(DEADLINE)
        server.listening.close()
        assert not server.thread.is_alive()


@pytest.fixture
def server() -> Iterator[RtmptServer]:
    """In front of an application that sends back what it gets."""
    application = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = application.accept()
            except OSError:  # closed
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with rtmpt_server(application.getsockname(), hold=0.1) as running:
        yield running
    application.shutdown(socket.SHUT_RDWR)
    application.close()


# ------------------------------------------------------------------------------------------------------- what it writes


def test_request_has_the_fields_of_flash_player_and_a_body_of_one_byte(script: Script) -> None:
    server = script(GOOD)
    with RtmptClient(server.place) as client:
        client.open()
    server.thread.join(DEADLINE)
    place = f"127.0.0.1:{server.place[1]}"
    assert server.received == [
        b"POST /open/1 HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-fcs\r\nUser-Agent: Shockwave Flash\r\n"
        b"Connection: Keep-Alive\r\nCache-Control: no-cache\r\nContent-Length: 1\r\n\r\n\0" % place.encode()
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"minor": 0}, b"POST /idle/A1/0 HTTP/1.0\r\nHost: h\r\nX: 1\r\nContent-Length: 1\r\n\r\n\0"),
        ({"empty": True}, b"POST /idle/A1/0 HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 0\r\n\r\n"),
        ({"first": 1}, b"POST /idle/A1/1 HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 1\r\n\r\n\0"),
        (
            {"absolute": "http://a:80"},
            b"POST http://a:80/idle/A1/0 HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 1\r\n\r\n\0",
        ),
        (
            {"headers": [("X-Forwarded-For", "192.0.2.1")]},
            b"POST /idle/A1/0 HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nX: 1\r\nContent-Length: 1\r\n\r\n\0",
        ),
        ({"piece": 7}, b"POST /idle/A1/0 HTTP/1.1\r\nHost: h\r\nX: 1\r\nContent-Length: 1\r\n\r\n\0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_option_changes_the_bytes_of_a_request(script: Script, options: dict[str, object], expected: bytes) -> None:
    server = script(GOOD)
    with RtmptClient(server.place, host="h", fields=[("X", "1")], **options) as client:  # type: ignore[arg-type]
        client.id = "A1"
        assert client.idle() == Reply(200, [("Content-Length", "3")], 5, b"ab")
    server.thread.join(DEADLINE)
    assert server.received == [expected]


def test_head_without_size_has_no_content_length() -> None:
    assert head("/open/1", None, host="h", fields=()) == b"POST /open/1 HTTP/1.1\r\nHost: h\r\n\r\n"


def test_numbers_go_on_after_the_highest_one() -> None:
    client = RtmptClient(("127.0.0.1", 9))
    client.id = "A1"
    paths = [client.path("send"), client.path("send", 5), client.path("idle", 3), client.path("send")]
    assert paths == ["/send/A1/0", "/send/A1/5", "/idle/A1/3", "/send/A1/6"]
    assert client.path("close", numbered=False) == "/close/A1"


# -------------------------------------------------------------------------------------------------------- what it reads


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n\x01", "needs one Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n\x01", "needs one Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n\x01", "needs one Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\x01\r\n0\r\n\r\n", "needs one Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\x01x", "bytes after the last reply: b'x'"),
        (GOOD + GOOD, "bytes after the last reply"),
        (b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n", "no status line"),
        (b"\x01HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "no status line"),
        (b"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n", "no status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n\x01", "no field"),
        (b"HTTP/1.1 200 OK\r\nA: 1\nContent-Length: 1\r\n\r\n\x01", "no field"),
        (b"HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\n\x01", "no field"),
    ],
)
def test_reply_that_is_none_is_an_error(script: Script, reply: bytes, error: str) -> None:
    with RtmptClient(script(reply).place) as client, pytest.raises(BadReply, match=error):
        client.idle()


@pytest.mark.parametrize("part", [b"", GOOD[:5], GOOD[:-1]])
def test_reply_that_ends_early_is_an_error_that_has_the_part(script: Script, part: bytes) -> None:
    with RtmptClient(script(part).place) as client, pytest.raises(Ended) as error:
        client.idle()
    assert (error.value.received, error.value.how) == (part, "fin")


@pytest.mark.parametrize(
    ("reply", "interval", "body"),
    [
        (GOOD, 5, b"ab"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None, b""),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", None, b"no"),
    ],
)
def test_interval_is_the_first_byte_of_a_200(script: Script, reply: bytes, interval: int | None, body: bytes) -> None:
    with RtmptClient(script(reply).place) as client:
        found = client.idle()
    assert (found.interval, found.body) == (interval, body)


def test_connection_is_closed_after_a_reply_that_says_so_and_opened_for_the_next(script: Script) -> None:
    closing = GOOD.replace(b"Content", b"Connection: close\r\nContent")
    old = closing.replace(b"1.1", b"1.0")
    kept = old.replace(b"close", b"Keep-Alive")
    with RtmptClient(script(closing, old, kept).place) as client:
        for lanes in (0, 0, 1):
            client.idle()
            assert len(client.lanes) == lanes
    assert client.connected == 3


def test_connection_that_the_server_closed_is_opened_again_only_if_asked_to(script: Script) -> None:
    with RtmptClient(script(GOOD, GOOD).place, reopen=True) as client:
        client.idle()
        while not client.lanes[0].has_ended():
            pass
        assert client.idle().body == b"ab"
        assert client.connected == 2
    with RtmptClient(script(GOOD).place) as client:
        client.idle()
        with pytest.raises(ConnectionError):
            client.idle()


# -------------------------------------------------------------------------------------------- against the simple server


def test_requests_in_a_pipeline_have_replies_in_order(server: RtmptServer) -> None:
    with RtmptClient(server.place) as client:
        client.open()
        replies = client.pipeline(("send", b"a"), ("send", b"b"), ("idle", b"\0"))
        received = b"".join(reply.body for reply in replies)
        assert client.receive_exactly(2, received) == b"ab"


def test_requests_on_two_connections_in_the_wrong_order_reach_the_application_in_the_right_one(
    server: RtmptServer,
) -> None:
    with RtmptClient(server.place, first=1) as client:
        client.open()
        received = client.send(b"1").body
        client.write("send", b"3", number=3)
        client.write("send", b"2", number=2, via=1)
        second, third = client.read(via=1), client.read()
        assert client.receive_exactly(3, received + second.body + third.body) == b"123"
        assert client.connected == 2


def test_repeated_number_has_the_same_reply_and_reaches_the_application_once(server: RtmptServer) -> None:
    with RtmptClient(server.place) as client:
        client.open()
        first = client.send(b"x")
        assert client.send(b"x", number=client.number - 1) == first
        assert client.receive_exactly(1, first.body) == b"x"
        assert client.idle().body == b""


def test_session_that_is_closed_or_unknown_has_404(server: RtmptServer) -> None:
    with RtmptClient(server.place) as client:
        client.open()
        reply = client.close()
        assert (reply.status, reply.interval, reply.body) == (200, 0, b"")
        assert client.idle().status == 404
        assert client.exchange("fcs").status == 404
    assert server.sessions == {}


def test_application_that_is_not_there_is_502_without_a_body() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nothing = listening.getsockname()
    with rtmpt_server(nothing) as server, RtmptClient(server.place) as client:
        reply = client.open()
        assert (reply.status, reply.body, client.id) == (502, b"", "")
