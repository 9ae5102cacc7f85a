"""The page without a browser: what it says, that nothing hostile gets into it, and what browsers may do with it."""

import dataclasses
import html
import json
import os
import re
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import pytest
from contexts import LISTENER, make_context, put
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, get, page

from flashpol._fastpath import BUCKETS, REASONS
from flashpol.admin.context import ListenerInfo
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.page import chart, rendering
from flashpol.admin.page.policy_view import SHOWN_CHARACTERS, SHOWN_FINDINGS, SHOWN_POLICIES
from flashpol.admin.page.rendering import ENVIRONMENT, FILES
from flashpol.admin.page.status_view import REFUSALS
from flashpol.counters.layout import Block
from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol

TEMPLATES = sorted(entry.name for entry in (files(rendering.__package__) / "templates").iterdir())


@pytest.fixture(autouse=True, scope="module")
def no_threads_left() -> Iterator[None]:
    """The threads that analyse policies end when there is nothing to analyse."""

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    yield
    eventually(lambda: threads() <= before, "the end of the threads")


# -------------------------------------------------------------------------------------------------------- what it says


def test_page_without_a_script_shows_the_figures() -> None:
    context = make_context()
    put(context.shared, 0, 0, "buckets", 900, 0, 90, *[0] * (len(BUCKETS) - 3), 10)
    put(context.shared, 0, 0, "open", 321)
    put(context.shared, 0, 0, "parked", 123)
    put(context.shared, 0, 0, "sessions", 45)
    put(context.shared, 0, 0, "refused", *range(1001, 1001 + len(REASONS)))
    context.shared.queue(0, 0).length, context.shared.queue(0, 0).limit = 16, 128
    text = page(context).text
    held = "123 waiting, 45 sessions, 0 slow replies"
    for expected in ("1,000 since start", "321", held, "16 of 128", "1,001", "1,006", "master", "2 of 2"):
        assert expected in text
    assert "≤ 10 µs" in text
    assert "> 5 s" in text


def test_outcomes_name_every_reason_of_a_refusal() -> None:
    assert set(REFUSALS) == set(REASONS)


def test_page_with_a_history_shows_rates_and_a_curve() -> None:
    context = make_context(slots=1)
    history = History(lambda: Sample.of(context))
    history.samples.append(Sample(time.monotonic() - 10, Block.total([]), {}, {}))
    put(context.shared, 0, 0, "buckets", 5000, *[0] * len(BUCKETS))
    history.samples.append(Sample.of(context))
    _, _, body = get(Application(context, history=history))
    [title] = re.findall(r"<title>(\d+) replies/s", body.decode())
    assert 450 <= int(title) <= 500
    assert b"<polyline" in body


def test_policy_of_two_listeners_is_shown_once_with_its_findings() -> None:
    bad = b'<cross-domain-policy>\n<allow-access-from domain="*" to-ports="22,1935-1940"/>\n</cross-domain-policy>'
    listeners = [
        ListenerInfo(name, bad + b"\0", policy="games", address=address, port=843)
        for name, address in (("one", "192.0.2.1:843"), ("two", "192.0.2.2:843"))
    ]
    shown = page(make_context([*listeners, LISTENER]))
    assert shown.text.count("22 (SSH)") == 1, "and beside it only the code, among the problems"
    assert "warning" in shown.text
    assert "one (192.0.2.1:843), two (192.0.2.2:843)" in shown.text
    assert listeners[0].sha256 in shown.text
    assert bad.decode().splitlines()[1] in shown.text


def test_findings_depend_on_the_port_that_clients_ask() -> None:
    low = LISTENER.reply.replace(b"1935", b"80")
    pages = {
        port: page(
            make_context([ListenerInfo("m", low, policy="p", address="192.0.2.1:8430", port=8430, served_from=port)])
        ).text
        for port in (843, 8430)
    }
    assert "FP508" in pages[8430], "a port from 1024 cannot grant those below"
    assert "FP508" not in pages[843]


def test_large_policy_is_cut_and_linted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grants = "".join(f'<allow-access-from domain="h{i}.example.com" to-ports="22"/>\n' for i in range(5000))
    listener = ListenerInfo("m", f"<cross-domain-policy>\n{grants}</cross-domain-policy>\0".encode(), port=843)
    from flashpol.admin import policy_analysis

    calls = []
    lint = policy_analysis.lint
    monkeypatch.setattr(policy_analysis, "lint", lambda *args, **named: calls.append(args) or lint(*args, **named))
    application = Application(make_context([listener]))
    body = get(application)[2]
    again = Page(get(application)[2])
    assert sum(attributes.get("class") == "excerpt" for _, attributes in again.tags) == SHOWN_FINDINGS
    assert len(calls) == 1
    assert len(body) < SHOWN_CHARACTERS * 3 + SHOWN_FINDINGS * 2000
    assert "only the beginning is shown" in Page(body).text


def test_page_of_many_policies_lints_those_it_shows_and_decide_lints_none(monkeypatch: pytest.MonkeyPatch) -> None:
    linted: list[int] = []
    monkeypatch.setattr(
        "flashpol.admin.policy_analysis.lint", lambda source, served_from, clients: linted.append(served_from) or []
    )
    ports = range(2000, 2000 + SHOWN_POLICIES + 7)
    application = Application(
        make_context([dataclasses.replace(LISTENER, listener=str(port), served_from=port) for port in ports])
    )
    for port in ports:
        query = urlencode({"listener": str(port), "from": "http://www.example.com", "port": 1935})
        assert get(application, "/-/decide", QUERY_STRING=query)[0] == "200 OK"
    assert linted == []
    assert "and 7 more: flashpol check" in Page(get(application)[2]).text
    assert linted == list(ports)[:SHOWN_POLICIES]


def test_live_page_omits_the_policies_and_has_the_same_versions() -> None:
    application = Application(make_context())
    whole, live = (get(application, path)[2] for path in ("/", "/-/live"))
    versions = [re.findall(rb'data-version="(.+?)"', body) for body in (whole, live)]
    assert versions[0] == versions[1]
    assert b"FP" in whole
    assert LISTENER.sha256.encode() in whole
    assert LISTENER.sha256.encode() not in live
    assert b"since start" in live


def test_data_version_changes_with_the_policy() -> None:
    other = ListenerInfo(LISTENER.listener, LISTENER.reply + b" ", LISTENER.policy, LISTENER.address, LISTENER.port)
    versions = [
        re.findall(rb'data-version="(.+?)"', get(make_context([each]), "/-/live")[2]) for each in (LISTENER, other)
    ]
    assert versions[0] != versions[1]


def test_outcomes_that_never_happened_have_no_row() -> None:
    context = make_context()
    put(context.shared, 0, 0, "refused", *(3 if reason == "tls" else 0 for reason in REASONS))
    body = get(context)[2].decode()
    assert [reason for reason in REASONS if f"<code>{reason}</code>" in body] == ["tls"]
    assert "no request in time" not in body
    assert "None since start." in page(make_context()).text


def test_page_without_shared_ports_has_no_table_of_upstreams() -> None:
    assert "Upstreams" not in page(dataclasses.replace(make_context(), routes=())).text
    assert "Upstreams" in page(make_context()).text


def test_policy_card_names_the_file_of_the_policy() -> None:
    listener = dataclasses.replace(LISTENER, path="/etc/flashpol/games.xml")
    assert "/etc/flashpol/games.xml" in page(make_context([listener])).text


# --------------------------------------------------------------------------------------------------------- the curve


@given(st.floats(0, 1e12))
def test_chart_axis_ends_at_or_above_its_highest_value(value: float) -> None:
    assert max(1, value) <= chart.ceiling(value) <= max(1, 2 * value)


def test_chart_after_a_pause_breaks_the_line() -> None:
    found = chart.chart([Sample(at, Block.total([]), {}, {}) for at in (0, 2, 4, 60, 62, 64)])
    assert found is not None
    assert len(found.lines) == len(found.areas) == 2


def test_chart_of_less_than_two_samples_is_none() -> None:
    assert chart.chart([]) is None
    assert chart.chart([Sample(0, Block.total([]), {}, {})]) is None


# ------------------------------------------------------------------------------------------------------- hostile text

HOSTILE = "<script>alert(1)</script>\"'&<!--\u202egpj.exe\0</pre>"


@pytest.mark.parametrize("where", ["listener", "policy", "path", "text", "error", "query"])
def test_hostile_text_is_escaped(where: str) -> None:
    named = {where: HOSTILE} if where in ("listener", "policy", "path") else {}
    comment = html.escape(HOSTILE).replace("\0", "") if where != "text" else HOSTILE
    reply = b"<cross-domain-policy><!-- " + comment.encode() + b" --></cross-domain-policy>\0"
    listener = ListenerInfo(**{"listener": "m", "reply": reply, "policy": "p", "served_from": 843} | named)
    context = make_context([listener])
    if where == "error":
        context.status.reload_successful, context.status.reload_error = 0, HOSTILE
    if where == "query":
        query = urlencode({"listener": "m", "from": HOSTILE, "port": "1"})
        body = get(context, "/-/decide", QUERY_STRING=query, HTTP_ACCEPT="text/html")[2]
    else:
        body = get(context)[2]
    tags = Page(body).tags
    assert [attributes for tag, attributes in tags if tag == "script"] in (
        [],
        [{"type": "module", "src": "./-/page/live.js"}],
    )
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in body.decode(), "nothing turns the text around"
    assert "alert(1)" in Page(body).text


@given(st.text(), st.text())
def test_template_values_come_back_as_they_were(content: str, value: str) -> None:
    template = ENVIRONMENT.from_string('<p data-x="{{ value }}">{{ content }}</p>')
    shown = Page(template.render(content=content, value=value).encode(errors="replace"))
    visible = {c for c in content + value if c.isprintable()}
    assert {c for c in shown.text if c in visible} == {c for c in content if c in visible}
    [(tag, attributes)] = shown.tags
    assert (tag, set(attributes)) == ("p", {"data-x"})
    assert len(attributes["data-x"] or "") == len(value)


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_quotes_attributes_and_has_nothing_inline(name: str) -> None:
    text = (files(rendering.__package__) / "templates" / name).read_text()
    assert not re.search(r"=\s*\{\{", text), "an unquoted attribute could end early"
    assert not re.search(r"\|\s*safe|autoescape|Markup", text), "only the environment decides what is escaped"
    assert not re.search(r"<style|\s(style|on\w+)=|<script(?![^>]*\ssrc=)", text), "the security policy forbids it"
    assert ENVIRONMENT.get_template(name)


# ------------------------------------------------------------------------------------------------------------ guarded


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/live", "/-/status", "/-/decide", "/-/page/live.js", "/none"])
def test_every_response_has_the_security_headers(path: str) -> None:
    _, headers, _ = get(make_context(), path)
    policy = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}, "nothing inline, nothing from elsewhere"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_page_links_only_to_files_that_are_served() -> None:
    shown = page(make_context())
    asked = [attributes.get("src") or attributes.get("href") for tag, attributes in shown.tags if tag != "a"]
    for link in filter(None, asked):
        line, headers, body = get(make_context(), "/" + link.removeprefix("./"))
        assert line == "200 OK"
        assert (headers["Content-Type"], body) == FILES[link.rpartition("/")[2]]


RELOAD = {"HTTP_X_FLASHPOL_RELOAD": "1"}


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ORIGIN": "http://127.0.0.1:9843"},
        {"HTTP_ORIGIN": "http://127.0.0.1:9843"} | RELOAD,
        {"HTTP_ORIGIN": "null"} | RELOAD,
        {"HTTP_SEC_FETCH_SITE": "same-origin"} | RELOAD,
        {"CONTENT_TYPE": "application/x-www-form-urlencoded", "HTTP_REFERER": "http://127.0.0.1:9843/"},
    ],
    ids=["form", "origin", "null origin", "fetch metadata", "form of an old browser"],
)
def test_reload_from_a_browser_is_forbidden(headers: dict[str, str]) -> None:
    asked: list[bool] = []
    application = Application(make_context(), lambda: asked.append(True))
    line, _, body = get(application, "/-/reload", "POST", **headers)
    assert (line, asked) == ("403 Forbidden", [])
    assert b"curl -X POST -H 'X-Flashpol-Reload: 1'" in body
    assert body.count(b"\n") == 1


def test_reload_that_takes_long_returns_202(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashpol.admin.endpoint.RELOAD_PATIENCE", 0.01)
    line, _, body = get(Application(make_context(), lambda: None), "/-/reload", "POST", **RELOAD)
    assert (line, b"not done yet" in body) == ("202 Accepted", True)


# ------------------------------------------------------------------------------------------------------------ processes


def test_page_of_a_real_server_shows_its_counters() -> None:
    with Flashpol("--policy", POLICY, workers=2) as server:
        for _ in range(7):
            assert ask(server.place)
        shown = Page(server.get("/").body)
        assert "7 since start" in shown.text
        assert f"{server.place[0]}:{server.place[1]}" in shown.text
        assert "site-control" in shown.text
        told = json.loads(server.get("/-/status").body)
        assert told["total"]["replies"] == 7
        assert sorted(each["pid"] for each in told["workers"]) == sorted(worker.pid for worker in server.workers)
        eventually(lambda: json.loads(server.get("/-/status").body)["now"], "the first rates")
        assert server.complaints == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root folder")
def test_admin_endpoint_in_a_chroot_opens_no_files(tmp_path: Path) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    config = tmp_path / "flashpol.toml"
    config.write_text(f'[server]\nuser = "nobody"\nchroot = "{jail}"\n')
    with Flashpol("-c", config, "--policy", POLICY) as server:
        name = server.addresses[0]
        query = f"?listener={name}&from=http%3A%2F%2Fwww.example.com%2F&port=1935"
        for path in ("/", "/-/live", "/-/status", "/-/page/live.js", "/-/page/style.css", f"/-/decide{query}"):
            for accept in ("text/html", "*/*"):
                assert server.get(path, Accept=accept).status == 200, path
        assert "Traceback" not in server.log
