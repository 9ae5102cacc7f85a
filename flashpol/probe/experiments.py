"""The experiments: which bytes are sent, in which pieces, to which servers. `observe` probes one host with them.

Each experiment is a row of `EXPERIMENTS` or `DIAGNOSES`: the steps of one connection, made from the request. The gentle
ones take a handful of connections; the others run with `thorough`. `findings` interprets the results.

An experiment has a control. After one that got no policy the prober asks plainly again: if the server does not serve
that request either, it shuts the prober out (a limit, a ban). Then nothing is concluded from the experiment, and no
further one is run on that target. If it does, the experiment is repeated, and only a second failure counts. After a
diagnosis that got a reply where plain requests get none, a plain request is the control as well.

With `Question.tls` every connection is inside TLS. A certificate that is not trusted ends the first one; the request is
then sent on a second one, which accepts any certificate. Handshakes that offer less are experiments too, without a
request, and one connection asks in plain text.

`Question.websocket` and `Question.rtmp` have probers of their own, `websocket.prober` and `rtmp.prober`.
"""

import dataclasses
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import dropwhile
from operator import attrgetter
from time import monotonic, sleep, time
from typing import NamedTuple

from flashpol.probe.exchange import Address, Exchange, Reached, Step, Timeouts, exchange
from flashpol.probe.model import BEFORE_DESTINATION, Observation, Question, Role, Target, http_request, request
from flashpol.probe.reply import NUL, REQUEST, Reply
from flashpol.probe.rtmp.prober import RtmpProber
from flashpol.probe.throttle import MAX_CONCURRENT, Throttle
from flashpol.probe.tls.handshake import Outcome
from flashpol.probe.tls.offers import VERSIONS, Offer
from flashpol.probe.websocket.prober import WebSocketProber

# Addresses of one name that are probed. A host with more of them uses them for load balancing, and they are alike.
MAX_ADDRESSES = 8
# Seconds between the parts of a request: longer than a segment takes to arrive, shorter than any server's deadline.
PAUSE = 0.2
_DRIP = 0.02
# Before each further connection to a target: a server with one connection per address must see that the last is closed.
_GAP = 0.05
# Longer than a server waits for a terminator (flashpol: 0.15 s), so that the record shows which part got the reply.
_STAGE = 0.8
# Requests that no client sends. Adobe's documents print the first (Flash 8, "Learning ActionScript 2.0") and the second
# (Flash MX 2004 reference); the third is the same XML to a parser.
OTHER_REQUESTS = {
    "blank": b"<policy-file-request />",
    "cross-domain-request": b"<cross-domain-request/>",
    "end tag": b"<policy-file-request></policy-file-request>",
}
# Seconds for which an application should keep a silent connection. flashpol passes it to its upstream after 1 s, and
# closes it when the upstream refuses; a server that only serves policies closes it after 3 s or more.
APPLICATION_IDLE = 2.5
# Ports that are opened by mistake instead of 843: one digit too many; 8430, which needs no root; 1843.
ELSEWHERE = (10843, 8430, 1843)
# Plain requests after a failed experiment, until one of them gets a policy.
MAX_CONTROLS = 2
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
    expects_policy: bool = True  # without a policy it has failed, and needs a control


def _split(whole: bytes) -> tuple[Step, ...]:
    """Pause before the first part: a server that sends something now has not read the request."""
    return Step(whole[:11], PAUSE), Step(whole[11:], PAUSE)


def _drip(whole: bytes) -> tuple[Step, ...]:
    return tuple(Step(whole[at : at + 1], _DRIP) for at in range(len(whole)))


def _in_stages(whole: bytes) -> tuple[Step, ...]:
    """End the request as the other dialect does, then with a newline: servers written without a client expect these."""
    other = REQUEST if whole.endswith(NUL) else REQUEST + NUL
    return Step(other), Step(b"\r\n", _STAGE)


def _other_request(other: bytes, whole: bytes) -> tuple[Step, ...]:
    return (Step(whole.replace(REQUEST, other)),)


def _client_hello(_: bytes) -> tuple[Step, ...]:
    """Begin a TLS handshake."""
    import ssl  # 10 ms, needed only for ports that do not serve a policy

    context, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    context.check_hostname = False  # the handshake is never completed
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return (Step(outgoing.read()),)


def _serves_plain_text(target: Target) -> bool:
    return target.serves and not target.secure


# For targets that serve a policy.
EXPERIMENTS = (
    Experiment("split", _split, thorough=False),
    Experiment("drip", _drip),
    Experiment("more", lambda whole: (Step(whole + _MORE),), times=5),
    Experiment("half-close", lambda whole: (Step(whole, finish=True),)),
    Experiment("newline", lambda _: (Step(REQUEST + b"\r\n"),), suits=_serves_plain_text, for_silverlight=False),
    Experiment("bare", lambda _: (Step(REQUEST),), suits=_serves_plain_text, for_silverlight=False),
    Experiment("http", lambda _: (Step(b"GET / HTTP/1.0\r\n\r\n"),), expects_policy=False),
)
# For targets that serve none, until one of them gets a reply.
DIAGNOSES = (
    Experiment("in stages", _in_stages, thorough=False, suits=attrgetter("unanswered")),
    Experiment(
        "half-close", lambda whole: (Step(whole, finish=True),), thorough=False, suits=attrgetter("asked.silent")
    ),
    Experiment("tls", _client_hello, thorough=False, suits=lambda target: target.hangs_up and not target.secure),
    *(
        Experiment(name, partial(_other_request, other), thorough=False, suits=attrgetter("unanswered"))
        for name, other in OTHER_REQUESTS.items()
    ),
)


def _offer(host: str, question: Question) -> Offer:
    """What the clients offer together. Addresses are not sent as names; without CAs no certificate can be verified."""
    import ipaddress

    from flashpol.probe.tls.channel import machine_has_cas

    name = (question.server_name or host).removesuffix(".")
    with suppress(ValueError):
        ipaddress.ip_address(name)
        name = ""
    return Offer(name=name or None, verify=question.ca is not None or machine_has_cas(), ca=question.ca)


# Errors of getaddrinfo that say that the name does not exist or has no address; all others are the resolver's.
_NO_SUCH_NAME = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)


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
    began, now = monotonic(), time()
    try:
        addresses = resolve(question.connects_to(host))
    except (OSError, UnicodeError) as error:  # UnicodeError: not a DNS name, such as a label of 70 characters
        why = getattr(error, "strerror", None) or str(error)
        no_answer = isinstance(error, OSError) and error.errno not in _NO_SUCH_NAME
        return Observation(
            host, question, unresolved=why, resolver_failed=no_answer, seconds=monotonic() - began, time=now
        )  # fmt: skip
    throttle = throttle or Throttle()
    prober: _Prober | WebSocketProber | RtmpProber = _Prober(host, question, throttle)
    if question.websocket is not None:
        prober = WebSocketProber(question.websocket, question, throttle, _offer(host, question))
    elif question.rtmp is not None:
        prober = RtmpProber(question.rtmp, question, throttle, _offer(host, question))
    probed = addresses[:MAX_ADDRESSES]
    targets = prober.probe(probed)
    by_address = {address: tuple(target for target in targets if target.address == address) for address in probed}
    left_out = len(addresses) - len(probed)
    return Observation(
        host, question, by_address, "", False, left_out, throttle.connections, monotonic() - began, now
    )  # fmt: skip


class _Prober:
    """Opens the connections to one host."""

    def __init__(self, host: str, question: Question, throttle: Throttle) -> None:
        self._host = host
        self._throttle = throttle
        self._question = question
        self._offer = _offer(host, question) if question.tls else None

    def probe(self, addresses: Sequence[Address]) -> list[Target]:
        """Ask at every port of every address, then run the experiments; several targets at a time."""
        with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
            asked = [(role, address, port) for address in addresses for role, port in self._question.ports().items()]
            targets = list(pool.map(lambda one: self._ask(*one), asked))
            served = {target.address for target in targets if target.serves and target.role in BEFORE_DESTINATION}
            list(pool.map(self._examine, targets, [target.address in served for target in targets]))
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
        data = http_request(self._host, port) if role is Role.SILVERLIGHT_HTTP else request(role)
        steps = [Step(data)] if self._question.asks else None
        asked = self._connect(address, port, steps, self._offer, self._question.timeouts)
        target = Target(role, address, port, asked, history=[asked], secure=self._offer is not None)
        target.content_connects = port == self._question.port
        if asked.tls is not None and asked.tls.outcome is Outcome.UNTRUSTED:
            target.tried["verify"] = [asked]
            target.asked = self._run(target, steps, self._question.timeouts)
        return target

    def _connect(
        self, address: Address, port: int, steps: Sequence[Step] | None, offer: Offer | None, timeouts: Timeouts
    ) -> Exchange:
        with self._throttle.connection():
            return exchange(address, port, steps, timeouts, offer)

    def _examine(self, target: Target, others_serve: bool) -> None:
        if target.asked.reached is not Reached.CONNECTED or target.role is Role.SILVERLIGHT_HTTP:
            return
        # An application need not reply to policy requests. It is sent more of them only if no other port serves a
        # policy, and unless it has shown that it speaks another protocol.
        if target.secure:
            self._examine_tls(target, others_serve)
            if not target.asked.opened or not self._question.asks:
                return
        if target.role is Role.DESTINATION and not target.serves and (others_serve or not target.unanswered):
            return
        if not target.asked.silent and not self._repeat(target):
            return
        if target.serves:
            self._experiment(target)
        else:
            self._diagnose(target)

    def _examine_tls(self, target: Target, others_serve: bool) -> None:
        """Find out what the server takes, by handshakes that offer less, and whether it serves in plain text too."""
        assert self._offer is not None
        whole = self._offer._replace(verify=False)
        if target.asked.opened:
            offers = {}
            if not {"flash", "air"}.isdisjoint(self._question.clients):
                offers["flash"] = whole.as_flash()
            if self._question.thorough:
                offers |= {name: whole.of_version(version) for name, version in VERSIONS.items()}
                if whole.name is not None:
                    offers["no name"] = whole._replace(name=None)
            for name, less in offers.items():
                if not self._try_handshake(target, name, less, whole):
                    break
        wanted = target.role is not Role.DESTINATION or target.serves or not (target.asked.opened and others_serve)
        if wanted and self._question.asks:
            target.tried["plain"] = [
                self._run(target, [Step(target.request)], self._question.timeouts, in_plain_text=True)
            ]

    def _try_handshake(self, target: Target, name: str, offer: Offer, control: Offer) -> bool:
        """Return False if the server shuts the prober out. A refusal by an alert needs no control."""
        tried = self._shake_hands(target, offer)
        if tried.tls is not None and tried.tls.outcome is Outcome.FAILED and not tried.tls.first:
            return True  # this machine's OpenSSL cannot offer that
        if not tried.opened and (tried.tls is None or tried.tls.outcome is not Outcome.ALERT):
            if not self._shake_hands(target, control).opened:
                return False
            tried = self._shake_hands(target, offer)
        target.tried[name] = [tried]
        return True

    def _shake_hands(self, target: Target, offer: Offer) -> Exchange:
        sleep(_GAP)
        done = self._connect(target.address, target.port, None, offer, self._question.timeouts)
        target.history.append(done)
        return done

    def _repeat(self, target: Target) -> bool:
        """Ask plainly again, since a lost reply may come the next time. Return False if the prober is shut out."""
        again = target.tried["again"] = []
        while len(again) < self._question.tries - 1:
            plain = self._plain(target)
            if target.serves and not _got_policy(plain) and self._shut_out(target, plain):
                return False
            again.append(plain)
        return True

    def _experiment(self, target: Target) -> None:
        if self._question.thorough and not self._beside_a_silent_connection(target):
            return
        if target.port == self._question.port and not self._question.thorough:
            target.tried["idle"] = [self._run(target, (), _idle(self._question.timeouts, APPLICATION_IDLE))]
        for experiment in self._chosen(EXPERIMENTS, target):
            steps = experiment.steps(target.request)
            tries = [self._run(target, steps, self._question.timeouts) for _ in range(experiment.times)]
            target.tried[experiment.name] = tries
            if not experiment.expects_policy or all(map(_is_served, tries)):
                continue
            if not all(map(_is_served, target.repeats)):
                continue  # the server loses plain requests too: the failure proves nothing
            if self._shut_out(target, *dropwhile(_is_served, tries)):
                del target.tried[experiment.name]
                return
            if experiment.times == 1:
                tries.append(self._run(target, steps, self._question.timeouts))

    def _diagnose(self, target: Target) -> None:
        timeouts = _brief(self._question.timeouts)
        for experiment in self._chosen(DIAGNOSES, target):
            tries = [self._run(target, experiment.steps(target.request), timeouts)]
            target.tried[experiment.name] = tries
            if tries[0].received:
                target.tried.setdefault("again", []).append(self._run(target, [Step(target.request)], timeouts))
                return

    def _shut_out(self, target: Target, *failed: Exchange) -> bool:
        """Run the control after a failure. Return whether the server does not serve plain requests any more."""
        controls: list[Exchange] = []
        quick = max(exchange.ended for exchange in failed) < 1
        for _ in range(MAX_CONTROLS if quick else 1):  # slow ones would take more than Nagios waits
            controls.append(self._plain(target))
            if _got_policy(controls[-1]):
                target.tried.setdefault("again", []).extend(controls)
                return False
        target.tried["shut out"] = [*failed, *controls]
        return True

    def _plain(self, target: Target) -> Exchange:
        return self._run(target, [Step(target.request)], self._question.timeouts)

    def _chosen(self, experiments: Sequence[Experiment], target: Target) -> Iterator[Experiment]:
        for experiment in experiments:
            wanted = self._question.thorough or not experiment.thorough
            right_dialect = experiment.for_silverlight or target.role is not Role.SILVERLIGHT
            if experiment.suits(target) and wanted and right_dialect:
                yield experiment

    def _run(
        self, target: Target, steps: Sequence[Step] | None, timeouts: Timeouts, *, in_plain_text: bool = False
    ) -> Exchange:
        sleep(_GAP)
        # The certificate was verified when the target was asked: here it may be any.
        offer = None if in_plain_text or self._offer is None else self._offer._replace(verify=False)
        done = self._connect(target.address, target.port, steps, offer, timeouts)
        target.history.append(done)
        return done

    def _beside_a_silent_connection(self, target: Target) -> bool:
        """Open a connection that sends nothing for `question.idle` seconds, and ask on another one meanwhile.

        Return False if the prober is shut out.
        """
        timeouts = _idle(self._question.timeouts, self._question.idle)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self._run, target, (), timeouts)
            sleep(PAUSE)  # until a server that serves one connection after the other has accepted the silent one
            beside = self._plain(target)
            silent = future.result()
        if not _is_served(beside) and self._shut_out(target, beside):
            return False
        target.tried["idle"], target.tried["beside"] = [silent], [beside]
        return True


def _is_served(exchange: Exchange) -> bool:
    return Reply.of(exchange).served


def _got_policy(exchange: Exchange) -> bool:
    """The reply is a policy, complete or not."""
    return Reply.of(exchange).is_policy


def _idle(timeouts: Timeouts, seconds: float) -> Timeouts:
    return dataclasses.replace(timeouts, reply=seconds)


def _brief(timeouts: Timeouts) -> Timeouts:
    """Shorter, for servers that were silent already: Nagios gives a whole check ten seconds."""
    return dataclasses.replace(timeouts, reply=min(timeouts.reply, _STAGE))
