"""From the bytes of a file to its text: encodings, byte order marks, the NUL at the end.

What is wrong with a policy before XML is even looked at is found here, because an XML parser has no words
for it: an empty file, a saved HTTP reply, the length that Java's `writeUTF` puts in front.
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

# Large enough for 10,000 grants, small enough that nothing in here takes a noticeable part of a second. Clients
# stop far earlier: Unity at 5,000 bytes, Adobe's sample server refuses to serve more than 10,000.
MAX_POLICY_BYTES = 1 << 20

# Names a declaration may use, and the codec that reads them. UTF-16 is not here: its bytes announce themselves.
# Not every codec Python has: some are no character sets at all, and no client reads the exotic ones.
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

_DECLARED = re.compile(r"""[ \t\r\n]*<\?xml[ \t\r\n][^>]*?encoding[ \t\r\n]*=[ \t\r\n]*["']([^"'>]*)["']""")

# Files served by mistake, known by their first words: HTML in particular is seldom XML, and would otherwise be
# reported for its first unclosed tag.
_OTHER_FILES = (
    (
        re.compile("(HTTP/1[.])"),
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

# Where word processors put their quotes and dashes in Windows-1252; in UTF-8 these bytes cannot stand alone.
_CP1252_TYPOGRAPHY = range(0x91, 0x98)


def decode(data: bytes) -> str:
    """Return the text of a policy file: without byte order mark, without the one NUL it may end in.

    UTF-8 unless a byte order mark, the pattern of UTF-16, or the XML declaration says otherwise.
    Raises LimitError (larger than MAX_POLICY_BYTES) and DocumentError (empty, not text, an encoding not
    supported or contradicting itself, NUL inside, an HTTP reply, an HTML page, a length in front).
    """
    if len(data) > MAX_POLICY_BYTES:
        raise LimitError(f"the policy has {len(data):,} bytes", f"keep it within {MAX_POLICY_BYTES:,}")
    _refuse_length_prefix(data)
    text = _decode(data)
    if text.endswith("\0"):
        text = text[:-1]
    if not text.strip(" \t\r\n"):
        raise EmptyError("the policy is empty", "write at least <cross-domain-policy/>, which allows nobody", START)
    for pattern, error, wrong, instead in _OTHER_FILES:
        if other := pattern.match(text):
            raise error(wrong, instead, START.after(text[: other.start(1)]))
    nul = text.find("\0")
    if nul >= 0:
        raise NulError(
            "a NUL byte inside the policy, where clients would stop reading",
            "remove it; one NUL may stand at the very end",
            START.after(text[:nul]),
        )
    return text


def _refuse_length_prefix(data: bytes) -> None:
    """Java's `DataOutputStream.writeUTF` writes two bytes of length first; servers that use it break every client."""
    # '<' in third place keeps UTF-16 out, where 00 3c is followed by 00. Below 9 no byte can begin a text, so it is a
    # length even if the file was edited since; above, it must be the right length, with or without a NUL sent after
    # it. Two blanks may happen to be one too, but are harmless.
    if data[2:3] != b"<" or not data[:2].strip(b" \t\r\n"):
        return
    if data[0] < 0x09 or int.from_bytes(data[:2], "big") in (len(data) - 2, len(data) - 3):
        raise LengthPrefixError(
            f"two bytes of length ({data[0]:02x} {data[1]:02x}) come before the XML, as Java's writeUTF puts them",
            "remove them, and send bytes instead of calling writeUTF",
            START,
        )


def _decode(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return _decode_8bit(data[3:], known="utf-8")
    if data.startswith((codecs.BOM_UTF16_LE, b"<\0")):
        return _decode_utf16(data, "utf-16-le")
    if data.startswith((codecs.BOM_UTF16_BE, b"\0<")):
        return _decode_utf16(data, "utf-16-be")
    return _decode_8bit(data, known=None)


def _decode_8bit(data: bytes, *, known: str | None) -> str:
    """Decode as the declaration says; `known` is what a byte order mark already proved."""
    # Latin-1 maps bytes to characters one to one, so places found in it are places in the file.
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
    if len(data) % 2 and data.endswith(b"\0"):
        data = data[:-1]  # the NUL that ends a reply, which is a byte in whatever encoding
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
