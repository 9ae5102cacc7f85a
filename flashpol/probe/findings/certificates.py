"""PB51x and PB52x: the certificate that a server shows inside TLS."""

from collections.abc import Callable, Iterator

from flashpol.probe.findings.registry import ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Target
from flashpol.probe.tls import judgement
from flashpol.probe.tls.judgement import EXPIRES_SOON, Flaw, Problem, ago, duration, moment, reported
from flashpol.probe.tls.offers import TLS_CLIENTS
from flashpol.probe.tls.x509 import Certificate


def _with_flaw(view: View, flaw: Flaw) -> Iterator[tuple[Target, Problem]]:
    for target in view.secure:
        for problem in judgement.problems(target, view.observation):
            if problem.flaw is flaw:
                yield target, problem


def _flawed(
    view: View, flaw: Flaw, evidence: Callable[[Problem], str], values: Callable[[Problem], dict[str, str]]
) -> Iterator[Hit]:
    for target, problem in _with_flaw(view, flaw):
        hit = Hit(target, f"{evidence(problem)}; {reported(flaw, view.observation)}")
        hit.values = dict(values(problem))
        yield hit


def _valid(certificate: Certificate) -> str:
    return f"valid from {moment(certificate.not_before)} to {moment(certificate.not_after)}"


_RENEW = "renew it, and let the server load the new one: many load certificates only at a start or a reload"


@rule(
    "PB511", ERROR, "certificate-expired",
    wrong="the certificate expired {ago}",
    instead=_RENEW,
    seen="the time of the probe is after the end of the certificate's validity", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_expired(view: View) -> Iterator[Hit]:
    now = view.observation.time
    yield from _flawed(
        view, Flaw.EXPIRED, lambda problem: _valid(problem.certificate),
        lambda problem: {"ago": ago(now - problem.certificate.not_after)},
    )  # fmt: skip


@rule(
    "PB512", ERROR, "certificate-not-yet-valid",
    wrong="the certificate is not valid until {since}",
    instead="check the clocks of the CA and of this machine, or serve the previous certificate until then",
    seen="the time of the probe is before the certificate's validity", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_not_yet_valid(view: View) -> Iterator[Hit]:
    yield from _flawed(
        view, Flaw.NOT_YET_VALID,
        lambda problem: f"{_valid(problem.certificate)}, and it is {moment(view.observation.time)} here",
        lambda problem: {"since": moment(problem.certificate.not_before)},
    )  # fmt: skip


@rule(
    "PB513", WARNING, "certificate-expires-soon",
    wrong="the certificate expires in {left}",
    instead=_RENEW,
    seen="the certificate, or that of an issuer which the server sends, expires within 14 days", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_expires_soon(view: View) -> Iterator[Hit]:
    now = view.observation.time
    for target in view.secure:
        for certificate in judgement.path(judgement.certificates(target)):
            if 0 <= certificate.not_after - now < EXPIRES_SOON:
                evidence = f"{certificate.subject}: {_valid(certificate)}"
                yield Hit(target, evidence, left=duration(certificate.not_after - now))
                break


@rule(
    "PB514", ERROR, "certificate-name",
    wrong="the certificate is not for {name}: it is for {names}",
    instead="{remedy}",
    seen="no name in the certificate's subjectAltName is the host, or the name of --server-name", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_name(view: View) -> Iterator[Hit]:
    name = view.observation.name
    is_address = all(str(address) == name for address in view.observation.targets)
    remedy = f"get a certificate for {name}, or let the content connect to a name that the certificate has"
    if is_address and view.question.what != "policy":
        remedy = "if the content names the host, probe that name; otherwise get a certificate for this address"
    elif is_address:
        remedy = "if the content connects to a name, write it with --server-name; otherwise get a certificate for this"
        remedy += " address"

    def names(problem: Problem) -> str:
        certificate = problem.certificate
        if certificate.names:
            return _listed(certificate.names)
        return f"no name ({certificate.common_name or 'nothing'} is in its subject only, which browsers do not read)"

    yield from _flawed(
        view, Flaw.NAME, lambda problem: f"subject {problem.certificate.subject}, by {problem.certificate.issuer}",
        lambda problem: {"name": name, "names": names(problem), "remedy": remedy},
    )  # fmt: skip


_MAX_NAMES = 5


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


@rule(
    "PB515", ERROR, "chain-incomplete",
    wrong="the chain is incomplete: the server does not send the certificate of {issuer}, which issued its own",
    instead="configure the file with the whole chain, which certbot calls fullchain.pem, not the certificate alone",
    seen="the server sends one certificate, and this machine does not know its issuer, a CA that issues through an"
    " intermediate certificate", clients=TLS_CLIENTS,
)  # fmt: skip
def chain_incomplete(view: View) -> Iterator[Hit]:
    yield from _flawed(
        view, Flaw.INCOMPLETE, lambda problem: _issuer_place(problem.certificate),
        lambda problem: {"issuer": problem.certificate.issuer},
    )  # fmt: skip


def _issuer_place(certificate: Certificate) -> str:
    place = f"; it is at {certificate.issuer_url}" if certificate.issuer_url else ""
    return f"only {certificate.subject} is sent{place}"


@rule(
    "PB516", ERROR, "certificate-self-signed",
    wrong="the certificate is self-signed: no client trusts it, unless it was installed there",
    instead="get one from a CA that clients know; if they trust this one, give it to the probe with --ca",
    seen="the certificate is its own issuer, and this machine does not trust it", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_self_signed(view: View) -> Iterator[Hit]:
    yield from _flawed(
        view, Flaw.SELF_SIGNED, lambda problem: f"subject and issuer are {problem.certificate.subject}", lambda _: {}
    )  # fmt: skip


@rule(
    "PB517", ERROR, "unknown-ca",
    wrong="the certificate comes from a CA that clients do not know: {issuer}",
    instead="get one from a CA that clients know; if they know this one, give its certificate to the probe with --ca;"
    " if it is a public CA, the server sends too few certificates",
    seen="the chain that the server sends leads to no CA certificate of this machine, nor of --ca", clients=TLS_CLIENTS,
)  # fmt: skip
def unknown_ca(view: View) -> Iterator[Hit]:
    for target, problem in _with_flaw(view, Flaw.UNKNOWN_CA):
        sent = " <- ".join(one.subject for one in judgement.certificates(target)[:4])
        evidence = f"sent: {sent}; {reported(problem.flaw, view.observation)}"
        yield Hit(target, evidence, issuer=problem.certificate.issuer)


@rule(
    "PB518", ERROR, "issuer-expired",
    wrong="a certificate of the chain, not the server's own, is out of date: {issuer}",
    instead="send the chain that the CA publishes today; the file with the chain is older than the certificate",
    seen="the verification ends at the times of a CA certificate", clients=TLS_CLIENTS,
)  # fmt: skip
def issuer_expired(view: View) -> Iterator[Hit]:
    yield from _flawed(
        view, Flaw.EXPIRED_ISSUER, lambda problem: f"{problem.certificate.subject}: {_valid(problem.certificate)}",
        lambda problem: {"issuer": problem.certificate.subject},
    )  # fmt: skip


@rule(
    "PB519", ERROR, "certificate-rejected",
    wrong="the certificate does not pass the verification: {why}",
    instead="look at it with `openssl s_client -connect HOST:PORT -showcerts`, and get another one",
    seen="OpenSSL rejects the chain for a reason that has no finding of its own", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_rejected(view: View) -> Iterator[Hit]:
    for target, problem in _with_flaw(view, Flaw.REJECTED):
        verification = target.verification
        why = verification.verify_message if verification else ""
        evidence = f"subject {problem.certificate.subject}; {reported(problem.flaw, view.observation)}"
        yield Hit(target, evidence, why=why)


@rule(
    "PB520", WARNING, "certificate-weak",
    wrong="the certificate is weak, and browsers and current systems may refuse it: {what}",
    instead="get a certificate with an ECDSA key on P-256, or RSA of 2,048 bits, signed with SHA-256",
    seen="RSA of less than 2,048 bits, ECDSA of less than 224, DSA, or a signature with SHA-1 or MD5, in the server's"
    " certificate or an issuer's that it sends", clients=TLS_CLIENTS,
)  # fmt: skip
def certificate_weak(view: View) -> Iterator[Hit]:
    for target in view.secure:
        if weak := judgement.weaknesses(target):
            yield Hit(target, "; ".join(weak), what=weak[0])


@rule(
    "PB521", NOTE, "chain-order",
    wrong="the server sends its certificates out of order: each has to be followed by that of its issuer",
    instead="put them into the file in that order, the server's own first",
    seen="a certificate is followed by one that is not its issuer's, and the chain leads to a known CA nevertheless",
    clients=TLS_CLIENTS,
)  # fmt: skip
def chain_order(view: View) -> Iterator[Hit]:
    for target in view.secure:
        chain = judgement.certificates(target)
        verification = target.verification
        if verification is not None and verification.completed and not judgement.is_in_order(chain):
            yield Hit(target, f"sent: {', '.join(one.subject for one in chain[:5])}")


@rule(
    "PB522", NOTE, "not-verified",
    wrong="this machine has no CA certificates, so whether clients trust the certificate is not known",
    instead="install CA certificates here (package ca-certificates), or name a file with --ca",
    seen="OpenSSL's folders have no CA certificate", clients=TLS_CLIENTS,
)  # fmt: skip
def not_verified(view: View) -> Iterator[Hit]:
    for target in view.secure:
        own = judgement.own_certificate(target)
        if own is not None and target.verification is None:
            yield Hit(target, f"the certificate is by {own.issuer}")


@rule(
    "PB523", WARNING, "different-without-name",
    wrong="port {port} is different for clients that send no server name: {what}",
    instead="make the certificate for {name} the server's default: old clients send no name",
    seen="a handshake without a server name fails, or shows another certificate", clients=TLS_CLIENTS, thorough=True,
)  # fmt: skip
def different_without_name(view: View) -> Iterator[Hit]:
    for target in view.secure:
        nameless, own = target.tried_handshake("no name"), judgement.own_certificate(target)
        if nameless is None or own is None:
            continue
        [exchange] = target.tried["no name"]
        if not nameless.completed:
            what = f"it {judgement.refusal(exchange)}"
        elif (other := judgement.first_of(nameless)) is not None and not other.is_for(view.observation.name):
            what = f"its certificate is for {_listed(other.names) or other.subject}"
        else:
            continue
        yield Hit(target, f"without a name {what}", port=target.port, what=what, name=view.observation.name)
