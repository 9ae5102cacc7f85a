"""A TLS client whose every byte the test controls: OpenSSL over memory, beside a plain socket.

The test decides when bytes of the handshake leave and how they are cut, whether a close_notify precedes the FIN, and
sees what OpenSSL hides: which bytes follow a close_notify, and the alerts of a server that refuses a hello. `hello`
makes hellos by hand, also those that no library sends any more.
"""

import re
import socket
import ssl
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from testkit.clients import connect, until_end

RECORD = 1 << 16  # bytes of one receive
HANDSHAKE, ALERT, CHANGE_CIPHER_SPEC, APPLICATION_DATA = 0x16, 0x15, 0x14, 0x17
ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    47: "illegal_parameter",
    48: "unknown_ca",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    80: "internal_error",
    100: "no_renegotiation",
    109: "missing_extension",
    112: "unrecognized_name",
    120: "no_application_protocol",
}
# What AIR's SecureSocket offers: TLS 1.2 at most, no suite with AEAD.
AIR_CIPHERS = "AES128-SHA:AES256-SHA:ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA:@SECLEVEL=0"


class Refused(Exception):
    """The server ended the handshake. `alert`: the name of its alert, or empty."""

    def __init__(self, alert: str) -> None:
        super().__init__(alert)
        self.alert = alert


class Ending(NamedTuple):
    """What a client received until the stream ended, and how it ended.

    how: "close_notify fin" as TLS wants it; "fin" or "rst" without a close_notify; "close_notify rst".
    """

    data: bytes
    how: str


WHOLE = "close_notify fin"


def client_context(
    *,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ciphers: str = "",
    alpn: Sequence[str] = (),
    authority: bytes = b"",
) -> ssl.SSLContext:
    """A context that takes any certificate, or, with an authority (PEM), only those that it signed for the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if authority:
        context.load_verify_locations(cadata=authority.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    if ciphers:
        context.set_ciphers(ciphers)
    with_old = minimum < ssl.TLSVersion.TLSv1_2
    if with_old and not ciphers:
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1
        context.minimum_version, context.maximum_version = minimum, maximum
    if alpn:
        context.set_alpn_protocols([*alpn])
    return context


ANY = client_context()


def only(version: ssl.TLSVersion, **options: object) -> ssl.SSLContext:
    """A client of this version alone."""
    return client_context(minimum=version, maximum=version, **options)  # type: ignore[arg-type]


CONTEXTS = [only(ssl.TLSVersion.TLSv1_2), only(ssl.TLSVersion.TLSv1_3)]


class TlsClient:
    """A TLS client on a connected socket, or on none: then the test moves the bytes by `take` and `give`."""

    def __init__(
        self,
        sock: socket.socket | None = None,
        context: ssl.SSLContext = ANY,
        *,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)
        self.established = False
        self.notified = False  # a close_notify of the server was read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sock:
            self._sock.close()

    @property
    def sock(self) -> socket.socket:
        assert self._sock, "this client has no socket"
        return self._sock

    # ------------------------------------------------------------------------------------------------ without I/O

    def step(self) -> bool:
        """One step of the handshake, with what was given. True: it is complete. Raises Refused."""
        if not self.established:
            try:
                self.tls.do_handshake()
                self.established = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise Refused(alert_of(error)) from error
        return self.established

    def take(self) -> bytes:
        """What it wants to send: before the first step nothing."""
        return self.outgoing.read()

    def hello(self) -> bytes:
        """Its first flight, the ClientHello."""
        assert not self.step()
        return self.take()

    def give(self, wire: bytes) -> None:
        """What it receives."""
        self.incoming.write(wire)

    def encrypt(self, data: bytes) -> bytes:
        """The records of these bytes."""
        self.tls.write(data)
        return self.take()

    def decrypt(self) -> bytes:
        """The plain text of what was given. Raises ssl.SSLError for an alert."""
        received = bytearray()
        try:
            while data := self.tls.read(RECORD):
                received += data
            self.notified = True
        except ssl.SSLZeroReturnError:
            self.notified = True
        except ssl.SSLWantReadError:
            pass
        return bytes(received)

    def farewell(self) -> bytes:
        """The record of its close_notify. It can receive afterwards."""
        with suppress(ssl.SSLWantReadError, ssl.SSLSyscallError):
            self.tls.unwrap()
        return self.take()

    # ------------------------------------------------------------------------------------------------- on a socket

    def handshake(self) -> Self:
        """The whole handshake. Raises Refused, and ConnectionResetError."""
        while not self.step():
            self.flush()
            data = self.sock.recv(RECORD)
            if not data:
                raise Refused("")
            self.give(data)
        self.flush()
        return self

    def flush(self) -> None:
        self.sock.sendall(self.take())

    def send(self, data: bytes) -> None:
        self.sock.sendall(self.encrypt(data))

    def send_split(self, data: bytes, size: int) -> None:
        """One record, in segments of this size."""
        wire = self.encrypt(data)
        for start in range(0, len(wire), size):
            self.sock.sendall(wire[start : start + size])

    def close_notify(self) -> None:
        self.sock.sendall(self.farewell())

    def shutdown(self) -> None:
        """Say that nothing more comes, as TLS wants it, then FIN."""
        self.close_notify()
        self.sock.shutdown(socket.SHUT_WR)

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer if the stream ends before."""
        received = bytearray()
        while len(received) < size:
            try:
                data = self.tls.read(size - len(received))
            except ssl.SSLWantReadError:
                if not (wire := self.sock.recv(RECORD)):
                    break
                self.give(wire)
                continue
            except ssl.SSLZeroReturnError:
                break
            if not data:
                break
            received += data
        return bytes(received)

    def until_end(self) -> Ending:
        """What comes until the stream ends. Nothing may follow a close_notify. Raises ssl.SSLError for an alert."""
        received, how = bytearray(), "fin"
        while True:
            received += self.decrypt()
            try:
                wire = self.sock.recv(RECORD)
            except (ConnectionResetError, BrokenPipeError):  # the latter when the reset came after the FIN
                how = "rst"
                break
            if not wire:
                break
            assert not self.notified, f"{len(wire)} bytes after the close_notify"
            self.give(wire)
        return Ending(bytes(received), f"close_notify {how}" if self.notified else how)

    @property
    def certificate(self) -> bytes:
        """The server's certificate, in DER."""
        found = self.tls.getpeercert(binary_form=True)
        assert found, "no certificate"
        return found


def alert_of(error: ssl.SSLError) -> str:
    """The alert that a server sent, from OpenSSL's text for it; empty if it sent none."""
    found = re.search(r"alert[ _]([a-z_ ]+)|tlsv1[ _](unrecognized[ _]name)", str(error).lower())
    return (found[1] or found[2]).strip().replace(" ", "_") if found else ""


def tls_connect(
    address: tuple[str, int],
    context: ssl.SSLContext = ANY,
    *,
    name: str | None = None,
    first: bytes = b"",
    receive_buffer: int = 0,
    source: str = "",
    session: ssl.SSLSession | None = None,
) -> TlsClient:
    """A client with a complete handshake. first: what it sends in plain before, such as a PROXY header."""
    sock = connect(address, first, receive_buffer=receive_buffer, source=source)
    try:
        return TlsClient(sock, context, name=name, session=session).handshake()
    except BaseException:
        sock.close()
        raise


def tls_ask(address: tuple[str, int], request: bytes, context: ssl.SSLContext = ANY, **options: object) -> Ending:
    """The reply to one request inside TLS."""
    with tls_connect(address, context, **options) as client:  # type: ignore[arg-type]
        client.send(request)
        return client.until_end()


def refusal(address: tuple[str, int], context: ssl.SSLContext, name: str | None = None) -> str:
    """The alert with which the server refuses this client's handshake."""
    with connect(address) as sock:
        try:
            TlsClient(sock, context, name=name).handshake()
        except Refused as refused:
            return refused.alert
    raise AssertionError("the handshake was completed")


def answer(address: tuple[str, int], wire: bytes) -> tuple[list[tuple[int, str]], str]:
    """The alerts that these bytes get, (level, name), and how the connection ends, "fin" or "rst"."""
    with connect(address, wire) as sock:
        received, how = until_end(sock)
    return plain_alerts(received), how


# ------------------------------------------------------------------------------------------------------ bytes by hand


def record(kind: int, body: bytes, version: int = 0x0301) -> bytes:
    return struct.pack("!BHH", kind, version, len(body)) + body


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width) + data


def extension(number: int, data: bytes) -> bytes:
    return struct.pack("!H", number) + vector(2, data)


def hello(
    *,
    version: int = 0x0303,
    record_version: int = 0x0301,
    suites: Sequence[int] = (0xC02B, 0xC02F, 0xC00A, 0xC014, 0x002F, 0x0035),
    name: str = "",
    alpn: Sequence[bytes] = (),
    more: bytes = b"",
) -> bytes:
    """A ClientHello of up to TLS 1.2, in one record. more: extensions, encoded. SSL 3.0 has no extensions."""
    body = struct.pack("!H", version) + bytes(range(32)) + vector(1, b"")
    body += vector(2, b"".join(struct.pack("!H", suite) for suite in suites)) + vector(1, b"\0")
    extensions = more
    if name:
        extensions += extension(0, vector(2, b"\0" + vector(2, name.encode("latin-1"))))
    if alpn:
        extensions += extension(16, vector(2, b"".join(vector(1, each) for each in alpn)))
    if version > 0x0300:
        extensions += extension(10, vector(2, struct.pack("!3H", 0x1D, 0x17, 0x18)))  # groups
        extensions += extension(11, vector(1, b"\0"))  # point formats
        extensions += extension(13, vector(2, struct.pack("!6H", 0x0403, 0x0804, 0x0401, 0x0503, 0x0501, 0x0201)))
        body += vector(2, extensions)
    return record(HANDSHAKE, b"\x01" + vector(3, body), record_version)


def ssl2_hello() -> bytes:
    """The hello of SSL 2.0: no record of TLS, its first byte is above 0x80."""
    suites = bytes.fromhex("010080 020080 030080 040080 060040 0700c0".replace(" ", ""))
    body = b"\x01\x00\x02" + struct.pack("!HHH", len(suites), 0, 16) + suites + bytes(range(16))
    return struct.pack("!H", 0x8000 | len(body)) + body


def plain_alerts(wire: bytes) -> list[tuple[int, str]]:
    """(level, name) of each alert in these records, which are not encrypted."""
    found, at = [], 0
    while at + 5 <= len(wire):
        kind, _, size = struct.unpack_from("!BHH", wire, at)
        body = wire[at + 5 : at + 5 + size]
        if kind == ALERT:
            assert size == 2, f"an alert of {size} bytes"
            found.append((body[0], ALERTS.get(body[1], str(body[1]))))
        at += 5 + size
    assert at == len(wire), "the last record is cut"
    return found


def records(wire: bytes) -> list[tuple[int, int]]:
    """(type, size of the body) of each record."""
    found, at = [], 0
    while at + 5 <= len(wire):
        kind, _, size = struct.unpack_from("!BHH", wire, at)
        found.append((kind, size))
        at += 5 + size
    return found
