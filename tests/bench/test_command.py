"""`python -m bench` from end to end on what is short: reports are written, compared, and nothing is left behind."""

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


def test_a_run_writes_its_report_and_is_compared(tmp_path: Path) -> None:
    ran = bench("sizes", "--quick", "--out", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "flashpol / C epoll at 128 bytes" in ran.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"flashpol", "C epoll"} <= set(report["charts"]["sizes"])
    assert report["machine"]["cores"] >= 1
    assert "## sizes" in (tmp_path / "report.md").read_text()
    same = bench("compare", str(tmp_path / "report.json"), str(tmp_path / "report.json"))
    assert (same.returncode, "0 worse" in same.stdout) == (0, True)


def test_a_scenario_that_is_given_up_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(settings: Settings, results: Results) -> None:
        raise BenchError("nginx did not say its port")

    def well(settings: Settings, results: Results) -> None:
        results.add_spread("well", "cost", "ns", [1.0], digits=0)

    monkeypatch.setattr(command, "SCENARIOS", {"broken": broken, "well": well})
    monkeypatch.setattr(command.isolation, "isolate", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench", "all", "--quick"])
    assert command.main() == 2
    said = capsys.readouterr()
    assert "bench: broken: nginx did not say its port" in said.err
    assert "broken was given up" in said.out
    assert "cost" in said.out


@pytest.mark.parametrize(
    "words", [("speed",), ("cpu", "--rounds", "0"), ("compare", "no.json", "no.json")], ids=["name", "rounds", "file"]
)
def test_mistakes_end_in_one_line_and_status_2(words: tuple[str, ...]) -> None:
    ran = bench(*words)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")
def test_a_loopback_of_its_own() -> None:
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
        pytest.skip("this container may make no namespace")
    assert (ran.returncode, ran.stdout.strip()) == (0, "3"), ran.stderr  # two lines of head, and lo
