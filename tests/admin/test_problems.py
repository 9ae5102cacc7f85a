"""What needs attention: one list, which the page and the status document show alike."""

import dataclasses
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from contexts import LISTENER, SITE_CONTROL, make_context, put, put_relayed
from pages import Page, get, page

from flashpol._fastpath import BUCKETS, REASONS
from flashpol._pump import FAILURES
from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problem_kinds import Problem
from flashpol.admin.problems import OWN_FAILURES
from flashpol.admin.status import status
from flashpol.config import Address
from flashpol.counters import status as process_status
from flashpol.counters.layout import Block, RelayBlock
from flashpol.policy import lint


def empty_minute(context: AdminContext) -> list[Sample]:
    """A sample of half a minute ago, when every counter was 0."""
    relayed = dict.fromkeys(context.routes, RelayBlock.total([]))
    return [Sample(time.monotonic() - 30, Block.total([]), {}, {}, relayed)]


def problems(context: AdminContext, past: Sequence[Sample] = ()) -> list[tuple[str, str, str]]:
    found = status(context, past)["problems"]
    return [(each["kind"], each["severity"], each["message"]) for each in found]


# What -> the counters of a listener.
COUNTED: dict[str, dict[str, Sequence[int]]] = {
    "accept": {"accept_errors": [1]},
    "proxy": {"accepted": [120], "refused": [6 * (reason == "proxy_malformed") for reason in REASONS]},
    "timeouts": {"accepted": [100], "timeouts": [60]},
    "slow": {"buckets": [100 * (bound == 2.5) for bound in (*BUCKETS, None)]},
}
# The same of upstreams, by their numbers.
DEAD = [{"refused": 9, "timeout": 3}.get(reason, 0) for reason in FAILURES]
RELAYED: dict[str, dict[tuple[int, str], Sequence[int]]] = {
    "dead upstream": {(0, "failures"): DEAD},
    "half an upstream": {(0, "failures"): DEAD, (1, "opened"): [1]},
    "few ports": {(0, "ports"): [22_000], (0, "max_ports"): [28_232]},
    **{own: {(0, "failures"): [2 * (reason == own) for reason in FAILURES]} for own in OWN_FAILURES},
}


def test_problems_of_a_healthy_server_are_none() -> None:
    context = make_context()
    assert problems(context, empty_minute(context)) == []
    shown = page(context)
    assert "All is well" in shown.text
    assert "Nothing needs attention." in shown.text


@pytest.mark.parametrize(
    ("what", "kind", "severity", "message"),
    [
        ("reload", "reload", "error",
         "The last reload failed, and the earlier configuration stays in effect: line 3 is wrong"),
        ("worker", "worker-down", "error", "Worker 1 does not accept connections."),
        ("lag", "worker-late", "warning", "Worker 0 is slow: its event loop is late by 2 s."),
        ("stalled", "worker-stalled", "error", "Worker 0 has stalled: it has not served for 9,000 s."),
        ("queue", "accept-queue", "warning", "The accept queue of master is 75 % full."),
        ("accept", "accept-errors", "error", "1 accept failed in the last minute; the log says why."),
        ("capacity", "refused-capacity", "error",
         "9 connections in the last minute were refused: the workers were out of descriptors or memory."),
        ("max_connections", "refused-max_connections", "error",
         "9 connections in the last minute were refused: max_connections or max_worker_connections was reached."),
        ("max_sessions", "refused-max_sessions", "error",
         "9 connections in the last minute were refused: max_sessions was reached."),
        ("max_slow_replies", "refused-max_slow_replies", "error",
         "9 connections in the last minute were refused: max_slow_replies was reached."),
        ("upstream", "refused-upstream", "error",
         "9 connections in the last minute were refused: no upstream could be reached."),
        ("crashed", "refused-crashed", "error",
         "9 connections in the last minute were lost when a worker crashed."),
        ("max_address_connections", "refused-max_address_connections", "warning",
         "9 connections in the last minute were refused: their address had reached max_address_connections; the "
         "log names it."),
        ("max_address_rate", "refused-max_address_rate", "warning",
         "9 connections in the last minute were refused: their address had reached max_address_rate; the log "
         "names it."),
        ("restarts", "worker-restarted", "warning",
         "Worker 1 ended and was replaced 2 times in the last minute; the log says why."),
        ("files", "files", "warning", "Worker 0 uses 85 % of its 100 file descriptors."),
        ("proxy", "refused-proxy_malformed", "warning",
         "6 connections in the last minute were refused: they did not begin with a PROXY header."),
        ("timeouts", "timeouts", "warning", "60 % of the connections timed out in the last minute (60)."),
        ("slow", "slow", "warning", "The 99th percentile of the time to reply was 2.5 s in the last minute."),
        ("half an upstream", "upstream", "warning",
         "Upstream 127.0.0.1:7000 of master is unreachable: every attempt to connect in the last minute failed "
         "(9 refused, 3 timed out). Other upstreams of the listener accept sessions."),
        ("dead upstream", "upstream", "error",
         "Upstream 127.0.0.1:7000 of master is unreachable: every attempt to connect in the last minute failed "
         "(9 refused, 3 timed out)."),
        ("connecting", "connecting", "error",
         "2 sessions of master to 127.0.0.1:7000 were refused: as many others as may were waiting to be connected (a "
         "quarter of max_sessions) in the last minute."),
        ("ports", "ports", "error",
         "2 sessions of master to 127.0.0.1:7000 were refused: no local port was free for it, or one client address "
         "had its share in the last minute."),
        ("few ports", "ports-low", "warning",
         "22,000 of 28,232 local ports towards upstream 127.0.0.1:7000 of master are in use."),
    ],
)  # fmt: skip
def test_problem_is_in_the_list_and_on_the_page(
    what: str, kind: str, severity: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()
    past, shared = empty_minute(context), context.shared
    if what == "reload":
        context.status.reload_successful, context.status.reload_error = 0, "line 3 is wrong"
    elif what == "worker":
        shared.process(1).up = 0
    elif what == "lag":
        shared.process(0).loop_lag_ns = 2_000_000_000
    elif what == "stalled":
        shared.process(0).pid = 7
        # Later, not a heartbeat long ago: the machine may just have been started.
        later = time.monotonic_ns() + 9_000_600_000_000
        monkeypatch.setattr(process_status, "time", SimpleNamespace(monotonic_ns=lambda: later))
        shared.process(1).heartbeat_ns = later
    elif what == "queue":
        shared.queue(0, 0).length, shared.queue(0, 0).limit = 96, 128
    elif what == "restarts":
        shared.process(1).restarts = 2
    elif what == "files":
        process = shared.process(0)
        process.pid, process.base_files, process.max_files = 7, 15, 100
        put(shared, 0, 0, "open", 70)
    elif what in COUNTED:
        for field, values in COUNTED[what].items():
            put(shared, 0, 0, field, *values)
    elif what in RELAYED:
        for (upstream, field), values in RELAYED[what].items():
            put_relayed(shared, 1, upstream, field, *values)
    else:
        put(shared, 0, 0, "refused", *(9 if reason == what else 0 for reason in REASONS))
    assert problems(context, past) == [(kind, severity, message)]
    history = History(lambda: Sample.of(context))
    history.samples.extend(past)
    shown = Page(get(Application(context, history=history))[2])
    assert "Needs attention: 1" in shown.text
    assert message in shown.text
    # Screen readers read out the heading, whose words stay the same while figures change, and a decision.
    assert [tag for tag, attributes in shown.tags if "aria-live" in attributes] == ["h2", "div"]


def test_problems_with_few_strangers_on_a_port_for_proxies_are_none() -> None:
    context = make_context()
    put(context.shared, 0, 0, "accepted", 121)
    put(context.shared, 0, 0, "refused", *(6 if reason == "proxy_untrusted" else 0 for reason in REASONS))
    assert problems(context, empty_minute(context)) == []


def test_problem_of_an_unknown_kind_or_severity_is_refused() -> None:
    with pytest.raises(KeyError):
        Problem("unknown", "error", "")
    with pytest.raises(ValueError, match="reload"):
        Problem("reload", "warning", "")


def test_problems_with_refusals_older_than_a_minute_are_none() -> None:
    context = make_context()
    put(context.shared, 0, 0, "refused", *(9 for _ in REASONS))
    now = Sample.of(context)
    past = [Sample(now.at - 30, now.total, now.replies, now.cpu_seconds, now.relayed)]
    assert problems(context, past) == []


def test_upstream_that_accepts_some_sessions_is_no_problem() -> None:
    context = make_context()
    past = empty_minute(context)
    put_relayed(context.shared, 0, 0, "failures", *(reason not in OWN_FAILURES for reason in FAILURES))
    put_relayed(context.shared, 0, 0, "opened", 1)
    put_relayed(context.shared, 0, 0, "sent", 600, 2_400)
    history = History(lambda: Sample.of(context))
    history.samples.extend(past)
    assert problems(context, past) == []
    shown = page(Application(context, history=history))
    assert "some failed" in shown.text
    assert "100 bytes/s" in shown.text


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, []),
        (Address("127.0.0.1", 9843), []),
        (Address("127.8.9.1", 9843), []),
        (Address("::1", 9843), []),
        (Address("0.0.0.0", 9843), ["admin-exposed"]),
        (Address("::", 9843), ["admin-exposed"]),
        (Address("192.0.2.1", 9843), ["admin-exposed"]),
    ],
)
def test_admin_address_that_is_not_loopback_is_a_problem(address: Address | None, expected: list[str]) -> None:
    assert [kind for kind, *_ in problems(dataclasses.replace(make_context(), address=address))] == expected


def test_workers_that_run_as_root_are_a_problem() -> None:
    assert problems(dataclasses.replace(make_context(), workers_are_root=True)) == [
        ("root", "warning", "The workers run as root: set user to an unprivileged user.")
    ]


PLAIN = LISTENER.reply.replace(SITE_CONTROL, b"")
WARNED = PLAIN.replace(b"1935", b"22,1935")
WRONG = PLAIN.replace(b"1935", b"22")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (PLAIN, []),
        (WARNED, [("policy", "warning", "2 warnings: FP509, FP606.")]),
        (WRONG, [("policy", "error", "1 error and 1 warning: FP508, FP606.")]),
    ],
)  # fmt: skip
def test_policy_with_errors_or_warnings_is_a_problem(reply: bytes, expected: list[tuple[str, str, str]]) -> None:
    listener = dataclasses.replace(LISTENER, reply=reply, port=8430, served_from=8430)
    context = make_context([listener, dataclasses.replace(listener, listener="other")])
    analyses = AnalysisCache(context.listeners)
    assert (status(context, (), analyses)["problems"], status(context, (), analyses)["policies"]) == (
        [],
        {"linted": 0, "total": 1},
    )
    analyses.run()
    document = status(context, (), analyses)
    assert [(each["kind"], each["severity"], each["message"]) for each in document["problems"]] == [
        (kind, severity, f'The policy "games" served from port 8430 has {words}') for kind, severity, words in expected
    ]
    assert document["policies"] == {"linted": 1, "total": 1}


def test_warning_of_what_an_application_may_do_is_no_problem() -> None:
    """Every policy of grants has FP710 on port 843, and whether the application stays silent is not known here."""
    listener = dataclasses.replace(LISTENER, reply=PLAIN, port=843, served_from=843)
    analyses = AnalysisCache([listener])
    analyses.run()
    assert "FP710" in [finding.code for finding in lint(PLAIN, served_from=843)]
    assert status(make_context([listener]), (), analyses)["problems"] == []


def test_page_before_all_policies_are_linted_does_not_promise_that_all_is_well() -> None:
    shown = Page(get(Application(make_context()), "/-/live")[2])
    assert "All is well so far" in shown.text
    assert "1 of 1 policies are still being checked." in shown.text


def test_problems_are_listed_errors_first() -> None:
    context = dataclasses.replace(make_context(), workers_are_root=True)
    context.shared.process(0).loop_lag_ns = 2_000_000_000
    context.shared.process(1).up = 0
    assert [kind for kind, *_ in problems(context)] == ["worker-down", "worker-late", "root"]


def test_page_with_many_problems_shows_the_first_of_them() -> None:
    context = make_context(slots=50)
    for slot in range(50):
        context.shared.process(slot).up = 0
    shown = page(context)
    assert "Needs attention: 50" in shown.text
    assert shown.text.count("does not accept connections") == 20
    assert "and 30 more" in shown.text


def test_status_after_linting_failed_leaves_that_policy_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[object]:
        raise MemoryError

    monkeypatch.setattr("flashpol.admin.policy_analysis.lint", fail)
    context = make_context([LISTENER])
    analyses = AnalysisCache(context.listeners)
    with pytest.raises(MemoryError):
        analyses.run()
    assert status(context, (), analyses)["policies"] == {"linted": 0, "total": 1}


def test_findings_about_websocket_paths_are_problems() -> None:
    context = dataclasses.replace(make_context(), websocket_findings=[("master", "the path is refused")])
    assert problems(context) == [("websocket", "warning", "Listener master: the path is refused.")]
