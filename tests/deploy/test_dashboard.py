"""The Grafana dashboard as a document: every panel has a unit and an explanation, and every metric has a panel."""

import re
from itertools import combinations, pairwise
from typing import Any

import pytest

from flashpol._fastpath import REASONS
from flashpol.admin.context import AdminContext
from flashpol.admin.metrics import FlashpolCollector
from flashpol.admin.problem_kinds import REFUSALS_TO_REPORT
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from testkit.monitoring import ANNOTATIONS, DASHBOARD, PANELS, ROWS, VARIABLES, Query, in_dashboard

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTED = '{job=~"$job", instance=~"$instance"'  # the beginning of every selector in a panel
CONTEXT = AdminContext(ServerStatus(), CounterTotals(), SharedCounters(1, 1), [])
FAMILIES = [family.name for family in FlashpolCollector(CONTEXT).describe()]

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


@each_panel
def test_panel_has_a_title_a_description_and_a_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_panel_queries_the_selected_data_source(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == DATASOURCE
    assert all(target.get("datasource", DATASOURCE) == DATASOURCE for target in panel["targets"])
    names = [target["refId"] for target in panel["targets"]]
    assert names
    assert len(set(names)) == len(names)


def test_variables_and_annotations_query_the_selected_data_source() -> None:
    asking = [variable for variable in VARIABLES.values() if variable["type"] == "query"] + ANNOTATIONS
    assert len(asking) >= 5
    assert all(it["datasource"] == DATASOURCE for it in asking)


def test_variables_are_used_only_after_their_definition_and_all_are_used() -> None:
    assert list(VARIABLES) == ["datasource", "job", "instance", "listener"]
    known: set[str] = set()
    for variable in VARIABLES.values():
        assert set(re.findall(r"\$(\w+)", str(variable.get("query")))) <= known
        known.add(variable["name"])
    used = {name for _, text in in_dashboard() for name in re.findall(r"\$(\w+)", text)}
    assert used == known - {"datasource"} | {"__rate_interval"}


@pytest.mark.parametrize(
    "query", [q for q in in_dashboard() if not q.where.startswith("variable")], ids=lambda query: query.where
)
def test_query_is_restricted_to_the_selected_hosts(query: Query) -> None:
    selectors = re.findall(r"(flashpol_\w+|ALERTS)(\{[^}]*)?", query.text)
    assert selectors
    for name, labels in selectors:
        assert labels.startswith(SELECTED) or name == "ALERTS"  # an alert without targets is of no host


@pytest.mark.parametrize("family", FAMILIES)
def test_metric_is_on_the_dashboard(family: str) -> None:
    assert any(re.search(rf"{family}(_total|_bucket)?\{{", query.text) for query in in_dashboard())


def test_panels_do_not_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    for title, place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


def test_panel_ids_and_titles_are_unique_and_every_row_has_panels() -> None:
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(set(values)) == len(values), key
    kinds = [panel["type"] for panel in DASHBOARD["panels"]]
    assert kinds[0] == "row"
    assert kinds[-1] != "row"
    assert ("row", "row") not in list(pairwise(kinds))
    assert [row["gridPos"]["y"] for row in ROWS] == sorted(row["gridPos"]["y"] for row in ROWS)


def test_dashboard_expressions_name_only_reasons_that_exist() -> None:
    patterns = [each for query in in_dashboard() for each in re.findall(r'reason=~"([^"]+)"', query.text)]
    assert patterns
    for part in (part for pattern in patterns for part in pattern.split("|")):
        assert any(re.fullmatch(part, reason) for reason in REASONS), part


def test_turned_away_panel_counts_every_refusal_that_should_be_0() -> None:
    [panel] = [panel for panel in PANELS if panel["title"] == "Turned away"]
    [pattern] = re.findall(r'reason=~"([^"]+)"', panel["targets"][0]["expr"])
    assert {reason for reason in REASONS if re.fullmatch(pattern, reason)} == {
        *(reason for reason, refusals in REFUSALS_TO_REPORT.items() if not refusals.share), "shutdown"
    }  # fmt: skip
