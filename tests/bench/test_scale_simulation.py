"""The simulation of a fleet: no client is lost, storms take what the model says, and patience ends."""

from dataclasses import replace

import pytest

from bench.scale import model
from bench.scale.model import FLASH, Client, Host
from bench.scale.simulation import STEP, Fleet, Outcome, Simulation, Storm

# A host serves 2,000 connections a second; its sessions last.
CLIENT = Client("slow", 0.0, 1000.0, 0.0, 7.0, messages=0.0, session_seconds=1e9)
HOST = Host("two cores", cores=2, somaxconn=65_535, max_sessions=500_000)
FLEET = Fleet(HOST, CLIENT, clients=20_000, hosts=2)
ALL = 1.0


def run(fleet: Fleet, storm: Storm, seconds: float = 40.0, seed: int = 1) -> Outcome:
    simulation = Simulation(fleet, storm, seconds, seed)
    outcome = simulation.run()
    assert simulation.counted() == fleet.clients
    assert all(0 <= playing <= fleet.clients for playing in outcome.playing)
    return outcome


@pytest.mark.parametrize(
    "fleet",
    [
        FLEET,
        replace(FLEET, client=replace(FLASH, session_seconds=20.0)),
        replace(FLEET, host=replace(HOST, somaxconn=50)),
        replace(FLEET, accepts=100.0, application_queue=200),
        replace(FLEET, accepts=100.0, application_queue=200, host=replace(HOST, connect_rate=50.0)),
        replace(FLEET, accepts=100.0, host=replace(HOST, connect_rate=50.0, max_sessions=100)),
        replace(FLEET, client=replace(CLIENT, opening=20_000.0)),
    ],
    ids=["plain", "flash", "short queue", "slow application", "connect rate", "few places", "overload"],
)
@pytest.mark.parametrize("storm", [Storm(lost=1), Storm(cut=0.7, spread=3.0)], ids=["lost", "cut"])
def test_run_counts_every_client_in_one_place(fleet: Fleet, storm: Storm) -> None:
    run(fleet, storm, 20.0)


def test_run_with_the_same_seed_has_the_same_outcome() -> None:
    storm = Storm(lost=1)
    assert run(FLEET, storm, seed=7) == run(FLEET, storm, seed=7)
    assert run(FLEET, storm, seed=7) != run(FLEET, storm, seed=8)


def test_run_without_a_storm_keeps_all_clients_playing() -> None:
    outcome = run(FLEET, Storm())
    assert (outcome.failed, outcome.cut) == (0, 0)
    assert min(outcome.playing) == FLEET.clients


def test_storm_that_is_served_in_time_takes_as_long_as_the_model_says() -> None:
    outcome = run(FLEET, Storm(cut=ALL))
    expected = model.storm_seconds(FLEET.clients // FLEET.hosts, CLIENT.cpu_to_begin, HOST.cores)
    assert outcome.failed == 0
    assert outcome.back[99.0] == pytest.approx(expected, rel=0.05)


def test_clients_of_a_lost_host_that_the_balancer_still_lists_come_back_after_their_patience() -> None:
    outcome = run(replace(FLEET, detect=1.0, retry=2.0, retry_spread=0.0), Storm(lost=1))
    assert outcome.cut == FLEET.clients // 2
    assert outcome.failed == pytest.approx(outcome.cut / 2, rel=0.05)
    assert outcome.back[99.0] == pytest.approx(model.CONTENT_PATIENCE + 2.0 + outcome.failed / 2000, rel=0.1)


def test_full_accept_queue_makes_clients_wait_for_their_next_syn() -> None:
    short = replace(FLEET, host=replace(HOST, somaxconn=1000))
    outcome = run(short, Storm(cut=ALL))
    assert outcome.dropped_syns > 0
    assert outcome.queue == HOST.cores * 1000
    slower, plain = outcome.back[99.0], run(FLEET, Storm(cut=ALL)).back[99.0]
    assert plain
    assert slower
    assert slower > plain


def test_overload_that_is_longer_than_patience_serves_clients_that_have_given_up() -> None:
    slow = replace(FLEET, client=replace(CLIENT, opening=5000.0))  # 25 s for all, and 10 s of patience
    outcome = run(slow, Storm(cut=ALL))
    assert outcome.late > 0
    assert outcome.failed > 0


def test_flash_client_gives_up_its_policy_after_three_seconds() -> None:
    client = replace(CLIENT, policy=1000.0, opening=1.0)
    within = run(replace(FLEET, client=client, clients=11_000), Storm(cut=ALL))
    longer = run(replace(FLEET, client=client, clients=16_000), Storm(cut=ALL))
    assert (within.failed, longer.failed > 0) == (0, True)


@pytest.mark.slow
def test_connect_rate_refuses_what_would_wait_longer_than_connect_timeout() -> None:
    host = replace(HOST, cores=1, connect_rate=100.0)
    client = replace(CLIENT, opening=1.0)
    fleet = replace(FLEET, host=host, client=client, clients=1000, hosts=1, retry=1000.0)
    outcome = run(fleet, Storm(cut=ALL))
    expected = model.connected_of(1000, 100.0, host.connect_timeout, model.connecting_places(host.max_sessions))
    assert outcome.refused == pytest.approx(1000 - expected, abs=2)
    assert outcome.playing[-1] == 1000 - outcome.refused


def test_connect_rate_keeps_an_application_with_a_long_queue_from_accepting_clients_that_left() -> None:
    slow = replace(FLEET, client=replace(CLIENT, opening=1.0), accepts=200.0, application_queue=65_535)
    limited = replace(slow, host=replace(HOST, connect_rate=100.0))
    without, with_rate = run(slow, Storm(cut=ALL), 90.0), run(limited, Storm(cut=ALL), 90.0)
    assert without.stale > 1000 > with_rate.stale == 0
    assert with_rate.playing[-1] > without.playing[-1]


@pytest.mark.parametrize(("count", "chance"), [(10, 0.3), (100_000, 0.0001), (1000, 0.97), (1_000_000, 0.5)])
def test_draw_has_the_mean_of_the_binomial_distribution(count: int, chance: float) -> None:
    simulation = Simulation(FLEET, Storm(), STEP)
    drawn = [simulation._draw(count, chance) for _ in range(2000)]
    deviation = (count * chance * (1 - chance) / len(drawn)) ** 0.5
    assert sum(drawn) / len(drawn) == pytest.approx(count * chance, abs=5 * deviation)
    assert all(0 <= one <= count for one in drawn)
