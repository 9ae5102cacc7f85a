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

from flashpol.probe.exchange import Address, Exchange, Patience, Reached, Step, exchange
from flashpol.probe.model import Observation, Place, Question, Role, request
from flashpol.probe.reply import NUL, REQUEST
from flashpol.probe.throttle import AT_ONCE, Pace, side_by_side

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
    """`steps` of the request, for places that it `suits`."""

    name: str
    steps: Callable[[bytes], tuple[Step, ...]]
    thorough: bool = True
    suits: Callable[[Place], bool] = attrgetter("serves")
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
        Address(family, str(place[0]), int(place[3]) if len(place) == 4 else 0)
        for family, _, _, _, place in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    return list(dict.fromkeys(addresses))


def observe(host: str, question: Question, pace: Pace | None = None) -> Observation:
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
    pace = pace or Pace()
    asked = addresses[:MOST_ADDRESSES]
    places = side_by_side(
        [
            partial(_ask, role, address, port, question, pace)
            for address in asked
            for role, port in question.ports().items()
        ],
        AT_ONCE,
    )
    side_by_side([partial(_examine, place, question, pace) for place in places], AT_ONCE)
    if question.thorough:
        places += side_by_side(
            [
                partial(_ask, Role.ELSEWHERE, place.address, port, question, pace)
                for place in places
                if place.role is Role.MASTER and place.asked.reached in (Reached.REFUSED, Reached.DROPPED)
                for port in ELSEWHERE
                if port not in question.ports().values()
            ],
            AT_ONCE,
        )
    by_address = {address: tuple(place for place in places if place.address == address) for address in asked}
    left_out = len(addresses) - len(asked)
    return Observation(host, question, by_address, "", left_out, pace.connections, monotonic() - began)


def _ask(role: Role, address: Address, port: int, question: Question, pace: Pace) -> Place:
    with pace.connection():
        return Place(role, address, port, exchange(address, port, [Step(request(role))], question.patience))


def _examine(place: Place, question: Question, pace: Pace) -> None:
    if not place.serves and (place.role is Role.DESTINATION or place.asked.reached is not Reached.CONNECTED):
        return  # an application need not answer policy requests, and is not to be bothered with more of them
    if not place.asked.silent:  # a reply that was lost may come the next time
        place.tried["again"] = [
            _once(place, [Step(place.request)], question.patience, pace) for _ in range(question.tries - 1)
        ]
    if place.serves and question.thorough:
        place.tried["idle"], place.tried["beside"] = _beside_a_silent_one(place, question, pace)
    for experiment in _chosen(place, question):
        steps = experiment.steps(place.request)
        patience = question.patience if place.serves else _brief(question.patience)
        place.tried[experiment.name] = [_once(place, steps, patience, pace) for _ in range(experiment.times)]


def _chosen(place: Place, question: Question) -> Iterator[Experiment]:
    for experiment in EXPERIMENTS:
        asked_for = question.thorough or not experiment.thorough
        if experiment.suits(place) and asked_for and (experiment.for_silverlight or place.role is not Role.SILVERLIGHT):
            yield experiment


def _brief(patience: Patience) -> Patience:
    """For those that were silent for long already: Nagios gives a check ten seconds."""
    return dataclasses.replace(patience, reply=min(patience.reply, _STAGE))


def _once(place: Place, steps: list[Step] | tuple[Step, ...], patience: Patience, pace: Pace) -> Exchange:
    with pace.connection():
        return exchange(place.address, place.port, steps, patience)


def _beside_a_silent_one(place: Place, question: Question, pace: Pace) -> tuple[list[Exchange], list[Exchange]]:
    """One connection that says nothing for `question.idle` seconds, and one that asks while it is there."""
    patience = dataclasses.replace(question.patience, reply=question.idle)

    def idle() -> Exchange:
        with pace.connection():
            return exchange(place.address, place.port, (), patience)

    def beside() -> Exchange:
        sleep(PAUSE)  # until the silent one is accepted, by a server that takes one after the other
        return _once(place, [Step(place.request)], question.patience, pace)

    silent, asking = side_by_side([idle, beside], 2)
    return [silent], [asking]
