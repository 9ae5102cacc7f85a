"""The page on WebSocket: each configuration is accepted, and `flashpol ruffle` prints for it what the page prints."""

import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest

from flashpol.cli.main import main
from testkit.certificates import make_ca
from testkit.processes import ROOT

PAGE = (ROOT / "docs" / "guide" / "websocket.md").read_text()
CONFIGURATIONS = [dedent(text) for text in re.findall(r"^ *```toml\n(.*?)^ *```", PAGE, re.M | re.S)]
SCRIPTS = re.findall(r"^```html\n(.*?)^```", PAGE, re.M | re.S)
LIVE = "/etc/letsencrypt/live/games.example.com"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a configuration of the page works; its certificates are there."""
    make_ca(tmp_path / "ca").issue("games.example.com", intermediate=True, into=tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "flashpol.toml"


def write(path: Path, text: str) -> None:
    path.write_text(text.replace(LIVE, str(path.parent)))


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configuration_of_the_page_is_accepted(written: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(written, text)
    assert main(["config", "-q", "-c", str(written)]) == 0
    assert main(["check", "-c", str(written)]) == 0
    found = capsys.readouterr()
    assert "refused to every page" not in found.out
    assert found.err == ""


def test_ruffle_prints_the_scripts_of_the_page(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SCRIPTS) == 2
    for text, script in zip(CONFIGURATIONS, SCRIPTS, strict=False):
        write(written, text)
        assert main(["ruffle", "-c", str(written), "--host", "games.example.com"]) == 0
        assert script in capsys.readouterr().out


def test_ruffle_behind_a_proxy_prints_the_url_of_the_proxy(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [behind] = [text for text in CONFIGURATIONS if "forwarded_networks" in text]
    write(written, behind)
    [command] = re.findall(r"^flashpol (ruffle .*--url.*)$", PAGE, re.M)
    assert main(shlex.split(command)) == 0
    assert '"port": 7001, "proxyUrl": "wss://games.example.com/chess"' in capsys.readouterr().out


def test_decide_of_the_page_refuses_a_page_without_a_grant(written: Path) -> None:
    write(written, CONFIGURATIONS[1])
    [command] = re.findall(r"^flashpol (decide .*)$", PAGE, re.M)
    assert main(shlex.split(command)) == 1
    assert main([word.replace("www.", "chess.") for word in shlex.split(command)]) == 0
