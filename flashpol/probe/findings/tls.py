"""PB50x and PB53x: TLS, if the probe was asked to speak it: the handshake, and what the clients offer."""

from collections.abc import Iterator

from flashpol.probe.exchange import Exchange, Reached
from flashpol.probe.findings.registry import ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Target
from flashpol.probe.reply import printable
from flashpol.probe.tls.handshake import Outcome
from flashpol.probe.tls.offers import OLD_VERSIONS, TLS_CLIENTS

SECURE_SOCKETS = ("flash", "air")

# ------------------------------------------------------------------------------------------ TLS, or plain text, or both


def _is_plain_only(target: Target) -> bool:
    """Whether a port serves in plain text, and no byte of TLS came from it."""
    handshake = target.handshake
    return (
        handshake is not None
        and not handshake.completed
        and target.serves_plainly
        and (handshake.outcome is Outcome.NOT_TLS or not handshake.first)
    )


def _plain_only(view: View) -> Iterator[Target]:
    yield from filter(_is_plain_only, view.secure)


def _elsewhere(view: View, target: Target) -> int | None:
    """Return a port of the same address that serves a policy inside TLS, if any."""
    others = view.observation.targets[target.address]
    return next((other.port for other in others if other.serves), None)


def _hello(exchange: Exchange) -> str:
    """Return what the server did with a ClientHello, as evidence."""
    handshake = exchange.tls
    assert handshake is not None
    after = f"after {handshake.ended:.2f} s"
    match handshake.outcome:
        case Outcome.ALERT:
            return f"alert {handshake.alert} ({handshake.alert_name}) {after}"
        case Outcome.NOT_TLS:
            return f"to a ClientHello it sends {printable(handshake.first)}"
        case Outcome.CLOSED | Outcome.RESET:
            came = f"{len(handshake.first)} bytes of TLS" if handshake.first else "no byte"
            return f"{came}, then {handshake.outcome} {after}"
        case Outcome.TIMEOUT:
            came = f"{len(handshake.first)} bytes of TLS or more" if handshake.first else "nothing"
            return f"{came} came in {handshake.ended:.1f} s"
        case _:
            return handshake.error or handshake.verify_message


@rule(
    "PB501", ERROR, "plain-text-only",
    wrong="port {port} serves the policy in plain text only: content that uses SecureSocket asks inside TLS",
    instead="turn TLS on for this port, or probe without --tls if the content uses Socket or XMLSocket",
    seen="the handshake fails, the same request in plain text gets a policy, and no other port serves one inside TLS",
    clients=("flash",),
)  # fmt: skip
def plain_text_only(view: View) -> Iterator[Hit]:
    for target in _plain_only(view):
        if _elsewhere(view, target) is None:
            yield Hit(target, _hello(target.asked), ("flash",), port=target.port)


@rule(
    "PB502", NOTE, "plain-text-here",
    wrong="port {port} serves the policy in plain text only; content that uses SecureSocket gets one from port {other}",
    instead="nothing, if both policies grant the same; TLS on port {port} would save these clients a connection",
    seen="as PB501, and another port serves a policy inside TLS", clients=("flash",),
)  # fmt: skip
def plain_text_here(view: View) -> Iterator[Hit]:
    for target in _plain_only(view):
        if (other := _elsewhere(view, target)) is not None:
            yield Hit(target, _hello(target.asked), ("flash",), port=target.port, other=other)


@rule(
    "PB503", NOTE, "tls-only",
    wrong="port {port} serves the policy inside TLS only: content that uses Socket or XMLSocket gets none there",
    instead="nothing, if all content uses SecureSocket; otherwise serve the policy in plain text too",
    seen="the request gets a policy inside TLS, and none in plain text", clients=("flash",),
)  # fmt: skip
def tls_only(view: View) -> Iterator[Hit]:
    for target in view.serving:
        for exchange in target.tried.get("plain", ()):
            if target.handshake is not None and not target.serves_plainly and exchange.reached is Reached.CONNECTED:
                came = printable(exchange.data, 30) if exchange.data else "nothing"
                yield Hit(target, f"in plain text: {came}, then {exchange.end}", ("flash",), port=target.port)


@rule(
    "PB504", ERROR, "no-policy-inside-tls",
    wrong="port {port} serves the policy in plain text, and inside TLS {what}",
    instead="serve it inside TLS too: a proxy that ends TLS may pass the connection to another program",
    seen="the handshake succeeds, the request inside TLS gets no policy, and the same request in plain text does",
    clients=("flash",),
)  # fmt: skip
def no_policy_inside_tls(view: View) -> Iterator[Hit]:
    for target in view.secure:
        if target.asked.opened and not target.serves and target.serves_plainly:
            asked = target.asked
            what = (
                "something else" if asked.data else f"nothing: the connection is {_ENDS.get(str(asked.end), asked.end)}"
            )
            evidence = f"inside TLS: {printable(asked.data) if asked.data else 'nothing'}, then {asked.end}"
            yield Hit(target, evidence, ("flash",), port=target.port, what=what)


_ENDS = {"open": "kept open", "aborted": "broken off"}

# ------------------------------------------------------------------------------------------------------- the handshake


def _failed(view: View, *outcomes: Outcome) -> Iterator[Target]:
    for target in view.secure:
        if target.handshake is not None and target.handshake.outcome in outcomes and not _is_plain_only(target):
            yield target


# What to do about an alert.
_REMEDIES = {
    40: "look for a missing or unreadable certificate, for cipher suites that no client has, and for a client"
    " certificate that is required",
    42: "do not require a client certificate: {client} has none",
    46: "do not require a client certificate: {client} has none",
    48: "do not require a client certificate: {client} has none",
    70: "enable TLS 1.2, which all clients have",
    80: "read the server's log: it failed by itself",
    112: "add a certificate for {name}, or correct the name that is probed (--server-name)",
    116: "do not require a client certificate: {client} has none",
    120: "{alpn}",
}


# What is asked for -> what a remedy says about the client.
_WORDS = {
    "policy": {"client": "SecureSocket", "alpn": "do not require ALPN: SecureSocket sends none"},
    "websocket": {
        "client": "Ruffle",
        "alpn": "allow http/1.1 in ALPN, the one protocol that browsers offer for a WebSocket",
    },
    "rtmp": {"client": "a client of RTMPS", "alpn": "do not require ALPN: clients of RTMPS send none"},
}


@rule(
    "PB505", ERROR, "handshake-refused",
    wrong="port {port} refuses the TLS handshake of every client: alert {alert} ({name})",
    instead="{remedy}",
    seen="the server replies with an alert to a ClientHello that offers all that this machine's OpenSSL has",
    clients=TLS_CLIENTS,
)  # fmt: skip
def handshake_refused(view: View) -> Iterator[Hit]:
    for target in _failed(view, Outcome.ALERT):
        alert = target.handshake.alert if target.handshake else None
        remedy = _REMEDIES.get(alert or 0, "read the server's log, which may say more than the alert")
        name = target.handshake.alert_name if target.handshake else ""
        yield Hit(
            target, _hello(target.asked), port=target.port, alert=alert, name=name,
            remedy=remedy.format(name=view.observation.name, **_WORDS[view.question.what]),
        )  # fmt: skip


@rule(
    "PB506", ERROR, "handshake-unfinished",
    wrong="port {port} does not complete the TLS handshake in {seconds} s",
    instead="find out whether this port speaks TLS at all, and whether a proxy waits for its backend before the"
    " handshake",
    seen="the connection stays open, and the server's part of the handshake does not come", clients=TLS_CLIENTS,
)  # fmt: skip
def handshake_unfinished(view: View) -> Iterator[Hit]:
    for target in _failed(view, Outcome.TIMEOUT):
        yield Hit(target, _hello(target.asked), port=target.port, seconds=f"{view.question.timeouts.reply:g}")


@rule(
    "PB507", ERROR, "handshake-broken-off",
    wrong="port {port} {how} the connection during the TLS handshake",
    instead="turn TLS on for this port, or correct the port; if TLS is on, read the server's log: it may have no"
    " certificate, or a limit may keep the prober out",
    seen="FIN or RST comes before the handshake is complete, and no alert before it", clients=TLS_CLIENTS,
)  # fmt: skip
def handshake_broken_off(view: View) -> Iterator[Hit]:
    for target in _failed(view, Outcome.CLOSED, Outcome.RESET):
        closed = target.handshake is not None and target.handshake.outcome is Outcome.CLOSED
        yield Hit(target, _hello(target.asked), port=target.port, how="closes" if closed else "resets")


@rule(
    "PB508", ERROR, "not-tls",
    wrong="port {port} does not speak TLS",
    instead="turn TLS on for this port, or correct the port",
    seen="something that is not TLS comes after a ClientHello", clients=TLS_CLIENTS,
)  # fmt: skip
def not_tls(view: View) -> Iterator[Hit]:
    for target in _failed(view, Outcome.NOT_TLS):
        yield Hit(target, _hello(target.asked), port=target.port)


@rule(
    "PB509", ERROR, "handshake-failed",
    wrong="the TLS handshake with port {port} fails: {why}",
    instead="read the server's log, and compare with `openssl s_client -connect {where}`",
    seen="OpenSSL does not accept what the server sends", clients=TLS_CLIENTS,
)  # fmt: skip
def handshake_failed(view: View) -> Iterator[Hit]:
    for target in _failed(view, Outcome.FAILED, Outcome.UNTRUSTED):
        yield Hit(target, _hello(target.asked), port=target.port, where=target.where, why=_hello(target.asked))


# ------------------------------------------------------------------------------------------------- what clients offer


def _too_modern(view: View, *, for_content: bool) -> Iterator[Hit]:
    for target in view.secure:
        for exchange in target.tried.get("flash", ()) if target.content_connects is for_content else ():
            if exchange.tls is not None and not exchange.tls.completed:
                chosen = target.handshake.words if target.handshake else ""
                evidence = f"with CBC suites only: {_hello(exchange)}; with everything: {chosen}"
                yield Hit(target, evidence, port=target.port)


@rule(
    "PB530", ERROR, "policy-too-modern",
    wrong="SecureSocket gets no policy from port {port}: AIR and Flash Player offer TLS 1.2 at most, with CBC suites"
    " only, and the server refuses that",
    instead='allow TLS 1.2 with suites such as ECDHE-RSA-AES128-SHA (flashpol: tls_profile = "flash")',
    seen="a handshake that offers TLS 1.0 to 1.2 and only CBC suites fails, one that offers everything succeeds, and"
    " only SecureSocket asks this port", clients=("flash",),
)  # fmt: skip
def policy_too_modern(view: View) -> Iterator[Hit]:
    yield from _too_modern(view, for_content=False)


@rule(
    "PB531", WARNING, "too-modern",
    wrong="SecureSocket cannot connect to port {port}: AIR and Flash Player offer TLS 1.2 at most, with CBC suites"
    " only, and the server refuses that",
    instead='allow TLS 1.2 with suites such as ECDHE-RSA-AES128-SHA (flashpol: tls_profile = "flash"), if such content'
    " connects here; otherwise name the clients that do with --client",
    seen="as PB530, on the port of --port", clients=SECURE_SOCKETS, trap=True,
)  # fmt: skip
def too_modern(view: View) -> Iterator[Hit]:
    yield from _too_modern(view, for_content=True)


@rule(
    "PB532", WARNING, "too-old",
    wrong="browsers cannot connect to port {port}: they require TLS 1.2, and the server takes {version} at most",
    instead="enable TLS 1.2 and 1.3, if content in Ruffle connects here; media clients need them too",
    seen="the server chooses TLS 1.0 or 1.1, although all versions are offered", clients=("browser",), trap=True,
)  # fmt: skip
def too_old(view: View) -> Iterator[Hit]:
    for target in view.secure:
        if target.handshake is not None and target.handshake.version in OLD_VERSIONS:
            yield Hit(target, target.handshake.words, port=target.port, version=target.handshake.version)


@rule(
    "PB533", NOTE, "no-close-notify",
    wrong="port {port} closes without close_notify: clients cannot tell the end of the reply from an interruption",
    instead="end TLS before the connection (SSL_shutdown), so that the policy's end cannot be forged",
    seen="FIN comes after the reply, and no close_notify before it", clients=("flash",),
)  # fmt: skip
def no_close_notify(view: View) -> Iterator[Hit]:
    for target in view.serving:
        handshake = target.handshake
        if handshake is not None and handshake.close_notify is False:
            yield Hit(target, f"{len(target.asked.data):,} bytes, then {target.asked.end}", port=target.port)
