"""sslscan and testssl.sh: what each profile admits is what the guide says, and `modern` has no finding."""

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest

from testkit.client_site import ClientSite
from testkit.own_ca import PAGE
from testkit.polling import DEADLINE
from testkit.processes import Flashpol
from testkit.programs import needs

pytestmark = pytest.mark.slow

PROFILES = ("modern", "compatible", "flash")


class Admits(NamedTuple):
    versions: set[str]
    suites: set[str]


def documented() -> dict[str, Admits]:
    """The table of the guide: what a profile admits beside what the ones above it admit."""
    section = PAGE.read_text().split("\n## Profiles\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d., ]+) \| (.+) \|$", section, re.M)
    assert tuple(name for name, _, _ in rows) == PROFILES
    found: dict[str, Admits] = {}
    suites: set[str] = set()
    for name, versions, more in rows:
        suites |= set(re.findall(r"`([A-Z0-9_-]+)`", more))
        found[name] = Admits(set(versions.split(", ")), set(suites))
    return found


@needs("sslscan")
@pytest.mark.parametrize("profile", PROFILES)
def test_sslscan_finds_what_the_guide_says(site: ClientSite, profile: str) -> None:
    with site.serve(tls_profile=profile) as server:
        target = f"127.0.0.1:{server.place[1]}"
        command = ["sslscan", "--xml=-", "--sni-name=localhost", "--no-colour", target]
        done = subprocess.run(command, capture_output=True, timeout=4 * DEADLINE, check=True)
        assert server.stop() == 0
    [scan] = ET.fromstring(done.stdout)
    versions = {f"{p.get('version')}" for p in scan.findall("protocol") if p.get("enabled") == "1"}
    suites = {str(cipher.get("cipher")) for cipher in scan.findall("cipher")}
    assert Admits(versions, suites) == documented()[profile]
    assert not {p.get("type") for p in scan.findall("protocol") if p.get("enabled") == "1"} - {"tls"}
    assert {cipher.get("strength") for cipher in scan.findall("cipher")} <= {"strong", "acceptable"}
    assert {found.get("vulnerable") for found in scan.findall("heartbleed")} == {"0"}
    assert [(found.get("supported"), found.get("secure")) for found in scan.findall("renegotiation")] != [("1", "0")]
    assert {found.get("supported") for found in scan.findall("compression")} <= {"0"}
    fallback = scan.find("fallback")
    assert fallback is None or fallback.get("supported") == "1"
    assert {str(kind.get("type")) for kind in scan.iter("pk")} == {"EC"} or profile != "modern"


ACCEPTABLE = ("OK", "INFO", "DEBUG")


def scan(site: ClientSite, server: Flashpol) -> dict[str, str]:
    """What testssl.sh finds that is not good: id -> severity. Of the certificates only that the CA revokes none."""
    report = site.folder / "testssl.json"
    command = [
        "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--add-ca", site.ca.root,
        "--jsonfile", report, "--protocols", "--std", "--pfs", "--server-preference", "--server-defaults",
        "--vulnerable", "--ip", "127.0.0.1", f"localhost:{server.place[1]}",
    ]  # fmt: skip
    # Without it testssl.sh warns that OpenSSL has no GOST engine, which is no finding about the server.
    own = {**os.environ, "NO_ENGINE": "true"}
    subprocess.run(list(map(str, command)), env=own, capture_output=True, timeout=15 * DEADLINE, check=False)
    findings = json.loads(Path(report).read_text())
    assert any(one["id"] == "RC4" for one in findings), "the scan was complete"
    bad = {one["id"].partition(" <")[0]: one["severity"] for one in findings if one["severity"] not in ACCEPTABLE}
    assert bad.pop("cert_revocation") == "HIGH", "a CA of one's own has no list of revoked certificates"
    return bad


# What testssl.sh says of CBC suites and of TLS before 1.2. Old clients need both.
CBC = {"LUCKY13": "LOW", "cipherlist_AVERAGE": "LOW"}
OLD = {"TLS1": "LOW", "TLS1_1": "LOW", "BEAST": "LOW", "BEAST_CBC_TLS1": "MEDIUM"}


@needs("testssl")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("profile", "expected"), [("modern", {}), ("compatible", CBC), ("flash", CBC | OLD)], ids=PROFILES
)
def test_testssl_finds_only_what_the_profile_admits_on_purpose(
    site: ClientSite, profile: str, expected: dict[str, str]
) -> None:
    with site.serve(tls_profile=profile) as server:
        assert scan(site, server) == expected
        assert server.stop() == 0
