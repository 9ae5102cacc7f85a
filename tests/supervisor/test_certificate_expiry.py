"""What the log says of certificates that expire while the server runs."""

import logging
from collections.abc import Iterator

import pytest

from flashpol.serving.certificates import DAY, CertificateFacts, LoadedCertificate
from flashpol.supervisor.certificate_expiry import CertificateExpiry

END = 100 * DAY


def certificate(end: int = END, sha256: str = "1", issuer: int = 10**9) -> LoadedCertificate:
    facts = CertificateFacts("games", ("a.example",), 0, end, "ECDSA P-256", sha256, "f.pem", (("'CN=I'", issuer),))
    return LoadedCertificate(b"", b"", facts)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("flashpol")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def events(records: list[logging.LogRecord]) -> list[str]:
    """What was logged of certificates since the last call. A greenlet of an earlier test may log too."""
    found = [record.event for record in records if record.event.startswith("certificate")]  # type: ignore[attr-defined]
    records.clear()
    return found


def test_expiry_logs_nothing_of_a_certificate_that_is_valid_for_long(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    for day in range(86):
        expiry.check({"games": certificate()}, day * DAY)
    assert events(records) == []


def test_expiry_warns_daily_and_then_logs_errors_daily(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    expiry.check({"games": certificate()}, 0)
    for hour in range(86 * 24 + 1, 104 * 24):
        expiry.check({"games": certificate()}, hour * 3600)
    assert events(records) == ["certificate-warning"] * 14 + ["certificate-expired"] * 4


def test_expiry_line_names_certificate_file_and_remedy(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    expiry.check({"games": certificate()}, 0)
    expiry.check({"games": certificate()}, END)
    [record] = records
    assert record.levelname == "ERROR"
    text = "certificate games: f.pem: expired on 1970-04-11 00:00 UTC, and clients refuse it: renew it"
    assert record.getMessage() == text
    assert (record.certificate, record.names) == ("games", ("a.example",))  # type: ignore[attr-defined]


def test_expiry_of_a_new_certificate_was_logged_when_it_was_loaded(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    expiry.check({"games": certificate()}, 90 * DAY)
    assert events(records) == []
    expiry.check({"games": certificate(end=101 * DAY, sha256="2")}, 90 * DAY)
    assert events(records) == []
    expiry.check({"games": certificate(end=101 * DAY, sha256="2")}, 91 * DAY)
    assert events(records) == ["certificate-warning"]


def test_expiry_between_the_load_and_the_first_check_is_logged(records: list[logging.LogRecord]) -> None:
    CertificateExpiry().check({"games": certificate()}, END + 1)
    assert events(records) == ["certificate-expired"]


def test_expiry_of_an_intermediate_certificate_is_logged_too(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    for day in (0, 50):
        expiry.check({"games": certificate(issuer=50 * DAY)}, day * DAY)
    assert events(records) == ["certificate-expired"]


def test_expiry_after_the_clock_was_set_back_is_logged_again(records: list[logging.LogRecord]) -> None:
    expiry = CertificateExpiry()
    for now in (0, END + DAY, END):
        expiry.check({"games": certificate()}, now)
    assert events(records) == ["certificate-expired"] * 2
