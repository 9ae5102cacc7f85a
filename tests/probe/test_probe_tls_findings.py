"""Each finding about TLS against a server that has only this mistake, and none against correct servers."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broken
import pytest
import tls_servers
from broken import OPEN_POLICY, answering
from cryptography.x509.oid import ExtendedKeyUsageOID
from loopback import SHORT, Handler, Server, closed_port, look
from tls_servers import NAME, both, inside, server_context, signed

from flashpol.policy.findings import Severity
from flashpol.probe import Observation, experiments, findings
from flashpol.probe.client_models import conclusions
from flashpol.probe.findings import RULES
from flashpol.probe.tls import channel, x509
from flashpol.probe.tls.offers import Offer
from testkit.certificates import CertificateFiles, Issuer, in_days, make_ca, self_signed

CODES_OF_TLS = {rule.code for rule in RULES if rule.code.startswith("PB5")}


class Certificates:
    """A CA, and certificates of it with one deliberate mistake each."""

    def __init__(self, folder: Path) -> None:
        self.ca = make_ca(folder / "ca")
        self.folder = folder
        self.good = self.ca.issue(NAME, "127.0.0.1", intermediate=True)
        self.rsa = self.ca.issue(NAME, kind="rsa", intermediate=True)

    def issue(self, *names: str, **wanted: Any) -> CertificateFiles:
        return self.ca.issue(*(names or (NAME,)), **wanted)

    def chain(self, leaf: Issuer, *issuers: Issuer, name: str) -> CertificateFiles:
        return self.ca.write([leaf.certificate, *tls_servers.certificates(issuers)], leaf.key, self.folder / name)

    def ends_with_leaf(self) -> CertificateFiles:
        return tls_servers.chain_of(self.good, 1, self.folder / "leaf.pem")

    def self_signed(self) -> CertificateFiles:
        return self_signed(NAME, folder=self.folder / "self")

    def out_of_order(self) -> CertificateFiles:
        leaf = signed(self.ca.intermediate_issuer)
        return self.chain(leaf, self.ca.root, self.ca.intermediate_issuer, name="out of order")

    def under_expired_issuer(self) -> CertificateFiles:
        expired = signed(self.ca.root, "Old CA", ca=True, not_before=in_days(-90), not_after=in_days(-3))
        return self.chain(signed(expired), expired, name="under an expired issuer")

    def for_clients(self) -> CertificateFiles:
        leaf = signed(self.ca.root, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        return self.chain(leaf, name="for clients")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of the experiments are for networks and for limits, and these servers have neither."""
    monkeypatch.setattr(experiments, "PAUSE", 0.02)
    monkeypatch.setattr(experiments, "_GAP", 0.0)
    monkeypatch.setattr(experiments, "APPLICATION_IDLE", 0.3)


def ask(master: int, certificates: Certificates, /, **asked: Any) -> Observation:
    return look(master, **{"tls": True, "server_name": NAME, "ca": str(certificates.ca.file), **asked})


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation) if finding.code.startswith("PB")}


Make = Callable[[Certificates], Handler]
CBC_ONLY, GCM_ONLY = "AES256-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0", "ECDHE+AESGCM"

# What a server does -> the findings.
CASES: dict[str, tuple[Make, dict[str, Any], set[str]]] = {
    "correct": (lambda own: both(own.good), {}, set()),
    "correct, RSA": (lambda own: both(own.rsa), {}, set()),
    "correct, by address": (lambda own: both(own.good), {"server_name": None}, set()),
    "correct, TLS 1.2": (lambda own: both(server_context(own.good, highest="TLSv1_2")), {}, set()),
    "correct, TLS 1.0": (lambda own: both(server_context(own.good, highest="TLSv1")), {}, set()),
    "correct, CBC": (lambda own: both(server_context(own.rsa, highest="TLSv1_2", suites=CBC_ONLY)), {}, set()),
    "plain text only": (lambda _: answering(), {}, {"PB501"}),
    "plain text only, silent": (lambda _: broken.patient(broken.POLICY + b"\0"), {"timeouts": SHORT}, {"PB501"}),
    "TLS only": (lambda own: inside(own.good), {}, {"PB503"}),
    "TLS is for another program": (lambda own: both(own.good, broken.closing), {}, {"PB504"}),
    "TLS is for a chat": (lambda own: both(own.good, answering(b"220 chat\r\n")), {}, {"PB504"}),
    "nothing inside": (lambda own: inside(own.good, broken.closing), {}, {"PB202"}),
    "HTTP inside": (lambda own: inside(own.good, answering(b"HTTP/1.1 400 Bad\r\n\r\n")), {}, {"PB204"}),
    "handshake_failure": (lambda _: tls_servers.alert(40), {}, {"PB505"}),
    "unrecognized_name": (lambda _: tls_servers.alert(112), {}, {"PB505"}),
    "an alert of tomorrow": (lambda _: tls_servers.alert(199), {}, {"PB505"}),
    "silent": (lambda _: broken.silent, {"timeouts": SHORT}, {"PB506"}),
    "half a handshake": (lambda _: tls_servers.half_a_handshake, {"timeouts": SHORT}, {"PB506"}),
    "closes": (lambda _: broken.closing, {}, {"PB507"}),
    "resets": (lambda _: tls_servers.resetting, {}, {"PB507"}),
    "HTTP": (lambda _: tls_servers.sending(b"HTTP/1.1 400 Bad Request\r\n\r\n"), {}, {"PB508"}),
    "a byte": (lambda _: tls_servers.sending(b"?"), {}, {"PB508"}),
    "nonsense in a record": (lambda _: tls_servers.sending(b"\x16\x03\x03\0\x04\xff\xff\xff\xff"), {}, {"PB509"}),
    "expired": (lambda own: both(own.issue(not_before=in_days(-9), not_after=in_days(-2))), {}, {"PB511"}),
    "of tomorrow": (lambda own: both(own.issue(not_before=in_days(1))), {}, {"PB512"}),
    "expires soon": (lambda own: both(own.issue(not_after=in_days(13.9))), {}, {"PB513"}),
    "expires later": (lambda own: both(own.issue(not_after=in_days(14.1))), {}, set()),
    "another name": (lambda own: both(own.issue("www.example.com")), {}, {"PB514"}),
    "name in the subject only": (lambda own: both(own.issue(*[""], common_name=NAME)), {}, {"PB514"}),
    "no address": (lambda own: both(own.issue()), {"server_name": None}, {"PB514"}),
    "wildcard": (lambda own: both(own.issue("*.example.com")), {}, set()),
    "incomplete": (lambda own: both(own.ends_with_leaf()), {}, {"PB515"}),
    "self-signed": (lambda own: both(own.self_signed()), {}, {"PB516"}),
    "unknown CA": (lambda own: both(own.good), {"ca": None}, {"PB517"}),
    "expired issuer": (lambda own: both(own.under_expired_issuer()), {}, {"PB518"}),
    "for clients": (lambda own: both(own.for_clients()), {}, {"PB519"}),
    "weak key": (lambda own: both(own.issue(kind="rsa", bits=1024)), {}, {"PB520"}),
    "out of order": (lambda own: both(own.out_of_order()), {}, {"PB521"}),
    "TLS 1.3 only": (lambda own: both(server_context(own.good, lowest="TLSv1_3")), {}, {"PB530"}),
    "GCM only": (lambda own: both(server_context(own.good, highest="TLSv1_2", suites=GCM_ONLY)), {}, {"PB530"}),
    "no close_notify": (lambda own: both(own.good, tls_servers.without_close_notify), {}, {"PB533"}),
    "expired, another name, unknown CA": (
        lambda own: both(own.issue("www.example.com", not_before=in_days(-9), not_after=in_days(-2))),
        {"ca": None},
        {"PB511", "PB514", "PB517"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_findings_about_tls_are_expected(case: str, certificates: Certificates) -> None:
    make, asked, expected = CASES[case]
    with Server(make(certificates)) as running:
        seen = ask(running.port, certificates, **asked)
    assert codes(seen) == expected


def test_every_rule_about_tls_is_tested() -> None:
    tested = {code for _, _, expected in CASES.values() for code in expected}
    assert tested | {"PB502", "PB522", "PB531", "PB532", "PB523"} >= CODES_OF_TLS


def test_probe_without_tls_knows_no_finding_about_tls(certificates: Certificates) -> None:
    with Server(inside(certificates.good)) as running:
        assert codes(look(running.port)) == {"PB205"}


# ---------------------------------------------------------------------------------- the clients, and the content's port


def content_of(seen: Observation) -> dict[str, bool | None]:
    return {conclusion.client: conclusion.connects for conclusion in conclusions(seen)}


CONTENT = "https://www.example.com/game.swf"


def policy_for(port: int) -> Handler:
    policy = f'<cross-domain-policy><allow-access-from domain="*" to-ports="{port}"/></cross-domain-policy>'
    return broken.patient(policy.encode() + b"\0")


class Itself:
    """A handler that is made when the port is known."""

    def __init__(self, make: Callable[[int], Handler]) -> None:
        self._make = make
        self.port = 0

    def __call__(self, connection: Any) -> None:
        self._make(self.port)(connection)


def probe_content(certificates: Certificates, context: ssl.SSLContext, **asked: Any) -> Observation:
    """Probe a server that serves a policy for itself, as the content's own port."""
    handler = Itself(lambda port: both(context, policy_for(port)))
    with closed_port() as master, Server(handler) as running:
        handler.port = running.port
        return ask(master, certificates, port=running.port, content=CONTENT, **asked)


def test_clients_of_correct_server_connect(certificates: Certificates) -> None:
    seen = probe_content(certificates, server_context(certificates.good))
    assert content_of(seen) == {"flash": True, "air": True, "browser": True}


def test_clients_of_modern_server_are_browsers(certificates: Certificates) -> None:
    modern = server_context(certificates.good, lowest="TLSv1_3")
    seen = probe_content(certificates, modern)
    assert content_of(seen) == {"flash": False, "air": False, "browser": True}
    [finding] = [finding for finding in findings.of(seen) if finding.code == "PB531"]
    assert (finding.severity, finding.clients) == (Severity.WARNING, ("flash", "air"))
    [finding] = [f for f in findings.of(probe_content(certificates, modern, named=("air",))) if f.code == "PB531"]
    assert (finding.severity, finding.clients) == (Severity.ERROR, ("air",))
    assert codes(probe_content(certificates, modern, named=("browser",))) == set()


def test_clients_of_old_server_are_not_browsers(certificates: Certificates) -> None:
    seen = probe_content(certificates, server_context(certificates.good, highest="TLSv1_1"))
    assert content_of(seen) == {"flash": True, "air": True, "browser": False}
    [finding] = [finding for finding in findings.of(seen) if finding.code == "PB532"]
    assert (finding.severity, finding.clients) == (Severity.WARNING, ("browser",))


def test_clients_of_expired_certificate_do_not_connect(certificates: Certificates) -> None:
    expired = certificates.issue(not_before=in_days(-9), not_after=in_days(-2))
    seen = probe_content(certificates, server_context(expired))
    assert content_of(seen) == {"flash": False, "air": False, "browser": False}
    assert all("a certificate that expired 2 days ago" in conclusion.sentence for conclusion in conclusions(seen))


def test_policy_in_plain_text_beside_tls_is_a_note(certificates: Certificates) -> None:
    handler = Itself(lambda port: both(certificates.good, policy_for(port)))
    with Server(answering(OPEN_POLICY + b"\0")) as master, Server(handler) as running:
        handler.port = running.port
        seen = ask(master.port, certificates, port=running.port, content=CONTENT)
    assert codes(seen) == {"PB502"}
    assert content_of(seen)["flash"] is True


def test_content_port_with_trouble_keeps_flash_out_although_843_allows(certificates: Certificates) -> None:
    application = inside(certificates.issue("www.example.com"), broken.silent)
    handler = Itself(lambda port: both(certificates.good, policy_for(port)))
    with Server(application) as running, Server(handler) as master:
        handler.port = running.port
        seen = ask(master.port, certificates, port=running.port, content=CONTENT, timeouts=SHORT)
    assert content_of(seen) == {"flash": False, "air": False, "browser": False}
    [flash, *_] = conclusions(seen)
    assert flash.reason == f"port {running.port} itself has a certificate that is not for {NAME}"
    assert codes(seen) == {"PB514"}


def test_clients_that_ask_for_no_policy_are_sent_none(certificates: Certificates) -> None:
    received = []

    def application(connection: Any) -> None:
        received.append(connection.recv(100))

    with Server(inside(certificates.good, application)) as running, closed_port() as master:
        seen = ask(master, certificates, port=running.port, named=("browser",))
    assert set(received) == {b""}
    assert codes(seen) == set()
    assert content_of(seen) == {"browser": True}
    assert [target.port for target in seen.all_targets()] == [running.port]


# ------------------------------------------------------------------------------------------- how many, and what is said


def test_probe_inside_tls_opens_six_connections(certificates: Certificates) -> None:
    with Server(both(certificates.good)) as running:
        ask(running.port, certificates)
        assert running.connections == 6


def test_application_port_behind_master_gets_two_connections(certificates: Certificates) -> None:
    with Server(both(certificates.good)) as master, Server(inside(certificates.good, broken.silent)) as application:
        ask(master.port, certificates, port=application.port, timeouts=SHORT)
        assert application.connections == 2


def test_refused_name_is_in_the_remedy(certificates: Certificates) -> None:
    with Server(tls_servers.alert(112)) as running:
        [finding] = findings.of(ask(running.port, certificates))
    assert "alert 112 (unrecognized_name)" in finding.message
    assert finding.instead.startswith(f"add a certificate for {NAME}")


@pytest.mark.parametrize("highest", ["TLSv1_2", "TLSv1_3"])
def test_client_certificate_that_is_required_is_an_alert(certificates: Certificates, highest: str) -> None:
    """With TLS 1.3 the client's handshake is complete before the server refuses it."""
    context = server_context(certificates.good, highest=highest)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca.file)
    with Server(inside(context)) as running:
        [finding] = [f for f in findings.of(ask(running.port, certificates)) if f.severity is Severity.ERROR]
    assert finding.code == "PB505"
    assert "client certificate" in finding.instead


def test_machine_without_ca_certificates_accuses_no_server(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "machine_has_cas", lambda: False)
    with Server(both(certificates.good)) as running:
        assert codes(ask(running.port, certificates, ca=None)) == {"PB522"}
        assert codes(ask(running.port, certificates)) == set()


def test_issuer_of_a_public_ca_that_is_not_sent_is_an_incomplete_chain(certificates: Certificates) -> None:
    """Without --ca: the certificate says where its issuer's is, as those of public CAs do."""
    leaf = signed(certificates.ca.intermediate_issuer, issuer_url="http://ca.example/intermediate.der")
    with Server(both(certificates.chain(leaf, name="public"))) as running:
        [finding] = [f for f in findings.of(ask(running.port, certificates, ca=None)) if f.severity is Severity.ERROR]
    assert finding.code == "PB515"
    assert "it is at http://ca.example/intermediate.der" in finding.evidence


def test_offer_that_this_machine_cannot_make_proves_nothing(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OpenSSL with FIPS, for example, may have no CBC suite."""
    monkeypatch.setattr(Offer, "as_flash", lambda offer: offer._replace(suites="NONE"))
    with Server(both(certificates.good)) as running:
        seen = ask(running.port, certificates)
        assert running.connections == 6
    assert codes(seen) == set()
    assert "flash" not in seen.all_targets()[0].tried


def test_certificate_that_cannot_be_read_is_rejected_if_openssl_rejects_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(x509, "read", lambda data: None)
    with Server(both(certificates.self_signed())) as running:
        assert codes(ask(running.port, certificates)) == {"PB519"}


def test_host_with_a_dot_at_its_end_is_sent_without_it(certificates: Certificates) -> None:
    context, names = server_context(certificates.good), []
    context.sni_callback = lambda session, name, _: names.append(name)
    with Server(both(context)) as running:
        assert codes(ask(running.port, certificates, server_name=f"{NAME}.")) == set()
    assert set(names) == {NAME}


@pytest.mark.slow
def test_server_with_another_certificate_for_no_name_is_found_thoroughly(certificates: Certificates) -> None:
    context = server_context(certificates.issue("www.example.com"))
    named = server_context(certificates.good)

    def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name == NAME:
            session.context = named
        return None

    context.sni_callback = choose
    with Server(both(context, broken.any_terminator)) as running:
        assert codes(ask(running.port, certificates)) == set()
        thorough = ask(running.port, certificates, thorough=True, idle=2 * broken.DEADLINE)
    assert codes(thorough) == {"PB523"}
    taken = {name: thorough.all_targets()[0].tried_handshake(f"TLS {name}") for name in ("1.0", "1.1", "1.2", "1.3")}
    assert all(handshake is not None and handshake.completed for handshake in taken.values())
    assert [handshake.version for handshake in taken.values() if handshake] == [f"TLS {name}" for name in taken]


def test_limited_server_is_not_called_too_modern(certificates: Certificates) -> None:
    """It closes every connection after the first: the handshake of Flash Player proves nothing."""
    with Server(tls_servers.Once(inside(certificates.good))) as running:
        found = codes(ask(running.port, certificates))
    assert not found & {"PB530", "PB531"}
