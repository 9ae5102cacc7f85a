"""Attacks by HTTP and WebSocket: heads of requests, frames, and applications of paths that do not reply.

Each has good clients without HTTP, with it, and with HTTPS at all four places.
"""

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from bench import build
from faults.attack import AttackGroup, AttackRun
from faults.attacks.handshakes import MANY, SOME, attack_with
from faults.certificates import NAME
from faults.clients import HostileClients
from faults.hello import VARIED
from faults.network import small_send_buffers
from faults.places import with_websockets
from faults.server import Listener, Server
from faults.shared import Options, application, shared, websocket_paths
from faults.websocket import FORWARDED, REFUSED_PORT

SESSIONS = 200  # max_sessions of each worker
HEADS = 100  # max_handshakes of each worker
HELD, HELD_RATE = 3_000, 3_000
BUSY = 64  # attackers at a time that send as much as they can
FLOOD_RATE = 3_000  # requests that are refused in a second
UPGRADE_RATE = 1_000  # and those that begin a session, which costs four times as much
DEAF, DEAF_RATE = 1_000, 400
MESSAGE_BYTES = 1 << 20  # websocket_message
PATHS: dict[str, Options] = {
    "/strict": {"port": REFUSED_PORT},
    "/packed": {"compression": "true"},
}
PINGED = 1.0  # websocket_ping, seconds
BOMBERS = 16  # each leaves bombs of some 100 MB, which the application gets after it has gone
BOMBS_MEGABYTES = 40  # that bombs may take, of which each would be 16 MB
LOG_BYTES = 20_000
# Those that begin a session. An address has at most four times as many as are free of `max_sessions`.
PLAYED = ("game", "WebSocket game", "wss game")

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(certificates=[NAME], paths=PATHS),
        "rows": with_websockets("games"),
        "tls": True,
    }
)


# ------------------------------------------------------------------------------------------------------------- heads


@group.attack("half-heads")
def half_heads(run: AttackRun) -> None:
    """Thousands of clients that send 8 KB of a head and wait, with all defaults."""
    attack_with(run, f"{HELD:,} half heads", "send:{head-half}", connections=HELD, rate=HELD_RATE, addresses=SOME)


@group.attack("half-heads-spread")
def half_heads_spread(run: AttackRun) -> None:
    """The same, each of an address of its own."""
    attack_with(run, f"{HELD:,} half heads", "send:{head-half}", connections=HELD, rate=HELD_RATE, addresses=MANY)


@group.attack("half-heads-at-limit", server=shared(certificates=[NAME], paths=PATHS, max_handshakes=HEADS))
def half_heads_at_limit(run: AttackRun) -> None:
    """Half heads of 40 addresses, more than a small `max_handshakes` allows."""
    attack_with(run, "600 half heads", "send:{head-half}", connections=600, rate=1_000, addresses=SOME)


@group.attack("head-drips")
def head_drips(run: AttackRun) -> None:
    """Clients that send an opening handshake a byte at a time."""
    attack_with(run, f"{HELD:,} heads in drips", "drip:{ws-open}*50", connections=HELD, rate=HELD_RATE, addresses=SOME)


@group.attack("half-heads-tls")
def half_heads_tls(run: AttackRun) -> None:
    """Clients that complete a TLS handshake, send 8 KB of a head and wait."""
    attack_with(
        run, "1,500 half heads in TLS", "secure:13,data:{head-half}", connections=1_500, rate=DEAF_RATE, addresses=SOME
    )


@group.attack("large-heads")
def large_heads(run: AttackRun) -> None:
    """Clients that send heads of 60 KB at full speed, which are refused."""
    attack_with(run, "heads of 60 KB", "send:{head-large}", connections=BUSY, rate=FLOOD_RATE, addresses=SOME)


def _flood_of_origins(run: AttackRun, what: str, name: str, rate: float) -> None:
    """Requests of another origin each, from many addresses. The log and the metrics stay as small as they are."""
    at = run.server.message(name).read_bytes().index(VARIED.encode())
    before, log = len(run.server.metrics()), len(run.server.log)
    attack_with(run, what, f"send:{{{name}}},await,reset", rate=rate, addresses=MANY, vary=at)
    run.require("new metrics", len(run.server.metrics()) - before, 200)
    run.require("bytes of log lines", len(run.server.log) - log, LOG_BYTES)


@group.attack("strange-origins")
def strange_origins(run: AttackRun) -> None:
    """Opening handshakes of an origin each, which the policy refuses: 403, a metric, and a line that is limited."""
    _flood_of_origins(run, "origins that are refused", "head-stranger", FLOOD_RATE)


@group.attack("many-origins")
def many_origins(run: AttackRun) -> None:
    """Opening handshakes of an origin each, which the policy allows; those of players are remembered with them."""
    _flood_of_origins(run, "origins that are allowed", "head-origin", UPGRADE_RATE)


@group.attack("url-policies")
def url_policies(run: AttackRun) -> None:
    """Clients that ask for a policy file by URL, as fast as they can."""
    attack_with(run, "policies by URL", "send:{url-request},await", rate=FLOOD_RATE, addresses=MANY)


FORWARDS = {"forwarded_networks": '["127.16.0.1/32"]'}


def _flood_of_clients(run: AttackRun, what: str, addresses: int) -> None:
    """Requests that name another client each."""
    head = run.server.message("head-forged").read_bytes()
    at = head.index(FORWARDED.encode()) + FORWARDED.index("0000")
    attack_with(run, what, "send:{head-forged},await,reset", rate=UPGRADE_RATE, addresses=addresses, vary=at)


@group.attack("forwarded-addresses", server=shared(certificates=[NAME], paths=PATHS, games=FORWARDS))
def forwarded_addresses(run: AttackRun) -> None:
    """A trusted proxy names another client with each request, by X-Forwarded-For."""
    _flood_of_clients(run, "forwarded clients", 1)


@group.attack("forged-addresses", server=shared(certificates=[NAME], paths=PATHS, games=FORWARDS))
def forged_addresses(run: AttackRun) -> None:
    """Clients that are no proxy do the same."""
    _flood_of_clients(run, "forged clients", MANY)


# ---------------------------------------------------------------------------------------------------------- silence


@group.attack("idle-websockets")
def idle_websockets(run: AttackRun) -> None:
    """Clients that open a WebSocket, and send nothing in it."""
    attack_with(run, "2,500 idle WebSockets", "send:{ws-open},await", connections=2_500, rate=2_500, addresses=SOME)


@group.attack(
    "idle-max-sessions",
    server=shared(certificates=[NAME], paths=PATHS, max_sessions=SESSIONS),
    rows=with_websockets("games", alike=PLAYED),
)
def idle_max_sessions(run: AttackRun) -> None:
    """The same take all of `max_sessions`, and come again: a session of their address has 0.4 s to be answered."""
    attack_with(run, "600 idle WebSockets", "send:{ws-open},await", connections=600, rate=1_000)


@group.attack("idle-tls-websockets")
def idle_tls_websockets(run: AttackRun) -> None:
    """Clients that open a WebSocket in TLS, and send nothing in it."""
    attack_with(
        run, "1,500 idle WebSockets with TLS", "secure:13,data:{ws-open},await",
        connections=1_500, rate=DEAF_RATE, addresses=SOME,
    )  # fmt: skip


_PINGED = Listener(
    "pinged", options={"upstream": "", "websocket_ping": PINGED, "tls": f'["{NAME}"]', **websocket_paths({})}
)


@group.attack("unanswered-pings", quick=4.0, server=shared(certificates=[NAME], paths=PATHS, more=(_PINGED,)))
def unanswered_pings(run: AttackRun) -> None:
    """WebSockets of a listener with a short `websocket_ping`, whose clients reply to no ping."""
    script = "send:{ws-open},await,send:{ws-hello}"
    attack_with(run, "1,000 that reply to no ping", script, "pinged", connections=1_000, rate=1_000)
    ended = run.server.metrics().total("websocket_ping_timeouts_total", listener="pinged")
    run.require("runs in which no WebSocket was ended", int(not ended), 0)


@group.attack("close-and-silence")
def close_and_silence(run: AttackRun) -> None:
    """Clients that send Close, and leave the connection open."""
    script = "send:{ws-open},await,send:{ws-hello},send:{ws-close},wait:60000"
    attack_with(run, "Close and silence", script, connections=1_000, rate=1_000, addresses=SOME)


# ----------------------------------------------------------------------------------------------------------- frames


def _frames(run: AttackRun, what: str, script: str, **options: object) -> None:
    attack_with(run, what, f"send:{{ws-open}},await,{script}", **{"connections": BUSY, "rate": HELD_RATE, **options})  # type: ignore[arg-type]


@group.attack("tiny-frames")
def tiny_frames(run: AttackRun) -> None:
    """WebSockets that send each byte in a frame of its own, as fast as the server takes them."""
    _frames(run, "frames of one byte", "send:{ws-tiny},loop:2")


@group.attack("tiny-frames-tls")
def tiny_frames_tls(run: AttackRun) -> None:
    """The same in TLS."""
    attack_with(
        run, "frames of one byte in TLS", "secure:13,data:{ws-open},await,data:{ws-tiny},loop:3", connections=BUSY
    )


@group.attack("empty-frames")
def empty_frames(run: AttackRun) -> None:
    """WebSockets that send empty messages without end."""
    _frames(run, "empty frames", "send:{ws-empty},loop:2")


@group.attack("endless-fragments")
def endless_fragments(run: AttackRun) -> None:
    """WebSockets with a message of empty fragments, without end."""
    _frames(run, "empty fragments", "send:{ws-begin},send:{ws-continued},loop:3")


@group.attack("long-messages", server=shared(certificates=[NAME], paths=PATHS, websocket_message=MESSAGE_BYTES))
def long_messages(run: AttackRun) -> None:
    """WebSockets that send fragments until `websocket_message` ends them, and come again."""
    _frames(run, "messages of 1 MB", "send:{ws-begin},send:{ws-fragment},loop:3")


@group.attack("half-frames")
def half_frames(run: AttackRun) -> None:
    """WebSockets that send a frame of 16 KB but its last byte, and wait."""
    _frames(run, "1,500 half frames", "send:{ws-cut}", connections=1_500, rate=1_500, addresses=SOME)


@group.attack("ping-flood")
def ping_flood(run: AttackRun) -> None:
    """WebSockets that send pings without end, and read the pongs."""
    _frames(run, "pings", "send:{ws-pings},loop:2")


@group.attack("ping-flood-tls")
def ping_flood_tls(run: AttackRun) -> None:
    """The same in TLS."""
    script = "secure:13,data:{ws-open},await,data:{ws-pings},loop:3"
    attack_with(run, "pings in TLS", script, connections=BUSY)


@group.attack("empty-pings")
def empty_pings(run: AttackRun) -> None:
    """The same with pings of six bytes, 2,700 in a record."""
    _frames(run, "empty pings", "send:{ws-empty-pings},loop:2")


@group.attack("deaf-pings")
def deaf_pings(run: AttackRun) -> None:
    """WebSockets that send pings without end, and never read."""
    _frames(run, "pings, whose pongs are not read,", "deaf,send:{ws-pings},loop:3", small_window=True)


@group.attack("deaf-pings-tls")
def deaf_pings_tls(run: AttackRun) -> None:
    """The same in TLS."""
    script = "secure:13,data:{ws-open},await,deaf,data:{ws-pings},loop:4"
    attack_with(run, "pings in TLS, whose pongs are not read,", script, connections=BUSY, small_window=True)


@group.attack("close-and-frames")
def close_and_frames(run: AttackRun) -> None:
    """WebSockets that send Close, and then frames without end."""
    _frames(run, "frames after Close", "send:{ws-close},send:{ws-large},loop:3")


@group.attack("garbage-frames")
def garbage_frames(run: AttackRun) -> None:
    """WebSockets in which garbage comes instead of frames."""
    _frames(run, "garbage", "send:{ws-garbage}", addresses=SOME)


# ------------------------------------------------------------------------------------------------------ compression


def _bombs(run: AttackRun, what: str, bomb: str) -> None:
    script = f"send:{{head-compressed}},await,send:{{{bomb}}},loop:2"
    attack_with(run, what, script, connections=BOMBERS, rate=HELD_RATE, megabytes=BOMBS_MEGABYTES)


@group.attack("compressed-bombs", server=shared(certificates=[NAME], paths=PATHS, websocket_message=MESSAGE_BYTES))
def compressed_bombs(run: AttackRun) -> None:
    """Compressed messages of 16 MB, more than `websocket_message` allows."""
    _bombs(run, "bombs that are too large", "ws-bomb")


@group.attack("allowed-bombs", max_ratio=10.0)
def allowed_bombs(run: AttackRun) -> None:
    """Compressed messages of 1 MB, of 1 KB each on the wire, which are passed on to the application."""
    _bombs(run, "bombs", "ws-small-bomb")


# ------------------------------------------------------------------------------------------------- what is not read


@contextmanager
def films(paths: Mapping[str, Options] = PATHS, *, rtmpt: bool = False) -> Iterator[Server]:
    """The application of the listener `films` is a source of bytes."""
    with (
        small_send_buffers(),
        subprocess.Popen(
            [str(build.load_generator()), "relay", "application"], stdout=subprocess.PIPE, text=True
        ) as source,
    ):
        try:
            assert source.stdout
            port = source.stdout.readline().split()[1]
            options: Options = {"upstream": f'"127.0.0.1:{port}"', "tls": f'["{NAME}"]', **websocket_paths({})}
            listener = Listener("films", options={**options, **({"rtmpt": "true"} if rtmpt else {})})
            with shared(more=(listener,), certificates=[NAME], paths=paths, rtmpt=rtmpt)() as server:
                yield server
        finally:
            source.kill()


@group.attack("deaf-websockets", server=films, own_network=True, seconds=12.0, quick=6.0)
def deaf_websockets(run: AttackRun) -> None:
    """WebSockets that ask for gigabytes, and never read."""
    attack_with(
        run, f"{DEAF:,} that never read a film", "send:{ws-open},await,deaf,send:{ws-film}", "films",
        connections=DEAF, rate=DEAF_RATE, addresses=10, small_window=True,
    )  # fmt: skip


@group.attack("deaf-tls-websockets", server=films, own_network=True, seconds=12.0, quick=6.0)
def deaf_tls_websockets(run: AttackRun) -> None:
    """The same in TLS."""
    attack_with(
        run, f"{DEAF:,} that never read a film in TLS", "secure:13,data:{ws-open},await,deaf,data:{ws-film}", "films",
        connections=DEAF, rate=DEAF_RATE, addresses=10, small_window=True,
    )  # fmt: skip


@group.attack("deaf-echoes")
def deaf_echoes(run: AttackRun) -> None:
    """WebSockets that send frames of 16 KB to an application that echoes, and never read."""
    _frames(run, "frames, whose echoes are not read,", "deaf,send:{ws-large},loop:3", small_window=True)


@group.attack("bulk-websockets", server=films, own_network=True, max_ratio=10.0)
def bulk_websockets(run: AttackRun) -> None:
    """WebSockets that read gigabytes as fast as the server frames them."""
    attack_with(run, "100 that read films", "send:{ws-open},await,send:{ws-film}", "films", connections=100, rate=1_000)


# ----------------------------------------------------------------------------------------------------- applications


@contextmanager
def _dead_paths() -> Iterator[Server]:
    """Paths of `games` lead to applications that refuse, accept nothing, or read and never reply."""
    with (
        socket.socket() as refusing,
        socket.create_server(("127.0.0.1", 0), backlog=0) as dead,
        application("mute") as mute,
        ExitStack() as stack,
    ):
        refusing.bind(("127.0.0.1", 0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(dead.getsockname())
        ends = {"mute": mute} | {
            name: "{}:{}".format(*each.getsockname()) for name, each in (("refusing", refusing), ("dead", dead))
        }
        paths: dict[str, Options] = {f"/{name}": {"upstream": f'["{end}"]'} for name, end in ends.items()}
        yield stack.enter_context(shared(certificates=[NAME], paths={**PATHS, **paths}, max_sessions=2 * SESSIONS)())


@group.attack("dead-paths", server=_dead_paths, rows=with_websockets("games", alike=PLAYED))
def dead_paths(run: AttackRun) -> None:
    """Clients of paths whose applications refuse, do not accept or do not reply, with one `max_sessions` for all."""
    with ExitStack() as stack:
        for number, name in enumerate(("dead", "mute"), 1):
            stack.enter_context(
                HostileClients(
                    run.server, "games", f"send:{{head-{name}}}", connections=500, rate=500, first=number,
                )
            )  # fmt: skip
        attack_with(
            run, "1,000 of applications that do not accept or reply, and others of one that refuses,",
            "send:{head-refusing},await", connections=BUSY, rate=500,
        )  # fmt: skip
