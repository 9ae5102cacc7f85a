"""Lint says of each client what is true of it, and of the server what it will do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lint import codes, flash, grant, thorough

from flashpol.policy import PolicyError, Severity, decide, lint, silverlight

NONE = '<site-control permitted-cross-domain-policies="none"/>'
ALL = '<site-control permitted-cross-domain-policies="all"/>'
SECURE = ' secure="true"'


@pytest.mark.parametrize(
    ("data", "options", "client", "expected"),
    [
        # protocol.md: LS accepts a leading newline
        (b'\n<?xml version="1.0"?>' + flash(grant()), {}, "lightspark", []),
        # Unity reads site-control and never asks for it
        (flash(NONE, grant()), {}, "unity", []),
        (flash(ALL, grant()), {"served_from": 5222}, "unity", []),
        # off 843 it is passed over by Flash, and makes the file invalid for Lightspark
        (flash(ALL, grant()), {"served_from": 5222}, "flash", ["FP506"]),
        (flash(ALL, grant()), {"served_from": 5222}, "lightspark", ["FP709"]),
        # of 80-90 Lightspark grants 80 only, so that 85 needs its own grant
        (flash(grant(ports="80-90"), grant(ports="85")), {}, "lightspark", ["FP701"]),
        (flash(grant(ports="80-90"), grant(ports="80-90", more=SECURE)), {}, "unity", ["FP703", "FP703"]),
        # protocol.md: Unity tests port > 1024, so 1024 itself slips
        (flash(grant(ports="80")), {"served_from": 1024}, "flash", ["FP508"]),
        (flash(grant(ports="80")), {"served_from": 1024}, "unity", []),
        (flash(grant(ports="80")), {"served_from": 1025}, "unity", ["FP508"]),
        (flash(grant(ports="80,1025")), {"served_from": 1025}, "unity", ["FP509"]),
        (flash(grant(ports="80")), {"served_from": 1025}, "lightspark", []),
        # protocol.md: a trailing space is rejected; not with a NUL after it
        (flash(grant()) + b" ", {}, "lightspark", ["FP707"]),
        (flash(grant()) + b" \0", {}, "lightspark", []),
    ],
)
def test_lint_rule_concerns_the_clients_that_it_is_true_of(
    data: bytes, options: dict[str, int], client: str, expected: list[str]
) -> None:
    found = codes(data, clients=[client], **options)
    assert [code for code in found if code != "FP606"] == expected


def choice(usual: str, *others: str) -> st.SearchStrategy[str]:
    return st.sampled_from([usual] * len(others) + list(others))


URIS = choice(
    "*", "http://*", "HTTP://*", "http://*/", "file:///", "file://h/", "http://www.example.com/", "http://a.b:80",
    "HTTP://*.a.b", "http://a.b/x.xap", "ftp://a.b", "http://*.1.2.3", "http://a.b:0", "http://a.b:99999", "a.b",
    "http://a.b:080", "http://-a.b", "http://1.2.3.400", "",
)  # fmt: skip
SOCKETS = choice("4502-4534", "4502", "*", "4510-4505", "4501", "04502", "4502 ", "4502,4503", "4502-", "4502-4502", "")
BESIDE = choice("", "<resource path='/'/>", "<resource/>", "<resource path=''/>", "<tcp/>", "<resource path='/' x=''/>",
                "<resource path='/' include-subpaths='1'/>")  # fmt: skip


@given(URIS, SOCKETS, choice("tcp", "Tcp", "udp"), BESIDE, choice("", "http-request-headers='*'", "x='y'"))
@thorough
def test_lint_silverlight_policy_that_cannot_be_served_has_an_error(
    uri: str, port: str, protocol: str, beside: str, attribute: str
) -> None:
    socket = f"<socket-resource port='{port}' protocol='{protocol}'/>"
    data = (
        f"<access-policy><cross-domain-access><policy><allow-from {attribute}><domain uri='{uri}'/></allow-from>"
        f"<grant-to>{beside}{socket}</grant-to></policy></cross-domain-access></access-policy>"
    ).encode()
    errors = [finding.code for finding in lint(data) if finding.severity is Severity.ERROR]
    try:
        silverlight.compile_reply(data)
    except PolicyError:
        assert errors
    else:
        assert errors == []


# ------------------------------------------------------------------------------------------------- Silverlight and HTTP

SILVERLIGHT = (
    b"<access-policy><cross-domain-access><policy><allow-from><domain uri='*'/></allow-from>"
    b"<grant-to><resource path='/'/><socket-resource port='4502-4506' protocol='tcp'/></grant-to></policy>"
    b"</cross-domain-access></access-policy>"
)


@pytest.mark.parametrize(
    ("served_from", "expected"),
    [(None, ["FP809"]), (943, ["FP809"]), (80, []), (843, ["FP809", "FP811"]), (8080, ["FP809", "FP811"])],
)
def test_lint_silverlight_policy_by_the_port_that_serves(served_from: int | None, expected: list[str]) -> None:
    assert sorted(codes(SILVERLIGHT, served_from=served_from)) == expected


@pytest.mark.parametrize(
    ("served_from", "allowed"), [(None, True), (943, True), (80, True), (843, False), (443, False)]
)
def test_decide_silverlight_by_the_port_that_serves(served_from: int | None, allowed: bool) -> None:
    [decision] = decide(SILVERLIGHT, "http://a.example/", 4502, served_from=served_from, clients=["silverlight"])
    assert decision.allowed is allowed
    assert ("/clientaccesspolicy.xml" in decision.reason) is (served_from == 80)


# ------------------------------------------------------------------------------------------------------ Lightspark

MASTER = '<site-control permitted-cross-domain-policies="master-only"/>'


@pytest.mark.parametrize(
    ("lines", "served_from", "expected"),
    [
        ([grant()], 843, ["FP710"]),
        ([grant()], None, []),
        ([grant()], 5222, []),
        ([MASTER, grant()], 843, ["FP507"]),
        ([ALL, grant()], 843, []),
        ([], 843, ["FP607"]),
    ],
)
def test_lint_lightspark_asks_the_destination_without_site_control(
    lines: list[str], served_from: int | None, expected: list[str]
) -> None:
    found = lint(flash(*lines), served_from=served_from, clients=["lightspark"])
    assert [finding.code for finding in found] == expected
    assert not any(finding.severity is Severity.ERROR for finding in found)


@pytest.mark.parametrize(("size", "expected"), [(1448, []), (1449, ["FP705"]), (4095, ["FP705"]), (9000, ["FP705"])])
def test_lint_lightspark_reply_of_more_than_one_segment_is_a_warning(size: int, expected: list[str]) -> None:
    data = flash(grant())
    data += b"\n<!-- " + b"." * (size - 1 - len(data) - 10) + b" -->"
    assert len(data) == size - 1
    found = lint(data, clients=["lightspark"])
    assert [finding.code for finding in found] == expected
    assert all(finding.severity is Severity.WARNING for finding in found)
    hangs = "hangs after a read of 4,096"
    assert all((hangs in finding.message) is (size % 4096 == 0) for finding in found)


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("18000-20000,19000", []),
        ("8000-8100,8100", []),
        ("8000-8100,8050,8051", []),
        ("8000-8100,8050,8050", ["FP412"]),
        ("8000-8100,8000", ["FP412"]),
        ("8000-8100,8050-8200", ["FP412"]),
        ("80,81,80", ["FP412"]),
    ],
)
def test_lint_single_port_beside_a_range_is_no_repetition(ports: str, expected: list[str]) -> None:
    assert [code for code in codes(flash(grant(ports=ports)), clients=["flash"]) if code != "FP606"] == expected
