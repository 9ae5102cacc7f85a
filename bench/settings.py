"""What a run is told: rounds, CPUs, and whether flashpol takes part."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`server_cpu` and `load_cpu` are the same on a machine with one CPU."""

    rounds: int
    server_cpu: int
    load_cpu: int
    peers_only: bool

    @classmethod
    def on_this_machine(cls, rounds: int, peers_only: bool) -> "Settings":
        """The last CPU for the servers (the first tends to have the interrupts), the first for the load."""
        cpus = sorted(os.sched_getaffinity(0))
        return cls(rounds, cpus[-1], cpus[0], peers_only)
