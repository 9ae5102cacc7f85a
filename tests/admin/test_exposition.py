"""The text of /metrics is what prometheus-client writes, and has the values of the moment."""

import dataclasses
import random
import time
from collections.abc import Callable

import pytest
from contexts import CERTIFICATE, LISTENER, ROUTES, TLS_LISTENER, make_context, make_full_context, put
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from flashpol.admin.context import AdminContext
from flashpol.admin.exposition import MAX_TEMPLATES, Exposition, _number
from flashpol.admin.metrics import FlashpolCollector
from flashpol.counters.shared import SharedCounters
from flashpol.counters.totals import CounterTotals

# As Prometheus asks.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
ACCEPTED = (
    "",
    PROMETHEUS,
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0;escaping=dots",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "text/plain;version=1.0.0;escaping=values",
)
ODD = '100 % of "all"\\\n%s é \u2028 # 1.0'


def odd_context() -> AdminContext:
    """With names that need escapes, and signs that mean something in a template."""
    names = [ODD, "%d"]
    listeners = [
        dataclasses.replace(each, listener=name) for each, name in zip((LISTENER, TLS_LISTENER), names, strict=True)
    ]
    routes, paths = [(ODD, "unix:/run/%s.sock")], [(ODD, "/%20")]
    shared, totals = SharedCounters(2, 2, len(routes), len(paths), len(names)), CounterTotals()
    totals.open(names, shared, routes, paths, names)
    return dataclasses.replace(
        make_context(),
        shared=shared,
        totals=totals,
        listeners=listeners,
        routes=routes,
        paths=paths,
        tunnels=names,
        certificates=(CERTIFICATE,),
    )


def fill(context: AdminContext, seed: int) -> None:
    """Write any number into every counter. Nothing depends on the time then."""
    some, shared = random.Random(seed), context.shared
    for slot in range(shared.slots):
        blocks = [
            *(shared.memory(slot, i) for i in range(shared.listeners)),
            *(shared.path_memory(slot, i) for i in range(shared.paths)),
            *(shared.relay_memory(slot, i) for i in range(shared.upstreams)),
            *(shared.tunnel_memory(slot, i) for i in range(shared.tunnels)),
        ]
        for block in blocks:
            words = block.cast("Q")
            for i in range(len(words)):
                words[i] = some.randrange(10 ** some.randrange(1, 16))
        for i in range(shared.listeners):
            shared.queue(slot, i).length = some.randrange(4096)
        status = shared.process(slot)
        status.pid, status.cpu_ns, status.resident_bytes = slot + 1, some.randrange(10**15), some.randrange(10**10)
        status.started_ms, status.loop_lag_ns = some.randrange(1, 10**13), 10**12 + seed
        status.up, status.heartbeat_ns = 1, time.monotonic_ns()


def expected(context: AdminContext, accept: str) -> tuple[str, bytes]:
    encoder, kind = choose_encoder(accept)
    return kind, encoder(FlashpolCollector(context))


@pytest.mark.parametrize("accept", ACCEPTED)
@pytest.mark.parametrize("make", [make_context, make_full_context, odd_context])
def test_text_equals_that_of_prometheus_client_at_every_scrape(make: Callable[[], AdminContext], accept: str) -> None:
    context = make()
    exposition = Exposition(FlashpolCollector(context))
    for seed in range(3):
        fill(context, seed)
        assert exposition.write(accept) == expected(context, accept)


def test_text_of_one_format_does_not_change_that_of_another() -> None:
    context = make_full_context()
    exposition = Exposition(FlashpolCollector(context))
    for accept in (*ACCEPTED, *ACCEPTED):
        fill(context, 1)
        assert exposition.write(accept) == expected(context, accept)


def test_counter_is_in_the_next_text() -> None:
    context = make_context()
    exposition = Exposition(FlashpolCollector(context))
    for count in (1, 2, 3_000_000):
        put(context.shared, 0, 0, "accepted", count)
        line = f'flashpol_connections_accepted_total{{listener="master"}} {floatToGoString(count)}\n'
        assert line.encode() in exposition.write("")[1]


def test_worker_that_comes_or_goes_has_samples_of_its_usage_or_none() -> None:
    context = make_context()
    fill(context, 1)
    exposition = Exposition(FlashpolCollector(context))
    for pids in ((1, 0), (0, 1), (1, 1), (0, 0)):
        for slot, pid in enumerate(pids):
            context.shared.process(slot).pid = pid
        kind, text = exposition.write("")
        assert (kind, text) == expected(context, "")
        for slot, pid in enumerate(pids):
            assert (f'flashpol_worker_open_files{{worker="{slot}"}}'.encode() in text) == bool(pid)


def test_generation_that_ended_stays_in_the_counters() -> None:
    context = make_context(slots=1)
    put(context.shared, 0, 0, "resets", 40)
    exposition = Exposition(FlashpolCollector(context))
    later = SharedCounters(1, 1, len(ROUTES))
    context.totals.open([LISTENER.listener], later, ROUTES)
    put(later, 0, 0, "resets", 2)
    total = b'flashpol_resets_total{listener="master"} 42.0\n'
    assert total in exposition.write("")[1]
    context.totals.close(context.shared)
    assert total in exposition.write("")[1]


def test_formats_without_end_keep_few_templates() -> None:
    exposition = Exposition(FlashpolCollector(make_context()))
    for number in range(5 * MAX_TEMPLATES):
        exposition.write(f"text/html;{number}")
        assert len(exposition._templates) <= MAX_TEMPLATES


def test_numbers_are_written_as_prometheus_client_does() -> None:
    some = random.Random(4)
    edges = [10**power + step for power in range(20) for step in (-1, 0, 1)] + [2**53 - 1, 2**53, 2**53 + 1, 2**64 - 1]
    values = [*edges, *(some.randrange(10 ** some.randrange(1, 19)) for _ in range(5000)), True, False, 0.1, 1e300, -1]
    assert [_number(value) for value in values] == [floatToGoString(value) for value in values]
