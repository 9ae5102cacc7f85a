"""Numbers as people read them."""

import time
from collections.abc import Sequence
from itertools import accumulate

UNKNOWN = "–"
END_OF_YEARS = 253_402_300_800  # the year 10,000


def count(value: float) -> str:
    return f"{value:,.0f}"


def share(value: float, whole: float) -> float:
    """0 if the whole is 0."""
    return value / whole if whole else 0.0


def percent(part: float) -> str:
    """From a share: 0.42 is 42 %. A share above 0 is never rounded to 0 %."""
    if 0 < part < 0.001:
        return "<0.1 %"
    return f"{part * 100:.1f} %" if 0 < part < 0.1 else f"{part * 100:.0f} %"


def rate(events: float, seconds: float) -> str:
    """Events a second. A rate above 0 is never rounded to 0."""
    value = events / seconds
    if 0 < value < 0.1:
        return "<0.1"
    return f"{value:.1f}" if value < 10 and events else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """In the unit that needs no leading zeros: 25 µs, 2.5 ms, 10 s."""
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if 0 < seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:,.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def size(octets: float) -> str:
    if octets < 10_000:
        return f"{octets:,.0f} bytes"
    value = octets / 1024
    for unit in ("KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:,.3g} GiB"


def date_time(epoch: float) -> str:
    if not 0 <= epoch < END_OF_YEARS:
        return UNKNOWN
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))


def quantile(bounds: Sequence[float], counts: Sequence[int], which: float) -> float | None:
    """An estimate from a histogram, as Prometheus' histogram_quantile makes it; None if there are no values.

    bounds: upper bounds, ascending, in seconds; counts: one for each, and one for the values above all of them.
    Values are taken to be spread evenly within a bucket. A value above the last bound is reported as that bound.
    """
    counts = [max(0, number) for number in counts]  # a worker may write anything
    rank = which * sum(counts)
    if not rank:
        return None
    for i, (below, reached) in enumerate(zip([0, *accumulate(counts)], accumulate(counts), strict=False)):
        if reached >= rank and i < len(bounds):
            lower = bounds[i - 1] if i else 0.0
            return lower + (bounds[i] - lower) * (rank - below) / (reached - below)
    return bounds[-1]


def about(bounds: Sequence[float], counts: Sequence[int], which: float) -> str:
    """`quantile` in words: 25 µs, or "over 5 s" above the last bound."""
    value = quantile(bounds, counts, which)
    if value is None:
        return UNKNOWN
    return f"{'over ' if value >= bounds[-1] else ''}{duration(float(f'{value:.2g}'))}"
