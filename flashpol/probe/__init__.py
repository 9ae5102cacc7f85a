"""Asks a policy server as Flash Player does, and explains what is wrong with it.

    >>> from flashpol.probe import Question, experiments, findings
    >>> observation = experiments.observe("games.example.com", Question(port=1935))  # doctest: +SKIP
    >>> [finding.code for finding in findings.of(observation)]  # doctest: +SKIP
    []

    exchange       one connection, recorded             model          the question, the targets, the observation
    reply          what the bytes of a reply are        recognition    what counts as a policy
    experiments    what is sent; one host probed        throttle       limits on rate and concurrency
    client_models  what each client concludes, when     findings       one registry; docs/probe.md
    report         text, JSON, Nagios, Prometheus           tls            what clients offer, handshakes, certificates

The package needs neither gevent nor compiled code, and prometheus_client only for metrics. Rows of tables are
NamedTuples and only classes with behaviour are dataclasses: each dataclass takes 0.7 ms to create, and a health check
starts this program every minute.
"""

from flashpol.probe.exchange import Timeouts
from flashpol.probe.model import Observation, Question

__all__ = ["Observation", "Question", "Timeouts"]
