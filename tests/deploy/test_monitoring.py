"""A real Prometheus scrapes a real flashpol in use: each query of the dashboard and of the rules returns data."""

import contextlib
import json
import math
import re
import socket
import ssl
import struct
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.application import Application, application, receive
from testkit.certificates import CertificateFiles, make_ca
from testkit.clients import REQUEST, ask, connect, rest
from testkit.monitoring import ALERTS, RECORDING, SCRAPE, Query, all_queries, load, needs_prometheus, rules
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.rtmpt_client import RtmptClient
from testkit.upgrades import CLOSE, upgrade

pytest.importorskip("flashpol._tls", reason="flashpol was built without OpenSSL")
pytestmark = [needs_prometheus, pytest.mark.slow]

PATIENCE = 30.0  # for a query's first data: two scrapes for a rate, an evaluation, a busy machine
OFTEN = "500ms"
WORKERS = 2
KILLS = 5  # more than FlashpolWorkerFlapping allows
CONFIG = """
[server]
request_timeout = 0.2

[policies.games]
grants = [{domain = "*.example.com", ports = "1935"}]

[policies.chat]
grants = [{domain = "chat.example.com", ports = "6667"}]

[[listeners]]
name = "games"
address = "127.0.0.1:0"
policy = "games"

[[listeners]]
name = "chat"
address = "127.0.0.1:0"
policy = "chat"

[[listeners]]
name = "secure"
address = "127.0.0.1:0"
policy = "games"
tls = ["games"]

[[listeners]]
name = "shared"
address = "127.0.0.1:0"
policy = "games"
upstream = "{upstream}"
rtmpt = true
[[listeners.websocket]]
path = "/chess"
port = 1935
"""
# Queries without a result on a healthy server, and why.
EMPTY = {"alert FlashpolNotScraped": "absent() has a value only when there is no target"}


class Prometheus:
    """The Prometheus server as a process, with the files of deploy/, on a port that the kernel picks."""

    def __init__(self, folder: Path, target: str) -> None:
        config = load(SCRAPE)
        config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), OFTEN)
        [scrape] = config["scrape_configs"]
        scrape["static_configs"] = [{"targets": [target]}]
        config["rule_files"] = [str(SCRAPE.parent / name) for name in config["rule_files"]]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> "Prometheus":
        try:
            pattern = re.compile(r'"?Listening on"? address=(127\.0\.0\.1:[1-9]\d*)')
            self._place = eventually(
                lambda: self._running() and pattern.search(self.log), "Prometheus listens", PATIENCE
            )[1]
            eventually(self._ready, "Prometheus is ready", PATIENCE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(DEADLINE)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _running(self) -> bool:
        assert self._process.poll() is None, self.log
        return True

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):  # it responds with 503 while it starts
            return self._get("/-/ready").status == 200
        return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://{self._place}{path}?{urllib.parse.urlencode(parameters)}"
        return urllib.request.urlopen(url, timeout=DEADLINE)

    def api(self, path: str, **parameters: str) -> Any:
        with self._get(f"/api/v1/{path}", **parameters) as reply:
            document = json.load(reply)
        assert document["status"] == "success"
        return document["data"]

    def values(self, query: str) -> list[float]:
        """The values that are numbers: 0 divided by 0 is no data."""
        found = [float(sample["value"][1]) for sample in self.api("query", query=query)["result"]]
        return [value for value in found if not math.isnan(value)]


class Traffic:
    """Clients of every kind; counts what they got."""

    def __init__(self, server: Flashpol, app: Application, certificate: CertificateFiles) -> None:
        *self._places, self._secure, self._shared = server.places
        self._contexts = [ssl.create_default_context(cafile=file) for file in (str(certificate.ca), None)]
        self._app = app
        self.replied = self.refused = self.timed_out = self.left = self.secure = self.upgrades = self.tunnels = 0

    def session(self) -> None:
        with connect(self._shared, b"hello") as client:
            with self._app.accept() as inner:
                assert receive(inner, 5) == b"hello"
                inner.sendall(b"you")
            assert rest(client) == b"you"

    def websocket(self) -> None:
        """A page that may connect, and one that may not."""
        with connect(self._shared, upgrade("/chess", "https://www.example.com")) as client:
            with self._app.accept() as inner:
                assert receive(client, 12) == b"HTTP/1.1 101"
                client.sendall(CLOSE)
                assert rest(inner) == b""
            rest(client)
        assert rest(connect(self._shared, upgrade("/chess", "https://evil.example"))).startswith(b"HTTP/1.1 403")
        self.upgrades += 1

    def tunnel(self) -> None:
        """A tunnel session, by two connections."""
        with RtmptClient(self._shared) as client:
            assert client.open().status == 200
            with self._app.accept() as inner:
                for via in (0, 1):
                    assert client.send(b"x", via=via).status == 200
                assert client.close().status == 200
                assert rest(inner) == b"xx"
        self.tunnels += 1

    def shake(self) -> None:
        """A TLS client, and one that does not trust the certificate."""
        trusting, distrustful = self._contexts
        with trusting.wrap_socket(connect(self._secure), server_hostname="games.example.com") as client:
            client.sendall(REQUEST)
            assert rest(client).endswith(b"</cross-domain-policy>\0")
        self.replied += 1
        self.secure += 1
        with connect(self._secure) as plain, pytest.raises(ssl.SSLCertVerificationError):
            distrustful.wrap_socket(plain, server_hostname="games.example.com")

    def round(self) -> None:
        self.session()
        self.websocket()
        self.tunnel()
        self.shake()
        for place in self._places:
            for _ in range(5):
                assert ask(place).endswith(b"</cross-domain-policy>\0")
                self.replied += 1
            for stranger in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n"):
                with contextlib.suppress(ConnectionError):
                    rest(connect(place, stranger))
                self.refused += 1
            assert rest(connect(place)) == b""  # silent until the deadline
            self.timed_out += 1
            with connect(place, b"<policy") as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.left += 1


@pytest.fixture(scope="module")
def app() -> Iterator[Application]:
    with application() as one:
        one.listening.settimeout(DEADLINE)
        yield one


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_ca(tmp_path_factory.mktemp("ca")).issue("games.example.com")


@pytest.fixture(scope="module")
def server(
    app: Application, certificate: CertificateFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flashpol]:
    path = tmp_path_factory.mktemp("flashpol") / "flashpol.toml"
    path.write_text(CONFIG.replace("{upstream}", str(app.remote)) + certificate.toml())
    with Flashpol("-c", path, listen=(), workers=WORKERS) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(server: Flashpol, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    target = "{}:{}".format(*server.admin_place)
    with Prometheus(tmp_path_factory.mktemp("prometheus"), target) as prometheus:
        eventually(lambda: prometheus.values('up{job="flashpol"}') == [1], "a scrape", PATIENCE)
        yield prometheus


@pytest.fixture(scope="module")
def traffic(server: Flashpol, app: Application, certificate: CertificateFiles, prometheus: Prometheus) -> Traffic:
    """Clients of every kind and killed workers, while Prometheus scrapes."""
    traffic = Traffic(server, app, certificate)
    traffic.round()
    for number in range(1, KILLS + 1):
        server.workers[0].kill()
        eventually(
            lambda number=number: server.metrics().total("worker_restarts_total") == number and server.up == WORKERS,
            "a successor",
        )
    traffic.round()
    return traffic


def test_every_query_after_traffic_returns_data(prometheus: Prometheus, traffic: Traffic) -> None:
    queries = list(all_queries())
    assert len(queries) > 60
    assert EMPTY.keys() <= {query.where for query in queries}
    missing = [query for query in queries if query.where not in EMPTY]

    def none_missing() -> bool:
        traffic.round()
        missing[:] = [query for query in missing if not prometheus.values(query.text)]
        return not missing

    with contextlib.suppress(AssertionError):
        eventually(none_missing, "data for all", PATIENCE)
    assert missing == []


@pytest.mark.parametrize("where", EMPTY)
def test_query_that_may_be_empty_is_valid(prometheus: Prometheus, traffic: Traffic, where: str) -> None:
    [query] = [Query(*query) for query in all_queries() if query.where == where]
    assert prometheus.values(query.text) == []


def test_every_rule_is_loaded_and_evaluated_without_an_error(prometheus: Prometheus, traffic: Traffic) -> None:
    def evaluated() -> list[dict[str, Any]]:
        loaded = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        return loaded if all(rule["health"] != "unknown" for rule in loaded) else []

    loaded = eventually(evaluated, "an evaluation of all rules", PATIENCE)
    assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in rules(ALERTS)} | {
        rule["record"] for rule in rules(RECORDING)
    }
    assert [(rule["name"], rule.get("lastError")) for rule in loaded if rule["health"] != "ok"] == []


def test_prometheus_has_the_numbers_that_the_clients_counted(prometheus: Prometheus, traffic: Traffic) -> None:
    expected = {
        "sum(flashpol_replies_total)": traffic.replied,
        "sum(flashpol_request_duration_seconds_count)": traffic.replied,
        'sum(flashpol_refused_total{reason=~"http|tls|rtmp|rtmpe|other"})': traffic.refused,
        'sum(flashpol_websocket_upgrades_total{result="accepted"})': traffic.upgrades,
        'sum(flashpol_websocket_closes_total{code="1000", by="client"})': traffic.upgrades,
        'sum(flashpol_refused_total{reason="origin"})': traffic.upgrades,
        'sum(flashpol_rtmpt_ends_total{by="client"})': traffic.tunnels,
        "sum(flashpol_rtmpt_sessions_total)": traffic.tunnels,
        "sum(flashpol_timeouts_total)": traffic.timed_out,
        'sum(flashpol_resets_total{listener!="secure"})': traffic.left,
        "sum(flashpol_tls_handshakes_total)": traffic.secure,
        "sum(flashpol_tls_handshake_duration_seconds_count)": traffic.secure,
        "sum(flashpol_tls_connections_open)": 0,
        "sum(flashpol_worker_restarts_total)": KILLS,
        "sum(flashpol_worker_up)": WORKERS,
    }

    def found() -> dict[str, float]:
        return {query: sum(prometheus.values(query)) for query in expected}

    with contextlib.suppress(AssertionError):
        eventually(lambda: found() == expected, "the same numbers")
    assert found() == expected


def test_alert_for_a_killed_worker_names_that_worker(prometheus: Prometheus, traffic: Traffic) -> None:
    def due() -> list[dict[str, Any]]:
        alerts = prometheus.api("alerts")["alerts"]
        return [alert for alert in alerts if alert["labels"]["alertname"] == "FlashpolWorkerFlapping"]

    [alert] = eventually(due, "an alert for the killed worker", PATIENCE)
    assert alert["annotations"]["summary"].startswith(f"Worker {alert['labels']['worker']} of flashpol on 127.0.0.1:")
    assert re.search(r"replaced about [\d.]+ times", alert["annotations"]["description"])
