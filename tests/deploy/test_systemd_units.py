"""The systemd units: systemd's own judgement of them, and what has to agree with the server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flashpol.config import Server, SystemdSocket, load
from flashpol.process.limits import MAX_FILES
from flashpol.supervisor.generation import KILL_AFTER
from flashpol.supervisor.reload import MAX_DRAINING
from testkit.polling import DEADLINE
from testkit.processes import ROOT

FOLDER = ROOT / "deploy" / "systemd"
UNITS = ("flashpol.service", "flashpol.socket", "flashpol-admin.socket")
ACTIVATED = ("socket-activation.conf",)
TLS = ("tls.conf",)
CLIENTS = ("client-address.conf",)
MAX_EXPOSURE = 16  # tenths; 2 of them for setpriority, which the admin process calls
BIN = os.path.dirname(os.path.abspath(sys.executable))  # where the tests' own flashpol is; systemd takes no ".." in it

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze: apt-get install systemd"
)


def settings(name: str) -> dict[str, list[str]]:
    """Key -> values of a unit file, in their order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(
    params=[(), ACTIVATED, TLS, ACTIVATED + TLS, CLIENTS], ids=["by itself", "activated", "TLS", "both", "clients"]
)
def units(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The units as they are installed, but for where flashpol is; with these drop-ins."""
    for name in UNITS:
        text = (FOLDER / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/flashpol/bin/", f"{BIN}/"))
    drop_ins = tmp_path / "flashpol.service.d"
    drop_ins.mkdir()
    for name in request.param:
        shutil.copy(FOLDER / name, drop_ins)
    return tmp_path


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=folder, capture_output=True, text=True, timeout=4 * DEADLINE, check=False
    )


@needs_systemd
def test_systemd_analyze_verify_reports_nothing(units: Path) -> None:
    done = analyze("verify", "--man=no", *(f"./{name}" for name in UNITS), folder=units)
    # Only what concerns these files: a host may have units of its own that are wrong.
    said = [line for line in (done.stdout + done.stderr).splitlines() if "flashpol" in line]
    assert said == []


@needs_systemd
def test_systemd_analyze_security_stays_below_the_threshold(units: Path) -> None:
    threshold = MAX_EXPOSURE + (units / "flashpol.service.d" / "tls.conf").exists()  # for its group
    done = analyze(
        "security", "--offline=true", f"--threshold={threshold}", "--no-pager", "./flashpol.service", folder=units
    )
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_service_allows_the_system_calls_that_children_make_at_their_start() -> None:
    """They are in @resources and @privileged, which the service denies."""
    allowed = " ".join(value for value in settings("flashpol.service")["SystemCallFilter"] if value[0] != "~").split()
    assert {"capset", "setpriority"} <= set(allowed)


def test_service_time_to_stop_exceeds_the_servers() -> None:
    service = settings("flashpol.service")
    # A generation that finishes, then those that are left, then the admin process.
    assert float(service["TimeoutStopSec"][0]) > Server().shutdown_timeout + 3 * KILL_AFTER
    assert service["KillMode"] == ["mixed"]


def test_service_limits_are_what_the_server_can_use() -> None:
    service = settings("flashpol.service")
    assert int(service["LimitNOFILE"][0]) <= MAX_FILES
    processes = 64 + 1  # on a large host
    generations = MAX_DRAINING + 2
    assert int(service["TasksMax"][0]) > generations * processes


def test_socket_units_have_the_names_in_the_example_configuration(tmp_path: Path) -> None:
    text = (FOLDER / "flashpol.toml").read_text()
    changed = re.sub(r'= "[^"]+"( +# with \S+socket: )("systemd:\w+")', r"= \2\1", text)
    shutil.copy(ROOT / "examples" / "policy.xml", tmp_path / "policy.xml")
    (tmp_path / "flashpol.toml").write_text(changed)
    config = load(tmp_path / "flashpol.toml")
    sockets = [settings(name)["FileDescriptorName"][0] for name in UNITS[1:]]
    assert [config.listeners[0].address, config.server.admin] == [SystemdSocket(name) for name in sockets]


def test_service_starts_the_example_configuration() -> None:
    [start] = settings("flashpol.service")["ExecStart"]
    assert start == "/opt/flashpol/bin/flashpol serve -c /etc/flashpol/flashpol.toml"
    config = load(FOLDER / "flashpol.toml")
    assert [str(listener.address) for listener in config.listeners] == ["[::]:843"]


def test_activation_drop_in_takes_all_rights_away() -> None:
    drop_in = settings("socket-activation.conf")
    assert drop_in["CapabilityBoundingSet"] == drop_in["AmbientCapabilities"] == [""]
    assert drop_in["PrivateNetwork"] == drop_in["PrivateUsers"] == ["yes"]
