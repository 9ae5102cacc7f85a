"""Lint of files that are fetched by URL: their grammar is another one than that of socket policies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import Severity, lint
from flashpol.policy.rules import RULES
from testkit.examples import examples


def adobe(*lines: str) -> bytes:
    return "\n".join(["<cross-domain-policy>", *lines, "</cross-domain-policy>"]).encode()


def silverlight(*resources: str, allow_from: str = "") -> bytes:
    return (
        f'<access-policy><cross-domain-access><policy><allow-from{allow_from}><domain uri="http://www.example.com"/>'
        f"</allow-from><grant-to>{''.join(resources)}</grant-to></policy></cross-domain-access></access-policy>"
    ).encode()


GRANT = '<allow-access-from domain="www.example.com"/>'
HEADERS = "allow-http-request-headers-from"
RESOURCE, SOCKET = '<resource path="/"/>', '<socket-resource port="4502" protocol="tcp"/>'


def codes(data: bytes, **options: object) -> list[str]:
    return [finding.code for finding in lint(data, by_url=True, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        adobe(GRANT),
        adobe('<allow-access-from domain="*.example.com" secure="true"/>'),
        *(
            adobe(f'<site-control permitted-cross-domain-policies="{value}"/>', GRANT)
            for value in ("master-only", "by-content-type", "by-ftp-filename", "all")
        ),
        adobe(GRANT, f'<{HEADERS} domain="*" headers="*"/>'),
        adobe(GRANT, f'<{HEADERS} domain="www.example.com" headers="X-A,X-B*" secure="true"/>'),
        adobe(
            GRANT,
            '<allow-access-from-identity><signatory><certificate fingerprint="01:23" '
            'fingerprint-algorithm="sha-1"/></signatory></allow-access-from-identity>',
        ),
        b'<?xml version="1.0"?>\n<!DOCTYPE cross-domain-policy SYSTEM '
        b'"http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">\n' + adobe(GRANT),
        silverlight(RESOURCE),
        silverlight('<resource path="/api" include-subpaths="true"/>', allow_from=' http-request-headers="*"'),
        silverlight(RESOURCE, SOCKET),
        silverlight(SOCKET),
    ],
)
def test_lint_by_url_correct_file_is_clean(data: bytes) -> None:
    assert codes(data) == []
    assert codes(data, served_from=80) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (adobe('<allow-access-from domain="www.example.com" to-ports="1935"/>'), ["FP901"]),
        (adobe('<allow-access-from domain="*" to-ports="*" secure="false"/>'), ["FP906", "FP901", "FP905"]),
        (adobe("<allow-access-from/>"), ["FP301"]),
        (adobe('<allow-access-from domain="http://www.example.com/"/>'), ["FP305"]),
        (adobe('<allow-access-from domain="*.com"/>'), ["FP605"]),
        (adobe('<allow-access-from domain="a.example" secure="no"/>'), ["FP206"]),
        (adobe('<allow-access-from domain="a.example" port="80"/>'), ["FP205"]),
        (adobe('<allow-access-from domain="a.example">', GRANT, "</allow-access-from>"), ["FP204"]),
        (adobe("<cross-domain-policy/>"), ["FP204"]),
        (adobe("<allow-from/>"), ["FP902"]),
        (adobe(GRANT, f"<{HEADERS}/>"), ["FP903", "FP903"]),
        (adobe(GRANT, f'<{HEADERS} domain="a b" headers="*" secure="no" x="">', GRANT, f"</{HEADERS}>"), ["FP903"] * 4),
        (adobe(GRANT, f'<{HEADERS} domain="a.example" headers="*" secure="false"/>'), ["FP905"]),
        (adobe('<site-control permitted-cross-domain-policies="All"/>', GRANT), ["FP904"]),
        (adobe("<site-control/>", GRANT), ["FP501"]),
        (adobe('<site-control permitted-cross-domain-policies="none"/>', GRANT), ["FP505"]),
        (adobe('<site-control permitted-cross-domain-policies="none"/>'), ["FP512"]),
        (adobe(), ["FP607"]),
        (adobe(GRANT) + b"\0", ["FP907"]),
        (b"", ["FP102"]),
        (b"HTTP/1.1 200 OK\r\n\r\n" + adobe(GRANT), ["FP103"]),
        (b"<html></html>", ["FP104"]),
        (b"<cross-domain-policy>", ["FP110"]),
        (silverlight(), ["FP802"]),
        (silverlight('<resource path=""/>'), ["FP803"]),
        (silverlight("<allow-access-from/>", RESOURCE), ["FP808"]),
        (silverlight(RESOURCE) + b"\0", ["FP810"]),
    ],
)
def test_lint_by_url_wrong_file_has_its_findings(data: bytes, expected: list[str]) -> None:
    assert codes(data) == expected
    assert codes(data, served_from=80) == expected


def test_lint_by_url_sockets_of_silverlight_need_port_80() -> None:
    assert codes(silverlight(RESOURCE, SOCKET), served_from=8080) == ["FP815"]
    assert codes(silverlight(RESOURCE), served_from=8080) == []


def test_lint_by_url_of_the_other_dialect_is_an_error() -> None:
    assert codes(silverlight(RESOURCE), clients=["flash", "lightspark", "unity"]) == ["FP117"]
    assert codes(adobe(GRANT), clients=["silverlight"]) == ["FP117"]


def test_lint_of_a_socket_policy_has_no_rules_by_url() -> None:
    only = {rule.code for rule in RULES if rule.only_by_url}
    assert only >= {"FP901", "FP906", "FP815"}
    for data in (adobe('<allow-access-from domain="*" to-ports="1935" secure="false"/>'), silverlight(SOCKET)):
        assert only.isdisjoint(finding.code for port in (None, 80, 843) for finding in lint(data, served_from=port))


words = st.sampled_from([
    "<cross-domain-policy>", "</cross-domain-policy>", GRANT, f"<{HEADERS} domain='\u00e4' headers=''/>", "<a/>",
    "<allow-access-from domain='*' to-ports='x'/>", "<site-control permitted-cross-domain-policies='x'/>", "\0",
    "<access-policy>", "</access-policy>", SOCKET, "\ufeff", "<!--", "-->", "text",
])  # fmt: skip


@given(
    st.one_of(st.binary(max_size=60), st.lists(words, max_size=12).map(lambda parts: "".join(parts).encode())),
    st.sampled_from([None, 80, 843, 8080]),
)
@examples(300)
def test_lint_by_url_anything_has_places(data: bytes, port: int | None) -> None:
    for finding in lint(data, served_from=port, by_url=True):
        assert finding.line >= 1
        assert finding.column >= 1
        assert "\n" not in finding.message + finding.instead
    if b"<cross-domain-policy>" not in data and b"<access-policy>" not in data:
        assert any(finding.severity is Severity.ERROR for finding in lint(data, by_url=True))
