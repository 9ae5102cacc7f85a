"""What lint and decide say of the policies that are served: worked out when first asked for, once, beside the requests.

A large policy takes some tenths of a second to lint. That is done in a thread, one policy at a time, so the endpoint
answers others meanwhile; no more than one result is kept for each policy of the configuration.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gevent.threadpool import ThreadPool

# Loaded with this module: once the process has no rights and another root folder it opens no files.
import flashpol.policy.clients
import flashpol.policy.rules  # noqa: F401
from flashpol.admin.view import PolicyFacts
from flashpol.policy import Decider, Finding, PolicyError, lint
from flashpol.policy.source import decode

# Seconds after which the thread ends that has nothing to read: most of the time there is none.
IDLE = 0.5


class Reading:
    """One policy as it is served from one port."""

    def __init__(self, facts: PolicyFacts) -> None:
        self.findings: list[Finding] = lint(facts.source, served_from=facts.port, clients=facts.clients)
        self.decider = Decider(facts.source)
        self.lines = re.split("\r\n|\r|\n", text_of(facts.source))


def text_of(source: bytes) -> str:
    try:
        return decode(source)
    except PolicyError:  # cannot be: it is served. But a page that shows most of it is better than none.
        return source.decode("utf-8", "replace")


class Library:
    """The readings of all policies, by listener."""

    def __init__(self, facts: Sequence[PolicyFacts]) -> None:
        self._facts = {each.listener: each for each in facts}
        self._thread: Any = None
        self._results: dict[Any, Any] = {}

    def __contains__(self, listener: str) -> bool:
        return listener in self._facts

    def facts(self, listener: str) -> PolicyFacts:
        return self._facts[listener]

    def read(self, listener: str) -> Reading:
        """Of the policy this listener serves; waits until it is there."""
        facts = self._facts[listener]
        # Listeners with the same policy on the same port of several addresses share it.
        key = (facts.reply, facts.port, facts.clients)
        if key not in self._results:
            self._results[key] = self._in_thread(partial(Reading, facts))
        reading: Reading = self._results[key].get()
        return reading

    def _in_thread(self, work: Callable[[], Reading]) -> Any:
        """A result to come."""
        self._thread = self._thread or ThreadPool(1, idle_task_timeout=IDLE)
        return self._thread.spawn(work)
