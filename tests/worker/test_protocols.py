"""The table of protocols fits the recogniser in C and is unambiguous."""

from itertools import permutations

import pytest
from conftest import Serve

from flashpol._fastpath import REASONS
from flashpol.worker.protocols import SIGNATURES


@pytest.mark.parametrize(("prefix", "reason"), SIGNATURES, ids=[repr(prefix) for prefix, _ in SIGNATURES])
def test_signature_fits_and_its_reason_is_known(prefix: bytes, reason: str) -> None:
    assert 1 <= len(prefix) <= 8
    assert reason in REASONS
    assert not b"<policy-file-request/>".startswith(prefix[:1])  # else the matcher would take its first byte


def test_signatures_are_unambiguous() -> None:
    assert 0 < len(SIGNATURES) <= 32
    for (short, reason), (long, other) in permutations(SIGNATURES, 2):
        assert short != long
        assert not long.startswith(short) or reason == other


@pytest.mark.parametrize(("prefix", "reason"), SIGNATURES, ids=[repr(prefix) for prefix, _ in SIGNATURES])
def test_signature_is_recognised_exactly(serve: Serve, prefix: bytes, reason: str) -> None:
    """The signature alone is enough; with its last byte changed it is another protocol."""
    server = serve()
    server.ask(prefix)
    assert server.settle() == {reason: 1}
    server.ask(prefix[:-1] + b"~")
    assert server.settle() == {reason: 1, "other": 1}
