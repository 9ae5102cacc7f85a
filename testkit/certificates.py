"""Certificates for tests: a certificate authority of their own, and what it issues, ordinary and odd."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

CURVES = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
# Kind of key -> its bits if none are asked for.
BITS = {"ecdsa": 256, "rsa": 2048, "ed25519": 256}


def in_days(days: float) -> datetime:
    """A time for `not_before` and `not_after`, from now."""
    return datetime.now(UTC) + timedelta(days=days)


def make_key(kind: str = "ecdsa", bits: int | None = None) -> PrivateKey:
    """kind: "ecdsa", "rsa" or "ed25519"."""
    bits = bits or BITS[kind]
    if kind == "rsa":
        return rsa.generate_private_key(65537, bits)
    return ec.generate_private_key(CURVES[bits]) if kind == "ecdsa" else ed25519.Ed25519PrivateKey.generate()


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS #8, as certbot writes it."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files. chain: the certificate and the intermediate ones. ca: the root, for the client."""

    chain: Path
    key: Path
    ca: Path

    def toml(self, name: str = "games") -> str:
        """The table of a configuration file."""
        return f'[certificates.{name}]\nchain = "{self.chain}"\nkey = "{self.key}"\n'


@dataclass(frozen=True)
class Issuer:
    """A certificate that may issue others, and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def root(cls, title: str, kind: str = "ecdsa") -> "Issuer":
        key = make_key(kind)
        return cls(_sign(_named(title), key, None, key, ca=True), key)

    def intermediate(self, title: str) -> "Issuer":
        key = make_key()
        return Issuer(_sign(_named(title), key, self, self.key, ca=True), key)

    def issue(self, name: str, key: PrivateKey) -> x509.Certificate:
        """A certificate for a host; `CA.issue` makes other ones, and writes them."""
        return _sign(_named(name), key, self, self.key, names=[name])


class CA:
    """A root of trust, with one intermediate certificate; its files are below `folder`."""

    def __init__(self, folder: Path, title: str = "Test root") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root = Issuer.root(title)
        self.intermediate_issuer = self.root.intermediate(f"{title}: intermediate")
        self.file = folder / "root.pem"
        self.file.write_bytes(certificate_pem(self.root.certificate))
        self._issued = 0

    def issue(
        self,
        *names: str,
        kind: str = "ecdsa",
        bits: int | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        intermediate: bool = False,
        common_name: str | None = None,
        key: PrivateKey | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
        into: Path | None = None,
    ) -> CertificateFiles:
        """A new certificate for these names: host names, `*.` and a host name, IP addresses.

        kind, bits: of its key, see `make_key`; or `key` is its key. intermediate: it is issued by the intermediate
        certificate, which is then in the chain. common_name: of the subject, which is otherwise the first name.
        extensions: more of them, or other ones instead of the usual. into: the folder of fullchain.pem and privkey.pem,
        which are replaced; a new one without it.
        """
        key = key or make_key(kind, bits)
        issuer = self.intermediate_issuer if intermediate else self.root
        subject = common_name if common_name is not None else next(iter(names), "")
        leaf = _sign(
            _named(subject),
            key,
            issuer,
            issuer.key,
            names=names,
            not_before=not_before,
            not_after=not_after,
            extensions=extensions,
        )
        chain = [leaf, *([issuer.certificate] if intermediate else [])]
        self._issued += 1
        return self.write(chain, key, into or self.folder / f"certificate-{self._issued}")

    def write(self, chain: Sequence[x509.Certificate], key: PrivateKey, into: Path) -> CertificateFiles:
        """Any chain and any key as files in this folder."""
        into.mkdir(parents=True, exist_ok=True)
        files = CertificateFiles(into / "fullchain.pem", into / "privkey.pem", self.file)
        files.chain.write_bytes(b"".join(map(certificate_pem, chain)))
        files.key.write_bytes(key_pem(key))
        files.key.chmod(0o600)
        return files


def make_ca(folder: Path, title: str = "Test root") -> CA:
    return CA(folder, title)


def self_signed(*names: str, folder: Path, kind: str = "ecdsa", bits: int | None = None) -> CertificateFiles:
    """A certificate that is its own issuer and no CA, as `openssl req -x509` makes it; `ca` is itself."""
    folder.mkdir(parents=True, exist_ok=True)
    key = make_key(kind, bits)
    certificate = _sign(_named(next(iter(names), "")), key, None, key, names=names)
    files = CertificateFiles(folder / "fullchain.pem", folder / "privkey.pem", folder / "fullchain.pem")
    files.chain.write_bytes(certificate_pem(certificate))
    files.key.write_bytes(key_pem(key))
    files.key.chmod(0o600)
    return files


def _named(title: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)] if title else [])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(
    subject: x509.Name,
    key: PrivateKey,
    issuer: Issuer | None,
    signing: PrivateKey,
    *,
    ca: bool = False,
    names: Sequence[str] = (),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    """A certificate for `key`, signed by the key of its issuer, or by itself without one."""
    public, issuing = key.public_key(), signing.public_key()
    builder = (
        x509.CertificateBuilder(subject_name=subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or in_days(-1))
        .not_valid_after(not_after or in_days(90))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_general_name, names)), critical=False)
    usage = x509.KeyUsage(True, False, not ca, False, False, ca, ca, False, False)
    builder = builder.add_extension(usage, critical=True)
    usual = [] if ca else [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]
    for extension in {each.oid: each for each in (*usual, *extensions)}.values():
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signing, None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256())
