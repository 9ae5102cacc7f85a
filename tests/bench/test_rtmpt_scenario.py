"""The scenario of tunnel sessions runs, with and without flashpol's part and its peers, and sees what is wrong."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, publishing
from bench.measure import connections_to
from bench.report import Results
from bench.scenarios import rtmpt
from bench.servers import Server
from bench.servers.rtmpt import NGINX, NGINX_RTMP, OURS, nginx_missing, nginx_rtmp, nginx_rtmp_missing, ours_missing
from bench.settings import Settings
from testkit.polling import eventually
from testkit.rtmpt_echo import RtmptStub, rtmpt_stub

QUICK = Settings.on_this_machine(1, peers_only=False, quick=True)
FEW = {
    "POLLING": 8,
    "SESSIONS": 8,
    "QUICK_POLLS": 40,
    "QUICK_FRESH_POLLS": 24,
    "QUICK_MANY": 20,
    "QUICK_GHOSTS": 5,
    "QUICK_HOLD": 0.1,
}


class StandIn(RtmptStub):
    """A tunnel and a relay of one process, which echo; flashpol's metrics follow from what it has seen."""

    def __init__(self, hold: float, workers: int) -> None:
        super().__init__(hold=hold, workers=workers)

    def serve(self, connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) == b"P":
            super().serve(connection)
            return
        while piece := connection.recv(65536):
            connection.sendall(piece)

    def samples(self) -> dict[str, float]:
        """Sessions end with their connections here, since nothing else tells ghosts from others."""
        alive = len(self.sessions) if self.open_connections else 0
        forwarded = sum(1 for one in self.asked if one.what == "idle" and one.at != one.owner)
        metrics = {"sessions_open": alive, "polls_held": alive, "forwarded_total": forwarded}
        return {f'flashpol_rtmpt_{name}{{listener="bench0"}}': float(value) for name, value in metrics.items()}


class Flashpols:
    """What the scenario starts instead of flashpol."""

    def __init__(self) -> None:
        self.running: StandIn | None = None

    @contextmanager
    def tunnel(
        self, cpu: int | None, applications: tuple[int, ...], *, workers: int = 1, hold: float = 0.0, **_: Any
    ) -> Iterator[Server]:
        self.running = StandIn(min(hold, 0.1), workers)
        with rtmpt_stub(self.running) as port:
            yield Server(OURS, port, os.getpid(), Path(), 0.0, admin=1)

    def scrape(self, port: int) -> tuple[float, dict[str, float]]:
        assert self.running
        return 0.0, self.running.samples()

    def connections_to(self, port: int) -> int:
        assert self.running
        return len(self.running.sessions) if self.running.open_connections else 0


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Flashpols:
    flashpols = Flashpols()
    monkeypatch.setattr(rtmpt, "flashpol_tunnel", flashpols.tunnel)
    monkeypatch.setattr(rtmpt, "scrape", flashpols.scrape)
    monkeypatch.setattr(rtmpt, "connections_to", flashpols.connections_to)
    monkeypatch.setattr(rtmpt, "ours_missing", lambda: None)
    monkeypatch.setattr(rtmpt, "nginx_missing", lambda: "it is not installed")
    monkeypatch.setattr(publishing, "missing", lambda: "it is not installed")
    for name, value in FEW.items():
        monkeypatch.setattr(rtmpt, name, value)
    return flashpols


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_rtmpt_scenario_without_peers_measures_the_tunnel_alone() -> None:
    results = Results()
    rtmpt.run(QUICK, results)
    figures = {figure.name: figure.value.median for figure in results.figures}
    assert {f"{OURS}: CPU of {name}" for name in (rtmpt.KEPT, rtmpt.FRESH)} <= set(figures)
    assert {f"{name}: on another worker / on the session's, CPU" for name in (rtmpt.KEPT, rtmpt.FRESH)} <= set(figures)
    assert figures["20 sessions over 2 workers: echoes after that"] == 20
    assert "RTMPT - TCP: echo p50" in figures
    assert 0 <= figures["5 ghosts: gone after their connections, with rtmpt_session_timeout = 3"] < 20
    assert [note.partition(":")[2] for note in results.notes] == [
        " nginx was not measured: it is not installed",
        " publishing was not measured: it is not installed",
    ]


@pytest.mark.usefixtures("stand_in")
def test_rtmpt_scenario_with_polls_that_are_not_forwarded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "samples", lambda self: {'flashpol_rtmpt_forwarded_total{listener="bench0"}': 0.0})
    with pytest.raises(BenchError, match="0 of 40 polls on another worker were forwarded"):
        rtmpt._on_another_worker(1, QUICK, Results())


@pytest.mark.usefixtures("stand_in")
def test_rtmpt_scenario_without_the_metrics_of_forwarding_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "samples", lambda self: {})
    results = Results()
    rtmpt._on_another_worker(1, QUICK, results)
    assert results.notes == ["rtmpt: not confirmed: there is no flashpol_rtmpt_forwarded_total"]
    assert results.figures


def test_rtmpt_scenario_without_flashpol_or_peers_is_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmpt, "ours_missing", lambda: "this flashpol has no RTMPT")
    monkeypatch.setattr(rtmpt, "nginx_missing", lambda: "nginx is not installed")
    monkeypatch.setattr(rtmpt, "nginx_rtmp_missing", lambda: "no module")
    monkeypatch.setattr(publishing, "missing", lambda: None)
    results = Results()
    rtmpt.run(QUICK, results)
    assert results.figures == []
    assert results.notes == [
        "rtmpt: flashpol was not measured: this flashpol has no RTMPT",
        "rtmpt: nginx was not measured: nginx is not installed",
        "rtmpt: publishing was not measured: no module",
    ]


@pytest.mark.slow
def test_rtmpt_scenario_measures_flashpol_beside_its_peers() -> None:
    missing = ours_missing() or nginx_missing() or nginx_rtmp_missing() or publishing.missing()
    if missing:
        pytest.skip(missing)
    results = Results()
    rtmpt.run(QUICK, results)
    figures = {figure.name: figure.value.median for figure in results.figures}
    assert {f"{OURS} / {NGINX}: CPU of {name}" for name in (rtmpt.KEPT, rtmpt.FRESH)} <= set(figures)
    assert "RTMPT / RTMP: time to publish" in figures
    assert [note for note in results.notes if "not confirmed" not in note] == []


# ----------------------------------------------------------------------------------------------------------- publishing


def skip_without_publishing() -> None:
    missing = publishing.missing() or nginx_rtmp_missing()
    if missing:
        pytest.skip(missing)


@pytest.mark.slow
def test_published_clip_is_recorded_frame_by_frame(tmp_path: Path) -> None:
    skip_without_publishing()
    clip = publishing.make_clip(tmp_path)
    wanted = publishing.frames(clip)
    assert min(map(len, wanted.values())) >= 25 * publishing.SECONDS - 1
    with nginx_rtmp(None, tmp_path) as server:
        assert server.name == NGINX_RTMP
        assert publishing.publish(clip, f"rtmp://127.0.0.1:{server.port}/live/one", None) > 0
        eventually(lambda: not connections_to(server.port), "the recording is complete")
        assert publishing.frames(tmp_path / "one.flv") == wanted
        with pytest.raises(BenchError, match="ffmpeg failed"):
            publishing.publish(clip, f"rtmp://127.0.0.1:{server.port}/no-application/one", None)


def frames(*names: str) -> list[tuple[str, ...]]:
    return [(name,) for name in names]


@pytest.mark.parametrize(
    ("found", "missing", "other"),
    [
        ({"0": frames("a", "b", "c"), "1": frames("x")}, 0, 0),
        ({"0": frames("a", "b"), "1": frames("x")}, 1, 0),
        ({"0": frames("a", "b")}, 2, 0),
        ({"0": frames("a", "c"), "1": frames("x")}, 1, 1),
        ({"0": frames("a", "b", "?"), "1": frames("x")}, 0, 1),
        ({"0": frames("a", "b", "c"), "1": frames("x", "y")}, 0, 1),
        ({"0": frames("a", "b", "c"), "1": frames("x"), "2": frames("z")}, 0, 1),
    ],
    ids=["same", "end", "stream", "middle", "changed", "more", "other-stream"],
)
def test_frames_are_compared_in_their_places(found: publishing.Frames, missing: int, other: int) -> None:
    wanted = {"0": frames("a", "b", "c"), "1": frames("x")}
    assert publishing.missing_at_the_end(found, wanted) == missing
    assert publishing.differences(found, wanted) == other
