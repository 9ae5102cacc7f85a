"""Does a worker's loop turn? What is seen of it, and what is not held against it."""

from flashpol.supervisor.stall_detector import PUNCTUAL, StallDetector


def test_a_beat_that_changes_is_well() -> None:
    pulse = StallDetector(0.25)
    assert [pulse.look(beat, 100 + 0.25 * beat) for beat in range(10)] == [0.0] * 10


def test_the_same_beat_adds_up_and_the_next_one_ends_that() -> None:
    pulse = StallDetector(0.25)
    seen = [pulse.look(beat, 100 + 0.25 * look) for look, beat in enumerate([1, 1, 1, 1, 2, 2])]
    assert seen == [0.0, 0.25, 0.5, 0.75, 0.0, 0.25]


def test_the_first_look_tells_nothing_whatever_the_clock_says() -> None:
    assert StallDetector(0.25).look(0, 1e9) == 0.0


def test_the_time_in_which_nobody_looked_does_not_count() -> None:
    """All of us were stopped for an hour, or the machine slept: the worker may have beaten as often as it could."""
    pulse = StallDetector(0.25)
    pulse.look(1, 100.0)
    assert pulse.look(1, 3700.0) == PUNCTUAL * 0.25
