"""A client as Flash in a browser over several workers: connections are cut, replies lost, workers killed."""

import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.client_fixtures import Echo
from testkit.cutting_relay import CuttingRelay
from testkit.flash_client import FlashClient
from testkit.polling import eventually
from testkit.processes import Flashpol
from testkit.tls import client_context
from testkit.tls_serving import AVAILABLE, issue
from testkit.tunnel_site import TunnelSite, reload

pytestmark = pytest.mark.slow
SIZE = 3 << 20
PIECES = 6


def site_of(folder: Path, echo: Echo) -> TunnelSite:
    return TunnelSite(folder, {"film": {"upstream": echo.address}}, rtmpt_session_timeout=30.0, shutdown_timeout=1.0)


@pytest.fixture(scope="module")
def behind() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture(scope="module")
def secure(behind: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    """With TLS."""
    folder, pair = tmp_path_factory.mktemp("secure"), issue("localhost")
    (folder / "cert.pem").write_bytes(pair.chain + pair.key)
    (folder / "cert.pem").chmod(0o600)
    site = TunnelSite(folder, {"film": {"upstream": behind.address, "tls": ["c"]}}, rtmpt_session_timeout=30.0)
    with site.serve(workers=2) as server:
        yield server


@pytest.fixture(scope="module")
def server(behind: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    with site_of(tmp_path_factory.mktemp("flash"), behind).serve(workers=2) as server:
        yield server


def echo_through(
    relay: CuttingRelay, seed: int, between: Callable[[FlashClient, int], None], tls: ssl.SSLContext | None = None
) -> FlashClient:
    """Send and receive SIZE bytes. between: called with the client and the number of the piece, when it is sent."""
    data = random.Random(seed).randbytes(SIZE)
    step = SIZE // PIECES
    with FlashClient(relay.place, seed=seed, tries=30, pace=0.1, tls=tls) as client:
        for piece in range(PIECES):
            begin = piece * step
            client.send(data[begin : begin + step])
            between(client, piece)
            received = client.receive_exactly(step)
            wrong = next((n for n in range(step) if received[n] != data[begin + n]), None)
            assert wrong is None, f"byte {begin + wrong}"
        assert client.received_nothing_more()
    return client


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_is_lost_or_changed_when_connections_are_cut(server: Flashpol, seed: int) -> None:
    before = server.metrics()
    with CuttingRelay(server.place, seed) as relay:
        client = echo_through(relay, seed, lambda client, piece: client.drop() if piece % 2 else None)
    assert relay.cuts > 10
    assert client.repeated > 5
    metrics = server.metrics()

    def more(name: str) -> float:
        return metrics.total(name) - before.total(name)

    assert more("rtmpt_repeated_total") > 0, "no reply was lost"
    assert more("rtmpt_reordered_total") > 0
    assert more("rtmpt_forwarded_total") > 10
    assert more("rtmpt_gaps_total") == 0
    eventually(lambda: server.metrics().total("rtmpt_sessions_open") == 0, "its end")


@pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
@pytest.mark.parametrize("seed", range(2))
def test_no_byte_is_lost_or_changed_inside_tls(secure: Flashpol, seed: int) -> None:
    with CuttingRelay(secure.place, seed, least=5000) as relay:
        client = echo_through(relay, seed, lambda client, piece: None, client_context())
    assert relay.cuts > 10
    assert client.repeated > 5
    assert secure.metrics().total("tls_handshakes_total") >= relay.connections / 2
    assert secure.metrics().total("rtmpt_forwarded_total") > 10


@pytest.mark.parametrize("seed", range(2))
def test_no_byte_is_lost_when_other_workers_die_and_the_server_reloads(behind: Echo, tmp_path: Path, seed: int) -> None:
    with site_of(tmp_path, behind).serve(workers=2) as server, CuttingRelay(server.place, seed) as relay:
        first = server.workers

        def disturb(client: FlashClient, piece: int) -> None:
            if piece == 1:
                reload(server)
            elif piece:  # the session is an old worker's
                victim = server.workers[piece % 2]
                assert victim not in first
                victim.kill()
                server.replaced(victim, 2)

        client = echo_through(relay, seed, disturb)
        assert client.repeated > 5
        metrics = server.metrics()
        server.counts(PIECES - 2, "worker_restarts_total")
        assert metrics.total("rtmpt_forwarded_total") > 10
        server.counts(0, "rtmpt_gaps_total")
        eventually(lambda: server.metrics().total("rtmpt_ends_total", by="client") == 1, "its end")
