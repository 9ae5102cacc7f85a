"""One generation, without its processes."""

import gc
import weakref

from flashpol.config import Address, Config, Listener, PolicySource, Server
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.log.file import LogFile
from flashpol.process.privileges import Privileges
from flashpol.serving.networks import Access
from flashpol.serving.plan import Plan
from flashpol.supervisor.generation import Generation, ServerRuntime
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.reload_request import ReloadRequest


def test_generation_that_has_ended_is_freed_without_a_garbage_collection() -> None:
    """The arbiter allocates little, so a collection may come after hundreds of reloads; until then each generation
    would keep its shared memory."""
    loopback = Address("127.0.0.1", 0)
    server = Server(workers=2, admin=loopback)
    policy = PolicySource("p", grants=("one.example:1935",))
    plan = Plan(Config(server, (policy,), (Listener(None, loopback, "p"),)), [b"<x/>\0"], [Access()], Privileges())
    runtime = ServerRuntime(ListenSockets(), CounterTotals(), ServerStatus(), ReloadRequest(), LogFile())
    try:
        gc.disable()
        generation = Generation(plan, runtime)
        generation.add_admin()
        runtime.totals.close(generation.shared)
        ended = weakref.ref(generation)
        del generation
        assert ended() is None
    finally:
        gc.enable()
        runtime.listen_sockets.keep_only([])
        runtime.reload_request.close()
