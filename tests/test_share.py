"""Places that several members share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._pump import Place, Places, PlacesMember
from testkit.examples import examples


def members(limit: int, *reserves: int) -> list[PlacesMember]:
    places = Places(limit)
    found = []
    for reserve in reserves:
        found.append(PlacesMember(places))
        found[-1].reserve = reserve
    return found


def take_all(member: PlacesMember) -> list[Place]:
    taken = []
    while place := member.take():
        taken.append(place)
    return taken


def test_member_takes_its_reserve_and_all_common_places() -> None:
    greedy, other = members(10, 3, 3)
    assert len(take_all(greedy)) == 7
    assert len(take_all(other)) == 3
    assert (greedy.used, other.used) == (7, 3)


def test_released_place_can_be_taken_again_by_another_member() -> None:
    greedy, other = members(10, 3, 3)
    places = take_all(greedy)
    take_all(other)
    for _ in range(2):  # the second time does nothing
        places[0].release()
    assert len(take_all(other)) == 1
    for place in places[1:]:
        place.release()
    assert greedy.used == 0
    assert len(take_all(other)) == 3


def test_places_without_reserves_are_taken_in_turn() -> None:
    one, other = members(2, 0, 0)
    assert one.take()
    assert other.take()
    assert one.take() is other.take() is None


def test_reserve_that_changes_later_is_kept_for_its_member() -> None:
    one, other = members(10, 5, 0)
    held = take_all(one)
    assert len(held) == 10
    one.reserve, other.reserve = 2, 3
    assert other.take()  # its reserve holds, although that is one more than the limit
    for place in held:
        place.release()
    assert len(take_all(one)) == 7


def test_reserves_above_the_limit_are_refused() -> None:
    one, other = members(10, 5, 5)
    for wrong in (6, -1):
        with pytest.raises(ValueError, match="cannot reserve more than the 10 places"):
            other.reserve = wrong
    one.reserve = 4
    other.reserve = 6
    with pytest.raises(ValueError, match="not negative"):
        Places(-1)


@examples(100)
@given(
    st.integers(0, 12), st.lists(st.integers(0, 4), min_size=1, max_size=4), st.lists(st.integers(0, 9), max_size=60)
)
def test_places_agree_with_a_model(limit: int, wanted: list[int], steps: list[int]) -> None:
    """A step takes a place of a member, or gives one back. The model counts from the start each time."""
    reserves: list[int] = []
    for reserve in wanted:
        reserves.append(min(reserve, limit - sum(reserves)))
    all_members = members(limit, *reserves)
    held: list[list[Place]] = [[] for _ in reserves]
    for step in steps:
        number = step % len(reserves)
        if step >= 5 and held[number]:
            held[number].pop().release()
            continue
        common = sum(max(0, len(places) - reserve) for places, reserve in zip(held, reserves, strict=True))
        expected = len(held[number]) < reserves[number] or common < limit - sum(reserves)
        place = all_members[number].take()
        assert bool(place) == expected
        if place:
            held[number].append(place)
        assert [member.used for member in all_members] == [len(places) for places in held]
        assert sum(map(len, held)) <= limit
