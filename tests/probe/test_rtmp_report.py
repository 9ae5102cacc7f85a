"""What the reports say about a media server: text, JSON, the line for Nagios, metrics, changes."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from loopback import Handler, Server, look_at_media
from prometheus_client.parser import text_string_to_metric_families
from rtmp_servers import Gateway, http, media, message, refusing, sending
from tls_servers import inside

from flashpol.probe.report import Result, document, metrics, nagios, text
from flashpol.probe.report.changes import changes
from flashpol.probe.rtmp import amf, url
from flashpol.probe.rtmp.url import Way
from testkit.certificates import make_ca


def plain(written: str, _: str) -> str:
    return written


@pytest.fixture(scope="module")
def both() -> Result:
    """RTMP works, and its tunnel has a web server."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Server(media()) as direct,
        Server(refusing(http("404 Not Found", b"", "Server: nginx"))) as web,
    ):
        patch.setitem(url.WAYS, "rtmp", (Way("rtmp", direct.port), Way("rtmpt", web.port)))
        return Result.of(look_at_media("127.0.0.1", "live"))


@pytest.fixture(scope="module")
def tunnel() -> Result:
    with Server(media()) as behind, Server(Gateway(behind.port)) as running:
        return Result.of(look_at_media(f"rtmpt://127.0.0.1:{running.port}/live"))


def lines_of(result: Result) -> list[str]:
    lines = (re.sub(r"^ +([0-9.]+ s  )?", "", line) for line in text.report(result, plain).split("\n"))
    return [re.sub(r"\d+\.\d\d\d? s", "T s", line) for line in lines]


def port(result: Result, number: int = 0) -> int:
    return result.observation.all_targets()[number].port


def test_text_says_for_each_way_what_came_of_it(both: Result) -> None:
    lines = lines_of(both)
    assert lines[0] == "rtmp://127.0.0.1/live: 2 warnings"
    assert f"port {port(both)} (RTMP)" in lines
    assert f"RTMP on port {port(both)} works, handshake after T s" in lines
    assert "the application accepts: NetConnection.Connect.Success: ok" in lines
    assert f"RTMPT on port {port(both, 1)} replies to /open with 404 Not Found" in lines
    assert "1 request, 1 connection" in lines
    assert "closed by the probe" in lines
    assert any(re.fullmatch(r"flash +connects, after T s", line) for line in lines)


def test_text_of_tunnel_counts_requests_and_connections(tunnel: Result) -> None:
    assert any(re.fullmatch(r"\d requests, 1 connection", line) for line in lines_of(tunnel))


def test_text_of_proxy_names_it() -> None:
    with Server(media()) as behind, Server(Gateway(behind.port)) as running:
        proxy = f"http://127.0.0.1:{running.port}"
        lines = lines_of(Result.of(look_at_media("media.invalid", proxy=proxy)))
    assert f"port {running.port} (a proxy, for RTMPT on port 80)" in lines


def test_text_of_refused_application_quotes_the_server() -> None:
    with Server(media(b"", end=True)) as running:
        lines = lines_of(Result.of(look_at_media(f"127.0.0.1:{running.port}", "live")))
    assert "the server closes instead of a reply to connect" in lines


HOSTILE = "\x1b]0;title\x07\x1b[2J\u202eevil"


def test_reports_of_hostile_server_are_printable() -> None:
    info = amf.encode("_error", 1.0, None, {"code": HOSTILE, "description": HOSTILE})
    handlers: list[Handler] = [media(message(20, info)), sending(http(f"400 {HOSTILE}", b"", f"Server: {HOSTILE}"))]
    scheme = ["rtmp", "rtmp"]
    handlers.append(refusing(http(f"404 {HOSTILE}", HOSTILE.encode(), f"Server: {HOSTILE}")))
    handlers.append(refusing(http("200 OK", b"<" + HOSTILE.encode())))
    for handler, way in zip(handlers, (*scheme, "rtmpt", "rtmpt"), strict=True):
        with Server(handler) as running:
            result = Result.of(look_at_media(f"{way}://127.0.0.1:{running.port}", "live"))
        assert result.failed
        for written in (text.report(result, plain), nagios.line([result])):
            assert all(line.isprintable() for line in written.split("\n"))
        assert json.dumps(document.document([result])).isprintable()


def host_of(result: Result) -> dict[str, Any]:
    [host] = json.loads(json.dumps(document.document([result])))["hosts"]
    return dict(host)


def test_json_has_a_place_for_each_way(both: Result) -> None:
    host = host_of(both)
    assert (host["host"], host["rtmp"], host["proxy"]) == ("127.0.0.1", "rtmp://127.0.0.1/live", None)
    direct, web = (place["rtmp"] for place in host["addresses"][0]["places"])
    assert (direct["way"], direct["port"], direct["works"]) == ("rtmp", port(both), True)
    assert (direct["connect"], direct["connect_says"]) == ("succeeded", "NetConnection.Connect.Success: ok")
    assert 0 < direct["seconds"] < 5
    assert (web["way"], web["works"], web["status"], web["server"], web["requests"]) == (
        "rtmpt", False, 404, "nginx", 1,
    )  # fmt: skip
    assert (web["connect"], web["redirect"]) == (None, None)


def test_nagios_has_the_time_of_the_fallback(both: Result, tunnel: Result) -> None:
    assert nagios.status([tunnel]) == nagios.OK
    assert re.fullmatch(
        r"FLASHPOL OK - rtmpt://127\.0\.0\.1:\d+/live: RTMPT on port \d+ works after \d\.\d\d s"
        r" \| time=\d\.\d{4}s;3;;0 errors=0;;0;0 warnings=0;0;;0",
        nagios.line([tunnel]),
    )
    assert nagios.status([both]) == nagios.WARNING
    assert ": PB704 RTMP works, and RTMPT on port 80 does not" in nagios.line([both])


def samples(result: Result) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("flashpol_probe_"), sample.labels.get("way", "")): sample.value
        for family in text_string_to_metric_families(metrics.exposition([result]))
        for sample in family.samples
    }


def test_metrics_have_a_row_for_each_way(both: Result) -> None:
    found = samples(both)
    assert (found["rtmp_works", "rtmp"], found["rtmp_works", "rtmpt"]) == (1, 0)
    assert 0 < found["rtmp_seconds", "rtmp"] < 5


def test_metrics_of_two_ways_to_one_port_are_no_duplicates(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rtmps without a port means RTMPS and RTMPTS on the same one."""
    ca = make_ca(tmp_path_factory.mktemp("ca"))
    with Server(inside(ca.issue("127.0.0.1"), media())) as running:
        monkeypatch.setitem(url.WAYS, "rtmps", (Way("rtmps", running.port), Way("rtmpts", running.port)))
        result = Result.of(look_at_media("rtmps://127.0.0.1", ca=str(ca.file)))
    written = metrics.exposition([result])
    series = [line.rpartition(" ")[0] for line in written.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert samples(result)["rtmp_works", "rtmps"] == 1
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=written, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_changes_name_the_way_that_fails_now(tunnel: Result) -> None:
    number = port(tunnel)
    with Server(refusing(http("502 Bad Gateway")), port=number):
        after = Result.of(look_at_media(f"rtmpt://127.0.0.1:{number}/live"))
    told = changes(tunnel, after)
    assert f"- RTMPT on port {number} at 127.0.0.1: works" in told
    assert f"+ RTMPT on port {number} at 127.0.0.1: replies to /open with 502 Bad Gateway" in told
    assert changes(tunnel, tunnel) == []
