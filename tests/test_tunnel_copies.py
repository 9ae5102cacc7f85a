"""A request that waits for an earlier one and comes again on other connections: which of them get its reply."""

import pytest

from testkit.tunnel_loop import Lane, Session, TunnelLoop, post
from tests.conftest import StartTunnels


def waiting(start_tunnels: StartTunnels, **times: float) -> tuple[TunnelLoop, Session]:
    """A session that has got request 0 and waits for 1."""
    worker = start_tunnels(times=times)
    session = worker.open()
    session.send(0, b"0")
    return worker, session


def copy(worker: TunnelLoop, session: Session, kind: str = "send") -> Lane:
    """Request 2, on a connection of its own."""
    return worker.lane(post(session.path(kind, 2), b"2" if kind == "send" else b"\0"))


def test_request_that_waits_for_earlier_ones_once_more_waits_once(start_tunnels: StartTunnels) -> None:
    worker, session = waiting(start_tunnels)
    lanes = [copy(worker, session) for _ in range(2)]
    assert all(lane.is_silent() for lane in lanes)
    assert session.send(1, b"1").status == 200
    assert [lane.reply().status for lane in lanes] == [200, 200]
    assert session.heard(3) == b"012"
    assert session.hears_nothing()
    assert worker.counted("repeated") == [1]
    for lane in (*lanes, session.lane):
        lane.close()


def test_early_request_that_comes_a_third_time_is_refused_on_the_first_connection(start_tunnels: StartTunnels) -> None:
    worker, session = waiting(start_tunnels)
    lanes = [copy(worker, session) for _ in range(3)]
    assert lanes[0].reply().status == 503
    assert session.send(1, b"1").status == 200
    assert [lane.reply().status for lane in lanes[1:]] == [200, 200]
    assert session.heard(3) == b"012"
    for lane in (*lanes, session.lane):
        lane.close()


def test_third_copy_of_an_early_request_replaces_the_connection_that_broke(start_tunnels: StartTunnels) -> None:
    worker, session = waiting(start_tunnels)
    first, second = (copy(worker, session) for _ in range(2))
    second.reset()
    third = copy(worker, session)
    assert first.is_silent()
    assert session.send(1, b"1").status == 200
    assert [lane.reply().status for lane in (first, third)] == [200, 200]
    for lane in (first, second, third, session.lane):
        lane.close()


@pytest.mark.parametrize("broken", [0, 1])
def test_early_poll_on_two_connections_misses_nothing_when_one_breaks(start_tunnels: StartTunnels, broken: int) -> None:
    worker, session = waiting(start_tunnels)
    lanes = [copy(worker, session, "idle") for _ in range(2)]
    lanes[broken].reset()
    session.send(1, b"1")
    session.say(b"x")
    reply = lanes[1 - broken].reply()
    assert reply.status == 200
    # The connection that broke may have ended the hold of the poll: then the next one gets the byte.
    assert (reply.body or session.idle(3).body) == b"x"
    for lane in (*lanes, session.lane):
        lane.close()


def test_early_close_on_two_connections_gets_a_reply_on_both(start_tunnels: StartTunnels) -> None:
    worker, session = waiting(start_tunnels)
    lanes = [copy(worker, session, "close") for _ in range(2)]
    assert session.send(1, b"1").status == 200
    assert [lane.reply().status for lane in lanes] == [200, 200]
    assert session.end() == (b"01", "fin")
    for lane in (*lanes, session.lane):
        lane.close()


def test_early_request_on_two_connections_gets_404_on_both_when_its_session_ends(start_tunnels: StartTunnels) -> None:
    worker, session = waiting(start_tunnels, gap=1.0)
    # After the gap the request is carried out, and finds the end of the upstream.
    lanes = [copy(worker, session) for _ in range(2)]
    assert session.heard(1) == b"0"
    session.inner.close()
    assert [lane.reply().status for lane in lanes] == [404, 404]
    for lane in (*lanes, session.lane):
        lane.close()
