"""The movies that testkit/swf assembles, read back: tags, actions, where branches lead. Ruffle plays them elsewhere."""

import struct
from collections.abc import Iterator

import pytest

from examples.chat import movie as chat
from testkit import socket_movies
from testkit.swf import avm1
from testkit.swf.avm2 import Pool, s24, u30
from testkit.swf.movie import DO_ABC, DO_ACTION, END, SHOW_FRAME, SYMBOL_CLASS, rectangle, tag


def tags(swf: bytes) -> Iterator[tuple[int, bytes]]:
    """The tags of a file, whose header is checked."""
    signature, _, length = struct.unpack_from("<3sBI", swf)
    assert (signature, length) == (b"FWS", len(swf))
    at = 8 + (5 + 4 * (swf[8] >> 3) + 7) // 8 + 4  # after the rectangle, the rate and the number of frames
    while at < len(swf):
        [head] = struct.unpack_from("<H", swf, at)
        at += 2
        size = head & 0x3F
        if size == 0x3F:
            [size] = struct.unpack_from("<I", swf, at)
            at += 4
        yield head >> 6, swf[at : at + size]
        at += size
    assert at == len(swf)


def check_actions(code: bytes) -> int:
    """Walk through a list of actions; every branch must lead to one of them. Returns how many there are."""
    at, starts, targets, inner = 0, set(), set(), 0
    while at < len(code):
        starts.add(at)
        number = code[at]
        size = struct.unpack_from("<H", code, at + 1)[0] + 3 if number & 0x80 else 1
        content = code[at + 3 : at + size]
        at += size
        if number in (avm1.IF, avm1.JUMP):
            targets.add(at + struct.unpack("<h", content)[0])
        if number == avm1.DEFINE_FUNCTION:
            body = struct.unpack("<H", content[-2:])[0]
            inner += check_actions(code[at : at + body])
            at += body
    assert at == len(code)
    assert targets <= starts | {len(code)}
    return len(starts) + inner


@pytest.mark.parametrize("make", [chat.chat, socket_movies.xml_socket])
def test_movie_of_avm1_has_actions_that_fill_their_tag(make) -> None:
    found = dict(tags(make()))
    assert list(found)[-3:] == [DO_ACTION, SHOW_FRAME, END]
    assert found[DO_ACTION].endswith(b"\0")
    assert check_actions(found[DO_ACTION][:-1]) > 50


def test_movie_of_avm2_names_its_class() -> None:
    found = dict(tags(socket_movies.socket()))
    assert found[SYMBOL_CLASS] == b"\1\0\0\0Main\0"
    assert found[DO_ABC][5:9] == struct.pack("<HH", 16, 46)


def test_rectangle_has_the_fewest_bits() -> None:
    # 20 twips: 5 bits and a sign; five bits that say 6, then four sides, then padding
    assert rectangle(1, 1) == int("00110" + "000000010100" * 2 + "000", 2).to_bytes(4, "big")


@pytest.mark.parametrize(("size", "head"), [(0, "4000"), (62, "7e00"), (63, "7f003f000000")])
def test_tag_of_63_bytes_has_a_long_head(size: int, head: str) -> None:
    assert tag(1, bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_when_jumps_over_the_part_that_is_not_taken() -> None:
    code = avm1.when(avm1.value(True), avm1.action(avm1.POP), avm1.action(avm1.NOT) * 2)
    # push true, not, if -> else (pop and a jump of 5 bytes), pop, jump -> end, not, not
    assert code.hex() == "960200" + "0501" + "12" + "9d0200" + "0600" + "17" + "990200" + "0200" + "1212"


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (0xFFFFFFFF, "ffffffff0f")])
def test_u30_has_seven_bits_in_a_byte(number: int, encoded: str) -> None:
    assert u30(number).hex() == encoded


def test_s24_of_a_jump_back_is_negative() -> None:
    assert s24(-2).hex() == "feffff"


def test_pool_has_each_entry_once_and_counts_one_more() -> None:
    pool = Pool()
    assert pool.encoded() == b"\0"
    assert [pool.index(entry) for entry in (b"a", b"b", b"a")] == [1, 2, 1]
    assert pool.encoded() == b"\3ab"
