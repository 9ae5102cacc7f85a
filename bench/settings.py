"""The settings of a run: rounds, CPUs, quick or full, with or without flashpol."""

import math
import os
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
FULL = 9  # rounds of the figures that are published: an odd number, so that the median is a measurement
LEAST = 3  # rounds that have a median
MAX_LOAD_CPUS = 3  # enough for the cheapest server, which takes less than half of the CPU of one generator


@dataclass(frozen=True)
class Settings:
    """CPUs and length of a run. On a machine with one CPU `load_cpus` is the servers'. quick: only test the suite."""

    rounds: int
    server_cpu: int
    load_cpus: tuple[int, ...]
    peers_only: bool
    quick: bool = False

    @classmethod
    def on_this_machine(cls, rounds: int, peers_only: bool, quick: bool = False) -> "Settings":
        """The servers get the last CPU (the first tends to have the interrupts), the load some of the others."""
        *others, last = sorted(os.sched_getaffinity(0))
        return cls(rounds, last, tuple(others[:MAX_LOAD_CPUS]) or (last,), peers_only, quick)

    @property
    def apart(self) -> bool:
        """Whether load and servers have separate CPUs."""
        return self.server_cpu not in self.load_cpus

    def turns(self, full: int) -> int:
        """How many of the turns of a run of `FULL` rounds this run has; a run of fewer rounds has at least `LEAST`."""
        if self.quick:
            return min(full, self.rounds)
        return max(min(full, LEAST, self.rounds), math.ceil(full * self.rounds / FULL))

    def either(self, thorough: T, quick: T) -> T:
        """The value for a run like this."""
        return quick if self.quick else thorough
