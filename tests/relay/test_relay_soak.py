"""The soak test for two seconds, so that it keeps working; `make soak-relay` runs it for as long as wanted."""

import pytest
from soak_relay import soak


@pytest.mark.slow
def test_soak_for_two_seconds_loses_no_byte_and_no_descriptor() -> None:
    done = soak(seconds=2, blocks=8, seed=1)
    assert set(done) == {"policy", "echo", "stall", "leave", "be_left"}
