"""`python -m bench` from end to end on a short scenario: reports are written and compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import BenchError, servers
from bench import __main__ as command
from bench.report import Results
from bench.settings import Settings


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=servers.ROOT)


@pytest.mark.slow
def test_bench_command_quick_run_writes_a_report_that_compares_equal_to_itself(tmp_path: Path) -> None:
    ran = bench("sizes", "--quick", "--out", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "flashpol / C epoll at 128 bytes" in ran.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"flashpol", "C epoll"} <= set(report["charts"]["sizes"])
    assert report["machine"]["cores"] >= 1
    assert "## sizes" in (tmp_path / "report.md").read_text()
    same = bench("compare", str(tmp_path / "report.json"), str(tmp_path / "report.json"))
    assert (same.returncode, "0 worse" in same.stdout) == (0, True)


def test_bench_command_after_a_failed_scenario_runs_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: Settings, results: Results) -> None:
        raise BenchError("nginx did not print its port")

    def working(settings: Settings, results: Results) -> None:
        results.add_spread("working", "cost", "ns", [1.0], digits=0)

    monkeypatch.setattr(command, "SCENARIOS", {"broken": broken, "working": working})
    monkeypatch.setattr(command.isolation, "isolate", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench", "all", "--quick"])
    assert command.main() == 2
    captured = capsys.readouterr()
    assert "bench: broken: nginx did not print its port" in captured.err
    assert "broken failed: nginx" in captured.out
    assert "cost" in captured.out


@pytest.mark.parametrize(
    "words", [("speed",), ("cpu", "--rounds", "0"), ("compare", "no.json", "no.json")], ids=["name", "rounds", "file"]
)
def test_bench_command_with_a_mistake_exits_2_without_a_traceback(words: tuple[str, ...]) -> None:
    ran = bench(*words)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")
def test_isolate_as_root_makes_a_namespace_with_only_loopback() -> None:
    program = (
        "import socket; from bench import isolation\n"
        "missing = isolation.isolate()\n"
        "assert missing is None or 'accept queues' in missing, missing\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname(), timeout=2).close()\n"
        "print(len(open('/proc/net/dev').readlines()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30, cwd=servers.ROOT
    )
    if "Operation not permitted" in ran.stderr:
        pytest.skip("this container may not create a namespace")
    assert (ran.returncode, ran.stdout.strip()) == (0, "3"), ran.stderr  # two lines of head, and lo
