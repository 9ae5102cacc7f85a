"""Policy files by URL of a running server: a changed file is served after a reload, and a wrong one changes nothing."""

import http.client
import signal
from pathlib import Path

import pytest

from testkit.polling import eventually
from testkit.processes import Flashpol

pytestmark = pytest.mark.slow

FILE = '<cross-domain-policy><allow-access-from domain="{}"/></cross-domain-policy>'


def request(server: Flashpol, method: str = "GET", path: str = "/crossdomain.xml?from=game") -> tuple[int, str]:
    host, port = server.place
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_reload_serves_the_changed_policy_file(tmp_path: Path) -> None:
    config, file = tmp_path / "flashpol.toml", tmp_path / "crossdomain.xml"
    config.write_text(
        '[server]\nworkers = 2\n[policies.main]\ngrants = [{domain = "*", ports = "1935"}]\n'
        '[[listeners]]\naddress = "127.0.0.1:0"\ncrossdomain_file = "crossdomain.xml"\n'
    )
    file.write_text(FILE.format("one.example"))
    with Flashpol("--config", config, listen=(), workers=None, admin=None) as server:
        assert request(server) == (200, FILE.format("one.example"))
        assert request(server, "HEAD") == (200, "")
        assert request(server, "POST")[0] == 405
        assert request(server, path="/clientaccesspolicy.xml")[0] == 404
        file.write_text(FILE.format("two.example"))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: request(server) == (200, FILE.format("two.example")))
        file.write_text(FILE.format("http://three.example"))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "FP305" in server.log)
        assert request(server) == (200, FILE.format("two.example"))
