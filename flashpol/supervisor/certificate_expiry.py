"""Logs certificates that expire while the server runs: when it happens, and every day."""

from flashpol.log.handler import log
from flashpol.serving.certificates import DAY, Certificates, Ending, expiry

# Seconds between checks.
CHECK_EVERY = 5.0


class CertificateExpiry:
    """Times are in seconds since 1970."""

    def __init__(self) -> None:
        # SHA-256 of a certificate -> subject of the ending one, whether it is over -> when that was logged.
        self._logged: dict[str, dict[tuple[str, bool], float]] = {}

    def check(self, certificates: Certificates, now: float) -> None:
        """Log what is due of the certificates that are served."""
        before, self._logged = self._logged, {}
        for name, certificate in certificates.items():
            facts = certificate.facts
            known = before.get(facts.sha256)
            logged = self._logged.setdefault(facts.sha256, dict(known or {}))
            for ending in expiry(facts, now):
                key = ending.subject, ending.over
                # Of a new certificate this was logged when it was loaded; one that had expired was not loaded.
                if known is None and (ending.subject or not ending.over):
                    logged[key] = now
                elif not 0 <= now - logged.get(key, 0.0) < DAY:
                    logged[key] = now
                    _log(name, facts.names, ending)


def _log(name: str, names: tuple[str, ...], ending: Ending) -> None:
    fields = {"certificate": name, "names": names}
    text = "certificate %s: %s"
    if ending.over:
        log.error(text, name, ending.line, extra={"event": "certificate-expired", **fields})
    else:
        log.warning(text, name, ending.line, extra={"event": "certificate-warning", **fields})
