"""Tunnel sessions over connections at other workers: forwarded, over a worker that is killed, a reload and the end."""

import random
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from testkit.application import Application, application, receive
from testkit.clients import reset
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, Process
from testkit.rtmpt_client import Ended, RtmptClient
from testkit.tunnel_site import TunnelSite, accepted_by, holder, lane_at, reload, warnings

pytestmark = pytest.mark.slow

HOLD = 4.9  # seconds: the longest
SOON = 3.0  # a poll that has ended by then has ended for another reason
DATA = random.Random(19).randbytes(120_000)


def site_of(folder: Path, behind: Application, **settings: object) -> TunnelSite:
    values = {"rtmpt_hold": HOLD, "rtmpt_session_timeout": 30.0, "shutdown_timeout": 1.0} | settings
    return TunnelSite(folder, {"film": {"upstream": str(behind.remote)}}, **values)


@pytest.fixture(scope="module")
def behind() -> Iterator[Application]:
    with application() as behind:
        yield behind


@pytest.fixture(scope="module")
def shared(behind: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    """For tests that leave its workers as they are."""
    with site_of(tmp_path_factory.mktemp("workers"), behind).serve(workers=3) as server:
        yield server


def count(server: Flashpol, name: str, **labels: str) -> float:
    return server.metrics().total(f"rtmpt_{name}", **labels)


class Session:
    """A session, the upstream's end of it, and a connection of its client at each worker."""

    def __init__(self, client: RtmptClient, inner: socket.socket, owner: Process, workers: list[Process]) -> None:
        self.client, self.inner, self.owner = client, inner, owner
        self.others = [worker for worker in workers if worker != owner]
        self.at = {worker: lane_at(client, worker, other_than=workers) for worker in workers}

    @property
    def away(self) -> list[int]:
        """Connections at other workers than the session's."""
        return [self.at[worker] for worker in self.others]


@contextmanager
def session(server: Flashpol, behind: Application, at: Process | None = None) -> Iterator[Session]:
    """at: the worker that has it; None: any."""
    workers = server.workers
    with RtmptClient(server.place) as client:
        via = lane_at(client, *([at] if at else workers), other_than=workers)
        assert client.open(via).status == 200
        with behind.accept() as inner:
            owner = eventually(lambda: holder(inner, workers), "the session's worker")
            assert owner == accepted_by(client, via, workers)
            yield Session(client, inner, owner, workers)


def held(server: Flashpol, polls: int = 1, seconds: float = DEADLINE) -> None:
    eventually(lambda: count(server, "polls_held") == polls, f"{polls} held polls", seconds)


# ----------------------------------------------------------------------------------------------------------- forwarded


def test_bytes_over_connections_at_all_workers_are_exact(shared: Flashpol, behind: Application) -> None:
    before = count(shared, "forwarded_total")
    with session(shared, behind) as one:
        lanes = [*one.at.values()]
        pieces = [DATA[begin : begin + 10_000] for begin in range(0, len(DATA), 10_000)]
        for number, piece in enumerate(pieces):
            assert one.client.send(piece, via=lanes[number % len(lanes)]).status == 200
        assert receive(one.inner, len(DATA)) == DATA
        received = b""
        for number, piece in enumerate(pieces):
            one.inner.sendall(piece)
            received = one.client.receive_exactly(len(received) + len(piece), received, via=lanes[number % len(lanes)])
        assert received == DATA
        assert count(shared, "forwarded_total") >= before + 2 * len(pieces) * 2 / 3
        assert one.client.close(via=one.away[0]).status == 200
        assert one.inner.recv(1) == b""
        assert one.client.idle(via=one.away[1]).status == 404


def test_large_replies_and_bodies_are_forwarded_whole(shared: Flashpol, behind: Application) -> None:
    with session(shared, behind) as one:
        assert one.client.send(DATA, via=one.away[0]).status == 200
        assert receive(one.inner, len(DATA)) == DATA
        one.inner.sendall(DATA)
        assert one.client.receive_exactly(len(DATA), via=one.away[1]) == DATA


def test_poll_held_at_another_worker_gets_what_comes(shared: Flashpol, behind: Application) -> None:
    with session(shared, behind) as one:
        one.client.write("idle", via=one.away[0])
        held(shared)
        one.inner.sendall(b"now")
        assert one.client.read(one.away[0]).body == b"now"
        held(shared, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_poll_whose_connection_ends_at_another_worker_takes_no_bytes(
    shared: Flashpol, behind: Application, how: str
) -> None:
    with session(shared, behind) as one:
        one.client.write("idle", via=one.away[0])
        held(shared)
        if how == "rst":
            reset(one.client.lanes.pop(one.away[0]).sock)
        else:
            one.client.drop(one.away[0])
        held(shared, 0, SOON)
        one.inner.sendall(b"kept")
        assert one.client.idle(via=one.away[1]).body == b"kept"


def test_second_poll_at_another_worker_ends_the_first(shared: Flashpol, behind: Application) -> None:
    with session(shared, behind) as one:
        first, second = one.away
        one.client.write("idle", via=first)
        held(shared)
        one.client.write("idle", via=second)
        one.client.lanes[first].sock.settimeout(SOON)
        assert one.client.read(first)[0::3] == (200, b"")
        held(shared)
        one.inner.sendall(b"for the second")
        assert one.client.read(second).body == b"for the second"


def test_requests_in_another_order_and_twice_at_other_workers_reach_the_upstream_once(
    shared: Flashpol, behind: Application
) -> None:
    with session(shared, behind) as one:
        first, second = one.away
        one.client.send(b"a", via=first)
        early = count(shared, "reordered_total")
        one.client.write("send", b"c", number=2, via=first)
        eventually(lambda: count(shared, "reordered_total") == early + 1, "a request that waits")
        one.inner.sendall(b"reply")
        assert one.client.send(b"b", number=1, via=second).status == 200
        one.client.read(first)
        assert receive(one.inner, 3) == b"abc"
        again = one.client.send(b"c", number=2, via=second)
        assert again.status == 200
        assert one.client.send(b"d", via=first).status == 200
        assert receive(one.inner, 1) == b"d"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_end_of_the_upstream_reaches_a_poll_at_another_worker(shared: Flashpol, behind: Application, how: str) -> None:
    with session(shared, behind) as one:
        one.client.write("idle", via=one.away[0])
        held(shared)
        if how == "rst":
            reset(one.inner)
        else:
            one.inner.sendall(b"the last")
            assert one.client.read(one.away[0]).body == b"the last"
            one.inner.close()
            one.client.write("idle", via=one.away[0])
        assert one.client.read(one.away[0]).status == 404
        assert one.client.send(b"x", via=one.away[1]).status == 404


def test_pipeline_at_another_worker_is_carried_out_after_its_client_has_gone(
    shared: Flashpol, behind: Application
) -> None:
    """As rtmpdump ends."""
    with session(shared, behind) as one:
        client, lane = one.client, one.client.lanes[one.away[0]]
        bodies = [b"%d" % number for number in range(7)]
        data = b"".join(client.request(client.path("send"), body) for body in bodies)
        lane.sock.sendall(data + client.request(client.path("close"), b"\0"))
        client.drop(one.away[0])
        assert receive(one.inner, 8) == b"0123456"
        assert one.inner.recv(1) == b""


# ----------------------------------------------------------------------------------------------------- a worker's death


def test_worker_that_is_killed_takes_only_its_own_sessions(behind: Application, tmp_path: Path) -> None:
    with site_of(tmp_path, behind).serve(workers=3) as server, ExitStack() as stack:
        dead, *rest = server.workers
        lost = stack.enter_context(session(server, behind, at=dead))
        kept = stack.enter_context(session(server, behind, at=rest[0]))
        for via in lost.away:  # one poll is held, and the requests that follow wait for nothing
            lost.client.send(b"x", via=via)
        lost.client.write("idle", via=lost.away[0])
        kept.client.write("idle", via=kept.at[rest[1]])
        held(server, 2)
        dead.kill()
        assert lost.client.read(lost.away[0])[0::3] == (404, b"")
        assert lost.client.send(b"x", via=lost.away[1]).status == 404
        assert receive(lost.inner, 2) == b"xx"
        assert lost.inner.recv(1) == b""
        kept.inner.sendall(b"here")
        assert kept.client.read(kept.at[rest[1]]).body == b"here"
        assert kept.client.send(b"still", via=kept.at[rest[0]]).status == 200
        assert receive(kept.inner, 5) == b"still"

        eventually(lambda: len(server.workers) == 3, "a successor")
        [new] = [worker for worker in server.workers if worker not in rest]
        successor = stack.enter_context(session(server, behind, at=new))
        ids = [each.client.id for each in (lost, kept, successor)]
        assert len({each[:3] for each in ids}) == 3, "the incarnation is another one"
        for via in successor.away:
            assert successor.client.send(b"y", via=via).status == 200
        assert receive(successor.inner, 2) == b"yy"
        # The successor has lines to the others, and knows nothing of the dead one's sessions.
        via = lane_at(kept.client, new, other_than=rest)
        assert kept.client.send(b"over the successor", via=via).status == 200
        assert receive(kept.inner, 18) == b"over the successor"
        lost.client.disconnect()
        via = lane_at(lost.client, new, other_than=rest)
        assert lost.client.send(b"x", via=via).status == 404
        eventually(lambda: count(server, "ends_total", by="crashed") == 1, "what the arbiter counts")
        assert count(server, "sessions_open") == 2


# ---------------------------------------------------------------------------------------------------------- reload, end


def test_session_of_an_old_worker_goes_on_over_new_ones_after_a_reload(behind: Application, tmp_path: Path) -> None:
    site = site_of(tmp_path, behind)
    with site.serve() as server, session(server, behind) as old:
        before = server.workers
        old.client.write("idle", via=old.away[0])
        held(server)
        site.write(rtmpt_hold=HOLD, shutdown_timeout=1.0, host="B")
        reload(server)
        new = [worker for worker in server.workers if worker not in before]
        assert len(new) == 2
        # The poll's connection is an old worker's, which still has its reply to send.
        old.inner.sendall(b"over the old line")
        assert old.client.read(old.away[0]).body == b"over the old line"
        lanes = [lane_at(old.client, worker, other_than=new) for worker in new]
        for lane in lanes:
            assert old.client.send(b"new", via=lane).status == 200
        assert receive(old.inner, 6) == b"newnew"
        old.client.write("idle", via=lanes[0])
        eventually(lambda: count(server, "polls_held") == 1, "a poll that a new worker forwarded")
        old.inner.sendall(DATA)
        first = old.client.read(lanes[0]).body
        assert old.client.receive_exactly(len(DATA), first, via=lanes[1]) == DATA
        with session(server, behind) as one:
            assert (old.client.id[0], one.client.id[0]) == ("A", "B"), "server.host"
            for lane in one.away:
                assert one.client.send(b"x", via=lane).status == 200
            assert receive(one.inner, 1) == b"x"
            # The clients share a connection at a new worker, as behind a proxy.
            old.client.lanes[999] = one.client.lanes[one.away[0]]
            assert old.client.send(b"shared", via=999).status == 200
            assert receive(old.inner, 6) == b"shared"
            old.client.lanes.pop(999)
            # A connection at an old worker carries requests for the new one's session, as a proxy's does.
            one.client.lanes[999] = old.client.lanes[old.away[0]]
            assert one.client.send(b"back", via=999).status == 200
            assert receive(one.inner, 4) == b"back"
            assert one.client.close(via=one.away[0]).status == 200
            one.client.lanes.pop(999)
        # A second reload: the session is two generations old.
        reload(server)
        newest = [worker for worker in server.workers if worker not in [*before, *new]]
        lane = lane_at(old.client, *newest)
        assert old.client.send(b"newest", via=lane).status == 200
        assert receive(old.inner, 6) == b"newest"
        assert old.client.close(via=lane).status == 200
        assert old.inner.recv(1) == b""
        old.client.disconnect()  # connections that may carry requests of others keep a worker
        eventually(lambda: not any(worker.alive for worker in [*before, *new]), "the end of the old workers")
        assert count(server, "ends_total", by="client") == count(server, "sessions_total") == 2


def test_proxy_brings_its_next_client_to_a_new_worker_after_a_reload(behind: Application, tmp_path: Path) -> None:
    """A connection to an old one ends with the next reply to /open."""
    site = site_of(tmp_path, behind)
    with site.serve() as server, session(server, behind) as old, RtmptClient(server.place) as proxy:
        via = old.away[0]
        assert old.client.send(b"x", via=via).status == 200
        proxy.lanes[0] = old.client.lanes[via]
        site.write(rtmpt_hold=HOLD, host="B")
        reload(server)
        assert not old.client.send(b"y", via=via).closes
        reply = proxy.open()
        assert (reply.status, reply.closes, proxy.id[0]) == (200, True, "A")
        behind.accept().close()
        assert proxy.open().status == 200
        assert proxy.id[0] == "B"
        behind.accept().close()
        assert receive(old.inner, 2) == b"xy"


def test_drain_timeout_ends_sessions_of_old_workers_and_their_polls(behind: Application, tmp_path: Path) -> None:
    with site_of(tmp_path, behind, drain_timeout=1.5).serve() as server, session(server, behind) as old:
        before = server.workers
        reload(server)
        new = [worker for worker in server.workers if worker not in before]
        lane = lane_at(old.client, *new)
        assert old.client.send(b"x", via=lane).status == 200
        old.client.write("idle", via=lane)
        assert old.client.read(lane)[0::3] == (404, b"")
        assert receive(old.inner, 2) == b"x"
        assert old.client.send(b"x", via=lane).status == 404
        eventually(lambda: not any(worker.alive for worker in before), "the end of the old workers")
        assert count(server, "sessions_open") == 0
        assert count(server, "ends_total", by="shutdown") == 1


def test_end_of_the_server_ends_sessions_at_once(behind: Application, tmp_path: Path) -> None:
    with site_of(tmp_path, behind).serve() as server, session(server, behind) as one:
        lane = one.away[0]
        one.client.send(b"x", via=lane)
        one.client.write("idle", via=lane)
        held(server)
        server.process.send_signal(signal.SIGTERM)
        with suppress(Ended):  # its connection may end before the reply
            assert one.client.read(lane).status == 404
        assert receive(one.inner, 2) == b"x"
        assert server.process.wait(20) == 0
        assert warnings(server) <= {"cut-off"}


# --------------------------------------------------------------------------------------------------------------- ghosts


def test_end_of_the_server_does_not_wait_for_idle_connections(behind: Application, tmp_path: Path) -> None:
    with site_of(tmp_path, behind, shutdown_timeout=60.0).serve(workers=1) as server:
        with RtmptClient(server.place) as client:
            assert client.open().status == 200
            with behind.accept():
                assert client.close().status == 200
            eventually(lambda: count(server, "sessions_open") == 0, "the end of the session")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(DEADLINE) == 0
        assert "had not ended" not in server.log


def test_ghost_whose_connections_stay_open_ends_and_so_does_its_upstream(behind: Application, tmp_path: Path) -> None:
    settings = {"rtmpt_session_timeout": 1.0, "rtmpt_gap": 0.5, "rtmpt_hold": 0.1}
    with site_of(tmp_path, behind, **settings).serve() as server, session(server, behind) as one:
        for _ in range(3):
            assert one.client.idle(via=one.away[0]).status == 200
        assert one.inner.recv(1) == b""
        eventually(lambda: count(server, "ends_total", by="ghost") == 1, "a ghost")
        assert one.client.idle(via=one.away[0]).status == 404
        assert count(server, "sessions_open") == 0
