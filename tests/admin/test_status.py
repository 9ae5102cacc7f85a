"""The status document: exact counters, windows between samples, and that the reference names every field."""

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest
from contexts import (
    CERTIFICATE,
    LISTENER,
    TLS_LISTENER,
    make_context,
    make_full_context,
    make_tls_context,
    put,
    put_relayed,
)

from flashpol._fastpath import BUCKETS, HANDSHAKE_FAILURES, REASONS, TLS_VERSIONS
from flashpol._pump import FAILURES
from flashpol.admin.context import ListenerInfo
from flashpol.admin.history import INTERVAL, KEPT, SHORTEST, History, Sample, since
from flashpol.admin.status import status
from flashpol.counters.layout import Block
from flashpol.counters.status import DRAINING, STARTING

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text()
SIZE = len(BUCKETS) + 1


def sample(at: float, replies: int = 0, cpu: float = 0.0) -> Sample:
    context = make_context(slots=1)
    put(context.shared, 0, 0, "buckets", replies, *[0] * (SIZE - 1))
    return Sample(at, context.totals.total("master"), {"master": replies}, {os.getpid(): cpu})


def test_status_counters_are_summed_over_workers_and_listeners() -> None:
    context = make_context((LISTENER, ListenerInfo("other", b"x")))
    for slot, listener, value in ((0, 0, 3), (1, 0, 40), (0, 1, 500), (1, 1, 6000)):
        put(context.shared, slot, listener, "accepted", value)
        put(context.shared, slot, listener, "open", value + 1)
    put(context.shared, 0, 0, "buckets", *range(SIZE))
    put(context.shared, 0, 0, "duration_ns", 1_500_000_000)
    put(context.shared, 0, 1, "refused", *range(1, len(REASONS) + 1))
    context.shared.queue(0, 0).length, context.shared.queue(0, 0).limit = 7, 128
    now = status(context)
    master, other = now["listeners"]
    assert (master["accepted"], other["accepted"], now["total"]["accepted"]) == (43, 6500, 6543)
    assert (master["open"], other["open"], now["total"]["open"]) == (45, 6502, 6547)
    assert (master["replies"], master["duration_counts"]) == (sum(range(SIZE)), list(range(SIZE)))
    assert master["duration_seconds"] == 1.5
    assert other["refused"] == dict(zip(REASONS, range(1, len(REASONS) + 1), strict=True))
    assert master["accept_queue"] == {"length": 7, "limit": 128}
    assert now["bucket_bounds_seconds"] == list(BUCKETS)


def test_status_of_a_listener_names_its_address_and_policy() -> None:
    [listener] = status(make_context())["listeners"]
    expected = {
        "name": "master",
        "address": "192.0.2.1:843",
        "port": 843,
        "served_from": 843,
        "dialect": "flash",
        "policy": "games",
    }
    assert expected.items() <= listener.items()
    assert (listener["bytes"], listener["sha256"]) == (len(LISTENER.reply), LISTENER.sha256)


def test_status_of_workers_without_a_process_has_no_usage() -> None:
    context = make_context()
    one, two = context.shared.process(0), context.shared.process(1)
    one.pid, one.loop_lag_ns = os.getpid(), 2_500_000
    one.cpu_ns, one.resident_bytes = 1_500_000_000, 30_000_000
    two.up, two.restarts = 0, 7
    first, second = status(context)["workers"]
    assert (first["slot"], first["pid"], first["up"], first["lag_seconds"]) == (0, os.getpid(), True, 0.0025)
    assert (first["cpu_seconds"], first["resident_bytes"]) == (1.5, 30_000_000)
    assert (second["up"], second["restarts"], second["cpu_seconds"], second["resident_bytes"]) == (False, 7, None, None)


def test_status_counters_of_upstreams_are_summed_over_workers() -> None:
    context = make_context()
    for slot, opened in ((0, 3), (1, 40)):
        put_relayed(context.shared, slot, 1, "opened", opened)
        put_relayed(context.shared, slot, 1, "open", opened - 1)
    put_relayed(context.shared, 0, 0, "failures", 5, *[0] * (len(FAILURES) - 1))
    put_relayed(context.shared, 0, 1, "sent", 100, 2_000)
    dead, live = status(context)["upstreams"]
    assert (dead["listener"], dead["upstream"], dead["started"]) == ("master", "127.0.0.1:7000", 0)
    assert {why: number for why, number in dead["failures"].items() if number} == {"refused": 5}
    assert (live["upstream"], live["started"], live["open"], live["connecting"]) == ("game.example:7000", 43, 41, 0)
    assert live["bytes"] == {"client": 100, "upstream": 2_000}


def test_minute_window_has_the_counters_of_upstreams() -> None:
    context = make_context()
    put_relayed(context.shared, 0, 0, "opened", 10)
    before = Sample.of(context)
    past = [Sample(before.at - 30, before.total, before.replies, before.cpu_seconds, before.relayed)]
    put_relayed(context.shared, 0, 0, "opened", 17)
    minute = status(context, past)["minute"]
    assert [(each["upstream"], each["started"]) for each in minute["upstreams"]] == [
        ("127.0.0.1:7000", 7),
        ("game.example:7000", 0),
    ]


def test_status_has_the_counters_of_tls_by_version_and_reason() -> None:
    context = make_tls_context()
    for slot in (0, 1):
        put(context.shared, slot, 1, "handshakes", *range(len(TLS_VERSIONS)))
        put(context.shared, slot, 1, "handshake_failures", *range(len(HANDSHAKE_FAILURES)))
        put(context.shared, slot, 1, "handshake_buckets", *range(SIZE))
        for number, field in enumerate(("resumed", "unknown_names", "truncated", "tls", "handshaking")):
            put(context.shared, slot, 1, field, 10 + number)
        put(context.shared, slot, 1, "handshake_ns", 750_000_000)
    now = status(context)
    plain, secure = now["listeners"]
    assert secure["handshakes"] == {version: 2 * i for i, version in enumerate(TLS_VERSIONS)}
    assert secure["handshake_failures"] == {reason: 2 * i for i, reason in enumerate(HANDSHAKE_FAILURES)}
    assert [secure[field] for field in ("resumed", "unknown_names", "truncated", "tls", "handshaking")] == [
        20, 22, 24, 26, 28
    ]  # fmt: skip
    assert (secure["handshake_counts"], secure["handshake_seconds"]) == ([2 * i for i in range(SIZE)], 1.5)
    assert now["total"]["tls"] == 26
    assert (secure["certificates"], secure["tls_profile"], secure["tls_only"]) == (("games",), "modern", False)
    assert (plain["certificates"], plain["tls"], sum(plain["handshakes"].values())) == ((), 0, 0)


def test_status_lists_the_certificates() -> None:
    [certificate] = status(make_tls_context())["certificates"]
    [(subject, end)] = CERTIFICATE.issuers
    assert certificate == dataclasses.asdict(CERTIFICATE) | {"issuers": [{"subject": subject, "not_after": end}]}
    assert status(make_context())["certificates"] == []


def test_minute_window_has_the_handshakes_of_each_listener_with_tls() -> None:
    context = make_tls_context()
    put(context.shared, 0, 1, "handshakes", 0, 0, 5, 100)
    before = Sample.of(context)
    past = [dataclasses.replace(before, at=before.at - 30)]
    put(context.shared, 0, 1, "handshakes", 0, 0, 6, 130)
    put(context.shared, 1, 1, "unknown_names", 4)
    [window] = status(context, past)["minute"]["tls_listeners"]
    assert window["listener"] == TLS_LISTENER.listener
    assert window["handshakes"] == {"TLSv1": 0, "TLSv1.1": 0, "TLSv1.2": 1, "TLSv1.3": 30}
    assert (window["unknown_names"], window["resumed"]) == (4, 0)


@pytest.mark.parametrize(("state", "word"), [(STARTING, "starting"), (DRAINING, "draining")])
def test_status_names_the_state_and_the_failed_reload(state: int, word: str) -> None:
    context = make_context()
    context.status.state = state
    context.status.reload_successful, context.status.reload_timestamp, context.status.reload_error = (
        0,
        1234,
        "no such file",
    )
    now = status(context)
    assert now["state"] == word
    assert now["reload"] == {"successful": False, "timestamp": 1234, "error": "no such file"}


def test_window_has_what_was_counted_since_its_first_sample() -> None:
    context = make_context(slots=1)
    context.shared.process(0).pid, context.shared.process(0).cpu_ns = os.getpid(), 2_000_000_000
    put(context.shared, 0, 0, "buckets", 150, *[0] * (SIZE - 1))
    began = time.monotonic()
    past = [sample(began - 61, 10), sample(began - 6, 100), sample(began - 3, 140)]
    now = status(context, past)
    assert now["now"]["replies"] == now["now"]["listeners"]["master"] == 50
    assert 6 <= now["now"]["seconds"] < 60
    assert now["minute"]["replies"] == sum(now["minute"]["duration_counts"]) == 140
    assert now["now"]["workers"][str(os.getpid())] == now["workers"][0]["cpu_seconds"]


def test_windows_without_samples_are_none() -> None:
    now = status(make_context())
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
def test_since_returns_the_youngest_sample_that_is_old_enough(
    ages: tuple[float, ...], seconds: float, expected: float | None
) -> None:
    found = since([sample(100 - age) for age in ages], 100, seconds)
    assert (found and 100 - found.at) == expected


class Enough(Exception):
    pass


def test_history_keeps_a_bounded_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_history_with_costly_samples_takes_them_less_often(
    cost: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
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


# Whose keys are reasons and the like.
NAMED = ("refused", "ends", "failures", "bytes", "handshakes", "handshake_failures", "upgrades", "closes")


def names(value: object) -> set[str]:
    """All keys, except for those below `NAMED`."""
    if isinstance(value, list):
        return {name for each in value for name in names(each)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {name for key, inner in value.items() if key not in NAMED for name in names(inner)}


def test_every_field_of_the_status_is_documented() -> None:
    section = REFERENCE.split("### `/-/status`\n")[1].split("\n#")[0]
    context = dataclasses.replace(make_full_context(), workers_are_root=True)
    context.shared.refused_origins(0, 0).record("https://www.example.com", "no grant", 3)
    past = [dataclasses.replace(Sample.of(context), at=time.monotonic() - 30)]
    fields = names(json.loads(json.dumps(status(context, past))))
    assert {"tls_listeners", "handshake_counts", "not_after", "unknown_names"} <= fields
    assert {"ping_timeouts", "refused_origins", "reason"} <= fields
    fields -= {str(os.getpid()), *(each.listener for each in context.listeners), *map(str, range(2))}
    assert {"format", "problems", "severity", "total", "accept_queue", "lag_seconds", "duration_counts"} <= fields
    assert [name for name in sorted(fields) if f"`{name}`" not in section] == []
