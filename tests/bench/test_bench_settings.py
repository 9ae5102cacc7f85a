"""How many turns a run has, by its rounds."""

import pytest

from bench.settings import Settings


@pytest.mark.parametrize(
    ("rounds", "full", "quick", "turns"),
    [(9, 7, False, 7), (9, 45, False, 45), (3, 45, False, 15), (3, 7, False, 3), (3, 2, False, 2), (1, 7, False, 1),
     (5, 5, False, 3), (1, 45, True, 1), (5, 45, True, 5)],
)  # fmt: skip
def test_turns_follow_the_rounds_and_are_three_where_the_run_has_as_many(
    rounds: int, full: int, quick: bool, turns: int
) -> None:
    assert Settings(rounds, 1, (0,), peers_only=False, quick=quick).turns(full) == turns
