"""What every input gets on a shared port: the second column of the contract, with a real application behind it."""

import dataclasses
import logging
import socket
import time
from collections.abc import Iterator

import gevent
import pytest
from conftest import Serve

from flashpol._fastpath import PROTOCOLS
from flashpol._pump import ENDS, FAILURES
from flashpol.config import ConnectionLimits, UpstreamAddress
from flashpol.log.handler import log
from testkit.application import Application, application, receive
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.polling import DEADLINE, eventually
from testkit.serving import LARGE, REPLY, TIMEOUTS, Serving

QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.2, request_timeout=0.5, connect_timeout=1.0)


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


@pytest.fixture
def server(app: Application, serve: Serve) -> Serving:
    return serve(timeouts=QUICK, upstream=[app.remote])


def relayed_as(server: Serving) -> dict[str, int]:
    """How many connections were relayed, by protocol."""
    counts = zip(PROTOCOLS, server.counters.all("relayed"), strict=True)
    return {protocol: count for protocol, count in counts if count}


def ends(server: Serving, number: int = 0) -> dict[str, int]:
    block = server.relayed[number]
    counts = zip((*ENDS, *FAILURES), (*block.all("ends"), *block.all("failures")), strict=True)
    return {name: count for name, count in counts if count}


@pytest.mark.parametrize("request_", [REQUEST, BARE + b"\n", BARE + b"\r\n", BARE + b"\r"], ids=repr)
def test_a_policy_request_is_answered(server: Serving, app: Application, request_: bytes) -> None:
    assert server.ask(request_) == REPLY
    assert server.settle() == {"reply": 1}
    assert app.nobody_came()


def test_byte_by_byte(server: Serving, app: Application) -> None:
    with server.connect() as client:
        for byte in REQUEST:
            deliver(client, bytes([byte]))
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.nobody_came()


@pytest.mark.parametrize("ending", ["fin", "silence"])
def test_22_bytes_and_then_nothing(server: Serving, app: Application, ending: str) -> None:
    with server.connect() as client:
        client.sendall(BARE)
        if ending == "fin":
            client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.nobody_came()


def test_a_request_and_more(server: Serving, app: Application) -> None:
    with server.connect() as client:
        client.sendall(REQUEST + b"more")
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.nobody_came()


def test_a_large_reply(app: Application, serve: Serve) -> None:
    server = serve(reply=LARGE, timeouts=dataclasses.replace(QUICK, reply_timeout=10), upstream=[app.remote])
    assert server.ask() == LARGE
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("split", [False, True], ids=["in one segment", "byte by byte"])
@pytest.mark.parametrize("position", [0, 1, 2, 10, 21, 22])
def test_a_byte_that_differs_at_whatever_position(
    server: Serving, app: Application, position: int, split: bool
) -> None:
    data = REQUEST[:position] + b"~" + b" and all that follows\0"
    with server.connect() as client:
        for piece in [data[n : n + 1] for n in range(len(data))] if split else [data]:
            client.sendall(piece)
        inner = app.accept()
        assert receive(inner, len(data)) == data
        inner.sendall(b"answer")
        assert receive(client, 6) == b"answer"
        inner.close()
        assert until_end(client) == (b"", "fin")
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {"other": 1}
    assert server.relayed[0].all("sent") == [len(data), 6]


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http"),
        (b"\x16\x03\x01\x00\xa5", "tls"),
        (b"\x03" + bytes(1536), "rtmp"),
        (b"\x06" + bytes(1536), "rtmpe"),
        (b"<msg t='sys'>\0", "other"),
        (b"P", "other"),
        (b"PUNCH\0", "other"),
    ],
    ids=["http", "tls", "rtmp", "rtmpe", "xml", "could be http", "is not http"],
)
@pytest.mark.parametrize("split", [False, True], ids=["in one segment", "one byte first"])
def test_the_protocol_is_named(server: Serving, app: Application, data: bytes, protocol: str, split: bool) -> None:
    with server.connect() as client:
        if split:
            deliver(client, data[:1])
        client.sendall(data[split:])
        with app.accept() as inner:
            assert receive(inner, len(data)) == data
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {protocol: 1}


def test_what_could_become_a_protocol_is_not_kept_waiting(app: Application, serve: Serve) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, first_byte_timeout=60), upstream=[app.remote])
    with server.connect() as client:
        client.sendall(b"P")
        with app.accept() as inner:
            assert receive(inner, 1) == b"P"
    assert server.settle() == {"relayed": 1}


def test_the_application_may_speak_first(server: Serving, app: Application) -> None:
    with server.connect() as client:
        assert app.nobody_came()
        with app.accept() as inner:
            inner.sendall(b"220 welcome\r\n")
            assert receive(client, 13) == b"220 welcome\r\n"
            client.sendall(BARE)  # which is no policy request any more
            assert receive(inner, 22) == BARE
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {"silent": 1}


def test_a_request_that_stops_half_way_is_relayed_after_all(server: Serving, app: Application) -> None:
    began = time.monotonic()
    with server.connect() as client:
        client.sendall(BARE[:10])
        with app.accept() as inner:
            assert time.monotonic() - began >= QUICK.first_byte_timeout + QUICK.request_timeout
            assert receive(inner, 10) == BARE[:10]
    assert server.settle() == {"relayed": 1}


def test_a_slow_request_has_the_time_of_one(server: Serving, app: Application) -> None:
    """It takes longer than first_byte_timeout."""
    with server.connect() as client:
        began = time.monotonic()
        for byte in REQUEST:
            time.sleep(0.02)
            client.sendall(bytes([byte]))
        if time.monotonic() - began < QUICK.first_byte_timeout + QUICK.request_timeout:
            assert until_end(client) == (REPLY, "fin")
    assert app.nobody_came()


def test_bytes_and_fin_at_once(server: Serving, app: Application) -> None:
    """As `printf … | nc -N` does: the answer is still delivered."""
    for data in (b"hello", BARE[:5], b"GE"):
        with server.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with app.accept() as inner:
                assert until_end(inner) == (data, "fin")
                inner.sendall(b"bye")
            assert until_end(client) == (b"bye", "fin")
    assert server.settle() == {"relayed": 3}


def test_connect_and_close(server: Serving, app: Application) -> None:
    server.connect().close()
    reset(server.connect())
    eventually(lambda: server.counters["accepted"] == 2)
    assert server.settle() == {"reset": 2}
    assert app.nobody_came()


def test_both_connections_of_a_client_are_served(server: Serving, app: Application) -> None:
    """Flash opens one for the policy, then another for the data."""
    for _ in range(3):
        assert server.ask() == REPLY
        with server.connect() as client:
            client.sendall(b"login\0")
            with app.accept() as inner:
                assert receive(inner, 6) == b"login\0"
    assert server.settle() == {"reply": 3, "relayed": 3}


def test_reset_goes_through(server: Serving, app: Application) -> None:
    client = server.connect()
    client.sendall(b"hello")
    with app.accept() as inner:
        assert receive(inner, 5) == b"hello"
        reset(client)
        assert until_end(inner) == (b"", "rst")
    with server.connect() as client:
        client.sendall(b"hello")
        inner = app.accept()
        assert receive(inner, 5) == b"hello"
        reset(inner)
        assert until_end(client) == (b"", "rst")
    assert server.settle() == {"relayed": 2}
    assert ends(server) == {"client_reset": 1, "upstream_reset": 1}


def test_silverlight_shares_a_port_too(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], terminated=False)
    assert server.ask(BARE) == REPLY
    with server.connect() as client:
        client.sendall(b"data")
        with app.accept() as inner:
            assert receive(inner, 4) == b"data"
    assert server.settle() == {"reply": 1, "relayed": 1}


def test_no_upstream_answers(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote])
    app.listening.close()
    began = time.monotonic()
    with server.connect() as client:
        client.sendall(b"hello")
        assert until_end(client)[0] == b""
    assert time.monotonic() - began < DEADLINE
    assert server.settle() == {"upstream": 1}
    assert ends(server) == {"refused": 1}
    assert server.ask() == REPLY  # policies need no upstream


def test_the_next_upstream_is_tried(app: Application, serve: Serve) -> None:
    with application() as gone:
        pass
    server = serve(timeouts=QUICK, upstream=[gone.remote, app.remote])
    for _ in range(6):
        with server.connect() as client:
            client.sendall(b"hello")
            with app.accept() as inner:
                assert receive(inner, 5) == b"hello"
    assert server.settle() == {"relayed": 6}
    assert ends(server, 0) == {"refused": 3}  # then it is left out
    assert server.relayed[1]["opened"] == 6


def test_round_robin(serve: Serve) -> None:
    with application() as one, application() as other:
        server = serve(timeouts=QUICK, upstream=[one.remote, other.remote])
        clients = []
        for _ in range(6):
            clients.append(server.connect())
            clients[-1].sendall(b"hello")
        eventually(lambda: [block["open"] for block in server.relayed] == [3, 3])
        for client in clients:
            client.close()
        for app in (one, other):
            for _ in range(3):
                app.accept().close()
        server.settle()


def test_least_connections(serve: Serve) -> None:
    with application() as one, application() as other:
        server = serve(timeouts=QUICK, upstream=[one.remote, other.remote], balance="least-connections")
        clients = []

        def connect() -> None:
            before = sum(block["open"] for block in server.relayed)
            clients.append(server.connect())
            clients[-1].sendall(b"%d" % (len(clients) - 1))
            eventually(lambda: sum(block["open"] for block in server.relayed) == before + 1)

        for _ in range(4):
            connect()
        assert [block["open"] for block in server.relayed] == [2, 2]
        for _ in range(2):  # both of one leave
            with one.accept() as inner:
                leaving = clients[int(receive(inner, 1))]
            leaving.close()
        eventually(lambda: server.relayed[0]["open"] == 0)
        for _ in range(2):
            connect()
        assert [block["open"] for block in server.relayed] == [2, 2]
        for client in clients:
            client.close()
        for app in (one, other):
            for _ in range(2):
                app.accept().close()
        server.settle()


def test_a_name_is_looked_up(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[UpstreamAddress("localhost", app.remote.port)])
    with server.connect() as client:
        client.sendall(b"hello")
        with app.accept() as inner:
            assert receive(inner, 5) == b"hello"
    assert server.settle() == {"relayed": 1}


def test_a_name_that_nobody_knows(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, log.name):
        server = serve(timeouts=QUICK, upstream=[UpstreamAddress("no-such-host.invalid", 1)])
        with server.connect() as client:
            client.sendall(b"hello")
            assert until_end(client)[0] == b""
        assert server.settle() == {"upstream": 1}
    assert ends(server) == {"unresolved": 1}
    assert "cannot look up the address of upstream no-such-host.invalid:1" in caplog.text


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_client_s_address_reaches_the_application(app: Application, serve: Serve, version: str) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], upstream_proxy=version)
    with server.connect() as client:
        client.sendall(b"hello")
        host, port = client.getsockname()
        with app.accept() as inner:
            if version == "v1":
                header = f"PROXY TCP4 {host} 127.0.0.1 {port} {server.address[1]}\r\n".encode()
            else:
                ends_ = socket.inet_aton(host) * 2 + port.to_bytes(2) + server.address[1].to_bytes(2)
                header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + ends_
            assert receive(inner, len(header) + 5) == header + b"hello"
    assert server.settle() == {"relayed": 1}


def test_the_total_is_bounded(app: Application, serve: Serve) -> None:
    server = serve(limits=ConnectionLimits(max_sessions=2), upstream=[app.remote])
    clients = [server.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendall(b"hello")
        if number < 2:
            eventually(lambda number=number: server.relayed[0]["open"] == number + 1)
    assert until_end(clients[2])[0] == b""
    for client in clients:
        client.close()
    for _ in range(2):
        app.accept().close()
    assert server.settle() == {"relayed": 2, "max_sessions": 1}


def test_those_that_wait_for_their_turn_count_in_the_total(app: Application, serve: Serve) -> None:
    timeouts = dataclasses.replace(QUICK, connect_timeout=10)
    server = serve(timeouts=timeouts, limits=ConnectionLimits(max_sessions=3), upstream=[app.remote], connect_rate=1)
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        client.sendall(b"hello")
    eventually(lambda: server.outcomes.get("max_sessions") == 3)
    assert server.counters["sessions"] == 3  # two that are relayed, and one that waits a second
    for client in clients:
        client.close()
    for _ in range(3):
        app.accept().close()
    assert server.settle() == {"relayed": 3, "max_sessions": 3}


def test_the_rate_of_connecting_is_bounded(app: Application, serve: Serve) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, connect_timeout=0.3), upstream=[app.remote], connect_rate=2)
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        client.sendall(b"hello")
    eventually(lambda: server.relayed[0]["opened"] + server.outcomes.get("upstream", 0) == 6)
    assert server.relayed[0]["opened"] >= 2
    refused = server.outcomes["upstream"]
    assert ends(server)["rate"] == refused >= 1
    for client in clients:
        client.close()
    for _ in range(6 - refused):
        app.accept().close()
    assert server.settle() == {"relayed": 6 - refused, "upstream": refused}


def test_those_who_wait_to_be_connected_count_too(app: Application, serve: Serve) -> None:
    timeouts = dataclasses.replace(QUICK, connect_timeout=60)
    server = serve(timeouts=timeouts, limits=ConnectionLimits(max_sessions=2), upstream=[app.remote], connect_rate=0.1)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.sendall(b"hello")
        with app.accept():
            second.sendall(b"hello")
            eventually(lambda: server.counters["sessions"] == 2)
            third.sendall(b"hello")
            assert until_end(third)[0] == b""
            first.close()
        server.stop_accepting()
        server.finish(0)
    assert server.settle() == {"relayed": 1, "max_sessions": 1, "shutdown": 1}


def test_who_still_waits_for_its_turn_when_all_ends_is_let_go(app: Application, serve: Serve) -> None:
    """By then its descriptor may be somebody else's."""
    server = serve(timeouts=dataclasses.replace(QUICK, connect_timeout=60), upstream=[app.remote], connect_rate=1)
    clients = [server.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendall(b"hello")
        eventually(lambda number=number: server.counters["sessions"] == number + 1)
    server.stop_accepting()
    assert server.finish(0) is False
    for client in clients:
        assert until_end(client)[0] == b""
        client.close()
    outcomes = server.settle()
    assert sum(outcomes.values()) == 3
    for _ in range(outcomes.get("relayed", 0)):
        app.accept().close()
    server.hub.call(gevent.sleep, 1.2)  # its turn comes
    assert app.nobody_came()
    assert sum(server.relayed[0].all("ends")) == outcomes.get("relayed", 0)


def test_idle_conversations_end(app: Application, serve: Serve) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, idle_timeout=0.2), upstream=[app.remote])
    with server.connect() as client:
        client.sendall(b"hello")
        with app.accept() as inner:
            assert until_end(inner) == (b"hello", "fin")
            assert until_end(client) == (b"", "fin")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"idle": 1}


def test_stopping_lets_conversations_end_within_the_time(server: Serving, app: Application) -> None:
    with server.connect() as going, server.connect() as staying:
        going.sendall(b"going")
        staying.sendall(b"stays")
        accepted = [app.accept(), app.accept()]
        inner = {receive(each, 5): each for each in accepted}
        server.stop_accepting()
        going.close()
        inner[b"going"].close()
        began = time.monotonic()
        assert server.finish(0.3) is False
        assert 0.25 < time.monotonic() - began < DEADLINE
        assert until_end(staying) == (b"", "fin")
        inner[b"stays"].close()
    assert server.settle() == {"relayed": 2}
    assert ends(server) == {"client": 1, "shutdown": 1}


def test_stopping_while_nobody_accepts(serve: Serve) -> None:
    with application(backlog=0) as app:
        fillers = []
        for _ in range(3):
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(app.listening.getsockname())
        server = serve(timeouts=dataclasses.replace(QUICK, connect_timeout=60), upstream=[app.remote])
        with server.connect() as client:
            client.sendall(b"hello")
            eventually(lambda: server.relayed[0]["connecting"] == 1)
            server.stop_accepting()
            assert server.finish(0) is False
            assert until_end(client)[0] == b""
        for each in fillers:
            each.close()
        assert server.settle() == {"shutdown": 1}
        assert ends(server) == {"cut": 1}


def test_the_access_log_tells_of_it(app: Application, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, log.name):
        server = serve(timeouts=QUICK, upstream=[app.remote], access_log=1.0)
        with server.connect() as client:
            client.sendall(b"hello")
            with app.accept() as inner:
                receive(inner, 5)
                inner.sendall(b"answer")
            assert until_end(client) == (b"answer", "fin")
        server.settle()
    assert "relayed after" in caplog.text
    assert "6 bytes" in caplog.text


def test_many_conversations_and_policies_at_once(app: Application, serve: Serve, many_files: int) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, request_timeout=10), upstream=[app.remote])
    clients = [server.connect() for _ in range(300)]
    for number, client in enumerate(clients):
        client.sendall(b"%4d" % number if number % 3 else REQUEST)
    for number, client in enumerate(clients):
        if number % 3 == 0:
            assert until_end(client) == (REPLY, "fin")
    inner = {}
    for _ in range(200):
        each = app.accept()
        inner[int(receive(each, 4))] = each
    for number, each in inner.items():
        each.sendall(b"%4d" % -number)
    for number in inner:
        assert receive(clients[number], 4) == b"%4d" % -number
    for each in (*clients, *inner.values()):
        each.close()
    assert server.settle() == {"reply": 100, "relayed": 200}
