"""`/-/ruffle`: what a page tells Ruffle, as JSON and as a page, and the form on the page."""

import dataclasses
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from contexts import LISTENER, make_context
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, get, page

from flashpol.admin.context import AdminContext
from flashpol.config import Address, Listener, UpstreamAddress, WebSocketPath
from testkit.clients import ask
from testkit.processes import Flashpol

UPSTREAM = (UpstreamAddress("127.0.0.1", 7000),)


def context(*paths: WebSocketPath) -> AdminContext:
    """With a listener whose policy grants *.example.com port 1935."""
    info = dataclasses.replace(LISTENER, port=1935, served_from=1935)
    listener = Listener(info.listener, Address("0.0.0.0", 1935), "games", upstream=UPSTREAM, websocket=paths)
    return dataclasses.replace(make_context((info,)), websocket_listeners=[listener] if paths else [])


EVERY = context(WebSocketPath("*"))


def ruffle(query: str, accept: str = "*/*", shown: AdminContext = EVERY) -> tuple[str, Any]:
    line, headers, body = get(shown, "/-/ruffle", QUERY_STRING=query, HTTP_ACCEPT=accept)
    assert headers["Content-Type"] == ("text/html; charset=utf-8" if "html" in accept else "application/json")
    return line, Page(body) if "html" in accept else json.loads(body)


def test_ruffle_as_json_has_the_setting_and_the_script() -> None:
    line, said = ruffle("host=games.example.com")
    assert line == "200 OK"
    [entry] = said["socketProxy"]
    assert entry == {"host": "games.example.com", "port": 1935, "proxyUrl": "ws://games.example.com:1935/"}
    assert json.dumps(entry) in said["script"]
    assert said["warnings"] == []


def test_ruffle_with_a_page_that_is_refused_warns() -> None:
    query = urlencode({"host": "a.example", "url": "wss://play.example.com", "page": "https://other.example/x.html"})
    line, said = ruffle(query)
    assert line == "200 OK"
    [warning] = said["warnings"]
    assert warning.startswith('wss://play.example.com/: Origin "https://other.example" may not connect to port 1935: ')


def test_ruffle_as_html_shows_the_script_and_keeps_the_query() -> None:
    line, shown = ruffle("host=games.example.com&page=http://a.example.com", "text/html,*/*;q=0.8")
    assert line == "200 OK"
    assert "Content that connects to games.example.com, port 1935: ws://games.example.com:1935/" in shown.text
    assert "<script>\n  window.RufflePlayer = " in shown.text, "as text"
    values = {attributes.get("name"): attributes.get("value") for tag, attributes in shown.tags if tag == "input"}
    assert values == {"host": "games.example.com", "url": "", "page": "http://a.example.com"}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "host is missing"),
        ("host=a:1", "is not a host"),
        ("host=%3Cscript%3E", "is not a host"),
        ("host=a&url=http://a", "is not where browsers connect"),
        ("host=a&page=a", "is not the origin of a page"),
        (f"host={'a' * 3000}", "more than 2,048 characters"),
        ("%ff%fe=&=&&&", "host is missing"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_ruffle_with_a_wrong_query_says_what_is_wrong(query: str, why: str, accept: str) -> None:
    line, said = ruffle(query, accept)
    assert line == "400 Bad Request"
    assert why in (said.text if isinstance(said, Page) else said["error"])


def test_ruffle_without_a_listener_that_has_websocket_says_so() -> None:
    line, said = ruffle("host=a", shown=context())
    assert (line, said["error"].partition(":")[0]) == ("400 Bad Request", "no listener has websocket")


@given(st.dictionaries(st.sampled_from(["host", "url", "page"]), st.text()))
def test_ruffle_with_any_query_responds(query: dict[str, str]) -> None:
    assert ruffle(urlencode(query, errors="replace"))[0] in ("200 OK", "400 Bad Request")


def test_form_is_on_the_page_where_a_listener_has_websocket() -> None:
    title = "What a page needs for Ruffle"
    assert title in page(EVERY).text
    assert title not in page(context()).text


def test_served_ruffle_knows_the_port_that_the_kernel_chose() -> None:
    flags = ("--allow", "*:1-65535", "--upstream", "127.0.0.1:9", "--websocket")
    with Flashpol(*flags) as server:
        ask(server.place)
        said = json.loads(server.get("/-/ruffle?host=a").body)
        port = server.place[1]
        assert said["socketProxy"] == [{"host": "a", "port": port, "proxyUrl": f"ws://a:{port}/"}]
