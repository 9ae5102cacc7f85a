"""The model beside a run of `measured`: what few clients cost there, what follows for many, and what many took."""

import statistics
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from bench.scale import figures, measured, model
from bench.scale.markdown import table
from bench.scale.scenarios import SHIPPED
from bench.scale.simulation import SYN_AGAIN

Units = Mapping[str, float]
Sizes = Mapping[str, int]


def _published() -> dict[str, float]:
    """The published figures by the names that the measurements have."""
    f = figures
    return {
        "reply_apart": f.REPLY.value, "generator_apart": f.GENERATOR.value, "reply_one_cpu": f.REPLY_SCARCE.value,
        "generator_one_cpu": f.GENERATOR.value, "handshake": f.HANDSHAKE_US + f.REPLY.value,
        "silent": f.SILENT.value, "session": f.SESSION.value, "session_tls": f.SESSION_TLS.value,
        "session_websocket": f.SESSION_WEBSOCKET.value, "session_websocket_tls": f.SESSION_WEBSOCKET_TLS.value,
        "open_session_websocket": f.UPGRADE.value + f.ECHO_WEBSOCKET.value,
        "open_session_websocket_tls": f.UPGRADE_TLS.value + f.ECHO_WEBSOCKET_TLS.value, "start": f.START.value,
    }  # fmt: skip


def _memory(units: Units, name: str, count: int) -> float:
    """MB. What is taken once, however many there are, is not published."""
    return units.get(f"{name}_once", 0.0) + units[name] * count / 1024


# Name of the measurement -> words, unit, digits, the prediction from what one costs and how many there are.
PREDICTIONS: dict[str, tuple[str, str, int, Callable[[Units, Sizes], float]]] = {
    "replies_apart": ("policy replies, worker and clients on a CPU each", "a second", 0,
                      lambda u, n: model.bottleneck(u["reply_apart"], u["generator_apart"], shared=False)),
    "replies_one_cpu": ("the same, on one CPU", "a second", 0,
                        lambda u, n: model.bottleneck(u["reply_one_cpu"], u["generator_one_cpu"], shared=True)),
    "handshakes": ("TLS handshakes with a reply, worker and clients on one CPU", "a second", 0,
                   lambda u, n: model.bottleneck(u["handshake"], u["generator_handshake"], shared=True)),
    "silent": ("user memory of {silent:,} silent clients", "MB", 2, lambda u, n: _memory(u, "silent", n["silent"])),
    "sockets": ("kernel memory of their ends here", "MB", 1, lambda u, n: u["socket"] * n["silent"] / 1024),
    **{
        way: (f"user memory of {{sessions:,}} {words}", "MB", 1,
              lambda u, n, way=way: _memory(u, way, n["sessions"]))  # type: ignore[misc]
        for way, words in (("session", "sessions"), ("session_tls", "TLS sessions"),
                           ("session_websocket", "WebSocket sessions"), ("session_websocket_tls", "wss sessions"))
    },
    **{
        f"open_{way}": (f"CPU to open {{sessions:,}} {words}, with an echo each", "s", 2,
                        lambda u, n, way=way: u[f"open_{way}"] * n["sessions"] / 1e6)  # type: ignore[misc]
        for way, words in (("session", "sessions"), ("session_tls", "TLS sessions"),
                           ("session_websocket", "WebSocket sessions"), ("session_websocket_tls", "wss sessions"))
    },
    "storm": ("{storm:,} clients wait for a restart: from exec until all are served", "s", 3,
              lambda u, n: model.storm_seconds(n["storm"], u["reply_apart"], 1, u["start"])),
    "queued": ("a stopped worker with `backlog = {queue}`: connections in its accept queue", "", 0,
               lambda u, n: float(n["queue"])),
    "next_syn": ("{overflow:,} clients of that queue: until all are served", "s", 2, lambda u, n: SYN_AGAIN[0]),
    "connected": ("{at_rate} sessions at once, `connect_rate = 100`: connected", "", 0,
                  lambda u, n: float(_connected(n))),
    "connected_seconds": ("until the last of these is connected", "s", 2,
                          lambda u, n: model.connecting_seconds(_connected(n), measured.CONNECT_RATE)),
    "tracked": ("conntrack entries after {tracked:,} replies", "", 0, lambda u, n: float(n["tracked"])),
    "time_waits": ("connections in TIME-WAIT after them", "", 0, lambda u, n: float(n["tracked"])),
}  # fmt: skip


def _connected(sizes: Sizes) -> int:
    timeout = SHIPPED.connect_timeout
    places = model.connecting_places(measured.SESSIONS)
    return model.connected_of(sizes["at_rate"], measured.CONNECT_RATE, timeout, places)


def comparison_table(found: dict[str, Any]) -> str:
    """The model beside a run of `measured`."""
    published, here = _published(), measured.medians(found["few"])
    rows = []
    for name, (words, unit, digits, predict) in PREDICTIONS.items():
        if name not in found["many"]:
            continue
        values = found["many"][name]
        median = statistics.median(values)
        of_here = predict(here, found["sizes"])
        spread = f" ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else ""
        rows.append([
            words.format(**found["sizes"]) + (f", {unit}" if unit else ""),
            _predicted(predict, published, found, digits),
            f"{of_here:,.{digits}f}", f"{median:,.{digits}f}{spread}", f"{median / of_here:.2f}" if of_here else "",
        ])  # fmt: skip
    head = ["", "model, published figures", "model, figures of this machine", "measured",
            "measured / model of this machine"]  # fmt: skip
    return table(head, rows)


def _predicted(predict: Callable[[Units, Sizes], float], units: Units, found: dict[str, Any], digits: int) -> str:
    try:
        return f"{predict(units, found['sizes']):,.{digits}f}"
    except KeyError:  # a figure that is not published
        return ""


def units_table(found: dict[str, Any]) -> str:
    """What one costs on this machine, beside what is published."""
    published, here = _published(), measured.medians(found["few"])
    rows = [
        [words, f"{published[name]:,.2f}" if name in published else "", f"{here[name]:,.2f}"]
        for name, words in UNITS.items()
        if name in here
    ]
    return table(["", "published", "this machine"], rows)


UNITS = {
    "reply_apart": "a policy reply, load on another CPU, µs", "generator_apart": "the client's end of it, µs",
    "reply_one_cpu": "a policy reply, load on the same CPU, µs", "generator_one_cpu": "the client's end of it, µs",
    "handshake": "a TLS handshake and a reply, µs", "generator_handshake": "the client's end of it, µs",
    "open_session": "a session opened, with an echo, µs", "open_session_tls": "the same through TLS, µs",
    "open_session_websocket": "a WebSocket session opened, with an echo, µs",
    "open_session_websocket_tls": "the same through TLS, µs",
    "silent": "a silent client, KB", "silent_once": "once for all of them, MB",
    "session": "a session, KB", "session_once": "once for all of them, MB",
    "session_tls": "a TLS session, KB", "session_tls_once": "once for all of them, MB",
    "session_websocket": "a WebSocket session, KB", "session_websocket_once": "once for all of them, MB",
    "session_websocket_tls": "the same through TLS, KB", "session_websocket_tls_once": "once for all of them, MB",
    "socket": "kernel memory of an end, KB", "start": "exec to the first reply, s",
}  # fmt: skip


def machine_line(found: dict[str, Any]) -> str:
    """Where the last measurement was made."""
    about = found["machine"]
    rounds = found["sizes"]["rounds"]
    kernel = ".".join(about["kernel"].split(".")[:2])
    line = (
        f"Medians of {rounds} rounds on {about['cores']} cores of an {about['cpu']}, Linux {kernel}, "
        f"CPython {about['python']}, load {about['load_average']:.1f}."
    )
    return textwrap.fill(line, 100) + "\n"
