"""The tables of `docs/scale.md`, between markers; the rest of the page is written by hand."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import BenchError
from bench.scale import comparison, figures, host_settings, measured, model, scenarios
from bench.scale.markdown import table
from bench.scale.scenarios import SHIPPED, TUNED, Case
from bench.scale.simulation import Storm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
START, END = "<!-- made by python -m bench.scale: {} -->\n", "<!-- end -->"
SEED = 1


# -------------------------------------------------------------------------------------------------------------- figures


def figures_table() -> str:
    """What the model takes."""
    rows = [[f.name, f"{f.published} {f.unit}", _section(f), f"`{f.command}`"] for f in figures.ALL]
    rows.append(["a TLS handshake: the difference of the two upgrades", f"{figures.HANDSHAKE_US:.1f} µs", "", ""])
    rows.append(["kernel memory of an idle end of a connection", f"{socket_kb():.2f} KB",
                 "[below](#model-beside-measurement)", "`python -m bench.scale measure`"])  # fmt: skip
    return table(["", "each", "published in", "measured by"], rows, numbers=0)


def _section(figure: figures.Figure) -> str:
    return f"[{figure.place.section}](performance.md#{figure.place.section.lower().replace(' ', '-')})"


def socket_kb() -> float:
    """KB of kernel memory of an idle connection's end, of the last measurement."""
    last = measured.load_last()
    count: int = last["sizes"]["silent"]
    return measured.medians(last["many"])["sockets"] * 1024 / count


# ---------------------------------------------------------------------------------------------------------------- hosts


def hosts_table() -> str:
    """Clients of one host by limit."""
    columns = [(client, host) for client in model.SESSIONS for host in (SHIPPED, TUNED)]
    found = [model.limits(host, client, socket_kb()) for client, host in columns]
    rows = []
    for name in found[0]:
        rows.append([name, *(_marked(limit, name) for limit in found)])
    rows.append([
        f"hosts for {scenarios.CLIENTS:,} clients, one to spare",
        *(f"{model.hosts_for(scenarios.CLIENTS, host, client, socket_kb()):,}" for client, host in columns),
    ])  # fmt: skip
    head = ["clients of one host", *(f"{_short(client.name)}, {host.name}" for client, host in columns)]
    return table(head, rows)


def _marked(limit: dict[str, int], name: str) -> str:
    narrowest, _ = model.narrowest(limit)
    return f"**{limit[name]:,}**" if name == narrowest else f"{limit[name]:,}"


def _short(name: str) -> str:
    return {model.FLASH.name: "Flash", model.WEBSOCKET.name: "WebSocket", model.WEBSOCKET_TLS.name: "wss"}[name]


def million_table() -> str:
    """Memory and CPU of a million of each kind."""
    rows = []
    for one in model.HELD:
        user, kernel = (kb * model.MILLION / 2**20 for kb in (one.memory.value, one.sockets * socket_kb()))
        cores = one.messages * model.MILLION / model.MICROSECONDS
        rows.append([one.name, f"{user:.1f}", f"{kernel:.1f}", f"{cores:.1f}" if cores else ""])
    head = ["a million of", "user memory, GB", "kernel memory, GB", "cores for a message of each every two seconds"]
    return table(head, rows)


def assumptions_table() -> str:
    """What the hosts of the tables have: assumptions."""
    rows = [
        [words, *(f"{value(host)}" for host in (SHIPPED, TUNED))]
        for words, value in (
            ("cores, one worker each", lambda h: h.cores),
            ("share of the CPU that clients may take", lambda h: f"{h.utilisation:.0%}"),
            ("memory that clients may take (`MemoryMax=`), GB", lambda h: f"{h.memory_gib:g}"),
            ("`LimitNOFILE=`", lambda h: f"{h.files:,}"),
            ("`max_sessions`", lambda h: f"{h.max_sessions:,}"),
            ("addresses in `upstream_source` x addresses and ports in `upstream`", lambda h: h.sources * h.backends),
            ("`net.ipv4.ip_local_port_range`", lambda h: f"{h.port_range[0]} {h.port_range[1]}"),
            ("`net.netfilter.nf_conntrack_max`", lambda h: f"{h.conntrack_max:,}"),
            ("`net.core.somaxconn`", lambda h: f"{h.somaxconn:,}"),
        )
    ]  # type: list[list[str]]
    return table(["", SHIPPED.name, TUNED.name], rows)


def _full_storm(client: model.Client) -> float:
    _, clients = model.narrowest(model.limits(TUNED, client, socket_kb()))
    return model.storm_seconds(clients, client.cpu_to_begin, TUNED.cores)


def storms_table() -> str:
    """What a host serves of clients that come at one moment."""
    head = ["a tuned host", *(_short(client.name) for client in model.SESSIONS)]
    clients = model.SESSIONS
    rows = [
        ["CPU until a session is open, µs", *(f"{c.cpu_to_begin:,.1f}" for c in clients)],
        ["clients a second, with all CPUs", *(f"{model.rate(TUNED, c.cpu_to_begin):,.0f}" for c in clients)],
        ["clients at one moment that are served in time", *(f"{model.at_once(TUNED, c):,}" for c in clients)],
        ["longest useful accept queue of a worker", *(f"{model.useful_queue(c):,}" for c in clients)],
        ["seconds until all clients of a full host are served", *(f"{_full_storm(c):,.1f}" for c in clients)],
    ]
    return table(head, rows)


# ----------------------------------------------------------------------------------------------------------- simulation


def simulation_table(cases: list[Case], seed: int = SEED) -> str:
    """A row for each case."""
    head = ["", "clients cut", "half are back after, s", "99 % after, s", "tries that failed", "served too late",
            "SYNs dropped"]  # fmt: skip
    rows = []
    for case in cases:
        outcome = scenarios.run(case, seed)
        back = [_seconds(outcome.back.get(percent)) if outcome.cut else "" for percent in (50.0, 99.0)]
        late = outcome.late + outcome.stale
        rows.append([case.words, f"{outcome.cut:,}", *back, f"{outcome.failed:,}", f"{late:,}",
                     f"{outcome.dropped_syns:,}"])  # fmt: skip
    return table(head, rows)


def _seconds(value: float | None) -> str:
    return f"not within {scenarios.SECONDS - Storm().at:g}" if value is None else f"{value:.1f}"


def fleet_blocks(seed: int = SEED) -> dict[str, Callable[[], str]]:
    """The tables that take a simulation."""
    blocks: dict[str, Callable[[], str]] = {}
    for client in (model.FLASH, model.WEBSOCKET_TLS):
        cases = scenarios.cases(client, socket_kb())
        words = f"fleet of {cases[0].fleet.hosts} hosts, {_short(client.name)}"
        blocks[f"fleet, {_short(client.name)}"] = lambda cases=cases, words=words: (  # type: ignore[misc]
            simulation_table(cases, seed).replace("| |", f"| {words} |", 1)
        )
    slow = scenarios.slow_application(model.FLASH, socket_kb())
    blocks["slow application"] = lambda: simulation_table(slow, seed)
    return blocks


# ------------------------------------------------------------------------------------------------------------- settings


def settings_table() -> str:
    """What to set."""
    here = measured.load_last()["sysctls"]
    rows = [
        [f"`{one.name}`", here.get(one.name, ""), one.value or "as it is", one.why] for one in host_settings.SETTINGS
    ]
    return table(["", "here", "set", "why"], rows, numbers=0)


# ----------------------------------------------------------------------------------------------------------------- page


def quick_blocks() -> dict[str, Callable[[], str]]:
    """The tables that take no simulation."""
    return {
        "figures": figures_table,
        "a million": million_table,
        "hosts": assumptions_table,
        "limits": hosts_table,
        "storms": storms_table,
        "settings": settings_table,
        "measured on": lambda: comparison.machine_line(measured.load_last()),
        "units": lambda: comparison.units_table(measured.load_last()),
        "comparison": lambda: comparison.comparison_table(measured.load_last()),
    }


def blocks(seed: int = SEED) -> dict[str, Callable[[], str]]:
    """All tables by name."""
    return {**quick_blocks(), **fleet_blocks(seed)}


def filled(text: str, made: Mapping[str, Callable[[], str]]) -> str:
    """The page with these tables. Raises BenchError for one that it has no place for."""
    for name, make in made.items():
        start = START.format(name)
        if start not in text:
            raise BenchError(f"docs/scale.md has no place for a table: {start.strip()}")
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(END)
        text = f"{before}{start}\n{make()}\n{END}{after}"
    return text


def names_in(text: str) -> list[str]:
    """The tables that a page has."""
    return re.findall(START.strip().format("(.+)"), text)
