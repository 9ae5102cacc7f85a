"""PB1xx: whether the server can be reached."""

from collections.abc import Iterator
from itertools import groupby

from flashpol.policy import CLIENTS
from flashpol.policy.ports import (
    MASTER_PORT,
    SILVERLIGHT_HTTP_PATH,
    SILVERLIGHT_HTTP_PORT,
    SILVERLIGHT_PORT,
    UNPRIVILEGED,
)
from flashpol.probe.exchange import End, Reached
from flashpol.probe.experiments import APPLICATION_IDLE
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, askers, is_silverlights, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import Kind
from flashpol.probe.tls import judgement
from flashpol.probe.tls.offers import TLS_CLIENTS

# Seconds. Flash Player gives port 843 three; one of them leaves a margin for slower days.
SLOW = 1.0
_EVERY_CLIENT = tuple(dict.fromkeys((*CLIENTS, *TLS_CLIENTS)))


def _reached(view: View, reached: Reached) -> Iterator[tuple[Target, str]]:
    for target in view.expected:
        if target.asked.reached is reached:
            yield target, target.asked.error


@rule(
    "PB101", ERROR, "no-address",
    wrong="{problem}: {why}", instead="{remedy}",
    seen="the name lookup fails", clients=_EVERY_CLIENT,
)  # fmt: skip
def no_address(view: View) -> Iterator[Hit]:
    seen = view.observation
    if not seen.unresolved:
        return
    name = seen.question.connects_to(seen.host)
    problem, remedy = f"{name} has no address", "correct the name, or its DNS entry"
    if seen.resolver_failed:
        problem = f"the address of {name} could not be looked up"
        remedy = "check this machine's resolver (/etc/resolv.conf) and its network, then probe again"
    yield Hit(None, seen.unresolved, problem=problem, why=seen.unresolved, remedy=remedy)


@rule(
    "PB102", WARNING, "dropped",
    wrong="port {port} drops connections: {wait}",
    instead="let the firewall reject connections (TCP RST) instead of dropping them, or serve the policy there",
    seen="the SYN gets no answer",
)  # fmt: skip
def dropped(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.DROPPED):
        silverlight = "Silverlight waits 10 s before it gives up"
        adobe = "every client waits three seconds or more before it continues"
        yield Hit(target, why, port=target.port, wait=silverlight if is_silverlights(target) else adobe)


@rule(
    "PB103", ERROR, "unreachable",
    wrong="the network cannot reach {address}", instead="correct the route, or the address in DNS",
    seen="the SYN gets an ICMP error",
)  # fmt: skip
def unreachable(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.UNREACHABLE):
        yield Hit(target, why, address=target.address)


@rule(
    "PB104", NOTE, "not-tried",
    wrong="this machine cannot try {address}", instead="probe from a machine that has a route there",
    seen="connect(2) fails before anything is sent", clients=_EVERY_CLIENT,
)  # fmt: skip
def not_tried(view: View) -> Iterator[Hit]:
    for target in (*view.expected, *view.observation.all_targets(Role.WEBSOCKET, Role.RTMP)):
        if target.asked.reached is Reached.UNTRIED:
            yield Hit(target, target.asked.error, address=target.address)


@rule(
    "PB105", NOTE, "refused",
    wrong="port {port} is closed",
    instead="start the policy server there, on this address too{privilege}",
    seen="the SYN gets RST",
)  # fmt: skip
def refused(view: View) -> Iterator[Hit]:
    for target, why in _reached(view, Reached.REFUSED):
        yield Hit(target, why, port=target.port, privilege=_PRIVILEGE if target.port < UNPRIVILEGED else "")


_PRIVILEGE = (
    "; a port below 1024 needs CAP_NET_BIND_SERVICE, a systemd socket or a redirect (without them the server logs"
    " `permission denied`)"
)


@rule(
    "PB106", ERROR, "no-policy",
    wrong="no port that clients ask serves a policy at {address}: {ports}",
    instead="serve one on {where}",
    seen="no port that clients ask accepts a connection and serves a policy",
)  # fmt: skip
def no_policy(view: View) -> Iterator[Hit]:
    for address, targets in view.observation.targets.items():
        for silverlight in (False, True):
            asked = [target for target in targets if _is_asked(view, target) and is_silverlights(target) is silverlight]
            expected = [target for target in asked if target in view.expected]
            missed = all(target.asked.reached in (Reached.REFUSED, Reached.DROPPED) for target in expected)
            if expected and missed and not any(target.serves for target in asked):
                ports = ", ".join(f"{target.port} {_outcome(target)[1]}" for target in asked)
                yield Hit(expected[0], ports, address=address, ports=ports, where=_where_to_serve(view, silverlight))


def _is_asked(view: View, target: Target) -> bool:
    """Whether one of the clients that matter asks this target. Port 943 is asked by Silverlight."""
    return target.role is not Role.ELSEWHERE and not set(askers(target)).isdisjoint(view.question.clients)


def _where_to_serve(view: View, silverlight: bool) -> str:
    if silverlight:
        return (
            f"{SILVERLIGHT_PORT}, or over HTTP as {SILVERLIGHT_HTTP_PATH} on {SILVERLIGHT_HTTP_PORT} for content that"
            " chooses it"
        )
    if set(view.question.clients).isdisjoint(("flash", "lightspark")):
        return f"{MASTER_PORT}, the port that Unity asks"
    if view.question.port is None:
        return f"{MASTER_PORT} or on the application's own port; if the latter serves one, name it with --port"
    return f"{MASTER_PORT} or on port {view.question.port}"


@rule(
    "PB107", ERROR, "application-closed",
    wrong="port {port}, which the content connects to, accepts no connection: whatever the policy says, it fails"
    " (#2031)",
    instead="start the application, open the port in the firewall, or correct --port",
    seen="a connection to the port of --port fails",
)  # fmt: skip
def application_closed(view: View) -> Iterator[Hit]:
    for target in view.observation.all_targets():
        closed = target.asked.reached in (Reached.REFUSED, Reached.DROPPED, Reached.UNREACHABLE)
        if closed and target.port == view.question.port:
            clients = tuple(client for client in CLIENTS if client != "unity" or not target.address.is_ipv6)
            yield Hit(target, target.asked.error, clients, port=target.port)


@rule(
    "PB108", WARNING, "elsewhere",
    wrong="a policy server listens on port {port}, which no client asks",
    instead="let it listen on 843, or redirect 843 to it",
    seen="843 fails, and a port that is often opened by mistake serves a policy", clients=ADOBE, thorough=True,
)  # fmt: skip
def elsewhere(view: View) -> Iterator[Hit]:
    for target in view.observation.all_targets(Role.ELSEWHERE):
        if target.serves:
            yield Hit(target, f"{len(target.reply.data):,} bytes of policy", port=target.port)


@rule(
    "PB109", WARNING, "addresses-differ",
    wrong="the addresses of {host} behave differently on port {port}: the result depends on which one a client takes",
    instead="serve the same policy on all of them, or remove the addresses that do not serve it from DNS",
    seen="the results of all addresses are compared, IPv4 with IPv6 too",
)  # fmt: skip
def addresses_differ(view: View) -> Iterator[Hit]:
    by_port = sorted(view.expected, key=lambda target: target.port)
    for port, group in groupby(by_port, key=lambda target: target.port):
        tried = [target for target in group if target.asked.reached is not Reached.UNTRIED]
        clients = tuple(
            client
            for client in CLIENTS
            if len({_outcome(target)[0] for target in tried if client in askers(target)}) > 1
        )
        if clients:
            evidence = ", ".join(f"{target.address}: {_outcome(target)[1]}" for target in tried)
            yield Hit(None, evidence, clients, host=view.observation.host, port=port)


def _outcome(target: Target) -> tuple[object, str]:
    """Return what is compared, and the words for it."""
    if target.asked.reached is not Reached.CONNECTED:
        return target.asked.reached, str(target.asked.reached)
    if not target.asked.opened:
        return judgement.refusal(target.asked), judgement.refusal(target.asked)
    if target.serves:
        digest = target.reply.sha256
        return digest, f"a policy of {len(target.reply.file):,} bytes, sha256 {digest[:12]}…"
    return target.reply.kind, _KINDS[target.reply.kind]


_KINDS = {
    Kind.NOTHING: "sends nothing",
    Kind.POLICY: "sends a policy",
    Kind.HTTP: "sends HTTP",
    Kind.TLS: "sends TLS",
    Kind.ECHO: "sends the request back",
    Kind.OTHER: "sends something else",
}


@rule(
    "PB110", WARNING, "slow",
    wrong="the policy took {seconds} of the {limit} s that {client} waits",
    instead="find the cause of the delay: the network, a full accept queue, or a server that serves one client at a"
    " time",
    seen="more than a third of the time that the client waits passes between the SYN and the last byte",
)  # fmt: skip
def slow(view: View) -> Iterator[Hit]:
    for target in view.serving:
        came = target.asked.received[-1].at if target.asked.received else 0.0
        client, limit = ("Silverlight", 10) if is_silverlights(target) else ("Flash Player", 3)
        if came >= SLOW * limit / 3:
            evidence = f"connected after {target.asked.events[0].at:.2f} s, complete after {came:.2f} s"
            yield Hit(target, evidence, seconds=f"{came:.2f}", limit=limit, client=client)


@rule(
    "PB111", ERROR, "no-ipv4",
    wrong="{host} has no IPv4 address, and Unity uses no other",
    instead="add an IPv4 address (an A record)",
    seen="the name has IPv6 addresses only, and --client names Unity", clients=("unity",),
)  # fmt: skip
def no_ipv4(view: View) -> Iterator[Hit]:
    addresses = list(view.observation.targets)
    if "unity" in view.question.named and addresses and all(address.is_ipv6 for address in addresses):
        yield Hit(None, ", ".join(map(str, addresses)), host=view.observation.host)


@rule(
    "PB112", WARNING, "application-behind",
    wrong="port {port} serves the policy, but closes a connection without a request after {seconds} s: the application"
    " behind it does not reply",
    instead="start the application, or correct the upstream of the shared port; if the application itself closes silent"
    " connections so early, ignore this finding",
    seen="a connection to the port of --port, on which nothing is sent, is closed within 2.5 s, and no byte comes",
)  # fmt: skip
def application_behind(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("idle", ()) if target.port == view.question.port else ():
            if exchange.end in (End.CLOSED, End.RESET) and not exchange.data and exchange.ended < APPLICATION_IDLE:
                yield Hit(
                    target,
                    f"{exchange.end} after {exchange.ended:.2f} s",
                    port=target.port,
                    seconds=f"{exchange.ended:.1f}",
                )
