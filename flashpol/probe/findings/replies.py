"""PB2xx: what came when it was asked as clients ask."""

from collections.abc import Iterator

from flashpol.probe.exchange import End, Exchange
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import Kind, Reply, printable


def _of_kind(view: View, *kinds: Kind) -> Iterator[Hit]:
    for target in view.connected:
        how, reply, kind = _speaks(target)
        if kind in kinds and target.asked.end is not End.FLOOD:
            yield Hit(target, f"{how} {printable(reply.data)}", port=target.port)


def _speaks(target: Target) -> tuple[str, Reply, Kind]:
    """What it says when it is asked; or else, when something else is tried."""
    if target.unanswered:
        for name, what in (("half-close", "the request and FIN"), ("in stages", "a line"), ("tls", "a ClientHello")):
            for reply in map(Reply.of, target.tried.get(name, ())):
                if reply.kind is not Kind.NOTHING:
                    page = reply.is_policy and not reply.has_root
                    kind = Kind.HTTP if page else reply.kind
                    return f"for the request it sends nothing, for {what}", reply, kind
    return "it sends", target.reply, target.reply.kind


@rule(
    "PB201", ERROR, "silent",
    wrong="port {port} accepts connections and never answers: Flash Player waits three seconds, Lightspark for ever",
    instead="find out who listens there (`ss -ltnp`): another program, a proxy without its server,"
    " or a server that hangs",
    seen="nothing comes for three seconds after the request",
)  # fmt: skip
def silent(view: View) -> Iterator[Hit]:
    for target in view.connected:
        if target.asked.silent and _speaks(target)[2] is Kind.NOTHING:
            yield Hit(target, f"nothing came in {target.asked.ended - target.asked.asked_at:.1f} s", port=target.port)


@rule(
    "PB202", ERROR, "closed-without-reply",
    wrong="port {port} closes the connection without an answer",
    instead="look into the server's log: it does not know the request, allows no connection from here, or is a proxy"
    " without its server",
    seen="FIN comes, and nothing before it",
)  # fmt: skip
def closed_without_reply(view: View) -> Iterator[Hit]:
    yield from _ended_without_reply(view, End.CLOSED)


@rule(
    "PB203", ERROR, "reset-without-reply",
    wrong="port {port} resets the connection without an answer",
    instead="look for a firewall or a proxy that resets, and for a server that closes before it has read the request",
    seen="RST comes, and nothing before it",
)  # fmt: skip
def reset_without_reply(view: View) -> Iterator[Hit]:
    yield from _ended_without_reply(view, End.RESET)


def _ended_without_reply(view: View, end: End) -> Iterator[Hit]:
    for target in view.connected:
        if target.hangs_up and target.asked.end is end and _speaks(target)[2] is Kind.NOTHING:
            yield Hit(target, f"after {target.asked.ended:.2f} s", port=target.port)


@rule(
    "PB204", ERROR, "http",
    wrong="a web server answers on port {port}: clients ask for socket policies without HTTP",
    instead="run a policy server there; a crossdomain.xml that a web server sends allows no socket",
    seen="HTTP or HTML comes, if only when a line or the end of the stream follows the request",
)  # fmt: skip
def http(view: View) -> Iterator[Hit]:
    yield from _of_kind(view, Kind.HTTP)


@rule(
    "PB205", ERROR, "tls",
    wrong="port {port} speaks TLS: clients ask in plain text",
    instead="take TLS off this port",
    seen="a record of TLS comes (15 03 or 16 03), for the request or for a ClientHello",
)  # fmt: skip
def tls(view: View) -> Iterator[Hit]:
    yield from _of_kind(view, Kind.TLS)


@rule(
    "PB206", ERROR, "no-policy-in-reply",
    wrong="what answers on port {port} is no policy server",
    instead="correct the port, or the proxy that leads elsewhere",
    seen="what comes is neither XML nor HTTP nor TLS",
)  # fmt: skip
def no_policy_in_reply(view: View) -> Iterator[Hit]:
    yield from _of_kind(view, Kind.ECHO, Kind.OTHER)


@rule(
    "PB207", ERROR, "no-end",
    wrong="neither a NUL nor a close follows the policy: Flash Player waits for one of them until its time is over",
    instead="send a NUL after the policy and close, in one write",
    seen="the XML ends, and the connection stays open", clients=("flash", "silverlight"),
)  # fmt: skip
def no_end(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if _unterminated(target, End.OPEN) and target.reply.whole:
            yield Hit(target, _end_of(target))


@rule(
    "PB208", ERROR, "unfinished",
    wrong="the policy does not come to its end: {how}",
    instead="send the policy in one write, and close when it is sent",
    seen="no end of the XML, no NUL and no FIN, three seconds after the request",
)  # fmt: skip
def unfinished(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for end, how in ((End.OPEN, "the server stops in the middle, or is too slow"), (End.RESET, "it is cut off")):
            if _unterminated(target, end) and not target.reply.whole:
                yield Hit(target, f"{len(target.reply.data):,} bytes, then {end}; {_end_of(target)}", how=how)


def _unterminated(target: Target, end: End) -> bool:
    return not target.reply.terminated and target.reply.end is end


def _end_of(target: Target) -> str:
    return f"it ends in {printable(target.reply.data[-20:])}"


@rule(
    "PB209", ERROR, "flood",
    wrong="the reply does not end: no client reads that much",
    instead="find out what listens on port {port}; a policy has 5,000 bytes at most",
    seen="a hundred thousand bytes, or two thousand pieces",
)  # fmt: skip
def flood(view: View) -> Iterator[Hit]:
    for target in view.connected:
        if target.asked.end is End.FLOOD:
            count = f"{len(target.asked.data):,} bytes in {len(target.asked.received):,} pieces"
            yield Hit(target, f"{count}, and more to come", port=target.port)


@rule(
    "PB210", NOTE, "no-nul",
    wrong="no NUL follows the policy: the documents of Flash say that it must, and only the close saves it",
    instead="send a NUL after the policy",
    seen="FIN comes, and no NUL before it", clients=ADOBE,
)  # fmt: skip
def no_nul(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.role is not Role.SILVERLIGHT and _unterminated(target, End.CLOSED):
            yield Hit(target, _end_of(target))


@rule(
    "PB211", NOTE, "held-open",
    wrong="the connection stays open after the policy: a client that does not close would hold it",
    instead="close when the policy is sent",
    seen="a NUL comes, and no FIN within a second", clients=ADOBE,
)  # fmt: skip
def held_open(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.reply.terminated and target.reply.end is End.OPEN:
            yield Hit(target, f"still open after {target.asked.ended:.1f} s")


def parts(exchange: Exchange) -> int:
    """In how many segments, or receives where the kernel does not say, the reply came."""
    return max(exchange.segments or 0, len(exchange.received))


def needed(exchange: Exchange) -> int:
    """How many segments a reply of this size takes if it is sent in one write."""
    return -(-len(exchange.data) // (exchange.segment_bytes or 1 << 16))


@rule(
    "PB212", WARNING, "several-writes",
    wrong="the server sends the policy in several writes: Lightspark and Unity read the first",
    instead="put policy and NUL into one buffer and send it with one call",
    seen="more segments than a reply of this size takes, in most tries",
    clients=("lightspark", "unity"), trap=True,
)  # fmt: skip
def several_writes(view: View) -> Iterator[Hit]:
    for target in view.serving:
        whole = [exchange for exchange in target.repeats if exchange.end is not End.FLOOD and exchange.data]
        split = [exchange for exchange in whole if parts(exchange) > needed(exchange)]
        if 2 * len(split) > len(whole):  # one of them may have been sent twice by the network
            sizes = " + ".join(f"{len(event.data):,}" for event in split[0].received[:8])
            count = f"{parts(split[0])} segments where {needed(split[0])} would do"
            yield Hit(target, f"{count}, received as {sizes} bytes; so in {len(split)} of {len(whole)} tries")


@rule(
    "PB213", NOTE, "several-segments",
    wrong="the policy is larger than a segment of {bytes} bytes: Lightspark and Unity read what comes first",
    instead="make the policy smaller, if these clients matter", clients=("lightspark", "unity"),
    seen="the reply takes more than one segment on the way to here", trap=True,
)  # fmt: skip
def several_segments(view: View) -> Iterator[Hit]:
    for target in view.serving:
        exchange = target.asked
        if exchange.segment_bytes and needed(exchange) > 1 and exchange.end is not End.FLOOD:
            yield Hit(target, f"{len(exchange.data):,} bytes", bytes=f"{exchange.segment_bytes:,}")


@rule(
    "PB214", WARNING, "changing",
    wrong="the same request gets {count} different policies", instead="give all servers behind this address one policy",
    seen="the replies of several tries are compared",
)  # fmt: skip
def changing(view: View) -> Iterator[Hit]:
    for target in view.serving:
        replies = [Reply.of(exchange) for exchange in target.repeats]
        files = list(dict.fromkeys(r.file for r in replies if r.is_policy and (r.terminated or r.end is End.CLOSED)))
        if len(files) > 1:
            at = next((i for i, (a, b) in enumerate(zip(*files[:2], strict=False)) if a != b), min(map(len, files[:2])))
            parts = " and ".join(printable(file[max(0, at - 10) :], 30) for file in files[:2])
            yield Hit(target, f"they differ from byte {at + 1:,} on: {parts}", count=len(files))


@rule(
    "PB215", WARNING, "after-the-nul",
    wrong="bytes follow the NUL, which no client reads: Flash Player closes at the NUL",
    instead="end the reply with one NUL, and close", clients=ADOBE,
    seen="the reply goes on after its first NUL",
)  # fmt: skip
def after_the_nul(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.role is not Role.SILVERLIGHT and target.reply.extra and target.asked.end is not End.FLOOD:
            yield Hit(target, printable(target.reply.extra))
