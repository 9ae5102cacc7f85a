"""A ConfigMap that changes under a running server as the kubelet changes it: a new folder, one rename of a link."""

import itertools
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testkit.certificates import make_ca
from testkit.clients import ask, connect
from testkit.polling import eventually
from testkit.processes import ROOT, Flashpol

SHIPPED = (ROOT / "deploy" / "kubernetes" / "base" / "configuration" / "flashpol.toml").read_text()
GRANT = '<cross-domain-policy><allow-access-from domain="{}" to-ports="1935"/></cross-domain-policy>'


class ConfigMap:
    """A mounted ConfigMap: each key is a link to ..data/KEY, and ..data a link to a folder with a time as its name.

    `update` does what the AtomicWriter of Kubernetes does: write a new folder, link ..data_tmp to it, rename that to
    ..data, then update the links of the keys, and remove the old folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = itertools.count()
        folder.mkdir()

    def update(self, files: Mapping[str, str]) -> None:
        data, link = self.folder / "..data", self.folder / "..data_tmp"
        old = Path(os.readlink(data)) if data.is_symlink() else None
        new = f"..2026_01_01_00_00_00.{next(self._versions)}"
        (self.folder / new).mkdir()
        for name, text in files.items():
            (self.folder / new / name).write_text(text)
        link.symlink_to(new)
        link.rename(data)
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for path in self.folder.iterdir():
            if not path.name.startswith("..") and path.name not in files:
                path.unlink()
        if old:
            for path in (self.folder / old).iterdir():
                path.unlink()
            (self.folder / old).rmdir()


@pytest.fixture
def mounted(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "flashpol")


CONFIG = re.sub(r"watch = \S+", "watch = 0.1", SHIPPED)


@pytest.fixture
def server(mounted: ConfigMap) -> Iterator[Flashpol]:
    mounted.update({"flashpol.toml": CONFIG, "policy.xml": GRANT.format("one.example")})
    with Flashpol("-c", mounted.folder / "flashpol.toml") as server:
        yield server


def serves(server: Flashpol, *domains: str) -> bool:
    return re.findall(rb'domain="(.*?)"', ask(server.place)) == [domain.encode() for domain in domains]


def test_config_map_with_a_bad_policy_keeps_the_last_good_one(mounted: ConfigMap, server: Flashpol) -> None:
    assert serves(server, "one.example")
    mounted.update({"flashpol.toml": CONFIG, "policy.xml": GRANT.format("two.example")})
    eventually(lambda: serves(server, "two.example"), "the new policy")

    mounted.update({"flashpol.toml": CONFIG, "policy.xml": "<cross-domain-policy>"})
    eventually(lambda: "not reloaded" in server.log, "the refusal")
    server.counts(0, "config_last_reload_successful")

    # The kubelet writes all files again; a bad file with other contents is tried again.
    mounted.update({"flashpol.toml": CONFIG, "policy.xml": "<cross-domain-policy>\n\n"})
    eventually(lambda: server.log.count("not reloaded") == 2, "the second refusal")
    assert serves(server, "two.example")

    mounted.update({"flashpol.toml": CONFIG, "policy.xml": GRANT.format("three.example")})
    eventually(lambda: serves(server, "three.example"), "a good policy")
    eventually(lambda: server.metrics().total("config_last_reload_successful") == 1, "the reload's success")
    assert server.log.count("not reloaded") == 2, "logged once for each bad file, although it is checked again"


def test_config_map_with_several_keys_serves_their_merge(mounted: ConfigMap, server: Flashpol) -> None:
    teams = {f"{team}.xml": GRANT.format(f"{team}.example") for team in ("chat", "games")}
    mounted.update({"flashpol.toml": CONFIG, **teams})
    eventually(
        lambda: serves(server, "chat.example", "games.example"), "both teams' policies, and no longer the first one"
    )
    del teams["chat.xml"]
    mounted.update({"flashpol.toml": CONFIG, **teams})
    eventually(lambda: serves(server, "games.example"), "one team's")


def test_config_map_with_a_new_configuration_reloads_it(mounted: ConfigMap, server: Flashpol) -> None:
    grants = 'grants = [{domain = "inline.example", ports = "1"}]'
    changed = re.sub(r"folder = \S+", grants, CONFIG)
    mounted.update({"flashpol.toml": changed, "policy.xml": GRANT.format("one.example")})
    eventually(lambda: serves(server, "inline.example"), "the policy of the new configuration")


def test_secret_with_a_new_certificate_is_served(tmp_path: Path) -> None:
    """A Secret is mounted as a ConfigMap is; chain and key change at once, by one rename."""
    pytest.importorskip("flashpol._tls")
    secret = ConfigMap(tmp_path / "games")

    def issue() -> bytes:
        """Put a new certificate into the Secret, and return it."""
        files = make_ca(tmp_path / "ca").issue("games.example.com")
        secret.update({"tls.crt": files.chain.read_text(), "tls.key": files.key.read_text()})
        return ssl.PEM_cert_to_DER_cert(files.chain.read_text())

    def served() -> bytes | None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(connect(server.place)) as client:
            return client.getpeercert(binary_form=True)

    first = issue()
    (tmp_path / "policy.xml").write_text(GRANT.format("one.example"))
    (tmp_path / "flashpol.toml").write_text(
        f'[server]\nwatch = 0.1\n[certificates.games]\nchain = "{secret.folder}/tls.crt"\n'
        f'key = "{secret.folder}/tls.key"\n[policies.main]\nfile = "policy.xml"\n'
        '[[listeners]]\naddress = "127.0.0.1:0"\ntls = ["games"]\n'
    )
    with Flashpol("-c", tmp_path / "flashpol.toml", listen=()) as server:
        assert served() == first
        second = issue()
        eventually(lambda: served() == second, "the new certificate")
        assert "not reloaded" not in server.log
