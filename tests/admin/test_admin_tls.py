"""What operators are told about TLS: problems of certificates and handshakes, and what to do about them."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from contexts import CERTIFICATE, DAY, NOW, a_minute_ago, make_context, make_tls_context, put
from pages import Page, get

import flashpol.cli.status
import flashpol.cli.top
from flashpol import _fastpath
from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.page.tls_view import SHOWN_NAMES
from flashpol.admin.status import status
from flashpol.admin.tls import HANDSHAKE_FAILURES, Expiry, shown_names, time_left

pytestmark = pytest.mark.usefixtures("still_clock")


def failures(**counts: int) -> list[int]:
    return [counts.get(reason, 0) for reason in _fastpath.HANDSHAKE_FAILURES]


def count(context: AdminContext, listener: int = 1, *, handshakes: int = 0, **fields: Sequence[int]) -> None:
    put(context.shared, 0, listener, "handshakes", 0, 0, 0, handshakes)
    for field, values in fields.items():
        put(context.shared, 0, listener, field, *values)


def problems(context: AdminContext, past: Sequence[Sample] = ()) -> list[tuple[str, str, str]]:
    found = status(context, past)["problems"]
    return [(each["kind"], each["severity"], each["message"]) for each in found]


def shown(context: AdminContext, past: Sequence[Sample]) -> Page:
    history = History(lambda: Sample.of(context))
    history.samples.extend(past)
    return Page(get(Application(context, history=history))[2])


def test_every_failure_of_a_handshake_has_words_and_advice_in_the_order_of_the_counters() -> None:
    assert tuple(HANDSHAKE_FAILURES) == _fastpath.HANDSHAKE_FAILURES
    for each in HANDSHAKE_FAILURES.values():
        assert each.words
        assert 20 < len(each.advice) <= 110, "it is a column of flashpol status"


# --------------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    ("left", "expiry", "words"),
    [
        (60 * DAY, Expiry.FAR, "in 60 days"),
        (14 * DAY, Expiry.FAR, "in 14 days"),
        (14 * DAY - 1, Expiry.EXPIRING, "in 13 days"),
        (3 * DAY, Expiry.EXPIRING, "in 3 days"),
        (3 * DAY - 1, Expiry.URGENT, "in 2 days"),
        (2 * DAY - 1, Expiry.URGENT, "in 47 hours"),
        (7199, Expiry.URGENT, "in 119 minutes"),
        (1, Expiry.URGENT, "in 0 minutes"),
        (0, Expiry.EXPIRED, "0 minutes ago"),
        (-90, Expiry.EXPIRED, "1 minute ago"),
        (-2.5 * DAY, Expiry.EXPIRED, "2 days ago"),
        (-5000 * DAY, Expiry.EXPIRED, "5,000 days ago"),
    ],
)
def test_certificate_has_an_expiry_and_words_for_the_time_left(left: float, expiry: Expiry, words: str) -> None:
    now = 1_800_000_000.0
    assert Expiry.of(now + left, now) is expiry
    assert time_left(now + left, now) == words


@pytest.mark.parametrize(
    ("days", "kind", "severity", "words"),
    [
        (13.5, "certificate-expiring", "warning", "expires in 13 days ("),
        (2.5, "certificate-expiring", "error", "expires in 2 days ("),
        (-2.5, "certificate-expired", "error", "expired 2 days ago ("),
    ],
)
def test_certificate_near_its_end_is_a_problem_in_the_list_and_on_the_page(
    days: float, kind: str, severity: str, words: str
) -> None:
    ending = dataclasses.replace(CERTIFICATE, not_after=int(time.time() + days * DAY))
    context = make_tls_context(ending, dataclasses.replace(CERTIFICATE, name="other"))
    [(found, bad, message)] = problems(context)
    assert (found, bad) == (kind, severity)
    assert message.startswith(f'The certificate "games" of games.example.com, *.example.com {words}')
    assert message.endswith("renew it and reload.")
    assert message in shown(context, ()).text


def test_certificate_with_months_left_is_no_problem() -> None:
    assert problems(make_tls_context()) == []


def test_certificate_with_findings_is_a_problem_of_the_configuration() -> None:
    bad = dataclasses.replace(CERTIFICATE, findings=("its key has 1024 bits", "its chain is in the wrong order"))
    message = 'The certificate "games" has findings: its key has 1024 bits; its chain is in the wrong order.'
    assert problems(make_tls_context(bad)) == [("certificate", "warning", message)]


def test_certificate_that_is_not_valid_yet_is_a_problem_of_the_configuration() -> None:
    [(kind, severity, message)] = problems(make_tls_context(dataclasses.replace(CERTIFICATE, not_before=NOW + DAY)))
    assert (kind, severity) == ("certificate", "warning")
    assert message.startswith('The certificate "games" has findings: /etc/ssl/games.pem: it is not valid before 20')


@pytest.mark.parametrize(
    ("days", "kind", "severity"),
    [(10, "certificate-expiring", "warning"), (-1, "certificate-expired", "error")],
)
def test_intermediate_certificate_near_its_end_is_a_problem(days: int, kind: str, severity: str) -> None:
    chain = dataclasses.replace(CERTIFICATE, issuers=(("CN=Issuer", NOW + days * DAY),))
    [(found, bad, message)] = problems(make_tls_context(chain))
    assert (found, bad) == (kind, severity)
    assert message.startswith('The intermediate certificate CN=Issuer of the certificate "games" expire')
    assert message.endswith("get the chain from its issuer again and reload.")


def test_names_of_a_certificate_are_cut_with_the_number_of_the_rest() -> None:
    assert shown_names(()) == ""
    assert shown_names(["a", "b", "c"]) == "a, b, c"
    assert shown_names([*"abc", *map(str, range(1200))]) == "a, b, c and 1,200 more"


# ----------------------------------------------------------------------------------------------------------- handshakes


@pytest.mark.parametrize(
    ("handshakes", "failed", "unknown", "kinds"),
    [
        (40, {"certificate": 10}, 0, ["tls-handshakes"]),
        (0, {"certificate": 10}, 0, ["tls-handshakes"]),
        (41, {"certificate": 10}, 0, []),
        (30, {"certificate": 9}, 0, []),
        (95, {"old_client": 5}, 0, ["tls-old-clients"]),
        (96, {"old_client": 5}, 0, []),
        (10, {"old_client": 4}, 0, []),
        (20, {"old_client": 20}, 0, ["tls-handshakes", "tls-old-clients"]),
        (100, {}, 5, ["tls-unknown-names"]),
        (101, {}, 5, []),
        (10, {}, 4, []),
        (10_000, {"malformed": 900, "closed": 900}, 90, []),
    ],
)
def test_share_of_handshakes_and_a_number_decide_whether_there_is_a_problem(
    handshakes: int, failed: dict[str, int], unknown: int, kinds: list[str]
) -> None:
    context = make_tls_context()
    past = a_minute_ago(context)
    count(context, handshakes=handshakes, handshake_failures=failures(**failed), unknown_names=[unknown])
    found = problems(context, past)
    assert [(kind, severity) for kind, severity, _ in found] == [(kind, "warning") for kind in kinds]


def test_problem_of_handshakes_names_the_listener_the_most_frequent_reason_and_what_to_do() -> None:
    context = make_tls_context()
    past = a_minute_ago(context)
    count(context, handshakes=60, handshake_failures=failures(certificate=30, closed=10), unknown_names=[12])
    messages = [message for *_, message in problems(context, past)]
    assert messages == [
        "40 % of the TLS handshakes of secure failed in the last minute (40), most often for certificate (30): the "
        "client rejected the certificate; flashpol probe HOST --tls says why: expired, another name, an unknown CA, "
        "an incomplete chain.",
        "12 TLS clients of secure in the last minute asked for a name that no certificate has: add a certificate with "
        "that name, or correct the clients.",
    ]
    page = shown(context, past)
    assert "Needs attention: 2" in page.text
    assert all(message in page.text for message in messages)


def test_problem_of_old_clients_says_which_profile_they_need() -> None:
    context = make_tls_context()
    past = a_minute_ago(context)
    count(context, handshakes=60, handshake_failures=failures(old_client=7))
    [(_, _, message)] = problems(context, past)
    assert message == (
        "7 TLS clients of secure in the last minute offered only CBC cipher suites and were refused: AIR and Flash "
        'clients need tls_profile = "flash".'
    )


def test_handshakes_that_failed_before_the_last_minute_are_no_problem() -> None:
    context = make_tls_context()
    count(context, handshake_failures=failures(certificate=900))
    assert problems(context, a_minute_ago(context)) == []


# ------------------------------------------------------------------------------------------------- page and commands


@pytest.fixture
def used() -> tuple[AdminContext, list[Sample]]:
    """A minute of TLS."""
    many = tuple(f"{number}.example.com" for number in range(SHOWN_NAMES + 7))
    context = make_tls_context(CERTIFICATE, dataclasses.replace(CERTIFICATE, name="unused", names=many))
    past = a_minute_ago(context)
    count(context, handshake_failures=failures(certificate=30, version=1), resumed=[17], tls=[44], handshaking=[2])
    put(context.shared, 0, 1, "handshakes", 0, 0, 120, 3_000)
    put(context.shared, 0, 1, "handshake_buckets", *[0] * 9, 3_120, *[0] * (len(_fastpath.BUCKETS) - 9))
    return context, past


def test_page_shows_listeners_with_tls_failures_with_advice_and_certificates(
    used: tuple[AdminContext, list[Sample]],
) -> None:
    text = " ".join(shown(*used).text.split())
    assert "44 with TLS" in text
    assert "secure games 44 2 52 3,120 TLSv1.2 120 TLSv1.3 3,000 17 31 (1.0 %)" in text
    assert "Last minute: half of the handshakes complete within" in text
    for reason in ("certificate", "version"):
        assert f"{HANDSHAKE_FAILURES[reason].words} {reason} {HANDSHAKE_FAILURES[reason].advice}" in text
    assert HANDSHAKE_FAILURES["flood"].words not in text, "none failed for this"
    assert "games in 59 days" in text
    assert "games.example.com, *.example.com secure ECDSA P-256" in text
    assert "4.example.com and 7 more –" in text, "no listener uses it"


def test_page_without_tls_has_no_section_of_it() -> None:
    text = shown(make_context(), ()).text
    assert "TLS" not in text
    assert "Certificates" not in text


def test_names_of_a_certificate_are_text_on_the_page() -> None:
    hostile = dataclasses.replace(
        CERTIFICATE, name="<b>", names=("<script>alert(1)</script>",), key="<i>", sha256='"><b>', findings=("<u>",)
    )
    tags = [tag for tag, _ in shown(make_tls_context(hostile), ()).tags]
    assert not {"b", "i", "u"} & set(tags)
    assert tags.count("script") == 1


def document(used: tuple[AdminContext, list[Sample]]) -> dict[str, Any]:
    """As the commands read it."""
    context, past = used
    parsed: dict[str, Any] = json.loads(json.dumps(status(context, past)))
    return parsed


def test_status_command_has_tables_of_tls_certificates_and_failures(used: tuple[AdminContext, list[Sample]]) -> None:
    lines = list(flashpol.cli.status.summary(document(used)))
    rows = [line.split() for line in lines]
    assert ["TLS", "LISTENER", "CERTIFICATES", "OPEN", "HANDSHAKES", "TLSv1.2", "TLSv1.3", "RESUMED", "FAILED"] in rows
    assert ["secure", "games", "44", "3,120", "120", "3,000", "17", "31"] in rows
    assert any(line.startswith("games ") and line.endswith("in 59 days") for line in lines)
    assert any(
        line.startswith("certificate ") and HANDSHAKE_FAILURES["certificate"].advice in line and line.endswith(" 30")
        for line in lines
    )
    assert not any(line.startswith("flood ") for line in lines)


def test_top_command_has_rates_of_handshakes_and_failures(used: tuple[AdminContext, list[Sample]]) -> None:
    lines = list(flashpol.cli.top.view(document(used), "192.0.2.1:9843"))
    rows = [line.split() for line in lines]
    assert ["secure", "games", "44", "2", "52.0", "0.5"] in rows
    assert any(line.startswith("games ") and line.endswith("in 59 days") for line in lines)
    [certificate] = [row for row in rows if row[:1] == ["certificate"]]
    assert certificate[-2:] == ["0.5", "30"]


def test_commands_without_tls_say_nothing_of_it() -> None:
    plain = document((make_context(), []))
    lines = [*flashpol.cli.status.summary(plain), *flashpol.cli.top.view(plain, "192.0.2.1:9843")]
    assert not any("TLS" in line or "CERTIFICATE" in line or "HANDSHAKE" in line for line in lines)
