"""Shared memory of which each process may write only its own part."""

import ctypes
import errno
import faulthandler
import gc
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flashpol.config import ConnectionLimits
from flashpol.counters.mapping import PAGE, SharedMapping, protect_all, whole_pages
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus

PAGES = 5


def in_child(function: Callable[[], object]) -> int:
    """Call it in a child. Returns the exit code: its result, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # a SIGSEGV is expected
        try:
            os._exit(int(function() or 0))  # type: ignore[call-overload]
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(params=["sealed", "without memfd"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SharedMapping:
    if request.param == "without memfd":

        def refused(name: str, flags: int) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(os, "memfd_create", refused)
    return SharedMapping(PAGES * PAGE)


def write(shared: SharedMapping, page: int) -> None:
    shared.memory[page * PAGE + 7] = 42


@pytest.mark.parametrize("page", range(PAGES))
def test_protect_all_in_a_child_leaves_it_its_own_parts_only(shared: SharedMapping, page: int) -> None:
    own = [1, 3]

    def child() -> None:
        protect_all([shared.part(number * PAGE, PAGE) for number in own])
        assert not any(shared.memory[page * PAGE :][:PAGE])  # all may be read
        write(shared, page)

    assert in_child(child) == (0 if page in own else -signal.SIGSEGV)
    assert shared.memory[page * PAGE + 7] == (42 if page in own else 0)
    write(shared, page)
    assert shared.memory[page * PAGE + 7] == 42


def test_protect_all_without_parts_protects_every_mapping(shared: SharedMapping) -> None:
    other = SharedMapping(1)

    def child() -> None:
        protect_all()
        write(other, 0)

    assert in_child(child) == -signal.SIGSEGV


@pytest.mark.parametrize("way", ["mprotect", "mmap", "mem", "memfd"])
def test_protected_memory_cannot_be_made_writable_again(way: str) -> None:
    shared = SharedMapping(PAGES * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared.memory))

    def child() -> int:
        memfds = [fd for fd in os.listdir("/proc/self/fd") if "memfd:flashpol" in link(fd)]
        assert memfds
        kept = os.dup(int(memfds[0])) if way in ("mmap", "memfd") else -1
        protect_all([shared.part(0, PAGE)])
        if way == "mprotect":
            libc = ctypes.CDLL(None, use_errno=True)
            refused = libc.mprotect(ctypes.c_void_p(address + PAGE), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
            return int(refused == -1 and ctypes.get_errno() == errno.EACCES)
        try:
            if way == "mmap":
                mmap.mmap(kept, PAGE)
            elif way == "memfd":
                os.write(kept, b"x")
            else:
                with open("/proc/self/mem", "r+b", buffering=0) as memory:
                    memory.seek(address + PAGE)
                    memory.write(b"x")
        except OSError:
            return 1
        return 0

    assert in_child(child) == 1
    assert not any(shared.memory)


def link(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_protect_all_closes_the_file() -> None:
    shared = SharedMapping(1)

    def child() -> int:
        protect_all()
        return sum("memfd:flashpol" in link(fd) for fd in os.listdir("/proc/self/fd"))

    assert in_child(child) == 0
    assert any("memfd:flashpol" in link(fd) for fd in os.listdir("/proc/self/fd"))
    del shared


def test_mapping_that_is_dropped_leaves_no_file_and_no_memory() -> None:
    def maps() -> int:
        gc.collect()
        return Path("/proc/self/maps").read_text().count("memfd:flashpol")

    before, files = maps(), len(os.listdir("/proc/self/fd"))  # maps() first: it collects what others left
    shared = SharedMapping(3)
    view = shared.memory[:8]
    assert maps() == before + 1
    del shared
    assert len(os.listdir("/proc/self/fd")) == files
    view[0] = 1  # the memory lives as long as a view of it
    del view
    assert maps() == before


def test_mapping_without_the_right_to_make_a_large_file_works_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", refused)
    files = len(os.listdir("/proc/self/fd"))
    shared = SharedMapping(1)
    assert len(os.listdir("/proc/self/fd")) == files
    write(shared, 0)
    assert shared.memory.nbytes == PAGE


def test_whole_pages_rounds_up() -> None:
    assert [whole_pages(size) for size in (0, 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, 2 * PAGE]


# ----------------------------------------------------------------------------------------- what each process may write


@pytest.mark.parametrize(("listeners", "upstreams", "table"), [(1, 0, 64), (3, 2, 65_536), (40, 0, 1024)])
def test_parts_of_slots_share_no_page_and_have_all_that_a_worker_writes(
    listeners: int, upstreams: int, table: int
) -> None:
    limits = ConnectionLimits(max_address_connections=5, address_table_size=table)
    shared = SharedCounters(3, listeners, upstreams, connection_limits=limits)
    slot = 1

    def worker() -> None:
        protect_all(shared.written_by(slot))
        for number in range(listeners):
            view = shared.memory(slot, number)
            view[:] = bytes([7]) * view.nbytes
        for number in range(upstreams):
            view = shared.relay_memory(slot, number)
            view[:] = bytes([7]) * view.nbytes
        status = shared.process(slot)
        status.up = status.loop_lag_ns = status.heartbeat_ns = status.base_files = status.max_files = 7
        status.draining = 7
        assert shared.address_limits.of(slot).admit(bytes(16), 0)[0] == "admitted"

    assert in_child(worker) == 0
    assert shared.block(slot, listeners - 1)["open"] != 0
    for number in range(listeners):
        for other in (0, 2):
            assert not any(shared.memory(other, number))
    assert shared.address_limits.of(slot).tracked == 1
    assert shared.address_limits.of(0).tracked == shared.address_limits.of(2).tracked == 0


def forged(*writes: tuple[str, Callable[[SharedCounters, ServerStatus], object]]) -> list[object]:
    return [pytest.param(write, id=name) for name, write in writes]


FORGED = forged(
    ("its own pid", lambda shared, _: setattr(shared.process(0), "pid", 1)),
    ("its own restarts", lambda shared, _: setattr(shared.process(0), "restarts", 2**64 - 1)),
    ("another heartbeat", lambda shared, _: setattr(shared.process(1), "heartbeat_ns", 0)),
    ("another block", lambda shared, _: shared.memory(1, 0).__setitem__(0, 1)),
    ("the admin process", lambda shared, _: setattr(shared.admin, "draining", 1)),
    ("an accept queue", lambda shared, _: setattr(shared.queue(0, 0), "length", 1)),
    ("another address table", lambda shared, _: shared.address_limits.of(1).admit(bytes(16), 0)),
    ("the state of the server", lambda _, status: setattr(status, "state", 2)),
    ("the error of a reload", lambda _, status: setattr(status, "reload_error", "none")),
    ("a request to reload", lambda _, status: status.ask_for_reload()),
)


@pytest.mark.parametrize("write", FORGED)
def test_worker_that_writes_what_is_not_its_own_ends(write: Callable[[SharedCounters, ServerStatus], object]) -> None:
    shared, status = SharedCounters(2, 1), ServerStatus()

    def worker() -> None:
        protect_all(shared.written_by(0))
        write(shared, status)

    assert in_child(worker) == -signal.SIGSEGV
    assert (status.state, status.reloads_asked, shared.admin.draining, shared.process(0).pid) == (0, 0, 0, 0)


def test_admin_process_writes_its_own_report_and_asks_for_reloads() -> None:
    shared, status = SharedCounters(2, 1), ServerStatus()

    def admin() -> None:
        protect_all([*shared.written_by_admin, status.written_by_admin])
        shared.admin.up, shared.admin.draining = 1, 1
        status.ask_for_reload()

    assert in_child(admin) == 0
    assert (shared.admin.up, shared.admin.draining, status.reloads_asked) == (1, 1, 1)

    def forger() -> None:
        protect_all([*shared.written_by_admin, status.written_by_admin])
        status.reloads_answered = 1

    assert in_child(forger) == -signal.SIGSEGV


def test_mapping_of_an_earlier_generation_is_protected_too() -> None:
    earlier, current = SharedCounters(1, 1), SharedCounters(1, 1)

    def worker() -> None:
        protect_all(current.written_by(0))
        current.memory(0, 0)[0] = 1
        earlier.memory(0, 0)[0] = 1

    assert in_child(worker) == -signal.SIGSEGV
    assert (current.memory(0, 0)[0], earlier.memory(0, 0)[0]) == (1, 0)
