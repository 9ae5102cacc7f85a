"""The fields of certificates: as `cryptography` and OpenSSL read them, and nothing at all from other bytes."""

import ssl
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tls_servers
from cryptography import x509 as oracle
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tls_servers import NAME, signed

from flashpol.probe.tls import x509
from testkit.certificates import CA, CertificateFiles, in_days, make_ca, self_signed


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


def der(files: CertificateFiles) -> list[bytes]:
    found = oracle.load_pem_x509_certificates(files.chain.read_bytes())
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


def read(files: CertificateFiles) -> x509.Certificate:
    certificate = x509.read(der(files)[0])
    assert certificate is not None
    return certificate


NAMES = (NAME, "*.example.org", "192.0.2.7", "2001:db8::1")


@pytest.mark.parametrize(
    ("kind", "bits", "key", "weak"),
    [
        ("rsa", 2048, "RSA of 2,048 bits", False),
        ("rsa", 1024, "RSA of 1,024 bits", True),
        ("ecdsa", 256, "ECDSA on P-256", False),
        ("ecdsa", 384, "ECDSA on P-384", False),
        ("ecdsa", 521, "ECDSA on P-521", False),
        ("ed25519", 256, "Ed25519", False),
    ],
)
def test_fields_are_those_that_cryptography_reads(ca: CA, kind: str, bits: int, key: str, weak: bool) -> None:
    files = ca.issue(*NAMES, kind=kind, bits=bits, not_after=in_days(400), intermediate=True)
    expected = oracle.load_pem_x509_certificate(files.chain.read_bytes())
    found = read(files)
    assert (found.key, found.weak_key, found.weak_hash) == (key, weak, "")
    assert found.names == NAMES
    assert found.not_before == expected.not_valid_before_utc.timestamp()
    assert found.not_after == expected.not_valid_after_utc.timestamp()
    assert (found.subject_der, found.issuer_der) == (expected.subject.public_bytes(), expected.issuer.public_bytes())
    assert (found.subject, found.issuer) == (NAME, "Test root: intermediate")
    assert found.sha256 == expected.fingerprint(SHA256()).hex()
    assert not found.self_issued


def test_chain_is_read_with_its_issuers(ca: CA) -> None:
    leaf, intermediate = map(x509.read, der(ca.issue(NAME, intermediate=True)))
    assert leaf is not None
    assert intermediate is not None
    assert leaf.issuer_der == intermediate.subject_der
    assert (leaf.is_ca, intermediate.is_ca) == (False, True)


def test_self_signed_certificate_is_its_own_issuer(tmp_path: Path) -> None:
    assert read(self_signed(NAME, folder=tmp_path)).self_issued


def test_place_of_the_issuer_is_read(ca: CA) -> None:
    leaf = signed(ca.root, issuer_url="http://ca.example/root.der")
    found = x509.read(leaf.certificate.public_bytes(Encoding.DER))
    assert found is not None
    assert found.issuer_url == "http://ca.example/root.der"


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["-newkey", "rsa:2048", "-sha1"], {"weak_hash": "SHA-1", "weak_key": False}),
        (["-newkey", "rsa:2048", "-md5"], {"weak_hash": "MD5"}),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime192v1"], {"key": "ECDSA on P-192", "weak_key": True}),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], {"key": "ECDSA on secp256k1"}),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"], {"key": "ECDSA on an unknown curve"}),
        (["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], {"key": "RSA of 2,048 bits"}),
        (["-newkey", "rsa:2048", "-days", "20000"], {"names": ()}),  # GeneralizedTime
        (["-newkey", "rsa:2048", "-subj", "/O=Games \u00e9/CN=games"], {"subject": "games (Games \u00e9)"}),
        (["-newkey", "rsa:2048", "-subj", "/O=Games"], {"subject": "Games", "common_name": ""}),
        (["-newkey", "rsa:2048", "-subj", "/"], {"subject": "an empty name"}),
    ],
)
def test_certificate_of_openssl_is_read(tmp_path: Path, arguments: list[str], fields: dict[str, object]) -> None:
    subject = [] if "-subj" in arguments else ["-subj", "/CN=games.example.com"]
    command = ["openssl", "req", "-x509", "-nodes", "-utf8", "-keyout", "key.pem", "-outform", "DER", "-out", "one.der"]
    subprocess.run([*command, *arguments, *subject], cwd=tmp_path, check=True, capture_output=True)
    found = x509.read((tmp_path / "one.der").read_bytes())
    assert found is not None
    assert {name: getattr(found, name) for name in fields} == fields


# ------------------------------------------------------------------------------------------------------ hostile bytes


@given(st.binary(max_size=400))
def test_read_of_any_bytes_returns_nothing(data: bytes) -> None:
    assert x509.read(data) is None


@given(data=st.data())
def test_read_of_a_changed_certificate_raises_nothing(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(certificates_to_change())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(whole))))
    found = x509.read(bytes(whole[:cut]))
    assert found is None or isinstance(found.not_after, int)


@cache
def certificates_to_change() -> list[bytes]:
    with TemporaryDirectory() as folder:
        ca = make_ca(Path(folder))
        return [*der(ca.issue(*NAMES, intermediate=True)), *der(ca.issue(NAME, kind="rsa"))]


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        (["games.example.com"], "games.example.com", True),
        (["games.example.com"], "GAMES.example.COM", True),
        (["Games.Example.com"], "games.example.com", True),
        (["games.example.com"], "games.example.com.", True),
        (["games.example.com"], "www.example.com", False),
        (["games.example.com"], "example.com", False),
        (["example.com"], "games.example.com", False),
        (["www.example.com", "games.example.com"], "games.example.com", True),
        (["*.example.com"], "games.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.games.example.com", False),
        (["*.com"], "example.com", False),
        (["*"], "localhost", False),
        (["ga*.example.com"], "games.example.com", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "192.0.2.8", False),
        (["*.0.2.7"], "192.0.2.7", False),
        (["2001:db8::1"], "2001:0db8:0::0:1", True),
        (["games.example.com"], "192.0.2.7", False),
    ],
)
def test_name_matches_as_openssl_matches_it(ca: CA, names: list[str], host: str, expected: bool) -> None:
    files = ca.issue(*names, common_name="a certificate")
    assert read(files).is_for(host) is expected
    assert openssl_accepts(files, host) is expected


def openssl_accepts(files: CertificateFiles, host: str) -> bool:
    client, server = ssl.create_default_context(cafile=files.ca), tls_servers.server_context(files)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=host.removesuffix("."))
    replying = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (asking, replying):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True
