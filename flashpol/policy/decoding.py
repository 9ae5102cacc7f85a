"""Decodes the bytes of a file into text: encodings, byte order marks, the NUL at the end.

This module finds mistakes that no XML parser has words for: an empty file, a saved HTTP reply, the length that Java's
`writeUTF` puts in front.
"""

import codecs
import re

from flashpol.policy.model import (
    EmptyError,
    EncodingError,
    HtmlPageError,
    HttpReplyError,
    LengthPrefixError,
    LimitError,
    Location,
    NulError,
    shown,
)

START = Location(1, 1)

# Large enough for 10,000 grants, small enough that all work on a policy takes a fraction of a second. Clients accept
# far less: Unity 5,000 bytes; Adobe's sample server refuses to serve more than 10,000.
MAX_POLICY_BYTES = 1 << 20

# The encodings that a declaration may name, and their codecs. UTF-16 is missing: its bytes identify it. So are most of
# Python's codecs: some are no character sets, and no client reads the rare ones.
_CODECS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
}
_UTF16_NAMES = ("utf-16", "utf-16le", "utf-16be")

# An empty name is left to the reader: it is a mistake in the declaration, such as doubled quotes.
_DECLARED = re.compile(r"""[ \t\r\n]*<\?xml[ \t\r\n][^>]*?encoding[ \t\r\n]*=[ \t\r\n]*["']([^"'>]+)["']""")

# Files served by mistake, known by their first words: HTML is seldom XML, and would otherwise be reported for its
# first unclosed tag.
_OTHER_FILES = (
    (
        re.compile(r"(HTTP/1[.]|(?:content-(?:type|length)|connection|server|date|cache-control):)", re.I),
        HttpReplyError,
        "this is an HTTP reply with its headers",
        "keep only the XML: sockets have no headers",
    ),
    (
        re.compile(r"\s*(<!doctype\s+html|<html)", re.I),
        HtmlPageError,
        "this is an HTML page",
        "serve the policy's XML itself",
    ),
)

# Quotes and dashes of word processors in Windows-1252; a byte of UTF-8 with these values needs others before it.
_CP1252_TYPOGRAPHY = range(0x91, 0x98)

# The end of a policy, after which a NUL ends the reply, whatever follows it.
_ROOT_END = re.compile(
    rb"<(?:/(?:cross-domain|access)-policy\s*|(?:cross-domain|access)-policy[^<>]*/)>", re.IGNORECASE
)


def decode(data: bytes) -> str:
    """Return the text of a policy file: without byte order mark, and without the NUL that ends it (see `split_nul`).

    The encoding is UTF-8 unless a byte order mark, the pattern of UTF-16, or the XML declaration says otherwise.
    Raises LimitError (larger than MAX_POLICY_BYTES) and DocumentError (empty, not text, an encoding that is not
    supported or contradicts the bytes, a NUL inside, an HTTP reply, an HTML page, a length prefix).
    """
    if len(data) > MAX_POLICY_BYTES:
        # Readers stop after one byte too many.
        size = f"more than {MAX_POLICY_BYTES:,}" if len(data) == MAX_POLICY_BYTES + 1 else f"{len(data):,}"
        raise LimitError(f"the policy has {size} bytes", f"keep it within {MAX_POLICY_BYTES:,}")
    _refuse_length_prefix(data)
    text = _decode(split_nul(data)[0])
    if text.endswith("\0"):  # of UTF-16
        text = text[:-1]
    if not text.strip(" \t\r\n"):
        raise EmptyError("the policy is empty", "write at least <cross-domain-policy/>, which allows nothing", START)
    for pattern, error, wrong, instead in _OTHER_FILES:
        if other := pattern.match(text):
            raise error(wrong, instead, START.after(text[: other.start(1)]))
    nul = text.find("\0")
    if nul >= 0:
        raise NulError(
            "a NUL byte inside the policy, where clients stop reading",
            "remove it; one NUL is allowed at the end",
            START.after(text[:nul]),
        )
    return text


def split_nul(data: bytes) -> tuple[bytes, bytes]:
    """Return the policy file before the NUL that ends it, and the rest, which begins with that NUL; empty without one.

    The first NUL ends a policy: clients stop reading there. It does so if the root element has ended, or if only white
    space and NULs follow. A NUL anywhere else belongs to the text, where `decode` reports it.
    """
    if _is_utf16(data):
        # The NUL that ends a reply is one byte in any encoding; in UTF-16 it makes the number of bytes odd.
        return (data[:-1], data[-1:]) if len(data) % 2 and data.endswith(b"\0") else (data, b"")
    nul = data.find(b"\0", 2 if data[2:3] == b"<" else 0)  # a length prefix may contain one
    if nul >= 0 and (not data[nul:].strip(b"\0 \t\r\n") or _ROOT_END.search(data, 0, nul)):
        return data[:nul], data[nul:]
    return data, b""


def _is_utf16(data: bytes) -> bool:
    # 00 3c 3c is a length prefix, and 00 3c 63 ASCII after a NUL.
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"<\0", b"\0<\0"))


def _refuse_length_prefix(data: bytes) -> None:
    """Java's `DataOutputStream.writeUTF` writes two bytes of length first; servers that use it break every client."""
    # The third byte is not '<' in UTF-16, where 00 follows 00 3c. No text begins with a byte below 9, so that is a
    # length even if the file was edited since; other bytes must be the right length, with or without a NUL after the
    # text. Two blanks may have the right value too, but are harmless.
    if data[2:3] != b"<" or not data[:2].strip(b" \t\r\n"):
        return
    if data[0] < 0x09 or int.from_bytes(data[:2], "big") in (len(data) - 2, len(data) - 3):
        raise LengthPrefixError(
            f"two bytes of length ({data[0]:02x} {data[1]:02x}) precede the XML, as Java's writeUTF writes them",
            "remove them, and send bytes instead of calling writeUTF",
            START,
        )


def _decode(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return _decode_8bit(data[3:], known="utf-8")
    if data.startswith((codecs.BOM_UTF16_LE, b"<\0")):
        return _decode_utf16(data, "utf-16-le")
    if data.startswith((codecs.BOM_UTF16_BE, b"\0<\0")):
        return _decode_utf16(data, "utf-16-be")
    return _decode_8bit(data, known=None)


def _decode_8bit(data: bytes, *, known: str | None) -> str:
    """Decode as the declaration says; `known` is the codec that a byte order mark proves."""
    # Latin-1 maps each byte to one character, so places found in it are places in the file.
    declared = _DECLARED.match(data.decode("latin-1"))
    codec = known or "utf-8"
    if declared:
        codec = _CODECS.get(declared[1].lower(), "")
        if not codec:
            at = START.after(declared.string[: declared.start(1)])
            raise EncodingError(*_undecodable(declared[1]), at)
        if known and codec != known:
            raise _contradiction(declared, "UTF-8 (it has a byte order mark)")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        byte = data[error.start]
        why = " (in Windows-1252 a typographic quote or dash)" if byte in _CP1252_TYPOGRAPHY else ""
        raise EncodingError(
            f"the byte 0x{byte:02x} is not {_NAMES[codec]}{why}",
            "write straight quotes and hyphens" if why else "save the file as UTF-8 or plain ASCII",
            START.after(data[: error.start].decode(codec)),
        ) from None


_NAMES = {"utf-8": "UTF-8", "ascii": "ASCII", "cp1252": "Windows-1252"}  # Latin-1 never fails


def _undecodable(name: str) -> tuple[str, str]:
    if name.lower() in _UTF16_NAMES:
        return f"the declaration says {shown(name)}, but the file is not UTF-16", 'write encoding="UTF-8"'
    return f"the encoding {shown(name)} is not supported", 'save the file as UTF-8 and write encoding="UTF-8"'


def _decode_utf16(data: bytes, codec: str) -> str:
    try:
        text = data.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise EncodingError(
            "the file begins as UTF-16 and then is not",
            "save the file as UTF-8 or plain ASCII",
            START.after(data[: error.start].decode(codec).removeprefix("\ufeff")),
        ) from None
    declared = _DECLARED.match(text)
    if declared and declared[1].lower() not in _UTF16_NAMES:
        raise _contradiction(declared, "UTF-16")
    return text


def _contradiction(declared: re.Match[str], actual: str) -> EncodingError:
    return EncodingError(
        f"the declaration says {shown(declared[1])}, but the file is {actual}",
        'save the file as UTF-8 and write encoding="UTF-8"',
        START.after(declared.string[: declared.start(1)]),
    )
