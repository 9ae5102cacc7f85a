"""--log-file and log_file: where the log goes, and how it follows a rename."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, ROOT, Flashpol, Process, free_port, one_line, run


def stderr_of(process: Process) -> str:
    """Where it leads; empty if the process has ended meanwhile, as those of an old generation do."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return os.readlink(f"/proc/{process.pid}/fd/2")
    return ""


def everywhere(server: Flashpol, file: Path) -> bool:
    return all(stderr_of(process) == str(file) for process in server.children)


def reopen(server: Flashpol) -> None:
    server.process.send_signal(signal.SIGUSR1)


def lines(file: Path, text: str) -> int:
    return file.read_text().count(text) if file.exists() else 0


def test_log_file_renamed_and_reopened_by_sigusr1_is_followed_by_all_processes(tmp_path: Path) -> None:
    file, old = tmp_path / "flashpol.log", tmp_path / "flashpol.log.1"
    with Flashpol("--policy", POLICY, "--log-file", file, "--access-log", "1", workers=2) as server:
        assert server.log == ""
        assert lines(file, " INFO: ready: ") == 1
        assert not file.stat().st_mode & 0o027, "the access log has addresses of clients"
        ask(server.place)
        eventually(lambda: lines(file, ": reply after") == 1, "a line of a worker")
        file.rename(old)
        reopen(server)
        eventually(lambda: lines(file, "SIGUSR1: log file reopened") == 1, "the new file")
        eventually(lambda: everywhere(server, file), "all processes write to it")
        size = old.stat().st_size
        for _ in range(8):
            ask(server.place)
        eventually(lambda: lines(file, ": reply after") == 8, "lines of workers")
        assert server.stop() == 0
        assert old.stat().st_size == size
        assert lines(file, " INFO: stopped") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_log_file_is_reopened_for_workers_that_may_not_open_it(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    file = folder / "log"
    with Flashpol("--policy", POLICY, "--log-file", file, "--user", "nobody") as server:
        file.rename(folder / "old")
        reopen(server)
        eventually(lambda: file.exists() and everywhere(server, file), "the new file")


def test_log_file_is_followed_by_draining_workers(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        to = f"127.0.0.1:{upstream.getsockname()[1]}"
        with Flashpol("--policy", POLICY, "--upstream", to, "--log-file", file) as server:
            [before] = server.workers
            with socket.create_connection(server.place) as client:
                client.sendall(b"hello")
                session, _ = upstream.accept()
                server.process.send_signal(signal.SIGHUP)
                eventually(lambda: lines(file, " reloaded: "), "the reload")
                file.rename(tmp_path / "old")
                reopen(server)
                eventually(lambda: file.exists() and stderr_of(before) == str(file), "the draining worker follows")
                server.process.send_signal(signal.SIGQUIT)
                eventually(lambda: lines(file, "SIGQUIT: draining"), "the drain")
                file.rename(tmp_path / "older")
                reopen(server)
                eventually(lambda: file.exists() and stderr_of(before) == str(file), "also while the server drains")
                session.close()
            assert server.process.wait(DEADLINE) == 0


def test_log_file_that_cannot_be_reopened_stays_in_use(tmp_path: Path) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    with Flashpol("--policy", POLICY, "--log-file", folder / "log") as server:
        folder.rename(moved)
        reopen(server)
        message = f"SIGUSR1: {folder / 'log'}: cannot be opened: No such file or directory; the log stays in the file"
        eventually(lambda: lines(moved / "log", message), "the error, in the file that is open")
        assert ask(server.place)


def test_log_file_changed_by_a_reload_is_followed_and_removed_leads_to_stderr(tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"

    def write(server: str) -> None:
        config.write_text(f'[server]\n{server}\n[policies.a]\nfile = "{POLICY}"\n')

    one, two = tmp_path / "one", tmp_path / "two"
    write(f'log_file = "{one}"')
    with Flashpol("-c", config) as server:
        write(f'log_file = "{two}"')
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: lines(two, " reloaded: "), "the reload, in the new file")
        eventually(lambda: everywhere(server, two), "all processes to follow")
        write(f'log_file = "{tmp_path}/missing/log"')
        server.process.send_signal(signal.SIGHUP)
        message = f"flashpol.toml:2:1: log_file {tmp_path}/missing/log: cannot be opened: No such file or directory"
        eventually(lambda: lines(two, message), "the refusal")
        write("")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload, on stderr")


@pytest.mark.parametrize("kind", ["missing/log", ".", "fifo"])
def test_log_file_that_cannot_be_opened_is_one_line(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = run("serve", "--policy", POLICY, "--log-file", tmp_path / kind)
    assert f"log_file {tmp_path / kind}: cannot be opened: " in one_line(done)


def test_mistake_at_the_start_is_reported_on_stderr_in_spite_of_a_log_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(
            "serve", "--policy", POLICY, "--listen", listen, "--admin", f"127.0.0.1:{free_port()}", "--log-file",
            tmp_path / "log",
        )  # fmt: skip
    assert listen in one_line(done)


def logrotate_snippet() -> str:
    page = (ROOT / "docs" / "guide.md").read_text()
    text = page.split("```\n/var/log/flashpol/flashpol.log {")[1].split("\n}\n```")[0]
    return f"/var/log/flashpol/flashpol.log {{{text}\n}}\n"


@pytest.mark.skipif(shutil.which("logrotate") is None or os.geteuid() != 0, reason="needs logrotate and root")
def test_logrotate_with_the_snippet_of_the_guide_loses_no_line(tmp_path: Path) -> None:
    file, pid_file = tmp_path / "flashpol.log", tmp_path / "flashpol.pid"
    tmp_path.chmod(0o755)
    snippet = logrotate_snippet()
    snippet = snippet.replace("/var/log/flashpol/flashpol.log", str(file)).replace("/run/flashpol.pid", str(pid_file))
    (tmp_path / "rotate.conf").write_text(snippet)
    arguments = ("--policy", POLICY, "--access-log", "1", "--log-file", file, "--pid-file", pid_file)
    with Flashpol(*arguments, workers=2) as server:
        eventually(pid_file.exists, "the pid file")
        for number in (1, 2):
            ask(server.place)
            eventually(lambda: lines(file, ": reply after") == 1, "a line of a worker")
            done = subprocess.run(
                ["logrotate", "--force", "--state", tmp_path / "state", tmp_path / "rotate.conf"],
                capture_output=True, text=True, timeout=DEADLINE, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, ""), number
            eventually(lambda: lines(file, "SIGUSR1: log file reopened") == 1, "the new file")
            eventually(lambda: everywhere(server, file), "all processes write to it")
        assert len([path for path in tmp_path.iterdir() if path.name.startswith("flashpol.log.")]) == 2
