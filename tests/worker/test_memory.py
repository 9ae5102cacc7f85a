"""Little memory: conversations are fewer, so that what is left is never all used; the others are refused, not lost."""

import pytest
from conftest import Serve

from flashpol.worker import service
from testkit.support import LARGE, TIMEOUTS, eventually, outcomes


def test_conversations_are_bounded_by_the_memory_that_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 3
    monkeypatch.setattr(service, "spare_memory", lambda: room * service.CONVERSATION_BYTES / service.SHARE_OF_MEMORY)
    server = serve(LARGE, TIMEOUTS)
    clients = [server.connect(receive_buffer=4096) for _ in range(room + 2)]
    for client in clients:
        client.sendall(b"<policy-file-request/>\0")
    eventually(lambda: outcomes(server.counters).get("max_slow_replies") == 2)
    assert server.counters["slow_replies"] == room
    for client in clients:
        client.close()
