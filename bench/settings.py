"""What a run is told: rounds, CPUs, how thorough, and whether flashpol takes part."""

import os
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
GENERATORS = 3  # processes, with a CPU each: enough for the cheapest server, which costs less than half of one's CPU


@dataclass(frozen=True)
class Settings:
    """Where and how. On a machine with one CPU `load_cpus` is that of the servers. quick: see that everything works."""

    rounds: int
    server_cpu: int
    load_cpus: tuple[int, ...]
    peers_only: bool
    quick: bool = False

    @classmethod
    def on_this_machine(cls, rounds: int, peers_only: bool, quick: bool = False) -> "Settings":
        """The last CPU for the servers (the first tends to have the interrupts), some of the others for the load."""
        *others, last = sorted(os.sched_getaffinity(0))
        return cls(rounds, last, tuple(others[:GENERATORS]) or (last,), peers_only, quick)

    @property
    def apart(self) -> bool:
        """Load and servers have a CPU each."""
        return self.server_cpu not in self.load_cpus

    def either(self, thorough: T, quick: T) -> T:
        """Which of the two a run like this is to use."""
        return quick if self.quick else thorough
