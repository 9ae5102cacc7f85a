"""The rate limiter, with a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from flashpol.relay.rate_limit import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_rate_limiter_without_a_rate_never_waits() -> None:
    limiter = RateLimiter(0)
    assert [limiter.reserve(0) for _ in range(1000)] == [0.0] * 1000


def test_rate_limiter_after_a_pause_allows_one_seconds_worth_then_spreads() -> None:
    clock = Clock()
    limiter = RateLimiter(4, clock)
    assert [limiter.reserve(9) for _ in range(8)] == [0, 0, 0, 0, 0, 0.25, 0.5, 0.75]


def test_rate_limiter_beyond_patience_takes_no_turn() -> None:
    clock = Clock()
    limiter = RateLimiter(1, clock)
    assert [limiter.reserve(0.5) for _ in range(4)] == [0, 0, None, None]
    clock.now += 1
    assert limiter.reserve(0.5) == 0
    assert limiter.reserve(0.5) is None


@given(st.floats(0.5, 100), st.lists(st.floats(0, 3), min_size=1, max_size=50))
def test_rate_limiter_in_any_span_allows_no_more_than_the_rate(rate: float, pauses: list[float]) -> None:
    """In any span of time: what the rate allows, plus one second's worth."""
    clock = Clock()
    limiter = RateLimiter(rate, clock)
    times: list[float] = []
    for pause in pauses:
        clock.now += pause
        delay = limiter.reserve(1e9)
        assert delay is not None
        times.append(clock.now + delay)
    assert times == sorted(times)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= (times[last] - times[first] + 1) * rate + 1.000001
