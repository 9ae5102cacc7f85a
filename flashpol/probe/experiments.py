"""The wire experiments: what is sent, in which pieces, and which servers it is for. Then one host, looked at.

Each experiment is a row: the steps of one connection for a request. The gentle ones are a handful of connections;
the others come with `thorough`. What an experiment shows is for `findings` to say.
"""

import dataclasses
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from operator import attrgetter
from time import monotonic, sleep
from typing import NamedTuple

from flashpol.probe.exchange import Address, Exchange, Reached, Step, Timeouts, exchange
from flashpol.probe.model import Observation, Question, Role, Target, request
from flashpol.probe.reply import NUL, REQUEST
from flashpol.probe.throttle import AT_ONCE, Throttle, side_by_side

# Addresses of a name that are asked; a host with more has them for load, and they are alike.
MOST_ADDRESSES = 8
# Seconds between the parts of a request: longer than a segment takes to arrive, shorter than anybody's deadline.
PAUSE = 0.2
_DRIP = 0.02
# Longer than a server waits for a terminator (flashpol: 0.15 s), so that it is known which part of it was answered.
_STAGE = 1.0
# Where servers end up that were to listen on 843: a digit too many, one of 8430, which needs no root.
ELSEWHERE = (10843, 8430, 1843)
# More than the request, as clients with a protocol of their own send it at once.
_MORE = b"x" * 64


class Experiment(NamedTuple):
    """`steps` of the request, for targets that it `suits`."""

    name: str
    steps: Callable[[bytes], tuple[Step, ...]]
    thorough: bool = True
    suits: Callable[[Target], bool] = attrgetter("serves")
    for_silverlight: bool = True
    times: int = 1


def _split(whole: bytes) -> tuple[Step, ...]:
    """Nothing at first: a server that speaks now has not read the request."""
    return Step(whole[:11], PAUSE), Step(whole[11:], PAUSE)


def _drip(whole: bytes) -> tuple[Step, ...]:
    return tuple(Step(whole[at : at + 1], _DRIP) for at in range(len(whole)))


def _in_stages(whole: bytes) -> tuple[Step, ...]:
    """What servers wait for that were written without a client at hand: the request as the other dialect ends it, or
    the end of a line.
    """
    other = REQUEST if whole.endswith(NUL) else REQUEST + NUL
    return Step(other), Step(b"\r\n", _STAGE)


def _hello(_: bytes) -> tuple[Step, ...]:
    """What a client of TLS begins with."""
    import ssl  # 10 ms, for ports that are no policy server's

    context, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname = False  # nothing is trusted to it
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
    Experiment("tls", _hello, thorough=False, suits=attrgetter("hangs_up")),
)


def resolve(host: str) -> list[Address]:
    """The addresses of a name, in the order in which clients try them. Raises OSError and UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [
        Address(family, str(target[0]), int(target[3]) if len(target) == 4 else 0)
        for family, _, _, _, target in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(addresses))


def observe(host: str, question: Question, throttle: Throttle | None = None) -> Observation:
    """Ask one host as the clients do, and examine what answers. Contacts its addresses, and nobody else.

    Never raises for what name servers, networks and servers do. A name that means no address is an Observation that
    says why.
    """
    began = monotonic()
    try:
        addresses = resolve(host)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of DNS, a label of 70 characters
        why = getattr(error, "strerror", None) or str(error)
        return Observation(host, question, unresolved=why, seconds=monotonic() - began)
    throttle = throttle or Throttle()
    asked = addresses[:MOST_ADDRESSES]
    targets = side_by_side(
        [
            partial(_ask, role, address, port, question, throttle)
            for address in asked
            for role, port in question.ports().items()
        ],
        AT_ONCE,
    )
    side_by_side([partial(_examine, target, question, throttle) for target in targets], AT_ONCE)
    if question.thorough:
        targets += side_by_side(
            [
                partial(_ask, Role.ELSEWHERE, target.address, port, question, throttle)
                for target in targets
                if target.role is Role.MASTER and target.asked.reached in (Reached.REFUSED, Reached.DROPPED)
                for port in ELSEWHERE
                if port not in question.ports().values()
            ],
            AT_ONCE,
        )
    by_address = {address: tuple(target for target in targets if target.address == address) for address in asked}
    left_out = len(addresses) - len(asked)
    return Observation(host, question, by_address, "", left_out, throttle.connections, monotonic() - began)


def _ask(role: Role, address: Address, port: int, question: Question, throttle: Throttle) -> Target:
    with throttle.connection():
        return Target(role, address, port, exchange(address, port, [Step(request(role))], question.timeouts))


def _examine(target: Target, question: Question, throttle: Throttle) -> None:
    if not target.serves and (target.role is Role.DESTINATION or target.asked.reached is not Reached.CONNECTED):
        return  # an application need not answer policy requests, and is not to be bothered with more of them
    if not target.asked.silent:  # a reply that was lost may come the next time
        target.tried["again"] = [
            _once(target, [Step(target.request)], question.timeouts, throttle) for _ in range(question.tries - 1)
        ]
    if target.serves and question.thorough:
        target.tried["idle"], target.tried["beside"] = _beside_a_silent_one(target, question, throttle)
    for experiment in _chosen(target, question):
        steps = experiment.steps(target.request)
        timeouts = question.timeouts if target.serves else _brief(question.timeouts)
        target.tried[experiment.name] = [_once(target, steps, timeouts, throttle) for _ in range(experiment.times)]


def _chosen(target: Target, question: Question) -> Iterator[Experiment]:
    for experiment in EXPERIMENTS:
        asked_for = question.thorough or not experiment.thorough
        if (
            experiment.suits(target)
            and asked_for
            and (experiment.for_silverlight or target.role is not Role.SILVERLIGHT)
        ):
            yield experiment


def _brief(timeouts: Timeouts) -> Timeouts:
    """For those that were silent for long already: Nagios gives a check ten seconds."""
    return dataclasses.replace(timeouts, reply=min(timeouts.reply, _STAGE))


def _once(target: Target, steps: list[Step] | tuple[Step, ...], timeouts: Timeouts, throttle: Throttle) -> Exchange:
    with throttle.connection():
        return exchange(target.address, target.port, steps, timeouts)


def _beside_a_silent_one(
    target: Target, question: Question, throttle: Throttle
) -> tuple[list[Exchange], list[Exchange]]:
    """One connection that says nothing for `question.idle` seconds, and one that asks while it is there."""
    timeouts = dataclasses.replace(question.timeouts, reply=question.idle)

    def idle() -> Exchange:
        with throttle.connection():
            return exchange(target.address, target.port, (), timeouts)

    def beside() -> Exchange:
        sleep(PAUSE)  # until the silent one is accepted, by a server that takes one after the other
        return _once(target, [Step(target.request)], question.timeouts, throttle)

    silent, asking = side_by_side([idle, beside], 2)
    return [silent], [asking]
