"""The command that measures what the model predicts, with very few clients; and what it reads of the kernel."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from bench import BenchError, servers
from bench.scale import comparison, kernel, measured
from testkit.polling import eventually

root = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")


def scale(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.scale", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=servers.ROOT)


@root
@pytest.mark.slow
def test_measure_with_few_clients_prints_the_model_beside_each_measurement() -> None:
    ran = scale("measure", "--tiny")
    assert ran.returncode == 0, ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    missing = {"tracked", "time_waits"} if kernel.tracking_missing() else set()
    for name, (words, *_) in comparison.PREDICTIONS.items():
        if name not in missing:
            text = words.format(**vars(measured.TINY))
            assert any(text in row for row in rows), name


@pytest.mark.parametrize(
    "words", [("measure", "--rounds", "0"), ("measure", "--tiny", "--write"), ("--seed", "x"), ("model",)]
)
def test_command_with_a_mistake_exits_2_without_a_traceback(words: tuple[str, ...]) -> None:
    ran = scale(*words)
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)


def test_accept_queue_counts_connections_that_are_not_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=10) as server:
        place = server.getsockname()
        clients = [socket.create_connection(place, 5) for _ in range(3)]
        eventually(lambda: kernel.accept_queue(place[1]) == 3, "three connections wait")
        server.accept()[0].close()
        assert kernel.accept_queue(place[1]) == 2
        for client in clients:
            client.close()


def test_kernel_reports_memory_and_connections() -> None:
    assert kernel.slab_bytes() > 1 << 20
    assert kernel.time_waits() >= 0


def test_echoes_of_a_server_that_is_silent_are_an_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(BenchError, match="2 of 2 sessions were neither connected nor closed"),
    ):
        measured.echoes(server.getsockname()[1], 2, seconds=0.2)


def test_echoes_end_when_all_sessions_are_served_or_closed() -> None:
    def serve(server: socket.socket) -> None:
        clients = [server.accept()[0] for _ in range(4)]
        for number, client in enumerate(clients):
            if number:
                client.sendall(client.recv(100))
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        served, seconds = measured.echoes(server.getsockname()[1], 4, seconds=10.0)
        thread.join(10)
    assert served == 3
    assert 0 < seconds < 10


def test_predictions_take_the_figures_that_a_run_has() -> None:
    """A name that was mistyped would leave its row out."""
    last = measured.load_last()
    here = measured.medians(last["few"])
    assert set(last["many"]) == set(comparison.PREDICTIONS)
    assert set(comparison.UNITS) == set(here)
    for _, _, _, predict in comparison.PREDICTIONS.values():
        assert predict(here, last["sizes"]) > 0


def test_machine_line_has_the_kernel_without_its_build_and_is_wrapped() -> None:
    about = {"cores": 2, "cpu": "Model " * 20, "kernel": "6.18.44-fc-v669", "python": "3.11.7", "load_average": 0.08}
    line = comparison.machine_line({"machine": about, "sizes": {"rounds": 3}})
    assert "Linux 6.18, CPython 3.11.7, load 0.1.\n" in line
    assert max(map(len, line.splitlines())) <= 100


def test_last_measurement_was_not_a_test_of_the_command() -> None:
    assert measured.load_last()["sizes"]["silent"] == measured.Sizes().silent
