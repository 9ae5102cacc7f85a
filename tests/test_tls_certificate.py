"""Certificate: what it reads of a chain and a key, what it refuses, what it finds."""

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from testkit.certificates import CA, CertificateFiles, in_days, key_pem, make_ca, make_key, self_signed
from testkit.examples import examples

tls = pytest.importorskip("flashpol._tls", reason="built without OpenSSL")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(ca: CA) -> CertificateFiles:
    return ca.issue("Games.example.com", "*.games.example.com", "192.0.2.1", "2001:db8::1", intermediate=True)


def read(files: CertificateFiles) -> Any:
    return tls.Certificate(files.chain.read_bytes(), files.key.read_bytes())


def parts(files: CertificateFiles) -> list[bytes]:
    """The certificates of the chain, each as PEM."""
    end = b"-----END CERTIFICATE-----\n"
    return [part + end for part in files.chain.read_bytes().split(end) if part]


# ---------------------------------------------------------------------------------------------------------------- facts


def test_certificate_has_the_facts_of_its_files(ca: CA) -> None:
    begin, end = in_days(-1), in_days(80)
    files = ca.issue("Games.example.com", "*.games.example.com", "192.0.2.1", "2001:db8::1", not_before=begin,
                     not_after=end, intermediate=True)  # fmt: skip
    found = read(files)
    assert found.names == ("games.example.com", "*.games.example.com", "192.0.2.1", "2001:db8::1")
    assert (found.not_before, found.not_after) == (int(begin.timestamp()), int(end.timestamp()))
    assert found.key == "ECDSA P-256"
    assert found.sha256 == x509.load_pem_x509_certificate(parts(files)[0]).fingerprint(SHA256()).hex()
    [(subject, issuers_end)] = found.issuers
    assert subject == "'CN=Test root: intermediate'"
    assert issuers_end == int(ca.intermediate_issuer.certificate.not_valid_after_utc.timestamp())
    assert found.findings == ()


@pytest.mark.parametrize(
    ("kind", "bits", "text"),
    [
        ("ecdsa", 384, "ECDSA P-384"),
        ("ecdsa", 521, "ECDSA P-521"),
        ("rsa", 2048, "RSA 2048"),
        ("ed25519", 256, "Ed25519"),
    ],
)
def test_certificate_names_the_kind_of_its_key(ca: CA, kind: str, bits: int, text: str) -> None:
    assert read(ca.issue("a.example", kind=kind, bits=bits)).key == text


def test_certificate_without_an_alternative_name_is_for_the_host_in_its_subject(ca: CA) -> None:
    assert read(ca.issue(common_name="Chat.example.com")).names == ("chat.example.com",)
    assert read(ca.issue(common_name="Example Corporation")).names == ()


def test_certificate_leaves_out_what_is_no_name_of_a_host(ca: CA) -> None:
    odd = x509.SubjectAlternativeName(
        [
            x509.RFC822Name("a@a.example"),
            x509.DNSName("a b.example"),
            x509.DNSName("b.example"),
            x509.DNSName("B.example"),
        ]
    )
    assert read(ca.issue(extensions=[odd])).names == ("b.example",)


def test_certificate_with_the_key_in_the_same_file_is_read(files: CertificateFiles) -> None:
    both = files.key.read_bytes() + files.chain.read_bytes()
    assert tls.Certificate(both).sha256 == read(files).sha256
    assert tls.Certificate(b"text before\n" + both + b"text after\n", None).key == "ECDSA P-256"


# ------------------------------------------------------------------------------------------------------------- refusals


def test_certificate_with_another_key_is_a_mismatch(ca: CA, files: CertificateFiles) -> None:
    other = ca.issue("other.example").key.read_bytes()
    with pytest.raises(tls.KeyMismatch, match=r"^the private key is another certificate's: write the one that belongs"):
        tls.Certificate(files.chain.read_bytes(), other)
    with pytest.raises(tls.KeyMismatch, match=r"^the private key is that of certificate 2 of the chain, 'CN=Games\.ex"):
        tls.Certificate(b"".join(reversed(parts(files))), files.key.read_bytes())


def converted(files: CertificateFiles, *arguments: str) -> bytes:
    """What openssl makes of the key or the chain; {key} and {chain} are their files."""
    if not shutil.which("openssl"):
        pytest.skip("the command openssl is not installed")
    words = [word.format(key=files.key, chain=files.chain) for word in arguments]
    return subprocess.run(["openssl", *words], capture_output=True, check=True).stdout


REFUSED_KEYS: dict[str, tuple[Callable[[CertificateFiles], bytes], str]] = {
    "encrypted": (lambda _: key_pem(make_key(), b"secret"), "has a passphrase, .*: remove it with `openssl pkey -in"),
    "encrypted by an old program": (
        lambda files: converted(files, "ec", "-in", "{key}", "-aes128", "-passout", "pass:x"),
        "has a passphrase",
    ),
    "empty": (lambda _: b"", "^is empty: write a file with -----BEGIN PRIVATE KEY-----"),
    "a chain": (lambda files: files.chain.read_bytes(), "^has no private key: write a file with -----BEGIN PRIVATE"),
    "public": (lambda files: converted(files, "pkey", "-in", "{key}", "-pubout"), "^has no private key"),
    "DER": (
        lambda files: converted(files, "pkey", "-in", "{key}", "-outform", "DER"),
        r"^is DER \(convert it with `openssl pkey",
    ),
    "cut off": (lambda files: files.key.read_bytes()[:-60], "^the private key is damaged"),
    "text": (lambda _: b"not a key", "^is not PEM: write"),
    "huge": (lambda _: b"x" * (1 << 20) + b"x", "^is larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED_KEYS.values(), ids=REFUSED_KEYS)
def test_key_that_cannot_be_used_is_refused(
    files: CertificateFiles, make: Callable[[CertificateFiles], bytes], words: str
) -> None:
    with pytest.raises(tls.PrivateKeyError, match=words) as caught:
        tls.Certificate(files.chain.read_bytes(), make(files))
    assert "\n" not in str(caught.value)


REFUSED_CHAINS: dict[str, tuple[Callable[[CertificateFiles], bytes], str]] = {
    "empty": (lambda _: b" \n", "^is empty: write a file with -----BEGIN CERTIFICATE-----"),
    "a key": (lambda files: files.key.read_bytes(), "^has no certificate: write a file with -----BEGIN CERTIFICATE"),
    "a request": (
        lambda files: converted(files, "req", "-new", "-key", "{key}", "-subj", "/CN=a"),
        r"^has a request \(CSR\): use the certificate",
    ),
    "DER": (
        lambda files: converted(files, "x509", "-in", "{chain}", "-outform", "DER"),
        r"^is DER \(convert it with `openssl x509",
    ),
    "PKCS #7": (
        lambda files: converted(files, "crl2pkcs7", "-nocrl", "-certfile", "{chain}"),
        "^is PKCS #7: convert it with `openssl pkcs7",
    ),
    "cut off": (lambda files: files.chain.read_bytes()[:-60], "^certificate 2 of the file is damaged"),
    "damaged": (
        lambda files: files.chain.read_bytes().replace(b"A", b"B", 40),
        "^certificate 1 of the file is damaged",
    ),
    "text": (lambda _: b"not a certificate", "^is not PEM: write"),
    "a list": (lambda files: files.chain.read_bytes() * 9, "^has more than 16 certificates"),
    "huge": (lambda _: b"x" * (1 << 20) + b"x", "^is larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED_CHAINS.values(), ids=REFUSED_CHAINS)
def test_chain_that_cannot_be_used_is_refused(
    files: CertificateFiles, make: Callable[[CertificateFiles], bytes], words: str
) -> None:
    with pytest.raises(tls.TlsError, match=words) as caught:
        tls.Certificate(make(files), files.key.read_bytes())
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, tls.PrivateKeyError)


def test_refusal_leaves_no_error_for_the_next_certificate(files: CertificateFiles) -> None:
    with pytest.raises(tls.TlsError):
        tls.Certificate(files.chain.read_bytes()[:-60], files.key.read_bytes())
    assert read(files).findings == ()


# ------------------------------------------------------------------------------------------------------------- findings


def issuers_address() -> x509.AuthorityInformationAccess:
    place = x509.UniformResourceIdentifier("http://ca.example/intermediate.der")
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, place)]
    )  # fmt: skip


FOUND: dict[str, tuple[Callable[[CA, Path], CertificateFiles], str]] = {
    "no name": (lambda ca, _: ca.issue(), "^has no name, so clients refuse it: have it issued with a subjectAltName"),
    "name in the subject": (
        lambda ca, _: ca.issue(common_name="a.example"),
        "^has its name, 'a.example', only in the subject, where clients ignore it: have it issued with",
    ),
    "self-signed": (lambda _, folder: self_signed("a.example", folder=folder), "^is self-signed, so clients refuse it"),
    "short key": (
        lambda ca, _: ca.issue("a.example", kind="rsa", bits=1024),
        "^has a weak key, RSA 1024, which clients refuse: use ECDSA P-256 or RSA 2048",
    ),
    "long key": (
        lambda ca, _: ca.issue("a.example", kind="rsa", bits=4096),
        "^has a long key, RSA 4096: a handshake takes 5 ms of CPU.*: use ECDSA P-256 or RSA 2048",
    ),
    "odd key": (
        lambda ca, _: ca.issue("a.example", kind="ed25519"),
        "^has a key of a kind that few clients can use, Ed25519: use ECDSA P-256",
    ),
    "other use": (
        lambda ca, _: ca.issue("a.example", extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]),
        "^is not meant for TLS servers, so clients refuse it: have it issued for serverAuth",
    ),
    "no intermediate certificate": (
        lambda ca, folder: ca.write(
            [x509.load_pem_x509_certificate(parts(ca.issue(
                "a.example", key=(key := make_key()), intermediate=True, extensions=[issuers_address()]
            ))[0])], key, folder),
        r"^the intermediate certificate 'CN=Test root: intermediate' is missing, .*\(certbot: use fullchain.pem\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), FOUND.values(), ids=FOUND)
def test_certificate_that_clients_object_to_is_a_finding(
    ca: CA, tmp_path: Path, make: Callable[[CA, Path], CertificateFiles], words: str
) -> None:
    [finding] = read(make(ca, tmp_path)).findings
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(finding)
    assert "\n" not in finding


def test_certificate_signed_with_sha1_is_a_finding_and_a_root_is_not(ca: CA, tmp_path: Path) -> None:
    """A root's own signature is checked by no client."""
    files = ca.issue("a.example", into=tmp_path)
    (tmp_path / "root.key").write_bytes(key_pem(ca.root.key))
    converted(files, "req", "-new", "-key", "{key}", "-subj", "/CN=a", "-addext", "subjectAltName=DNS:a.example",
              "-out", f"{tmp_path}/csr")  # fmt: skip
    converted(files, "x509", "-req", "-sha1", "-in", f"{tmp_path}/csr", "-CA", str(ca.file), "-CAkey",
              f"{tmp_path}/root.key", "-CAcreateserial", "-CAserial", f"{tmp_path}/serial", "-copy_extensions",
              "copyall", "-out", "{chain}")  # fmt: skip
    [finding] = read(files).findings
    assert finding == "is signed with SHA-1, which clients refuse: have it issued again"
    converted(files, "req", "-x509", "-sha1", "-key", "{key}", "-subj", "/CN=a", "-addext",
              "subjectAltName=DNS:a.example", "-out", "{chain}")  # fmt: skip
    [finding] = read(files).findings
    assert finding.startswith("is self-signed")


def orders(size: int) -> list[tuple[int, ...]]:
    return [(0, *rest) for rest in itertools.permutations(range(1, size))]


@pytest.mark.parametrize("order", orders(4))
def test_chain_out_of_order_is_a_finding_that_says_the_order(ca: CA, tmp_path: Path, order: tuple[int, ...]) -> None:
    key = make_key()
    lower = ca.intermediate_issuer.intermediate("Lower")
    leaf = lower.issue("a.example", key=key)
    certificates = [leaf, lower.certificate, ca.intermediate_issuer.certificate, ca.root.certificate]
    found = read(ca.write([certificates[i] for i in order], key, tmp_path)).findings
    if order == (0, 1, 2, 3):
        assert found == ()
    else:
        [finding] = found
        assert finding == (
            "the certificates are not in order, and some clients refuse them: write 'CN=a.example', 'CN=Lower', "
            "'CN=Test root: intermediate', 'CN=Test root'"
        )


def test_certificate_in_a_chain_that_does_not_belong_to_it_is_a_finding(ca: CA, tmp_path: Path) -> None:
    key, strange = make_key(), make_ca(tmp_path, "Strange")
    leaf = ca.root.issue("a.example", key=key)
    [extra, missing] = read(ca.write([leaf, strange.root.certificate], key, tmp_path)).findings
    assert extra == "'CN=Strange' is not part of the chain, or there twice: remove it"
    assert missing.startswith("the intermediate certificate 'CN=Test root' is missing")
    [extra] = read(ca.write([leaf, leaf, ca.root.certificate], key, tmp_path)).findings
    assert extra == "'CN=a.example' is not part of the chain, or there twice: remove it"


def test_issuer_of_the_same_name_with_another_key_is_not_the_issuer(ca: CA, tmp_path: Path) -> None:
    key, impostor = make_key(), make_ca(tmp_path, "Test root")
    found = read(ca.write([ca.root.issue("a.example", key=key), impostor.root.certificate], key, tmp_path)).findings
    assert found[0] == "'CN=Test root' is not part of the chain, or there twice: remove it"


# ---------------------------------------------------------------------------------------------------------- any bytes


@examples(300)
@given(data=st.data())
def test_certificate_of_damaged_bytes_is_read_or_refused_in_one_line(
    data: st.DataObject, files: CertificateFiles
) -> None:
    chain, key = bytearray(files.chain.read_bytes()), bytearray(files.key.read_bytes())
    for text in (chain, key):
        for _ in range(data.draw(st.integers(0, 3))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b"ABab019+/=-\n\0"))
    lines: tuple[str, ...]
    try:
        lines = tls.Certificate(bytes(chain), bytes(key)).findings
    except tls.TlsError as error:
        lines = (str(error),)
    assert not any("\n" in line for line in lines)


@examples(200)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_certificate_of_any_bytes_is_refused_in_one_line(chain: bytes, key: bytes) -> None:
    with pytest.raises(tls.TlsError) as caught:
        tls.Certificate(chain, key)
    assert "\n" not in str(caught.value)


def resident() -> int:
    """KB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


@pytest.mark.slow
def test_certificate_read_ten_thousand_times_leaves_nothing(ca: CA, files: CertificateFiles, tmp_path: Path) -> None:
    chain, key = files.chain.read_bytes(), files.key.read_bytes()
    bad = [
        (chain, b""),
        (chain[:-60], key),
        (chain, key_pem(make_key(), b"x")),
        (chain, key_pem(make_key())),
        (b"", key),
    ]
    bad.append((chain * 9, key))

    def rounds(count: int) -> None:
        for _ in range(count):
            tls.Certificate(chain, key)
            for pair in bad:
                with pytest.raises(tls.TlsError):
                    tls.Certificate(*pair)

    rounds(500)
    before = resident()
    rounds(1500)
    assert resident() - before < 500, "a leak of a certificate or a key each time would be 3 MB or more"
