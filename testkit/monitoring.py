"""The rules and panels of deploy/ for Prometheus and Grafana, as values, and every query in them."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from testkit.processes import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS, RECORDING, SCRAPE = (PROMETHEUS / f"{name}.yml" for name in ("alerts", "recording", "scrape"))
ALERTS_TEST = ROOT / "tests" / "deploy" / "alerts_test.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "flashpol.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
ANNOTATIONS = [annotation for annotation in DASHBOARD["annotations"]["list"] if not annotation.get("builtIn")]

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Prometheus is not installed"
)

# "> 0.25", but neither the "!=" of a label nor a number that is no threshold.
_THRESHOLD = re.compile(r"\s*(?:==|>=|<=|>|<)\s*[0-9.]+")


class Query(NamedTuple):
    where: str
    text: str


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in load(path)["groups"] for rule in group["rules"]]


def in_dashboard() -> Iterator[Query]:
    """The queries as the dashboard has them, with Grafana's variables."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield Query(f"panel {panel['title']}, {target['refId']}", target["expr"])
    for annotation in ANNOTATIONS:
        yield Query(f"annotation {annotation['name']}", annotation["expr"])
    for variable in VARIABLES.values():
        if variable["type"] == "query":
            yield Query(f"variable {variable['name']}", variable["query"]["query"])


def _sent(text: str) -> str:
    """A query of the dashboard as Grafana sends it when every variable selects all."""
    text = re.sub(r"label_values\((.+), (\w+)\)", r"group by (\2) (\1)", text)
    text = text.replace("$__rate_interval", "30s")
    return re.sub(r"\$(\w+)", lambda match: str(VARIABLES[match[1]]["allValue"]), text)


def all_queries() -> Iterator[Query]:
    """All queries, ready for Prometheus; those of alerts without thresholds, so that they return what they compare."""
    for where, text in in_dashboard():
        yield Query(where, _sent(text))
    for rule in rules(RECORDING):
        yield Query(f"recording {rule['record']}", rule["expr"])
    for rule in rules(ALERTS):
        yield Query(f"alert {rule['alert']}", _THRESHOLD.sub("", rule["expr"]))
