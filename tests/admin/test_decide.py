"""`/-/decide`: what each client decides by a policy that is served, as JSON and as a page."""

import dataclasses
import json
from typing import Any

import pytest
from contexts import LISTENER, make_context
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, get

from flashpol.admin.context import AdminContext
from flashpol.config import Address, Listener, UpstreamAddress, WebSocketPath


def with_paths(*paths: WebSocketPath) -> AdminContext:
    """The listener is on port 1935, which its policy grants to *.example.com."""
    info = dataclasses.replace(LISTENER, port=1935, served_from=1935)
    upstream = (UpstreamAddress("127.0.0.1", 7000),)
    listener = Listener(info.listener, Address("0.0.0.0", 1935), "games", upstream=upstream, websocket=paths)
    return dataclasses.replace(make_context((info,)), websocket_listeners=[listener])


def decide(query: str, accept: str = "*/*", shown: AdminContext | None = None) -> tuple[str, Any]:
    line, headers, body = get(shown or make_context(), "/-/decide", QUERY_STRING=query, HTTP_ACCEPT=accept)
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
    assert [each["allowed"] for each in others[-2:]] == [False, False]
    assert others[-1]["reason"] == "no WebSocket path of listener master is for port 1935: it has no websocket"


def test_decide_for_ruffle_says_what_each_path_for_the_port_does() -> None:
    shown = with_paths(
        WebSocketPath("/listed", origins=("https://*.games.example.com",)),
        WebSocketPath("/policy"),
        WebSocketPath("/other", port=7000, origins="any"),
    )
    for content, port, allowed in (
        ("https://www.example.com/", 1935, [False, True]),
        ("https://a.games.example.com/", 1935, [True, True]),
        ("https://other.example/", 1935, [False, False]),
        ("https://other.example/", 7000, [True]),
        ("https://www.example.com/", 7001, [False]),
    ):
        _, said = decide(f"listener=master&from={content}&port={port}", shown=shown)
        found = [each["allowed"] for each in said["decisions"] if each["client"] == "ruffle"]
        assert found == allowed, (content, port)
    assert said["decisions"][-1]["reason"].endswith("is for port 7001: its paths are for 1935, 7000")


def test_decide_for_ruffle_as_html_shows_the_line_of_the_policy() -> None:
    query = "listener=master&from=http://www.example.com&port=1935"
    _, shown = decide(query, "text/html", with_paths(WebSocketPath("/policy")))
    assert "WebSocket path /policy of listener master: " in shown.text
    assert "(line 2 of the policy)" in shown.text


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
