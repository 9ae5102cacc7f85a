"""Certificates of a configuration: what refuses it, what is only logged, and how a renewal is read."""

import logging
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flashpol.config import Address, CertificateSource, Config, ConfigError, Listener, PolicySource, Server
from flashpol.serving import plan
from flashpol.serving.certificates import CertificateFacts, date, expiry, judge_all, load_all, others_can_read
from flashpol.serving.file_watch import FileWatch
from flashpol.serving.plan import Loader
from testkit.certificates import CA, CertificateFiles, in_days, make_ca, make_key
from testkit.folders import let_others_in
from testkit.processes import as_nobody

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def files(ca: CA, tmp_path: Path) -> CertificateFiles:
    return ca.issue("games.example.com", intermediate=True, into=tmp_path / "games")


def config(files: CertificateFiles, **listener: object) -> Config:
    source = CertificateSource("games", files.chain, files.key)
    settings = {"tls": ("games",), **listener}
    own = Listener("main", Address("127.0.0.1", 0), "main", **settings)  # type: ignore[arg-type]
    return Config(Server(), (PolicySource("main", grants=("*:1935",)),), (own,), (source,))


def findings(files: CertificateFiles, **listener: object) -> list[str]:
    """What is logged when they are loaded."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("flashpol")
    logger.addHandler(handler)
    try:
        load_all(config(files, **listener))
    finally:
        logger.removeHandler(handler)
    assert {(record.levelname, record.event, record.certificate) for record in records} <= {  # type: ignore[attr-defined]
        ("WARNING", "certificate-warning", "games")
    }
    return [record.getMessage() for record in records]


# -------------------------------------------------------------------------------------------------------------- loading


def test_load_of_certificates_has_their_bytes_and_facts(files: CertificateFiles) -> None:
    loaded = load_all(config(files))["games"]
    assert (loaded.chain, loaded.key) == (files.chain.read_bytes(), files.key.read_bytes())
    assert (loaded.names, loaded.facts.name, loaded.facts.key) == (("games.example.com",), "games", "ECDSA P-256")
    assert loaded.facts.chain_file == str(files.chain)
    again = pickle.loads(pickle.dumps(loaded))
    assert again == loaded
    assert "PRIVATE KEY" not in repr(again)
    assert findings(files) == []


def test_load_of_a_key_in_the_chain_file_finds_it(files: CertificateFiles) -> None:
    files.chain.write_bytes(files.key.read_bytes() + files.chain.read_bytes())
    files.chain.chmod(0o600)
    source = CertificateSource("games", files.chain)
    assert load_all(Config(Server(), (), (), (source,)))["games"].key == files.chain.read_bytes()


def put_the_root_second(ca: CA, files: CertificateFiles) -> None:
    """The certificate, its issuer's issuer, and its issuer."""
    key = make_key()
    leaf, issuer = ca.intermediate_issuer.issue("games.example.com", key=key), ca.intermediate_issuer.certificate
    ca.write([leaf, ca.root.certificate, issuer], key, files.chain.parent)


def replace_key(ca: CA, files: CertificateFiles) -> None:
    files.key.write_bytes(ca.issue("other.example").key.read_bytes())


REFUSED: dict[str, tuple[Callable[[CA, CertificateFiles], object], str]] = {
    "no chain": (lambda ca, files: files.chain.unlink(), "{chain}: cannot be read: No such file or directory"),
    "no key": (lambda ca, files: files.key.unlink(), "{key}: cannot be read: No such file or directory"),
    "folder": (lambda ca, files: (files.key.unlink(), files.key.mkdir()), "{key}: cannot be read: Is a directory"),
    "FIFO": (
        lambda ca, files: (files.key.unlink(), os.mkfifo(files.key)),
        "{key}: is a FIFO; write a regular file, which a reload can read again",
    ),
    "huge": (
        lambda ca, files: os.truncate(files.chain, 1 << 30),
        "{chain}: is larger than 1,048,576 bytes: is this a PEM file?",
    ),
    "text": (
        lambda ca, files: files.chain.write_text("x"),
        "{chain}: is not PEM: write a file with -----BEGIN CERTIFICATE----- in it",
    ),
    "other key": (
        replace_key,
        "{key}: the private key is another certificate's: write the one that belongs to the chain",
    ),
    "key nowhere": (
        lambda ca, files: files.key.write_bytes(files.chain.read_bytes()),
        "{key}: has no private key: write a file with -----BEGIN PRIVATE KEY----- in it",
    ),
    "out of order": (
        put_the_root_second,
        "{chain}: the certificates are not in order, and some clients refuse them: write 'CN=games.example.com', ",
    ),
    "expired": (
        lambda ca, files: ca.issue(
            "games.example.com", not_before=in_days(-9), not_after=in_days(-1), into=files.chain.parent
        ),
        "{chain}: expired on ",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_load_of_what_a_server_cannot_use_is_refused_with_file_and_remedy(
    ca: CA, files: CertificateFiles, spoil: Callable[[CA, CertificateFiles], object], message: str
) -> None:
    spoil(ca, files)
    with pytest.raises(ConfigError) as caught:
        load_all(config(files))
    assert str(caught.value).startswith(message.format(chain=files.chain, key=files.key))
    assert list(judge_all(config(files))) == [("games", [], str(caught.value))]


def test_load_of_a_chain_without_a_key_says_how_to_name_its_file(files: CertificateFiles) -> None:
    source = CertificateSource("games", files.chain)
    with pytest.raises(ConfigError) as caught:
        load_all(Config(Server(), (), (), (source,)))
    assert str(caught.value) == (
        f"{files.chain}: has no private key: set key to the file that has it (serve --tls CHAIN,KEY)"
    )


def test_load_of_an_unused_certificate_is_refused_too(ca: CA, files: CertificateFiles) -> None:
    replace_key(ca, files)
    with pytest.raises(ConfigError, match="another certificate"):
        load_all(config(files, tls=()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_load_of_a_key_that_the_user_may_not_read_says_who_must(files: CertificateFiles) -> None:
    let_others_in(files.chain.parent)
    files.chain.chmod(0o644)
    words = as_nobody(lambda: load_all(config(files)))
    assert words == (
        f"ConfigError: {files.key}: cannot be read: Permission denied: let the user that starts flashpol read it; the "
        "workers need not"
    )


def test_load_without_the_extension_says_what_to_install(
    files: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("flashpol._tls")
    monkeypatch.delitem(sys.modules, "flashpol._tls")
    monkeypatch.setattr(sys, "meta_path", [])  # as if there were no file of it
    with pytest.raises(ConfigError, match=r"^certificates need OpenSSL, .*libssl-dev.*build again, `pip install"):
        load_all(config(files))
    assert load_all(Config(Server(), (), ())) == {}


# ------------------------------------------------------------------------------------------------------------- findings


def test_load_of_what_clients_object_to_is_logged(ca: CA, files: CertificateFiles) -> None:
    ca.issue(common_name="x", kind="rsa", bits=1024, intermediate=True, into=files.chain.parent)
    assert findings(files, tls_profile="flash") == [
        f"certificate games: {files.chain}: has its name, 'x', only in the subject, where clients ignore it: have it "
        "issued with a subjectAltName",
        f"certificate games: {files.chain}: has a weak key, RSA 1024, which clients refuse: use ECDSA P-256 or RSA "
        "2048",
    ]


def test_load_of_a_key_too_weak_for_the_profile_names_listener_and_certificate(ca: CA, files: CertificateFiles) -> None:
    ca.issue("games.example.com", kind="rsa", bits=1024, into=files.chain.parent)
    message = '^listener main: certificate games cannot be used with tls_profile = "modern": .* too small: have it'
    with pytest.raises(ConfigError, match=message):
        load_all(config(files))


def test_load_of_a_certificate_near_its_ends_is_logged(ca: CA, files: CertificateFiles) -> None:
    into = files.chain.parent
    ca.issue("games.example.com", not_after=in_days(13.5), into=into)
    [text] = findings(files)
    assert re.fullmatch(rf"certificate games: {files.chain}: expires in 13 days, on \S+ \S+ UTC: renew it", text)
    ca.issue("games.example.com", not_after=in_days(14.5), into=into)
    assert findings(files) == []
    ca.issue("games.example.com", not_before=in_days(1), into=into)
    [text] = findings(files)
    assert re.search(r"fullchain.pem: is not valid before \S+ \S+ UTC: check the clock of this host, or wait$", text)


def test_expiry_of_an_intermediate_certificate_is_a_finding() -> None:
    facts = CertificateFacts("c", (), 0, 10**9, "", "", "f.pem", (("'CN=I'", 86_400 * 20),))
    assert list(expiry(facts, 86_400 * 5)) == []
    [ending] = expiry(facts, 86_400 * 18.5)
    text = (
        "the intermediate certificate 'CN=I' expires in 1 day, on 1970-01-21 00:00 UTC: get the chain from its issuer"
    )
    assert (ending.line, ending.over) == (f"f.pem: {text} again", False)
    [ending] = expiry(facts, 86_400 * 20)
    assert ending.over
    assert ending.line.startswith("f.pem: the intermediate certificate 'CN=I' expired on 1970-01-21 00:00 UTC, and ")


def test_date_is_in_utc() -> None:
    assert date(1_700_000_000) == "2023-11-14 22:13 UTC"


def test_key_that_every_user_can_read_is_a_finding(files: CertificateFiles) -> None:
    let_others_in(files.key.parent)
    files.key.chmod(0o644)
    assert findings(files) == [
        f"certificate games: {files.key}: every user of this host can read the private key: chmod o= {files.key}"
    ]
    files.key.chmod(0o640)
    assert findings(files) == []


def test_key_in_a_folder_that_is_closed_to_others_cannot_be_read_by_them(tmp_path: Path) -> None:
    """Old versions of certbot write keys of mode 0644 into folders of mode 0700."""
    key = tmp_path / "archive" / "key"
    key.parent.mkdir()
    key.write_text("")
    key.chmod(0o644)
    live = tmp_path / "live"
    live.symlink_to(key)
    key.parent.chmod(0o700)
    assert not others_can_read(live)
    assert not others_can_read(tmp_path / "missing")


# -------------------------------------------------------------------------------------------------------------- renewal


class Renewal:
    """A loader of one certificate, as a start and then reloads call it."""

    def __init__(self, files: CertificateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan, "forbid_core_dumps", lambda: None)  # the tests may need their own
        self.files = files
        self.watch = FileWatch()
        self.loader = Loader(lambda: config(files))

    def load(self) -> str:
        """SHA-256 of what it loads."""
        return self.loader.load(self.watch.adopt).certificates["games"].facts.sha256

    @property
    def changed(self) -> bool:
        return self.watch.changed() or self.watch.changed()


@pytest.fixture
def renewal(files: CertificateFiles, monkeypatch: pytest.MonkeyPatch) -> Renewal:
    return Renewal(files, monkeypatch)


def test_start_with_a_mismatch_is_refused_at_once(ca: CA, renewal: Renewal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    replace_key(ca, renewal.files)
    with pytest.raises(ConfigError, match="another certificate"):
        renewal.load()


def test_reload_between_the_new_chain_and_the_new_key_waits_for_the_key(ca: CA, renewal: Renewal) -> None:
    before = renewal.load()
    new = ca.issue("games.example.com")
    os.replace(new.chain, renewal.files.chain)
    later = threading.Timer(0.3, os.replace, (new.key, renewal.files.key))
    later.start()
    assert renewal.load() != before
    assert not renewal.changed, "the files of the last try are those that are watched"


def test_reload_while_the_link_to_a_file_is_missing_waits_for_it(ca: CA, renewal: Renewal) -> None:
    """certbot removes the link to the old file before it makes the one to the new."""
    renewal.load()
    renewal.files.chain.rename(moved := renewal.files.chain.with_suffix(".old"))
    later = threading.Timer(0.3, renewal.files.chain.symlink_to, (moved,))
    later.start()
    renewal.load()


def test_reload_with_a_key_that_stays_wrong_is_refused_after_a_second(ca: CA, renewal: Renewal) -> None:
    renewal.load()
    replace_key(ca, renewal.files)
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="another certificate"):
        renewal.load()
    assert time.monotonic() - begin >= plan.CERTIFICATES_PATIENCE
    assert not renewal.changed, "an unchanged bad file is not tried again"


def test_watch_notices_a_link_that_leads_to_a_new_file(ca: CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As certbot renews: live/… are links into archive/…."""
    archive, live = tmp_path / "archive", tmp_path / "live"
    live.mkdir()
    for number in (1, 2):
        ca.issue("games.example.com", key=make_key(), into=archive / str(number))
    names = ("fullchain.pem", "privkey.pem")
    for name in names:
        (live / name).symlink_to(archive / "1" / name)
    renewal = Renewal(CertificateFiles(live / names[0], live / names[1], ca.file), monkeypatch)
    before = renewal.load()
    assert not renewal.changed
    for name in names:
        (live / name).unlink()
        (live / name).symlink_to(archive / "2" / name)
    assert renewal.changed
    assert renewal.load() != before
