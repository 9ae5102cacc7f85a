"""The Debian package in a clean Debian: installed, run, upgraded, removed and purged as an administrator does it."""

import re
from collections.abc import Iterator

import pytest

from testkit import own_ca
from testkit.machine import Machine, debian_root, needs_machine, wheels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RELEASES = {"bookworm": "3.11", "trixie": "3.13"}
BUILD = "/opt/build/bin/python deploy/debian/build.py --source {source} --no-index --find-links /wheels --out /tmp"


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Booted, with two revisions of the package in /tmp."""
    needs_machine()
    release: str = request.param
    with Machine(debian_root(release), {wheels(RELEASES[release]): "/wheels"}) as made:
        made.run("python3 -m venv /opt/build")
        made.run("/opt/build/bin/pip wheel -q --no-index --find-links /wheels --no-deps -w /tmp/wheel .", seconds=900)
        for revision in (1, 2):
            made.run(BUILD.format(source="/tmp/wheel/flashpol-*.whl") + f" --revision {revision}", seconds=900)
        yield made


def serves(machine: Machine) -> bool:
    """The probe finds a policy on port 843, and no error in it."""
    return machine.run("flashpol probe 127.0.0.1", check=False).returncode == 0


def test_package_installed_has_its_files_and_starts_nothing(machine: Machine) -> None:
    machine.run("dpkg -i /tmp/flashpol_*-1_*.deb")
    assert machine.run("flashpol --version").stdout.startswith("flashpol ")
    for path in (
        "/usr/share/man/man1/flashpol.1", "/usr/share/doc/flashpol/deploy/prometheus/alerts.yml",
        "/usr/share/bash-completion/completions/flashpol", "/etc/flashpol/policy.xml", "/etc/logrotate.d/flashpol",
    ):  # fmt: skip
        machine.run(f"test -s {path}")
    assert machine.run("systemctl is-active flashpol || true").stdout.strip() == "inactive"


def test_package_enabled_serves_policies(machine: Machine) -> None:
    assert not serves(machine)
    machine.run("systemctl enable --now flashpol")
    assert serves(machine)


def test_package_depends_on_openssl_and_serves_tls(machine: Machine) -> None:
    """The machine's libssl3, or libssl3t64, satisfies it: dpkg has installed the package."""
    assert "libssl3 | libssl3t64" in machine.run("dpkg-query -W -f '${Depends}' flashpol").stdout
    authority, *_ = own_ca.commands()
    ask = "printf '<policy-file-request/>\\0' | openssl s_client -quiet -connect 127.0.0.1:8443 2>/dev/null"
    machine.run(
        f"cd /root; {authority}\n"
        "flashpol serve --allow '*:1' --listen 127.0.0.1:8443 --admin off --tls ca.pem,ca.key >tls.log 2>&1 &\n"
        f"found=; for i in $(seq 50); do if {ask} | grep -q '</cross-domain-policy>'; then found=1; break; fi; "
        'sleep 0.2; done; kill $!; cat tls.log; [ "$found" ]'
    )


def test_package_log_file_is_rotated_as_its_logrotate_file_says(machine: Machine) -> None:
    text = machine.run("cat /etc/logrotate.d/flashpol").stdout
    [path] = re.findall(r"^(/\S+) \{$", text, re.M)
    [script] = re.findall(r"postrotate\n(.*?)endscript", text, re.S)
    machine.run(
        f"sed -i 's|^\\[server\\]|&\\nlog_file = \"{path}\"|' /etc/flashpol/flashpol.toml; systemctl restart flashpol"
    )
    machine.run(f"mv {path} {path}.1; {script}")
    machine.run(f"for i in $(seq 50); do grep -q 'log file reopened' {path} && exit 0; sleep 0.2; done; exit 1")
    machine.run(f"grep -q ready {path}.1; sed -i /^log_file/d /etc/flashpol/flashpol.toml; systemctl restart flashpol")


def test_package_upgraded_keeps_the_configuration_and_serves(machine: Machine) -> None:
    machine.run("sed -i 's/main/games/' /etc/flashpol/flashpol.toml")
    machine.run("dpkg -i /tmp/flashpol_*-2_*.deb")
    machine.run("grep -q games /etc/flashpol/flashpol.toml; systemctl is-active -q flashpol")
    assert serves(machine)


def test_package_removed_stops_the_service_and_keeps_the_configuration(machine: Machine) -> None:
    machine.run("dpkg -r flashpol")
    assert machine.run("pgrep -c flashpol || true").stdout.strip() == "0"
    machine.run("test -s /etc/flashpol/flashpol.toml; test ! -e /usr/lib/flashpol")


def test_package_purged_leaves_nothing(machine: Machine) -> None:
    machine.run("dpkg -P flashpol")
    machine.run("test ! -e /etc/logrotate.d/flashpol; test ! -e /var/log/flashpol; test ! -e /var/log/private/flashpol")
    machine.run("test ! -e /etc/flashpol; test ! -e /usr/bin/flashpol; ! systemctl cat flashpol >/dev/null 2>&1")
