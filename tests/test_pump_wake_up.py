"""One wake-up of the pump does a limited amount of work, and every session has its turn."""

from contextlib import suppress

from conftest import StartPump

EACH = 200_000  # more than one event moves
# What one wake-up may move: its limit, and the events that it had taken when it reached that.
MOST = 524_288 + 16 * 4 * 32_768


def test_wake_up_moves_a_limited_number_of_bytes_and_gives_each_session_its_turn(start_pump: StartPump) -> None:
    """128 clients that always have more to send: within 80 wake-ups each has had several turns."""
    loop = start_pump()
    pairs = [loop.pair() for _ in range(128)]
    received = [0] * len(pairs)
    for sock in (sock for pair in pairs for sock in pair):
        sock.setblocking(False)
    for _ in range(80):
        for number, (client, server) in enumerate(pairs):
            with suppress(BlockingIOError):
                client.send(bytes(EACH))
            with suppress(BlockingIOError):
                while data := server.recv(1 << 18):
                    received[number] += len(data)
        before = loop.counters.all("sent")[0]
        assert loop.turn(1)
        assert loop.counters.all("sent")[0] - before <= MOST
    assert min(received) >= 4 * 32_768
    for client, server in pairs:
        client.close()
        server.close()
    loop.until(lambda: loop.pump.open == 0)


def test_wake_up_wakes_a_limited_number_of_greenlets(start_pump: StartPump) -> None:
    loop = start_pump()
    pairs = [loop.pair() for _ in range(100)]
    for client, server in pairs:
        client.close()
        server.close()
    ended = []
    while loop.pump.open:
        assert loop.turn(1), "the pump is due as long as a greenlet has to be woken"
        ended.append(len(loop.ended))
    assert max(after - before for before, after in zip([0, *ended], ended, strict=False)) <= 32
    assert ended[-1] == 100
    assert loop.counters["open"] == 0
