"""Drawings. Shapes are SVG, stretched to the room there is; all words are HTML beside them."""

import math
from collections.abc import Sequence
from itertools import pairwise

from flashpol.admin.history import INTERVAL, KEPT, Sample
from flashpol.admin.page.formatting import count, duration, rate
from flashpol.admin.page.markup import Markup, el, join

WIDTH, HEIGHT = 600, 120
# Of the first samples, and after a pause of the endpoint, nothing is known: the line is broken there.
GAP = 3 * INTERVAL
# Times a power of ten; half of each is easily read too.
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


def rates(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """(age in seconds of the interval's end, answers per second in it), oldest first; after a gap, not."""
    if not samples:
        return []
    newest = samples[-1].at
    pairs = pairwise(samples)
    return [
        (newest - new.at, (new.total.replies - old.total.replies) / (new.at - old.at))
        for old, new in pairs
        if new.at > old.at
    ]


def ceiling(value: float) -> float:
    """The next round number that is not below it, and at least 1: where an axis ends."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(step * power for step in ROUND if step * power >= value))


def answers(samples: Sequence[Sample]) -> Markup:
    """Answers per second over the last minutes."""
    points = rates(samples)
    if not points:
        return el("p", "The first figures come after some seconds.", class_="quiet")
    top = ceiling(max(value for _, value in points))
    span = INTERVAL * KEPT
    at = [(WIDTH * (1 - age / span), HEIGHT * (1 - value / top), age) for age, value in points if age <= span]
    runs: list[list[tuple[float, float]]] = []
    before = math.inf
    for x, y, age in at:
        if before - age > GAP:
            runs.append([])
        runs[-1].append((x, y))
        before = age
    highest, mean = max(value for _, value in points), sum(value for _, value in points) / len(points)
    words = f"highest {rate(highest, 1)}, mean {rate(mean, 1)}, last {rate(points[-1][1], 1)}"
    drawing = el(
        "svg",
        *(el("line", x1=0, x2=WIDTH, y1=y, y2=y) for y in (0, HEIGHT / 2, HEIGHT)),
        *(el("polygon", points=_points([(run[0][0], HEIGHT), *run, (run[-1][0], HEIGHT)])) for run in runs),
        *(el("polyline", points=_points(run)) for run in runs),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Answers per second over the last {duration(span)}: {words}",
    )
    axis = el("div", *(el("span", count(value) if value >= 10 else f"{value:g}") for value in (top, top / 2, 0)))
    return el(
        "figure",
        el("div", el("div", axis, class_="scale", aria_hidden="true"), drawing, class_="plot"),
        el("div", el("span", f"{span / 60:.0f} min ago"), el("span", "now"), class_="ends", aria_hidden="true"),
        el("figcaption", words[0].upper() + words[1:] + "."),
        class_="answers",
    )


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def bars(*parts: tuple[str, float]) -> Markup:
    """Horizontal bars one below the other: (class, share of the width)."""
    return el(
        "svg",
        *(
            el("rect", width=f"{max(0.0, min(1.0, part)) * 100:.2f}%", y=f"{100 * i / len(parts):g}%", class_=kind,
               height=f"{100 / len(parts) - 8:g}%")
            for i, (kind, part) in enumerate(parts)
        ),
        class_="bars",
        aria_hidden="true",
    )  # fmt: skip


def key(*parts: tuple[str, str]) -> Markup:
    """What the bars mean: (class, words)."""
    return el("p", join(*(el("span", bars((kind, 1)), words) for kind, words in parts)), class_="key")
