"""A client that sends what OpenSSL sends never or only once: tlslite-ng, in pure Python."""

import socket
from collections.abc import Sequence
from typing import Self

from testkit.polling import DEADLINE
from testkit.tls import ALERT, ALERTS, APPLICATION_DATA, HANDSHAKE, extension, hello, vector

KEY_UPDATE = 24  # a message of the handshake


class OddClient:
    """A client by tlslite-ng with a complete handshake, for messages that OpenSSL does not send."""

    def __init__(
        self,
        sock: socket.socket,
        version: tuple[int, int] = (3, 4),
        name: str = "",
        key_shares: Sequence[str] = ("x25519", "secp256r1"),
    ) -> None:
        """key_shares: TLS 1.3; without them the server asks for another hello."""
        from tlslite.api import HandshakeSettings, TLSConnection
        from tlslite.messages import Finished

        self.verify_data = b""  # of the client's Finished

        class Connection(TLSConnection):  # type: ignore[misc]
            def _sendMsg(connection, message: object, *options: object, **more: object) -> object:
                if isinstance(message, Finished):
                    self.verify_data = bytes(message.verify_data)
                return super()._sendMsg(message, *options, **more)

        sock.settimeout(DEADLINE)
        self.sock = sock
        self.connection = Connection(sock)
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = version
        settings.keyShares = [*key_shares]
        self.connection.handshakeClientCert(settings=settings, serverName=name or None)
        self.connection.ignoreAbruptClose = True
        self.connection.closeSocket = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def send_record(self, kind: int, body: bytes) -> None:
        """One record of this type, encrypted. An empty body is an empty record."""
        from tlslite.messages import Message

        for _ in self.connection._recordLayer.sendRecord(Message(kind, bytearray(body))):
            pass

    def update_key(self, *, requested: bool = False) -> None:
        """TLS 1.3: a KeyUpdate. requested: the server is to send one too."""
        self.send_record(HANDSHAKE, bytes([KEY_UPDATE, 0, 0, 1, requested]))
        session, layer = self.connection.session, self.connection._recordLayer
        secrets = layer.calcTLS1_3KeyUpdate_reciever(session.cipherSuite, session.cl_app_secret, session.sr_app_secret)
        session.cl_app_secret, session.sr_app_secret = secrets

    def renegotiate(self) -> None:
        """TLS 1.2: a ClientHello within the connection, with what RFC 5746 asks for."""
        self.send_record(HANDSHAKE, hello(more=extension(0xFF01, vector(1, self.verify_data)))[5:])

    def receive_record(self) -> tuple[int, bytes]:
        """Type and plain text of the next record, decrypted."""
        for result in self.connection._recordLayer.recvRecord():
            if result not in (0, 1):
                header, parser = result
                break
        kind, body = header.type, bytes(parser.bytes)
        if kind == HANDSHAKE and body[0] == KEY_UPDATE:
            session, layer = self.connection.session, self.connection._recordLayer
            secrets = layer.calcTLS1_3KeyUpdate_sender(
                session.cipherSuite, session.cl_app_secret, session.sr_app_secret
            )
            session.cl_app_secret, session.sr_app_secret = secrets
        return kind, body

    def until_end(self) -> tuple[bytes, list[tuple[int, str]], str]:
        """Application data, alerts and the end of the stream, "fin" or "rst"."""
        from tlslite.errors import TLSAbruptCloseError

        received, alerts = bytearray(), []
        try:
            while True:
                kind, body = self.receive_record()
                if kind == APPLICATION_DATA:
                    received += body
                elif kind == ALERT:
                    alerts.append((body[0], ALERTS.get(body[1], str(body[1]))))
        except TLSAbruptCloseError:
            return bytes(received), alerts, "fin"
        except (ConnectionResetError, BrokenPipeError):
            return bytes(received), alerts, "rst"
