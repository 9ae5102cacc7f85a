"""Lint says of each client what is true of it, and of the server what it will do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lint import codes, flash, grant, thorough

from flashpol.policy import PolicyError, Severity, lint, silverlight

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
