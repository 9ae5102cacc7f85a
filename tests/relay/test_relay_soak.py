"""The soak for a moment, so that it keeps working; `make soak-relay` is for as long as wanted."""

from soak_relay import soak


def test_for_a_moment() -> None:
    done = soak(seconds=2, blocks=8, seed=1)
    assert set(done) == {"policy", "echo", "stall", "leave", "be_left"}
