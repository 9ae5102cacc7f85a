"""The reports: safe text, JSON, a line for Nagios, metrics that promtool accepts, changes."""

import json
import re
import shutil
import subprocess

import broken
import pytest
from broken import OPEN_POLICY, POLICY, answering
from loopback import SHORT, Handler, Server, closed_port, look
from prometheus_client.parser import text_string_to_metric_families

from flashpol.probe import Observation, Question
from flashpol.probe.exchange import Address, Exchange, Reached
from flashpol.probe.model import Role, Target
from flashpol.probe.report import Result, document, metrics, nagios, text
from flashpol.probe.report.changes import changes


def plain(written: str, _: str) -> str:
    return written


def of(handler: Handler, **asked: object) -> Result:
    with Server(handler) as server:
        return Result.of(look(server.port, **asked))


@pytest.fixture(scope="module")
def good() -> Result:
    return of(answering())


@pytest.fixture(scope="module")
def bad() -> Result:
    return of(broken.reading_22)


def untried() -> Result:
    here = Address(2, "192.0.2.1")
    target = Target(Role.MASTER, here, 843, Exchange(here, 843, Reached.UNTRIED, 0.0, "Network is unreachable"))
    return Result.of(Observation("games.example.com", Question(), {here: (target,)}))


# ------------------------------------------------------------------------------------------------------------- text


def test_text_of_good_server_has_timeline_and_conclusions(good: Result) -> None:
    lines = text.report(good, plain).split("\n")
    assert lines[0] == "127.0.0.1: 1 note"
    assert re.fullmatch(r"  port \d+ \(asked first\)", lines[3])
    whats = [re.sub(r"^ +[0-9.]+ s  ", "", line) for line in lines[4:8]]
    assert whats == [
        "connected",
        'sent 23 bytes: "<policy-file-request/>\\0"',
        f'received {len(POLICY) + 1} bytes, the last a NUL: "<cross-domain-policy><site-control permi"'
        f" and {len(POLICY) + 1 - 40} more bytes",
        "closed by the server",
    ]
    assert any(re.fullmatch(r"  flash       finds a policy, after \d\.\d\d s", line) for line in lines)


def test_text_of_finding_has_place_evidence_and_remedy(bad: Result) -> None:
    written = text.report(bad, plain)
    found = written[written.index("error PB301") :].split("\n")
    assert found[0].startswith("error PB301 reset: the server sends RST after the reply (3 of 3)")
    assert re.fullmatch(r"  at:   127\.0\.0\.1:\d+", found[1])
    assert found[2] == f"  seen: {len(POLICY) + 1} bytes, then reset: 3 of 3 tries"
    assert found[3].startswith("  do:   read the whole request, all 23 bytes")


def test_text_of_equal_findings_names_all_places_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from flashpol.probe import experiments

    monkeypatch.setattr(experiments, "resolve", lambda host: [Address(2, "127.0.0.1"), Address(2, "127.0.0.2")])
    with Server(answering(POLICY)) as one, Server(answering(POLICY), "127.0.0.2", one.port):
        written = text.report(Result.of(look(one.port)), plain)
    assert written.count("note PB210") == 1
    assert re.search(r"at:   127\.0\.0\.1:(\d+), 127\.0\.0\.2:\1\n", written)


@pytest.mark.parametrize("columns", [80, 60, 1])
def test_text_in_narrow_terminal_fits(columns: int) -> None:
    bad = of(broken.reading_22, ignored=frozenset(("PB110", "FP507")))  # lines of policies are cut, not folded
    lines = text.report(bad, plain, columns).split("\n")
    assert max(map(len, lines)) <= max(columns, 60)
    assert " ".join(" ".join(lines).split()) == " ".join(text.report(bad, plain).split())
    painted = text.report(bad, lambda written, colour: f"<{colour}>{written}</>", columns)
    assert re.sub(r"<[0-9;]+>|</>", "", painted).split("\n") == lines


HOSTILE = b"\x1b]0;title\x07\x1b[2J\x9b31m\r\n<cross-domain-policy>\x1b[31m<\xe2\x80\xaeallow/>\x07"


@pytest.mark.parametrize("reply", [HOSTILE, b"SSH-" + HOSTILE[:30], b"HTTP/1.1 " + HOSTILE, POLICY + b"\0" + HOSTILE])
def test_reports_of_hostile_reply_are_printable(reply: bytes) -> None:
    result = of(answering(reply + b"\0"))
    for written in (text.report(result, plain), nagios.line([result])):
        assert all(line.isprintable() for line in written.split("\n"))


def test_text_of_long_record_is_cut() -> None:
    assert len(text.report(of(broken.endless), plain).split("\n")) < 50


# ------------------------------------------------------------------------------------------------------------- JSON


def test_json_of_two_hosts_has_the_documented_fields(bad: Result) -> None:
    data = json.loads(json.dumps(document.document([bad, untried()])))
    assert data["version"] == 1
    assert data["summary"] == {"hosts": 2, "errors": 1, "warnings": 0, "notes": 2}
    host, other = data["hosts"]
    assert (host["host"], host["error"], host["ok"], other["ok"]) == ("127.0.0.1", None, False, True)
    [address] = host["addresses"]
    assert (address["address"], address["family"]) == ("127.0.0.1", "ipv4")
    master, silverlight, http = address["places"]
    assert (silverlight["role"], http["role"]) == ("silverlight", "silverlight-http")
    assert (master["role"], master["kind"], master["policy_bytes"]) == ("master", "policy", len(POLICY))
    assert (master["asked"]["reached"], master["asked"]["end"]) == ("connected", "reset")
    assert [event["what"] for event in master["asked"]["events"]] == ["connected", "sent", "received", "ended"]
    assert (silverlight["asked"]["reached"], silverlight["asked"]["end"]) == ("refused", None)
    assert [client["client"] for client in address["clients"]] == ["flash", "lightspark", "unity", "silverlight"]
    finding = host["findings"][0]
    assert (finding["code"], finding["severity"], finding["policy"]) == ("PB301", "error", None)
    assert host["findings"][1]["policy"]["code"] == host["findings"][1]["code"] == "FP507"


# ----------------------------------------------------------------------------------------------------------- Nagios


def test_nagios_of_good_and_bad_host_is_one_line_with_performance_data(good: Result, bad: Result) -> None:
    assert nagios.status([good]) == nagios.OK
    assert re.fullmatch(
        r"FLASHPOL OK - 127\.0\.0\.1: policy on port \d+"
        rf" \| time=0\.\d{{4}}s;1;3;0 size={len(POLICY) + 1}B;4000;5000;0 errors=0;;0;0 warnings=0;0;;0",
        nagios.line([good]),
    )
    assert nagios.status([good, bad]) == nagios.CRITICAL
    line = nagios.line([good, bad])
    assert line.startswith("FLASHPOL CRITICAL - 127.0.0.1: policy on port ")
    assert "; 127.0.0.1: PB301 the server sends RST" in line
    assert "'127.0.0.1 errors'=1;;0;0" in line
    assert line.count("|") == 1
    assert "\n" not in line


def test_nagios_of_warning_is_warning() -> None:
    result = of(answering(OPEN_POLICY + b"\0\0"))
    assert nagios.status([result]) == nagios.WARNING
    assert nagios.line([result]).startswith("FLASHPOL WARNING - 127.0.0.1: PB215 ")


def test_nagios_of_untried_host_is_unknown(good: Result) -> None:
    assert nagios.status([untried()]) == nagios.status([good, untried()]) == nagios.UNKNOWN
    assert nagios.line([untried()]).startswith("FLASHPOL UNKNOWN - games.example.com: this machine cannot try it")


# ---------------------------------------------------------------------------------------------------------- metrics


def test_metrics_of_good_host_pass_promtool(good: Result) -> None:
    exposition = metrics.exposition([good])
    if not shutil.which("promtool"):
        pytest.skip("no promtool here")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def samples(result: Result) -> dict[tuple[str, str], float]:
    """(name, the label that tells it from others of the host) -> value."""
    return {
        (
            sample.name.removeprefix("flashpol_probe_"),
            sample.labels.get("client") or sample.labels.get("severity", ""),
        ): (sample.value)
        for family in text_string_to_metric_families(metrics.exposition([result]))
        for sample in family.samples
    }


def test_metrics_of_good_and_bad_host_have_the_documented_values(good: Result, bad: Result) -> None:
    found = samples(good)
    assert {name for name, _ in found} == {
        name for name in metrics.METRICS if not name.startswith(("tls_", "websocket_", "rtmp_"))
    }
    assert found["success", ""] == 1
    assert found["policy_bytes", ""] == len(POLICY)
    assert found["requests", ""] == 3
    assert found["requests_lost", ""] == 0
    assert (found["client_connects", "flash"], found["client_connects", "silverlight"]) == (1, 0)
    assert (samples(bad)["success", ""], samples(bad)["findings", "error"]) == (0, 1)


def test_metrics_of_silent_server_have_infinite_wait() -> None:
    assert samples(of(broken.silent, timeouts=SHORT))["client_wait_seconds", "lightspark"] == float("inf")


def test_metrics_of_odd_host_name_escape_labels() -> None:
    result = Result.of(Observation('a"b\\c\nd', Question(), unresolved="no such name"))
    [family, *_] = text_string_to_metric_families(metrics.exposition([result]))
    assert family.samples[0].labels == {"host": 'a"b\\c\nd'}


# ---------------------------------------------------------------------------------------------------------- changes


def test_changes_of_equal_results_are_empty(good: Result) -> None:
    assert changes(good, good) == []
    assert changes(good, of(answering())) != []  # on another port


def test_changes_after_server_stopped_list_what_is_gone() -> None:
    with closed_port() as silverlight, Server(answering()) as server:
        before = Result.of(look(server.port, silverlight))
        again = Result.of(look(server.port, silverlight))
    after = Result.of(look(server.port, silverlight))
    assert changes(before, again) == []
    told = changes(before, after)
    assert "- flash at 127.0.0.1: finds a policy" in told
    assert "+ flash at 127.0.0.1: cannot tell" in told
    assert any(line.startswith(f"- policy at 127.0.0.1:{server.port}: {len(POLICY)} bytes") for line in told)
    assert any(line.startswith(f"+ error PB106 no-policy at 127.0.0.1:{server.port}: ") for line in told)
