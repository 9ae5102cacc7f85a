"""Without memory the fast path refuses a client or loses a log line, and nothing else: whichever allocation fails.

`_testcapi.set_nomemory` lets one allocation of the interpreter fail, the first, the second and so on, until there are
no more of them. What C allocates itself is not affected.
"""

import resource
from collections.abc import Callable
from functools import partial

import pytest

from testkit.clients import BARE, REQUEST, connect, deliver
from testkit.fastpath_loop import Loop
from testkit.polling import eventually
from testkit.sanitizer import measures_memory
from testkit.serving import LARGE

_testcapi = pytest.importorskip("_testcapi")

STRANGER = b"x" * 4000  # as long as a bytes object that pymalloc does not make
# More than the allocations of one wake-up with one client.
ALLOCATIONS = 40


def each_allocation_failing(wake: Callable[[], object], prepare: Callable[[], object]) -> list[int]:
    """Call `prepare` and then `wake`, with another allocation failing each time. Returns which led to a MemoryError."""
    raised = []
    for number in range(ALLOCATIONS):
        prepare()
        _testcapi.set_nomemory(number, number + 1)
        try:
            wake()
        except MemoryError:
            raised.append(number)
        finally:
            _testcapi.remove_mem_hooks()
    return raised


def test_sessions_without_memory_are_refused_or_handed_over_with_all_their_bytes(start: Callable[..., Loop]) -> None:
    loop = start(shared=True, capacity=4096)
    clients = []
    raised = each_allocation_failing(loop.acceptor.ready, lambda: clients.append(connect(loop.address, STRANGER)))
    assert raised == [], "ready raises nothing"
    loop.drain()
    assert loop.connection_table.check() == len(loop.sessions), "who was not handed over is closed"
    assert {data for _, data in loop.sessions} == {STRANGER}
    for fd, _ in loop.sessions:
        loop.connection_table.close_as(fd, "upstream")
    ends = loop.settle()
    assert ends["capacity"] > 0
    assert sum(ends.values()) == ALLOCATIONS
    for client in clients:
        client.close()


def test_slow_replies_without_memory_are_refused_or_handed_over(start: Callable[..., Loop]) -> None:
    loop = start(LARGE, capacity=4096)
    clients = []

    def prepare() -> None:
        clients.append(connect(loop.address, receive_buffer=2048))
        deliver(clients[-1], REQUEST)

    assert each_allocation_failing(loop.acceptor.ready, prepare) == []
    assert loop.connection_table.check() == len(loop.slow_replies)
    for fd in loop.slow_replies:
        loop.connection_table.close_as(fd, "timeout")
    ends = loop.settle()
    assert ends == {"capacity": len(loop.errors), "timeout": len(loop.slow_replies)}
    assert ends["capacity"] > 0
    for client in clients:
        client.close()


def test_samples_without_memory_lose_their_log_line_only(start: Callable[..., Loop]) -> None:
    lines: list[tuple[object, ...]] = []
    loop = start(on_access=lambda *fields: lines.append(fields), access_log=1.0, capacity=4096)
    clients = []
    raised = each_allocation_failing(loop.acceptor.ready, lambda: clients.append(connect(loop.address, REQUEST)))
    assert raised == []
    assert loop.settle() == {"reply": ALLOCATIONS}
    assert 0 < len(lines) < ALLOCATIONS
    for client in clients:
        client.close()


def test_parked_sessions_without_memory_are_refused_or_handed_over(start: Callable[..., Loop]) -> None:
    """The same in `ConnectionTable.ready`, after a part of a request."""
    loop = start(shared=True, capacity=4096)
    clients = []

    def prepare() -> None:
        clients.append(loop.connect())
        loop.send(clients[-1], BARE[:4])
        deliver(clients[-1], STRANGER)

    assert each_allocation_failing(loop.connection_table.ready, prepare) == []
    loop.drain()
    assert loop.connection_table.check() == len(loop.sessions)
    assert {data for _, data in loop.sessions} == {BARE[:4] + STRANGER}
    for fd, _ in loop.sessions:
        loop.connection_table.close_as(fd, "upstream")
    assert sum(loop.settle().values()) == ALLOCATIONS
    for client in clients:
        client.close()


@measures_memory
def test_sessions_without_memory_leave_no_bytes_behind(start: Callable[..., Loop]) -> None:
    """What was read for a session is freed, also if its hook is not reached."""
    loop = start(shared=True, capacity=4096)

    def refuse_one() -> None:
        client = connect(loop.address, STRANGER)
        eventually(partial(_fails_first, loop), "the refusal")
        client.close()

    for _ in range(200):
        refuse_one()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        refuse_one()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2000 * len(STRANGER) / 1024 / 2, f"{grown} KB more"
    loop.settle()


def _fails_first(loop: Loop) -> bool:
    before = loop.counters["accepted"]
    _testcapi.set_nomemory(0, 0)
    try:
        loop.acceptor.ready()
    finally:
        _testcapi.remove_mem_hooks()
    return loop.counters["accepted"] > before
