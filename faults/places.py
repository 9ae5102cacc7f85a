"""The good clients of an attack: what each kind does, and where they are, seen from the attackers.

A row is good clients of one kind at one place. The four places of an attack on one listener of `shared.py`:

- the same address: they share the attackers' address, as behind a NAT, and ask the same listener
- the same listener: they have other addresses
- another listener: it has other clients, and an upstream of its own or none
- another upstream: shared ports whose applications the attackers do not reach

An attack on TLS has good clients with TLS at each of them too, as rows of the table of their own: a handshake takes
longer than a reply in plain text, so that one p99 of both would hide what happens to either. For the same reason an
attack by way of WebSocket or HTTP has good clients of these at each place, and others with TLS below them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

# Good clients come from 127.2.0.0/16, bad ones from 127.16.0.0/12, so that a firewall can tell them apart.
GOOD_SOURCE, GOOD_ADDRESSES = "127.2.0.1", 60_000
BAD_SOURCE = "127.16.0.1"

SAME_ADDRESS, SAME_LISTENER = "same address", "same listener"
OTHER_LISTENER, OTHER_UPSTREAM = "another listener", "another upstream"


@dataclass(frozen=True)
class Kind:
    """A kind of good client. script: its steps (native/good.c); {reply} and the like are files of the server's folder.

    rate: how many start in a second. count: so many at a time instead, in a script that loops. window: SO_RCVBUF in
    bytes, of a slow network; 0: the kernel's. prompt: it waits only for the server, so that its time says how fast that
    is. mute: it sends nothing for so long that the server cannot tell it from a silent attacker of the same address.
    tls: it speaks TLS.
    """

    name: str
    script: str
    rate: float
    count: int = 0
    window: int = 0
    prompt: bool = True
    mute: bool = False
    tls: bool = False


_ASK, _PLAY = "send:{request},expect:{reply},end", "send:{hello},expect:{hello}"

POLICY = Kind("policy", _ASK, 60)
# The segment with the request was lost, and sent again. On a shared port a client is relayed after `first_byte_timeout`
# (1 s), so there only an earlier one is a policy client.
LATE = Kind("late policy", f"wait:1200,{_ASK}", 4, mute=True)
LATE_SHARED = Kind("late policy", f"wait:600,{_ASK}", 4, mute=True)
SLOW_NETWORK = Kind("slow network", f"pace:16384/100,{_ASK}", 5, window=16384, prompt=False)
GAME = Kind("game", _PLAY, 60)
LATE_GAME = Kind("late game", f"wait:1200,{_PLAY}", 4, mute=True)
PROXIED_POLICY = Kind("policy", "send:{proxied},expect:{reply},end", 60)
# Sessions that were open before the attack.
PLAYER = Kind("player", f"{_PLAY},wait:200,{_PLAY},loop:2", 50, count=5)
QUIET_PLAYER = Kind("quiet player", f"{_PLAY},wait:2500,{_PLAY},loop:2", 50, count=3)
# Their application speaks first.
CHAT = Kind("chat", f"expect:{{greeting}},{_PLAY}", 4, prompt=False, mute=True)
SPECTATOR = Kind("spectator", "expect:{greeting},expect:{tick},loop:1", 50, count=3, prompt=False, mute=True)

# In TLS. A handshake costs as much as many replies, so there are fewer of them.
TLS_POLICY = Kind("TLS policy", _ASK, 30, tls=True)
TLS_LATE = Kind("late TLS policy", f"wait:600,{_ASK}", 3, mute=True, tls=True)
# The way to the client is long, so that the server waits for its second message, as for that of an attacker.
TLS_FAR = Kind("far TLS policy", f"hello,wait:400,{_ASK}", 4, mute=True, tls=True)
TLS_SLOW_NETWORK = replace(SLOW_NETWORK, name="slow TLS network", tls=True)
TLS_GAME = Kind("TLS game", _PLAY, 15, tls=True)
TLS_PLAYER = replace(PLAYER, name="TLS player", count=3, tls=True)
TLS_QUIET_PLAYER = replace(QUIET_PLAYER, name="quiet TLS player", count=2, tls=True)

# WebSocket, and policy files by URL.
_OPEN, _SAY = "send:{ws-open},expect:{ws-switched}", "send:{ws-hello},expect:{ws-echo}"
WS_GAME = Kind("WebSocket game", f"{_OPEN},{_SAY},send:{{ws-close}},expect:{{ws-closed}},end", 15)
WS_LATE_GAME = Kind("late WebSocket game", f"wait:600,{WS_GAME.script}", 3, mute=True)
WS_PLAYER = Kind("WebSocket player", f"{_OPEN},{_SAY},wait:200,{_SAY},loop:4", 50, count=4)
WS_QUIET_PLAYER = Kind("quiet WebSocket player", f"{_OPEN},{_SAY},wait:2500,{_SAY},loop:4", 50, count=2)
URL_POLICY = Kind("policy by URL", "send:{url-request},expect:{url-reply},end", 20)
WSS_GAME = replace(WS_GAME, name="wss game", rate=8, tls=True)
WSS_PLAYER = replace(WS_PLAYER, name="wss player", count=3, tls=True)
WSS_QUIET_PLAYER = replace(WS_QUIET_PLAYER, name="quiet wss player", tls=True)

_WS_KINDS = (WS_GAME, WS_LATE_GAME, WS_PLAYER, WS_QUIET_PLAYER)
_WSS_KINDS = (WSS_GAME, WSS_PLAYER, WSS_QUIET_PLAYER)
WS_KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (URL_POLICY,),
    "slow": (),
    "games": (URL_POLICY, *_WS_KINDS),
    "arena": _WS_KINDS,
    "chat": (),
}
WSS_KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (replace(TLS_POLICY, rate=10), replace(URL_POLICY, name="policy by https URL", rate=5, tls=True)),
    "slow": (),
    "games": (replace(TLS_POLICY, rate=10), *_WSS_KINDS),
    "arena": _WSS_KINDS,
    "chat": (),
}

# RTMPT. A player's requests are on one connection; those of a browser are on one each, at any worker.
_ECHO = "echo:{hello}"
RTMPT_GAME = Kind("RTMPT game", f"open,{_ECHO},close", 10)
RTMPT_PLAYER = Kind("RTMPT player", f"open,{_ECHO},wait:200,{_ECHO},loop:2", 50, count=4)
RTMPT_QUIET_PLAYER = Kind("quiet RTMPT player", f"open,{_ECHO},poll,poll,poll,{_ECHO},loop:2", 50, count=2)
RTMPT_BROWSER = Kind("RTMPT in a browser", f"apart,open,{_ECHO},poll,{_ECHO},close", 5)
RTMPT_BROWSING = Kind("RTMPT player in a browser", f"apart,open,{_ECHO},wait:100,{_ECHO},loop:3", 50, count=3)
RTMPTS_PLAYER = replace(RTMPT_PLAYER, name="RTMPTS player", count=3, tls=True)
RTMPTS_GAME = replace(RTMPT_GAME, name="RTMPTS game", rate=5, tls=True)

_RTMPT_KINDS = (RTMPT_GAME, RTMPT_PLAYER, RTMPT_QUIET_PLAYER, RTMPT_BROWSER, RTMPT_BROWSING)
RTMPT_KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (),
    "slow": (),
    "games": _RTMPT_KINDS,
    "arena": _RTMPT_KINDS,
    "chat": (),
}
RTMPTS_KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (replace(TLS_POLICY, rate=10),),
    "slow": (),
    "games": (RTMPTS_GAME, RTMPTS_PLAYER, WSS_GAME),
    "arena": (RTMPTS_GAME, RTMPTS_PLAYER, WSS_GAME),
    "chat": (),
}
TUNNELLED_WS_KINDS_AT = {
    name: tuple(kind for kind in kinds if kind in (WS_GAME, WS_PLAYER, URL_POLICY))
    for name, kinds in WS_KINDS_AT.items()
}

TLS_KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (TLS_POLICY, TLS_LATE, TLS_FAR),
    "slow": (replace(TLS_POLICY, rate=5), TLS_SLOW_NETWORK),
    "games": (TLS_POLICY, TLS_LATE, TLS_FAR, TLS_GAME, TLS_PLAYER, TLS_QUIET_PLAYER),
    "arena": (TLS_GAME, TLS_PLAYER, TLS_QUIET_PLAYER),
    "chat": (),
}

KINDS_AT: dict[str, tuple[Kind, ...]] = {
    "small": (POLICY, LATE),
    "slow": (replace(POLICY, rate=20), SLOW_NETWORK),
    "proxied": (PROXIED_POLICY,),
    "games": (POLICY, LATE_SHARED, GAME, LATE_GAME, PLAYER, QUIET_PLAYER),
    "arena": (GAME, LATE_GAME, PLAYER, QUIET_PLAYER),
    "chat": (POLICY, LATE_SHARED, CHAT, SPECTATOR),
}


@dataclass(frozen=True)
class Row:
    """Good clients of one kind at one place. source, addresses: the first address, and how many there are."""

    place: str
    listener: str
    kind: Kind
    source: str = GOOD_SOURCE
    addresses: int = GOOD_ADDRESSES


# What attacks have that concern no address and no listener: 2 % of the capacity of two workers on the slowest machine
# that was tried.
ONE_PLACE = (Row(SAME_LISTENER, "small", replace(POLICY, rate=500)),)


def four_places(
    listener: str = "games",
    *,
    like: str = "",
    source: str = BAD_SOURCE,
    without: tuple[Kind, ...] = (),
    alike: tuple[str, ...] = (),
    crowded: tuple[str, ...] = (),
    asked: str | None = "",
    others: tuple[str, ...] = (),
    kinds: Mapping[str, tuple[Kind, ...]] = KINDS_AT,
) -> tuple[Row, ...]:
    """The rows for an attack from `source` on this listener.

    like: the listener in `KINDS_AT` that it resembles, if it is none of those. without: the kinds that it cannot serve.
    No mute client has the attackers' address: the server prefers a newcomer of an address to those of it that have
    waited longest. alike: kinds that the attackers behave like, and whose places they take from their address; none of
    these has it. crowded: kinds that have no place on the attacked listener while other clients use nearly all.
    asked: the listener that clients of the attackers' address ask, if it is not the attacked one; None: there are none.
    others: listeners of the place "another listener"; default: small and slow, or games instead of the attacked one of
    them. kinds: by listener.
    """
    here = [kind for kind in kinds[like or listener] if kind not in without]
    policies = tuple(name for name in ("small", "slow") if name != listener)
    others = others or (policies if len(policies) == 2 else (*policies, "games"))
    near = asked or listener
    there = () if asked is None else here if near == listener else kinds[near]
    upstreams = [name for name in ("arena", "chat") if name != listener]
    return (
        *(Row(SAME_ADDRESS, near, kind, source, 1) for kind in there if not kind.mute and kind.name not in alike),
        *(Row(SAME_LISTENER, listener, kind) for kind in here if kind.name not in crowded),
        *(Row(OTHER_LISTENER, name, kind) for name in others for kind in kinds[name]),
        *(Row(OTHER_UPSTREAM, name, kind) for name in upstreams for kind in kinds[name] if kind is not POLICY),
    )


def with_tls(listener: str = "games", **options: object) -> tuple[Row, ...]:
    """The rows of `four_places`, and then those of clients with TLS at the same places. options: as there."""
    plain = four_places(listener, **options)  # type: ignore[arg-type]
    secured = four_places(listener, **options, kinds=TLS_KINDS_AT)  # type: ignore[arg-type]
    return (*plain, *(replace(row, place=f"{row.place}, TLS") for row in secured))


def with_websockets(listener: str = "games", **options: object) -> tuple[Row, ...]:
    """The rows of `four_places`, those of clients by HTTP at the same places, and those of others by HTTPS. options: as
    there."""
    rows = four_places(listener, **options)  # type: ignore[arg-type]
    for name, kinds in (("HTTP", WS_KINDS_AT), ("HTTPS", WSS_KINDS_AT)):
        more = four_places(listener, **options, kinds=kinds)  # type: ignore[arg-type]
        rows += tuple(replace(row, place=f"{row.place}, {name}") for row in more)
    return rows


def with_tunnels(listener: str = "games", **options: object) -> tuple[Row, ...]:
    """The rows of `four_places`, those of clients of RTMPT and of WebSocket at the same places, and those of others
    with TLS. options: as there."""
    rows = four_places(listener, **options)  # type: ignore[arg-type]
    for name, kinds in (("RTMPT", RTMPT_KINDS_AT), ("HTTP", TUNNELLED_WS_KINDS_AT), ("TLS", RTMPTS_KINDS_AT)):
        more = four_places(listener, **options, kinds=kinds)  # type: ignore[arg-type]
        rows += tuple(replace(row, place=f"{row.place}, {name}") for row in more)
    return rows
