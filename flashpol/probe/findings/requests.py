"""PB3xx: how the server treats requests. `experiments.EXPERIMENTS` says what each experiment sends."""

from collections.abc import Iterator
from itertools import takewhile

from flashpol.probe.exchange import End, Event, Exchange, What
from flashpol.probe.experiments import OTHER_REQUESTS
from flashpol.probe.findings.registry import ADOBE, ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import NUL, Kind, Reply, printable


def _served(exchange: Exchange) -> bool:
    return Reply.of(exchange).served


def _what_came(exchange: Exchange) -> str:
    got = f"{len(exchange.data):,} bytes" if exchange.data else "nothing"
    return f"{got}, then {exchange.end or exchange.reached}"


def _unserved(view: View, *names: str) -> Iterator[tuple[Target, Exchange]]:
    """Targets that serve every plain request but not one of these experiments, with the first failed exchange."""
    for target in view.serving:
        if not all(map(_served, target.repeats)):
            continue  # a lossy server: its failures prove nothing
        for name in names:
            if (tries := target.tried.get(name)) and not any(map(_served, tries)):
                yield target, tries[0]
                break


@rule(
    "PB301", ERROR, "reset",
    wrong="the server sends RST after the reply ({count} of {tries}): it can overtake the reply, and Windows then"
    " discards the bytes that have arrived",
    instead="read the whole request, all {size} bytes, before closing; or shut down the sending side and read until the"
    " client closes",
    seen="the whole reply comes, then RST",
)  # fmt: skip
def reset(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if target.role is Role.SILVERLIGHT_HTTP:
            continue
        resets = [e for e in target.repeats if e.end is End.RESET and Reply.of(e).whole]
        if resets:
            evidence = f"{_what_came(resets[0])}: {len(resets)} of {len(target.repeats)} tries"
            yield Hit(target, evidence, count=len(resets), tries=len(target.repeats), size=len(target.request))


@rule(
    "PB302", ERROR, "lost",
    wrong="{count} of {tries} requests got no whole reply: connections fail intermittently",
    instead="read the whole request before closing: closing with unread bytes makes the kernel send RST, which"
    " destroys the reply; then look for a limit of connections",
    seen="the same request is sent several times, and some replies are missing or cut off",
)  # fmt: skip
def lost(view: View) -> Iterator[Hit]:
    for target in view.serving:
        good = [e for e in target.repeats if _served(e)]
        bad = [e for e in target.repeats if not _served(e)]
        if good and bad:
            evidence = "; ".join(sorted({_what_came(exchange) for exchange in bad})[:4])
            yield Hit(target, evidence, count=len(bad), tries=len(target.repeats))


@rule(
    "PB303", ERROR, "split-request",
    wrong="a request in two segments gets no policy: networks may split it anywhere",
    instead="read until the end of the request ({end}) instead of once",
    seen="no policy comes for 11 bytes, a pause, and the rest",
)  # fmt: skip
def split_request(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "split"):
        yield Hit(target, _what_came(exchange), end=_end(target))


@rule(
    "PB304", ERROR, "dripping-request",
    wrong="a request that comes byte by byte gets no policy",
    instead="read until the end of the request ({end}), as often as it takes, under one deadline for the whole request",
    seen="no policy comes for the request in segments of one byte", thorough=True,
)  # fmt: skip
def dripping_request(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "drip"):
        if all(map(_served, target.tried.get("split", ()))):
            yield Hit(target, _what_came(exchange), end=_end(target))


def _end(target: Target) -> str:
    return "the NUL" if target.request.endswith(NUL) else f"{len(target.request)} bytes"


def _only_after(view: View, name: str, sends: int, *roles: Role) -> Iterator[Hit]:
    """Targets that do not reply to the plain request, but serve a policy after `sends` sends of this experiment."""
    for target in view.observation.all_targets(*roles):
        for exchange in target.tried.get(name, ()) if target.unanswered else ():
            if Reply.of(exchange).is_policy and _sends(exchange) == sends:
                evidence = f"after the request: {_what_came(target.asked)}; asked this way: {_what_came(exchange)}"
                yield Hit(target, evidence)


def _sends(exchange: Exchange) -> int:
    """Return the number of sends before the reply."""
    before = takewhile(lambda event: event.what is not What.RECEIVED, exchange.events)
    return sum(event.what is What.SENT for event in before)


@rule(
    "PB305", ERROR, "wants-a-newline",
    wrong="the server replies only after a newline, which no client sends",
    instead="read until the NUL, not a line (`readline()`, the shell's `read`)",
    seen="no reply comes to the request, and a policy after the 22 bytes, a pause, CR and LF",
)  # fmt: skip
def wants_a_newline(view: View) -> Iterator[Hit]:
    yield from _only_after(view, "in stages", 2)


@rule(
    "PB306", ERROR, "wants-the-end",
    wrong="the server replies only when the client has closed its sending side, which no client does",
    instead="read until the NUL instead of the end of the stream",
    seen="no reply comes to the request, and a policy after the request and FIN",
)  # fmt: skip
def wants_the_end(view: View) -> Iterator[Hit]:
    yield from _only_after(view, "half-close", 1)


@rule(
    "PB315", ERROR, "wants-no-nul",
    wrong="the server replies only to a request without a NUL: Flash Player, Lightspark and Unity send one",
    instead="read until the NUL, and compare the bytes before it",
    seen="no reply comes to the request, and a policy after the 22 bytes alone", clients=ADOBE,
)  # fmt: skip
def wants_no_nul(view: View) -> Iterator[Hit]:
    yield from _only_after(view, "in stages", 1, Role.MASTER, Role.LOCATION)


@rule(
    "PB316", ERROR, "wants-a-nul",
    wrong="the server replies only after a NUL, which Silverlight does not send",
    instead="reply to the 22 bytes; run one server for Flash on 843 and another one for Silverlight on 943",
    seen="no reply comes to the 22 bytes, and a policy after them and a NUL", clients=("silverlight",),
)  # fmt: skip
def wants_a_nul(view: View) -> Iterator[Hit]:
    yield from _only_after(view, "in stages", 1, Role.SILVERLIGHT)


@rule(
    "PB319", ERROR, "wants-another-request",
    wrong="the server replies only to `{request}`, which no client sends",
    instead="compare the request with `<policy-file-request/>`, 22 bytes without a blank",
    seen="no reply comes to the request, and a policy after a form of it that documents print",
)  # fmt: skip
def wants_another_request(view: View) -> Iterator[Hit]:
    for name, other in OTHER_REQUESTS.items():
        for hit in _only_after(view, name, 1):
            hit.values["request"] = other.decode()
            yield hit


def _until(exchange: Exchange, sent: int) -> tuple[Event, ...]:
    """Return what was received before send number `sent`, counted from 0."""
    came: list[Event] = []
    for event in exchange.events:
        sent -= event.what is What.SENT
        if sent < 0:
            break
        if event.what is What.RECEIVED:
            came.append(event)
    return tuple(came)


def _bytes(events: tuple[Event, ...]) -> int:
    return sum(len(event.data) for event in events)


@rule(
    "PB307", WARNING, "speaks-first",
    wrong="the server sends the policy before the request: Unity forbids it, and a request after the close causes RST",
    instead="read the request, then reply",
    seen="bytes come on a connection on which nothing was sent",
)  # fmt: skip
def speaks_first(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("split", ()):
            if came := _until(exchange, 0):
                yield Hit(target, f"{_bytes(came):,} bytes within {came[0].at:.2f} s, and nothing was sent")


@rule(
    "PB308", WARNING, "part-of-a-request",
    wrong="the server replies to a part of the request: closing with the rest unread causes RST",
    instead="read the whole request, until {end}, then reply",
    seen="a policy comes after the first 11 bytes",
)  # fmt: skip
def part_of_a_request(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("split", ()):
            if not _until(exchange, 0) and (came := _until(exchange, 1)) and Reply(came[0].data, None).is_policy:
                yield Hit(target, f"{_bytes(came):,} bytes after 11 bytes of request", end=_end(target))


@rule(
    "PB309", NOTE, "tests-by-hand",
    wrong="the server does not reply without the NUL: tests with telnet or `echo` fail, though clients connect",
    instead="test with `printf '<policy-file-request/>\\0' | nc {address} {port}`",
    seen="no policy comes for the 22 bytes alone, or with CR and LF", clients=ADOBE, thorough=True,
)  # fmt: skip
def tests_by_hand(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "newline", "bare"):
        sent = next(event.data for event in exchange.events if event.what is What.SENT)
        yield Hit(target, f"after {printable(sent)}: {_what_came(exchange)}", address=target.address, port=target.port)


@rule(
    "PB310", WARNING, "more-than-the-request",
    wrong="the reply is lost or followed by RST if more bytes come with the request ({count} of {tries})",
    instead="after the reply shut down the sending side, and read until the client closes",
    seen="the request and 64 more bytes, in one segment, five times, get no reply, or RST after it", thorough=True,
)  # fmt: skip
def more_than_the_request(view: View) -> Iterator[Hit]:
    for target in view.serving:
        tries = target.tried.get("more", ())
        bad = [e for e in tries if e.end is End.RESET or not _served(e)]
        plain = any(e.end is End.RESET or not _served(e) for e in target.repeats)  # PB301 or PB302 reports it
        if bad and not plain:
            yield Hit(target, _what_came(bad[0]), count=len(bad), tries=len(tries))


@rule(
    "PB311", WARNING, "half-closed",
    wrong="a client that closes its sending side after the request gets no policy, as some proxies and `nc -N` do",
    instead="reply to the request, whether or not more bytes can come",
    seen="no policy comes after the request and FIN", thorough=True,
)  # fmt: skip
def half_closed(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "half-close"):
        yield Hit(target, _what_came(exchange))


@rule(
    "PB312", NOTE, "any-request",
    wrong="the server sends the policy whatever the request is",
    instead="reply only to the policy request, so that other clients get an error instead of a policy",
    seen="an HTTP request gets the policy", thorough=True,
)  # fmt: skip
def any_request(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("http", ()):
            if Reply.of(exchange).kind is Kind.POLICY:
                yield Hit(target, f"GET / gets {printable(exchange.data, 30)}")


@rule(
    "PB313", WARNING, "no-deadline",
    wrong="the server keeps a silent client for more than {seconds} s: a few thousand of them fill it",
    instead="give the whole request a deadline; Flash Player itself waits three seconds",
    seen="a connection on which nothing is sent stays open", thorough=True,
)  # fmt: skip
def no_deadline(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("idle", ()):
            if exchange.silent and view.question.thorough:
                yield Hit(target, f"still open after {exchange.ended:.1f} s", seconds=f"{view.question.idle:g}")


@rule(
    "PB314", ERROR, "one-at-a-time",
    wrong="while one client is silent, no other client gets a reply",
    instead="serve connections concurrently",
    seen="no reply comes to a request beside a connection on which nothing is sent", thorough=True,
)  # fmt: skip
def one_at_a_time(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "beside"):
        if exchange.silent:
            yield Hit(target, f"beside a silent connection: {_what_came(exchange)}")


@rule(
    "PB317", NOTE, "shut-out",
    wrong="the server shuts the prober out after {connections}: it limits or bans its address",
    instead="exempt the prober's address to run the other experiments; check that the limit suits users who share one"
    " address",
    seen="a request gets no policy, nor do the plain requests after it; nothing is concluded from the first",
)  # fmt: skip
def shut_out(view: View) -> Iterator[Hit]:
    for target in view.serving:
        if (after := target.shut_out_after) is not None:
            came = list(dict.fromkeys(map(_what_came, target.tried["shut out"])))
            yield Hit(target, "; ".join(came[:4]), connections=f"{after} connection{'s' if after != 1 else ''}")


@rule(
    "PB318", NOTE, "one-per-address",
    wrong="the server closes a second connection from the same address while the first is open",
    instead="raise the limit of connections per address: users behind a proxy or NAT share one",
    seen="a request beside a silent connection is closed without a reply, and a request after it gets the policy",
    thorough=True,
)  # fmt: skip
def one_per_address(view: View) -> Iterator[Hit]:
    for target, exchange in _unserved(view, "beside"):
        if not exchange.silent:
            yield Hit(target, f"beside a silent connection: {_what_came(exchange)}")
