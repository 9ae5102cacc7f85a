"""What the arbiter does again and again: a failure is logged, and ends neither the server nor the other tasks."""

import signal
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol

# The method of the class raises at its first calls, with an error of another kind each time.
FAILING = """
from flashpol.supervisor.file_checks import FileChecks
from flashpol.supervisor.generation import Generation
owner, name = {owner}, {name!r}
real, errors = getattr(owner, name), [ValueError("a bug"), MemoryError()]
def fails(self):
    if errors:
        raise errors.pop()
    return real(self)
setattr(owner, name, fails)
"""


@pytest.mark.parametrize(
    ("owner", "name", "task"),
    [
        ("FileChecks", "start", "looking for changed files"),
        ("Generation", "observe", "observing workers and accept queues"),
        ("Generation", "kill_stalled", "looking for stalled workers"),
    ],
)
def test_failing_task_is_logged_and_done_later(tmp_path: Path, owner: str, name: str, task: str) -> None:
    config = tmp_path / "flashpol.toml"
    config.write_text(f'[server]\nwatch = 0.1\nstall_timeout = 1\n[policies.p]\nfile = "{POLICY}"\n')
    with Flashpol("-c", config, prelude=FAILING.format(owner=owner, name=name)) as server:
        eventually(lambda: f"{task} failed; trying again" in server.log, "the failure")
        server.logs("MemoryError")
        config.write_text(config.read_text() + "# changed\n")
        eventually(lambda: " reloaded: " in server.log, "files are watched")
        eventually(lambda: b"\nflashpol_worker_max_files{" in server.get("/metrics").body, "workers are observed")
        worker = server.workers[0]
        worker.kill(signal.SIGSTOP)
        eventually(lambda: not worker.alive, "it is found to have stalled")
        assert ask(server.place)
        assert server.process.poll() is None
