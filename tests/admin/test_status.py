"""Status as JSON: exact counters, windows between samples, and that the reference names every field."""

import json
import os
import time
from pathlib import Path

import pytest
from views import FACTS, put, put_relayed, view

from flashpol._fastpath import BUCKETS, REASONS
from flashpol._pump import FAILURES
from flashpol.admin.context import ListenerInfo
from flashpol.admin.history import INTERVAL, KEPT, SHORTEST, History, Sample, since
from flashpol.admin.status import status
from flashpol.counters.layout import Block
from flashpol.counters.status import DRAINING, STARTING

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
SIZE = len(BUCKETS) + 1


def sample(at: float, replies: int = 0, cpu: float = 0.0) -> Sample:
    seen = view(slots=1)
    put(seen.shared, 0, 0, "buckets", replies, *[0] * (SIZE - 1))
    return Sample(at, seen.totals.total("master"), {"master": replies}, {os.getpid(): cpu})


def test_counters_of_listeners_and_their_sum() -> None:
    seen = view((FACTS, ListenerInfo("other", b"x")))
    for slot, listener, value in ((0, 0, 3), (1, 0, 40), (0, 1, 500), (1, 1, 6000)):
        put(seen.shared, slot, listener, "accepted", value)
        put(seen.shared, slot, listener, "open", value + 1)
    put(seen.shared, 0, 0, "buckets", *range(SIZE))
    put(seen.shared, 0, 0, "duration_ns", 1_500_000_000)
    put(seen.shared, 0, 1, "refused", *range(1, len(REASONS) + 1))
    seen.shared.queue(0, 0).length, seen.shared.queue(0, 0).limit = 7, 128
    now = status(seen)
    master, other = now["listeners"]
    assert (master["accepted"], other["accepted"], now["total"]["accepted"]) == (43, 6500, 6543)
    assert (master["open"], other["open"], now["total"]["open"]) == (45, 6502, 6547)
    assert (master["replies"], master["duration_counts"]) == (sum(range(SIZE)), list(range(SIZE)))
    assert master["duration_seconds"] == 1.5
    assert other["refused"] == dict(zip(REASONS, range(1, len(REASONS) + 1), strict=True))
    assert master["accept_queue"] == {"length": 7, "limit": 128}
    assert now["bucket_bounds_seconds"] == list(BUCKETS)


def test_what_a_listener_serves() -> None:
    [listener] = status(view())["listeners"]
    expected = {
        "name": "master",
        "address": "192.0.2.1:843",
        "port": 843,
        "served_from": 843,
        "dialect": "flash",
        "policy": "games",
    }
    assert expected.items() <= listener.items()
    assert (listener["bytes"], listener["sha256"]) == (len(FACTS.reply), FACTS.sha256)


def test_workers() -> None:
    seen = view()
    one, two = seen.shared.process(0), seen.shared.process(1)
    one.pid, one.loop_lag_ns = os.getpid(), 2_500_000
    one.cpu_ns, one.resident_bytes = 1_500_000_000, 30_000_000
    two.up, two.restarts = 0, 7
    first, second = status(seen)["workers"]
    assert (first["slot"], first["pid"], first["up"], first["lag_seconds"]) == (0, os.getpid(), True, 0.0025)
    assert (first["cpu_seconds"], first["resident_bytes"]) == (1.5, 30_000_000)
    assert (second["up"], second["restarts"], second["cpu_seconds"], second["resident_bytes"]) == (False, 7, None, None)


def test_upstreams() -> None:
    seen = view()
    for slot, opened in ((0, 3), (1, 40)):
        put_relayed(seen.shared, slot, 1, "opened", opened)
        put_relayed(seen.shared, slot, 1, "open", opened - 1)
    put_relayed(seen.shared, 0, 0, "failures", 5, *[0] * (len(FAILURES) - 1))
    put_relayed(seen.shared, 0, 1, "sent", 100, 2_000)
    dead, well = status(seen)["upstreams"]
    assert (dead["listener"], dead["upstream"], dead["started"]) == ("master", "127.0.0.1:7000", 0)
    assert {why: number for why, number in dead["failures"].items() if number} == {"refused": 5}
    assert (well["upstream"], well["started"], well["open"], well["connecting"]) == ("game.example:7000", 43, 41, 0)
    assert well["bytes"] == {"client": 100, "upstream": 2_000}


def test_upstreams_lately() -> None:
    seen = view()
    put_relayed(seen.shared, 0, 0, "opened", 10)
    before = Sample.of(seen)
    past = [Sample(before.at - 30, before.total, before.replies, before.cpu_seconds, before.relayed)]
    put_relayed(seen.shared, 0, 0, "opened", 17)
    minute = status(seen, past)["minute"]
    assert [(each["upstream"], each["started"]) for each in minute["upstreams"]] == [
        ("127.0.0.1:7000", 7),
        ("game.example:7000", 0),
    ]


@pytest.mark.parametrize(("state", "word"), [(STARTING, "starting"), (DRAINING, "draining")])
def test_state_and_reload(state: int, word: str) -> None:
    seen = view()
    seen.status.state = state
    seen.status.reload_successful, seen.status.reload_timestamp, seen.status.reload_error = 0, 1234, "no such file"
    now = status(seen)
    assert now["state"] == word
    assert now["reload"] == {"successful": False, "timestamp": 1234, "error": "no such file"}


def test_a_window_is_what_was_counted_since_a_sample() -> None:
    seen = view(slots=1)
    seen.shared.process(0).pid, seen.shared.process(0).cpu_ns = os.getpid(), 2_000_000_000
    put(seen.shared, 0, 0, "buckets", 150, *[0] * (SIZE - 1))
    began = time.monotonic()
    past = [sample(began - 61, 10), sample(began - 6, 100), sample(began - 3, 140)]
    now = status(seen, past)
    assert now["now"]["replies"] == now["now"]["listeners"]["master"] == 50
    assert 6 <= now["now"]["seconds"] < 60
    assert now["minute"]["replies"] == sum(now["minute"]["duration_counts"]) == 140
    assert now["now"]["workers"][str(os.getpid())] == now["workers"][0]["cpu_seconds"]


def test_without_samples_nothing_is_said_of_rates() -> None:
    now = status(view())
    assert (now["now"], now["minute"]) == (None, None)


@pytest.mark.parametrize(
    ("ages", "seconds", "expected"),
    [
        ((), 5, None),
        ((SHORTEST / 2,), 5, None),
        ((2,), 5, 2),
        ((70, 61, 59), 60, 61),
        ((5,), 5, 5),
        ((3, 1), 60, 3),
    ],
)
def test_the_sample_that_a_window_begins_with(ages: tuple[float, ...], seconds: float, expected: float | None) -> None:
    found = since([sample(100 - age) for age in ages], 100, seconds)
    assert (found and 100 - found.at) == expected


class Enough(Exception):
    pass


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def take() -> Sample:
        if len(taken) == KEPT + 10:
            raise Enough
        taken.append(sample(float(len(taken))))
        return taken[-1]

    taken: list[Sample] = []
    history = History(take)
    monkeypatch.setattr("flashpol.admin.history.gevent.sleep", lambda _: None)
    with pytest.raises(Enough):
        history.run()
    assert list(history.samples) == taken[10:]


@pytest.mark.parametrize(("cost", "pause"), [(0.0, INTERVAL), (0.5, 25.0)])
def test_a_costly_sample_is_taken_less_often(cost: float, pause: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise Enough

    clock, waits = iter([7.0, 7.0 + cost]), []
    monkeypatch.setattr("flashpol.admin.history.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("flashpol.admin.history.gevent.sleep", sleep)
    history = History(lambda: Sample(0, Block.total([]), {}, {}))
    with pytest.raises(Enough):
        history.run()
    assert waits == [pause]


NAMED = ("refused", "ends", "failures", "bytes")  # whose keys are reasons and the like


def names(value: object) -> set[str]:
    """All keys, but for those that are names of something."""
    if isinstance(value, list):
        return {name for each in value for name in names(each)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {name for key, inner in value.items() if key not in NAMED for name in names(inner)}


def test_every_field_is_documented() -> None:
    section = REFERENCE.split("### `/-/status`\n")[1].split("\n#")[0]
    fields = names(json.loads(json.dumps(status(view()))))
    assert {"format", "total", "accept_queue", "lag_seconds", "duration_counts"} <= fields
    assert [name for name in sorted(fields) if f"`{name}`" not in section] == []
