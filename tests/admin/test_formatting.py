"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.admin import formatting


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (1e-05, "10 µs"), (2.5e-05, "25 µs"), (0.0025, "2.5 ms"), (0.25, "250 ms"), (1, "1 s"), (2.5, "2.5 s"),
     (0.9999, "1 s"), (86400, "86,400 s")],
)  # fmt: skip
def test_duration_uses_the_unit_without_leading_zeros(seconds: float, words: str) -> None:
    assert formatting.duration(seconds) == words


@pytest.mark.parametrize(
    ("octets", "words"),
    [(0, "0 bytes"), (4096, "4,096 bytes"), (23_000_000, "21.9 MiB"), (1023 * 1024, "1023 KiB"), (5 << 30, "5 GiB")],
)
def test_size_uses_binary_units(octets: int, words: str) -> None:
    assert formatting.size(octets) == words


@pytest.mark.parametrize(
    ("part", "words"), [(0, "0 %"), (0.0001, "<0.1 %"), (0.05, "5.0 %"), (0.42, "42 %"), (1, "100 %")]
)
def test_percent_above_zero_is_never_rounded_to_zero(part: float, words: str) -> None:
    assert formatting.percent(part) == words


@pytest.mark.parametrize(
    ("events", "seconds", "words"), [(0, 5, "0"), (1, 60, "<0.1"), (7, 5, "1.4"), (61_720, 5, "12,344")]
)
def test_rate_is_per_second_and_never_rounded_to_zero(events: int, seconds: float, words: str) -> None:
    assert formatting.rate(events, seconds) == words


BOUNDS = [0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("counts", "which", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.05),
        ([0, 10, 0, 0], 0.5, 0.15),
        ([50, 0, 50, 0], 0.99, 0.396),
        ([50, 0, 50, 0], 0.5, 0.1),
        ([0, 0, 0, 5], 0.5, 0.4),
        ([1, 0, 0, 1], 0.99, 0.4),
    ],
)
def test_quantile_equals_that_of_prometheus(counts: list[int], which: float, expected: float | None) -> None:
    found = formatting.quantile(BOUNDS, counts, which)
    assert found == (expected if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_quantile_of_any_histogram_lies_in_its_bucket(counts: list[int], which: float) -> None:
    found = formatting.quantile(BOUNDS, counts, which)
    assert (found is None) == (not sum(counts))
    if found is not None:
        below = sum(count for count, lower in zip(counts, [0, *BOUNDS], strict=True) if lower <= found)
        assert below >= which * sum(counts) * 0.999999
