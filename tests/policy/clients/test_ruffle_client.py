"""Ruffle: flashpol decides for it by the Origin of the page, as Flash Player decides for content from there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import Decider, Decision

POLICY = b"""<cross-domain-policy>
<allow-access-from domain="www.example.com" to-ports="7000-7010"/>
<allow-access-from domain="secure.example" to-ports="7000" secure="true"/>
</cross-domain-policy>"""
EVERYWHERE = b'<cross-domain-policy><allow-access-from domain="*" to-ports="7000"/></cross-domain-policy>'


def ruffle(policy: bytes, page: str, port: int = 7000, served_from: int | None = 7000) -> Decision:
    [decision] = Decider(policy, ["ruffle"]).decide(page, port, served_from=served_from)
    return decision


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("http://www.example.com/play.html", 2),
        ("https://www.example.com:8443", 2),
        ("www.example.com", 2),
        ("https://secure.example/", 3),
    ],
)
def test_ruffle_granted_page_is_allowed_by_its_line(page: str, line: int) -> None:
    decision = ruffle(POLICY, page)
    assert (decision.client, decision.allowed, decision.line, decision.client_words) == ("ruffle", True, line, "")
    assert "Flash" not in decision.reason


def test_ruffle_refused_page_sees_a_403() -> None:
    decision = ruffle(POLICY, "http://secure.example/")
    assert (decision.allowed, decision.line) == (False, 3)
    assert "only for content loaded over HTTPS" in decision.reason
    assert "Unexpected response code: 403" in decision.client_words


@pytest.mark.parametrize(
    "page",
    [
        "null",
        "file:///home/user/play.html",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop/player.html",
        "capacitor://www.example.com",
        "ftp://www.example.com/play.html",
    ],
)
def test_ruffle_page_from_nowhere_needs_a_grant_for_everywhere(page: str) -> None:
    assert not ruffle(POLICY, page).allowed
    assert ruffle(EVERYWHERE, page).allowed
    assert not ruffle(EVERYWHERE.replace(b"/>", b' secure="true"/>', 1), page).allowed


def test_ruffle_null_is_no_host() -> None:
    policy = EVERYWHERE.replace(b'"*"', b'"null"')
    assert not ruffle(policy, "null").allowed
    assert ruffle(policy, "http://null").allowed


@given(
    st.sampled_from(["http://www.example.com/", "https://www.example.com/", "https://secure.example/", "b.example"]),
    st.sampled_from([80, 7000, 7005, 7011]),
    st.sampled_from([None, 25, 843, 7000]),
)
def test_ruffle_decides_as_flash_for_content_of_the_page(page: str, port: int, served_from: int | None) -> None:
    flash, own = Decider(POLICY, ["flash", "ruffle"]).decide(page, port, served_from=served_from, local=True)
    assert (own.allowed, own.line, own.column, own.reason) == (flash.allowed, flash.line, flash.column, flash.reason)
