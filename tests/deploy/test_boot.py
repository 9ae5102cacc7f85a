"""The shipped systemd units, booted: every command of docs/guide/systemd.md as it is printed, on a clean Debian."""

import json
import re
import signal
import textwrap
from collections.abc import Iterator

import pytest

from testkit import own_ca
from testkit.machine import Machine, debian_root, needs_machine, wheels
from testkit.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
GUIDE = ROOT / "docs" / "guide" / "systemd.md"
RELEASES = {"bookworm": "3.11", "trixie": "3.13"}
MAX_EXPOSURE = {"flashpol alone": 1.6, "with certificates": 1.7, "socket activation": 0.9}

# Run inside, by the machine's own Python.
ASK = textwrap.dedent(
    """
    import socket, sys
    with socket.create_connection(("127.0.0.1", 843), 3) as client:
        client.sendall(b"<policy-file-request/>\\0")
        data = b""
        while part := client.recv(65536):
            data += part
    sys.exit(0 if data.rstrip(b"\\n\\0").endswith(b"</cross-domain-policy>") else repr(data))
    """
)
# The same inside TLS; prints the serial number of the certificate.
ASK_TLS = textwrap.dedent(
    """
    import socket, ssl, sys
    context = ssl.create_default_context(cafile="/srv/ca/ca.pem")
    with socket.create_connection(("127.0.0.1", 843), 3) as plain:
        with context.wrap_socket(plain, server_hostname="games.example.com") as client:
            client.sendall(b"<policy-file-request/>\\0")
            data = b""
            while part := client.recv(65536):
                data += part
            print(client.getpeercert()["serialNumber"])
    sys.exit(0 if data.rstrip(b"\\n\\0").endswith(b"</cross-domain-policy>") else repr(data))
    """
)
# 16 clients that ask again and again for some seconds: how many asked, how many had no policy.
LOAD = textwrap.dedent(
    """
    import json, socket, sys, threading, time
    end = time.monotonic() + float(sys.argv[1])
    asked, lost = [], []
    def client():
        while time.monotonic() < end:
            asked.append(1)
            try:
                with socket.create_connection(("127.0.0.1", 843), 10) as sock:
                    sock.sendall(b"<policy-file-request/>\\0")
                    data = b""
                    while part := sock.recv(65536):
                        data += part
                if not data.endswith(b"\\0"):
                    lost.append(repr(data))
            except OSError as error:
                lost.append(repr(error))
            time.sleep(0.002)
    threads = [threading.Thread(target=client) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(json.dumps({"asked": len(asked), "lost": len(lost), "first": lost[:3]}))
    """
)


def blocks(heading: str, kind: str = "sh") -> list[str]:
    """The blocks of a section of the guide."""
    section = re.split(r"^#+ ", GUIDE.read_text(), flags=re.M)
    [text] = [part for part in section if part.startswith(heading + "\n")]
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


def ask(machine: Machine) -> None:
    machine.run(f"python3 -c '{ASK}'")


def ask_tls(machine: Machine) -> str:
    """Returns the serial number of the certificate."""
    return machine.run(f"python3 -c '{ASK_TLS}'").stdout.strip()


def main_pid(machine: Machine) -> int:
    return int(machine.run("systemctl show -p MainPID --value flashpol").stdout)


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Booted, with flashpol in /opt/flashpol as docs/guide/install.md says, but without a package index."""
    needs_machine()
    release: str = request.param
    with Machine(debian_root(release), {wheels(RELEASES[release]): "/wheels"}) as made:
        made.run("python3 -m venv /opt/flashpol")
        made.run("/opt/flashpol/bin/pip install -q --no-index --find-links /wheels .", seconds=900)
        yield made


def test_service_alone_as_documented_starts_and_replies(machine: Machine) -> None:
    machine.run(blocks("systemd")[0])
    assert machine.run("systemctl is-active flashpol").stdout.strip() == "active"
    ask(machine)
    assert "workers" in machine.run("systemctl show -p StatusText --value flashpol").stdout


def test_service_reload_keeps_what_runs_if_the_new_policy_is_wrong(machine: Machine) -> None:
    before = main_pid(machine)
    machine.run("cp /etc/flashpol/policy.xml /tmp/good.xml; echo '<cross-domain-policy>' > /etc/flashpol/policy.xml")
    try:
        machine.run("systemctl reload flashpol; sleep 2")
        ask(machine)
        assert "not reloaded" in machine.run("journalctl -u flashpol -p err --no-pager -o cat").stdout
    finally:
        machine.run("cp /tmp/good.xml /etc/flashpol/policy.xml; systemctl reload flashpol; sleep 2")
    ask(machine)
    assert main_pid(machine) == before


def test_service_with_a_stopped_arbiter_is_restarted_by_the_watchdog(machine: Machine) -> None:
    machine.run(
        "mkdir -p /etc/systemd/system/flashpol.service.d; "
        "printf '[Service]\\nWatchdogSec=4\\n' > /etc/systemd/system/flashpol.service.d/watchdog.conf; "
        "systemctl daemon-reload; systemctl restart flashpol; sleep 1"
    )
    before = main_pid(machine)
    machine.kill(before, signal.SIGSTOP)
    machine.run("for i in $(seq 60); do sleep 0.5; "
                f"[ $(systemctl show -p MainPID --value flashpol) != {before} ] && "
                "systemctl is-active -q flashpol && exit 0; done; exit 1")  # fmt: skip
    ask(machine)
    machine.run("rm /etc/systemd/system/flashpol.service.d/watchdog.conf; systemctl daemon-reload")


def exposure(machine: Machine) -> float:
    report = json.loads(machine.run("systemd-analyze security --json=short flashpol >/dev/null; "
                                    "systemd-analyze security --no-pager flashpol | tail -1 | "
                                    "grep -oE '[0-9]+\\.[0-9]'").stdout)  # fmt: skip
    return float(report)


def test_service_alone_exposure_is_as_documented(machine: Machine) -> None:
    assert exposure(machine) <= MAX_EXPOSURE["flashpol alone"]


def issue(machine: Machine) -> None:
    """A certificate from the CA of the guide, made by the machine's OpenSSL, where the guide's commands expect it."""
    authority, ecdsa, *_ = own_ca.commands()
    machine.run(f"mkdir -p /srv/ca; cd /srv/ca; [ -f ca.pem ] || {{ {authority} }}\n{ecdsa}")
    machine.run("cp /srv/ca/games.pem /src/fullchain.pem; cp /srv/ca/games.key /src/privkey.pem")


def test_certificates_as_documented_serve_tls_and_take_a_new_one(machine: Machine) -> None:
    issue(machine)
    [table] = blocks("Certificates", "toml")
    machine.run(
        f"cat >> /etc/flashpol/flashpol.toml <<'END'\n{table}END\n"
        "sed -i '/^address = /a tls = [\"games\"]' /etc/flashpol/flashpol.toml"
    )
    [install] = blocks("Certificates")
    machine.run(install)
    first = ask_tls(machine)
    ask(machine)
    assert exposure(machine) <= MAX_EXPOSURE["with certificates"]
    others = machine.run("setpriv --reuid=nobody --clear-groups cat /etc/flashpol/tls/privkey.pem", check=False)
    assert "Permission denied" in others.stdout
    before = main_pid(machine)
    issue(machine)
    [renew] = [line for line in install.splitlines() if line.startswith("install -m 640")]
    machine.run(f"{renew}; systemctl reload flashpol; sleep 2")
    assert ask_tls(machine) != first
    assert main_pid(machine) == before
    assert machine.run("journalctl -u flashpol -p warning --no-pager -o cat | grep -i cert || true").stdout == ""


def test_socket_activation_as_documented_restarts_under_load_without_a_lost_reply(machine: Machine) -> None:
    machine.run(blocks("Socket activation")[0])
    ask(machine)
    ask_tls(machine)
    load = machine.run(
        f"cat > /tmp/load.py <<'END'\n{LOAD}\nEND\n"
        "python3 /tmp/load.py 8 > /tmp/load.json & sleep 1\n"
        "systemctl restart flashpol; sleep 1; systemctl reload flashpol; sleep 1; systemctl restart flashpol\n"
        "wait; cat /tmp/load.json"
    )
    result = json.loads(load.stdout.splitlines()[-1])
    assert result["lost"] == 0, result
    assert result["asked"] > 500
    assert exposure(machine) <= MAX_EXPOSURE["socket activation"]


def test_service_stop_ends_every_process(machine: Machine) -> None:
    machine.run("systemctl stop flashpol.socket flashpol-admin.socket flashpol")
    assert machine.run("pgrep -c flashpol || true").stdout.strip() == "0"
    assert machine.run("systemctl show -p Result --value flashpol").stdout.strip() == "success"
