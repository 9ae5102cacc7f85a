"""The experiments: which bytes are sent, in which pieces, to which servers. `observe` probes one host with them.

Each experiment is a row of `EXPERIMENTS`: the steps of one connection, made from the request. The gentle ones take a
handful of connections; the others run with `thorough`. `findings` interprets the results.
"""

import dataclasses
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import attrgetter
from time import monotonic, sleep
from typing import NamedTuple

from flashpol.probe.exchange import Address, Exchange, Reached, Step, Timeouts, exchange
from flashpol.probe.model import Observation, Question, Role, Target, request
from flashpol.probe.reply import NUL, REQUEST
from flashpol.probe.throttle import MAX_CONCURRENT, Throttle

# Addresses of one name that are probed. A host with more of them uses them for load balancing, and they are alike.
MAX_ADDRESSES = 8
# Seconds between the parts of a request: longer than a segment takes to arrive, shorter than any server's deadline.
PAUSE = 0.2
_DRIP = 0.02
# Longer than a server waits for a terminator (flashpol: 0.15 s), so that the record shows which part got the reply.
_STAGE = 1.0
# Ports that are opened by mistake instead of 843: one digit too many; 8430, which needs no root; 1843.
ELSEWHERE = (10843, 8430, 1843)
# Bytes after the request, as sent by clients whose own protocol follows at once.
_MORE = b"x" * 64


class Experiment(NamedTuple):
    """`steps` makes the steps of one connection from the request; `suits` selects the targets to run it on."""

    name: str
    steps: Callable[[bytes], tuple[Step, ...]]
    thorough: bool = True
    suits: Callable[[Target], bool] = attrgetter("serves")
    for_silverlight: bool = True
    times: int = 1


def _split(whole: bytes) -> tuple[Step, ...]:
    """Pause before the first part: a server that sends something now has not read the request."""
    return Step(whole[:11], PAUSE), Step(whole[11:], PAUSE)


def _drip(whole: bytes) -> tuple[Step, ...]:
    return tuple(Step(whole[at : at + 1], _DRIP) for at in range(len(whole)))


def _in_stages(whole: bytes) -> tuple[Step, ...]:
    """End the request as the other dialect does, then with a newline: servers written without a client expect these."""
    other = REQUEST if whole.endswith(NUL) else REQUEST + NUL
    return Step(other), Step(b"\r\n", _STAGE)


def _client_hello(_: bytes) -> tuple[Step, ...]:
    """Begin a TLS handshake."""
    import ssl  # 10 ms, needed only for ports that do not serve a policy

    context, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname = False  # the handshake is never completed
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return (Step(outgoing.read()),)


EXPERIMENTS = (
    Experiment("split", _split, thorough=False),
    Experiment("drip", _drip),
    Experiment("more", lambda whole: (Step(whole + _MORE),), times=5),
    Experiment("newline", lambda _: (Step(REQUEST + b"\r\n"),), for_silverlight=False),
    Experiment("bare", lambda _: (Step(REQUEST),), for_silverlight=False),
    Experiment("half-close", lambda whole: (Step(whole, finish=True),)),
    Experiment("http", lambda _: (Step(b"GET / HTTP/1.0\r\n\r\n"),)),
    Experiment(
        "half-close", lambda whole: (Step(whole, finish=True),), thorough=False, suits=attrgetter("asked.silent")
    ),
    Experiment("in stages", _in_stages, thorough=False, suits=attrgetter("unanswered")),
    Experiment("tls", _client_hello, thorough=False, suits=attrgetter("hangs_up")),
)


def resolve(host: str) -> list[Address]:
    """Return the addresses of a name, in the order in which clients try them. Raises OSError and UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [
        Address(family, str(name[0]), int(name[3]) if len(name) == 4 else 0)
        for family, _, _, _, name in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(addresses))


def observe(host: str, question: Question, throttle: Throttle | None = None) -> Observation:
    """Ask one host as the clients do, and run the experiments that suit its replies. Contacts only its addresses.

    Never raises because of name servers, networks or servers. The Observation of a name without an address says why.
    """
    began = monotonic()
    try:
        addresses = resolve(host)
    except (OSError, UnicodeError) as error:  # UnicodeError: not a DNS name, such as a label of 70 characters
        why = getattr(error, "strerror", None) or str(error)
        return Observation(host, question, unresolved=why, seconds=monotonic() - began)
    prober = _Prober(question, throttle or Throttle())
    probed = addresses[:MAX_ADDRESSES]
    targets = prober.probe(probed)
    by_address = {address: tuple(target for target in targets if target.address == address) for address in probed}
    left_out = len(addresses) - len(probed)
    return Observation(
        host, question, by_address, "", left_out, prober.throttle.connections, monotonic() - began
    )  # fmt: skip


class _Prober:
    """Opens the connections to one host."""

    def __init__(self, question: Question, throttle: Throttle) -> None:
        self.throttle = throttle
        self._question = question

    def probe(self, addresses: Sequence[Address]) -> list[Target]:
        """Ask at every port of every address, then run the experiments; several targets at a time."""
        with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
            asked = [(role, address, port) for address in addresses for role, port in self._question.ports().items()]
            targets = list(pool.map(lambda one: self._ask(*one), asked))
            list(pool.map(self._examine, targets))
            if self._question.thorough:
                targets += pool.map(lambda one: self._ask(*one), list(self._elsewhere(targets)))
        return targets

    def _elsewhere(self, targets: Sequence[Target]) -> Iterator[tuple[Role, Address, int]]:
        """The ports that are often opened instead of 843, where 843 did not accept."""
        for target in targets:
            if target.role is Role.MASTER and target.asked.reached in (Reached.REFUSED, Reached.DROPPED):
                for port in ELSEWHERE:
                    if port not in self._question.ports().values():
                        yield Role.ELSEWHERE, target.address, port

    def _ask(self, role: Role, address: Address, port: int) -> Target:
        with self.throttle.connection():
            asked = exchange(address, port, [Step(request(role))], self._question.timeouts)
        return Target(role, address, port, asked)

    def _examine(self, target: Target) -> None:
        if not target.serves and (target.role is Role.DESTINATION or target.asked.reached is not Reached.CONNECTED):
            return  # an application need not reply to policy requests: it is not sent more of them
        timeouts = self._question.timeouts
        if not target.asked.silent:  # a reply that was lost may come the next time
            target.tried["again"] = [
                self._run(target, [Step(target.request)], timeouts) for _ in range(self._question.tries - 1)
            ]
        if target.serves and self._question.thorough:
            target.tried["idle"], target.tried["beside"] = self._beside_a_silent_connection(target)
        for experiment in self._chosen(target):
            steps = experiment.steps(target.request)
            target.tried[experiment.name] = [
                self._run(target, steps, timeouts if target.serves else _brief(timeouts))
                for _ in range(experiment.times)
            ]

    def _chosen(self, target: Target) -> Iterator[Experiment]:
        for experiment in EXPERIMENTS:
            wanted = self._question.thorough or not experiment.thorough
            right_dialect = experiment.for_silverlight or target.role is not Role.SILVERLIGHT
            if experiment.suits(target) and wanted and right_dialect:
                yield experiment

    def _run(self, target: Target, steps: Sequence[Step], timeouts: Timeouts) -> Exchange:
        with self.throttle.connection():
            return exchange(target.address, target.port, steps, timeouts)

    def _beside_a_silent_connection(self, target: Target) -> tuple[list[Exchange], list[Exchange]]:
        """Open a connection that sends nothing for `question.idle` seconds, and ask on another one meanwhile."""
        timeouts = dataclasses.replace(self._question.timeouts, reply=self._question.idle)
        with ThreadPoolExecutor(1) as pool:
            silent = pool.submit(self._run, target, (), timeouts)
            sleep(PAUSE)  # until a server that serves one connection after the other has accepted the silent one
            asking = self._run(target, [Step(target.request)], self._question.timeouts)
            return [silent.result()], [asking]


def _brief(timeouts: Timeouts) -> Timeouts:
    """Shorter, for servers that were silent already: Nagios gives a whole check ten seconds."""
    return dataclasses.replace(timeouts, reply=min(timeouts.reply, _STAGE))
