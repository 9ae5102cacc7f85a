"""What a process is told when others go on with its work."""

import select

from hypothesis import given
from hypothesis import strategies as st

from flashpol.config import MAX_LISTENERS
from flashpol.gateway.handover import decode, encode


@given(st.frozensets(st.integers(0, MAX_LISTENERS - 1)))
def test_there_and_back(kept: frozenset[int]) -> None:
    assert decode(encode(kept)) == kept


def test_nobody_goes_on() -> None:
    assert decode(b"") is None


def test_it_fits_a_pipe_in_one_piece() -> None:
    assert len(encode(range(MAX_LISTENERS))) <= select.PIPE_BUF
