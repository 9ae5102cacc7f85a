"""The experiment with shared listen sockets: it counts what it says."""

import pytest

from bench.accept_queues import WAYS, measure


@pytest.mark.parametrize("way", WAYS)
def test_measure_counts_every_connection_and_at_least_one_wake_up_each(way: str) -> None:
    result = measure(way, processes=2, connections=10)
    assert sum(result.accepted) == 10
    assert result.wake_ups >= result.returns >= 1.0 or result.wake_ups == pytest.approx(1.0, abs=0.3)


def test_measure_of_a_nested_set_finds_that_epollexclusive_has_no_effect() -> None:
    assert measure("alone, exclusive", processes=3, connections=20).wake_ups == pytest.approx(1.0, abs=0.2)
    assert measure("nested, exclusive", processes=3, connections=20).wake_ups == pytest.approx(3.0, abs=0.5)
