"""Numbers as people read them."""

import time
from collections.abc import Sequence
from itertools import accumulate

UNKNOWN = "–"


def count(value: float) -> str:
    return f"{value:,.0f}"


def share(value: float, whole: float) -> float:
    """Of nothing it is 0."""
    return value / whole if whole else 0.0


def percent(part: float) -> str:
    """From a share: 0.42 is 42 %. What is there is never called 0 %."""
    if 0 < part < 0.001:
        return "<0.1 %"
    return f"{part * 100:.1f} %" if 0 < part < 0.1 else f"{part * 100:.0f} %"


def rate(events: float, seconds: float) -> str:
    """Events in so many seconds -> per second."""
    value = events / seconds
    if 0 < value < 0.1:
        return "<0.1"
    return f"{value:.1f}" if value < 10 and events else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """With the unit that leaves no zeros: 25 µs, 2.5 ms, 10 s."""
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


def moment(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))


def quantile(bounds: Sequence[float], counts: Sequence[int], which: float) -> float | None:
    """An estimate from a histogram, as Prometheus' histogram_quantile makes it; None of no values.

    bounds: upper, ascending, in seconds; counts: one for each and one for what is above all of them.
    Within a bucket values are taken to be spread evenly; of what is above the last bound, that bound is all we know.
    """
    rank = which * sum(counts)
    if not rank:
        return None
    for i, (below, reached) in enumerate(zip([0, *accumulate(counts)], accumulate(counts), strict=False)):
        if reached >= rank and i < len(bounds):
            lower = bounds[i - 1] if i else 0.0
            return lower + (bounds[i] - lower) * (rank - below) / (reached - below)
    return bounds[-1]


def about(bounds: Sequence[float], counts: Sequence[int], which: float) -> str:
    """The same in words; of what is above the last bound, that it is."""
    value = quantile(bounds, counts, which)
    if value is None:
        return UNKNOWN
    return f"{'over ' if value >= bounds[-1] else ''}{duration(float(f'{value:.2g}'))}"
