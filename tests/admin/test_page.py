"""The page without a browser: what it says, that nothing hostile gets into it, and how it is guarded."""

import dataclasses
import html
import json
import os
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import FACTS, put, put_relayed, view

from flashpol._fastpath import BUCKETS, REASONS
from flashpol._pump import FAILURES
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.page import chart, overview, tables
from flashpol.admin.page import formatting as figures
from flashpol.admin.page.document import FILES
from flashpol.admin.page.markup import VOID, el
from flashpol.admin.page.policies import SHOWN_CHARACTERS, SHOWN_FINDINGS, SHOWN_POLICIES
from flashpol.admin.page.tables import ENDINGS
from flashpol.admin.status import status
from flashpol.counters import status as counters
from flashpol.counters.layout import Block, RelayBlock
from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol

ORIGIN = {"HTTP_ORIGIN": "http://127.0.0.1:9843"}


@pytest.fixture(autouse=True, scope="module")
def no_threads_left() -> Iterator[None]:
    """Those that read policies end when there is nothing to read."""

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    yield
    eventually(lambda: threads() <= before, "the end of the threads")


class Page(HTMLParser):
    """Text and attributes of a page; fails if elements do not close as they opened."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(body.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def get(
    shown: AdminContext | Application, path: str = "/", method: str = "GET", **environ: str
) -> tuple[str, dict, bytes]:
    application = shown if isinstance(shown, Application) else Application(shown)
    answered: list[Any] = []
    asked = {"PATH_INFO": path, "REQUEST_METHOD": method, **environ}
    body = b"".join(application(asked, lambda line, headers: answered.extend((line, dict(headers)))))
    return answered[0], answered[1], body


def page(shown: AdminContext) -> Page:
    line, _, body = get(shown)
    assert line == "200 OK"
    return Page(body)


# -------------------------------------------------------------------------------------------------------- what it says


def test_the_figures_are_there_without_a_script() -> None:
    seen = view()
    put(seen.shared, 0, 0, "buckets", 900, 0, 90, *[0] * (len(BUCKETS) - 3), 10)
    put(seen.shared, 0, 0, "open", 321)
    put(seen.shared, 0, 0, "parked", 123)
    put(seen.shared, 0, 0, "sessions", 45)
    put(seen.shared, 0, 0, "refused", *range(1001, 1001 + len(REASONS)))
    seen.shared.queue(0, 0).length, seen.shared.queue(0, 0).limit = 16, 128
    text = page(seen).text
    held = "123 silent, 45 sessions, 0 slow replies"
    for expected in ("1,000 since start", "321", held, "16 of 128", "1,001", "1,006", "master", "2 of 2"):
        assert expected in text
    assert "≤ 10 µs" in text
    assert "> 5 s" in text


def test_every_reason_has_a_row() -> None:
    assert set(ENDINGS) == set(REASONS)


def test_rates_come_from_the_history() -> None:
    seen = view(slots=1)
    history = History(lambda: Sample.of(seen))
    history.samples.append(Sample(time.monotonic() - 10, Block.total([]), {}, {}))
    put(seen.shared, 0, 0, "buckets", 5000, *[0] * len(BUCKETS))
    history.samples.append(Sample.of(seen))
    _, _, body = get(Application(seen, history=history))
    [title] = re.findall(r"<title>(\d+) answers/s", body.decode())
    assert 450 <= int(title) <= 500
    assert b"<polyline" in body


def test_each_policy_is_shown_once_with_its_findings() -> None:
    bad = b'<cross-domain-policy>\n<allow-access-from domain="*" to-ports="22,1935-1940"/>\n</cross-domain-policy>'
    facts = [
        ListenerInfo(name, bad + b"\0", policy="games", address=address, port=843)
        for name, address in (("one", "192.0.2.1:843"), ("two", "192.0.2.2:843"))
    ]
    shown = page(view([*facts, FACTS]))
    assert shown.text.count("FP606") == 1
    assert "22 (SSH)" in shown.text
    assert "warning" in shown.text
    assert "one (192.0.2.1:843), two (192.0.2.2:843)" in shown.text
    assert facts[0].sha256 in shown.text
    assert bad.decode().splitlines()[1] in shown.text


def test_findings_are_of_the_port_it_is_served_from() -> None:
    low = FACTS.reply.replace(b"1935", b"80")
    pages = {
        port: page(
            view([ListenerInfo("m", low, policy="p", address="192.0.2.1:8430", port=8430, served_from=port)])
        ).text
        for port in (843, 8430)
    }
    assert "FP508" in pages[8430], "a port from 1024 cannot grant those below"
    assert "FP508" not in pages[843]


def test_a_large_policy_is_cut_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grants = "".join(f'<allow-access-from domain="h{i}.example.com" to-ports="22"/>\n' for i in range(5000))
    facts = ListenerInfo("m", f"<cross-domain-policy>\n{grants}</cross-domain-policy>\0".encode(), port=843)
    from flashpol.admin import policy_analysis as reading

    calls = []
    lint = reading.lint
    monkeypatch.setattr(reading, "lint", lambda *args, **named: calls.append(args) or lint(*args, **named))
    application = Application(view([facts]))
    body = get(application)[2]
    again = Page(get(application)[2])
    assert sum(attributes.get("class") == "excerpt" for _, attributes in again.tags) == SHOWN_FINDINGS
    assert len(calls) == 1
    assert len(body) < SHOWN_CHARACTERS * 3 + SHOWN_FINDINGS * 2000
    assert "this is its beginning only" in Page(body).text


def test_of_many_policies_some_are_shown_and_a_question_lints_none(monkeypatch: pytest.MonkeyPatch) -> None:
    linted: list[int] = []
    monkeypatch.setattr(
        "flashpol.admin.policy_analysis.lint", lambda source, served_from, clients: linted.append(served_from)
    )
    ports = range(2000, 2000 + SHOWN_POLICIES + 7)
    application = Application(
        view([dataclasses.replace(FACTS, listener=str(port), served_from=port) for port in ports])
    )
    for port in ports:
        query = urlencode({"listener": str(port), "from": "http://www.example.com", "port": 1935})
        assert get(application, "/-/decide", QUERY_STRING=query)[0] == "200 OK"
    assert linted == []
    assert "and 7 more: flashpol check" in Page(get(application)[2]).text
    assert linted == list(ports)[:SHOWN_POLICIES]


def test_the_live_part_leaves_the_costly_ones_out() -> None:
    application = Application(view())
    whole, live = (get(application, path)[2] for path in ("/", "/-/live"))
    versions = [re.findall(rb'data-version="(.+?)"', body) for body in (whole, live)]
    assert versions[0] == versions[1]
    assert b"FP" in whole
    assert FACTS.sha256.encode() in whole
    assert FACTS.sha256.encode() not in live
    assert b"since start" in live


def test_another_policy_is_another_version() -> None:
    other = ListenerInfo(FACTS.listener, FACTS.reply + b" ", FACTS.policy, FACTS.address, FACTS.port)
    versions = [re.findall(rb'data-version="(.+?)"', get(view([facts]), "/-/live")[2]) for facts in (FACTS, other)]
    assert versions[0] != versions[1]


# ------------------------------------------------------------------------------------------------------------ attention


def test_nothing_needs_attention() -> None:
    assert list(overview.troubles(status(view()))) == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("reload", "The last reload failed, the earlier configuration stays: line 3 is wrong"),
        ("worker", "Worker 1 does not serve."),
        ("lag", "Worker 0 is late by 2 s."),
        ("still", "Worker 0 does not serve: its loop stands still, late by 9,000 s."),
        ("queue", "The accept queue of master is 75 % full."),
        ("capacity", "9 connections found no room in the last minute."),
        ("refused", "Upstream 127.0.0.1:7000 of master took nobody in the last minute: 9 refused."),
    ],
)
def test_what_needs_attention(what: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = view()
    past = [Sample(time.monotonic() - 30, Block.total([]), {}, {}, dict.fromkeys(seen.routes, RelayBlock.total([])))]
    if what == "reload":
        seen.status.reload_successful, seen.status.reload_error = 0, "line 3 is wrong"
    elif what == "worker":
        seen.shared.process(1).up = 0
    elif what == "lag":
        seen.shared.process(0).loop_lag_ns = 2_000_000_000
    elif what == "still":
        seen.shared.process(0).pid = 7
        # Later, not a beat long ago: the machine may just have been started.
        later = time.monotonic_ns() + 9_000_600_000_000
        monkeypatch.setattr(counters, "time", SimpleNamespace(monotonic_ns=lambda: later))
        seen.shared.process(1).beat_ns = later
    elif what == "queue":
        seen.shared.queue(0, 0).length, seen.shared.queue(0, 0).limit = 96, 128
    elif what == "refused":
        put_relayed(seen.shared, 1, 0, "failures", *(9 if reason == what else 0 for reason in FAILURES))
    else:
        put(seen.shared, 0, 0, "refused", *(9 if reason == "capacity" else 0 for reason in REASONS))
    assert list(overview.troubles(status(seen, past))) == [words]
    application = Application(seen)
    application._history.samples.extend(past)
    shown = Page(get(application)[2])
    assert words in shown.text
    # What is read out is the heading, whose words stay the same while the figures change, and the answer to a question.
    assert [tag for tag, attributes in shown.tags if "aria-live" in attributes] == ["h2", "div"]


def test_an_upstream_that_takes_some_is_no_trouble() -> None:
    seen = view()
    past = [Sample(time.monotonic() - 30, Block.total([]), {}, {}, dict.fromkeys(seen.routes, RelayBlock.total([])))]
    put_relayed(seen.shared, 0, 0, "failures", *(1 for _ in FAILURES))
    put_relayed(seen.shared, 0, 0, "opened", 1)
    put_relayed(seen.shared, 0, 0, "sent", 600, 2_400)
    assert list(overview.troubles(status(seen, past))) == []
    shown = str(tables.upstreams(status(seen, past)))
    assert "some failed" in shown
    assert "100 bytes/s" in shown


def test_endings_that_never_were_take_no_row() -> None:
    seen = view()
    put(seen.shared, 0, 0, "refused", *(3 if reason == "tls" else 0 for reason in REASONS))
    shown = str(tables.endings(status(seen)))
    assert [reason for reason in REASONS if f"<code>{reason}</code>" in shown] == ["tls"]
    assert "Never yet: relayed, and over; no request in time" in shown
    assert "<table" not in str(tables.endings(status(view())))


def test_without_shared_ports_nothing_is_said_of_upstreams() -> None:
    seen = dataclasses.replace(view(), routes=())
    assert "Upstreams" not in Page(get(seen)[2]).text
    assert "Upstreams" in Page(get(view())[2]).text


# ------------------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (1e-05, "10 µs"), (2.5e-05, "25 µs"), (0.0025, "2.5 ms"), (0.25, "250 ms"), (1, "1 s"), (2.5, "2.5 s"),
     (0.9999, "1 s"), (86400, "86,400 s")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert figures.duration(seconds) == words


@pytest.mark.parametrize(
    ("octets", "words"),
    [(0, "0 bytes"), (4096, "4,096 bytes"), (23_000_000, "21.9 MiB"), (1023 * 1024, "1023 KiB"), (5 << 30, "5 GiB")],
)
def test_sizes(octets: int, words: str) -> None:
    assert figures.size(octets) == words


@pytest.mark.parametrize(
    ("part", "words"), [(0, "0 %"), (0.0001, "<0.1 %"), (0.05, "5.0 %"), (0.42, "42 %"), (1, "100 %")]
)
def test_percentages(part: float, words: str) -> None:
    assert figures.percent(part) == words


@pytest.mark.parametrize(
    ("events", "seconds", "words"), [(0, 5, "0"), (1, 60, "<0.1"), (7, 5, "1.4"), (61_720, 5, "12,344")]
)
def test_rates(events: int, seconds: float, words: str) -> None:
    assert figures.rate(events, seconds) == words


BOUNDS = [0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    ("counts", "which", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.05),
        ([0, 10, 0, 0], 0.5, 0.15),
        ([50, 0, 50, 0], 0.99, 0.396),
        ([50, 0, 50, 0], 0.5, 0.1),
        ([0, 0, 0, 5], 0.5, 0.4),
        ([1, 0, 0, 1], 0.99, 0.4),
    ],
)
def test_quantiles_are_those_of_prometheus(counts: list[int], which: float, expected: float | None) -> None:
    found = figures.quantile(BOUNDS, counts, which)
    assert found == (expected if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_it_falls_in(counts: list[int], which: float) -> None:
    found = figures.quantile(BOUNDS, counts, which)
    assert (found is None) == (not sum(counts))
    if found is not None:
        below = sum(count for count, lower in zip(counts, [0, *BOUNDS], strict=True) if lower <= found)
        assert below >= which * sum(counts) * 0.999999


@given(st.floats(0, 1e12))
def test_an_axis_ends_at_or_above_what_it_shows(value: float) -> None:
    assert max(1, value) <= chart.ceiling(value) <= max(1, 2 * value)


def test_a_pause_breaks_the_line() -> None:
    samples = [Sample(at, Block.total([]), {}, {}) for at in (0, 2, 4, 60, 62, 64)]
    assert chart.answers(samples).count("<polyline") == 2


# ------------------------------------------------------------------------------------------------------- hostile text

HOSTILE = "<script>alert(1)</script>\"'&<!--\u202egpj.exe\0</pre>"


@pytest.mark.parametrize("where", ["listener", "policy", "text", "error", "question"])
def test_hostile_text_stays_text(where: str) -> None:
    named = {"listener": HOSTILE} if where == "listener" else {"policy": HOSTILE} if where == "policy" else {}
    comment = html.escape(HOSTILE).replace("\0", "") if where != "text" else HOSTILE
    reply = b"<cross-domain-policy><!-- " + comment.encode() + b" --></cross-domain-policy>\0"
    facts = ListenerInfo(**{"listener": "m", "reply": reply, "policy": "p", "served_from": 843} | named)
    seen = view([facts])
    if where == "error":
        seen.status.reload_successful, seen.status.reload_error = 0, HOSTILE
    if where == "question":
        query = urlencode({"listener": "m", "from": HOSTILE, "port": "1"})
        body = get(seen, "/-/decide", QUERY_STRING=query, HTTP_ACCEPT="text/html")[2]
    else:
        body = get(seen)[2]
    tags = Page(body).tags
    assert [attributes for tag, attributes in tags if tag == "script"] in (
        [],
        [{"type": "module", "src": "./-/page/live.js"}],
    )
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in body.decode(), "nothing turns the text around"
    assert "alert(1)" in Page(body).text


@given(st.text(), st.text())
def test_text_and_attributes_come_back_as_they_were(content: str, value: str) -> None:
    shown = Page(el("p", content, data_x=value).encode(errors="replace"))
    visible = {c for c in content + value if c.isprintable()}
    assert {c for c in shown.text if c in visible} == {c for c in content if c in visible}
    [(tag, attributes)] = shown.tags
    assert (tag, set(attributes)) == ("p", {"data-x"})
    assert len(attributes["data-x"] or "") == len(value)


# ------------------------------------------------------------------------------------------------------------ questions


def decide(query: str, accept: str = "*/*") -> tuple[str, Any]:
    line, headers, body = get(view(), "/-/decide", QUERY_STRING=query, HTTP_ACCEPT=accept)
    assert headers["Content-Type"] == ("text/html; charset=utf-8" if "html" in accept else "application/json")
    return line, Page(body) if "html" in accept else json.loads(body)


def test_a_question_as_json() -> None:
    line, said = decide("listener=master&from=http%3A%2F%2Fwww.example.com%2F&port=1935")
    assert line == "200 OK"
    assert {key: said[key] for key in ("listener", "from", "port", "served_from")} == {
        "listener": "master", "from": "http://www.example.com/", "port": 1935, "served_from": 843
    }  # fmt: skip
    flash, *others = said["decisions"]
    assert (flash["client"], flash["allowed"], flash["line"]) == ("flash", True, 2)
    assert [each["client"] for each in others] == ["lightspark", "unity", "silverlight"]
    assert not said["decisions"][-1]["allowed"]


def test_a_question_as_a_page() -> None:
    line, shown = decide("listener=master&from=www.example.com&port=1936", "text/html,*/*;q=0.8")
    assert line == "200 OK"
    assert "port 1936 is not in" in shown.text
    assert 'to-ports="1935"' in shown.text
    assert "denied" in shown.text
    values = {attributes.get("name"): attributes.get("value") for tag, attributes in shown.tags if tag == "input"}
    assert values == {"from": "www.example.com", "port": "1936"}, "what was asked can be changed and asked again"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "listener is missing"),
        ("listener=master&from=a.example.com", "port is missing"),
        ("listener=nobody&from=a.example.com&port=1", "no such listener"),
        ("listener=master&from=a.example.com&port=0", "no port"),
        ("listener=master&from=a.example.com&port=65536", "no port"),
        ("listener=master&from=a.example.com&port=-1", "no number"),
        ("listener=master&from=a.example.com&port=%C2%B2", "no number"),
        ("listener=master&from=a.example.com&port=999999999", "no number"),
        ("listener=master&from=a%20b&port=1", "no URL"),
        (f"listener=master&from={'a' * 3000}&port=1", "too long"),
        ("&".join(["x=1"] * 1000), "listener is missing"),
        ("%ff%fe=&=&&&", "listener is missing"),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_what_is_no_question(query: str, why: str, accept: str) -> None:
    line, said = decide(query, accept)
    assert line == "400 Bad Request"
    assert why in (said.text if isinstance(said, Page) else said["error"])


@given(st.text(alphabet=st.characters(codec="ascii")))
def test_no_query_raises(query: str) -> None:
    assert decide(query)[0] in ("200 OK", "400 Bad Request")


# ------------------------------------------------------------------------------------------------------------ guarded


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/live", "/-/status", "/-/decide", "/-/page/live.js", "/none"])
def test_headers(path: str) -> None:
    _, headers, _ = get(view(), path)
    policy = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}, "nothing inline, nothing from elsewhere"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


def test_the_page_asks_for_nothing_that_is_not_there() -> None:
    shown = page(view())
    asked = [attributes.get("src") or attributes.get("href") for tag, attributes in shown.tags if tag != "a"]
    for link in filter(None, asked):
        line, headers, body = get(view(), "/" + link.removeprefix("./"))
        assert line == "200 OK"
        assert (headers["Content-Type"], body) == FILES[link.rpartition("/")[2]]


@pytest.mark.parametrize("headers", [ORIGIN, {"HTTP_ORIGIN": "null"}, {"HTTP_SEC_FETCH_SITE": "same-origin"}])
def test_no_browser_can_reload(headers: dict[str, str]) -> None:
    asked: list[bool] = []
    line, _, body = get(Application(view(), lambda: asked.append(True)), "/-/reload", "POST", **headers)
    assert (line, asked) == ("403 Forbidden", [])
    assert b"curl" in body


def test_a_reload_that_goes_on_is_not_called_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashpol.admin.endpoint.RELOAD_PATIENCE", 0.01)
    line, _, body = get(Application(view(), lambda: None), "/-/reload", "POST")
    assert (line, b"not done yet" in body) == ("202 Accepted", True)


# ------------------------------------------------------------------------------------------------------------ processes


def test_a_real_server_shows_what_it_did() -> None:
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
def test_nothing_is_opened_once_there_are_no_files(tmp_path: Path) -> None:
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
