"""What an attack has to work with: the server, the time that it has, and how to say what it did."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from faults.server import Server


@dataclass
class Scene:
    """One attack under way. `load`: what it did, in words, for the table."""

    server: Server
    lasting: float  # seconds
    load: str = ""

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.lasting

    @property
    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def wait(self) -> None:
        """Let it go on until its time is over."""
        time.sleep(self.left)

    def pause(self, seconds: float) -> None:
        """The same, but no longer than so many seconds."""
        time.sleep(min(seconds, self.left))

    def every(self, seconds: float) -> Iterator[int]:
        """Count from 0, a number every so many seconds, until the time is over."""
        number = 0
        due = time.monotonic()
        while self.left:
            yield number
            number += 1
            due = max(due + seconds, time.monotonic())
            time.sleep(max(0.0, min(due, self.until) - time.monotonic()))


def _plain() -> Server:
    return Server()


@dataclass(frozen=True)
class Attack:
    """name: of the command line. run: does it until the scene's time is over. server: what it is done to.

    lasting: seconds in a full run. own_network: only in a network of our own.
    """

    name: str
    run: Callable[[Scene], None]
    server: Callable[[], AbstractContextManager[Server]] = _plain
    lasting: float = 6.0
    own_network: bool = False


@dataclass
class Family:
    """Attacks of one kind, registered with a decorator."""

    attacks: list[Attack] = field(default_factory=list)

    def attack(self, name: str, **options: object) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
        """Register the function as this attack; options as for `Attack`."""

        def register(run: Callable[[Scene], None]) -> Callable[[Scene], None]:
            self.attacks.append(Attack(name, run, **options))  # type: ignore[arg-type]
            return run

        return register


def with_settings(**settings: object) -> Callable[[], Server]:
    """A server with these lines in [server]."""
    chosen: Mapping[str, object] = settings
    return lambda: Server(chosen)
