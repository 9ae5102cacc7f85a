"""Loads a configuration in a process of its own (`forked_task`).

A load reads files, looks up users and lints policies: a disk that hangs may hold it up for any time, 1,000 listeners
with a policy each take 5 s. The process logs the warnings of the load itself, and sends:

    Snapshot …    the files that it is going to read, so that a watch of them knows what was tried
    Plan          or a Refusal, which is the reason as text

Killing the process gives the load up.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flashpol.config import ConfigError
from flashpol.log.handler import log
from flashpol.serving.file_watch import Snapshot
from flashpol.serving.plan import Loader, Plan
from flashpol.supervisor.child import describe_exit
from flashpol.supervisor.forked_task import ForkedTask, Send

NAME = "loader"


@dataclass(frozen=True)
class Refusal:
    """Why there is no plan: one line."""

    why: str


class LoadProcess(ForkedTask):
    """One load; arguments as for `ForkedTask`."""

    def __init__(self, loader: Loader, close_inherited: Callable[[], object]) -> None:
        self.snapshot: Snapshot | None = None  # the last one that it sent
        super().__init__(NAME, lambda send: _load(loader, send), close_inherited)

    def poll(self) -> Plan | Refusal | None:
        """The outcome; None while there is none yet."""
        outcome = self._outcome()
        if not self.ended:
            return None
        return outcome or Refusal(f"the process that loads it {describe_exit(self.exit_code or 0)}")

    def give_up(self) -> None:
        """Kill the process. `snapshot` is what it sent before."""
        self._outcome()
        self.kill()

    def _outcome(self) -> Plan | Refusal | None:
        outcome = None
        for item in self.received():
            if isinstance(item, Snapshot):
                self.snapshot = item
            elif isinstance(item, Plan | Refusal):
                outcome = item
        return outcome


def _load(loader: Loader, send: Send) -> None:
    outcome: Plan | Refusal
    try:
        outcome = loader.load(send)
    except ConfigError as error:
        outcome = Refusal(str(error))
    except Exception as error:  # a bug, which must not end what serves
        log.exception("the configuration cannot be loaded", extra={"event": "load-failed"})
        outcome = Refusal(f"{type(error).__name__}: {error}")
    send(outcome)
