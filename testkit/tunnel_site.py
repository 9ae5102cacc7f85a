"""`flashpol serve` with tunnel sessions on several workers, and which worker has which connection.

>>> with TunnelSite(folder, listeners={"film": {"upstream": "127.0.0.1:1936"}}).serve(workers=3) as server:
...     with RtmptClient(server.place) as client:
...         via = lane_at(client, server.workers[0])
...         client.open(via)
"""

import json
import signal
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from testkit.client_site import toml
from testkit.polling import eventually
from testkit.processes import Flashpol, Process, descriptors
from testkit.rtmpt_client import RtmptClient

LANES = 200  # connections among which one is another worker's, or the test fails
# Connections that a test makes before it needs them are not relayed or closed meanwhile.
PATIENCE = {"first_byte_timeout": 30.0, "request_timeout": 30.0}


class TunnelSite:
    """A configuration. listeners: their names and settings. settings: of the server. The certificate `c`, for `tls`, is
    cert.pem in the folder; the test writes it there.
    """

    def __init__(self, folder: Path, listeners: Mapping[str, Mapping[str, object]], **settings: object) -> None:
        self.path = folder / "flashpol.toml"
        self.listeners = listeners
        self.write(**settings)

    def write(self, **settings: object) -> None:
        server = {"log_format": "json", "access_log": 1.0} | PATIENCE | settings
        lines = ["[server]", *table(server), '[policies.p]\ngrants = [{domain = "*.example.com", ports = "1935"}]']
        if (self.path.parent / "cert.pem").exists():
            lines += ['[certificates.c]\nchain = "cert.pem"']
        for name, listener in self.listeners.items():
            values = {"name": name, "address": "127.0.0.1:0", "policy": "p", "rtmpt": True, **listener}
            lines += ["[[listeners]]", *table(values)]
        self.path.write_text("\n".join([*lines, ""]))

    def serve(self, workers: int = 2) -> Flashpol:
        return Flashpol("-c", self.path, listen=(), workers=workers)


def table(values: Mapping[str, object]) -> list[str]:
    return [f"{name} = {toml(value)}" for name, value in values.items()]


def reload(server: Flashpol) -> None:
    def reloads() -> int:
        return server.log.count('"reloaded"')

    before = reloads()
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: reloads() == before + 1, "the reload")


def logged(server: Flashpol) -> list[dict[str, Any]]:
    """The lines of its log."""
    return [json.loads(line) for line in server.log.splitlines()]


def warnings(server: Flashpol) -> set[str]:
    """The events above INFO, but not that the tests run as root."""
    return {line["event"] for line in logged(server) if line["level"] != "INFO" and "as root" not in line["message"]}


# ----------------------------------------------------------------------------------------------- whose connection it is


def holder(sock: socket.socket, among: Iterable[Process]) -> Process | None:
    """The process that has the other end of a connection."""
    ends = [_hexadecimal(*address) for address in (sock.getpeername(), sock.getsockname())]
    for line in Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=10)
        if fields[1:3] == ends:
            name = f"socket:[{fields[9]}]"
            return next((process for process in among if name in descriptors(process.pid)), None)
    return None


def _hexadecimal(host: str, port: int) -> str:
    [number] = struct.unpack("=I", socket.inet_aton(host))
    return f"{number:08X}:{port:04X}"


def accepted_by(client: RtmptClient, via: int, workers: Iterable[Process]) -> Process:
    """The worker that has this connection of the client."""
    among = [*workers]
    return eventually(lambda: holder(client.connect(via).sock, among), "the worker that accepts")


def lane_at(client: RtmptClient, *workers: Process, other_than: Iterable[Process] = ()) -> int:
    """A new connection of the client that one of these workers has: the number that `via` means. The kernel chooses, so
    others are made, and closed, until one is there. other_than: workers that run too.
    """
    lane = max(client.lanes, default=-1) + 1
    for _ in range(LANES):
        if accepted_by(client, lane, [*workers, *other_than]) in workers:
            return lane
        client.drop(lane)
    raise AssertionError(f"none of {LANES} connections was one of these workers'")
