"""HAProxy, which replies to policy requests with a Lua service."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import BenchError
from bench.servers.running import (
    BACKLOG,
    FILES,
    SILENT_TIMEOUT,
    Server,
    free_port,
    running,
    wait_for_reply,
    work_folder,
)

# The whole request is read, so that close finds no unread input and sends no RST after the reply.
LUA = """local file = assert(io.open(os.getenv("POLICY"), "rb"))
local reply = file:read("a") .. "\\0"
core.register_service("policy", "tcp", function(applet)
    applet:receive(23)
    applet:send(reply)
end)
"""
POLICY_PORT = """frontend policy
    bind 127.0.0.1:{port} backlog {backlog} {options}
    tcp-request inspect-delay {timeout:.0f}s
    tcp-request content use-service lua.policy if {{ req.payload(0,23) -m bin {request} }}
    tcp-request content reject if {{ req.len ge 23 }}
"""
REQUEST = b"<policy-file-request/>\0".hex()


@contextmanager
def haproxy(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """One thread and a Lua service, which is the cheapest way to reply that HAProxy has."""
    with work_folder(policy) as folder:
        port = free_port()
        text = configuration(policy_port(port), more=lua(folder))
        with started(text, folder, cpu) as process:
            seconds = wait_for_reply("HAProxy", process, port, folder)
            pid = process.pid
            yield Server("HAProxy", port, pid, folder / "expected", seconds, parent=pid, ports=(port,))


def policy_port(port: int, options: str = "") -> str:
    """A frontend that replies with `lua.policy`. options: of its `bind`."""
    return POLICY_PORT.format(port=port, backlog=BACKLOG, options=options, timeout=SILENT_TIMEOUT, request=REQUEST)


def lua(folder: Path) -> str:
    """Lines of the global section that define `lua.policy`, a service that replies with this folder's policy."""
    (folder / "policy.lua").write_text(LUA)
    return f"    setenv POLICY {folder}/policy.xml\n    lua-load {folder}/policy.lua\n"


def configuration(sections: str, more: str = "", connections: int = FILES // 2) -> str:
    """A configuration of one thread with these sections; `more` are lines of its global section.

    connections: the most at one time; a relayed one takes two files.
    """
    return (
        f"global\n    nbthread 1\n    maxconn {connections}\n{more}"
        f"defaults\n    mode tcp\n    maxconn {connections}\n    timeout connect 5s\n"
        f"    timeout client {SILENT_TIMEOUT:.0f}s\n    timeout server {SILENT_TIMEOUT:.0f}s\n{sections}"
    )


@contextmanager
def started(text: str, folder: Path, cpu: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    """HAProxy in the foreground with this configuration."""
    program = haproxy_program()
    if program is None:
        raise BenchError("HAProxy is not installed")
    (folder / "haproxy.cfg").write_text(text)
    with running("HAProxy", [program, "-db", "-f", str(folder / "haproxy.cfg")], folder, cpu) as process:
        yield process


def haproxy_program() -> str | None:
    """Path of HAProxy, or None if it is not installed."""
    return shutil.which("haproxy", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def missing(feature: str = "LUA") -> str | None:
    """Why it cannot run here, or None. feature: of the build, as `haproxy -vv` names it."""
    program = haproxy_program()
    if program is None:
        return "HAProxy is not installed"
    features = subprocess.run([program, "-vv"], check=False, capture_output=True, text=True, timeout=10).stdout
    return None if f"+{feature}" in features.split() else f"HAProxy is built without {feature}"
