"""A server with shared ports, and the applications behind them.

Its listeners: `small` and `slow` serve policies, the latter one that a slow network needs more than a second for.
`games` and `arena` are shared ports, each with an application of its own that echoes. `chat` is one whose application
speaks first. With HTTP, `games` and `arena` take WebSocket, on request also
RTMPT, and `small` and `games` serve a policy file by URL.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from faults import FaultsError, build, websocket
from faults.server import Listener, Server, write_messages

TICK_MS = 400
LOOPBACK = "127.0.0.1"
START_SECONDS = 10.0
GHOST_SECONDS = 5.0  # rtmpt_session_timeout: a run ends when no session is left

Options = Mapping[str, object]


@contextmanager
def application(*arguments: object, address: str = LOOPBACK) -> Iterator[str]:
    """An application of `native/application.c`. Yields its HOST:PORT."""
    command = [str(build.application()), address, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            words = process.stdout.readline().split()
            if not words:
                process.kill()
                raise FaultsError(f"the application of a shared port did not start: {process.communicate()[1].strip()}")
            yield f"{address}:{words[1]}"
        finally:
            process.kill()


def shared(
    *,
    games: Options | None = None,
    small: Options | None = None,
    address: str = LOOPBACK,
    upstream: str = "",
    certificates: Sequence[str] = (),
    more: Sequence[Listener] = (),
    under: Sequence[str] = (),
    paths: Mapping[str, Options] | None = None,
    rtmpt: bool = False,
    **settings: object,
) -> Callable[[], AbstractContextManager[Server]]:
    """What starts such a server.

    games, small: lines of these listeners. address: where the application of `games` listens. upstream: use this
    instead of an application for `games`. more: listeners that the others do not have; one with an empty `upstream`
    shares the application of `games`. under: a command that executes the server. certificates: with these, all of its
    listeners but `chat` have TLS. paths: it has HTTP, and `games` these WebSocket paths with these options beside
    "*". rtmpt: `games` and `arena` take RTMPT too. settings: lines of [server].
    """

    if rtmpt:
        settings = {"rtmpt_session_timeout": GHOST_SECONDS, **settings}

    @contextmanager
    def start() -> Iterator[Server]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-faults-")))
            write_messages(folder)
            played = upstream or stack.enter_context(application(address=address))
            greeting = (folder / "greeting", folder / "tick", TICK_MS)
            upstreams = {
                "games": played,
                "arena": stack.enter_context(application()),
                "chat": stack.enter_context(application(*greeting)),
            }
            tls: Options = {"tls": json.dumps([*certificates])} if certificates else {}
            http = paths is not None
            tunnels: Options = {"rtmpt": "true"} if rtmpt else {}
            by_url: Options = {"crossdomain_file": '"url.xml"'} if http else {}
            options = {
                "games": {**tls, **by_url, **tunnels, **websocket_paths(paths), **(games or {})},
                "arena": {**tls, **tunnels, **websocket_paths({} if http else None)},
            }
            listeners = [
                Listener("small", options={**tls, **by_url, **(small or {})}),
                Listener("slow", "slow", options=tls),
                *(
                    Listener(name, options={"upstream": f'"{at}"', **options.get(name, {})})
                    for name, at in upstreams.items()
                ),
                *(
                    Listener(each.name, each.policy, each.address, {**each.options, "upstream": f'"{played}"'})
                    if each.options.get("upstream") == ""
                    else each
                    for each in more
                ),
            ]
            yield stack.enter_context(
                Server(settings, listeners=listeners, under=under, certificates=certificates, http=http)
            )

    return start


def websocket_paths(paths: Mapping[str, Options] | None) -> Options:
    """The option for these paths, and for every other one; None: there is none."""
    if paths is None:
        return {}
    tables = [
        {"path": f'"{path}"', "port": websocket.CONTENT_PORT, **options} for path, options in {**paths, "*": {}}.items()
    ]
    lines = ("{" + ", ".join(f"{name} = {value}" for name, value in table.items()) + "}" for table in tables)
    return {"websocket": f"[{', '.join(lines)}]"}


def with_files(files: int) -> list[str]:
    """Run a command with so many descriptors for each process."""
    return ["prlimit", f"--nofile={files}:{files}"]
