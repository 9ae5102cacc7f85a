"""Alerts and recording rules: promtool accepts them, each fires when it should and only then, and says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flashpol._fastpath import HANDSHAKE_FAILURES, REASONS
from flashpol._pump import FAILURES
from testkit.monitoring import ALERTS, ALERTS_TEST, RECORDING, SCRAPE, load, needs_prometheus, rules
from testkit.processes import ROOT

RULES = rules(ALERTS)
CASES = [case for test in load(ALERTS_TEST)["tests"] for case in test["promql_expr_test"]]

each_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def cases(alert: str) -> list[dict[str, Any]]:
    return [case for case in CASES if f'alertname="{alert}"' in case["expr"]]


def anchors(page: str) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@needs_prometheus
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", ALERTS, RECORDING), ("check", "config", SCRAPE), ("test", "rules", ALERTS_TEST)],
    ids=["rules", "configuration", "alerts"],
)
def test_promtool_accepts_rules_configuration_and_alert_tests(arguments: tuple[str | Path, ...]) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert not re.search("fail|warn|error", done.stdout + done.stderr, re.IGNORECASE)


@each_alert
def test_alert_has_a_case_that_fires_and_one_that_does_not(rule: dict[str, Any]) -> None:
    assert {bool(case["exp_samples"]) for case in cases(rule["alert"])} == {True, False}


@each_alert
def test_alert_that_fires_has_its_severity_and_the_labels_in_its_text(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    for case in cases(rule["alert"]):
        for sample in case["exp_samples"]:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
            assert labels["severity"] == rule["labels"]["severity"]
            assert named <= labels.keys()


@each_alert
def test_alert_has_a_severity_a_duration_texts_and_a_runbook_section(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert len(rule["annotations"]["summary"]) < 120
    assert len(rule["annotations"]["description"]) > 100
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(page)
    assert re.search(rf"\b{rule['alert']}\b", (ROOT / page).read_text())


def test_alert_expressions_name_only_reasons_that_exist() -> None:
    """A reason that was renamed would silence its alert."""
    known = {
        "flashpol_refused_total": REASONS,
        "flashpol_relay_connect_failures_total": FAILURES,
        "flashpol_tls_handshake_failures_total": HANDSHAKE_FAILURES,
    }
    selector = re.compile(r'(flashpol_\w+)\{reason(=~?)"([^"]+)"')
    matchers = [each for rule in RULES for each in selector.findall(rule["expr"])]
    assert matchers
    for metric, operator, pattern in matchers:
        for part in pattern.split("|") if operator == "=~" else [pattern]:
            assert any(re.fullmatch(part, reason) for reason in known[metric]), part


def test_alert_and_record_names_are_unique() -> None:
    names = [rule["alert"] for rule in RULES] + [rule["record"] for rule in rules(RECORDING)]
    assert len(set(names)) == len(names) >= 20
