"""What TLS attackers say before there are keys: hellos that OpenSSL has made, parts of them, and records of garbage."""

import ssl
from random import Random

SERVER_NAME = "flashpol.test"
VARIED = "00000000.example"  # its first label is another number for each attacker
RECORD = 5  # bytes of a record's header
HANDSHAKE, APPLICATION_DATA = 0x16, 0x17
LARGEST = 16384
SEED = 16


def hello(version: ssl.TLSVersion, *, name: str = SERVER_NAME, group: str = "", ciphers: str = "") -> bytes:
    """The record with the hello of a client. group, ciphers: the only one that it offers; empty: OpenSSL's defaults."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    if group:
        context.set_ecdh_curve(group)
    if ciphers:
        context.set_ciphers(ciphers)
    said = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return said.read()
    raise AssertionError("a handshake needs a server")


def record(content: bytes, *, kind: int = HANDSHAKE, length: int | None = None) -> bytes:
    """A record in plain text. length: what its header says, if that is not the content's."""
    return (
        bytes((kind, 3, 1 if kind == HANDSHAKE else 3))
        + (len(content) if length is None else length).to_bytes(2, "big")
        + content
    )


def cut_in_records(message: bytes, size: int) -> bytes:
    """The hello of this record in records of so many bytes."""
    body = message[RECORD:]
    return b"".join(record(body[at : at + size]) for at in range(0, len(body), size))


def large_hello(size: int) -> bytes:
    """A hello whose last extension, of an unknown kind, makes it so large; in records that are full."""
    body = hello(ssl.TLSVersion.TLSv1_3)[RECORD:]
    head, session = 38, body[38]  # type, length, version and random; then the session's id
    at = head + 1 + session
    at += 2 + int.from_bytes(body[at : at + 2], "big")  # cipher suites
    at += 1 + body[at]  # compression
    extensions = body[at + 2 :]
    padding = size - 4 - (at - 4) - 2 - len(extensions) - 4
    extensions += (0xFADE).to_bytes(2, "big") + padding.to_bytes(2, "big") + bytes(padding)
    rest = body[4:at] + len(extensions).to_bytes(2, "big") + extensions
    return cut_in_records(bytes(RECORD) + b"\x01" + len(rest).to_bytes(3, "big") + rest, LARGEST)


def messages() -> dict[str, bytes]:
    """By name, as `server.MESSAGES`. They are made when they are needed, since that takes some milliseconds."""
    tls12, tls13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    usual = hello(tls13)
    random = Random(SEED)
    return {
        "hello-13": usual,
        "hello-12": hello(tls12),
        "hello-p384": hello(tls13, group="secp384r1"),  # the group that costs the server most
        "hello-rsa": hello(tls12, ciphers="ECDHE-RSA-AES128-GCM-SHA256"),
        "hello-name": hello(tls13, name=VARIED),
        "hello-pieces": cut_in_records(usual, 1),
        "hello-large": large_hello(60_000),
        "hello-endless": record(b"\x01\xff\xff\xff" + bytes(LARGEST - 4)),  # 16 MB, it says
        "tls-begin": bytes((HANDSHAKE, 3)),
        "tls-empty": record(b"") * 2_000,
        "tls-garbage": record(random.randbytes(400)),
        "tls-overlong": record(random.randbytes(2_000), length=0xFFFF),
        "tls-sealed": record(random.randbytes(1_000), kind=APPLICATION_DATA),  # what follows the hello in TLS 1.3
        "tls-other": record(bytes((20, 0, 0, 4)) + bytes(4)),  # a Finished where a hello is due
    }
