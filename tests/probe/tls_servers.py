"""Servers inside TLS, for `loopback.Server`: any handler, and what a TLS server can do wrong."""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import broken
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from loopback import Handler

from testkit.certificates import CertificateFiles, Issuer, in_days, make_key

NAME = "games.example.com"


class _Socket(ssl.SSLSocket):
    """Its shutdown sends close_notify before FIN, as that of servers does; Python's own sends FIN alone."""

    def shutdown(self, how: int) -> None:
        timeout = self.gettimeout()
        self.setblocking(False)
        with contextlib.suppress(OSError, ValueError):
            self.unwrap()  # the client's close_notify is not waited for
        self.settimeout(timeout)
        super().shutdown(how)


def server_context(
    files: CertificateFiles, *, lowest: str = "TLSv1", highest: str = "TLSv1_3", suites: str = "ALL:@SECLEVEL=0"
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = _Socket
    context.set_ciphers(suites)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion[lowest]
        context.maximum_version = ssl.TLSVersion[highest]
    context.load_cert_chain(files.chain, files.key)
    return context


def inside(context: ssl.SSLContext | CertificateFiles, handler: Handler | None = None) -> Handler:
    """This handler, by default a correct policy server, inside TLS."""
    ready = context if isinstance(context, ssl.SSLContext) else server_context(context)
    served = handler or broken.answering()

    def handle(connection: socket.socket) -> None:
        connection.settimeout(5)
        with contextlib.suppress(ssl.SSLError), ready.wrap_socket(connection, server_side=True) as secure:
            secure.settimeout(None)
            served(secure)

    return handle


def both(
    context: ssl.SSLContext | CertificateFiles, handler: Handler | None = None, plain: Handler | None = None
) -> Handler:
    """Plain text and TLS on one port, by the first byte; in plain text a correct policy server."""
    secure, plain = inside(context, handler), plain or broken.answering()

    def handle(connection: socket.socket) -> None:
        connection.settimeout(5)
        first = connection.recv(1, socket.MSG_PEEK)
        connection.settimeout(None)
        (secure if first == b"\x16" else plain)(connection)

    return handle


def without_close_notify(connection: socket.socket) -> None:
    """Reply, then FIN without the end of TLS."""
    if broken.whole(connection).startswith(broken.REQUEST):
        connection.sendall(broken.POLICY + b"\0")
    socket.socket.shutdown(connection, socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


def alert(number: int) -> Handler:
    """Refuse each ClientHello with this alert."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(bytes((0x15, 3, 3, 0, 2, 2, number)))
        broken.end(connection)

    return handle


def sending(data: bytes) -> Handler:
    """Reply to anything with these bytes."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)
        broken.end(connection)

    return handle


def half_a_handshake(connection: socket.socket) -> None:
    """The header of a record, and no more of it."""
    connection.recv(4096)
    connection.sendall(bytes((0x16, 3, 3, 4, 0)))
    broken.silent(connection)


def chain_of(files: CertificateFiles, count: int, into: Path) -> CertificateFiles:
    """The same key with only the first certificates of the chain."""
    begin = b"-----BEGIN CERTIFICATE-----"
    parts = files.chain.read_bytes().split(begin)[1 : count + 1]
    into.write_bytes(b"".join(begin + part for part in parts))
    return CertificateFiles(into, files.key, files.ca)


def signed(
    issuer: Issuer,
    name: str = NAME,
    *,
    ca: bool = False,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    issuer_url: str = "",
    dns_name: str = "",
    usage: ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Issuer:
    """A certificate that `testkit.certificates` does not make, and its key."""
    key = make_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or in_days(-1))
        .not_valid_after(not_after or in_days(90))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name or name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if issuer_url:
        place = x509.UniformResourceIdentifier(issuer_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return Issuer(builder.sign(issuer.key, hashes.SHA256()), key)  # type: ignore[arg-type]


def certificates(issuers: Sequence[Issuer]) -> list[x509.Certificate]:
    return [issuer.certificate for issuer in issuers]


def resetting(connection: socket.socket) -> None:
    connection.recv(4096)
    broken.reset(connection)


class Once:
    """Serve the first connection, and close the others at once."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._served = False

    def __call__(self, connection: socket.socket) -> None:
        if not self._served:
            self._served = True
            self._handler(connection)
