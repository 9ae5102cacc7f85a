"""The page on RTMPT: flashpol accepts its configurations, and nginx, HAProxy and Apache accept theirs."""

import re
import subprocess
from pathlib import Path

import pytest

from testkit.certificates import make_ca
from testkit.polling import DEADLINE
from testkit.processes import ROOT, call
from testkit.programs import find, needs

PAGE = (ROOT / "docs" / "guide" / "rtmpt.md").read_text()
LIVE = "/etc/letsencrypt/live/media.example.com"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize("text", blocks("toml"))
def test_configuration_of_the_page_is_accepted(tmp_path: Path, text: str) -> None:
    make_ca(tmp_path / "ca").issue("media.example.com", intermediate=True, into=tmp_path)
    (tmp_path / "flashpol.toml").write_text(text.replace(LIVE, str(tmp_path)))
    done = call("config", "-q", "-c", tmp_path / "flashpol.toml")
    assert (done.returncode, done.stderr) == (0, "")


def assert_accepts(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


@needs("nginx")
def test_nginx_of_the_page_is_accepted(tmp_path: Path) -> None:
    [text] = [text for text in blocks("nginx") if "proxy_pass" in text]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    assert_accepts(find("nginx"), "-t", "-p", tmp_path, "-e", tmp_path / "start.log", "-c", tmp_path / "nginx.conf")


@needs("haproxy")
def test_haproxy_of_the_page_is_accepted(tmp_path: Path) -> None:
    [text] = blocks("haproxy")
    (tmp_path / "haproxy.cfg").write_text(text)
    assert_accepts(find("haproxy"), "-c", "-q", "-f", tmp_path / "haproxy.cfg")


@needs("apache2")
def test_apache_of_the_page_is_accepted(tmp_path: Path) -> None:
    [text] = blocks("apache")
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http")
    load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    (tmp_path / "apache.conf").write_text(
        f"{load}ServerRoot {tmp_path}\nServerName localhost\nPidFile {tmp_path}/pid\nErrorLog {tmp_path}/error\n"
        f"DefaultRuntimeDir {tmp_path}\nListen 127.0.0.1:18080\n{text}"
    )
    assert_accepts(find("apache2"), "-t", "-f", tmp_path / "apache.conf")
