"""Stall detection from heartbeats."""

from flashpol.supervisor.stall_detector import MAX_GAP, StallDetector


def test_observe_of_changing_heartbeats_is_0() -> None:
    detector = StallDetector(0.25)
    assert [detector.observe(beat, 100 + 0.25 * beat) for beat in range(10)] == [0.0] * 10


def test_observe_of_the_same_heartbeat_adds_up_until_it_changes() -> None:
    detector = StallDetector(0.25)
    seen = [detector.observe(beat, 100 + 0.25 * look) for look, beat in enumerate([1, 1, 1, 1, 2, 2])]
    assert seen == [0.0, 0.25, 0.5, 0.75, 0.0, 0.25]


def test_first_observation_is_0_at_any_time() -> None:
    assert StallDetector(0.25).observe(0, 1e9) == 0.0


def test_observe_after_a_long_gap_counts_a_part_of_it() -> None:
    """All of us were stopped for an hour, or the machine slept: the worker may have beaten as often as it could."""
    detector = StallDetector(0.25)
    detector.observe(1, 100.0)
    assert detector.observe(1, 3700.0) == MAX_GAP * 0.25
