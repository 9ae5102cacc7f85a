"""The rows of good clients: each attack on a shared server has all four places, and its listeners exist."""

from pathlib import Path

import pytest

from faults.attack import Attack
from faults.attacks import ATTACKS, addresses, handshakes, limits, replies, secured, silence, upstreams, websocket
from faults.places import (
    BAD_SOURCE,
    CHAT,
    GAME,
    KINDS_AT,
    LATE_GAME,
    OTHER_LISTENER,
    OTHER_UPSTREAM,
    POLICY,
    SAME_ADDRESS,
    SAME_LISTENER,
    TLS_KINDS_AT,
    TLS_POLICY,
    WS_GAME,
    WS_KINDS_AT,
    WSS_GAME,
    WSS_KINDS_AT,
    Row,
    four_places,
    with_tls,
    with_websockets,
)
from faults.server import MESSAGES, Server
from faults.shared import websocket_paths

PLACES = {SAME_ADDRESS, SAME_LISTENER, OTHER_LISTENER, OTHER_UPSTREAM}
OF_FOUR = [
    attack for module in (silence, limits, addresses, replies, upstreams) for attack in module.group.attacks
]  # fmt: skip


def at(rows: tuple[Row, ...], place: str) -> list[Row]:
    return [row for row in rows if row.place == place]


def test_four_places_of_games_have_their_addresses_and_listeners() -> None:
    rows = four_places("games")
    assert {row.place for row in rows} == PLACES
    assert {(row.listener, row.source, row.addresses) for row in at(rows, SAME_ADDRESS)} == {("games", BAD_SOURCE, 1)}
    assert {row.listener for row in at(rows, SAME_LISTENER)} == {"games"}
    assert all(row.addresses > 1 and row.source != BAD_SOURCE for row in rows if row.place != SAME_ADDRESS)
    assert {row.listener for row in at(rows, OTHER_LISTENER)} == {"small", "slow"}
    assert {row.listener for row in at(rows, OTHER_UPSTREAM)} == {"arena", "chat"}


@pytest.mark.parametrize(("listener", "others"), [("small", {"slow", "games"}), ("slow", {"small", "games"})])
def test_four_places_of_a_policy_listener_have_a_shared_port_beside_it(listener: str, others: set[str]) -> None:
    assert {row.listener for row in at(four_places(listener), OTHER_LISTENER)} == others


def test_four_places_have_no_mute_and_no_similar_clients_at_the_same_address() -> None:
    rows = four_places("games", alike=("game",), crowded=("late game",))
    kinds = {row.kind.name for row in at(rows, SAME_ADDRESS)}
    assert "policy" in kinds
    assert not {"late game", "late policy", "game"} & kinds
    assert GAME in [row.kind for row in at(rows, SAME_LISTENER)]
    assert LATE_GAME not in [row.kind for row in at(rows, SAME_LISTENER)]


def test_four_places_have_clients_of_the_same_address_where_they_are_asked_for() -> None:
    assert {row.listener for row in at(four_places("slow", asked="small"), SAME_ADDRESS)} == {"small"}
    assert at(four_places("slow", asked=None), SAME_ADDRESS) == []


def test_four_places_leave_out_kinds_without_which_they_are_asked_for() -> None:
    rows = four_places("films", like="games", without=(GAME,))
    assert POLICY in [row.kind for row in at(rows, SAME_LISTENER)]
    assert GAME not in [row.kind for row in at(rows, SAME_LISTENER)]
    assert CHAT in [row.kind for row in at(rows, OTHER_UPSTREAM)]


@pytest.mark.parametrize("attack", OF_FOUR, ids=lambda attack: attack.name)
def test_attack_has_good_clients_at_four_places(attack: Attack) -> None:
    assert attack in ATTACKS
    # Where replies that are not read count for their address, that has no place left.
    assert {row.place for row in attack.rows} == PLACES - ({SAME_ADDRESS} if attack.name == "unread-replies" else set())


@pytest.mark.parametrize("attack", [*handshakes.group.attacks, *secured.group.attacks], ids=lambda attack: attack.name)
def test_attack_on_tls_has_good_clients_with_and_without_tls_at_four_places(attack: Attack) -> None:
    assert attack in ATTACKS
    assert attack.tls
    assert {row.place for row in attack.rows} == PLACES | {f"{place}, TLS" for place in PLACES}
    assert all(row.kind.tls == row.place.endswith("TLS") for row in attack.rows)


def test_with_tls_has_the_rows_of_four_places_and_the_same_listeners_in_tls() -> None:
    rows = with_tls("small")
    assert rows[: len(four_places("small"))] == four_places("small")
    assert TLS_POLICY in [row.kind for row in at(rows, f"{SAME_ADDRESS}, TLS")]
    assert {row.listener for row in at(rows, f"{OTHER_LISTENER}, TLS")} == {"slow", "games"}
    assert {row.listener for row in at(rows, f"{OTHER_UPSTREAM}, TLS")} == {"arena"}


@pytest.mark.parametrize("attack", websocket.group.attacks, ids=lambda attack: attack.name)
def test_attack_by_http_has_good_clients_of_each_protocol_at_four_places(attack: Attack) -> None:
    assert attack in ATTACKS
    assert {row.place for row in attack.rows} == {
        f"{place}{by}" for place in PLACES for by in ("", ", HTTP", ", HTTPS")
    }
    assert all(row.kind.tls == row.place.endswith("HTTPS") for row in attack.rows)


def test_with_websockets_has_games_on_the_attacked_port_and_on_another() -> None:
    rows = with_websockets("games")
    assert rows[: len(four_places("games"))] == four_places("games")
    for place, listener in ((SAME_LISTENER, "games"), (OTHER_UPSTREAM, "arena")):
        for protocol, kind in (("HTTP", WS_GAME), ("HTTPS", WSS_GAME)):
            found = [row for row in at(rows, f"{place}, {protocol}") if row.kind is kind]
            assert [row.listener for row in found] == [listener]


def test_websocket_paths_have_every_other_one_last_and_the_port_of_the_policy() -> None:
    option = websocket_paths({"/strict": {"port": 25}})["websocket"]
    assert option == '[{path = "/strict", port = 25}, {path = "*", port = 1935}]'
    assert websocket_paths(None) == {}


def test_scripts_of_all_kinds_name_messages_that_exist() -> None:
    server = Server(http=True)
    server._folder = Path("/folder")
    kinds_at = (KINDS_AT, TLS_KINDS_AT, WS_KINDS_AT, WSS_KINDS_AT)
    for kind in {kind for at in kinds_at for kinds in at.values() for kind in kinds}:
        assert "{" not in server.script("small", kind.script)
    assert all(MESSAGES.values())
