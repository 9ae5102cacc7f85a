"""What the reports say about TLS: text, JSON, the line for Nagios, metrics, changes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import broken
import pytest
import tls_servers
from cryptography import x509
from loopback import Handler, Server, look
from prometheus_client.parser import text_string_to_metric_families
from tls_servers import NAME, both, server_context

from flashpol.probe.report import Result, document, metrics, nagios, text
from flashpol.probe.report.changes import changes
from flashpol.probe.tls.judgement import DAY, duration, moment
from testkit.certificates import CA, in_days, make_ca


def plain(written: str, _: str) -> str:
    return written


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


def of(ca: CA, handler: Handler, **asked: Any) -> Result:
    with Server(handler) as server:
        return Result.of(look(server.port, tls=True, server_name=NAME, ca=str(ca.file), **asked))


@pytest.fixture(scope="module")
def good(ca: CA) -> Result:
    return of(
        ca, both(ca.issue(NAME, "a.example.com", "b.example.com", "c.example.com", intermediate=True, kind="rsa"))
    )


@pytest.fixture(scope="module")
def expired(ca: CA) -> Result:
    return of(ca, both(ca.issue(NAME, not_before=in_days(-20), not_after=in_days(-11.9))))


@pytest.fixture(scope="module")
def expiring(ca: CA) -> Result:
    return of(ca, both(ca.issue(NAME, not_after=in_days(9.1))))


@pytest.fixture(scope="module")
def refused(ca: CA) -> Result:
    return of(ca, tls_servers.alert(70))


# ------------------------------------------------------------------------------------------------------------- text


def lines_of(result: Result) -> list[str]:
    return [re.sub(r"^ +([0-9.]+ s  )?", "", line) for line in text.report(result, plain).split("\n")]


def test_text_of_good_server_describes_handshake_and_certificate(good: Result) -> None:
    lines = lines_of(good)
    assert re.fullmatch(r"port \d+ \(asked first, inside TLS\)", lines[3])
    assert re.fullmatch(r"TLS 1\.3, TLS_AES_\w+", lines[5])
    assert lines[8:12] == [
        "closed by the server, after close_notify",
        f"certificate for {NAME}, a.example.com, b.example.com and 1 more, until {moment(in_days(90).timestamp())[:10]}"
        " (90 days left)",
        "RSA of 2,048 bits, by Test root: intermediate; 2 certificates sent, trusted",
        "as AIR and Flash Player: TLS 1.2, ECDHE-RSA-AES256-SHA384",
    ]


def test_text_of_expired_certificate_says_since_when(expired: Result) -> None:
    lines = lines_of(expired)
    assert any(line.endswith("(expired 12 days ago)") for line in lines)
    assert "ECDSA on P-256, by Test root; 1 certificate sent, not trusted: certificate has expired" in lines
    assert "error PB511 certificate-expired: the certificate expired 12 days ago" in lines
    assert any(line.endswith("SecureSocket reports `expired`") for line in lines)


def test_text_of_refused_handshake_names_the_alert(refused: Result) -> None:
    assert "the server refuses the TLS handshake with alert 70 (protocol_version)" in lines_of(refused)


def test_text_of_missing_close_notify_says_so(ca: CA) -> None:
    lines = lines_of(of(ca, both(ca.issue(NAME), tls_servers.without_close_notify)))
    assert "closed by the server, without close_notify" in lines


def test_text_of_client_that_asks_nothing_says_who_closed(ca: CA) -> None:
    with Server(both(ca.issue(NAME))) as server:
        result = Result.of(look(1, port=server.port, tls=True, server_name=NAME, ca=str(ca.file), named=("browser",)))
    assert "closed by the probe: the clients that matter ask for no policy" in lines_of(result)


def test_text_of_thorough_probe_lists_the_versions(good: Result) -> None:
    [target] = good.observation.all_targets()
    tried = {"TLS 1.1": target.tried["flash"], "TLS 1.3": target.tried["flash"]}
    other = replace(target.tried["flash"][0], tls=target.handshake._replace(outcome="alert"))
    target.tried.update({**tried, "TLS 1.0": [other]})
    try:
        assert "versions: TLS 1.0 no, TLS 1.1 yes, TLS 1.3 yes" in lines_of(good)
    finally:
        for name in ("TLS 1.0", *tried):
            del target.tried[name]


HOSTILE = "\x1b]0;title\x07\x1b[2J\u202eevil\r\nmore"


def test_reports_of_hostile_certificate_are_printable(ca: CA, tmp_path: Path) -> None:
    leaf = tls_servers.signed(ca.root, HOSTILE, dns_name="x\x1b[2J.example")
    files = ca.write([leaf.certificate], leaf.key, tmp_path)
    result = of(ca, both(files))
    assert isinstance(leaf.certificate, x509.Certificate)
    for written in (text.report(result, plain), nagios.line([result]), "\n".join(changes(result, of(ca, both(files))))):
        assert all(line.isprintable() for line in written.split("\n"))
    assert "evil" in text.report(result, plain)


@pytest.mark.parametrize("columns", [80, 60])
def test_text_in_narrow_terminal_fits(expired: Result, columns: int) -> None:
    result = Result(expired.observation, expired.conclusions, tuple(f for f in expired.findings if f.policy is None))
    lines = text.report(result, plain, columns).split("\n")
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()) == " ".join(text.report(result, plain).split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 hours"), (3600, "1 hour"), (47 * 3600, "47 hours"), (2 * DAY, "2 days"), (4000 * DAY, "4,000 days")],
)
def test_duration_is_in_days_or_hours(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_moment_of_any_time_is_text() -> None:
    assert moment(0) == "1970-01-01 00:00 UTC"
    assert moment(253402300799) == "9999-12-31 23:59 UTC"  # what certificates without an end have
    assert moment(1e30) == "an impossible time"


# ------------------------------------------------------------------------------------------------------------- JSON


def target_of(result: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    """The host, and the first of its targets."""
    [host] = json.loads(json.dumps(document.document([result])))["hosts"]
    return host, host["addresses"][0]["places"][0]


def test_json_of_good_server_has_handshake_and_certificate(good: Result) -> None:
    host, target = target_of(good)
    assert (host["tls"], host["server_name"], host["ok"]) == (True, NAME, True)
    certificate = target["certificate"]
    assert certificate["names"] == [NAME, "a.example.com", "b.example.com", "c.example.com"]
    assert (certificate["sent"], certificate["trusted"], certificate["verify_code"]) == (2, True, 0)
    assert certificate["not_after"] - certificate["not_before"] == pytest.approx(91 * DAY, abs=2)
    handshake = target["asked"]["tls"]
    assert (handshake["outcome"], handshake["version"], handshake["close_notify"]) == ("completed", "TLS 1.3", True)
    assert handshake["alert"] is None
    assert target["tried"]["flash"][0]["tls"]["version"] == "TLS 1.2"
    assert target["tried"]["plain"][0]["tls"] is None
    assert [event["what"] for event in target["asked"]["events"]][:2] == ["connected", "secured"]


def test_json_of_refused_handshake_has_the_alert(refused: Result) -> None:
    host, target = target_of(refused)
    assert (host["ok"], target["certificate"], target["asked"]["end"]) == (False, None, "aborted")
    assert (target["asked"]["tls"]["outcome"], target["asked"]["tls"]["alert"]) == ("alert", 70)


def test_json_of_expired_certificate_has_the_error_of_openssl(expired: Result) -> None:
    _, target = target_of(expired)
    assert (target["certificate"]["trusted"], target["certificate"]["verify_code"]) == (False, 10)


def test_json_without_tls_has_none() -> None:
    with Server(broken.answering()) as server:
        host, target = target_of(Result.of(look(server.port)))
    assert (host["tls"], target["certificate"], target["asked"]["tls"]) == (False, None, None)


# ----------------------------------------------------------------------------------------------------------- Nagios


def test_nagios_of_good_server_has_the_time_to_expiry(good: Result) -> None:
    assert nagios.status([good]) == nagios.OK
    line = nagios.line([good])
    assert line.startswith("FLASHPOL OK - 127.0.0.1: policy inside TLS on port ")
    [left] = re.findall(r" certificate=(\d+)s;1209600:;0: ", line)
    assert int(left) == pytest.approx(90 * DAY, abs=60)


def test_nagios_warns_fourteen_days_before_expiry(expiring: Result, expired: Result) -> None:
    assert nagios.status([expiring]) == nagios.WARNING
    assert "PB513 the certificate expires in 9 days" in nagios.line([expiring])
    assert nagios.status([expired]) == nagios.CRITICAL
    assert " certificate=-" in nagios.line([expired])


def test_nagios_of_clients_that_ask_nothing_says_that_tls_works(ca: CA) -> None:
    with Server(both(ca.issue(NAME))) as server:
        result = Result.of(look(1, port=server.port, tls=True, server_name=NAME, ca=str(ca.file), named=("browser",)))
    assert nagios.line([result]).startswith("FLASHPOL OK - 127.0.0.1: TLS works | certificate=")


# ---------------------------------------------------------------------------------------------------------- metrics


def samples(result: Result) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(metrics.exposition([result])):
        for sample in family.samples:
            yield sample.name.removeprefix("flashpol_probe_"), sample.labels, sample.value


def test_metrics_of_good_server_have_certificate_and_handshake(good: Result) -> None:
    found = {name: (labels, value) for name, labels, value in samples(good)}
    assert set(found) == {name for name in metrics.METRICS if not name.startswith(("websocket_", "rtmp_"))}
    _, expires = found["tls_certificate_not_after_timestamp_seconds"]
    assert expires == pytest.approx(in_days(90).timestamp(), abs=60)
    labels, _ = found["tls_info"]
    assert (labels["version"], labels["address"]) == ("TLS 1.3", "127.0.0.1")
    _, certificate = target_of(good)
    assert found["tls_certificate_info"][0]["sha256"] == certificate["certificate"]["sha256"]
    assert 0 < found["tls_handshake_seconds"][1] < found["reply_seconds"][1]


def test_metrics_of_refused_handshake_have_none_about_certificates(refused: Result) -> None:
    assert not any(name.startswith("tls_") for name, _, _ in samples(refused))


def test_metrics_of_good_server_pass_promtool(good: Result) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool here")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.exposition([good]), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------------------- changes


def test_changes_after_a_renewal_name_the_certificate(ca: CA) -> None:
    with Server(both(ca.issue(NAME, not_after=in_days(20)))) as server:
        before = Result.of(look(server.port, tls=True, server_name=NAME, ca=str(ca.file)))
        again = Result.of(look(server.port, tls=True, server_name=NAME, ca=str(ca.file)))
    with Server(both(server_context(ca.issue(NAME), highest="TLSv1_2")), port=server.port):
        after = Result.of(look(server.port, tls=True, server_name=NAME, ca=str(ca.file)))
    assert changes(before, again) == []
    told = changes(before, after)
    gone, new = [line[2:] for line in told if line[0] == "-"], [line[2:] for line in told if line[0] == "+"]
    assert [line.split(" at ")[0] for line in gone] == [line.split(" at ")[0] for line in new] == ["certificate", "TLS"]
    assert f": {NAME}, until {moment(in_days(90).timestamp())[:10]}, sha256 " in new[0]
    assert new[1].endswith(": TLS 1.2, ECDHE-ECDSA-AES256-GCM-SHA384")
