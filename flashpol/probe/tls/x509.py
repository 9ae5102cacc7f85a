"""The fields of an X.509 certificate that a probe judges, read from DER.

Python's ssl gives the fields of a certificate only if it passed the verification, and those that did not pass are the
ones to explain. So this reads them: RFC 5280, as far as the fields of `Certificate` go, with a bound on everything, as
the bytes come from a server. OpenSSL alone decides whether a chain is to be trusted.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_INTEGER, _OID, _SEQUENCE = 0x02, 0x06, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_BMP_STRING, _UTF8_STRING = 0x1E, 0x0C
_VERSION_FIELD, _EXTENSIONS_FIELD = 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS, _URI = 0x82, 0x87, 0x86
_CLOCK = re.compile(rb"(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")

_COMMON_NAME, _ORGANISATION = bytes.fromhex("550403"), bytes.fromhex("55040a")
_SUBJECT_ALT_NAME, _BASIC_CONSTRAINTS = bytes.fromhex("551d11"), bytes.fromhex("551d13")
_AUTHORITY_INFORMATION, _CA_ISSUERS = bytes.fromhex("2b06010505070101"), bytes.fromhex("2b06010505073002")
_RSA, _RSA_PSS = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a")
_ELLIPTIC = bytes.fromhex("2a8648ce3d0201")
_CURVES = {
    bytes.fromhex("2a8648ce3d030101"): ("P-192", 192),
    bytes.fromhex("2b81040021"): ("P-224", 224),
    bytes.fromhex("2a8648ce3d030107"): ("P-256", 256),
    bytes.fromhex("2b81040022"): ("P-384", 384),
    bytes.fromhex("2b81040023"): ("P-521", 521),
    bytes.fromhex("2b8104000a"): ("secp256k1", 256),
}
_OTHER_KEYS = {
    bytes.fromhex("2b6570"): ("Ed25519", 256),
    bytes.fromhex("2b6571"): ("Ed448", 448),
    bytes.fromhex("2a8648ce380401"): ("DSA", 0),
}
_WEAK_SIGNATURES = {
    bytes.fromhex("2a864886f70d010102"): "MD2",
    bytes.fromhex("2a864886f70d010104"): "MD5",
    bytes.fromhex("2a864886f70d010105"): "SHA-1",
    bytes.fromhex("2a8648ce3d0401"): "SHA-1",
    bytes.fromhex("2a8648ce380403"): "SHA-1",
}
_MIN_RSA_BITS, _MIN_CURVE_BITS = 2048, 224


class Certificate(NamedTuple):
    """The fields of one certificate. Times are Unix times.

    `names` are the DNS names and addresses of its subjectAltName, `common_name` the name of its subject, which no
    browser reads. `subject` and `issuer` are for people, `subject_der` and `issuer_der` for comparison. `weak_hash` is
    the hash of its signature if that is broken. `issuer_url` says where its issuer's certificate can be had: CAs whose
    certificates browsers know write it, and issue through an intermediate certificate.
    """

    sha256: str
    subject: str
    issuer: str
    subject_der: bytes
    issuer_der: bytes
    common_name: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    key: str
    weak_key: bool
    weak_hash: str
    is_ca: bool
    issuer_url: str

    @property
    def self_issued(self) -> bool:
        return self.subject_der == self.issuer_der

    def is_for(self, host: str) -> bool:
        """Whether one of its names is this name or address: exactly, or with one level in place of a `*`."""
        return any(_matches(name, host) for name in self.names)


# For a certificate that OpenSSL rejects and this module cannot read either.
UNREADABLE = Certificate("", "a certificate that cannot be read", "", b"", b"", "", (), 0, 0, "", False, "", False, "")


def _matches(name: str, host: str) -> bool:
    name, host = name.lower(), host.lower().removesuffix(".")
    if _address(host):
        return _address(name) == _address(host)
    first, _, rest = host.partition(".")
    return name == host or (bool(first) and "." in rest and name == f"*.{rest}")


def _address(text: str) -> str:
    """Return an IP address in its one spelling, or nothing."""
    import ipaddress  # this and other modules are for probes that speak TLS only

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def read(data: bytes) -> Certificate | None:
    """Return the fields of a certificate in DER, or None if this does not look like one. Never raises."""
    try:
        return _certificate(data)
    except (ValueError, IndexError, OverflowError):
        return None


class _Value(NamedTuple):
    """One value of DER: its tag, its content, and with its header as it was written."""

    tag: int
    content: bytes
    whole: bytes


def _values(data: bytes) -> Iterator[_Value]:
    """Yield the values in the content of a constructed one. Raises ValueError and IndexError."""
    at = 0
    while at < len(data):
        tag, length, begin = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError("a length that DER does not have here")
            length = int.from_bytes(data[begin : begin + size], "big")
            begin += size
        if begin + length > len(data):
            raise ValueError("a value is longer than what it is in")
        yield _Value(tag, data[begin : begin + length], data[at : begin + length])
        at = begin + length


def _only(data: bytes, tag: int) -> bytes:
    """Return the content of the first value, which has this tag."""
    value = next(_values(data), None)
    if value is None or value.tag != tag:
        raise ValueError("another value is expected here")
    return value.content


def _certificate(data: bytes) -> Certificate:
    from hashlib import sha256

    signed, algorithm, *_ = list(_values(_only(data, _SEQUENCE)))
    fields = list(_values(signed.content))
    if fields[0].tag == _VERSION_FIELD:
        del fields[0]
    _serial, _, issuer, validity, subject, key, *rest = fields
    not_before, not_after = map(_time, list(_values(validity.content))[:2])
    extensions = next((_extensions(field.content) for field in rest if field.tag == _EXTENSIONS_FIELD), {})
    key_words, weak_key = _key(key.content)
    return Certificate(
        sha256=sha256(data).hexdigest(),
        subject=_name(subject.content),
        issuer=_name(issuer.content),
        subject_der=subject.whole,
        issuer_der=issuer.whole,
        common_name=_attributes(subject.content).get(_COMMON_NAME, ""),
        names=tuple(_alternative_names(extensions.get(_SUBJECT_ALT_NAME, b""))),
        not_before=not_before,
        not_after=not_after,
        key=key_words,
        weak_key=weak_key,
        weak_hash=_WEAK_SIGNATURES.get(_only(algorithm.content, _OID), ""),
        is_ca=b"\x01\x01\xff" in extensions.get(_BASIC_CONSTRAINTS, b""),
        issuer_url=_issuer_url(extensions.get(_AUTHORITY_INFORMATION, b"")),
    )


def _time(value: _Value) -> float:
    from calendar import timegm

    match = _CLOCK.fullmatch(value.content)
    if match is None or value.tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    year, month, day, hour, minute, second = map(int, match.groups())
    if value.tag == _UTC_TIME:
        year += 1900 if year >= 50 else 2000  # RFC 5280, section 4.1.2.5.1
    return timegm((year, month, day, hour, minute, second))


def _attributes(name: bytes) -> dict[bytes, str]:
    """Return the last value of each attribute of a name, by object identifier."""
    found = {}
    for relative in _values(name):
        for attribute in _values(relative.content):
            kind, text, *_ = _values(attribute.content)
            found[kind.content] = _text(text)
    return found


def _text(value: _Value) -> str:
    encoding = {_BMP_STRING: "utf-16-be", _UTF8_STRING: "utf-8"}.get(value.tag, "latin-1")
    return value.content.decode(encoding, "replace")


def _name(name: bytes) -> str:
    """Return a name for people: what is common, or else the organisation, and both if the first does not say much."""
    attributes = _attributes(name)
    common, organisation = attributes.get(_COMMON_NAME, ""), attributes.get(_ORGANISATION, "")
    if common and organisation and "." not in common:
        return f"{common} ({organisation})"
    return common or organisation or "an empty name"


def _extensions(data: bytes) -> dict[bytes, bytes]:
    found = {}
    for extension in _values(_only(data, _SEQUENCE)):
        parts = list(_values(extension.content))
        found[parts[0].content] = parts[-1].content
    return found


def _alternative_names(extension: bytes) -> Iterator[str]:
    from ipaddress import ip_address

    for name in _values(_only(extension, _SEQUENCE)) if extension else ():
        if name.tag == _DNS_NAME:
            yield name.content.decode("latin-1")
        elif name.tag == _IP_ADDRESS and len(name.content) in (4, 16):
            yield str(ip_address(name.content))


def _issuer_url(extension: bytes) -> str:
    for access in _values(_only(extension, _SEQUENCE)) if extension else ():
        method, place, *_ = _values(access.content)
        if method.content == _CA_ISSUERS and place.tag == _URI:
            return place.content.decode("latin-1")
    return ""


def _key(data: bytes) -> tuple[str, bool]:
    """Return the kind and the size of a key, and whether it is weak."""
    algorithm, bits, *_ = _values(data)
    kind, *parameters = _values(algorithm.content)
    if kind.content in (_RSA, _RSA_PSS):
        modulus = _only(_only(bits.content[1:], _SEQUENCE), _INTEGER)
        size = int.from_bytes(modulus, "big").bit_length()
        return f"RSA of {size:,} bits", size < _MIN_RSA_BITS
    if kind.content == _ELLIPTIC:
        curve, size = _CURVES.get(parameters[0].content if parameters else b"", ("an unknown curve", _MIN_CURVE_BITS))
        return f"ECDSA on {curve}", size < _MIN_CURVE_BITS
    name, _ = _OTHER_KEYS.get(kind.content, ("an unknown kind", 0))
    return name, name == "DSA"
