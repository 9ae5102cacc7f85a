"""PB70x to PB71x: whether a media server is reached, what the fallback costs, and what replies instead of RTMP."""

from collections.abc import Iterator

from flashpol.probe.exchange import Reached
from flashpol.probe.findings.registry import ERROR, NOTE, RTMP_CLIENTS, WARNING, Hit, View, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import printable
from flashpol.probe.rtmp import chunks, judgement
from flashpol.probe.rtmp.attempt import Attempt, Kind, Obstacle
from flashpol.probe.rtmp.judgement import quoted

# Seconds of the fallback that users notice.
SLOW = 3.0
FLASH = ("flash",)


def targets(view: View) -> tuple[Target, ...]:
    return view.observation.all_targets(Role.RTMP)


def attempts(view: View) -> Iterator[tuple[Target, Attempt]]:
    for target in targets(view):
        if (tried := judgement.attempt(target)) is not None:
            yield target, tried


def hindered(view: View, *kinds: Kind) -> Iterator[tuple[Target, Attempt, Obstacle]]:
    for target, tried in attempts(view):
        if tried.obstacle is not None and tried.obstacle.kind in kinds:
            yield target, tried, tried.obstacle


# --------------------------------------------------------------------------------------------------- all ways together


def _without_a_way(view: View, *, all_of_them: bool) -> Iterator[Hit]:
    """Yield the addresses at which no way works, if that is so at all addresses, or if it is not."""
    addresses = list(view.observation.targets)
    tried = {address: judgement.verdicts(view.observation, address) for address in addresses}
    known = {one: found for one, found in tried.items() if any(each.works is not None for _, each in found)}
    failed = [one for one, found in known.items() if not any(verdict.works for _, verdict in found)]
    if (len(failed) == len(known)) is all_of_them:
        for address in failed:
            words = "; ".join(f"{target.way} {verdict.words}" for target, verdict in known[address])
            spent = sum(verdict.seconds for _, verdict in known[address])
            evidence = f"{len(known[address])} tried; Flash Player gives up after {spent:.1f} s"
            yield Hit(known[address][0][0], evidence, address=address, words=words)


@rule(
    "PB701", ERROR, "no-way",
    wrong="no way leads to the media server: {words}",
    instead="start the media server, open its port in the firewall, or correct the address; the other findings say"
    " what to do about each way",
    seen="every way that the address means fails, at every address of the host", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_way(view: View) -> Iterator[Hit]:
    yield from _without_a_way(view, all_of_them=True)


@rule(
    "PB702", WARNING, "no-way-at-address",
    wrong="no way leads to the media server at {address}, and one does at another address of the host: {words}",
    instead="let the media server listen on this address too, or take it out of DNS",
    seen="every way fails at this address, and one works at another", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_way_at_address(view: View) -> Iterator[Hit]:
    yield from _without_a_way(view, all_of_them=False)


@rule(
    "PB703", WARNING, "slow-fallback",
    wrong="Flash Player reaches the media server after some {seconds} s, with {way}: {words}",
    instead="serve RTMP on the port that is tried first, or let the firewall reject connections (TCP RST) instead of"
    " dropping them: then the next way is tried at once",
    seen="three seconds or more pass before the first way that works has its handshake; a connection that is dropped"
    " counts as 21 s, the time that Windows gives it", clients=FLASH,
)  # fmt: skip
def slow_fallback(view: View) -> Iterator[Hit]:
    for address in view.observation.targets:
        found = judgement.fallback(view.observation, address)
        if found.works is not None and found.seconds >= SLOW:
            words = "; ".join(f"{target.way} {verdict.words}" for target, verdict in found.failed) or "it is slow"
            times = [f"{target.way} {verdict.seconds:.2f} s" for target, verdict in (*found.failed, found.works)]
            target = found.works[0]
            yield Hit(target, ", ".join(times), FLASH, seconds=f"{found.seconds:.0f}", way=target.way, words=words)


@rule(
    "PB704", WARNING, "no-tunnel",
    wrong="RTMP works, and RTMPT on port 80 does not: users whose network lets only HTTP through are kept out",
    instead="serve RTMPT on port 80 (flashpol: `rtmpt = true`), or let the web server there pass /open, /send, /idle,"
    " /close and /fcs on to a server that does",
    seen="a way without HTTP works, and the tunnel, which Flash Player tries last, fails", clients=FLASH,
)  # fmt: skip
def no_tunnel(view: View) -> Iterator[Hit]:
    for address in view.observation.targets:
        found = judgement.verdicts(view.observation, address)
        tunnels = [(target, verdict) for target, verdict in found if target.way and target.way.tunnelled]
        direct = any(verdict.works for target, verdict in found if target.way and not target.way.tunnelled)
        if direct and tunnels and not any(verdict.works for _, verdict in tunnels):
            target, verdict = tunnels[-1]
            yield Hit(target, f"{target.way} {verdict.words}", FLASH)


# -------------------------------------------------------------------------------------------------------- no connection


def _unreached(view: View, reached: Reached) -> Iterator[Hit]:
    """Yield one hit for each address: its ways are often alike."""
    for address in view.observation.targets:
        alike = [one for one in view.observation.targets[address] if one.asked.reached is reached and one.way]
        if alike:
            ways = ", ".join(str(target.way) for target in alike)
            yield Hit(alike[0], alike[0].asked.error, ways=ways, seconds=f"{judgement.DROPPED:g}")


@rule(
    "PB705", NOTE, "way-refused",
    wrong="the connection is refused: {ways}",
    instead="nothing, if another way works; otherwise listen there too: firewalls leave 80 and 443 open more often than"
    " 1935",
    seen="the SYN gets RST", clients=RTMP_CLIENTS,
)  # fmt: skip
def way_refused(view: View) -> Iterator[Hit]:
    yield from _unreached(view, Reached.REFUSED)


@rule(
    "PB706", WARNING, "way-dropped",
    wrong="nothing comes back: {ways}; Flash Player waits some {seconds} s before it tries the next way",
    instead="let the firewall reject connections (TCP RST) instead of dropping them, or serve RTMP there",
    seen="the SYN gets no answer", clients=RTMP_CLIENTS,
)  # fmt: skip
def way_dropped(view: View) -> Iterator[Hit]:
    yield from _unreached(view, Reached.DROPPED)


@rule(
    "PB707", WARNING, "way-unreachable",
    wrong="the network says that it cannot be reached: {ways}",
    instead="correct the route, the address in DNS, or the rule of the firewall that replies so",
    seen="the SYN gets an ICMP error", clients=RTMP_CLIENTS,
)  # fmt: skip
def way_unreachable(view: View) -> Iterator[Hit]:
    yield from _unreached(view, Reached.UNREACHABLE)


# ----------------------------------------------------------------------------------------------- something else replies


@rule(
    "PB710", NOTE, "web-server",
    wrong="{way} reaches a web server: it replies to RTMP's handshake with {line}",
    instead="nothing, if another way works; one port can serve both, if a program in front tells them apart by the"
    " first byte (flashpol: a listener with `[listeners.upstreams]`)",
    seen="the reply to C0 and C1 begins with HTTP", clients=RTMP_CLIENTS,
)  # fmt: skip
def web_server(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.WEB_SERVER):
        yield Hit(target, quoted(tried, target.asked.data), way=target.way, line=obstacle.detail)


@rule(
    "PB711", WARNING, "not-rtmp",
    wrong="{way} reaches a server that replies with {what}",
    instead="correct the port, or the protocol of the address: rtmps:// for RTMP inside TLS, rtmpt:// inside HTTP",
    seen="what comes is neither RTMP's handshake nor HTTP", clients=RTMP_CLIENTS,
)  # fmt: skip
def not_rtmp(view: View) -> Iterator[Hit]:
    for target, _, obstacle in hindered(view, Kind.OTHER):
        yield Hit(target, printable(target.asked.data), way=target.way, what=obstacle.detail)


@rule(
    "PB712", WARNING, "nothing-comes",
    wrong="{way}: the connection is accepted, and nothing comes back in {seconds} s; Flash Player waits",
    instead="find out what accepts it: a firewall or a proxy in between, a server with another protocol, or a media"
    " server that hangs",
    seen="the connection stays open after the handshake's first half, or after /open, and no byte comes",
    clients=RTMP_CLIENTS,
)  # fmt: skip
def nothing_comes(view: View) -> Iterator[Hit]:
    for target, tried, _ in hindered(view, Kind.SILENT):
        evidence = f"no byte in {tried.seconds:.1f} s"
        yield Hit(target, evidence, way=target.way, seconds=f"{tried.seconds:.0f}")


@rule(
    "PB713", WARNING, "closed-unanswered",
    wrong="{way}: something accepts the connection and {how} it without a reply",
    instead="look for a proxy or a firewall that knows no RTMP, for a limit that keeps the prober out, and in the log"
    " of the server; for a web server on this port nothing, if another way works",
    seen="FIN or RST comes after the first bytes that were sent, and no byte before it", clients=RTMP_CLIENTS,
)  # fmt: skip
def closed_unanswered(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.CLOSED):
        evidence = f"{target.asked.end} after {tried.seconds:.2f} s"
        yield Hit(target, evidence, way=target.way, how=obstacle.detail)


@rule(
    "PB714", WARNING, "handshake-cut",
    wrong="{way} brings only {came}",
    instead="look for a proxy that passes on only a part, for a small MTU on the way, and in the log of the server",
    seen="S0 comes, and S1 and S2 are not complete when the connection or the time ends", clients=RTMP_CLIENTS,
)  # fmt: skip
def handshake_cut(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.CUT):
        yield Hit(target, f"{target.asked.end} after {tried.seconds:.2f} s", way=target.way, came=obstacle.detail)


@rule(
    "PB715", WARNING, "no-echo",
    wrong="{way}: S2 does not repeat C1, so the server or something on the way changes bytes",
    instead="update the media server; rtmpdump warns, and servers of today check the other half",
    seen=f"the {chunks.HALF} bytes of S2 differ from C1 in more than the second field", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_echo(view: View) -> Iterator[Hit]:
    for target, tried in attempts(view):
        if tried.obstacle is None and not tried.echoed:
            yield Hit(target, "the handshake is complete", way=target.way)
