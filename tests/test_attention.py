"""What needs an operator's attention is said everywhere alike: page and /-/status, log, alerts, dashboard.

One row for each kind of problem. A reason, an alert or an event that is added elsewhere has to be added here too.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flashpol._fastpath import REASONS
from flashpol._pump import FAILURES
from flashpol.admin.problem_kinds import (
    CONFIGURATION_KINDS,
    KINDS,
    REFUSALS_AS_MEANT,
    REFUSALS_ELSEWHERE,
    REFUSALS_TO_REPORT,
)
from flashpol.admin.problems import OWN_FAILURES, UPSTREAM_FAILURES
from testkit.monitoring import ALERTS, PANELS, rules

REFERENCE = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
RULES = {rule["alert"]: rule for rule in rules(ALERTS)}
EXPRESSIONS = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in PANELS}


class Row(NamedTuple):
    """Of one kind of problem: the metric that has it, and where it is said.

    events: of the log. alerts: of Prometheus. panels: of the dashboard. because: why one of them has nothing.
    """

    metric: str
    events: tuple[str, ...]
    alerts: tuple[str, ...]
    panels: tuple[str, ...]
    because: str = ""


def refused(events: tuple[str, ...], alert: str, panel: str = "Turned away", because: str = "") -> Row:
    return Row("flashpol_refused_total", events, (alert,), (panel,), because)


CAPACITY = refused(("refusing",), "FlashpolCapacityRefusals")
PROXY = refused(("refusing",), "FlashpolProxyRefusals", "Refused by reason")
CONFIGURATION = "flashpol_configuration_problems"
HANDSHAKE_FAILURES = "flashpol_tls_handshake_failures_total"
NOT_AFTER = "flashpol_tls_certificate_not_after_timestamp_seconds"
UPGRADES = "flashpol_websocket_upgrades_total"
ROWS = {
    "reload": Row(
        "flashpol_config_last_reload_successful", ("not-reloaded",), ("FlashpolReloadFailed",), ("Configuration",)
    ),
    "worker-down": Row(
        "flashpol_worker_up",
        ("process-ended", "process-not-started"),
        ("FlashpolWorkerDown", "FlashpolNoWorkers"),
        ("Workers down", "Workers that serve"),
    ),
    "worker-stalled": Row(
        "flashpol_loop_lag_seconds", ("not-serving", "stalled"), ("FlashpolWorkerStalled",), ("Loop lag",)
    ),
    "worker-late": Row(
        "flashpol_loop_lag_seconds", (), ("FlashpolWorkerStalled",), ("Loop lag",), "logged once it counts as stalled"
    ),
    "worker-restarted": Row(
        "flashpol_worker_restarts_total", ("process-ended",), ("FlashpolWorkerFlapping",), ("Workers replaced",)
    ),
    "files": Row(
        "flashpol_worker_open_files", (), ("FlashpolFilesNearLimit",), ("Descriptors, share in use",),
        "a level, which is logged once it is reached",
    ),
    "accept-queue": Row(
        "flashpol_accept_queue_length", (), ("FlashpolAcceptQueueFilling", "FlashpolAcceptQueueFull"),
        ("Accept queue", "Accept queue, share in use"), "a level, which rises and falls within seconds",
    ),
    "accept-errors": Row(
        "flashpol_accept_errors_total", ("exhausted",), ("FlashpolAcceptErrors",),
        ("Failed accepts, untracked addresses",),
    ),
    "refused-capacity": CAPACITY,
    "refused-max_connections": CAPACITY,
    "refused-max_sessions": CAPACITY,
    "refused-max_slow_replies": CAPACITY,
    "refused-max_handshakes": CAPACITY,
    "refused-upstream": refused(("backend-down", "upstream-unknown", "rtmpt-refused"), "FlashpolUpstreamRefusals"),
    "refused-crashed": refused(("process-ended",), "FlashpolWorkerCrashed"),
    "refused-max_address_connections": refused(("refusing",), "FlashpolAddressRefusals"),
    "refused-max_address_sessions": refused(("refusing",), "FlashpolAddressRefusals"),
    "refused-max_address_rate": refused(("refusing",), "FlashpolAddressRateRefusals"),
    "refused-proxy_untrusted": PROXY,
    "refused-proxy_malformed": PROXY,
    "refused-proxy_oversized": PROXY,
    "upstream": Row(
        "flashpol_relay_connect_failures_total", ("backend-down", "upstream-unknown"), ("FlashpolUpstreamDown",),
        ("Failed connections to upstreams",),
    ),
    "connecting": refused(
        (), "FlashpolUpstreamRefusals", because="refused for want of an upstream, and the log says which one is down"
    ),
    "ports": refused(("ports-exhausted",), "FlashpolUpstreamRefusals"),
    "ports-low": Row(
        "flashpol_relay_local_ports", ("ports-low",), ("FlashpolLocalPortsLow",), ("Local ports",)
    ),
    "certificate-expired": Row(
        NOT_AFTER, ("certificate-expired",), ("FlashpolCertificateUrgent",), ("Time until certificates expire",)
    ),
    "certificate-expiring": Row(
        NOT_AFTER, ("certificate-warning",), ("FlashpolCertificateExpiring", "FlashpolCertificateUrgent"),
        ("Time until certificates expire",),
    ),
    "tls-handshakes": Row(
        HANDSHAKE_FAILURES, ("refusing",), ("FlashpolTlsHandshakeFailures",),
        ("Failed TLS handshakes", "Share of TLS handshakes that failed"),
    ),
    "tls-old-clients": Row(
        HANDSHAKE_FAILURES, ("tls-old-clients",), ("FlashpolTlsOldClients",), ("Failed TLS handshakes",)
    ),
    "tls-unknown-names": Row(
        "flashpol_tls_unknown_names_total", (), (), ("Resumed, unknown names, truncated",),
        "scanners ask for any name; good clients reject the certificate, which is a failed handshake",
    ),
    "websocket-upstream": Row(
        UPGRADES, ("backend-down", "upstream-unknown"), ("FlashpolWebSocketUpstream",),
        ("WebSocket upgrades by result",),
    ),
    "websocket-origin": Row(
        UPGRADES, ("origin-refused",), ("FlashpolWebSocketOrigins",),
        ("Upgrades refused for their origin", "WebSocket upgrades by result"),
    ),
    "websocket-no-upgrade": Row(
        UPGRADES, ("upgrade-refused",), ("FlashpolWebSocketHandshakes",), ("WebSocket upgrades by result",)
    ),
    "websocket-malformed": Row(
        UPGRADES, ("upgrade-refused",), ("FlashpolWebSocketHandshakes",), ("WebSocket upgrades by result",)
    ),
    "websocket-pings": Row(
        "flashpol_websocket_ping_timeouts_total", (), ("FlashpolWebSocketPings",),
        ("Share of WebSocket sessions lost to silence",), "clients that vanish would fill the log",
    ),
    "rtmpt-forwarding": Row(
        "flashpol_rtmpt_forward_failures_total", ("rtmpt-forward-failed",), ("FlashpolRtmptForwardFailures",),
        ("Irregular RTMPT requests",),
    ),
    "rtmpt-ghosts": Row(
        "flashpol_rtmpt_ends_total", (), ("FlashpolRtmptGhosts",),
        ("Share of tunnel sessions that are ghosts", "How tunnel sessions begin and end"),
        "some are usual: rtmpt-ghosts in the log is no warning",
    ),
    "rtmpt-unknown": Row(
        "flashpol_rtmpt_unknown_sessions_total", (), ("FlashpolRtmptUnknownSessions",), ("Irregular RTMPT requests",),
        "guessed ids would fill the log; access_log has each connection",
    ),
    "timeouts": Row(
        "flashpol_timeouts_total", (), ("FlashpolTimeouts",), ("Timed out and left",),
        "silent clients would fill the log; access_log has each connection",
    ),
    "slow": Row(
        "flashpol_request_duration_seconds_bucket", (), ("FlashpolSlow",), ("p99", "Quantiles"),
        "a figure; access_log has each connection",
    ),
    "policy": Row(
        CONFIGURATION, ("policy-warning",), ("FlashpolPolicyProblems",), ("Problems of the configuration",)
    ),
    "certificate": Row(
        CONFIGURATION, ("certificate-warning",), ("FlashpolCertificateProblems",), ("Problems of the configuration",)
    ),
    "websocket": Row(
        CONFIGURATION, ("websocket-warning",), (), ("Problems of the configuration",),
        "a path that is open to every page may be meant, and one that refuses all is seen by its refusals",
    ),
    "admin-exposed": Row(
        CONFIGURATION, ("admin-exposed",), (), ("Problems of the configuration",),
        "Prometheus reaches the endpoint from another host, and in a container it has to",
    ),
    "root": Row(CONFIGURATION, ("root",), ("FlashpolWorkersAreRoot",), ("Problems of the configuration",)),
}  # fmt: skip

# What no page and no status can say, or what is as meant.
OTHER_ALERTS = {
    "FlashpolDown": "there is no page",
    "FlashpolNotScraped": "there is no Prometheus that asks this server",
    "FlashpolPoliciesDiffer": "of several hosts",
    "FlashpolStrangers": "other protocols, which are refused as meant",
}
OTHER_EVENTS = {
    "pid-file-not-written": "of a start that succeeds otherwise",
    "load-failed": "not-reloaded follows",
    "arbiter-failed": "the server ends",
    "giving-up": "the server ends",
    "cut-off": "the server ends",
    "process-failed": "process-ended follows",
    "out-of-memory": "process-ended follows",
    "task-failed": "a bug, or no memory, of one task of the arbiter, which is tried again",
    "metrics-unavailable": "there is no page",
    "files-unreadable": "of files that are checked again; what was loaded from them is served",
    "drain-ignored": "of an old worker, which is killed",
    "line-not-made": "it is tried again; requests that need the line count as rtmpt-unknown",
    "lines-missing": "as above, and files, which comes before",
    "socket-spoilt": "of a socket that is replaced at once",
    "log-not-reopened": "the log goes on in the open file",
    "left-behind": "of a process that does not serve any more",
    "control-failed": "process-ended follows",
    "client-address-unused": "of a session that is relayed, from an address of this host",
    "session-failed": "a bug that ended one connection",
    "hook-failed": "a bug that ended one connection",
    "hub-error": "a bug that ended one greenlet",
}
# Of the attempts to connect to an upstream. A session that none of them takes is refused for `upstream`.
OTHER_FAILURES = {
    "resources": "refused-upstream, and exhausted in the log",
    "rate": "refused-upstream: connect_rate is meant to hold clients up",
    "cut": "the worker ends",
}


def table(header: str) -> list[list[str]]:
    """The cells of the table of the reference whose header row begins like this."""
    rows = REFERENCE.split(f"\n| {header} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


EVENTS = {name: level for cell, level, *_ in table("event") for name in re.findall(r"`([a-z-]+)`", cell)}

each_row = pytest.mark.parametrize(("kind", "row"), ROWS.items(), ids=ROWS)


def test_attention_table_has_every_kind_of_problem() -> None:
    assert set(ROWS) == set(KINDS)
    assert set(CONFIGURATION_KINDS) == {kind for kind, row in ROWS.items() if row.metric == CONFIGURATION}


def test_refusal_of_every_reason_is_a_problem_or_as_meant() -> None:
    assert sorted((*REFUSALS_TO_REPORT, *REFUSALS_AS_MEANT, *REFUSALS_ELSEWHERE)) == sorted(REASONS)


def test_failure_to_connect_of_every_reason_is_a_problem_or_the_table_says_why_not() -> None:
    assert sorted((*UPSTREAM_FAILURES, *OWN_FAILURES, *OTHER_FAILURES)) == sorted(FAILURES)


@each_row
def test_problem_is_in_log_alerts_and_dashboard_or_the_table_says_why_not(kind: str, row: Row) -> None:
    assert bool(row.because) is not all((row.events, row.alerts, row.panels)), kind
    assert row.panels
    assert set(row.events) <= set(EVENTS)
    assert {EVENTS[event].split(",")[0] for event in row.events} <= {"ERROR", "WARNING"}


@each_row
def test_problem_has_alerts_and_panels_that_query_its_metric(kind: str, row: Row) -> None:
    for alert in row.alerts:
        assert row.metric in RULES[alert]["expr"]
    for panel in row.panels:
        assert any(row.metric in expression for expression in EXPRESSIONS[panel]), panel
    if kind in CONFIGURATION_KINDS:
        assert not row.alerts or f'kind="{kind}"' in RULES[row.alerts[0]]["expr"]


def selects(expression: str, reason: str) -> bool:
    """True if a query of refusals counts those of this reason."""
    found = re.findall(r"flashpol_refused_total(?:\{([^}]*)\})?", expression)
    patterns = [re.search(r'reason=~?"([^"]+)"', labels) for labels in found]
    return any(pattern is None or re.fullmatch(pattern[1], reason) for pattern in patterns)


@pytest.mark.parametrize("reason", REFUSALS_TO_REPORT)
def test_refusal_that_is_a_problem_is_counted_by_its_alert_and_its_panel(reason: str) -> None:
    row = ROWS[f"refused-{reason}"]
    for expression in [RULES[alert]["expr"] for alert in row.alerts] + [e for p in row.panels for e in EXPRESSIONS[p]]:
        assert selects(expression, reason), expression


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_alert_is_of_a_problem_or_the_table_says_why_not(rule: dict[str, Any]) -> None:
    of_problems = {alert for row in ROWS.values() for alert in row.alerts}
    assert (rule["alert"] in of_problems) is not (rule["alert"] in OTHER_ALERTS)


@pytest.mark.parametrize("event", [event for event, level in EVENTS.items() if level[:4] != "INFO"])
def test_event_above_info_is_of_a_problem_or_the_table_says_why_not(event: str) -> None:
    of_problems = {event for row in ROWS.values() for event in row.events}
    assert (event in of_problems) is not (event in OTHER_EVENTS)


def test_reference_has_every_kind_of_problem_with_its_severities() -> None:
    documented: dict[str, set[str]] = {}
    for cell, severity, meaning in table("`kind` of a problem"):
        reasons = re.findall(r"`(\w+)`", meaning)
        for name in re.findall(r"`([\w-]+)`", cell):
            kinds = [f"refused-{reason}" for reason in reasons] if name == "refused-REASON" else [name]
            for kind in kinds:
                documented.setdefault(kind, set()).update(severity.split(", "))
    assert documented == {kind: set(severities) for kind, severities in KINDS.items()}
