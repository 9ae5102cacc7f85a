"""PB1xx: whether there is anybody to talk to."""

from collections.abc import Iterator
from itertools import groupby

from flashpol.policy import CLIENTS
from flashpol.probe.exchange import Address, Reached
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Role, Target

# Of the three seconds that Flash Player gives port 843; a third of them leaves room for a worse day.
SLOW = 1.0


def _reached(view: View, reached: Reached) -> Iterator[tuple[Target, str]]:
    for target in view.expected:
        if target.asked.reached is reached:
            yield target, target.asked.error


@rule(
    "PB101", ERROR, "no-address",
    wrong="{host} means no address: {why}", instead="correct the name, or its entry in DNS",
    seen="the name is looked up",
)  # fmt: skip
def no_address(view: View) -> Iterator[Hit]:
    if view.observation.unresolved:
        yield Hit(None, view.observation.unresolved, host=view.observation.host, why=view.observation.unresolved)


@rule(
    "PB102", WARNING, "dropped",
    wrong="port {port} drops connections: every client loses three seconds or more before it goes on",
    instead="let the firewall reject (TCP RST) what it does not let in, or serve the policy there",
    seen="the SYN gets no answer",
)  # fmt: skip
def dropped(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.DROPPED):
        yield Hit(target, why, port=target.port)


@rule(
    "PB103", ERROR, "unreachable",
    wrong="the network says that it cannot reach {address}", instead="correct the route, or the address in DNS",
    seen="the SYN gets an ICMP message for an answer",
)  # fmt: skip
def unreachable(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.UNREACHABLE):
        yield Hit(target, why, address=target.address)


@rule(
    "PB104", NOTE, "not-tried",
    wrong="this machine cannot try {address}", instead="probe from one that has a route there",
    seen="connect fails before anything is sent",
)  # fmt: skip
def not_tried(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.UNTRIED):
        yield Hit(target, why, address=target.address)


@rule(
    "PB105", NOTE, "refused",
    wrong="nobody listens on port {port}",
    instead="start the policy server there, on this address too: below 1024 that takes CAP_NET_BIND_SERVICE, a socket"
    " of systemd or a redirect (its log says `permission denied` otherwise)",
    seen="the SYN gets RST for an answer",
)  # fmt: skip
def refused(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.REFUSED):
        yield Hit(target, why, port=target.port)


@rule(
    "PB106", ERROR, "no-policy",
    wrong="no port that clients ask serves a policy at {address}: {ports}",
    instead="serve one on 843 or on the application's own port; if the latter does, name it with --port",
    seen="no port answers",
)  # fmt: skip
def no_policy(view: View) -> Iterator[Hit]:

    def of_whom(target: Target) -> tuple[Address, bool]:
        return target.address, target.role is Role.SILVERLIGHT

    serving = {of_whom(target) for target in view.observation.all_targets() if target.serves}
    for (address, silverlight), group in groupby(sorted(view.expected, key=of_whom), key=of_whom):
        targets = list(group)
        missed = all(target.asked.reached in (Reached.REFUSED, Reached.DROPPED) for target in targets)
        if missed and (address, silverlight) not in serving:
            ports = ", ".join(f"{target.port} {target.asked.reached}" for target in targets)
            yield Hit(targets[0], ports, address=address, ports=ports)


@rule(
    "PB107", ERROR, "application-closed",
    wrong="nobody answers on port {port}, where content is to connect: it would fail whatever the policy says (#2031)",
    instead="start the application, let the firewall pass it, or correct the port",
    seen="a connection to the port of --port fails",
)  # fmt: skip
def application_closed(view: View) -> Iterator[Hit]:
    for target in view.observation.all_targets():
        closed = target.asked.reached in (Reached.REFUSED, Reached.DROPPED, Reached.UNREACHABLE)
        if closed and target.port == view.question.port:
            yield Hit(target, target.asked.error, CLIENTS, port=target.port)


@rule(
    "PB108", WARNING, "elsewhere",
    wrong="a policy server listens on port {port}, where no client asks",
    instead="let it listen on 843, or redirect 843 to it",
    seen="843 fails, and a port that is often meant instead serves a policy", clients=ADOBE, thorough=True,
)  # fmt: skip
def elsewhere(view: View) -> Iterator[Hit]:
    for target in view.observation.all_targets(Role.ELSEWHERE):
        if target.serves:
            yield Hit(target, f"{len(target.reply.data):,} bytes of policy", port=target.port)


@rule(
    "PB109", WARNING, "addresses-differ",
    wrong="the addresses of {host} do not answer alike on port {port}: which one a client takes is chance",
    instead="serve the same on all of them, or take those that do not serve out of DNS",
    seen="what each address did is compared, IPv4 with IPv6 too",
)  # fmt: skip
def addresses_differ(view: View) -> Iterator[Hit]:
    by_port = sorted(view.expected, key=lambda target: target.port)
    for port, group in groupby(by_port, key=lambda target: target.port):
        tried = [target for target in group if target.asked.reached is not Reached.UNTRIED]
        if len({_outcome(target)[0] for target in tried}) > 1:
            evidence = ", ".join(f"{target.address}: {_outcome(target)[1]}" for target in tried)
            yield Hit(None, evidence, host=view.observation.host, port=port)


def _outcome(target: Target) -> tuple[object, str]:
    """What is compared, and how it is called."""
    if target.asked.reached is not Reached.CONNECTED:
        return target.asked.reached, str(target.asked.reached)
    if target.serves:
        digest = target.reply.sha256
        return digest, f"a policy of {len(target.reply.file):,} bytes, sha256 {digest[:12]}…"
    return target.reply.kind, str(target.reply.kind)


@rule(
    "PB110", WARNING, "slow",
    wrong="the policy took {seconds} of the three seconds that Flash Player waits",
    instead="find out what is slow: the way there, a full accept queue, or a server that does one thing at a time",
    seen="a second or more from SYN to the last byte",
)  # fmt: skip
def slow(view: View) -> Iterator[Hit]:
    for target in view.serving:
        came = target.asked.received[-1].at if target.asked.received else 0.0
        if came >= SLOW:
            evidence = f"connected after {target.asked.events[0].at:.2f} s, all there after {came:.2f} s"
            yield Hit(target, evidence, seconds=f"{came:.2f}")
