"""The README's two commands on a Debian that has Python and a C compiler, and nothing else of what they need."""

import pytest

from testkit.machine import debian_root, needs_machine, run_in

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(1800)]
# The root file system has libssl-dev, which make installs.
MAKE = (
    "export DEBIAN_FRONTEND=noninteractive; dpkg --purge libssl-dev >/dev/null; apt-get -qq update; "
    "apt-get -qq install -y make >/dev/null\n"
)
# Port 8430 is the host's too, so the server is asked inside and ends with the script.
RUN = r"""
make run >/tmp/run.log 2>&1 &
for i in $(seq 240); do
    if grep -q ready /tmp/run.log; then break; fi
    sleep 1
done
python3 - <<'END'
import socket
with socket.create_connection(("127.0.0.1", 8430), 5) as client:
    client.sendall(b"<policy-file-request/>\0")
    print(client.recv(65536).decode())
END
kill $(pgrep -o flashpol)
wait
.venv/bin/python -c "import flashpol._tls; print('with', flashpol._tls.LIBRARY)"
"""


@pytest.mark.parametrize("release", ["trixie"])
def test_make_run_on_a_bare_machine_serves_the_example_policy(release: str) -> None:
    needs_machine()
    done = run_in(debian_root(release), MAKE + RUN, 900)
    assert "</cross-domain-policy>" in done.stdout, done.stdout[-3000:]
    assert "with OpenSSL 3" in done.stdout, done.stdout[-3000:]


# What differs from one Debian to another: Python, OpenSSL, the terminal. All tests would take several minutes more.
PART = "tests/test_tls.py tests/test_fastpath.py tests/test_pump.py tests/cli tests/worker tests/probe"


@pytest.mark.parametrize("release", ["trixie"])
def test_make_test_with_a_part_of_the_tests_on_a_bare_machine_passes(release: str) -> None:
    needs_machine()
    script = f'{MAKE}PYTEST_ADDOPTS="{PART}" make test'
    done = run_in(debian_root(release), script, 1500)
    assert done.returncode == 0, done.stdout[-6000:]
