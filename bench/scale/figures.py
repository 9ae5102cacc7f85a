"""The measured figures that the model takes: `docs/performance.md` publishes them, and this file has their places.

So a new measurement is written into that page, and `python -m bench.scale --write` changes everything that follows.
"""

from dataclasses import dataclass
from functools import cached_property

from bench.scale.published import NUMBER, PAGE, Place


@dataclass(frozen=True)
class Figure:
    """unit: µs of CPU, KB of user memory, or seconds. place: in docs/performance.md. command: what measures it."""

    name: str
    unit: str
    command: str
    place: Place

    @cached_property
    def published(self) -> str:
        """As the page writes it."""
        return self.place.find(_PAGE)

    @property
    def value(self) -> float:
        """As a number."""
        return float(self.published.replace(",", ""))


_PAGE = PAGE.read_text()
_OURS, _MEMORY = "flashpol", "user memory of an idle session"


def _of(scenario: str, section: str, name: str, unit: str, row: str, column: str, pattern: str = NUMBER) -> Figure:
    return Figure(name, unit, f"python -m bench {scenario}", Place(section, row, column, pattern))


def _of_cpu(name: str, column: str) -> Figure:
    return _of("cpu", "CPU per reply", name, "µs", _OURS, column)


def _of_relay(name: str, unit: str, row: str) -> Figure:
    return _of("relay", "A shared port", name, unit, row, _OURS)


def _of_websocket(name: str, unit: str, row: str, column: str = _OURS) -> Figure:
    return _of("websocket", "WebSocket", name, unit, row, column)


def _of_rtmpt(name: str, unit: str, row: str) -> Figure:
    return _of("rtmpt", "RTMPT", name, unit, row, _OURS)


def _of_memory(scenario: str, name: str) -> Figure:
    return _of(scenario, "Memory of connections", name, "KB", name, "KB each")


REPLY = _of_cpu("a policy reply", "load on another CPU")
REPLY_SCARCE = _of_cpu("a policy reply where all CPU is scarce", "load on the same CPU: all CPU is scarce")
SHORT = _of_relay("a relayed session: connect, 100 B each way, close", "µs", "CPU of a short session")
ECHO = _of_relay("an echo of 100 B", "µs", "CPU of an echo of 100 B")
UPGRADE = _of_websocket("a WebSocket upgrade", "µs", "an upgrade")
UPGRADE_TLS = _of_websocket("a WebSocket upgrade through TLS, with its handshake", "µs", "an upgrade through TLS")
ECHO_WEBSOCKET = _of_websocket("an echo by WebSocket", "µs", "an echo")
ECHO_TLS = _of_websocket("an echo through TLS", "µs", "an echo through TLS", "its plain relay")
ECHO_WEBSOCKET_TLS = _of_websocket("an echo by WebSocket through TLS", "µs", "an echo through TLS")
POLL = _of_rtmpt("an RTMPT poll", "µs", "CPU of a poll")
FRESH_POLL = _of_rtmpt("an RTMPT poll on a connection of its own", "µs", "the same with a connection for each poll")
ECHO_RTMPT = _of_rtmpt("an echo by RTMPT", "µs", "CPU of an echo")
SILENT = _of_memory("silent", "a silent client")
SLOW_REPLY = _of_memory("slow_replies", "a slow reply")
SESSION = _of_relay("an idle session", "KB", _MEMORY)
SESSION_TLS = _of(
    "tls", "TLS", "an idle session through TLS", "KB", _MEMORY, "to HAProxy", r"\(([\d.]+) to [\d.]+ KB\)"
)
SESSION_WEBSOCKET = _of_websocket("an idle WebSocket session", "KB", _MEMORY)
SESSION_WEBSOCKET_TLS = _of_websocket("an idle WebSocket session through TLS", "KB", "the same through TLS")
TUNNEL = _of_rtmpt("an idle RTMPT session, with its held poll", "KB", "user memory of a session with a held poll")
START = _of("startup", "Other quantities", "exec to the first reply", "s", "exec to first reply", "1")
GENERATOR = Figure(
    "the client's end of a connection, on the same machine", "µs", "python -m bench cpu",
    Place("The baselines and the load", pattern=r"costs the load generator\s([\d.]+) µs"),
)  # fmt: skip

ALL = (
    REPLY, REPLY_SCARCE, SHORT, ECHO, UPGRADE, UPGRADE_TLS, ECHO_WEBSOCKET, ECHO_TLS, ECHO_WEBSOCKET_TLS, POLL,
    FRESH_POLL, ECHO_RTMPT, SILENT, SLOW_REPLY, SESSION, SESSION_TLS, SESSION_WEBSOCKET, SESSION_WEBSOCKET_TLS, TUNNEL,
    START, GENERATOR,
)  # fmt: skip
# No section has a handshake of TLS in µs, only as a ratio to peers. The two upgrades differ by one, in the same rounds.
HANDSHAKE_US = UPGRADE_TLS.value - UPGRADE.value
