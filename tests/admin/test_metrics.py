"""Counters become Prometheus families: exact values, the right labels, valid text."""

import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import gevent
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from flashpol._fastpath import BUCKETS, HANDSHAKE_FAILURES, LAYOUT, PROTOCOLS, REASONS, TLS_VERSIONS
from flashpol._pump import CONNECT_SECONDS, DURATION_SECONDS, ENDS, FAILURES
from flashpol._tunnel import ENDS as TUNNEL_ENDS
from flashpol._websocket import CLOSE_CODES, RESULTS, SIDES
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.exposition import Exposition
from flashpol.admin.metrics import FlashpolCollector
from flashpol.counters.layout import WORD, TunnelBlock
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.serving.certificates import CertificateFacts
from flashpol.version import VERSION
from testkit.clients import ask, connect
from testkit.polling import eventually
from testkit.processes import Flashpol, Metrics

DOCUMENTED = """
    connections_accepted_total connections_open replies_total reply_bytes_total refused_total timeouts_total
    resets_total request_duration_seconds accept_queue_length accept_queue_limit accept_errors_total
    untracked_connections_total
    parked_connections slow_replies sessions worker_up worker_restarts_total worker_cpu_seconds_total
    worker_resident_memory_bytes worker_start_time_seconds worker_open_files worker_max_files loop_lag_seconds
    policy_info policy_bytes config_last_reload_successful configuration_problems
    config_last_reload_success_timestamp_seconds build_info draining_workers
    relayed_total relay_sessions_started_total relay_sessions_open relay_connecting relay_ends_total
    relay_local_ports relay_max_local_ports
    relay_connect_failures_total relay_bytes_total relay_connect_duration_seconds relay_session_duration_seconds
    tls_handshakes_total tls_resumed_total tls_handshake_failures_total tls_handshake_duration_seconds
    tls_connections_open tls_handshakes_open tls_unknown_names_total tls_truncated_total
    tls_certificate_not_after_timestamp_seconds tls_certificate_info
    served_total websocket_upgrades_total websocket_open websocket_closes_total websocket_ping_timeouts_total
    websocket_compressed_bytes_total websocket_uncompressed_bytes_total
    rtmpt_sessions_open rtmpt_sessions_total rtmpt_ends_total rtmpt_unknown_sessions_total rtmpt_reordered_total
    rtmpt_gaps_total rtmpt_repeated_total rtmpt_refused_requests_total rtmpt_polls_total rtmpt_polls_held
    rtmpt_forwarded_total rtmpt_forward_failures_total rtmpt_buffered_bytes
"""
LISTENERS = [ListenerInfo("master", b"<a/>\0"), ListenerInfo('odd "name"\\\n', b"<bb/>\0", certificates=("games",))]
CERTIFICATES = [
    CertificateFacts("games", ("games.example.com", "*.example.com"), 0, 1_800_000_000, "ECDSA P-256", "4b" * 32, "f"),
    CertificateFacts("nameless", (), 0, 1_700_000_000, "RSA 2048", "01" * 32, "g", (("CN=Issuer", 1_650_000_000),)),
]
ROUTES = [("master", "127.0.0.1:7000"), ("master", "unix:/run/game.sock")]
PATHS = [("master", "/chess"), (LISTENERS[1].listener, "*")]
TUNNELS = ["master", LISTENERS[1].listener]
SIMPLE = {  # field of a block -> metric
    "accepted": "connections_accepted_total",
    "reply_bytes": "reply_bytes_total",
    "served": "served_total",
    "timeouts": "timeouts_total",
    "resets": "resets_total",
    "accept_errors": "accept_errors_total",
    "untracked": "untracked_connections_total",
    "open": "connections_open",
    "parked": "parked_connections",
    "slow_replies": "slow_replies",
    "sessions": "sessions",
}


def put(shared: SharedCounters, slot: int, listener: int, field: str, *values: int) -> None:
    words = shared.memory(slot, listener).cast("Q")
    offset, count = LAYOUT[field]
    assert len(values) == count
    for i, value in enumerate(values):
        words[offset // WORD + i] = value


@pytest.fixture
def shared() -> SharedCounters:
    return SharedCounters(2, 2, upstreams=len(ROUTES), paths=len(PATHS), tunnels=len(TUNNELS))


def make_context(shared: SharedCounters, status: ServerStatus | None = None) -> AdminContext:
    totals = CounterTotals()
    totals.open([each.listener for each in LISTENERS], shared, ROUTES, PATHS, TUNNELS)
    return AdminContext(
        status or ServerStatus(), totals, shared, LISTENERS, ROUTES, PATHS, TUNNELS, certificates=CERTIFICATES
    )


def text_of(shared: SharedCounters, status: ServerStatus | None = None, accept: str = "") -> bytes:
    return Exposition(FlashpolCollector(make_context(shared, status))).write(accept)[1]


def scrape(shared: SharedCounters, status: ServerStatus | None = None) -> Metrics:
    return Metrics.parse(text_of(shared, status).decode())


@pytest.mark.parametrize(("field", "metric"), SIMPLE.items())
def test_counter_is_summed_over_the_workers_of_one_listener(shared: SharedCounters, field: str, metric: str) -> None:
    for slot, listener, value in ((0, 0, 3), (1, 0, 40), (0, 1, 500), (1, 1, 6000)):
        put(shared, slot, listener, field, value)
    metrics = scrape(shared)
    assert metrics.total(metric, listener="master") == 43
    assert metrics.total(metric, listener=LISTENERS[1].listener) == 6500
    others = set(SIMPLE.values()) - {metric}
    assert all(metrics.total(other) == 0 for other in others)


def test_refused_total_has_a_sample_for_each_reason(shared: SharedCounters) -> None:
    put(shared, 0, 0, "refused", *range(1, len(REASONS) + 1))
    put(shared, 1, 0, "refused", *[10] * len(REASONS))
    metrics = scrape(shared)
    for i, reason in enumerate(REASONS, 1):
        assert metrics.total("refused_total", listener="master", reason=reason) == 10 + i
    assert metrics.total("refused_total", listener=LISTENERS[1].listener) == 0


def test_request_duration_is_cumulative_and_counts_the_replies(shared: SharedCounters) -> None:
    size = len(BUCKETS) + 1
    put(shared, 0, 0, "buckets", *range(1, size + 1))
    put(shared, 1, 0, "buckets", *[100] * size)
    put(shared, 0, 0, "duration_ns", 1_500_000_000)
    put(shared, 1, 0, "duration_ns", 250_000_000)
    metrics = scrape(shared)
    bounds = {
        float(dict(labels)["le"]): value
        for (name, labels), value in metrics.items()
        if name == "flashpol_request_duration_seconds_bucket" and ("listener", "master") in labels
    }
    expected = [sum(range(1, n + 1)) + 100 * n for n in range(1, size + 1)]
    assert bounds == dict(zip((*BUCKETS, float("inf")), expected, strict=True))
    assert metrics.total("request_duration_seconds_count", listener="master") == expected[-1]
    assert metrics.total("replies_total", listener="master") == expected[-1]
    assert metrics.total("request_duration_seconds_sum", listener="master") == 1.75


def relay_put(shared: SharedCounters, slot: int, upstream: int, field: str, *values: int) -> None:
    for i, value in enumerate(values):
        shared.relay_block(slot, upstream).put(field, value, i)


def test_relay_metrics_are_summed_over_the_workers_of_one_upstream(shared: SharedCounters) -> None:
    for slot in (0, 1):
        relay_put(shared, slot, 1, "opened", 5 + slot)
        relay_put(shared, slot, 1, "open", 2)
        relay_put(shared, slot, 1, "connecting", 1)
        relay_put(shared, slot, 1, "ports", 30 + slot)
        relay_put(shared, slot, 1, "max_ports", 14_116)
        relay_put(shared, slot, 1, "ends", *range(1, len(ENDS) + 1))
        relay_put(shared, slot, 1, "failures", *range(1, len(FAILURES) + 1))
        relay_put(shared, slot, 1, "sent", 100, 7)
        for field, bounds in (("connect", CONNECT_SECONDS), ("duration", DURATION_SECONDS)):
            relay_put(shared, slot, 1, f"{field}_buckets", *[1] * (len(bounds) + 1))
            relay_put(shared, slot, 1, f"{field}_ns", 250_000_000)
        put(shared, slot, 0, "relayed", *range(1, len(PROTOCOLS) + 1))
    metrics = scrape(shared)
    one = {"listener": "master", "upstream": "unix:/run/game.sock"}
    assert metrics.total("relay_sessions_started_total", **one) == 11
    assert metrics.total("relay_sessions_open", **one) == 4
    assert metrics.total("relay_connecting", **one) == 2
    assert metrics.total("relay_local_ports", **one) == 61
    assert metrics.total("relay_max_local_ports", **one) == 28_232
    for i, end in enumerate(ENDS, 1):
        assert metrics.total("relay_ends_total", **one, by=end) == 2 * i
    for i, reason in enumerate(FAILURES, 1):
        assert metrics.total("relay_connect_failures_total", **one, reason=reason) == 2 * i
    assert metrics.total("relay_bytes_total", **one, sender="client") == 200
    assert metrics.total("relay_bytes_total", **one, sender="upstream") == 14
    for name, bounds in (("connect", CONNECT_SECONDS), ("session", DURATION_SECONDS)):
        assert metrics.total(f"relay_{name}_duration_seconds_count", **one) == 2 * (len(bounds) + 1)
        assert metrics.total(f"relay_{name}_duration_seconds_sum", **one) == 0.5
    for i, protocol in enumerate(PROTOCOLS, 1):
        assert metrics.total("relayed_total", listener="master", protocol=protocol) == 2 * i
    assert metrics.total("relay_bytes_total", upstream="127.0.0.1:7000") == 0


def test_websocket_metrics_are_summed_over_the_workers_of_one_path(shared: SharedCounters) -> None:
    for slot in (0, 1):
        block = shared.path_block(slot, 1)
        for i in range(len(RESULTS)):
            block.put("upgrades", i + 1, i)
        for i in range(len(SIDES) * len(CLOSE_CODES)):
            block.put("closes", i + 1, i)
        block.put("ping_timeouts", 3 + slot)
        block.put("open", 20 + slot)
        for i, (compressed, whole) in enumerate(((10, 40), (100, 900))):
            block.put("deflated", compressed, i)
            block.put("inflated", whole, i)
    metrics = scrape(shared)
    one = {"listener": LISTENERS[1].listener, "path": "*"}
    for i, result in enumerate(RESULTS, 1):
        assert metrics.total("websocket_upgrades_total", **one, result=result) == 2 * i
    for i, (side, code) in enumerate(product(SIDES, CLOSE_CODES), 1):
        assert metrics.total("websocket_closes_total", **one, by=side, code=code) == 2 * i
    assert metrics.total("websocket_ping_timeouts_total", **one) == 7
    assert metrics.total("websocket_open", **one) == 41
    assert metrics.total("websocket_compressed_bytes_total", **one, direction="received") == 20
    assert metrics.total("websocket_compressed_bytes_total", **one, direction="sent") == 200
    assert metrics.total("websocket_uncompressed_bytes_total", **one, direction="received") == 80
    assert metrics.total("websocket_uncompressed_bytes_total", **one, direction="sent") == 1_800
    assert metrics.total("websocket_upgrades_total", path="/chess") == 0


RTMPT_SIMPLE = {  # field of a block -> metric
    "open": "rtmpt_sessions_open",
    "sessions": "rtmpt_sessions_total",
    "polls": "rtmpt_polls_total",
    "held": "rtmpt_polls_held",
    "unknown": "rtmpt_unknown_sessions_total",
    "reordered": "rtmpt_reordered_total",
    "gaps": "rtmpt_gaps_total",
    "repeated": "rtmpt_repeated_total",
    "refused": "rtmpt_refused_requests_total",
    "forwarded": "rtmpt_forwarded_total",
    "forward_failures": "rtmpt_forward_failures_total",
    "buffered": "rtmpt_buffered_bytes",
}


def test_every_counter_of_tunnels_has_a_metric() -> None:
    assert {*RTMPT_SIMPLE, "ends"} == set(TunnelBlock.LAYOUT)


@pytest.mark.parametrize(("field", "metric"), RTMPT_SIMPLE.items())
def test_tunnel_counter_is_summed_over_the_workers_of_one_listener(
    shared: SharedCounters, field: str, metric: str
) -> None:
    for slot, tunnel, value in ((0, 0, 3), (1, 0, 40), (0, 1, 500), (1, 1, 6000)):
        shared.tunnel_block(slot, tunnel).put(field, value)
    metrics = scrape(shared)
    assert metrics.total(metric, listener="master") == 43
    assert metrics.total(metric, listener=LISTENERS[1].listener) == 6500
    assert all(metrics.total(other) == 0 for other in set(RTMPT_SIMPLE.values()) - {metric})


def test_tunnel_ends_are_counted_by_what_ended_the_session(shared: SharedCounters) -> None:
    for slot in (0, 1):
        for i in range(len(TUNNEL_ENDS)):
            shared.tunnel_block(slot, 1).put("ends", i + 1, i)
    metrics = scrape(shared)
    for i, end in enumerate(TUNNEL_ENDS, 1):
        assert metrics.total("rtmpt_ends_total", listener=LISTENERS[1].listener, by=end) == 2 * i
    assert metrics.total("rtmpt_ends_total", listener="master") == 0


TLS_SIMPLE = {  # field of a block -> metric
    "tls": "tls_connections_open",
    "handshaking": "tls_handshakes_open",
    "resumed": "tls_resumed_total",
    "unknown_names": "tls_unknown_names_total",
    "truncated": "tls_truncated_total",
}


@pytest.mark.parametrize(("field", "metric"), TLS_SIMPLE.items())
def test_tls_counter_is_summed_over_the_workers_of_a_listener_with_tls(
    shared: SharedCounters, field: str, metric: str
) -> None:
    put(shared, 0, 1, field, 500)
    put(shared, 1, 1, field, 6000)
    metrics = scrape(shared)
    assert metrics.total(metric, listener=LISTENERS[1].listener) == metrics.total(metric) == 6500
    assert all(metrics.total(other) == 0 for other in set(TLS_SIMPLE.values()) - {metric})


def test_tls_handshakes_are_counted_by_version_and_failures_by_reason(shared: SharedCounters) -> None:
    put(shared, 0, 1, "handshakes", *range(1, len(TLS_VERSIONS) + 1))
    put(shared, 1, 1, "handshakes", *[10] * len(TLS_VERSIONS))
    put(shared, 0, 1, "handshake_failures", *range(1, len(HANDSHAKE_FAILURES) + 1))
    put(shared, 1, 1, "handshake_failures", *[100] * len(HANDSHAKE_FAILURES))
    metrics = scrape(shared)
    for i, version in enumerate(TLS_VERSIONS, 1):
        assert metrics.total("tls_handshakes_total", version=version) == 10 + i
    for i, reason in enumerate(HANDSHAKE_FAILURES, 1):
        assert metrics.total("tls_handshake_failures_total", reason=reason) == 100 + i


def test_tls_handshake_duration_is_cumulative_and_separate_from_replies(shared: SharedCounters) -> None:
    size = len(BUCKETS) + 1
    for slot in (0, 1):
        put(shared, slot, 1, "handshake_buckets", *[1] * size)
        put(shared, slot, 1, "handshake_ns", 750_000_000)
    metrics = scrape(shared)
    assert metrics.total("tls_handshake_duration_seconds_bucket", le=str(BUCKETS[0])) == 2
    assert metrics.total("tls_handshake_duration_seconds_count") == 2 * size
    assert metrics.total("tls_handshake_duration_seconds_sum") == 1.5
    assert metrics.total("replies_total") == metrics.total("request_duration_seconds_count") == 0


def test_listener_without_tls_has_no_samples_of_tls(shared: SharedCounters) -> None:
    for name in ("tls_connections_open", "tls_handshakes_total", "tls_handshake_duration_seconds_count"):
        with pytest.raises(AssertionError, match="no sample"):
            scrape(shared).total(name, listener="master")


def test_certificate_metrics_have_the_end_and_what_identifies_it(shared: SharedCounters) -> None:
    metrics = scrape(shared)
    games, nameless = CERTIFICATES
    ends = {"games": 1_800_000_000, "nameless": 1_650_000_000}  # the latter's issuer ends first
    for name, end in ends.items():
        assert metrics.total("tls_certificate_not_after_timestamp_seconds", certificate=name) == end
    labels = {"names": "games.example.com,*.example.com", "key": "ECDSA P-256", "sha256": games.sha256}
    assert metrics.total("tls_certificate_info", certificate="games", **labels) == 1
    assert metrics.total("tls_certificate_info", certificate="nameless", names="", key=nameless.key) == 1


def test_accept_queue_is_summed_over_the_workers(shared: SharedCounters) -> None:
    for slot, length in ((0, 3), (1, 4)):
        shared.queue(slot, 1).length, shared.queue(slot, 1).limit = length, 4096
    metrics = scrape(shared)
    assert metrics.total("accept_queue_length", listener=LISTENERS[1].listener) == 7
    assert metrics.total("accept_queue_limit", listener=LISTENERS[1].listener) == 8192
    assert metrics.total("accept_queue_length", listener="master") == 0


def test_worker_metrics_have_a_sample_for_each_slot(shared: SharedCounters) -> None:
    one, two = shared.process(0), shared.process(1)
    one.up, one.loop_lag_ns, two.restarts = 1, 2_500_000, 7
    one.heartbeat_ns = time.monotonic_ns()
    shared.admin.restarts = 9  # no worker: not in these families
    metrics = scrape(shared)
    for name, first, second in (("worker_up", 1, 0), ("loop_lag_seconds", 0.0025, 0), ("worker_restarts_total", 0, 7)):
        assert metrics.total(name, worker="0") == first
        assert metrics.total(name, worker="1") == second
        assert metrics.total(name) == first + second


def test_worker_without_a_process_has_no_samples_of_its_usage(shared: SharedCounters) -> None:
    one, two = shared.process(0), shared.process(1)
    one.pid, one.cpu_ns, one.resident_bytes, one.started_ms = 4711, 1_500_000_000, 30_000_000, 1_700_000_000_500
    one.base_files, one.max_files = 12, 20_000
    two.started_ms = 1_600_000_000_000  # it has ended
    put(shared, 0, 0, "open", 5)
    put(shared, 0, 1, "open", 6)
    put(shared, 1, 0, "open", 7)
    metrics = scrape(shared)
    expected = {
        "cpu_seconds_total": 1.5,
        "resident_memory_bytes": 30_000_000,
        "start_time_seconds": 1_700_000_000.5,
        "open_files": 12 + 5 + 6,
        "max_files": 20_000,
    }
    for name, value in expected.items():
        assert metrics.total(f"worker_{name}", worker="0") == value
        with pytest.raises(AssertionError, match="no sample"):
            metrics.total(f"worker_{name}", worker="1")


def test_usage_of_a_real_worker_equals_what_proc_says() -> None:
    user = ("--user", "nobody") if os.geteuid() == 0 else ()
    with Flashpol("--allow", "*:*", *user) as server:
        [worker] = server.workers
        held = [connect(server.place) for _ in range(20)]
        eventually(lambda: server.metrics().total("parked_connections") == 20, "all inside")
        eventually(lambda: b"flashpol_worker_open_files{" in server.get("/metrics").body, "a look at the worker")
        metrics = server.metrics()
        server.counts(len(os.listdir(f"/proc/{worker.pid}/fd")), "worker_open_files")
        assert str(int(metrics.total("worker_max_files"))) in Path(f"/proc/{worker.pid}/limits").read_text()
        assert metrics.total("worker_resident_memory_bytes") > 1_000_000

        def busy() -> bool:
            """The kernel counts ticks, usually of 10 ms, and the worker was ready before its first."""
            replies = [ask(server.place) for _ in range(500)]
            return bool(replies) and server.metrics().total("worker_cpu_seconds_total") > 0

        eventually(busy, "a tick of CPU")
        assert abs(time.time() - metrics.total("worker_start_time_seconds")) < 60
        for connection in held:
            connection.close()


def test_configuration_metrics_describe_policies_reload_and_build(shared: SharedCounters) -> None:
    status = ServerStatus()
    status.reload_successful, status.reload_timestamp = 1, 1_700_000_000
    metrics = scrape(shared, status)
    for each in LISTENERS:
        assert metrics.total("policy_bytes", listener=each.listener) == len(each.reply)
        digest = hashlib.sha256(each.reply.removesuffix(b"\0")).hexdigest()
        assert metrics.total("policy_info", listener=each.listener, sha256=digest) == 1
    assert metrics.total("config_last_reload_successful") == 1
    assert metrics.total("config_last_reload_success_timestamp_seconds") == 1_700_000_000
    versions = {"version": VERSION, "python_version": platform.python_version(), "gevent_version": gevent.__version__}
    assert metrics.total("build_info", **versions) == 1
    status.reload_successful = 0
    assert scrape(shared, status).total("config_last_reload_successful") == 0


def families(shared: SharedCounters) -> Iterator[Metric]:
    return FlashpolCollector(make_context(shared)).collect()


def test_families_are_exactly_the_documented_ones(shared: SharedCounters) -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families(shared)}
    assert names == {f"flashpol_{name}" for name in DOCUMENTED.split()}


def test_families_have_help_texts_and_no_client_address_as_a_label(shared: SharedCounters) -> None:
    shared.process(0).pid = os.getpid()
    allowed = {
        "listener",
        "path",
        "result",
        "code",
        "direction",
        "reason",
        "worker",
        "sha256",
        "le",
        "version",
        "python_version",
        "gevent_version",
    }
    allowed |= {
        "protocol",
        "upstream",
        "by",
        "sender",
        "kind",
        "severity",
        "version",
        "certificate",
        "names",  # of hosts, as the certificate has them
        "key",
    }  # the upstream as the configuration names it
    for family in families(shared):
        assert family.documentation.endswith((".", "1")), family.name
        assert {label for sample in family.samples for label in sample.labels} <= allowed


def test_describe_has_the_same_families_without_samples(shared: SharedCounters) -> None:
    described = list(FlashpolCollector(make_context(shared)).describe())
    assert [family.name for family in described] == [family.name for family in families(shared)]
    assert not any(family.samples for family in described)


def test_counter_below_2_to_the_53_is_exact(shared: SharedCounters) -> None:
    put(shared, 0, 0, "accepted", 2**53 - 1)
    assert scrape(shared).total("connections_accepted_total", listener="master") == 2**53 - 1


def test_openmetrics_has_the_same_samples_as_text(shared: SharedCounters) -> None:
    put(shared, 0, 0, "buckets", *range(len(BUCKETS) + 1))
    put(shared, 0, 1, "refused", *range(len(REASONS)))
    text = text_of(shared, accept="application/openmetrics-text").decode()
    assert text.endswith("# EOF\n")
    parsed = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(text)
        for sample in family.samples
    }
    plain = {key: value for key, value in scrape(shared).items() if not key[0].endswith("_created")}
    assert plain
    assert {key: value for key, value in parsed.items() if "le" not in dict(key[1])} == {
        key: value for key, value in plain.items() if "le" not in dict(key[1])
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_metrics_satisfy_promtool(shared: SharedCounters) -> None:
    shared.process(0).pid = os.getpid()
    put(shared, 0, 0, "buckets", *range(len(BUCKETS) + 1))
    text = text_of(shared)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=7, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
