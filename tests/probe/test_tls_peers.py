"""Real TLS servers: flashpol, nginx, HAProxy, stunnel and OpenSSL. No false alarms, and the right finding."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broken import OPEN_POLICY, POLICY, answering
from loopback import Server, look
from test_peers import NGINX_MODULES, program, running

from flashpol.probe import Observation, findings
from testkit.certificates import CA, CertificateFiles, in_days, make_ca
from testkit.processes import Flashpol, free_port

pytestmark = pytest.mark.slow

pytest.importorskip("flashpol._tls", reason="built without libssl-dev")

NAME = "games.example.com"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(ca: CA) -> CertificateFiles:
    return ca.issue(NAME, kind="rsa", intermediate=True)


def ask(master: int, ca: CA, /, **asked: Any) -> Observation:
    return look(master, tls=True, server_name=NAME, ca=str(ca.file), **asked)


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)} - {"FP507"}  # master-only is what is meant here


# --------------------------------------------------------------------------------------------------------- flashpol


@contextlib.contextmanager
def flashpol(folder: Path, files: CertificateFiles, **listener: str) -> Iterator[int]:
    (folder / "policy.xml").write_bytes(OPEN_POLICY)
    settings = "".join(f"{name} = {value}\n" for name, value in listener.items())
    configuration = folder / "flashpol.toml"
    configuration.write_text(
        f'[policies.games]\nfile = "{folder}/policy.xml"\n{files.toml()}\n'
        f'[[listeners]]\naddress = "127.0.0.1:0"\npolicy = "games"\ntls = ["games"]\n{settings}'
    )
    with Flashpol("-c", configuration, listen=()) as server:
        yield server.place[1]


PROFILES = {"flash": set(), "compatible": set(), "modern": {"PB530"}}


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
@pytest.mark.parametrize("profile", PROFILES)
def test_flashpol_has_no_findings_but_those_of_its_profile(tmp_path: Path, ca: CA, profile: str, kind: str) -> None:
    with flashpol(tmp_path, ca.issue(NAME, kind=kind, intermediate=True), tls_profile=f'"{profile}"') as port:
        assert codes(ask(port, ca)) == PROFILES[profile]


def test_flashpol_when_probed_thoroughly_has_no_findings(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    with flashpol(tmp_path, files, tls_profile='"flash"') as port:
        seen = ask(port, ca, thorough=True, idle=6.0)
    assert codes(seen) == set()
    [target] = seen.all_targets()
    assert target.handshake is not None
    assert target.handshake.close_notify is True


def test_flashpol_with_tls_only_says_so(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    with flashpol(tmp_path, files, tls_profile='"flash"', tls_only="true") as port:
        assert codes(ask(port, ca)) == {"PB503"}


def test_flashpol_with_strict_names_refuses_another_one(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    with flashpol(tmp_path, files, tls_profile='"flash"', tls_strict_sni="true") as port:
        seen = look(port, tls=True, server_name="www.example.com", ca=str(ca.file))
    assert codes(seen) == {"PB505"}
    [target] = seen.all_targets()
    assert target.handshake is not None
    assert target.handshake.alert_name == "unrecognized_name"


def test_flashpol_without_certificates_is_plain_text_only(tmp_path: Path, ca: CA) -> None:
    (tmp_path / "policy.xml").write_bytes(OPEN_POLICY)
    with Flashpol("--policy", tmp_path / "policy.xml") as server:
        assert codes(ask(server.place[1], ca)) == {"PB501"}


# ----------------------------------------------------------------------------------------------------------- others


@contextlib.contextmanager
def nginx(folder: Path, files: CertificateFiles, directives: str = "", upstream: int | None = None) -> Iterator[int]:
    """stream ssl: in front of a policy server, or with `return`."""
    command, port = program("nginx"), free_port()
    modules = [Path(place, "ngx_stream_module.so") for place in NGINX_MODULES]
    load = "".join(f"load_module {module};\n" for module in modules if module.exists())
    action = f"proxy_pass 127.0.0.1:{upstream};" if upstream else f"return '{POLICY.decode()}\0';"
    (folder / "nginx.conf").write_bytes(
        f"{load}daemon off; master_process off; pid {folder}/pid; error_log {folder}/stderr crit;\n"
        f"events {{ worker_connections 100; }}\nstream {{ server {{ listen 127.0.0.1:{port} ssl;\n"
        f"ssl_certificate {files.chain}; ssl_certificate_key {files.key}; {directives}\n{action} }} }}\n".encode()
    )
    with running([command, "-p", folder, "-e", folder / "stderr", "-c", folder / "nginx.conf"], port, folder):
        yield port


def test_nginx_in_front_of_a_policy_server_serves_tls_only(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    with Server(answering()) as server, nginx(tmp_path, files, upstream=server.port) as port:
        assert codes(ask(port, ca)) == {"PB503"}


def test_nginx_with_versions_of_today_is_too_modern(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    intermediate = "ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers ECDHE-RSA-AES128-GCM-SHA256;"
    with Server(answering()) as server, nginx(tmp_path, files, intermediate, server.port) as port:
        assert codes(ask(port, ca)) == {"PB503", "PB530"}


def test_nginx_that_does_not_read_speaks_first(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    with nginx(tmp_path, files) as port:
        assert codes(ask(port, ca)) == {"PB307", "PB503"}


def test_nginx_that_requires_client_certificates_refuses(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    required = f"ssl_verify_client on; ssl_client_certificate {ca.file};"
    with Server(answering()) as server, nginx(tmp_path, files, required, server.port) as port:
        found = codes(ask(port, ca))
    assert found & {"PB202", "PB203", "PB505"}, "nginx takes the handshake, and closes or refuses after it"


def test_haproxy_with_the_certificate_alone_is_incomplete(tmp_path: Path, ca: CA, files: CertificateFiles) -> None:
    command, port = program("haproxy"), free_port()
    [leaf, *_] = files.chain.read_text().partition("-----END CERTIFICATE-----\n")
    (tmp_path / "one.pem").write_text(f"{leaf}-----END CERTIFICATE-----\n{files.key.read_text()}")
    with Server(answering()) as server:
        (tmp_path / "haproxy.cfg").write_text(
            "defaults\n  mode tcp\n  timeout client 2s\n  timeout connect 1s\n  timeout server 2s\n"
            f"listen policy\n  bind 127.0.0.1:{port} ssl crt {tmp_path}/one.pem\n  server one 127.0.0.1:{server.port}\n"
        )
        with running([command, "-db", "-q", "-f", tmp_path / "haproxy.cfg"], port, tmp_path):
            assert codes(ask(port, ca)) == {"PB503", "PB515"}


def test_stunnel_with_an_expired_certificate_is_expired(tmp_path: Path, ca: CA) -> None:
    command, port = program("stunnel"), free_port()
    files = ca.issue(NAME, not_before=in_days(-9), not_after=in_days(-1))
    with Server(answering()) as server:
        (tmp_path / "stunnel.conf").write_text(
            f"foreground = yes\npid =\n[policy]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{server.port}\n"
            f"cert = {files.chain}\nkey = {files.key}\n"
        )
        with running([command, tmp_path / "stunnel.conf"], port, tmp_path):
            assert codes(ask(port, ca)) == {"PB503", "PB511"}


@pytest.mark.parametrize(("version", "expected"), [("-tls1_1", {"PB532"}), ("-tls1_3", {"PB531"})])
def test_openssl_as_a_web_server_is_judged_by_its_version(
    tmp_path: Path, ca: CA, files: CertificateFiles, version: str, expected: set[str]
) -> None:
    command, port = program("openssl"), free_port()
    [_, _, issuers] = files.chain.read_text().partition("-----END CERTIFICATE-----\n")
    (tmp_path / "issuers.pem").write_text(issuers)
    served = [command, "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet", version, "-key", files.key,
              "-cert", files.chain, "-cert_chain", "issuers.pem", "-cipher", "ALL:@SECLEVEL=0"]  # fmt: skip
    with running(served, port, tmp_path):
        assert codes(ask(1, ca, port=port, named=("air", "browser"))) == expected
