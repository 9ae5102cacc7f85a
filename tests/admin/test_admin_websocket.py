"""What operators are told about WebSocket: problems of upgrades and sessions, and what to do about them."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from contexts import a_minute_ago, make_context, make_websocket_context, put_path
from pages import Page, get

import flashpol.cli.status
import flashpol.cli.top
from flashpol._websocket import CLOSE_CODES, RESULTS, SIDES
from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.page.websocket_view import SHOWN_ORIGINS
from flashpol.admin.status import status
from flashpol.admin.websocket import CLOSES, NGINX, REFUSALS

CHESS, EVERY = range(2)  # numbers of the paths
EVIL = "https://evil.example"
REASON = "Origin 'https://evil.example' may not connect to port 7000: no grant is for it (line 3 of the policy)"

pytestmark = pytest.mark.usefixtures("still_clock")


def count(context: AdminContext, path: int = CHESS, **results: int) -> None:
    put_path(context.shared, 0, path, "upgrades", *(results.get(name, 0) for name in RESULTS))


def count_closes(context: AdminContext, path: int = CHESS, **codes: int) -> None:
    """client_1000 and so on."""
    put_path(
        context.shared, 0, path, "closes", *(codes.get(f"{side}_{code}", 0) for side in SIDES for code in CLOSE_CODES)
    )


def problems(context: AdminContext, past: Sequence[Sample] = ()) -> list[tuple[str, str, str]]:
    found = status(context, past)["problems"]
    return [(each["kind"], each["severity"], each["message"]) for each in found]


def shown(context: AdminContext, past: Sequence[Sample]) -> Page:
    history = History(lambda: Sample.of(context))
    history.samples.extend(past)
    return Page(get(Application(context, history=history))[2])


def test_every_refusal_has_words_and_advice_in_the_order_of_the_counters() -> None:
    assert ("accepted", *REFUSALS) == RESULTS
    for each in REFUSALS.values():
        assert each.words
        assert 20 < len(each.advice) <= 110, "it is a column of flashpol status"


def test_every_code_of_both_sides_has_words_in_the_order_of_the_counters() -> None:
    assert tuple(CLOSES) == SIDES
    assert [tuple(codes) for codes in CLOSES.values()] == [CLOSE_CODES] * len(SIDES)


# ------------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("results", "kinds"),
    [
        ({"accepted": 900}, []),
        ({"accepted": 900, "no_origin": 90, "capacity": 90}, []),
        ({"accepted": 900, "upstream": 1}, ["websocket-upstream"]),
        ({"accepted": 900, "origin": 1}, ["websocket-origin"]),
        ({"accepted": 40, "no_upgrade": 10}, ["websocket-no-upgrade"]),
        ({"no_upgrade": 5}, ["websocket-no-upgrade"]),
        ({"no_upgrade": 4}, []),
        ({"accepted": 41, "no_upgrade": 10}, []),
        ({"accepted": 20, "malformed": 5}, ["websocket-malformed"]),
        ({"accepted": 21, "malformed": 5}, []),
    ],
)
def test_share_of_upgrades_and_a_number_decide_whether_there_is_a_problem(
    results: dict[str, int], kinds: list[str]
) -> None:
    context = make_websocket_context()
    past = a_minute_ago(context)
    count(context, **results)
    assert [kind for kind, *_ in problems(context, past)] == kinds


@pytest.mark.parametrize(
    ("accepted", "origin", "is_problem"), [(95, 5, True), (96, 5, False), (10, 4, False), (0, 5, True)]
)
def test_refused_origins_that_are_not_the_first_are_a_problem_by_their_share(
    accepted: int, origin: int, is_problem: bool
) -> None:
    context = make_websocket_context()
    count(context, accepted=1_000, origin=7)
    past = a_minute_ago(context)
    count(context, accepted=1_000 + accepted, origin=7 + origin)
    assert [kind for kind, *_ in problems(context, past)] == ["websocket-origin"] * is_problem


def test_problem_of_refused_origins_names_the_path_the_most_frequent_reason_and_what_to_do() -> None:
    context = make_websocket_context()
    past = a_minute_ago(context)
    count(context, accepted=3, origin=2)
    context.shared.refused_origins(0, CHESS).record("null", "another", None, now=3)
    for now in (1, 2):
        context.shared.refused_origins(1, CHESS).record(EVIL, REASON, 3, now=now)
    [(kind, severity, message)] = problems(context, past)
    assert (kind, severity) == ("websocket-origin", "warning")
    assert message == (
        "2 WebSocket upgrades for /chess of master in the last minute were refused for the page's origin, for the "
        f"first time: {REASON}. Ruffle's content was told that it is connected. If the page should connect, grant its "
        "host in the policy, or add it to origins of the path."
    )
    assert message in shown(context, past).text


def test_problem_of_requests_without_upgrade_has_the_lines_for_nginx() -> None:
    context = make_websocket_context()
    past = a_minute_ago(context)
    count(context, EVERY, no_upgrade=12)
    [(_, severity, message)] = problems(context, past)
    assert severity == "warning"
    assert message.startswith("12 requests for WebSocket path * of master in the last minute asked for no WebSocket (1")
    assert message.endswith(NGINX)


@pytest.mark.parametrize(
    ("lost", "others", "is_problem"), [(5, 95, True), (5, 96, False), (4, 0, False), (500, 500, True)]
)
def test_pings_without_a_reply_are_a_problem_by_their_share_of_the_ends(
    lost: int, others: int, is_problem: bool
) -> None:
    context = make_websocket_context()
    past = a_minute_ago(context)
    put_path(context.shared, 0, CHESS, "ping_timeouts", lost)
    count_closes(context, server_1001=lost, client_1005=others)
    found = problems(context, past)
    assert [(kind, severity) for kind, severity, _ in found] == [("websocket-pings", "warning")] * is_problem


def test_upgrades_before_the_last_minute_are_no_problem() -> None:
    context = make_websocket_context()
    count(context, origin=900, upstream=900, no_upgrade=900)
    assert problems(context, a_minute_ago(context)) == []


def test_finding_of_a_path_is_a_problem_of_the_configuration() -> None:
    context = dataclasses.replace(make_websocket_context(), websocket_findings=[("master", "/chess is refused")])
    assert problems(context) == [("websocket", "warning", "Listener master: /chess is refused.")]


# ------------------------------------------------------------------------------------------------- page and commands


@pytest.fixture
def used() -> tuple[AdminContext, list[Sample]]:
    """A minute of WebSocket."""
    context = make_websocket_context()
    past = a_minute_ago(context)
    count(context, accepted=3_000, origin=30, no_upgrade=60)
    count(context, EVERY, accepted=30, upstream=2)
    count_closes(context, client_1005=2_000, server_1012=7, client_1006=40)
    put_path(context.shared, 0, CHESS, "open", 953)
    put_path(context.shared, 1, CHESS, "open", 1)
    put_path(context.shared, 0, CHESS, "ping_timeouts", 11)
    context.shared.refused_origins(1, CHESS).record(EVIL, REASON, 3, now=time.time() - 300)
    return context, past


def test_page_shows_paths_refusals_with_advice_origins_and_ends(used: tuple[AdminContext, list[Sample]]) -> None:
    text = " ".join(shown(*used).text.split())
    assert "954 by WebSocket" in text
    assert "/chess master 954 52 3,000 90 90 (2.9 %) 11" in text
    assert "* master 0 0.5 30 2 2 (6.2 %) 0" in text
    assert f"{EVIL} /chess of master: {REASON} 1 5 minutes ago" in text
    for result, number in (("origin", 30), ("no_upgrade", 60), ("upstream", 2)):
        refusal = REFUSALS[result]
        assert f"{refusal.words} {result} {refusal.advice} {number} {number}" in text
    assert REFUSALS["capacity"].words not in text, "none was refused for this"
    assert f"{CLOSES['client']['1005']} 1005 from the client 2,000 2,000" in text
    assert f"{CLOSES['server']['1012']} 1012 from the server 7 7" in text


def test_page_without_websocket_has_no_section_of_it() -> None:
    assert "WebSocket" not in shown(make_context(), ()).text


def test_origins_and_reasons_are_text_on_the_page() -> None:
    context = make_websocket_context()
    context.shared.refused_origins(0, CHESS).record("https://<b>.example", "<script>alert(1)</script>", None)
    tags = [tag for tag, _ in shown(context, ()).tags]
    assert "b" not in tags
    assert tags.count("script") == 1


def test_page_with_many_refused_origins_shows_the_last_ones_and_counts_the_rest() -> None:
    context = make_websocket_context(slots=6)
    for slot in range(6):
        for number in range(4):
            name = f"https://{slot}-{number}.example"
            context.shared.refused_origins(slot, EVERY).record(name, "no", None, now=100 * slot + number + 1)
    text = shown(context, ()).text
    assert "https://5-3.example" in text
    assert "https://0-3.example" not in text
    assert f"{6 * 4 - SHOWN_ORIGINS} more" in text


def document(used: tuple[AdminContext, list[Sample]]) -> dict[str, Any]:
    """As the commands read it."""
    context, past = used
    parsed: dict[str, Any] = json.loads(json.dumps(status(context, past)))
    return parsed


def test_status_command_has_paths_refusals_and_origins(used: tuple[AdminContext, list[Sample]]) -> None:
    lines = list(flashpol.cli.status.summary(document(used)))
    rows = [line.split() for line in lines]
    assert ["WEBSOCKET", "PATH", "LISTENER", "OPEN", "ACCEPTED", "REFUSED", "PINGS", "LOST"] in rows
    assert ["/chess", "master", "954", "3,000", "90", "11"] in rows
    assert any(
        line.startswith("origin ") and REFUSALS["origin"].advice in line and line.endswith(" 30") for line in lines
    )
    assert not any(line.startswith("capacity ") for line in lines)
    assert f"  /chess of master, 1 time, last 5 minutes ago: {REASON}" in lines


def test_top_command_has_rates_of_requests_and_refusals(used: tuple[AdminContext, list[Sample]]) -> None:
    lines = list(flashpol.cli.top.view(document(used), "192.0.2.1:9843"))
    rows = [line.split() for line in lines]
    assert ["/chess", "master", "954", "51.5", "1.5"] in rows
    [row] = [row for row in rows if row[:1] == ["no_upgrade"]]
    assert row[-2:] == ["1.0", "60"]
    assert any(line.startswith("  /chess of master, 1 time") and REASON in line for line in lines)


def test_commands_without_websocket_say_nothing_of_it() -> None:
    plain = document((make_context(), []))
    lines = [*flashpol.cli.status.summary(plain), *flashpol.cli.top.view(plain, "192.0.2.1:9843")]
    assert not any("WEBSOCKET" in line or "origins" in line for line in lines)
