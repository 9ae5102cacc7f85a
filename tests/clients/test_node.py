"""node's tls module: a policy and an echo, with half-close."""

import json
import subprocess
from pathlib import Path

import pytest

from testkit.client_fixtures import Echo
from testkit.client_site import POLICY, ClientSite
from testkit.polling import DEADLINE
from testkit.programs import needs

pytestmark = [pytest.mark.slow, needs("node")]
CLIENT = Path(__file__).with_name("tls_client.mjs")


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("host", ["localhost", "games.example.com"])
def test_node_gets_the_policy_and_its_bytes_back(site: ClientSite, echo: Echo, version: str, host: str) -> None:
    with site.serve(upstream=echo.address) as server:
        done = subprocess.run(
            ["node", CLIENT, str(server.place[1]), site.ca.root, host, version],
            capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "protocol": version, "authorized": True, "alpn": "http/1.1", "data": POLICY.decode() + "\0",
            "echo": True, "after": "bye",
        }  # fmt: skip
        server.counts(2, "tls_handshakes_total", version=version)
        server.counts(0, "tls_truncated_total")
