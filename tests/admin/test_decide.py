"""`/-/decide`: what each client decides by a policy that is served, as JSON and as a page."""

import json
from typing import Any

import pytest
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, get


def decide(query: str, accept: str = "*/*") -> tuple[str, Any]:
    line, headers, body = get(make_context(), "/-/decide", QUERY_STRING=query, HTTP_ACCEPT=accept)
    assert headers["Content-Type"] == ("text/html; charset=utf-8" if "html" in accept else "application/json")
    return line, Page(body) if "html" in accept else json.loads(body)


def test_decide_as_json_has_a_decision_of_each_client() -> None:
    line, said = decide("listener=master&from=http%3A%2F%2Fwww.example.com%2F&port=1935")
    assert line == "200 OK"
    assert {key: said[key] for key in ("listener", "from", "port", "served_from")} == {
        "listener": "master", "from": "http://www.example.com/", "port": 1935, "served_from": 843
    }  # fmt: skip
    flash, *others = said["decisions"]
    assert (flash["client"], flash["allowed"], flash["line"]) == ("flash", True, 2)
    assert [each["client"] for each in others] == ["lightspark", "unity", "silverlight", "ruffle"]
    assert [each["allowed"] for each in others[-2:]] == [False, True]


def test_decide_as_html_shows_the_decisions_and_keeps_the_query() -> None:
    line, shown = decide("listener=master&from=www.example.com&port=1936", "text/html,*/*;q=0.8")
    assert line == "200 OK"
    assert "port 1936 is not in" in shown.text
    assert 'to-ports="1935"' in shown.text
    assert "denied" in shown.text
    assert "May www.example.com connect to port 1936? (policy of master)" in shown.text
    values = {attributes.get("name"): attributes.get("value") for tag, attributes in shown.tags if tag == "input"}
    assert values == {"from": "www.example.com", "port": "1936"}, "the query can be changed and sent again"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "listener is missing"),
        ("listener=master&from=a.example.com", "port is missing"),
        ("listener=unknown&from=a.example.com&port=1", "no such listener"),
        ("listener=master&from=a.example.com&port=0", "no port"),
        ("listener=master&from=a.example.com&port=65536", "no port"),
        ("listener=master&from=a.example.com&port=-1", "no number"),
        ("listener=master&from=a.example.com&port=%C2%B2", "no number"),
        ("listener=master&from=a.example.com&port=999999999", "no number"),
        ("listener=master&from=a%20b&port=1", "not a URL"),
        (f"listener=master&from={'a' * 3000}&port=1", "too long"),
        ("&".join(["x=1"] * 1000), "listener is missing"),
        ("%ff%fe=&=&&&", "listener is missing"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_decide_with_a_wrong_query_says_what_is_wrong(query: str, why: str, accept: str) -> None:
    line, said = decide(query, accept)
    assert line == "400 Bad Request"
    assert why in (said.text if isinstance(said, Page) else said["error"])


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_decide_with_any_query_responds(query: str) -> None:
    assert decide(query)[0] in ("200 OK", "400 Bad Request")
