"""What operators see of RTMPT: problems of tunnel sessions, the page, and the commands."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from contexts import TUNNELS, a_minute_ago, make_context, make_rtmpt_context, put_tunnel
from pages import Page, get

import flashpol.cli.status
import flashpol.cli.top
from flashpol._tunnel import ENDS as TUNNEL_ENDS
from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.rtmpt import ENDS, IRREGULAR
from flashpol.admin.status import status
from flashpol.counters.layout import TUNNEL_GAUGES, TunnelBlock

MASTER, SECURE = range(2)  # numbers of the listeners


def count_ends(context: AdminContext, listener: int = MASTER, **ends: int) -> None:
    put_tunnel(context.shared, 0, listener, "ends", *(ends.get(name, 0) for name in TUNNEL_ENDS))


pytestmark = pytest.mark.usefixtures("still_clock")


def problems(context: AdminContext, past: Sequence[Sample] = ()) -> list[tuple[str, str, str]]:
    found = status(context, past)["problems"]
    return [(each["kind"], each["severity"], each["message"]) for each in found]


def shown(context: AdminContext, past: Sequence[Sample]) -> Page:
    history = History(lambda: Sample.of(context))
    history.samples.extend(past)
    return Page(get(Application(context, history=history))[2])


def test_every_end_has_words_in_the_order_of_the_counters() -> None:
    assert tuple(ENDS) == TUNNEL_ENDS


def test_every_irregular_request_is_a_counter_with_words_and_advice() -> None:
    assert IRREGULAR.keys() <= TunnelBlock.LAYOUT.keys()
    for each in IRREGULAR.values():
        assert each.words
        assert 20 < len(each.advice) <= 110, "it is a column of flashpol status"


def test_status_has_every_counter_of_tunnels_summed_over_workers() -> None:
    context = make_rtmpt_context()
    for slot in (0, 1):
        for number, (field, (_, words)) in enumerate(TunnelBlock.LAYOUT.items()):
            put_tunnel(context.shared, slot, SECURE, field, *(100 * number + i for i in range(words)))
    master, secure = status(context)["rtmpt"]
    assert [master["listener"], secure["listener"]] == list(TUNNELS)
    assert secure.keys() - {"listener"} == TunnelBlock.LAYOUT.keys()
    for number, field in enumerate(TunnelBlock.LAYOUT):
        if field == "ends":
            assert secure["ends"] == {end: 2 * (100 * number + i) for i, end in enumerate(TUNNEL_ENDS)}
        else:
            assert secure[field] == 200 * number
    assert not any(value for field, value in master.items() if field not in ("listener", "ends"))


def test_minute_window_has_the_counters_of_tunnels_without_gauges() -> None:
    context = make_rtmpt_context()
    put_tunnel(context.shared, 0, MASTER, "polls", 100)
    put_tunnel(context.shared, 0, MASTER, "open", 9)
    past = a_minute_ago(context)
    put_tunnel(context.shared, 0, MASTER, "polls", 130)
    put_tunnel(context.shared, 1, MASTER, "forwarded", 4)
    count_ends(context, ghost=2)
    minute = status(context, past)["minute"]["rtmpt"][MASTER]
    assert (minute["polls"], minute["forwarded"], minute["ends"]["ghost"]) == (30, 4, 2)
    assert minute.keys() - {"listener"} == TunnelBlock.LAYOUT.keys() - TUNNEL_GAUGES


# ------------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("ends", "is_problem"),
    [
        ({"ghost": 5, "client": 45}, True),
        ({"ghost": 5, "client": 46}, False),
        ({"ghost": 4}, False),
        ({"ghost": 900}, True),
        ({"client": 900, "upstream": 900}, False),
    ],
)
def test_ghosts_are_a_problem_by_their_share_of_the_ends(ends: dict[str, int], is_problem: bool) -> None:
    context = make_rtmpt_context()
    past = a_minute_ago(context)
    count_ends(context, SECURE, **ends)
    found = [(kind, severity) for kind, severity, _ in problems(context, past)]
    assert found == [("rtmpt-ghosts", "warning")] * is_problem


@pytest.mark.parametrize(
    ("unknown", "ends", "is_problem"),
    [
        (10, {}, True),
        (9, {}, False),
        (11, {"client": 100}, True),
        (10, {"client": 100}, False),
        (20, {"upstream": 10}, False),
        (21, {"upstream": 10}, True),
        (500, {"crashed": 250}, False),
    ],
)
def test_unknown_sessions_are_a_problem_if_more_than_follow_from_the_ends(
    unknown: int, ends: dict[str, int], is_problem: bool
) -> None:
    context = make_rtmpt_context()
    past = a_minute_ago(context)
    put_tunnel(context.shared, 0, MASTER, "unknown", unknown)
    count_ends(context, **ends)
    found = [(kind, severity) for kind, severity, _ in problems(context, past)]
    assert found == [("rtmpt-unknown", "warning")] * is_problem


def test_forwarded_request_without_a_reply_is_an_error_that_names_the_listener() -> None:
    context = make_rtmpt_context()
    past = a_minute_ago(context)
    put_tunnel(context.shared, 1, SECURE, "forward_failures", 1)
    [(kind, severity, message)] = problems(context, past)
    assert (kind, severity) == ("rtmpt-forwarding", "error")
    assert message.startswith("1 request of secure for tunnel sessions of another worker got no reply of it in the ")
    assert message in shown(context, past).text


def test_what_tunnels_did_before_the_last_minute_is_no_problem() -> None:
    context = make_rtmpt_context()
    count_ends(context, ghost=900)
    for field in IRREGULAR:
        put_tunnel(context.shared, 0, MASTER, field, 900)
    assert problems(context, a_minute_ago(context)) == []


# ------------------------------------------------------------------------------------------------- page and commands


@pytest.fixture
def used() -> tuple[AdminContext, list[Sample]]:
    """A minute of RTMPT."""
    context = make_rtmpt_context()
    past = a_minute_ago(context)
    for slot, sessions in ((0, 3_000), (1, 20)):
        put_tunnel(context.shared, slot, MASTER, "sessions", sessions)
    for field, number in {
        "open": 954, "held": 950, "buffered": 1_500_000, "polls": 120_000, "forwarded": 60_000, "gaps": 7,
        "reordered": 41, "forward_failures": 2,
    }.items():  # fmt: skip
        put_tunnel(context.shared, 0, MASTER, field, number)
    count_ends(context, client=1_950, ghost=100, upstream=16)
    return context, past


def test_page_shows_sessions_polls_ghosts_irregular_requests_and_ends(
    used: tuple[AdminContext, list[Sample]],
) -> None:
    text = " ".join(shown(*used).text.split())
    assert "954 by RTMPT" in text
    assert "master 954 3,020 2,000 950 1,000 100 100 (4.8 %) 1.43 MiB" in text
    assert "secure 0 0 0 0 0 0 0 0 bytes" in text
    for name, number in (("gaps", 7), ("reordered", 41), ("forward_failures", 2)):
        assert f"{IRREGULAR[name].words} {name} {IRREGULAR[name].advice} {number} {number}" in text
    assert IRREGULAR["refused"].words not in text, "there was none"
    assert f"{ENDS['client']} client 1,950 1,950" in text
    assert f"{ENDS['ghost']} ghost 100 100" in text
    assert ENDS["evicted"] not in text


def test_page_without_tunnels_has_no_section_of_them() -> None:
    assert "RTMPT" not in shown(make_context(), ()).text


def document(used: tuple[AdminContext, list[Sample]]) -> dict[str, Any]:
    """As the commands read it."""
    context, past = used
    parsed: dict[str, Any] = json.loads(json.dumps(status(context, past)))
    return parsed


def test_status_command_has_sessions_and_irregular_requests_with_advice(
    used: tuple[AdminContext, list[Sample]],
) -> None:
    lines = list(flashpol.cli.status.summary(document(used)))
    rows = [line.split() for line in lines]
    head = ["RTMPT", "LISTENER", "SESSIONS", "OPEN", "GHOSTS", "POLLS", "HELD", "FORWARDED"]
    assert head in rows
    assert ["master", "3,020", "954", "100", "950", "60,000"] in rows
    advice = IRREGULAR["gaps"].advice
    assert any(line.startswith("gaps ") and advice in line and line.endswith(" 7") for line in lines)
    assert not any(line.startswith("repeated ") for line in lines), "there was none"


def test_top_command_has_rates_of_sessions_polls_and_forwarded_requests(
    used: tuple[AdminContext, list[Sample]],
) -> None:
    lines = list(flashpol.cli.top.view(document(used), "192.0.2.1:9843"))
    rows = [line.split() for line in lines]
    assert ["master", "954", "950", "50.3", "2,000.0", "1,000.0"] in rows
    assert any(line.startswith("reordered ") and line.split()[-2:] == ["0.7", "41"] for line in lines)


def test_commands_without_tunnels_say_nothing_of_them() -> None:
    plain = document((make_context(), []))
    lines = [*flashpol.cli.status.summary(plain), *flashpol.cli.top.view(plain, "192.0.2.1:9843")]
    assert not any("RTMPT" in line or "IRREGULAR" in line for line in lines)
