"""The Dockerfile, without Docker: hadolint, the files it copies, its steps run here, and its health check."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flashpol.config import load
from testkit.polling import DEADLINE, eventually
from testkit.processes import PATIENT, POLICY, ROOT, Flashpol

FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
BUILD_TIME = 600.0  # seconds; a compiler is at work


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def as_list(text: str) -> list[str]:
    """The exec form, which needs no shell."""
    words = json.loads(text[text.index("[") :])
    assert all(isinstance(word, str) for word in words)
    return list(words)


def test_dockerfile_has_no_complaints_of_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=4 * DEADLINE, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_image_at_run_time_has_neither_root_nor_a_shell() -> None:
    user, group = values("USER")[-1].split(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert int(user) > 0
    assert int(group) > 0
    assert as_list(values("ENTRYPOINT")[0]) == ["/opt/flashpol/bin/flashpol"]
    assert as_list(values("CMD")[0]) == ["serve", "-c", "/etc/flashpol/flashpol.toml"]
    final = instructions()[max(i for i, (name, _) in enumerate(instructions()) if name == "FROM") :]
    assert "RUN" not in dict(final), "no step runs in the final image"


def copied() -> list[str]:
    """The files and folders that the image copies from the tree."""
    copies = [shlex.split(rest) for rest in values("COPY") if not rest.startswith("--from")]
    return [source for *sources, _ in copies for source in sources]


def test_copied_files_exist_and_are_not_ignored() -> None:
    lines = [
        line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert lines[0] == "*"
    assert sorted(line[1:] for line in lines if line[0] == "!") == sorted(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def test_build_stage_installs_what_make_installs() -> None:
    """Without what the image has: Python, its headers and venv."""
    [step] = [step for step in values("RUN") if step.startswith("apt-get")]
    made = re.search(r"^SYSTEM := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert made
    assert set(step.split("--no-install-recommends ")[1].split()) == set(made[1].split()) - {
        "python3-dev", "python3-venv",
    }  # fmt: skip


in_ci = pytest.mark.skipif("CI" not in os.environ, reason="compiles for a minute: CI has the time")


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """The folder that stands for / of the image: the steps that run Python made it. The one of apt-get installs what
    `make` installs too."""
    with tempfile.TemporaryDirectory(prefix="flashpol-image-") as name:
        root = Path(name)
        root.chmod(0o755)  # the image's user reads it
        build(root)
        yield root


def build(root: Path) -> None:
    src = root / "src"
    src.mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, src / name)
    for made in (*src.rglob("*.so"), *src.rglob("_fastpath.c")):
        made.unlink()
    steps = [step for step in values("RUN") if not step.startswith("apt-get")]
    assert len(steps) == 2
    for step in steps:
        here = re.sub(r"(?<=\s)(/wheels|/opt/flashpol)", lambda found: f"{root}{found[1]}", step)
        (root / "opt").mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "-c", here.replace("python -m", f"{sys.executable} -m")],
            cwd=src, capture_output=True, text=True, timeout=BUILD_TIME, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@in_ci
def test_build_steps_make_an_environment_that_works(built: Path) -> None:
    flashpol = built / "opt" / "flashpol" / "bin" / "flashpol"
    done = subprocess.run(
        [flashpol, "decide", POLICY, "--from", "www.example.com", "--port", "1935"],
        cwd=built,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0
    assert not (flashpol.parent / "pip").exists()
    subprocess.run([flashpol.parent / "python", "-c", "import flashpol._tls"], cwd=built, timeout=DEADLINE, check=True)


# /opt/flashpol and /etc/flashpol as in the container, a network of its own, and the user, who gains no privilege.
CONTAINER = """
set -eu
ip link set lo up
mount -t tmpfs none "$1/upper"
mkdir "$1/upper/etc" "$1/upper/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper/etc,workdir=$1/upper/work" none /etc
mkdir -p /etc/flashpol
mount --bind -o ro "$2" /etc/flashpol
mount -t tmpfs none /opt
mkdir /opt/flashpol
mount --bind -o ro "$1/opt/flashpol" /opt/flashpol
user=$3 group=$4
shift 4
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@in_ci
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_image_serves_as_its_user_with_its_command_and_configuration(built: Path) -> None:
    (built / "upper").mkdir()
    user, group = values("USER")[-1].split(":")
    start = [*as_list(values("ENTRYPOINT")[0]), *as_list(values("CMD")[0])]
    unshare = ["unshare", "--mount", "--net", "sh", "-c", CONTAINER, "sh", built, FOLDER / "flashpol", user, group]
    with (built / "log").open("w+b") as log:
        process = subprocess.Popen([*map(str, unshare), *start], cwd="/", env={}, stdout=log, stderr=log)
        inside = ["nsenter", "--target", str(process.pid), "--mount", "--net"]

        def run(*command: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run([*inside, *command], capture_output=True, timeout=DEADLINE, check=False)

        try:
            check = as_list(values("HEALTHCHECK")[0])
            eventually(lambda: process.poll() is not None or run(*check).returncode == 0, "a healthy container")
            assert process.poll() is None, (built / "log").read_text()
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(rf"^Uid:\t{user}\t{user}\t", status, re.M)
            assert re.search(r"^CapEff:\t0+$", status, re.M)
            ask = "import socket; s = socket.create_connection(('127.0.0.1', 8430)); " + (
                "s.sendall(b'<policy-file-request/>\\0'); print(s.recv(9999))"
            )
            assert b"allow-access-from" in run("/opt/flashpol/bin/python", "-c", ask).stdout
            done = run("/opt/flashpol/bin/flashpol", "status")
            assert b": ready, " in done.stdout
        finally:
            process.terminate()
            assert process.wait(DEADLINE) == 0


@pytest.mark.slow
def test_health_check_is_the_readiness_of_the_server() -> None:
    check = as_list(values("HEALTHCHECK")[0])
    assert check[0] == "/opt/flashpol/bin/python"
    with Flashpol("-c", PATIENT, "--policy", POLICY) as server:
        command = [sys.executable, *(word.replace("9843", str(server.admin_place[1])) for word in check[1:])]

        def health() -> int:
            return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=DEADLINE, check=False).returncode

        assert health() == 0
        [worker] = server.workers
        worker.kill(signal.SIGSTOP)
        eventually(lambda: server.get("/-/ready").status == 503, "a server that is not ready")
        assert health() == 1
        worker.kill(signal.SIGCONT)
        server.stop()
        assert health() == 1


def test_compose_file_agrees_with_image_and_configuration() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    [service] = compose["services"].values()
    assert (FOLDER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]) == DOCKERFILE
    [volume] = service["volumes"]
    host, inside, mode = volume.split(":")
    config = load(FOLDER / host / Path(as_list(values("CMD")[0])[-1]).name)
    assert (inside, mode) == ("/etc/flashpol", "ro")
    ports = {int(text.rpartition(":")[2]) for text in service["ports"]}
    assert config.server.admin is not None
    assert ports == {config.listeners[0].address.port, config.server.admin.port}
    assert sorted(map(str, ports)) == sorted(values("EXPOSE")[0].split())
    limits = config.server.connection_limits
    assert limits.max_address_rate == limits.max_address_sessions == 0, "Docker's proxy hides the clients' addresses"
    assert 0 < limits.max_connections * 5_000 < int(service["mem_limit"].removesuffix("m")) << 20, "5 KB each"
    assert float(service["stop_grace_period"].removesuffix("s")) > config.server.shutdown_timeout + 3
