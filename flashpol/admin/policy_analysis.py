"""What lint and decide say of the policies that are served: worked out when first asked for, once, beside the requests.

A large policy takes some tenths of a second to lint. That is done in a thread, one policy at a time, so the endpoint
answers others meanwhile. Results are kept: one for each policy, and the findings for each port that they are asked for.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool

# Loaded with this module: once the process has no rights and another root folder it opens no files.
import flashpol.policy.clients
import flashpol.policy.rules  # noqa: F401
from flashpol.admin.context import ListenerInfo
from flashpol.policy import Decider, Finding, PolicyError, lint
from flashpol.policy.source import decode

# Seconds after which the thread ends that has nothing to read: most of the time there is none.
IDLE = 0.5

T = TypeVar("T")


class Reading:
    """One policy, from whatever port it is served."""

    def __init__(self, source: bytes) -> None:
        self.decider = Decider(source)
        self.lines = re.split("\r\n|\r|\n", text_of(source))


def text_of(source: bytes) -> str:
    try:
        return decode(source)
    except PolicyError:  # cannot be: it is served. But a page that shows most of it is better than none.
        return source.decode("utf-8", "replace")


class Library:
    """What is known of all policies, by listener. Whoever asks waits until it is there."""

    def __init__(self, facts: Sequence[ListenerInfo]) -> None:
        self._facts = {each.listener: each for each in facts}
        self._thread: Any = None
        self._results: dict[Any, Any] = {}

    def __contains__(self, listener: str) -> bool:
        return listener in self._facts

    def facts(self, listener: str) -> ListenerInfo:
        return self._facts[listener]

    def read(self, listener: str) -> Reading:
        """The policy this listener serves."""
        source = self._facts[listener].source
        return self.once((Reading, source), partial(Reading, source))

    def findings(self, listener: str) -> list[Finding]:
        """Of that policy, from the port of this listener: listeners on one port of several addresses share them."""
        facts = self._facts[listener]
        work = partial(lint, facts.source, served_from=facts.served_from, clients=facts.clients)
        return self.once((lint, facts.source, facts.served_from, facts.clients), work)

    def once(self, key: object, work: Callable[[], T]) -> T:
        """What `work` returns, which is done in the thread, and only if nobody asked for this key before."""
        if key not in self._results:
            self._thread = self._thread or ThreadPool(1, idle_task_timeout=IDLE)
            self._results[key] = self._thread.spawn(work)
        result: T = self._results[key].get()
        return result
