"""Each chart of a run becomes a PNG file that is not empty; without matplotlib there is an error."""

from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, charts
from bench.report import Results, document

ABOUT: dict[str, Any] = {"cpu": "any", "cores": 2, "kernel": "6.1", "date": "2020-01-01T00:00:00"}


def a_run() -> dict[str, Any]:
    results = Results()
    for name in charts.CHARTS:
        for x in (1, 10, 100):
            results.add_point(name, "flashpol", x, [x * 3.0, x * 4.0])
            results.add_point(name, "nginx", x, [x * 5.0])
    return document(ABOUT, results)


@pytest.mark.slow
def test_draw_with_points_of_every_chart_writes_a_png_for_each(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = charts.draw(a_run(), tmp_path)
    assert len(written) == len(charts.CHARTS)
    for path in written:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5_000


def test_draw_without_points_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert charts.draw(document(ABOUT, Results()), tmp_path) == []


def test_draw_without_matplotlib_raises_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    with pytest.raises(BenchError, match="pip install"):
        charts.draw(a_run(), tmp_path)
