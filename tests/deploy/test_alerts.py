"""Alerts and recording rules: promtool is content, each alert fires and does not fire, and says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testkit.monitoring import ALERTS, ALERTS_TEST, RECORDING, SCRAPE, load, needs_prometheus, rules
from testkit.processes import ROOT

RULES = rules(ALERTS)
CASES = [case for test in load(ALERTS_TEST)["tests"] for case in test["promql_expr_test"]]

each_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def cases(alert: str) -> list[dict[str, Any]]:
    return [case for case in CASES if f'alertname="{alert}"' in case["expr"]]


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", ALERTS, RECORDING), ("check", "config", SCRAPE), ("test", "rules", ALERTS_TEST)],
    ids=["rules", "configuration", "alerts fire, and do not"],
)
def test_promtool_is_content(arguments: tuple[str | Path, ...]) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert not re.search("fail|warn|error", done.stdout + done.stderr, re.IGNORECASE)


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(rule: dict[str, Any]) -> None:
    assert {bool(case["exp_samples"]) for case in cases(rule["alert"])} == {True, False}


@each_alert
def test_what_fires_carries_the_severity_and_the_labels_that_its_words_name(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    for case in cases(rule["alert"]):
        for sample in case["exp_samples"]:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
            assert labels["severity"] == rule["labels"]["severity"]
            assert named <= labels.keys()


@each_alert
def test_an_alert_says_how_bad_it_is_since_when_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["for"]
    assert len(rule["annotations"]["summary"]) < 120
    assert len(rule["annotations"]["description"]) > 100
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(page)
    assert re.search(rf"\b{rule['alert']}\b", (ROOT / page).read_text())


def test_names_are_unique() -> None:
    names = [rule["alert"] for rule in RULES] + [rule["record"] for rule in rules(RECORDING)]
    assert len(set(names)) == len(names) >= 20
