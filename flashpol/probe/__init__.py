"""Asks a policy server as Flash Player does, and says what is wrong.

    >>> from flashpol.probe import Question, experiments, findings
    >>> observation = experiments.observe("games.example.com", Question(port=1935))  # doctest: +SKIP
    >>> [finding.code for finding in findings.of(observation)]  # doctest: +SKIP
    []

    wire       one connection, recorded       question  what is asked, the targets, what was seen there
    reply      what the bytes are             throttle      how fast, how many at once
    examine    the experiments; one host      search    what each client concludes, and when
    findings   one table; docs/probe.md       report    for people, programs, Nagios, Prometheus

Uses the standard library and `flashpol.policy` only: no gevent, no compiled code. The rows of tables are NamedTuples
and what has behaviour is a dataclass: those take 0.7 ms each to make, and a health check starts every minute.
"""

from flashpol.probe.exchange import Timeouts
from flashpol.probe.model import Observation, Question

__all__ = ["Observation", "Question", "Timeouts"]
