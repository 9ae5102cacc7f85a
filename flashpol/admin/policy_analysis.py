"""What lint and decide say about the policies that are served: computed once, in a thread beside the requests.

Linting a large policy takes some tenths of a second. A thread does it, one policy at a time, so that the endpoint goes
on serving. Results are kept: one analysis for each policy, and its findings for each port that it is served from.
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
from flashpol.policy.decoding import decode

# Seconds without work after which the thread ends: most of the time there is none.
IDLE = 0.5

T = TypeVar("T")


class PolicyAnalysis:
    """One policy, from whatever port it is served."""

    def __init__(self, source: bytes) -> None:
        self.decider = Decider(source)
        self.lines = re.split("\r\n|\r|\n", text_of(source))


def text_of(source: bytes) -> str:
    try:
        return decode(source)
    except PolicyError:  # cannot be, since it is served; but a page that shows most of it is better than none
        return source.decode("utf-8", "replace")


def same_policy(listeners: Sequence[ListenerInfo]) -> list[list[ListenerInfo]]:
    """Groups of listeners that serve the same policy from the same port, so that it is shown once."""
    groups: dict[object, list[ListenerInfo]] = {}
    for each in listeners:
        groups.setdefault((each.policy, each.reply, each.dialect, each.served_from), []).append(each)
    return list(groups.values())


class AnalysisCache:
    """The analyses of all policies, by listener. A method that needs one blocks the calling greenlet until it is there.

    groups: the listeners, as `same_policy` groups them.
    """

    def __init__(self, listeners: Sequence[ListenerInfo]) -> None:
        self.groups = same_policy(listeners)
        self._listeners = {each.listener: each for each in listeners}
        self._thread: Any = None
        self._results: dict[Any, Any] = {}

    def __contains__(self, listener: str) -> bool:
        return listener in self._listeners

    def run(self) -> None:
        """Lint all policies, one after the other."""
        for group in self.groups:
            self.findings(group[0].listener)

    @property
    def linted(self) -> list[tuple[Sequence[ListenerInfo], list[Finding]]]:
        """The groups that have been linted so far, with their findings. Does not block, and leaves out a group whose
        linting failed, such as for want of memory: the status document is needed then."""
        results = ((group, self._results.get(_lint_key(group[0]))) for group in self.groups)
        return [(group, result.get()) for group, result in results if result is not None and result.successful()]

    def listener(self, name: str) -> ListenerInfo:
        return self._listeners[name]

    def analysis(self, listener: str) -> PolicyAnalysis:
        """The policy that this listener serves."""
        source = self._listeners[listener].source
        return self.once((PolicyAnalysis, source), partial(PolicyAnalysis, source))

    def findings(self, listener: str) -> list[Finding]:
        """Those of that policy from this listener's port: listeners on one port of several addresses share them."""
        each = self._listeners[listener]
        return self.once(
            _lint_key(each), partial(lint, each.source, served_from=each.served_from, clients=each.clients)
        )

    def once(self, key: object, work: Callable[[], T]) -> T:
        """The result of `work`, which the thread calls unless this key has a result already."""
        if key not in self._results:
            self._thread = self._thread or ThreadPool(1, idle_task_timeout=IDLE)
            self._results[key] = self._thread.spawn(work)
        result: T = self._results[key].get()
        return result


def _lint_key(each: ListenerInfo) -> object:
    return lint, each.source, each.served_from, each.clients
