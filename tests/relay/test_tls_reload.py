"""A reload with a new certificate: no reply is lost, open connections keep theirs, and a bad one changes nothing."""

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.application import Application, application, receive
from testkit.clients import REQUEST, ask, connect
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol
from testkit.tls import WHOLE, TlsClient, only, tls_ask, tls_connect
from testkit.tls_serving import issue, leaf
from testkit.tls_site import REPLY, TlsSite, settled

pytestmark = pytest.mark.slow
OLD, NEW = issue("games.test"), issue("games.test", "new.games.test")
ASKERS = 4
RELOADS = 4


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as one:
        one.listening.settimeout(DEADLINE)
        yield one


@pytest.fixture
def site(tmp_path: Path, app: Application) -> TlsSite:
    made = TlsSite(tmp_path, app.remote)
    made.install(OLD)
    return made


def reload(server: Flashpol) -> int:
    return server.get("/-/reload", "POST").status


def served(server: Flashpol) -> bytes:
    with tls_connect(server.place, name="games.test") as client:
        return client.certificate


def test_reload_with_a_new_certificate_under_load_loses_no_reply(site: TlsSite) -> None:
    with site.serve(workers=2) as server:
        stop, replies, errors = threading.Event(), Counter[bytes](), []

        def keep_asking() -> None:
            context = only(ssl.TLSVersion.TLSv1_3)
            while not stop.is_set():
                try:
                    with tls_connect(server.place, context, name="games.test") as client:
                        client.send(REQUEST)
                        assert client.until_end() == (REPLY, WHOLE)
                        replies[client.certificate] += 1
                except BaseException as error:
                    errors.append(error)
                    return

        askers = [threading.Thread(target=keep_asking, daemon=True) for _ in range(ASKERS)]
        for asker in askers:
            asker.start()
        for number in range(RELOADS):
            pair = (NEW, OLD)[number % 2]
            before = replies.copy()
            site.install(pair)
            assert reload(server) == 200
            eventually(lambda pair=pair, before=before: replies[leaf(pair)] > before[leaf(pair)] or errors)  # type: ignore[misc]
        stop.set()
        for asker in askers:
            asker.join(DEADLINE)
        assert not errors
        assert set(replies) == {leaf(OLD), leaf(NEW)}
        metrics = settled(server)
        assert metrics.total("tls_handshakes_total") == replies.total()
        assert metrics.total("replies_total") == replies.total()
        assert server.stop() == 0
        assert not server.complaints


def test_sessions_keep_their_certificate_over_a_reload(site: TlsSite, app: Application) -> None:
    """They go on in the old worker."""
    with site.serve() as server, tls_connect(server.place) as client:
        client.send(b"ping")
        with app.accept() as inner:
            assert receive(inner, 4) == b"ping"
            site.install(NEW)
            assert reload(server) == 200
            assert served(server) == leaf(NEW)
            time.sleep(0.6)  # longer than shutdown_timeout
            for _ in range(3):
                client.send(b"ping")
                assert receive(inner, 4) == b"ping"
                inner.sendall(b"pong")
                assert client.receive(4) == b"pong"
            assert client.certificate == leaf(OLD)
        assert client.until_end() == (b"", WHOLE)
        client.sock.close()
        settled(server)


@pytest.mark.parametrize("complete", [True, False], ids=["inside TLS", "in the handshake"])
def test_client_that_has_not_asked_yet_gets_its_reply_over_a_reload(site: TlsSite, complete: bool) -> None:
    site.configure("tls_handshake_timeout = 30\nrequest_timeout = 30\nfirst_byte_timeout = 30", shutdown_timeout=10)
    with site.serve() as server, connect(server.place) as sock:
        client = TlsClient(sock, only(ssl.TLSVersion.TLSv1_2))
        if complete:
            client.handshake()
        else:
            first = client.hello()
            sock.sendall(first[:100])
            eventually(lambda: server.metrics().total("connections_open") == 1)
        site.install(NEW)
        assert reload(server) == 200
        assert served(server) == leaf(NEW)
        if not complete:
            sock.sendall(first[100:])
            client.handshake()
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
        assert client.certificate == leaf(OLD)
        settled(server)


@pytest.mark.parametrize("wrong", ["key of another", "no certificate", "missing"])
def test_reload_with_a_bad_certificate_changes_nothing(site: TlsSite, wrong: str) -> None:
    with site.serve() as server:
        if wrong == "missing":
            (site.folder / "games.key").unlink()
        else:
            site.install(NEW._replace(key=OLD.key) if wrong == "key of another" else NEW._replace(chain=b"junk\n"))
        assert reload(server) != 200
        assert served(server) == leaf(OLD)
        assert tls_ask(server.place, REQUEST) == (REPLY, WHOLE)
        assert ask(server.place) == REPLY
        assert "games" in server.complaints[-1]
        site.install(NEW)
        assert reload(server) == 200
        assert served(server) == leaf(NEW)
        settled(server)


def test_reload_that_takes_tls_away_refuses_it(site: TlsSite) -> None:
    site.upstream = None
    site.configure()
    with site.serve() as server:
        assert served(server) == leaf(OLD)
        site.configure(certificates=())
        assert reload(server) == 200
        with connect(server.place, TlsClient(None).hello()) as client:
            assert client.recv(1) == b""
        assert ask(server.place) == REPLY
        server.counts(1, "refused_total", reason="tls")
        assert server.stop() == 0


def test_tickets_of_one_worker_are_taken_by_the_other_and_after_a_reload_at_most_refused(site: TlsSite) -> None:
    """A ticket that a server cannot read costs a full handshake, no error."""
    site.configure(listener="tls_tickets = 2")
    context = only(ssl.TLSVersion.TLSv1_3)
    with site.serve(workers=2) as server:
        resumed = 0
        with tls_connect(server.place, context) as client:
            client.send(REQUEST)
            assert client.until_end() == (REPLY, WHOLE)
            session = client.tls.session
        for _ in range(8):
            with tls_connect(server.place, context, session=session) as client:
                client.send(REQUEST)
                assert client.until_end() == (REPLY, WHOLE)
                assert client.tls.session_reused
                resumed += 1
        assert settled(server).total("tls_resumed_total") == resumed
        assert reload(server) == 200
        with tls_connect(server.place, context, session=session) as client:
            client.send(REQUEST)
            assert client.until_end() == (REPLY, WHOLE)
        settled(server)
