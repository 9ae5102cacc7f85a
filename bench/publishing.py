"""ffmpeg, which publishes a clip by RTMP or RTMPT as fast as it goes, and compares frames."""

import shutil
import subprocess
import time
from pathlib import Path

from bench import BenchError
from bench.servers.running import child_setup

SECONDS = 4  # length of the clip
SOURCES = (
    "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=44100",
    "-t", str(SECONDS), "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac",
)  # fmt: skip
RUN_SECONDS = 60.0
FIELDS = 5  # of a frame; what follows them is about new headers

Frames = dict[str, list[tuple[str, ...]]]  # by stream; of each frame: dts, pts, duration, size, hash


def missing() -> str | None:
    """Why nothing can be published here, or None."""
    return None if shutil.which("ffmpeg") else "ffmpeg is not installed"


def make_clip(folder: Path) -> Path:
    """A clip with moving pictures and a tone."""
    clip = folder / "clip.flv"
    _ffmpeg([*SOURCES, "-f", "flv", str(clip)])
    return clip


def publish(clip: Path, url: str, cpu: int | None) -> float:
    """Publish the clip without waiting for its timestamps. Returns the seconds of ffmpeg's run."""
    begin = time.perf_counter()
    _ffmpeg(["-i", str(clip), "-c", "copy", "-f", "flv", url], cpu)
    return time.perf_counter() - begin


def frames(path: Path) -> Frames:
    """Those of all streams of a file, in their order."""
    found: Frames = {}
    for line in _ffmpeg(["-i", str(path), "-map", "0", "-c", "copy", "-f", "framemd5", "-"]).splitlines():
        if not line.startswith("#"):
            stream, *words = line.replace(" ", "").split(",")
            found.setdefault(stream, []).append(tuple(words[:FIELDS]))
    return found


def missing_at_the_end(found: Frames, wanted: Frames) -> int:
    """How many frames the streams lack at their ends."""
    return sum(max(0, len(run) - len(found.get(stream, []))) for stream, run in wanted.items())


def differences(found: Frames, wanted: Frames) -> int:
    """How many of the frames that were found are other ones than were wanted in their place."""
    wrong = 0
    for stream, run in found.items():
        right = wanted.get(stream, [])
        wrong += max(0, len(run) - len(right))
        wrong += sum(one != other for one, other in zip(run, right, strict=False))
    return wrong


def _ffmpeg(words: list[str], cpu: int | None = None) -> str:
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", *words], check=False, capture_output=True, text=True,
        timeout=RUN_SECONDS, preexec_fn=child_setup(cpu),
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"ffmpeg failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
