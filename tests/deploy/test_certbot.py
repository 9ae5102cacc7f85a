"""The guide's ways with certbot, against an ACME server (pebble): issue, serve, renew; all commands as printed."""

import pytest

from testkit import own_ca
from testkit.machine import debian_root, needs_machine, run_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PREPARE = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends certbot pebble iproute2 >/dev/null
python3 -m venv /opt/flashpol
/opt/flashpol/bin/pip install -q . 2>/dev/null
ln -s /opt/flashpol/bin/flashpol /usr/local/bin/flashpol
adduser --system --group --no-create-home --quiet flashpol
addgroup --system --quiet flashpol-tls
"""
# In a network without other programs: the ACME server, which certbot asks because its configuration says so.
SERVER = r"""
set -eu
ip link set lo up
echo '127.0.0.1 localhost games.example.com' >/etc/hosts
mkdir /acme
cd /acme
openssl req -x509 -newkey rsa:2048 -noenc -days 9 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout acme.key -out acme.pem 2>/dev/null
cat >acme.json <<'END'
{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80,
 "tlsPort": 443, "certificate": "acme.pem", "privateKey": "acme.key"}}
END
PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 pebble -config acme.json >acme.log 2>&1 &
cat >/etc/letsencrypt/cli.ini <<'END'
server = https://localhost:14000/dir
agree-tos = true
register-unsafely-without-email = true
non-interactive = true
END
export REQUESTS_CA_BUNDLE=/acme/acme.pem
LIVE=/etc/letsencrypt/live/games.example.com

# until SECONDS COMMAND…: repeat it until it succeeds
until_true() {
    n=$1; shift
    for i in $(seq $((n * 5))); do if "$@" >/tmp/last 2>&1; then return 0; fi; sleep 0.2; done
    cat /tmp/last /tmp/flashpol.log; exit 1
}
served() { openssl s_client -connect 127.0.0.1:7000 -servername games.example.com </dev/null 2>/dev/null |
    openssl x509 -noout -serial; }
file() { openssl x509 -noout -serial -in "$1"; }
serves() { [ "$(served)" = "$(file "$1")" ]; }
until_true 10 sh -c 'echo | openssl s_client -connect localhost:14000'
"""
# As root with `user`: certbot's own files, by a deploy hook and by `watch`.
AS_ROOT = r"""
{certonly}
[ "$(stat -c %a-%U $LIVE/../../archive)" = 700-root ]
mkdir -p /etc/flashpol
cat >/etc/flashpol/flashpol.toml <<'END'
[server]
user = "flashpol"
workers = 2
{watch}
[certificates.games]
chain = "/etc/letsencrypt/live/games.example.com/fullchain.pem"
key = "/etc/letsencrypt/live/games.example.com/privkey.pem"
[policies.games]
grants = [{{domain = "*.example.com", ports = "7000"}}]
[[listeners]]
address = "127.0.0.1:7000"
tls = ["games"]
END
flashpol serve --pid-file /run/flashpol.pid >/tmp/flashpol.log 2>&1 &
until_true 20 serves $LIVE/fullchain.pem
old=$(served)
certbot renew --force-renewal >/tmp/renew.log 2>&1
until_true 20 serves $LIVE/fullchain.pem
[ "$(served)" != "$old" ]
grep -c 'not reloaded' /tmp/flashpol.log || true
kill $(cat /run/flashpol.pid)
"""
# Under a unit that is not root: the hook copies the files. systemctl is not there, so a function of its name reloads.
WITH_HOOK = r"""
printf '#!/bin/sh\n[ "$*" = "reload flashpol" ] && flashpol reload\n' >/usr/local/bin/systemctl
chmod 755 /usr/local/bin/systemctl
{certonly}
{rsa}
mkdir -p /etc/letsencrypt/renewal-hooks/deploy
cat >/etc/letsencrypt/renewal-hooks/deploy/flashpol <<'END'
{hook}END
chmod 755 /etc/letsencrypt/renewal-hooks/deploy/flashpol
install -d -m 750 -g flashpol-tls /etc/flashpol /etc/flashpol/tls
cat >/etc/flashpol/flashpol.toml <<'END'
[certificates.games]
chain = "tls/fullchain.pem"
key = "tls/privkey.pem"
[policies.games]
grants = [{{domain = "*.example.com", ports = "7000"}}]
[[listeners]]
address = "127.0.0.1:7000"
tls = ["games"]
END
touch /run/flashpol.pid /tmp/flashpol.log
chown flashpol /run/flashpol.pid /run
# The first certificate: certbot has run no hook for it, so it is run by hand, when there is no server yet.
{first_hook} || true
[ "$(stat -c %a-%U-%G /etc/flashpol/tls/privkey.pem)" = 640-root-flashpol-tls ]
setpriv --reuid flashpol --regid flashpol --groups flashpol-tls flashpol serve --pid-file /run/flashpol.pid \
    >/tmp/flashpol.log 2>&1 &
until_true 20 serves $LIVE/fullchain.pem
old=$(served)
certbot renew --force-renewal >/tmp/renew.log 2>&1
until_true 20 serves $LIVE/fullchain.pem
[ "$(served)" != "$old" ]
openssl x509 -in /etc/letsencrypt/live/games-rsa/cert.pem -noout -text | grep -q 'rsaEncryption'
kill $(cat /run/flashpol.pid)
"""


def ways() -> dict[str, str]:
    """Each way of the guide, as a script that ends with its name."""
    certonly, hook, first, rsa = own_ca.commands("certbot")
    assert certonly.strip().endswith("--deploy-hook 'flashpol reload'")
    plain = certonly.partition(" --deploy-hook")[0]  # as the page says of `watch`: instead of the hook
    first_certonly, first_hook = first.strip().split("\n", 1)
    return {
        "hook": AS_ROOT.format(certonly=certonly, watch=""),
        "watch": AS_ROOT.format(certonly=plain, watch="watch = 0.5"),
        "copies": WITH_HOOK.format(certonly=first_certonly, rsa=rsa, hook=hook, first_hook=first_hook),
    }


def test_certbot_as_printed_renews_what_is_served() -> None:
    """One machine for all ways: to build takes longest."""
    needs_machine()
    script = PREPARE
    for name, way in ways().items():
        script += f"cat >/root/{name}.sh <<'INSIDE'\n{SERVER}{way}\necho renewed by {name}\nINSIDE\n"
        script += (
            f"rm -rf /acme /etc/flashpol /etc/letsencrypt; mkdir /etc/letsencrypt; unshare --net sh /root/{name}.sh\n"
        )
    done = run_in(debian_root("bookworm"), script, 1100)
    assert done.returncode == 0, done.stdout[-4000:]
    for name in ways():
        assert f"\nrenewed by {name}\n" in done.stdout, done.stdout[-4000:]
