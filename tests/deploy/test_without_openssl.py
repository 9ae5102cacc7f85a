"""A build without OpenSSL's headers: it serves, and a configuration with certificates says what is missing."""

import pytest

from testkit.machine import debian_root, needs_machine, run_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BUILD = """
dpkg --purge libssl-dev >/dev/null
python3 -m venv /opt/flashpol
/opt/flashpol/bin/pip install -q . 2>/dev/null
cat >/tmp/tls.toml <<'END'
[certificates.games]
chain = "games.pem"
[[listeners]]
address = "127.0.0.1:0"
policy = "games"
tls = ["games"]
[policies.games]
grants = [{domain = "*", ports = "7000"}]
END
cd /tmp
! /opt/flashpol/bin/python -c 'import flashpol._tls' 2>/dev/null
/opt/flashpol/bin/flashpol config -c tls.toml || echo "status $?"
sed -i -e '/^tls/d' -e '/games.pem/d' -e '/^.certificates/d' tls.toml
/opt/flashpol/bin/flashpol config -q -c tls.toml && echo serves
"""


def test_build_without_libssl_dev_works_and_refuses_certificates() -> None:
    needs_machine()
    done = run_in(debian_root("bookworm"), BUILD, 900)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "libssl-dev" in done.stdout
    assert "status 2" in done.stdout
    assert "\nserves\n" in done.stdout
