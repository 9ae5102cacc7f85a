"""A rate, with a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from flashpol.relay.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_no_rate_is_no_wait() -> None:
    pace = RateLimiter(0)
    assert [pace.reserve(0) for _ in range(1000)] == [0.0] * 1000


def test_a_second_s_worth_at_once_then_evenly() -> None:
    clock = Clock()
    pace = RateLimiter(4, clock)
    assert [pace.reserve(9) for _ in range(8)] == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75]


def test_whoever_would_wait_too_long_takes_no_turn() -> None:
    clock = Clock()
    pace = RateLimiter(1, clock)
    assert [pace.reserve(0.5) for _ in range(4)] == [0, 0, None, None]
    clock.now += 1
    assert pace.reserve(0.5) == 0
    assert pace.reserve(0.5) is None


@given(st.floats(0.5, 100), st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_never_faster(rate: float, pauses: list[float]) -> None:
    """In any span of time no more than the rate allows, and one second's worth."""
    clock = Clock()
    pace = RateLimiter(rate, clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause
        delay = pace.reserve(1e9)
        assert delay is not None
        times.append(clock.now + delay)
    assert times == sorted(times)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= (times[last] - times[first] + 1) * rate + 1.000001
