"""Lines between workers: which configurations need them, and how many descriptors they take.

A line is a pair of connected Unix sockets. The arbiter makes it and sends one end to each of two workers
(`supervisor.worker_lines`), which know each other by their incarnations. docs/architecture.md, "Lines between workers",
says what they are for.
"""

from flashpol.config import Config

# A tunnel id names the worker that has the session by two characters of base 62.
INCARNATIONS = 62 * 62
# Generations that have processes at the same time: one that serves or starts, and those that drain.
MAX_GENERATIONS = 4


def needs_lines(config: Config) -> bool:
    """A worker of this configuration gets requests whose session another worker may have."""
    return any(listener.rtmpt for listener in config.listeners)


def count_line_files(config: Config) -> int:
    """Descriptors of a worker for its lines: one for each other worker, while as many generations run as can. A
    generation with more workers than this one is not foreseen."""
    return MAX_GENERATIONS * config.server.worker_count - 1 if needs_lines(config) else 0
