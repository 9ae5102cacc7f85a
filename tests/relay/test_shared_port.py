"""Every input that a shared port can get, with a real application behind it."""

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
def test_policy_request_on_a_shared_port_gets_the_reply(server: Serving, app: Application, request_: bytes) -> None:
    assert server.ask(request_) == REPLY
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


def test_policy_request_byte_by_byte_gets_the_reply(server: Serving, app: Application) -> None:
    with server.connect() as client:
        for byte in REQUEST:
            deliver(client, bytes([byte]))
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


@pytest.mark.parametrize("ending", ["fin", "silence"])
def test_policy_request_without_terminator_gets_the_reply(server: Serving, app: Application, ending: str) -> None:
    with server.connect() as client:
        client.sendall(BARE)
        if ending == "fin":
            client.shutdown(socket.SHUT_WR)
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


def test_policy_request_with_extra_bytes_is_not_relayed(server: Serving, app: Application) -> None:
    with server.connect() as client:
        client.sendall(REQUEST + b"more")
        assert until_end(client) == (REPLY, "fin")
    assert server.settle() == {"reply": 1}
    assert app.has_no_connection()


def test_large_reply_on_a_shared_port_is_complete(app: Application, serve: Serve) -> None:
    server = serve(reply=LARGE, timeouts=dataclasses.replace(QUICK, reply_timeout=10), upstream=[app.remote])
    assert server.ask() == LARGE
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("split", [False, True], ids=["in one segment", "byte by byte"])
@pytest.mark.parametrize("position", [0, 11, 22])
def test_request_with_a_different_byte_is_relayed_whole(
    server: Serving, app: Application, position: int, split: bool
) -> None:
    data = REQUEST[:position] + b"~" + b" and all that follows\0"
    with server.connect() as client:
        for piece in [data[n : n + 1] for n in range(len(data))] if split else [data]:
            client.sendall(piece)
        inner = app.accept()
        assert receive(inner, len(data)) == data
        inner.sendall(b"result")
        assert receive(client, 6) == b"result"
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
def test_relayed_session_is_counted_by_protocol(
    server: Serving, app: Application, data: bytes, protocol: str, split: bool
) -> None:
    with server.connect() as client:
        if split:
            deliver(client, data[:1])
        client.sendall(data[split:])
        with app.accept() as inner:
            assert receive(inner, len(data)) == data
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {protocol: 1}


def test_ambiguous_first_byte_is_relayed_within_the_grace(app: Application, serve: Serve) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, first_byte_timeout=60), upstream=[app.remote])
    with server.connect() as client:
        client.sendall(b"P")
        with app.accept() as inner:
            assert receive(inner, 1) == b"P"
    assert server.settle() == {"relayed": 1}


def test_silent_client_is_relayed_after_first_byte_timeout(server: Serving, app: Application) -> None:
    with server.connect() as client:
        assert app.has_no_connection()
        with app.accept() as inner:
            inner.sendall(b"220 welcome\r\n")
            assert receive(client, 13) == b"220 welcome\r\n"
            client.sendall(BARE)  # relayed now, not a policy request
            assert receive(inner, 22) == BARE
    assert server.settle() == {"relayed": 1}
    assert relayed_as(server) == {"silent": 1}


@pytest.mark.parametrize("proxy", [None, "v2"])
def test_silent_session_ends_after_silent_timeout(app: Application, serve: Serve, proxy: str | None) -> None:
    """The PROXY header that flashpol sends is no word of the client's."""
    timeouts = dataclasses.replace(QUICK, silent_timeout=0.3)
    server = serve(timeouts=timeouts, upstream=[app.remote], upstream_proxy=proxy)
    with server.connect() as silent, server.connect() as speaking:
        speaking.sendall(b"hello")
        assert until_end(silent) == (b"", "fin")
        with app.accept(), app.accept():
            eventually(lambda: ends(server) == {"silent": 1})
    assert server.settle() == {"relayed": 2}


def test_request_that_stops_half_way_is_relayed(server: Serving, app: Application) -> None:
    began = time.monotonic()
    with server.connect() as client:
        client.sendall(BARE[:10])
        with app.accept() as inner:
            assert time.monotonic() - began >= QUICK.first_byte_timeout + QUICK.request_timeout
            assert receive(inner, 10) == BARE[:10]
    assert server.settle() == {"relayed": 1}


def test_slow_request_gets_the_reply_within_request_timeout(server: Serving, app: Application) -> None:
    """It takes longer than first_byte_timeout."""
    with server.connect() as client:
        began = time.monotonic()
        for byte in REQUEST:
            time.sleep(0.02)
            client.sendall(bytes([byte]))
        if time.monotonic() - began < QUICK.first_byte_timeout + QUICK.request_timeout:
            assert until_end(client) == (REPLY, "fin")
    assert app.has_no_connection()


def test_half_close_with_the_first_bytes_is_passed_on(server: Serving, app: Application) -> None:
    """As `printf … | nc -N` does: what the application sends is still delivered."""
    for data in (b"hello", BARE[:5], b"GE"):
        with server.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            with app.accept() as inner:
                assert until_end(inner) == (data, "fin")
                inner.sendall(b"bye")
            assert until_end(client) == (b"bye", "fin")
    assert server.settle() == {"relayed": 3}


def test_connect_and_close_is_not_relayed(server: Serving, app: Application) -> None:
    server.connect().close()
    reset(server.connect())
    eventually(lambda: server.counters["accepted"] == 2)
    assert server.settle() == {"reset": 2}
    assert app.has_no_connection()


def test_policy_and_data_connections_in_turn_are_both_served(server: Serving, app: Application) -> None:
    """Flash opens one connection for the policy, then another for the data."""
    for _ in range(3):
        assert server.ask() == REPLY
        with server.connect() as client:
            client.sendall(b"login\0")
            with app.accept() as inner:
                assert receive(inner, 6) == b"login\0"
    assert server.settle() == {"reply": 3, "relayed": 3}


def test_reset_of_either_side_is_passed_on(server: Serving, app: Application) -> None:
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


def test_silverlight_listener_shares_its_port(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[app.remote], terminated=False)
    assert server.ask(BARE) == REPLY
    with server.connect() as client:
        client.sendall(b"data")
        with app.accept() as inner:
            assert receive(inner, 4) == b"data"
    assert server.settle() == {"reply": 1, "relayed": 1}


def test_upstream_that_refuses_closes_the_client_and_serves_policies(app: Application, serve: Serve) -> None:
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


def test_upstream_that_refuses_is_replaced_by_the_next(app: Application, serve: Serve) -> None:
    with application() as gone:
        pass
    server = serve(timeouts=QUICK, upstream=[gone.remote, app.remote])
    for _ in range(6):
        with server.connect() as client:
            client.sendall(b"hello")
            with app.accept() as inner:
                assert receive(inner, 5) == b"hello"
    assert server.settle() == {"relayed": 6}
    assert ends(server, 0) == {"refused": 3}  # then it is down
    assert server.relayed[1]["opened"] == 6


def test_round_robin_spreads_sessions_evenly(serve: Serve) -> None:
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


def test_least_connections_prefers_the_emptier_upstream(serve: Serve) -> None:
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
        for _ in range(2):  # both sessions of one upstream end
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


def test_upstream_by_name_is_reached(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, upstream=[UpstreamAddress("localhost", app.remote.port)])
    with server.connect() as client:
        client.sendall(b"hello")
        with app.accept() as inner:
            assert receive(inner, 5) == b"hello"
    assert server.settle() == {"relayed": 1}


def test_upstream_by_unknown_name_closes_the_client_and_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, log.name):
        server = serve(timeouts=QUICK, upstream=[UpstreamAddress("no-such-host.invalid", 1)])
        with server.connect() as client:
            client.sendall(b"hello")
            assert until_end(client)[0] == b""
        assert server.settle() == {"upstream": 1}
    assert ends(server) == {"unresolved": 1}
    assert "cannot look up the address of upstream no-such-host.invalid:1" in caplog.text


def test_upstream_that_goes_down_and_comes_back_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with application() as app:
        address = app.listening.getsockname()
    with caplog.at_level(logging.INFO, log.name):
        server = serve(timeouts=QUICK, upstream=[app.remote])

        def lines() -> list[str]:
            return [text.partition(": backend ")[2] for text in caplog.messages if ": backend " in text]

        for _ in range(5):
            with server.connect() as client:
                client.sendall(b"hello")
                assert until_end(client)[0] == b""
        down = (
            f"{app.remote} is down: connection refused (3 failures in a row); "
            "no other backend is up, so sessions still try it"
        )
        assert lines() == [down]
        with socket.create_server(address) as listening, server.connect() as client:
            client.sendall(b"hello")
            with listening.accept()[0] as inner:
                assert receive(inner, 5) == b"hello"
                eventually(lambda: len(lines()) == 2, "the second line, while the session lasts")
    assert lines()[1].startswith(f"{app.remote} is up again after ")
    assert server.settle() == {"upstream": 5, "relayed": 1}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_upstream_proxy_sends_the_clients_address(app: Application, serve: Serve, version: str) -> None:
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


def test_max_sessions_refuses_the_next_session(app: Application, serve: Serve) -> None:
    server = serve(limits=ConnectionLimits(max_sessions=2), upstream=[app.remote])
    clients = [server.connect() for _ in range(3)]
    inner: list[socket.socket] = []
    for number, client in enumerate(clients):
        client.sendall(b"hello")
        if number < 2:
            inner.append(app.accept())
            inner[-1].sendall(b"you")  # else the session would give way
            assert receive(client, 3) == b"you"
    assert until_end(clients[2])[0] == b""
    for end in (*clients, *inner):
        end.close()
    assert server.settle() == {"relayed": 2, "max_sessions": 1}


def test_max_sessions_counts_sessions_that_wait_for_their_turn(app: Application, serve: Serve) -> None:
    """One is relayed, which the application has answered, and two wait for theirs."""
    timeouts = dataclasses.replace(QUICK, connect_timeout=60)
    server = serve(timeouts=timeouts, limits=ConnectionLimits(max_sessions=3), upstream=[app.remote], connect_rate=0.1)
    clients = [server.connect() for _ in range(6)]
    clients[0].sendall(b"hello")
    with app.accept() as inner:
        inner.sendall(b"you")
        assert receive(clients[0], 3) == b"you"
        for client in clients[1:]:
            client.sendall(b"hello")
        eventually(lambda: server.outcomes.get("max_sessions") == 3)
        assert server.counters["sessions"] == 3
        for client in clients:
            client.close()
        server.stop_accepting()
        server.finish(0)
    assert server.settle() == {"relayed": 1, "max_sessions": 3, "shutdown": 2}


def test_connect_rate_refuses_sessions_that_would_wait_too_long(app: Application, serve: Serve) -> None:
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


def test_finish_ends_a_session_that_waits_for_its_turn(app: Application, serve: Serve) -> None:
    timeouts = dataclasses.replace(QUICK, connect_timeout=60)
    server = serve(timeouts=timeouts, limits=ConnectionLimits(max_sessions=2), upstream=[app.remote], connect_rate=0.1)
    with server.connect() as first, server.connect() as second, server.connect() as third:
        first.sendall(b"hello")
        with app.accept() as inner:
            inner.sendall(b"you")
            assert receive(first, 3) == b"you"
            second.sendall(b"hello")
            eventually(lambda: server.counters["sessions"] == 2)
            third.sendall(b"hello")
            assert until_end(third)[0] == b""
            first.close()
        server.stop_accepting()
        server.finish(0)
    assert server.settle() == {"relayed": 1, "max_sessions": 1, "shutdown": 1}


def test_finish_while_sessions_wait_connects_none_later(app: Application, serve: Serve) -> None:
    """By its turn the descriptor may belong to another connection."""
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
    assert app.has_no_connection()
    assert sum(server.relayed[0].all("ends")) == outcomes.get("relayed", 0)


def test_idle_timeout_ends_the_session(app: Application, serve: Serve) -> None:
    server = serve(timeouts=dataclasses.replace(QUICK, idle_timeout=0.2), upstream=[app.remote])
    with server.connect() as client:
        client.sendall(b"hello")
        with app.accept() as inner:
            assert until_end(inner) == (b"hello", "fin")
            assert until_end(client) == (b"", "fin")
    assert server.settle() == {"relayed": 1}
    assert ends(server) == {"idle": 1}


def test_finish_waits_for_sessions_then_cuts_them(server: Serving, app: Application) -> None:
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


def test_session_that_begins_while_the_queue_is_emptied_ends_without_harm(server: Serving, app: Application) -> None:
    """It begins in the greenlet that stops the server, which sleeps later until the sessions have ended."""
    came = threading.Event()

    def stop() -> bool:
        came.wait(DEADLINE)  # the hub does not run meanwhile, so the client waits in the accept queue
        return server.service.stop_accepting(5) and server.service.finish(DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(server.hub.call, stop)
        with server.connect() as client:
            client.sendall(b"hello")
            came.set()
            with app.accept() as inner:
                assert receive(inner, 5) == b"hello"
                assert not done.done()
                client.close()
        assert done.result() is True
    assert server.settle() == {"relayed": 1}


def test_finish_while_connecting_ends_the_session(serve: Serve) -> None:
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


def test_access_log_of_a_session_has_its_bytes(
    app: Application, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, log.name):
        server = serve(timeouts=QUICK, upstream=[app.remote], access_log=1.0)
        with server.connect() as client:
            client.sendall(b"hello")
            with app.accept() as inner:
                receive(inner, 5)
                inner.sendall(b"result")
            assert until_end(client) == (b"result", "fin")
        server.settle()
    assert "relayed after" in caplog.text
    assert "6 bytes" in caplog.text


def test_sessions_and_policy_requests_at_once_are_all_served(app: Application, serve: Serve, many_files: int) -> None:
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
