"""What a metric is made of: its name and text, the labels of its samples, and where their values come from.

`metrics` lists them, with the subjects that they are of.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import methodcaller
from typing import Any, Generic, TypeVar

from flashpol.counters.layout import CounterBlock

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

T = TypeVar("T")
Labels = dict[str, str]
# What returns the values of a subject's samples; or the field of its block of counters that has them.
Values = Callable[[T], Sequence[float]] | str


@dataclass(frozen=True)
class Family(Generic[T]):
    """A metric, of which each subject has the same samples.

    samples: what follows the metric's name, and the labels beside those of the subject; values: one for each sample.
    """

    type: str
    name: str
    text: str
    samples: Sequence[tuple[str, Labels]]
    values: Callable[[T], Sequence[float]]


def counter(name: str, text: str, values: Values[T], labels: Sequence[Labels] = ({},)) -> Family[T]:
    return Family(COUNTER, name, text, [("_total", each) for each in labels], _function(values))


def gauge(name: str, text: str, values: Values[T], labels: Sequence[Labels] = ({},)) -> Family[T]:
    return Family(GAUGE, name, text, [("", each) for each in labels], _function(values))


def info(name: str, text: str) -> Family[Any]:
    """Always 1: the labels are the information."""
    return gauge(name, text, lambda _: (1,))


def histogram(name: str, text: str, bounds: Iterable[float], buckets: str, nanoseconds: str) -> Family[Any]:
    """buckets, nanoseconds: the fields of a block."""

    def values(block: CounterBlock) -> list[float]:
        cumulative: list[float] = [*accumulate(block.all(buckets))]
        return [*cumulative, cumulative[-1], block[nanoseconds] / 1e9]

    samples = [("_bucket", each) for each in by("le", [*map(str, bounds), "+Inf"])]
    return Family(HISTOGRAM, name, text, [*samples, ("_count", {}), ("_sum", {})], values)


def by(label: str, kinds: Iterable[str]) -> list[Labels]:
    return [{label: kind} for kind in kinds]


def _function(values: Values[T]) -> Callable[[T], Sequence[float]]:
    return methodcaller("all", values) if isinstance(values, str) else values
