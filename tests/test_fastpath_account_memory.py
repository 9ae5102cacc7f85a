"""What an address costs in the account of places: memory for as many addresses as are there at a time."""

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from testkit.clients import REQUEST, ask, connect, rest
from testkit.fastpath_loop import Loop
from testkit.polling import eventually
from testkit.processes import Flashpol, status
from testkit.sanitizer import measures_memory

pytestmark = pytest.mark.usefixtures("no_leaked_files")

Start = Callable[..., Loop]
AT_A_TIME = 20
ADDRESSES = 200
SILENT = 800  # fewer than the descriptors that a process has by default
# With an entry for each slot of the address table, of which a few hundred addresses touch most pages, it is 4 KB.
MAX_BYTES = 1536


def limits(size: int) -> dict[str, object]:
    found = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0, address_table_size=size)).of(0)
    return {"address_limits": found, "request_timeout": 30, "linger_timeout": 30}


def source(number: int) -> str:
    return f"127.7.{number // 250}.{number % 250 + 1}"


def test_addresses_that_come_and_go_take_memory_for_those_of_one_moment(start: Start) -> None:
    loop = start(**limits(4096))
    clients = deque(loop.connect(source=source(number)) for number in range(AT_A_TIME))
    for number in range(AT_A_TIME, ADDRESSES):
        clients.popleft().close()
        before = loop.connection_table.open
        loop.until(lambda before=before: loop.connection_table.open < before)
        clients.append(loop.connect(source=source(number)))
        assert loop.connection_table.check() == AT_A_TIME
    assert loop.account.holder_count == AT_A_TIME
    for client in clients:
        client.close()
    assert loop.settle() == {"reset": ADDRESSES}


def test_address_whose_connections_end_in_any_order_is_one_of_those_there(start: Start) -> None:
    """Also without a slot: a table of eight addresses, in which the others count as one."""
    loop = start(**limits(8))
    clients = [loop.connect(source=source(number % 12)) for number in range(36)]
    assert loop.account.holder_count == 9
    for number, client in enumerate(clients):
        if number % 3:
            loop.send(client, REQUEST)
        client.close()
        loop.drain()
        assert loop.connection_table.check() == 35 - number
    assert loop.account.holder_count == 9
    assert sum(loop.settle().values()) == 36


def test_reply_at_once_takes_no_memory_in_the_account(start: Start) -> None:
    loop = start(**limits(4096))
    with connect(loop.address, REQUEST) as client:
        loop.until(lambda: loop.counters.replies == 1)
        assert rest(client).endswith(b"\0")
    assert loop.account.holder_count == 0


@measures_memory
def test_silent_clients_of_many_addresses_touch_little_memory() -> None:
    with Flashpol("--allow", "*:*") as server, ExitStack() as clients:
        (worker,) = server.workers
        for _ in range(10):
            ask(server.place)
        before = int(status(worker.pid)["RssAnon"].split()[0])
        for number in range(SILENT):
            clients.enter_context(connect(server.place, source=source(number)))
        eventually(lambda: server.metrics().total("parked_connections") == SILENT, "all wait")
        after = int(status(worker.pid)["RssAnon"].split()[0])
        assert (after - before) * 1024 < SILENT * MAX_BYTES
