"""The codec of TLS over memory, with OpenSSL's own client: what it decodes and encodes, and how it fails."""

import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from flashpol._tls import PROFILES, TICKET_KEY_BYTES, ServerContext, TlsError
from testkit.tls import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    Refused,
    TlsClient,
    hello,
    only,
    plain_alerts,
    record,
    records,
)
from testkit.tls_codec import CODEC_READ, Decoder, shake_hands
from testkit.tls_serving import Pair, issue

PAIR = issue("first.test")
CONTEXT = ServerContext([PAIR])
CONTEXTS = {version: only(version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)}
VERSIONS = pytest.mark.parametrize("version", CONTEXTS, ids=lambda version: version.name)
GROWTH = 1024  # by which encode makes 32 KB longer at most


def established(version: ssl.TLSVersion, context: ServerContext = CONTEXT) -> tuple[Decoder, TlsClient]:
    decoder, client = Decoder(context), TlsClient(None, CONTEXTS[version])
    shake_hands(decoder, client)
    return decoder, client


# ---------------------------------------------------------------------------------------------------------- handshake


@VERSIONS
@pytest.mark.parametrize("size", [1, 2, 5, 6, 100, CODEC_READ])
def test_handshake_in_parts_of_any_size_is_complete(version: ssl.TLSVersion, size: int) -> None:
    decoder, client = Decoder(CONTEXT), TlsClient(None, CONTEXTS[version])
    shake_hands(decoder, client, size)
    assert decoder.codec.version == client.tls.version() == version.name.replace("_", ".")
    assert decoder.codec.failure is None
    assert not decoder.codec.resumed
    assert not decoder.plain


@VERSIONS
def test_half_a_hello_asks_for_no_work(version: ssl.TLSVersion) -> None:
    """Work costs a hundred times as much as what it is asked by."""
    first = TlsClient(None, CONTEXTS[version]).hello()
    codec = CONTEXT.codec()
    for at in range(len(first) - 1):
        assert codec.decode(first[at : at + 1]) == ("ok", b"", b"")
    assert codec.decode(first[-1:]) == ("work", b"", b"")


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x00",
        record(0x15, b"\x01\x00"),
        record(HANDSHAKE, b"\x02\0\0\1\0"),
        record(HANDSHAKE, b"\x01\xff\xff\xff"),
    ],
    ids=["too long", "empty", "an alert", "another message", "a message too long"],
)
def test_what_can_be_no_hello_is_refused_without_work(wire: bytes) -> None:
    codec = CONTEXT.codec()
    result, plain, reply = codec.decode(wire)
    assert (result, plain) == ("error", b"")
    assert plain_alerts(reply) == [(2, "unexpected_message")]
    assert codec.failure == "malformed"


def test_hello_in_records_of_a_byte_asks_for_work_once_it_is_complete() -> None:
    codec, message = CONTEXT.codec(), hello()[5:]
    for byte in message[:-1]:
        assert codec.decode(record(HANDSHAKE, bytes([byte]))) == ("ok", b"", b"")
    assert codec.decode(record(HANDSHAKE, message[-1:])) == ("work", b"", b"")
    assert codec.work()[0] == "ok"


@pytest.mark.parametrize("size", [1, CODEC_READ], ids=["byte by byte", "at once"])
def test_what_follows_a_complete_hello_does_not_belong_to_it(size: int) -> None:
    """RFC 8446 appendix D.4: a change_cipher_spec may follow the first hello. It changes nothing."""
    decoder, client = Decoder(CONTEXT), TlsClient(None, CONTEXTS[ssl.TLSVersion.TLSv1_3])
    client.give(decoder.feed(client.hello() + record(CHANGE_CIPHER_SPEC, b"\1", 0x0303), size))
    shake_hands(decoder, client, size)
    assert decoder.codec.established


@VERSIONS
def test_handshake_bytes_and_data_in_one_part_are_both_taken(version: ssl.TLSVersion) -> None:
    if version == ssl.TLSVersion.TLSv1_2:
        pytest.skip("the server has the last word of the handshake")
    decoder, client = Decoder(CONTEXT), TlsClient(None, CONTEXTS[version])
    while not client.step():
        client.give(decoder.feed(client.take()))
    decoder.feed(client.take() + client.encrypt(b"x" * 5000) + client.farewell())
    assert decoder.plain == b"x" * 5000
    assert decoder.result == "end"
    assert decoder.codec.ended


# Of a hello of TLS 1.3: supported_versions, key_share (X25519), early_data.
EARLY = bytes.fromhex("002b0003020304 003300260024001d0020") + bytes(range(1, 33)) + bytes.fromhex("002a0000")


@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_early_data_behind_the_hello_is_skipped(size: int) -> None:
    """A client may send it at once if it has a ticket of another server, behind a change of cipher for middleboxes."""
    decoder = Decoder(CONTEXT)
    wire = hello(suites=[0x1301], more=EARLY) + record(CHANGE_CIPHER_SPEC, b"\1", 0x0303)
    if size:
        wire += record(APPLICATION_DATA, bytes(size), 0x0303)
    reply = decoder.feed(wire, 4096)
    assert (decoder.result, decoder.codec.failure) == ("ok", None)
    assert records(reply)[0][0] == HANDSHAKE


def test_close_notify_in_the_handshake_is_a_client_that_left() -> None:
    decoder = Decoder(CONTEXT)
    decoder.feed(TlsClient(None, CONTEXTS[ssl.TLSVersion.TLSv1_3]).hello())
    decoder.feed(record(ALERT, b"\1\0", 0x0303))
    assert (decoder.result, decoder.codec.failure) == ("error", "closed")


def test_client_without_a_group_in_common_is_no_malformed_one() -> None:
    context = only(ssl.TLSVersion.TLSv1_3)
    context.set_ecdh_curve("secp384r1")
    decoder = Decoder(CONTEXT)
    reply = decoder.feed(TlsClient(None, context).hello())
    assert plain_alerts(reply) == [(2, "handshake_failure")]
    assert decoder.codec.failure == "cipher"


def test_failure_leaves_no_error_to_other_users_of_openssl() -> None:
    """OpenSSL has one queue of errors for each thread; Python's ssl takes what it finds there for its own."""
    _, client = established(ssl.TLSVersion.TLSv1_2)
    decoder = Decoder(CONTEXT)
    decoder.feed(hello(version=0x0301))
    assert decoder.codec.failure == "version"
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.read(1)


def test_endless_hello_is_refused() -> None:
    """The memory of a handshake is bounded."""
    decoder, sent = Decoder(CONTEXT), 0
    message = record(HANDSHAKE, b"\x01\x00\xff\xff" + bytes(16000))
    while decoder.result != "error":
        decoder.feed(message if not sent else record(HANDSHAKE, bytes(16000)))
        sent += 16000
        assert sent < 300_000
    assert decoder.codec.failure in ("malformed", "flood")


def test_many_small_records_of_a_handshake_are_refused() -> None:
    decoder, sent = Decoder(CONTEXT), 0
    decoder.feed(record(HANDSHAKE, b"\x01\x00\xff\xff"))
    while decoder.result != "error":
        decoder.feed(record(HANDSHAKE, b"\0"))
        sent += 1
        assert sent < 100_000
    assert decoder.codec.failure in ("malformed", "flood")


# ---------------------------------------------------------------------------------------------------------------- data


@VERSIONS
@pytest.mark.parametrize("size", [1, 100, 16383, 16384, 16385, 32768 - GROWTH, 62_000])
def test_encoded_bytes_are_what_the_client_decrypts(version: ssl.TLSVersion, size: int) -> None:
    decoder, client = established(version)
    data = bytes(range(256)) * (size // 256 + 1)
    for _ in range(5):
        wire = decoder.codec.encode(data[:size])
        assert wire is not None
        assert len(wire) <= size + GROWTH
        client.give(wire)
        assert client.decrypt() == data[:size]


OLD = {
    "TLS 1.0": only(ssl.TLSVersion.TLSv1),
    "TLS 1.1": only(ssl.TLSVersion.TLSv1_1),
    "AES128-SHA": only(ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA:@SECLEVEL=0"),
    "ECDHE-RSA-AES256-SHA384": only(ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES256-SHA384"),
}


@pytest.mark.parametrize("kind", OLD)
@pytest.mark.parametrize("size", [1, 16384, 16385, 32768 - GROWTH])
def test_encoded_bytes_of_an_old_client_have_room(kind: str, size: int) -> None:
    """CBC adds more than AEAD: an initialisation vector, padding, and against BEAST a record of its own."""
    decoder = Decoder(ServerContext([issue("first.test", key="rsa")], profile="flash"))
    client = TlsClient(None, OLD[kind])
    shake_hands(decoder, client)
    for _ in range(5):
        wire = decoder.codec.encode(b"x" * size)
        assert wire is not None
        assert size < len(wire) <= size + GROWTH
        client.give(wire)
        assert client.decrypt() == b"x" * size
    decoder.feed(client.encrypt(b"y" * size) + client.farewell())
    assert decoder.plain == b"y" * size
    assert decoder.result == "end"


@VERSIONS
@given(data=st.data())
def test_records_in_any_parts_are_decoded_in_order(version: ssl.TLSVersion, data: st.DataObject) -> None:
    decoder, client = established(version)
    pieces = data.draw(st.lists(st.binary(max_size=2000) | st.integers(1, 40_000).map(bytes), max_size=6))
    wire = b"".join(client.encrypt(piece) for piece in pieces if piece)
    ends = data.draw(st.booleans())
    if ends:
        wire += client.farewell()
    at = 0
    while at < len(wire):
        size = data.draw(st.integers(1, CODEC_READ))
        assert decoder.feed(wire[at : at + size]) == b""
        assert decoder.result == "ok" or (decoder.result == "end" and ends)
        at += size
    assert decoder.plain == b"".join(pieces)
    assert decoder.codec.ended is ends


def test_no_bytes_encode_to_none() -> None:
    decoder, client = established(ssl.TLSVersion.TLSv1_3)
    assert decoder.codec.encode(b"") == b""
    assert decoder.codec.decode(b"") == ("ok", b"", b"")
    client.give(decoder.codec.encode(b"x") or b"")
    assert client.decrypt() == b"x"


# ----------------------------------------------------------------------------------------------------------------- ends


@VERSIONS
def test_finish_sends_close_notify_once_and_reading_goes_on(version: ssl.TLSVersion) -> None:
    decoder, client = established(version)
    client.give(decoder.codec.finish())
    assert client.decrypt() == b""
    assert client.notified
    assert decoder.codec.finish() == b""
    decoder.feed(client.encrypt(b"still here"))
    assert decoder.plain == b"still here"
    decoder.feed(client.farewell())
    assert decoder.result == "end"


@VERSIONS
def test_end_of_the_client_lets_the_server_go_on(version: ssl.TLSVersion) -> None:
    decoder, client = established(version)
    decoder.feed(client.encrypt(b"last") + client.farewell())
    assert (decoder.plain, decoder.result) == (b"last", "end")
    client.give((decoder.codec.encode(b"still here") or b"") + decoder.codec.finish())
    assert client.decrypt() == b"still here"
    assert client.notified


@VERSIONS
def test_bytes_after_the_end_of_the_client_are_ignored(version: ssl.TLSVersion) -> None:
    decoder, client = established(version)
    decoder.feed(client.farewell() + b"junk")
    assert decoder.result == "end"
    for junk in (b"more", record(APPLICATION_DATA, bytes(100)), bytes(16000)):
        assert decoder.codec.decode(junk)[0] in ("ok", "end")
    assert decoder.plain == b""
    assert decoder.codec.encode(b"x")


@VERSIONS
@pytest.mark.parametrize("position", [0, 1, 3, 4, 5, 20, -1])
def test_changed_record_is_an_error_and_ends_the_codec(version: ssl.TLSVersion, position: int) -> None:
    decoder, client = established(version)
    before, wire = client.encrypt(b"before"), bytearray(client.encrypt(b"x" * 50))
    wire[position] ^= 0x81
    later = client.encrypt(b"later")
    alert = decoder.feed(before + bytes(wire) + bytes(20_000))
    assert decoder.result == "error"
    assert decoder.plain == b"before"
    assert decoder.codec.failure in ("malformed", "version")
    client.give(alert)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.decrypt()
    assert decoder.codec.decode(later) == ("error", b"", b"")
    assert decoder.codec.work() == ("error", b"", b"")
    assert decoder.codec.encode(b"x") is None
    assert decoder.codec.finish() == b""


def test_record_in_plain_text_within_a_connection_is_an_error() -> None:
    decoder, _ = established(ssl.TLSVersion.TLSv1_2)
    decoder.feed(record(APPLICATION_DATA, b"forged", 0x0303))
    assert (decoder.result, decoder.plain) == ("error", b"")


def test_codec_before_its_handshake_encodes_nothing() -> None:
    codec = CONTEXT.codec()
    assert codec.encode(b"x") is None
    assert codec.finish() == b""
    assert codec.version is None
    decoder = Decoder(CONTEXT)
    TlsClient(None).hello()
    decoder.feed(TlsClient(None).hello())
    assert decoder.codec.encode(b"x") is None


def test_refused_hello_has_a_reason_and_an_alert() -> None:
    strict = ServerContext([PAIR], strict_sni=True)
    cases = {
        "version": (CONTEXT, hello(version=0x0302), "protocol_version"),
        "cipher": (CONTEXT, hello(suites=[0x1301]), "handshake_failure"),
        "old_client": (CONTEXT, hello(suites=[0x002F]), "handshake_failure"),
        "alpn": (CONTEXT, hello(alpn=[b"h2"]), "no_application_protocol"),
        "name": (strict, hello(name="other.test"), "unrecognized_name"),
    }
    for failure, (context, wire, alert) in cases.items():
        decoder = Decoder(context)
        reply = decoder.feed(wire)
        assert (decoder.result, decoder.codec.failure) == ("error", failure)
        assert plain_alerts(reply) == [(2, alert)]


def test_codecs_of_one_thread_do_not_share_errors() -> None:
    """OpenSSL's queue of errors is one for each thread."""
    good, client = established(ssl.TLSVersion.TLSv1_3)
    for _ in range(5):
        bad = Decoder(CONTEXT)
        bad.feed(hello(suites=[0x1301]))  # what OpenSSL refuses
        assert bad.result == "error"
        good.feed(client.encrypt(b"x"))
        assert good.result == "ok"
        client.give(good.codec.encode(b"y") or b"")
        assert client.decrypt() == b"y"
    assert good.plain == b"x" * 5


# ------------------------------------------------------------------------------------------------------------- contexts


OTHER, OTHER_KIND = issue("other.test"), issue("first.test", key="rsa")


@pytest.mark.parametrize(
    ("certificates", "options", "part"),
    [
        ([], {}, "no certificate"),
        ([PAIR], {"profile": "old"}, "'old'"),
        ([PAIR], {"ticket_keys": bytes(3)}, "80 bytes"),
        ([PAIR._replace(key=OTHER.key)], {}, "key"),
        ([PAIR._replace(key=OTHER_KIND.key)], {}, "key"),
        ([PAIR._replace(key=b"junk")], {}, "key"),
        ([PAIR._replace(chain=b"junk")], {}, "certificate"),
        ([PAIR._replace(chain=b"")], {}, "certificate"),
    ],
    ids=["none", "profile", "ticket keys", "another key", "key of another kind", "junk key", "junk", "empty"],
)
def test_context_with_a_wrong_argument_is_refused(certificates: list[Pair], options: dict[str, Any], part: str) -> None:
    with pytest.raises(TlsError, match=part) as error:
        ServerContext(certificates, **options)
    assert "\n" not in str(error.value)


def test_key_with_a_passphrase_is_refused_without_a_question() -> None:
    from testkit.certificates import key_pem, make_key

    with pytest.raises(TlsError, match="key"):
        ServerContext([PAIR._replace(key=key_pem(make_key(), b"secret"))])


def test_profiles_are_those_of_the_configuration() -> None:
    from flashpol.config import TLS_PROFILES

    assert tuple(TLS_PROFILES) == PROFILES


@VERSIONS
def test_ticket_of_a_context_is_taken_by_another_with_the_same_keys(version: ssl.TLSVersion) -> None:
    keys = bytes(range(TICKET_KEY_BYTES))
    same = [ServerContext([PAIR], tickets=1, ticket_keys=keys) for _ in range(2)]
    other = ServerContext([PAIR], tickets=1, ticket_keys=keys[::-1])
    decoder, client = established(version, same[0])
    client.give(decoder.codec.encode(b"x") or b"")
    client.decrypt()  # the tickets too
    session = client.tls.session
    for context, resumed in ((same[1], True), (other, False)):
        decoder, client = Decoder(context), TlsClient(None, CONTEXTS[version], session=session)
        shake_hands(decoder, client)
        assert (decoder.codec.resumed, client.tls.session_reused) == (resumed, resumed)


def test_ticket_of_another_profile_is_not_taken() -> None:
    """Its session would keep a suite that this profile does not have."""
    keys, pair = bytes(range(TICKET_KEY_BYTES)), issue("first.test", key="rsa")
    flash, modern = (
        ServerContext([pair], profile=profile, tickets=1, ticket_keys=keys) for profile in ("flash", "modern")
    )
    context = only(ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA:@SECLEVEL=0")
    decoder, client = Decoder(flash), TlsClient(None, context)
    shake_hands(decoder, client)
    session = client.tls.session
    shake_hands(Decoder(flash), again := TlsClient(None, context, session=session))
    assert again.tls.session_reused
    decoder = Decoder(modern)
    with pytest.raises(Refused):
        shake_hands(decoder, TlsClient(None, context, session=session))
    assert decoder.codec.failure == "old_client"


def test_reply_to_a_hello_is_whole_records() -> None:
    decoder = Decoder(CONTEXT)
    reply = decoder.feed(hello())
    assert sum(5 + size for _, size in records(reply)) == len(reply)
