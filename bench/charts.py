"""Draw the charts of a run as PNG files, from its JSON report. It needs matplotlib: ``pip install -e '.[bench]'``."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError

Points = list[tuple[float, list[float]]]

# A server has the same colour in all charts: flashpol orange, C servers grey, the others blue and green.
COLOURS = {
    "flashpol": "#d9480f",
    "C epoll": "#343a40",
    "C epoll, one segment": "#868e96",
    "C io_uring": "#adb5bd",
    "nginx": "#1971c2",
    "HAProxy": "#0c8599",
    "gevent StreamServer": "#2f9e44",
    "Go": "#9c36b5",
    "node": "#f08c00",
}
OTHER_COLOUR = "#d9480f"
SIZE = (8.0, 4.5)  # inches
DOTS = 100  # per inch
FEW_TICKS = 5  # up to so many values of x are all written at the axis


@dataclass(frozen=True)
class Chart:
    """How a chart is drawn. scale: the divisor from the samples' unit to the axis' unit."""

    title: str
    x: str
    y: str
    draw: Callable[[Any, "Chart", dict[str, Points]], None]
    scale: float = 1.0
    log_x: bool = False
    log_y: bool = False


def _lines(axes: Any, chart: Chart, series: dict[str, Points]) -> None:
    """Draw a line per server through the medians, and a band from smallest to largest; the legend is in end order."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    ends = []
    for name, points in series.items():
        xs = [x for x, _ in points]
        middle = [statistics.median(samples) / chart.scale for _, samples in points]
        low = [min(samples) / chart.scale for _, samples in points]
        high = [max(samples) / chart.scale for _, samples in points]
        colour, ours = COLOURS.get(name, OTHER_COLOUR), name == "flashpol"
        axes.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(xs, middle, "o-", color=colour, linewidth=2.6 if ours else 1.6, markersize=4, label=name,
                  zorder=3 if ours else 2)  # fmt: skip
        ends.append((middle[-1], name))
    axes.set_xscale("log" if chart.log_x else "linear")
    axes.set_yscale("log" if chart.log_y else "linear")
    if not chart.log_y:
        axes.set_ylim(0, 1.1 * max(max(samples) for points in series.values() for _, samples in points) / chart.scale)
    handles, labels = axes.get_legend_handles_labels()
    order = [labels.index(name) for _, name in sorted(ends, reverse=True)]  # from the top, as the lines end
    if len(order) > 1:
        axes.legend([handles[i] for i in order], [labels[i] for i in order], frameon=False, fontsize=9,
                    loc="upper left", bbox_to_anchor=(1.0, 1.0))  # fmt: skip
    if chart.log_y:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.4g}"))
        axes.minorticks_off()
    xs = sorted({x for points in series.values() for x, _ in points})
    if chart.log_x or len(xs) <= FEW_TICKS:
        axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))


def _bars(axes: Any, chart: Chart, series: dict[str, Points]) -> None:
    """Draw a bar per server, the cheapest on top, with its value at the end. Of several x only the first is drawn."""
    values = {name: statistics.median(points[0][1]) / chart.scale for name, points in series.items()}
    names = sorted(values, key=lambda name: values[name], reverse=True)
    axes.barh(names, [values[name] for name in names], color=[COLOURS.get(name, OTHER_COLOUR) for name in names])
    for row, name in enumerate(names):
        value = values[name]
        axes.text(
            value,
            row,
            f" {value:.2g}" if value < 1 else f" {value:.1f}",
            va="center",
            fontsize=9,
            weight="bold" if name == "flashpol" else None,
        )
    axes.set_xlabel(chart.y)
    axes.set_xlim(right=max(values.values()) * 1.12)


CHARTS = {
    "cpu": Chart(
        "CPU per reply, 256 clients at once", "", "µs of server CPU per reply; less is better", _bars, 1000,
    ),
    "concurrency": Chart(
        "CPU per reply, by number of clients at once", "clients at once", "µs of server CPU per reply", _lines,
        1000, log_x=True, log_y=True,
    ),
    "concurrency latency": Chart(
        "Latency of a reply, by number of clients at once", "clients at once", "median latency, ms", _lines, 1000,
        log_x=True, log_y=True,
    ),
    "rate": Chart(
        "Tail latency: p99.9 against rate", "requests per second, at fixed times", "p99.9 latency, ms",
        _lines, 1000, log_y=True,
    ),
    "silent": Chart(
        "Memory of a silent client", "", "KB of memory per silent client", _bars,
    ),
    "workers": Chart(
        "Replies per second by number of workers, load generator on the same CPUs", "workers",
        "thousand replies per second", _lines, 1000,
    ),
    "slow_replies": Chart(
        "Memory of a slow reply, whose client does not read", "held at once", "KB of memory each", _lines,
    ),
    "sizes": Chart(
        "CPU per reply, by size of the policy", "bytes of policy", "µs of server CPU per reply", _lines, 1000,
        log_x=True,
    ),
    "listeners": Chart(
        "CPU per reply, by number of listeners", "listeners", "µs of server CPU per reply", _lines, 1000,
        log_x=True,
    ),
}  # fmt: skip


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write a PNG for each chart that the run has points for. Raises BenchError if matplotlib is not installed."""
    if not available():
        raise BenchError("charts need matplotlib: pip install -e '.[bench]'")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    written = []
    for name, chart in CHARTS.items():
        if name not in document["charts"]:
            continue
        series = {
            one: [(point["x"], point["samples"]) for point in points]
            for one, points in document["charts"][name].items()
        }
        figure, axes = pyplot.subplots(figsize=SIZE, dpi=DOTS, layout="constrained")
        chart.draw(axes, chart, series)
        axes.set_title(chart.title, loc="left", fontsize=12, weight="bold")
        if chart.draw is _lines:
            axes.set_xlabel(chart.x)
            axes.set_ylabel(chart.y)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis="x" if chart.draw is _bars else "both", alpha=0.25)
        axes.set_axisbelow(True)
        about = document["machine"]
        words = f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {about['date'][:10]}"
        figure.supxlabel(words, x=0.99, ha="right", fontsize=6, color="#868e96")
        path = folder / f"{name.replace(' ', '-')}.png"
        figure.savefig(path)
        pyplot.close(figure)
        written.append(path)
    return written
