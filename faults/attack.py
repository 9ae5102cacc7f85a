"""What an attack is, and one run of it: the server, the time that the attack has, and a description of its load."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from faults.places import ONE_PLACE, Row
from faults.server import Server


@dataclass
class AttackRun:
    """One run of an attack. `seconds`: how long it lasts. `load`: what it did, in words, for the table.

    missed: requirements of the attack's own that were not met, in words.
    """

    server: Server
    seconds: float
    load: str = ""
    missed: list[str] = field(default_factory=list)

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

    def wait_after(self, seconds: float) -> None:
        """Sleep for so many seconds, also past the end."""
        time.sleep(seconds)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call this in a thread, so many seconds from now."""
        timer = threading.Timer(seconds, what)
        timer.daemon = True
        timer.start()

    def every(self, seconds: float) -> Iterator[int]:
        """Count from 0, one number every so many seconds, until the end."""
        number = 0
        due = time.monotonic()
        while self.left:
            yield number
            number += 1
            due = max(due + seconds, time.monotonic())
            time.sleep(max(0.0, min(due, self.end) - time.monotonic()))

    def require(self, what: str, count: int, at_most: int) -> None:
        """A count that must not be larger, whatever the good clients notice."""
        if count > at_most:
            self.missed.append(f"{count:,} {what}, at most {at_most:,} expected")


def _default_server() -> Server:
    return Server()


@dataclass(frozen=True)
class Attack:
    """name: on the command line. run: attacks until the run's end. server: starts the server to attack.

    rows: its good clients. max_ratio: the most that their p99 may grow. seconds, quick: length of a full and of a quick
    run; 0: a quick run leaves it out. own_network: it may run only in a network namespace of its own. tls: it needs a
    server and clients with TLS.
    """

    name: str
    run: Callable[[AttackRun], None]
    server: Callable[[], AbstractContextManager[Server]] = _default_server
    rows: tuple[Row, ...] = ONE_PLACE
    max_ratio: float = 2.0
    seconds: float = 6.0
    quick: float = 2.0
    own_network: bool = False
    tls: bool = False


AttackFunction = Callable[[AttackRun], None]


@dataclass
class AttackGroup:
    """Attacks of one kind: a file in `attacks/`, which registers them with a decorator. defaults: options of all."""

    attacks: list[Attack] = field(default_factory=list)
    defaults: Mapping[str, object] = field(default_factory=dict)

    def attack(self, name: str, **options: object) -> Callable[[AttackFunction], AttackFunction]:
        """Register the function as this attack; options as for `Attack`."""

        def register(run: AttackFunction) -> AttackFunction:
            self.attacks.append(Attack(name, run, **{**self.defaults, **options}))  # type: ignore[arg-type]
            return run

        return register


def with_settings(**settings: object) -> Callable[[], Server]:
    """A server with these settings in [server]."""
    lines: Mapping[str, object] = settings
    return lambda: Server(lines)
