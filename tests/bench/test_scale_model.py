"""The model of one host: its formulas, and that they divide places as flashpol's own code does."""

from dataclasses import replace

import pytest

from bench.scale import model, scenarios
from bench.scale.model import FLASH, WEBSOCKET_TLS, Client, Host
from flashpol.config import ConnectionLimits
from flashpol.relay.connecting import ConnectingPlaces
from flashpol.relay.rate_limit import RateLimiter
from flashpol.worker import limits as worker_limits

# Round numbers: 100 µs a second, 1,000 KB with two sockets of 4 KB.
CLIENT = Client("round", 20.0, 80.0, 50.0, 992.0, messages=1.0, session_seconds=2.0)
HOST = Host("round", cores=2, utilisation=0.5, memory_gib=1.0, files=1000, max_sessions=300, conntrack_max=1000)


@pytest.mark.parametrize("files", [100, 1024, 4000, 262_144, 1_048_576])
def test_sessions_by_files_are_those_that_a_worker_has_places_for(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_limits.resource, "getrlimit", lambda _: (files, files))
    monkeypatch.setattr(worker_limits, "count_files", lambda: 0)
    monkeypatch.setattr(worker_limits, "spare_memory", lambda: None)
    settings = ConnectionLimits(max_sessions=1_000_000)
    left_by_sessions = files // 8  # see leaves_files in flashpol/_native/accept/eviction.pxi
    expected = min(worker_limits.PlaceLimits.of(settings).sessions, (files - left_by_sessions) // 2)
    assert model.sessions_by_files(files) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("sessions", [10, 100, 10_000])
def test_connecting_places_are_those_that_the_relay_has(sessions: int) -> None:
    assert model.connecting_places(sessions) == ConnectingPlaces(sessions)._places.limit


@pytest.mark.parametrize(("clients", "rate", "patience"), [(1000, 100.0, 3.0), (250, 100.0, 3.0), (50, 10.0, 0.5)])
def test_connected_of_a_storm_are_the_turns_that_the_rate_limit_gives(
    clients: int, rate: float, patience: float
) -> None:
    limiter = RateLimiter(rate, clock=lambda: 1000.0)
    turns = [turn for turn in (limiter.reserve(patience) for _ in range(clients)) if turn is not None]
    assert model.connected_of(clients, rate, patience, places=10_000) == pytest.approx(len(turns), abs=1)
    assert model.connecting_seconds(len(turns), rate) == pytest.approx(turns[-1], abs=1.1 / rate)


def test_connected_of_a_storm_are_no_more_than_have_a_place_to_wait() -> None:
    assert model.connected_of(1000, 100.0, 3.0, places=50) == 150
    assert model.connected_of(1000, 0.0, 3.0, places=50) == 50


def test_limits_of_a_host_follow_from_what_a_client_takes() -> None:
    assert model.limits(HOST, CLIENT, kernel_of_socket=4.0) == {
        "CPU": 2 * 500_000 // 100,
        "memory": 2**20 // 1000,
        "max_sessions": 600,
        "descriptors": 2 * 375,
        "local ports": 28_232,
        "conntrack": int(1000 / (2 + 0.5 * 120 * 3)),
    }


def test_local_ports_without_timestamps_of_the_upstream_wait_for_time_wait() -> None:
    found = model.limits(replace(HOST, upstream_timestamps=False), CLIENT, kernel_of_socket=4.0)
    assert found["local ports"] == 28_232 // 31


def test_ports_multiply_with_sources_and_backends() -> None:
    assert replace(HOST, sources=2, backends=3, port_range=(1024, 65_535)).ports == 6 * 64_512


@pytest.mark.parametrize("host", [scenarios.SHIPPED, scenarios.TUNED], ids=lambda host: host.name)
def test_hosts_of_the_page_have_descriptors_for_max_sessions(host: Host) -> None:
    assert host.max_sessions <= model.sessions_by_files(host.files)
    assert host.max_sessions * 2.3 <= host.files  # as the page says


def test_hosts_for_hold_all_clients_while_one_is_lost() -> None:
    _, each = model.narrowest(model.limits(HOST, CLIENT, 4.0))
    assert model.hosts_for(each * 3, HOST, CLIENT, 4.0) == 4
    assert model.hosts_for(each * 3 + 1, HOST, CLIENT, 4.0) == 5


def test_at_once_is_the_smaller_of_queue_and_patience() -> None:
    assert model.at_once(replace(HOST, somaxconn=100), CLIENT) == 200
    assert model.at_once(replace(HOST, somaxconn=65_535, backlog=50), CLIENT) == 100
    long = replace(HOST, somaxconn=65_535)
    assert model.at_once(long, replace(CLIENT, policy=1000.0)) == 6000
    assert model.at_once(long, replace(CLIENT, opening=5000.0)) == 4000


def test_useful_queue_is_served_within_the_patience_of_its_last_client() -> None:
    assert model.useful_queue(replace(CLIENT, policy=1000.0, opening=2000.0)) == 2000
    assert model.useful_queue(replace(CLIENT, policy=0.0, opening=2000.0)) == 5000


def test_storm_seconds_are_shared_by_the_workers_after_the_start() -> None:
    assert model.storm_seconds(10_000, cpu=100.0, workers=2, start=0.25) == pytest.approx(0.75)


def test_bottleneck_is_the_slowest_station_or_all_of_them_on_one_cpu() -> None:
    assert model.bottleneck(10.0, 40.0, shared=False) == pytest.approx(25_000)
    assert model.bottleneck(10.0, 40.0, shared=True) == pytest.approx(20_000)


def test_cpu_of_a_client_has_its_messages_and_its_share_of_an_opening() -> None:
    assert CLIENT.cpu == 100.0
    assert FLASH.cpu_to_begin == FLASH.policy + FLASH.opening
    assert WEBSOCKET_TLS.cpu_to_begin == WEBSOCKET_TLS.opening
