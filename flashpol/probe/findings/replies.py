"""PB2xx: the reply to a plain request."""

from collections.abc import Iterator

from flashpol.probe.client_models import lightspark_reads
from flashpol.probe.exchange import End, Exchange
from flashpol.probe.experiments import OTHER_REQUESTS
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, is_silverlights, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import Kind, Reply, printable

# By their length: the longest way to write a NUL as text is "\u0000" in quotes.
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def _of_kind(targets: list[Target], *kinds: Kind) -> Iterator[Hit]:
    for target in targets:
        how, reply = _speaks(target)
        if reply.kind in kinds and target.asked.end is not End.FLOOD:
            yield Hit(target, f"{how} {printable(reply.data)}", port=target.port)


def _speaks(target: Target) -> tuple[str, Reply]:
    """Return the reply to the plain request; without one, the reply to the first experiment that got one."""
    if target.unanswered:
        for name, what in (
            ("half-close", "the request and FIN"),
            ("in stages", "a line"),
            ("tls", "a ClientHello"),
            *((name, other.decode()) for name, other in OTHER_REQUESTS.items()),
        ):
            for reply in map(Reply.of, target.tried.get(name, ())):
                if reply.kind is not Kind.NOTHING:
                    return f"it sends nothing after the request, and after {what}", reply
    return "it sends", target.reply


def _wait(target: Target) -> str:
    """Return how long the clients of this port wait."""
    if is_silverlights(target):
        return "Silverlight waits 10 s"
    return f"Flash Player waits {'3' if target.role is Role.MASTER else '20'} s, Lightspark and Unity without limit"


@rule(
    "PB201", ERROR, "silent",
    wrong="port {port} accepts connections and never replies: {wait}",
    instead="find out which program listens there (`ss -ltnp`): another server, a proxy whose backend is down,"
    " or a policy server that hangs",
    seen="no byte and no FIN comes for three seconds after the request",
)  # fmt: skip
def silent(view: View) -> Iterator[Hit]:
    for target in view.connected:
        if target.asked.silent and _speaks(target)[1].kind is Kind.NOTHING:
            seconds = target.asked.ended - target.asked.asked_at
            yield Hit(target, f"nothing came in {seconds:.1f} s", port=target.port, wait=_wait(target))


@rule(
    "PB202", ERROR, "closed-without-reply",
    wrong="port {port} closes the connection without a reply",
    instead="read the server's log: it does not know the request, allows no connection from here, or is a proxy"
    " whose backend is down",
    seen="FIN comes, and no byte before it",
)  # fmt: skip
def closed_without_reply(view: View) -> Iterator[Hit]:
    yield from _ended_without_reply(view, End.CLOSED)


@rule(
    "PB203", ERROR, "reset-without-reply",
    wrong="port {port} resets the connection without a reply",
    instead="look for a firewall or a proxy that resets, and for a server that closes before it has read the request",
    seen="RST comes, and no byte before it",
)  # fmt: skip
def reset_without_reply(view: View) -> Iterator[Hit]:
    yield from _ended_without_reply(view, End.RESET)


def _ended_without_reply(view: View, end: End) -> Iterator[Hit]:
    for target in view.connected:
        if target.hangs_up and target.asked.end is end and _speaks(target)[1].kind is Kind.NOTHING:
            yield Hit(target, f"after {target.asked.ended:.2f} s", port=target.port)


@rule(
    "PB204", ERROR, "http",
    wrong="a web server listens on port {port}: clients ask for socket policies without HTTP",
    instead="run a policy server there; a crossdomain.xml from a web server allows no sockets",
    seen="HTTP or HTML comes, at the latest when a newline or FIN follows the request",
)  # fmt: skip
def http(view: View) -> Iterator[Hit]:
    yield from _of_kind(view.diagnosed, Kind.HTTP)


@rule(
    "PB205", ERROR, "tls",
    wrong="port {port} speaks TLS: clients ask in plain text",
    instead="turn TLS off on this port, or serve the policy in plain text on another port that clients ask; if the"
    " content uses SecureSocket, probe with --tls",
    seen="a TLS record (15 03 or 16 03) comes after the request, or after a ClientHello",
)  # fmt: skip
def tls(view: View) -> Iterator[Hit]:
    yield from _of_kind(view.diagnosed, Kind.TLS)


@rule(
    "PB206", ERROR, "no-policy-in-reply",
    wrong="port {port} does not serve a policy: its reply is something else",
    instead="correct the port, or the proxy that forwards it to another server",
    seen="the reply is neither a policy, nor HTTP, nor TLS",
)  # fmt: skip
def no_policy_in_reply(view: View) -> Iterator[Hit]:
    yield from _of_kind(view.connected, Kind.ECHO, Kind.OTHER)


def _wait_for_end(target: Target) -> str:
    if is_silverlights(target):
        return "Silverlight waits 10 s for one of them"
    return f"Flash Player waits for one of them until its {'3' if target.role is Role.MASTER else '20'} s are over"


@rule(
    "PB207", ERROR, "no-end",
    wrong="neither a NUL nor a close follows the policy: {wait}",
    instead="send {nul} after the policy and close, in one write",
    seen="the XML ends, and the connection stays open", clients=("flash", "silverlight"),
)  # fmt: skip
def no_end(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if _unterminated(target, End.OPEN) and target.reply.whole:
            yield Hit(target, _end_of(target), wait=_wait_for_end(target), nul=_nul(target))


@rule(
    "PB208", ERROR, "unfinished",
    wrong="the policy is incomplete: {how}",
    instead="send the policy in one write, and close after it",
    seen="no end tag, no NUL and no FIN comes for three seconds after the request, or RST comes before them",
)  # fmt: skip
def unfinished(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for end, how in ((End.OPEN, "the server stops in the middle, or is too slow"), (End.RESET, "RST cuts it off")):
            if _unterminated(target, end) and not target.reply.whole:
                yield Hit(target, f"{len(target.reply.data):,} bytes, then {end}; {_end_of(target)}", how=how)


def _unterminated(target: Target, end: End) -> bool:
    return not target.reply.terminated and target.reply.end is end


def _end_of(target: Target) -> str:
    end = f"it ends in {printable(target.reply.data[-20:])}"
    return f"{end}: {written} instead of a NUL" if (written := _written_nul(target)) else end


def _nul(target: Target) -> str:
    return f"a NUL (one byte of value 0) instead of {written}" if (written := _written_nul(target)) else "a NUL"


def _written_nul(target: Target) -> str:
    """Return the characters after the end tag, in words, if they may have been meant as a terminator."""
    text = target.reply.after_root or ""
    if not 1 <= len(text) < len(_NUMBERS):
        return ""
    return f"{_NUMBERS[len(text)]} character{'s' if len(text) > 1 else ''} {text}"


@rule(
    "PB209", ERROR, "flood",
    wrong="the reply does not end: no client reads that much",
    instead="find out which program listens on port {port}; a policy has at most 5,000 bytes",
    seen="a hundred thousand bytes come, or two thousand pieces",
)  # fmt: skip
def flood(view: View) -> Iterator[Hit]:
    for target in view.connected:
        if target.asked.end is End.FLOOD:
            count = f"{len(target.asked.data):,} bytes in {len(target.asked.received):,} pieces"
            yield Hit(target, f"{count}, and more to come", port=target.port)


@rule(
    "PB210", NOTE, "no-nul",
    wrong="no NUL follows the policy: Adobe's documents require one, and clients accept it only because of the close",
    instead="send {nul} after the policy",
    seen="FIN comes, and no NUL before it", clients=ADOBE,
)  # fmt: skip
def no_nul(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if not is_silverlights(target) and _unterminated(target, End.CLOSED):
            yield Hit(target, _end_of(target), nul=_nul(target))


@rule(
    "PB211", NOTE, "held-open",
    wrong="the connection stays open after the policy: a client that does not close it occupies the server",
    instead="close after the policy",
    seen="a NUL comes, and no FIN within a second", clients=ADOBE,
)  # fmt: skip
def held_open(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.reply.terminated and target.reply.end is End.OPEN:
            yield Hit(target, f"still open after {target.asked.ended:.1f} s")


def needed(exchange: Exchange, size: int) -> int:
    """Return the number of segments that so many bytes need if they are sent in one write."""
    return -(-size // (exchange.segment_bytes or 1 << 16))


# A newline and the NUL, after the XML, may come in writes of their own.
_MAX_WRITES_BEYOND = 2


def parts(exchange: Exchange) -> int:
    """Return the least number of writes that the policy, through its end tag, can have been sent in.

    Clients that read once need the XML, but neither the NUL nor the bytes after it. Receives show where the server's
    writes end; of writes that came together only the number of segments is known, and the NUL may be one of them.
    """
    reply = Reply.of(exchange)
    total = receives = 0
    for event in exchange.received:
        total += len(event.data)
        receives += 1
        if total >= reply.xml_size:
            break
    hidden = 0
    if exchange.segments and not reply.extra:
        beyond = min(len(exchange.data) - reply.xml_size, _MAX_WRITES_BEYOND)
        hidden = exchange.segments - needed(exchange, len(exchange.data)) - beyond
    return max(receives - needed(exchange, reply.xml_size), hidden, 0) + 1


@rule(
    "PB212", WARNING, "several-writes",
    wrong="the server sends the policy in several writes: Lightspark and Unity read only the first",
    instead="put the policy and its NUL into one buffer and send it with one call",
    seen="the XML comes in more receives or segments than its size needs, in most tries",
    clients=("lightspark", "unity"), trap=True,
)  # fmt: skip
def several_writes(view: View) -> Iterator[Hit]:
    for target in view.serving:
        whole = [exchange for exchange in target.repeats if exchange.end is not End.FLOOD and exchange.data]
        split = [exchange for exchange in whole if parts(exchange) > 1]
        if 2 * len(split) > len(whole):  # a retransmission can add a segment
            first = split[0]
            sizes = " + ".join(f"{len(event.data):,}" for event in first.received[:8])
            segments = f" ({first.segments} segments)" if first.segments else ""
            yield Hit(target, f"received as {sizes} bytes{segments}; in {len(split)} of {len(whole)} tries")


@rule(
    "PB213", WARNING, "several-segments",
    wrong="the policy is larger than a segment of {bytes} bytes: Lightspark and Unity deny if they read only the first",
    instead="make the policy smaller, if these clients matter: grant to *.suffix or * instead of many hosts",
    seen="the XML needs more than one segment on the path to the prober", clients=("lightspark", "unity"),
)  # fmt: skip
def several_segments(view: View) -> Iterator[Hit]:
    for target in view.serving:
        exchange = target.asked
        size = Reply.of(exchange).xml_size
        if exchange.segment_bytes and needed(exchange, size) > 1 and exchange.end is not End.FLOOD:
            yield Hit(target, f"{size:,} bytes", bytes=f"{exchange.segment_bytes:,}")


@rule(
    "PB216", WARNING, "full-read",
    wrong="Lightspark waits without limit: it reads {size} bytes, a multiple of its buffer of 4,096, and then expects"
    " more",
    instead="close the connection after the policy, or change its size by a byte",
    seen="the reply has a multiple of 4,096 bytes, NUL included, and the connection stays open",
    clients=("lightspark",), trap=True,
)  # fmt: skip
def full_read(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.asked.received and lightspark_reads(target.asked) is None:
            size = f"{len(target.asked.data):,}"
            yield Hit(target, f"{size} bytes, then {target.asked.end}", size=size)


@rule(
    "PB214", WARNING, "changing",
    wrong="the same request gets {count} different policies", instead="give all servers behind this address one policy",
    seen="the replies to several plain requests are compared",
)  # fmt: skip
def changing(view: View) -> Iterator[Hit]:
    for target in view.serving:
        replies = [target.reply_to(exchange) for exchange in target.repeats]
        files = list(dict.fromkeys(r.file for r in replies if r.is_policy and (r.terminated or r.end is End.CLOSED)))
        if len(files) > 1:
            at = next((i for i, (a, b) in enumerate(zip(*files[:2], strict=False)) if a != b), min(map(len, files[:2])))
            parts = " and ".join(printable(file[max(0, at - 10) :], 30) for file in files[:2])
            yield Hit(target, f"they differ from byte {at + 1:,} on: {parts}", count=len(files))


@rule(
    "PB215", WARNING, "after-the-nul",
    wrong="bytes follow the NUL, and no client reads them: Flash Player closes at the NUL",
    instead="end the reply with one NUL, and close", clients=ADOBE,
    seen="the reply continues after its first NUL",
)  # fmt: skip
def after_the_nul(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if not is_silverlights(target) and target.reply.extra and target.asked.end is not End.FLOOD:
            yield Hit(target, printable(target.reply.extra))
