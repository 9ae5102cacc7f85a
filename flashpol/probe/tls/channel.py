"""A connection inside TLS: `ssl` over memory BIOs, so that every byte of the server is seen and no call blocks.

Certificates are not judged here, with one exception: with `Offer.verify` OpenSSL ends the handshake if the chain leads
to no CA of this machine or is out of date, and its error number is recorded. Key sizes and names are left to
`judgement`: OpenSSL reports only the first problem that it finds.
"""

import _ssl
import re
import select
import socket
import ssl
import threading
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

from flashpol.probe.tls.handshake import ALERTS, Handshake, Outcome
from flashpol.probe.tls.offers import Offer

_READ = 16384
_FIRST = 60  # bytes of the server's that are kept as evidence
_FIN_SECONDS = 0.2  # after close_notify: most servers send both at once
_SEND_SECONDS = 1.0  # for a few hundred bytes, which an empty send buffer takes at once
# Servers from before RFC 5746. ssl.OP_LEGACY_SERVER_CONNECT, which Python names from 3.12 on.
_LEGACY_SERVERS = 0x4
_ALERT_RECORD, _HANDSHAKE_RECORD, _MAJOR_VERSION = 0x15, 0x16, 0x03
_FATAL = 2
_ALERT_REASON = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")
_ALERT_NUMBERS = {name.upper(): number for number, name in ALERTS.items()}
_lock = threading.Lock()


@lru_cache(maxsize=64)
def _cached_context(
    lowest: str, highest: str, suites: str, verify: bool, ca: str | None, alpn: tuple[str, ...]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.set_ciphers(suites)
    context.minimum_version = ssl.TLSVersion[lowest] if lowest else ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion[highest] if highest else ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.options |= _LEGACY_SERVERS
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # a missing close_notify is to be seen
    if alpn:
        context.set_alpn_protocols(alpn)
    if verify:
        context.load_default_certs()
        if ca is not None:
            context.load_verify_locations(ca)
    return context


def context_for(offer: Offer) -> ssl.SSLContext:
    """Return the context of an offer. Raises OSError, ssl.SSLError or ValueError if this OpenSSL cannot do it."""
    # The filters of warnings belong to the process: two threads that change them at the same time spoil them.
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 is meant
        return _cached_context(offer.lowest, offer.highest, offer.suites, offer.verify, offer.ca, offer.alpn)


def check_ca(path: str) -> str:
    """Return why no CA certificate can be read from this file; empty if one can."""
    try:
        context_for(Offer(verify=True, ca=path))
    except ssl.SSLError:
        return "there is no certificate in PEM in it"
    except OSError as error:
        return error.strerror or str(error)
    return ""


@lru_cache(maxsize=1)
def machine_has_cas() -> bool:
    """Whether this machine has CA certificates at all: small containers have none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if context.cert_store_stats()["x509_ca"]:
        return True
    folder = ssl.get_default_verify_paths().capath  # its files are read when a chain needs them
    return folder is not None and any(Path(folder).glob("*.0"))


class TlsChannel:
    """The client's side of one connection, whose socket does not block.

    `handshake` must have returned a completed Handshake before `receive`, `send` and `finish` may be called.
    """

    def __init__(self, connection: socket.socket, offer: Offer, began: float) -> None:
        self._connection = connection
        self._offer = offer
        self._began = began
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._first = b""
        self._last = b""  # the last bytes that came: an alert before the keys are known is readable
        self._may_have_more = False
        self._alert: int | None = None
        self._close_notify: bool | None = None
        self._record = Handshake(Outcome.FAILED, 0.0)
        self._session: ssl.SSLObject

    def record(self) -> Handshake:
        """Return the record of the handshake, and of how the server ended the connection."""
        if self._alert is not None and self._record.completed:  # TLS 1.3: a server refuses after the client is done
            return self._record._replace(outcome=Outcome.ALERT, alert=self._alert)
        return self._record._replace(close_notify=self._close_notify)

    def handshake(self, seconds: float) -> Handshake:
        """Shake hands, for at most so many seconds. Never raises because of the server."""
        deadline = monotonic() + seconds
        try:
            context = context_for(self._offer)
            self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._offer.name)
        except (OSError, ValueError) as error:  # a version that this OpenSSL does not have; no possible name
            return self._ended(Outcome.FAILED, error=str(error))
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                if (outcome := self._exchange(deadline)) is not None:
                    return self._ended(outcome)
            except ssl.SSLCertVerificationError as error:
                self._flush()
                return self._ended(
                    Outcome.UNTRUSTED, verify_code=error.verify_code, verify_message=error.verify_message
                )  # fmt: skip
            except ssl.SSLError as error:
                self._flush()
                return self._refused(error)
            else:
                break
        self._flush()
        self._may_have_more = True  # the reply of a server that speaks first may have come with its last message
        cipher = self._session.cipher()
        return self._ended(
            Outcome.COMPLETED, version=_version(self._session.version()), suite=cipher[0] if cipher else "",
            chain=_chain(self._session),
        )  # fmt: skip

    def _exchange(self, deadline: float) -> Outcome | None:
        """Send what OpenSSL has to send and wait for the server's next bytes. Return the outcome if there are none."""
        self._flush()
        if not _ready(self._connection, select.POLLIN, deadline - monotonic()):
            return Outcome.TIMEOUT
        try:
            data = self._connection.recv(_READ)
        except BlockingIOError:
            return None if monotonic() < deadline else Outcome.TIMEOUT
        except OSError:
            return Outcome.RESET
        if not data:
            return Outcome.CLOSED
        self._take(data)
        return None if monotonic() < deadline else Outcome.TIMEOUT

    def _take(self, data: bytes) -> None:
        self._first = (self._first + data)[:_FIRST]
        self._last = (self._last + data)[-7:]
        self._incoming.write(data)

    def _refused(self, error: ssl.SSLError) -> Handshake:
        if (alert := self._alert_of(error)) is not None:
            return self._ended(Outcome.ALERT, alert=alert)
        return self._ended(Outcome.FAILED, error=_words(error))

    def _alert_of(self, error: ssl.SSLError) -> int | None:
        """Return the number of the alert that an error is about: from its record, or if that is encrypted by name."""
        match = _ALERT_REASON.fullmatch(error.reason or "")
        if match is None and error.reason is not None:
            return None
        record = self._last
        if len(record) == 7 and record[:2] == b"\x15\x03" and record[3:5] == b"\0\x02" and record[5] == _FATAL:
            return record[6]
        return _ALERT_NUMBERS.get(match[1]) if match else None

    def _ended(self, outcome: Outcome, **fields: Any) -> Handshake:
        if self._first and not _is_tls(self._first):
            outcome, fields = Outcome.NOT_TLS, {}
        self._record = Handshake(
            outcome, monotonic() - self._began, verified=self._offer.verify, first=self._first, **fields
        )  # fmt: skip
        return self._record

    def ready(self, seconds: float) -> bool:
        """Wait until `receive` may have something."""
        return self._may_have_more or _ready(self._connection, select.POLLIN, seconds)

    def receive(self, closing: float) -> bytes:
        """Return the next bytes of the server, or none at its end. Raises BlockingIOError if there are none yet.

        Raises OSError after RST. After close_notify it waits `closing` seconds or a little more for FIN.
        """
        with suppress(ssl.SSLWantReadError):
            return self._read(closing)
        self._may_have_more = False
        data = self._connection.recv(_READ)
        if data:
            self._take(data)
        else:
            self._incoming.write_eof()
        try:
            return self._read(closing)
        except ssl.SSLWantReadError:
            self._may_have_more = False
            self._flush()  # the reply to a KeyUpdate
            raise BlockingIOError from None

    def _read(self, closing: float) -> bytes:
        try:
            data = self._session.read(_READ)
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLEOFError:
            self._close_notify = False
            return b""
        except ssl.SSLError as error:
            self._alert = self._alert_of(error)
            self._close_notify = False
            raise ConnectionAbortedError(_words(error)) from None
        if data:
            self._may_have_more = True
            return data
        self._close_notify = True
        if not self._fin_comes(_FIN_SECONDS):
            self.say_goodbye()  # a server may wait for it; one that closed already would send RST
            with suppress(OSError):
                self._fin_comes(closing)
        return b""

    def _fin_comes(self, seconds: float) -> bool:
        """Wait for FIN, and discard what comes before it. Raises OSError after RST."""
        deadline = monotonic() + seconds
        while _ready(self._connection, select.POLLIN, deadline - monotonic()) and monotonic() < deadline:
            if not self._connection.recv(_READ):
                return True
        return False

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        self._session.write(data)
        self._flush()

    def finish(self) -> None:
        """Send close_notify and FIN. Raises OSError."""
        with suppress(ssl.SSLError):  # that the server's close_notify is still to come
            self._session.unwrap()
        self._flush()
        self._connection.shutdown(socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Send close_notify, so that no server counts the end as a truncation; the socket is closed after it."""
        with suppress(OSError):
            self._session.unwrap()
        self._flush()

    def _flush(self) -> None:
        """Send what OpenSSL has to send; the next read reports a connection that takes no more."""
        data = self._outgoing.read()
        deadline = monotonic() + _SEND_SECONDS
        while data:
            try:
                data = data[self._connection.send(data) :]
            except BlockingIOError:
                if not _ready(self._connection, select.POLLOUT, deadline - monotonic()):
                    return
            except OSError:
                return


def _ready(connection: socket.socket, events: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _is_tls(data: bytes) -> bool:
    """Whether this can be the beginning of a record with an alert or a handshake."""
    return data[0] in (_ALERT_RECORD, _HANDSHAKE_RECORD) and data[1:2] in (b"", bytes([_MAJOR_VERSION]))


def _version(name: str | None) -> str:
    """Return `TLSv1.2` as `TLS 1.2`, and `TLSv1` as `TLS 1.0`."""
    number = (name or "").removeprefix("TLSv")
    return f"TLS {number if '.' in number else f'{number}.0'}" if number else ""


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _chain(session: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the certificates as the server sent them, in DER; only its own where Python cannot give the others."""
    with suppress(AttributeError, ssl.SSLError, ValueError):
        if hasattr(session, "get_unverified_chain"):  # Python 3.13
            return tuple(session.get_unverified_chain())
        # Python 3.10 to 3.12 have it, without a name for it.
        sent: Any = session._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        return tuple(one.public_bytes(_ssl.ENCODING_DER) for one in sent or ())
    own = session.getpeercert(binary_form=True)
    return (own,) if own else ()
