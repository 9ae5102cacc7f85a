"""The recogniser of the request: any split of any bytes gives the same verdict as the whole."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol import RequestMatcher, Verdict
from testkit.clients import BARE, REQUEST
from testkit.examples import examples

MORE, MATCH, OTHER = Verdict.MORE, Verdict.MATCH, Verdict.OTHER

thorough = examples(400)


def model(data: bytes) -> tuple[Verdict, int]:
    """The verdict on a whole stream and how many of its bytes belong to the request, by definition."""
    for terminator in (b"\0", b"\r\n", b"\r", b"\n"):
        if data.startswith(BARE + terminator):
            return MATCH, len(BARE + terminator)
    return (MORE, len(data)) if BARE.startswith(data) else (OTHER, 0)


def feed(pieces: list[bytes]) -> tuple[Verdict, int]:
    matcher = RequestMatcher()
    verdict = MORE
    for piece in pieces:
        verdict = matcher.feed(piece)
    return verdict, matcher.consumed


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


# Streams near the request: a prefix of it, something after or instead, and one byte changed.
near = st.builds(
    lambda size, tail: REQUEST[:size] + tail,
    st.integers(0, 23),
    st.one_of(st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\0", b"\n\r", b" />", REQUEST]), st.binary(max_size=30)),
)
streams = st.one_of(near, st.binary(max_size=60))
places = st.lists(st.integers(0, 100), max_size=25)


@pytest.mark.parametrize(
    ("data", "verdict", "consumed"),
    [
        (b"", MORE, 0),
        (b"<", MORE, 1),
        (BARE, MORE, 22),
        (REQUEST, MATCH, 23),
        (BARE + b"\n", MATCH, 23),
        (BARE + b"\r", MATCH, 23),
        (BARE + b"\r\n", MATCH, 24),
        (BARE + b"\r\r\n", MATCH, 23),
        (BARE + b"\n\r", MATCH, 23),
        (REQUEST + b"\n", MATCH, 23),
        (REQUEST + REQUEST, MATCH, 23),
        (BARE + b" ", OTHER, 0),
        (BARE.upper() + b"\0", OTHER, 0),
        (b" " + REQUEST, OTHER, 0),
        (b"\0", OTHER, 0),
        (b"<policy-file-request />\0", OTHER, 0),
        (b"<cross-domain-request/>\0", OTHER, 0),
        (b"GET / HTTP/1.1\r\n", OTHER, 0),
    ],
)
def test_matcher_gives_verdict_and_consumed_bytes(data: bytes, verdict: Verdict, consumed: int) -> None:
    assert feed([data]) == (verdict, consumed)
    assert feed([bytes([byte]) for byte in data]) == (verdict, consumed)


@pytest.mark.parametrize("position", range(23))
def test_matcher_with_one_wrong_byte_says_other(position: int) -> None:
    for byte in set(range(256)) - {REQUEST[position]} - (set(b"\r\n") if position == 22 else set()):
        assert feed([REQUEST[:position], bytes([byte]), REQUEST[position + 1 :]])[0] is OTHER


@thorough
@given(streams, places)
@example(BARE + b"\r\n", [23])
@example(b"<p!", [2])
def test_matcher_gives_any_split_the_verdict_of_the_whole(data: bytes, places: list[int]) -> None:
    assert feed(cut(data, places)) == feed([data])


@thorough
@given(streams, places)
def test_matcher_agrees_with_the_definition(data: bytes, places: list[int]) -> None:
    assert feed(cut(data, places)) == model(data)


@thorough
@given(st.sampled_from([REQUEST, BARE + b"\n", BARE + b"\rx", b"x", BARE + b"x"]), st.lists(st.binary(), min_size=1))
def test_matcher_verdict_is_final(decided: bytes, later: list[bytes]) -> None:
    matcher = RequestMatcher()
    verdict = matcher.feed(decided)
    consumed = matcher.consumed
    assert verdict is not MORE
    for piece in later:
        assert matcher.feed(piece) is verdict
    assert matcher.consumed == consumed


@thorough
@given(streams, places)
@example(BARE, [22])
@example(REQUEST, [22])
def test_matcher_unterminated_mode_matches_22_bytes(data: bytes, places: list[int]) -> None:
    matcher = RequestMatcher(terminated=False)
    verdicts = [matcher.feed(piece) for piece in cut(data, places)]
    if data.startswith(BARE):
        assert (verdicts[-1], matcher.consumed) == (MATCH, 22)
    else:
        assert (verdicts[-1], matcher.consumed) == model(data)
    assert not matcher.unterminated


@pytest.mark.parametrize("size", range(24))
def test_matcher_unterminated_is_true_after_exactly_22_bytes(size: int) -> None:
    matcher = RequestMatcher()
    matcher.feed(REQUEST[:size])
    assert matcher.unterminated == (size == 22)


def test_matcher_unterminated_is_false_after_other() -> None:
    matcher = RequestMatcher()
    matcher.feed(BARE + b"!")
    assert not matcher.unterminated


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_matcher_takes_any_contiguous_buffer(kind: type) -> None:
    matcher = RequestMatcher()
    assert matcher.feed(kind(REQUEST)) is MATCH


@pytest.mark.parametrize("wrong", [None, "<policy-file-request/>", 5, memoryview(REQUEST)[::2]])
def test_matcher_refuses_other_objects(wrong: object) -> None:
    matcher = RequestMatcher()
    with pytest.raises((TypeError, BufferError)):
        matcher.feed(wrong)  # type: ignore[arg-type]
    assert matcher.feed(REQUEST) is MATCH
