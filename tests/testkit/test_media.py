"""Frames of a film and of what became of it are compared: nothing is overlooked, and nothing but frames counts."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.media import MISSING, QUIET, assert_identical, assert_part_of, assert_published, frames, make_film
from testkit.polling import DEADLINE
from testkit.programs import needs

HEADER = b"FLV\x01\x05\0\0\0\x09\0\0\0\0"
AUDIO, VIDEO, SCRIPT = 8, 9, 18


def tag(kind: int, content: bytes, milliseconds: int = 0) -> bytes:
    when = milliseconds.to_bytes(4)
    head = bytes([kind]) + len(content).to_bytes(3) + when[1:] + when[:1] + bytes(3)
    return head + content + (len(head) + len(content)).to_bytes(4)


def video(number: int, content: bytes = b"") -> bytes:
    return tag(VIDEO, b"\x27\x01\0\0\0" + (content or b"frame %d" % number), number * 66)


def audio(number: int) -> bytes:
    return tag(AUDIO, b"\xaf\x01" + b"sound %d" % number, number * 23)


METADATA = tag(SCRIPT, b"\x02\0\x0aonMetaData")
HEADERS = tag(VIDEO, b"\x17\0\0\0\0avcC") + tag(AUDIO, b"\xaf\0\x12\x08")
TAGS = [each for n in range(40) for each in (video(n), audio(n))]
FILM = HEADER + METADATA + HEADERS + b"".join(TAGS)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(*parts: bytes) -> Path:
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.flv"
        path.write_bytes(b"".join(parts))
        return path

    return to


def test_headers_metadata_and_ends_are_no_frames(write: Write) -> None:
    ends = tag(VIDEO, b"\x17\x02\0\0\0")
    assert_identical(write(HEADER, HEADERS, HEADERS, METADATA, *TAGS, ends), write(FILM))


def test_times_have_four_bytes(write: Write) -> None:
    path = write(HEADER, tag(AUDIO, b"\xaf\x01sound", 0x01020304))
    assert [frame.milliseconds for frame in frames(path)["audio"]] == [0x01020304]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (TAGS[:-1], "audio: 39 frames of 40"),
        (TAGS[2:], "video: 39 frames of 40"),
        ([*TAGS[:2], *TAGS], "video: 41 frames of 40"),
        ([*TAGS[:20], video(10, b"frame xx"), *TAGS[21:]], "video: frame 10"),
        ([*TAGS[:4], TAGS[6], TAGS[5], TAGS[4], *TAGS[7:]], "video: frame 2"),
        ([*TAGS[:-2], tag(VIDEO, b"\x27\x01\0\0\0frame 39", 39 * 66 + 1), TAGS[-1]], "video: frame 39"),
    ],
    ids=["last missing", "first missing", "doubled", "changed", "swapped", "late"],
)
def test_film_that_is_not_the_same_is_an_error(write: Write, changed: list[bytes], error: str) -> None:
    with pytest.raises(AssertionError, match=error):
        assert_identical(write(HEADER, HEADERS, *changed), write(FILM))


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", FILM[:-1], FILM[:-20]])
def test_file_that_is_no_whole_film_is_an_error(write: Write, data: bytes) -> None:
    with pytest.raises(AssertionError, match=r"is no FLV file|is cut within a tag"):
        assert_identical(write(data), write(FILM))


def test_film_without_sound_is_no_film_to_compare_with(write: Write) -> None:
    silent = write(HEADER, *TAGS[::2])
    with pytest.raises(AssertionError, match="the film has no audio"):
        assert_identical(silent, silent)


def test_published_film_may_lack_its_end_only(write: Write) -> None:
    film = write(FILM)
    assert_published(write(HEADER, *TAGS[: -2 * MISSING]), film)
    for tags in (TAGS[: -2 * MISSING - 1], TAGS[2:], [*TAGS[:20], *TAGS[22:]]):
        with pytest.raises(AssertionError):
            assert_published(write(HEADER, *tags), film)


def test_part_of_a_film_is_a_run_of_its_frames(write: Write) -> None:
    film = write(FILM)
    assert_part_of(write(HEADER, *TAGS[10:60]), film)
    later = b"".join(tag(each[0], each[11:-4], 5000) for each in TAGS[10:60])
    assert_part_of(write(HEADER, later), film)
    for tags in (TAGS[10:40], [*TAGS[10:30], *TAGS[32:64]], [*TAGS[10:60], video(1, b"none")]):
        with pytest.raises(AssertionError):
            assert_part_of(write(HEADER, *tags), film)


@pytest.mark.slow
@needs("ffmpeg")
def test_frames_are_those_that_ffmpeg_counts_and_always_the_same(tmp_path: Path) -> None:
    film, again = make_film(tmp_path / "film.flv"), make_film(tmp_path / "again.flv")
    assert film.read_bytes() == again.read_bytes()
    command = [*QUIET, "-i", film, "-c", "copy", "-f", "framemd5", "-"]
    lines = subprocess.check_output(command, text=True, timeout=DEADLINE).splitlines()
    fields = [line.replace(" ", "").split(",") for line in lines if not line.startswith("#")]
    sizes = {"video": 5, "audio": 2}  # bytes of a tag in front of the frame
    for stream, name in (("0", "video"), ("1", "audio")):
        expected = [int(size) for number, _, _, _, size, _ in fields if number == stream]
        assert [frame.size - sizes[name] for frame in frames(film)[name]] == expected
        assert len(expected) > 50
