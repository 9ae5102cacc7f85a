"""PB63x and PB64x: a WebSocket that was opened: the head of 101, and what comes after it."""

from collections.abc import Iterator

from flashpol.probe.findings.registry import BROWSER, ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.findings.websocket import SLOW, hindered, targets, upgrades
from flashpol.probe.reply import printable
from flashpol.probe.websocket import frames
from flashpol.probe.websocket.judgement import Kind, quoted
from flashpol.probe.websocket.request import accept_for
from flashpol.probe.websocket.upgrade import upgrade_of


@rule(
    "PB630", ERROR, "wrong-accept",
    wrong="port {port} replies 101 with {what} Sec-WebSocket-Accept: browsers break the connection off",
    instead="correct the server (base64 of the SHA-1 of key and GUID), or the cache or proxy that replies with an old"
    " head",
    seen="the field is missing, there twice, or does not belong to the key that was sent", clients=BROWSER,
)  # fmt: skip
def wrong_accept(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.ACCEPT):
        came = upgrade.head.get("sec-websocket-accept") if upgrade.head is not None else ""
        evidence = f"{came or 'none'}, and to the key {upgrade.key} belongs {accept_for(upgrade.key)}"
        yield Hit(target, evidence, port=target.port, what=obstacle.detail)


@rule(
    "PB631", ERROR, "upgrade-fields",
    wrong="port {port} replies 101 without {what}: browsers break the connection off",
    instead="let the server send both fields, and the proxy in front of it pass them on",
    seen="Upgrade is not websocket, or Connection does not have upgrade in it", clients=BROWSER,
)  # fmt: skip
def upgrade_fields(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.FIELDS):
        head = upgrade.head
        came = [f"{name.title()}: {head.get(name) or 'none'}" for name in ("upgrade", "connection")] if head else []
        yield Hit(target, "; ".join(came), port=target.port, what=obstacle.detail)


@rule(
    "PB632", ERROR, "unasked-subprotocol",
    wrong="port {port} chooses the subprotocol {what}, which Ruffle does not offer: browsers break the connection off",
    instead="let the server choose one only if the client offers it",
    seen="the reply has Sec-WebSocket-Protocol, and the request has none", clients=BROWSER,
)  # fmt: skip
def unasked_subprotocol(view: View) -> Iterator[Hit]:
    for target, upgrade, _ in hindered(view, Kind.SUBPROTOCOL):
        what = upgrade.head.get("sec-websocket-protocol") if upgrade.head is not None else ""
        yield Hit(target, quoted(upgrade), port=target.port, what=what or "(empty)")


@rule(
    "PB633", ERROR, "unasked-extension",
    wrong="port {port} chooses the extension {what}, which browsers do not offer: they break the connection off",
    instead="let the server choose permessage-deflate with parameters of RFC 7692, or no extension",
    seen="Sec-WebSocket-Extensions has something other than permessage-deflate, has it twice, or with other parameters",
    clients=BROWSER,
)  # fmt: skip
def unasked_extension(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.EXTENSION):
        what = obstacle.words.rpartition(": ")[2]
        yield Hit(target, quoted(upgrade), port=target.port, what=what)


@rule(
    "PB640", ERROR, "closed-at-once",
    wrong="port {port} opens the WebSocket and ends it after {seconds} s: {how}",
    instead="start the application behind it, or correct its address, and read the bridge's log: websockify and others"
    " reply 101 before they connect to the application",
    seen="a Close, FIN or RST comes within a second of 101, before the probe has sent anything", clients=BROWSER,
)  # fmt: skip
def closed_at_once(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.ENDED):
        came = len(upgrade.came.frames)
        evidence = f"{came} frame{'s' * (came != 1)}, then {obstacle.detail}"
        yield Hit(target, evidence, port=target.port, seconds=f"{upgrade.left or 0:.2f}", how=obstacle.detail)


@rule(
    "PB641", WARNING, "text-frames",
    wrong="port {port} sends text, which Ruffle drops: the content gets none of it",
    instead="let the server send binary messages only, whatever is in them",
    seen="a text frame comes within a second of 101", clients=BROWSER,
)  # fmt: skip
def text_frames(view: View) -> Iterator[Hit]:
    for target in targets(view):
        if target.asked.opened and (text := upgrade_of(target.asked).came.of_kind(frames.TEXT)):
            yield Hit(target, f"{len(text)} of them, the first {printable(text[0].payload)}", port=target.port)


@rule(
    "PB642", ERROR, "broken-frames",
    wrong="port {port} sends what RFC 6455 forbids, and browsers break the connection off: {what}",
    instead="correct the server's frames, or the proxy that puts something between them",
    seen="a frame that is masked, of an unknown kind, with a reserved bit, or with a length or an order that must not"
    " be", clients=BROWSER,
)  # fmt: skip
def broken_frames(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.FRAME):
        head = upgrade.head
        after = printable(target.asked.data[head.size :]) if head is not None else ""
        yield Hit(target, f"after 101 came {after}", port=target.port, what=obstacle.detail)


@rule(
    "PB643", NOTE, "no-pong",
    wrong="port {port} does not reply to a ping: {what}",
    instead="nothing for Ruffle, whose browser sends no pings; RFC 6455 requires a pong",
    seen="no pong with the same payload comes in the time for a reply, or the connection ends", clients=BROWSER,
)  # fmt: skip
def no_pong(view: View) -> Iterator[Hit]:
    for target, upgrade in upgrades(view):
        came = upgrade.came
        if upgrade.pinged and upgrade.pong is None and not came.error and not came.cut:
            what = upgrade.how or f"nothing came in {view.question.timeouts.reply:g} s"
            yield Hit(target, what, port=target.port, what=what)


@rule(
    "PB644", WARNING, "slow-upgrade",
    wrong="the WebSocket took {seconds} s to open; Ruffle tells the content at once that it is connected",
    instead="find the cause of the delay: the connection from the server to the application, a proxy, or the network",
    seen="a second or more passes between the request and the end of the head with 101", clients=BROWSER,
)  # fmt: skip
def slow_upgrade(view: View) -> Iterator[Hit]:
    for target in targets(view):
        upgrade = upgrade_of(target.asked)
        if upgrade.opened and upgrade.seconds is not None and upgrade.seconds >= SLOW:
            yield Hit(target, quoted(upgrade), seconds=f"{upgrade.seconds:.2f}")
