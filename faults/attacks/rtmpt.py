"""Attacks by way of RTMPT: requests that open sessions, guess them, fill them, or are never complete.

Each has good clients without HTTP, with RTMPT, with WebSocket, and with TLS at all four places.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from faults.attack import AttackGroup, AttackRun
from faults.attacks.handshakes import MANY, SOME, attack_with
from faults.attacks.websocket import films
from faults.certificates import NAME
from faults.places import with_tunnels
from faults.rtmpt import FORWARDED, GUESSED
from faults.server import WORKERS, Listener, Server
from faults.shared import Options, shared

BUSY = 64  # attackers at a time that send as much as they can
HELD, HELD_RATE = 3_000, 3_000
OPEN_RATE = 1_000  # sessions that are opened in a second
FLOOD_RATE = 3_000  # requests that are refused in a second
SESSIONS = 200  # max_sessions of each worker
GHOST_SECONDS = 1.0  # rtmpt_session_timeout of the listener `ghosts`
NOTICED = 1.0  # seconds after it, until no ghost may be left
# Megabytes that attackers may take of all workers. What sessions hold is limited to 256 MiB for each worker
# (`max_bytes` of Tunnels), what connections hold of bodies and replies to 64 MiB (`max_body_bytes`).
HELD_MEGABYTES = WORKERS * 256 * 1.05
BODY_MEGABYTES = WORKERS * 64 * 1.05 + 40
# Those that begin a session. An address has at most four times as many as are free of `max_sessions`.
PLAYED = (
    "game", "WebSocket game", "wss game", "RTMPT game", "RTMPT in a browser", "RTMPTS game",
)  # fmt: skip

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(certificates=[NAME], paths={}, rtmpt=True),
        "rows": with_tunnels("games"),
        "tls": True,
    }
)


def _with_listener(name: str, **options: object) -> Callable[[], AbstractContextManager[Server]]:
    """A server with one more listener of RTMPT, which shares the application of `games`."""
    more: Options = {"upstream": "", "rtmpt": "true", **options}
    return shared(certificates=[NAME], paths={}, rtmpt=True, more=(Listener(name, options=more),))


def _talk(run: AttackRun, what: str, script: str, *listeners: str, **options: object) -> dict[str, int]:
    """Attackers with a session each."""
    script = f"send:{{rt-open}},learn,{script}"
    settings = {"connections": BUSY, "rate": HELD_RATE, **options}
    return attack_with(run, what, script, listeners or "games", **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ sessions


@group.attack("open-flood", server=shared(certificates=[NAME], paths={}, rtmpt=True, rtmpt_session_timeout=15.0))
def open_flood(run: AttackRun) -> None:
    """Clients of many addresses that open a session and leave: each is there until rtmpt_session_timeout."""
    attack_with(run, "sessions without a request", "send:{rt-open},await,reset", rate=OPEN_RATE, addresses=MANY)


@group.attack(
    "open-max-sessions",
    server=shared(certificates=[NAME], paths={}, rtmpt=True, max_sessions=SESSIONS),
    rows=with_tunnels("games", alike=PLAYED),
)
def open_max_sessions(run: AttackRun) -> None:
    """One address opens 200 sessions on a connection, and comes again, with a small `max_sessions`."""
    attack_with(run, "sessions by the 200", "send:{rt-opens},await,wait:50,reset", connections=20, rate=50)


@group.attack("dying-proxies")
def dying_proxies(run: AttackRun) -> None:
    """Proxies, each with a connection for 200 sessions, which is reset while they are in use."""
    script = "send:{rt-open},learn,send:{rt-opens},ask:{rt-sends},ask:{rt-idle},wait:100,reset"
    attack_with(run, "connections with 200 sessions", script, connections=20, rate=10, addresses=SOME)


@group.attack("open-clients", server=shared(
    certificates=[NAME], paths={}, rtmpt=True, games={"forwarded_networks": '["127.16.0.1/32"]'}
))  # fmt: skip
def open_clients(run: AttackRun) -> None:
    """A trusted proxy opens sessions of another client each, by X-Forwarded-For."""
    head = run.server.message("rt-forwarded").read_bytes()
    at = head.index(FORWARDED.encode()) + FORWARDED.index("0000")
    attack_with(run, "forwarded clients", "send:{rt-forwarded},await,reset", rate=OPEN_RATE, vary=at)


@contextmanager
def _unaccepting() -> Iterator[Server]:
    """The application of the listener `dead` does not accept."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as dead, ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(dead.getsockname())
        end = '"{}:{}"'.format(*dead.getsockname())
        server = shared(
            certificates=[NAME], paths={}, rtmpt=True, max_sessions=2 * SESSIONS,
            more=(Listener("dead", options={"upstream": end, "rtmpt": "true"}),),
        )  # fmt: skip
        yield stack.enter_context(server())


@group.attack("open-unaccepted", server=_unaccepting, rows=with_tunnels("games", alike=PLAYED))
def open_unaccepted(run: AttackRun) -> None:
    """Sessions of an application that does not accept, with one `max_sessions` for all."""
    attack_with(
        run, "1,000 that wait for an application", "send:{rt-open},await", "dead",
        connections=1_000, rate=500,
    )  # fmt: skip


@group.attack("ghosts", server=_with_listener("ghosts", rtmpt_session_timeout=GHOST_SECONDS, rtmpt_gap=0.5))
def ghosts(run: AttackRun) -> None:
    """Clients that use a session and vanish. None is left a second after `rtmpt_session_timeout`."""
    script = "ask:{rt-send},await,ask:{rt-idle},wait:100,reset"
    _talk(run, "sessions that are left", script, "ghosts", connections=500, rate=500, addresses=SOME)
    run.wait_after(GHOST_SECONDS + NOTICED)
    left = run.server.metrics().total("connections_open", listener="ghosts")
    run.require("sessions of clients that have vanished", int(left), 0)


# -------------------------------------------------------------------------------------------------------------- guesses


def _guess(run: AttackRun, script: str, **options: int) -> None:
    at = run.server.message("rt-guess").read_bytes().index(GUESSED.encode()) + 3
    attack_with(run, "guesses", script, rate=FLOOD_RATE, vary=at, **options)  # type: ignore[arg-type]


@group.attack("guesses")
def guesses(run: AttackRun) -> None:
    """One address asks for sessions at random; after 20 within 10 s it gets no reply."""
    _guess(run, "send:{rt-guess},await,reset")


@group.attack("guesses-spread")
def guesses_spread(run: AttackRun) -> None:
    """The same of 60,000 addresses."""
    _guess(run, "send:{rt-guess},await,reset", addresses=MANY)


@group.attack("guesses-pipelined")
def guesses_pipelined(run: AttackRun) -> None:
    """The same, 200 on each connection."""
    _guess(run, "send:{rt-guesses},wait:1000,reset", addresses=SOME)


# -------------------------------------------------------------------------------------------------- heads and bodies


@group.attack("half-posts")
def half_posts(run: AttackRun) -> None:
    """Thousands of clients that send a part of a request's head and wait."""
    attack_with(run, f"{HELD:,} half heads", "send:{rt-half-head}", connections=HELD, rate=HELD_RATE, addresses=SOME)


@group.attack("half-bodies")
def half_bodies(run: AttackRun) -> None:
    """Thousands of clients that send 8 KB of a body of 1 MB and wait."""
    attack_with(run, f"{HELD:,} half bodies", "send:{rt-half-body}", connections=HELD, rate=HELD_RATE, addresses=MANY)


@group.attack("whole-bodies")
def whole_bodies(run: AttackRun) -> None:
    """Clients that send all of a body of 1 MB but its last byte, and wait."""
    attack_with(
        run, "500 bodies of 1 MB", "send:{rt-most-body}", connections=500, rate=500, addresses=MANY,
        megabytes=round(BODY_MEGABYTES),
    )  # fmt: skip


@group.attack("body-drips")
def body_drips(run: AttackRun) -> None:
    """Clients that send a body a byte at a time."""
    script = "send:{rt-half-body},drip:{rt-large}*50"
    attack_with(run, f"{HELD:,} bodies in drips", script, connections=HELD, rate=HELD_RATE, addresses=SOME)


# ---------------------------------------------------------------------------------------------------- polls and windows


@group.attack("held-polls")
def held_polls(run: AttackRun) -> None:
    """Thousands of sessions, each with a poll that is held."""
    _talk(run, "2,500 polls", "ask:{rt-idle},await,loop:2", connections=2_500, rate=2_500, addresses=SOME)


@group.attack("poll-flood")
def poll_flood(run: AttackRun) -> None:
    """Sessions that poll 200 times at once, again and again, as fast as they get replies."""
    _talk(run, "polls, 200 at once,", "ask:{rt-idles},await,loop:2")


@group.attack("send-flood")
def send_flood(run: AttackRun) -> None:
    """The same with bytes for the application."""
    _talk(run, "requests, 200 at once,", "ask:{rt-sends},await,loop:2")


@group.attack("ident-flood")
def ident_flood(run: AttackRun) -> None:
    """Clients that ask which server it is, 200 times at once, without end."""
    attack_with(run, "/fcs/ident2, 200 at once,", "send:{rt-ident},loop:0", connections=BUSY, rate=HELD_RATE)


@group.attack("deaf-replies")
def deaf_replies(run: AttackRun) -> None:
    """The same with polls, whose replies are not read."""
    _talk(run, "polls, whose replies are not read,", "deaf,ask:{rt-idles},loop:3", small_window=True)


# A request is carried out when the one before it on its connection has been, so each is on one of its own.
_FILL = "ask:{{{0}}}*1,wait:20,renew,ask:{{{0}}},wait:20,loop:4"


@group.attack("full-windows", seconds=8.0)
def full_windows(run: AttackRun) -> None:
    """Sessions whose next number never comes: 16 requests of 15 KB wait for it until `rtmpt_gap`."""
    _talk(
        run, "500 full windows", _FILL.format("rt-slot"), connections=500, rate=500, addresses=SOME,
        megabytes=round(HELD_MEGABYTES),
    )  # fmt: skip


@group.attack("large-windows", seconds=8.0, quick=4.0)
def large_windows(run: AttackRun) -> None:
    """The same with bodies of 1 MB, more of them than a worker holds."""
    _talk(
        run, "800 with 1 MB before its turn", "ask:{rt-large}*1,await,loop:2", connections=800, rate=400,
        addresses=SOME, megabytes=round(HELD_MEGABYTES + BODY_MEGABYTES),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- what is not read


@contextmanager
def _unreading() -> Iterator[Server]:
    """The application of the listener `stuck` accepts in name only: the kernel does, and no process reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as stuck:
        end = '"{}:{}"'.format(*stuck.getsockname())
        more = (Listener("stuck", options={"upstream": end, "rtmpt": "true"}),)
        with shared(certificates=[NAME], paths={}, rtmpt=True, more=more)() as server:
            yield server


@group.attack("stuck-upstream", server=_unreading, seconds=10.0, quick=4.0)
def stuck_upstream(run: AttackRun) -> None:
    """Sessions that send bodies of 1 MB to an application that reads nothing."""
    _talk(
        run, "400 of an application that does not read", "ask:{rt-large},await,loop:2", "stuck", connections=400,
        rate=200, addresses=SOME, megabytes=round(HELD_MEGABYTES + BODY_MEGABYTES),
    )  # fmt: skip


@contextmanager
def _films() -> Iterator[Server]:
    with films(paths={}, rtmpt=True) as server:
        yield server


@group.attack("deaf-films", server=_films, own_network=True, seconds=12.0, quick=6.0)
def deaf_films(run: AttackRun) -> None:
    """Sessions that ask for gigabytes, poll for them, and never read."""
    _talk(
        run, "1,000 that never read a film", "ask:{rt-film},await,deaf,ask:{rt-idles}", "films", connections=1_000,
        rate=400, addresses=SOME, small_window=True, megabytes=round(HELD_MEGABYTES + BODY_MEGABYTES),
    )  # fmt: skip


@group.attack("bulk-films", server=_films, own_network=True, max_ratio=10.0)
def bulk_films(run: AttackRun) -> None:
    """Sessions that poll for gigabytes as fast as they get them."""
    _talk(run, "60 that poll for films", "ask:{rt-film},await,ask:{rt-idles},await,loop:4", "films", connections=60)


# ------------------------------------------------------------------------------------------------------- other workers


@group.attack("far-requests")
def far_requests(run: AttackRun) -> None:
    """Sessions with a connection for each request: half of them reach the other worker."""
    _talk(run, "connections for a request each", "ask:{rt-send},await,renew,ask:{rt-idle},await,renew,loop:2")


@group.attack("far-bodies")
def far_bodies(run: AttackRun) -> None:
    """The same with bodies of 1 MB, which are forwarded."""
    _talk(
        run, "bodies of 1 MB for another worker", "ask:{rt-large},await,renew,loop:2", connections=32, rate=100,
        megabytes=round(HELD_MEGABYTES + BODY_MEGABYTES),
    )  # fmt: skip


@group.attack("far-worker-killed", max_ratio=100.0)
def far_worker_killed(run: AttackRun) -> None:
    """The same as far-requests, while a worker is killed: its sessions end, and no other does."""
    worker = run.server.workers[0]
    run.after(run.seconds / 2, lambda: os.kill(worker, signal.SIGKILL))
    far_requests(run)
