"""The measured figures that the model takes, as `docs/performance.md` publishes them; it also has the machines.

`tests/bench/test_scale_figures.py` looks each of them up in its section, so a new measurement that is published
changes the model too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """published: as the section of docs/performance.md writes it. unit: µs of CPU, KB of user memory, or seconds."""

    name: str
    published: str
    unit: str
    section: str
    command: str

    @property
    def value(self) -> float:
        """As a number."""
        return float(self.published.replace(",", ""))


_CPU, _SHARED, _WEBSOCKET, _RTMPT = "CPU per reply", "A shared port", "WebSocket", "RTMPT"


def _of_websocket(name: str, published: str, unit: str) -> Figure:
    return Figure(name, published, unit, _WEBSOCKET, "python -m bench websocket")


def _of_rtmpt(name: str, published: str, unit: str) -> Figure:
    return Figure(name, published, unit, _RTMPT, "python -m bench rtmpt")


REPLY = Figure("a policy reply", "7.62", "µs", _CPU, "python -m bench cpu")
REPLY_SCARCE = Figure("a policy reply where all CPU is scarce", "5.06", "µs", _CPU, "python -m bench cpu")
SHORT = Figure("a relayed session: connect, 100 B each way, close", "69.3", "µs", _SHARED, "python -m bench relay")
ECHO = Figure("an echo of 100 B", "7.6", "µs", _SHARED, "python -m bench relay")
UPGRADE = _of_websocket("a WebSocket upgrade", "90.1", "µs")
UPGRADE_TLS = _of_websocket("a WebSocket upgrade through TLS, with its handshake", "527.7", "µs")
ECHO_WEBSOCKET = _of_websocket("an echo by WebSocket", "18.1", "µs")
ECHO_TLS = _of_websocket("an echo through TLS", "24.8", "µs")
ECHO_WEBSOCKET_TLS = _of_websocket("an echo by WebSocket through TLS", "25.3", "µs")
POLL = _of_rtmpt("an RTMPT poll", "16.5", "µs")
FRESH_POLL = _of_rtmpt("an RTMPT poll on a connection of its own", "34.4", "µs")
ECHO_RTMPT = _of_rtmpt("an echo by RTMPT", "29.8", "µs")
SILENT = Figure("a silent client", "0.110", "KB", "Memory of connections", "python -m bench silent")
SLOW_REPLY = Figure("a slow reply", "3.8", "KB", "Memory of connections", "python -m bench slow_replies")
SESSION = Figure("an idle session", "7.19", "KB", _SHARED, "python -m bench relay")
SESSION_TLS = Figure("an idle session through TLS", "19.0", "KB", "TLS", "python -m bench tls")
SESSION_WEBSOCKET = _of_websocket("an idle WebSocket session", "5.13", "KB")
SESSION_WEBSOCKET_TLS = _of_websocket("an idle WebSocket session through TLS", "19.25", "KB")
TUNNEL = _of_rtmpt("an idle RTMPT session, with its held poll", "7.32", "KB")
START = Figure("exec to the first reply", "0.28", "s", "Other quantities", "python -m bench startup")
GENERATOR = Figure("the client's end of a connection, on the same machine", "15", "µs", "The baselines and the load",
                   "python -m bench cpu")  # fmt: skip

ALL = (
    REPLY, REPLY_SCARCE, SHORT, ECHO, UPGRADE, UPGRADE_TLS, ECHO_WEBSOCKET, ECHO_TLS, ECHO_WEBSOCKET_TLS, POLL,
    FRESH_POLL, ECHO_RTMPT, SILENT, SLOW_REPLY, SESSION, SESSION_TLS, SESSION_WEBSOCKET, SESSION_WEBSOCKET_TLS, TUNNEL,
    START, GENERATOR,
)  # fmt: skip
# No section has a handshake of TLS in µs, only as a ratio to peers. The two upgrades differ by one, in the same rounds.
HANDSHAKE_US = UPGRADE_TLS.value - UPGRADE.value
