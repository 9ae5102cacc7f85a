"""How many connections a probe opens, to which ports, how fast; and which modules it loads."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken
import pytest
from broken import answering
from loopback import Server, closed_port, look

from flashpol.probe import Question, experiments
from flashpol.probe.exchange import Address
from flashpol.probe.model import Role
from flashpol.probe.throttle import Throttle


def test_observe_gently_opens_four_connections() -> None:
    with Server(answering()) as master, Server(answering(b"")) as application:
        seen = look(master.port, port=application.port)
        assert (master.connections, application.connections) == (4, 1)
    assert seen.connections == 7  # two of them to Silverlight's ports, which refuse


def test_observe_thoroughly_opens_33_connections() -> None:
    with Server(broken.any_terminator) as master:
        look(master.port, thorough=True, idle=2 * broken.DEADLINE)
        assert master.connections == 33


def test_question_with_equal_ports_asks_them_once() -> None:
    assert Question(port=843, location=843).ports() == {
        Role.MASTER: 843,
        Role.SILVERLIGHT: 943,
        Role.SILVERLIGHT_HTTP: 80,
    }
    assert Question(port=4502, location=8430).ports() == {
        Role.MASTER: 843,
        Role.LOCATION: 8430,
        Role.DESTINATION: 4502,
        Role.SILVERLIGHT: 943,
        Role.SILVERLIGHT_HTTP: 80,
    }
    assert Role.SILVERLIGHT_HTTP not in Question(named=("flash",)).ports()


def test_observe_name_with_many_addresses_asks_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [Address(2, f"127.0.0.{number}") for number in range(1, 12)]
    monkeypatch.setattr(experiments, "resolve", lambda host: addresses)
    with closed_port() as port:
        seen = look(port)
    assert list(seen.targets) == addresses[: experiments.MAX_ADDRESSES]
    assert seen.left_out == 3


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "\0", "no such name.invalid"])
def test_observe_name_without_address_says_why(host: str) -> None:
    assert experiments.observe(host, Question()).unresolved


def test_resolve_address_needs_no_name_server() -> None:
    assert experiments.resolve("127.0.0.1") == [Address(2, "127.0.0.1")]


def test_throttle_with_many_threads_limits_concurrency() -> None:
    throttle, most, now = Throttle(max_rate=10_000, max_concurrent=3), [0], [0]
    lock = threading.Lock()

    def connect() -> None:
        with throttle.connection():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.005)
            with lock:
                now[0] -= 1

    with ThreadPoolExecutor(10) as pool:
        for _ in range(30):
            pool.submit(connect)
    assert (throttle.connections, now) == (30, [0])
    assert most[0] <= 3


def test_throttle_in_a_loop_limits_the_rate() -> None:
    throttle, began = Throttle(max_rate=50), time.monotonic()
    starts = []
    for _ in range(6):
        with throttle.connection():
            starts.append(time.monotonic() - began)
    assert starts[-1] >= 5 / 50


LOAD = """
import sys
import flashpol.probe.experiments, flashpol.probe.report.text, flashpol.cli.main
flashpol.cli.main.make_parser(["probe"])
NEVER = ("gevent", "greenlet", "prometheus_client", "flashpol._fastpath")
LATER = ("flashpol.supervisor", "flashpol.worker", "hashlib", "ssl", "prometheus_client")
found = [name for name in (*NEVER, *LATER) if name in sys.modules]
sys.exit(str(found) if found else 0)
"""


def test_probe_modules_when_imported_load_neither_gevent_nor_slow_modules() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_probe_without_gevent_and_prometheus_client_works(tmp_path: Path) -> None:
    """With modules of their names that cannot be imported."""
    for name in ("gevent", "prometheus_client"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed')\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from flashpol.cli.main import main; sys.exit(main())"
    with Server(answering()) as server, closed_port() as closed:
        command = [sys.executable, "-c", script, "probe", "127.0.0.1", "--policy-port", str(server.port)]
        done = subprocess.run(
            [*command, "--silverlight-port", str(closed)], capture_output=True, text=True, timeout=20, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "finds a policy" in done.stdout
