"""The reference page compared with the code: every setting, flag, event and metric, with defaults and labels."""

import argparse
import dataclasses
import os
import re
from pathlib import Path

import pytest

from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.metrics import FlashpolCollector
from flashpol.cli import main
from flashpol.config import (
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    ProtocolUpstreams,
    Server,
    WebSocketPath,
    describe,
    settings_of,
)
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import ServerStatus
from flashpol.counters.totals import CounterTotals
from flashpol.serving.certificates import CertificateFacts

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
OWNERS = (Server, ConnectionTimeouts, ConnectionLimits, PolicySource, Listener, WebSocketPath, ProtocolUpstreams)
SETTINGS = [f for owner in OWNERS for f in settings_of(owner).values()]


def families() -> dict[str, tuple[str, set[str]]]:
    """Metric name as scraped -> (type, label names)."""
    shared, tunnels = SharedCounters(1, 1, upstreams=1, paths=1, tunnels=1), ["a"]
    routes, paths = [("a", "127.0.0.1:7000")], [("a", "/chess")]
    shared.process(0).pid = os.getpid()  # a process that exists, so that its usage is reported
    shared.process(0).started_ms = 1
    totals = CounterTotals()
    totals.open(["a"], shared, routes, paths, tunnels)
    listeners = [ListenerInfo("a", b"reply\0", certificates=("games",))]
    certificates = [CertificateFacts("games", (), 0, 1, "RSA 2048", "01", "f")]
    collector = FlashpolCollector(
        AdminContext(ServerStatus(), totals, shared, listeners, routes, paths, tunnels, certificates=certificates)
    )
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in collector.collect()
    }


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda f: f.name)
def test_every_setting_is_documented_with_its_default_and_reason(setting: dataclasses.Field) -> None:
    text = " ".join(REFERENCE.split())
    item = re.search(rf"- \*\*`{setting.name}`\*\* \((.*?)\): {re.escape(describe(setting))} Write ", text)
    assert item, setting.name
    if isinstance(setting.default, int | float) and not isinstance(setting.default, bool) and setting.default:
        assert item[1] == f"default `{setting.default}`"


def test_metrics_table_is_complete() -> None:
    section = REFERENCE.split("## Metrics\n")[1].split("\n## ")[0]
    documented = {
        name: (kind, set(filter(None, (labels or "").split(","))))
        for name, labels, kind in re.findall(r"^\| `(flashpol_\w+)(?:\{(.+?)\})?` \| (\w+) \|", section, re.MULTILINE)
    }
    assert documented == families()


def test_every_event_of_the_log_is_documented() -> None:
    section = REFERENCE.split("## Logs\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \| (?:INFO|WARNING|ERROR)", section, re.MULTILINE)
    sources = [path.read_text() for path in (ROOT / "flashpol").rglob("*.py")]
    assert set(documented) == {event for text in sources for event in re.findall(r'"event": "([a-z-]+)"', text)}
    assert len(documented) == len(set(documented))


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_flag_is_documented(command: str) -> None:
    parser = argparse.ArgumentParser()
    main.command(command).add_to(parser.add_subparsers())
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    [(name, subparser)] = commands.choices.items()
    flags = {flag for action in subparser._actions for flag in action.option_strings} - {"-h", "--help"}
    section = REFERENCE.split(f"## flashpol {name}\n")[1].split("\n## ")[0]
    rows = "\n".join(re.findall(r"^\| `-.*?` \|", section, re.MULTILINE))
    assert flags == set(re.findall(r"(?<![\w-])--?[a-z-]+", rows))


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md", "docs/reference.md"])
def test_page_has_no_placeholder_left(page: str) -> None:
    text = (Path(__file__).parent.parent / page).read_text()
    assert not re.findall(r"^[A-Z]{5,}$", text, re.MULTILINE)
