"""What the reports say about a WebSocket: text, JSON, the line for Nagios, metrics, changes."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import websocket_servers as servers
from loopback import Handler, Server, closed_port, look_through
from prometheus_client.parser import text_string_to_metric_families
from websocket_servers import BINARY, TEXT, frame, opening, refusing

from flashpol.probe.report import Result, document, metrics, nagios, text
from flashpol.probe.report.changes import changes
from flashpol.probe.websocket import script

ORIGIN, EVIL = "https://www.example.com", "https://evil.example"


def plain(written: str, _: str) -> str:
    return written


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "LISTEN", 0.1)
        patch.setattr(script, "BODY", 0.1)
        yield


def of(handler: Handler, *origins: str, port: int = 0, **asked: Any) -> Result:
    with Server(handler, port=port) as server:
        return Result.of(look_through(f"ws://127.0.0.1:{server.port}/chess", *origins, **asked))


@pytest.fixture(scope="module")
def good() -> Result:
    return of(opening(then=frame(BINARY, b"x")))


@pytest.fixture(scope="module")
def mixed() -> Result:
    return of(servers.for_origin(ORIGIN, "it is not in the policy"), ORIGIN, EVIL)


def lines_of(result: Result) -> list[str]:
    times = re.compile(r"\d+\.\d\d\d s")
    lines = (re.sub(r"^ +([0-9.]+ s  )?", "", line) for line in text.report(result, plain).split("\n"))
    return [times.sub("T s", line) for line in lines]


def test_text_of_good_server_says_which_origin_was_asked(good: Result) -> None:
    lines = lines_of(good)
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/chess: nothing found", lines[0])
    assert re.fullmatch(r"port \d+ \(a WebSocket\)", lines[3])
    assert "origin http://127.0.0.1: allowed, 101 after T s" in lines
    assert "this is the origin of the URL's host; name another page with --origin" in lines
    assert "extensions: none, 1 binary frame came, ping T s" in lines
    assert any(line.endswith("opens a WebSocket for pages of http://127.0.0.1") for line in lines)


def test_text_of_several_origins_has_a_row_each(mixed: Result) -> None:
    lines = lines_of(mixed)
    assert f"origin {ORIGIN}: allowed, 101 after T s" in lines
    assert f"origin {EVIL}: refused, 403 Forbidden after T s: it is not in the policy" in lines
    assert not any("name another page" in line for line in lines)


def test_text_of_connection_that_the_server_keeps_says_who_closed() -> None:
    lines = lines_of(of(refusing("404 Not Found", keep=True)))
    assert "closed by the probe" in lines
    assert "still open at the time-out" not in lines


def test_text_of_mistakes_quotes_them() -> None:
    lines = lines_of(of(servers.with_fields(accept="wrong")))
    assert any(re.fullmatch(r"origin .*: refused: port \d+ replies 101 with a wrong Sec.*", line) for line in lines)


HOSTILE = "\x1b]0;title\x07\x1b[2J\u202eevil"


def test_reports_of_hostile_server_are_printable() -> None:
    refused = of(refusing(f"404 {HOSTILE}", f"Server: {HOSTILE}", "Content-Type: text/plain", body=HOSTILE))
    spoken = of(opening(then=frame(TEXT, HOSTILE.encode()) + frame(8, b"\x03\xe8" + HOSTILE.encode())))
    for result in (refused, spoken):
        for written in (text.report(result, plain), nagios.line([result])):
            assert all(line.isprintable() for line in written.split("\n"))
        assert json.dumps(document.document([result])).isprintable()


def host_of(result: Result) -> dict[str, Any]:
    [host] = json.loads(json.dumps(document.document([result])))["hosts"]
    return dict(host)


def test_json_has_a_row_for_each_origin(mixed: Result) -> None:
    host = host_of(mixed)
    assert (host["host"], host["websocket"], host["origins"]) == ("127.0.0.1", mixed.host, [ORIGIN, EVIL])
    [place] = host["addresses"][0]["places"]
    assert place["role"] == "websocket"
    allowed, refused = place["websocket"]
    assert (allowed["origin"], allowed["allowed"], allowed["status"], allowed["body"]) == (ORIGIN, True, 101, None)
    assert 0 < allowed["pong_seconds"] < 5
    assert (refused["allowed"], refused["status"], refused["body"]) == (False, 403, "it is not in the policy")
    [finding] = host["findings"]
    assert (finding["code"], finding["clients"]) == ("PB622", ["browser"])


def test_json_without_websocket_has_none(good: Result) -> None:
    with closed_port() as port:
        host = host_of(Result.of(look_through(f"ws://127.0.0.1:{port}/")))
    [place] = host["addresses"][0]["places"]
    assert place["websocket"] == []


def test_nagios_has_the_time_of_the_upgrade(good: Result, mixed: Result) -> None:
    assert nagios.status([good]) == nagios.OK
    assert re.fullmatch(
        r"FLASHPOL OK - ws://127\.0\.0\.1:\d+/chess: WebSocket works \| time=0\.\d{4}s;1;;0 errors=0;;0;0"
        r" warnings=0;0;;0",
        nagios.line([good]),
    )
    assert nagios.status([mixed]) == nagios.CRITICAL
    assert ": PB622 pages of https://evil.example get no WebSocket: 403 Forbidden" in nagios.line([mixed])


def samples(result: Result) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("flashpol_probe_"), sample.labels.get("origin", "")): sample.value
        for family in text_string_to_metric_families(metrics.exposition([result]))
        for sample in family.samples
    }


def test_metrics_have_a_row_for_each_origin(mixed: Result) -> None:
    found = samples(mixed)
    assert found["websocket_allowed", ORIGIN] == 1
    assert found["websocket_allowed", EVIL] == 0
    assert 0 < found["websocket_upgrade_seconds", ORIGIN] < 5
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=metrics.exposition([mixed]), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_changes_name_the_origin_that_is_refused_now(mixed: Result) -> None:
    port = mixed.observation.all_targets()[0].port
    after = of(refusing("502 Bad Gateway"), ORIGIN, EVIL, port=port)
    told = changes(mixed, after)
    assert f"- WebSocket at 127.0.0.1:{port}: pages of {ORIGIN} are allowed" in told
    assert f"+ WebSocket at 127.0.0.1:{port}: pages of {ORIGIN} are refused" in told
    assert not any(f"{EVIL} are" in line for line in told)
    assert changes(mixed, mixed) == []
