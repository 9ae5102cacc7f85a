"""What an attack is, and one run of it: the server, the time that the attack has, and a description of its load."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from faults.server import Server


@dataclass
class AttackRun:
    """One run of an attack. `seconds`: how long it lasts. `load`: what it did, in words, for the table."""

    server: Server
    seconds: float
    load: str = ""

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds until the end, at least 0."""
        return max(0.0, self.end - time.monotonic())

    def wait(self) -> None:
        """Sleep until the end."""
        time.sleep(self.left)

    def pause(self, seconds: float) -> None:
        """Sleep for so many seconds, but not past the end."""
        time.sleep(min(seconds, self.left))

    def every(self, seconds: float) -> Iterator[int]:
        """Count from 0, one number every so many seconds, until the end."""
        number = 0
        due = time.monotonic()
        while self.left:
            yield number
            number += 1
            due = max(due + seconds, time.monotonic())
            time.sleep(max(0.0, min(due, self.end) - time.monotonic()))


def _default_server() -> Server:
    return Server()


@dataclass(frozen=True)
class Attack:
    """name: on the command line. run: attacks until the run's end. server: starts the server to attack.

    seconds: length of a full run. own_network: it may run only in a network namespace of its own.
    """

    name: str
    run: Callable[[AttackRun], None]
    server: Callable[[], AbstractContextManager[Server]] = _default_server
    seconds: float = 6.0
    own_network: bool = False


AttackFunction = Callable[[AttackRun], None]


@dataclass
class AttackGroup:
    """Attacks of one kind: a file in `attacks/`, which registers them with a decorator."""

    attacks: list[Attack] = field(default_factory=list)

    def attack(self, name: str, **options: object) -> Callable[[AttackFunction], AttackFunction]:
        """Register the function as this attack; options as for `Attack`."""

        def register(run: AttackFunction) -> AttackFunction:
            self.attacks.append(Attack(name, run, **options))  # type: ignore[arg-type]
            return run

        return register


def with_settings(**settings: object) -> Callable[[], Server]:
    """A server with these settings in [server]."""
    lines: Mapping[str, object] = settings
    return lambda: Server(lines)
