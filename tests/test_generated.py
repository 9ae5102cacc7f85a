"""The pages that `make docs` writes: up to date, without complaints of mandoc, and usable by the shells."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from flashpol.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES: dict[Path, str] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
MANUAL = [path for path in PAGES if "man" in path.parts]
BASH = ROOT / "share/bash-completion/completions/flashpol"
ZSH = ROOT / "share/zsh/site-functions/_flashpol"
FISH = ROOT / "share/fish/vendor_completions.d/flashpol.fish"


def output(*command: str | Path) -> str:
    """The output of a tool; skips the test if this machine lacks it."""
    if not shutil.which(str(command[0])):
        pytest.skip(f"no {command[0]} here")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_generated_page_is_up_to_date(path: Path) -> None:
    assert (ROOT / path).read_text() == PAGES[path], "make docs"


def test_installed_pages_are_the_generated_ones() -> None:
    installed = {path.relative_to(ROOT) for path in (ROOT / "share").rglob("*") if path.is_file()}
    assert installed == {path for path in PAGES if path.parts[0] == "share"}
    settings = (ROOT / "pyproject.toml").read_text()
    for path in installed:
        assert f'"{path.parent}" = ["{path}"]' in settings


@pytest.mark.parametrize("path", MANUAL, ids=str)
def test_manual_page_has_no_complaints_of_mandoc(path: Path) -> None:
    assert output("mandoc", "-Tlint", "-Wstyle", path) == ""


def test_manual_names_every_command_and_breaks_no_flag() -> None:
    text = re.sub(".\b", "", output("mandoc", "-Tascii", ROOT / "share/man/man1/flashpol.1"))
    for command in COMMANDS:
        assert f"flashpol {command} " in text
    for section in ("NAME", "FILES", "ENVIRONMENT", "SIGNALS", "EXIT STATUS"):
        assert f"\n{section}\n" in text
    assert not re.findall(r"\[--[a-z-]*-\n", text.split("DESCRIPTION")[0])


def bash(*words: str) -> list[str]:
    script = f'source {BASH}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_flashpol flashpol "${{!#}}" ""'
    return sorted(output("bash", "-c", f'{script}; printf "%s\\n" "${{COMPREPLY[@]}}"', "bash", *words).split())


def fish(*words: str) -> list[str]:
    lines = output("fish", "--no-config", "-c", f"source {FISH}; complete -C '{' '.join(words)}'").splitlines()
    return sorted(line.partition("\t")[0] for line in lines)


@pytest.mark.parametrize("complete", [bash, fish])
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (("flashpol", "con"), ["config"]),
        (("flashpol", "sta"), ["status"]),
        (("flashpol", "reload", "--pid-"), ["--pid-file"]),
        (("flashpol", "serve", "--l"), ["--listen", "--log-file", "--log-format"]),
        (("flashpol", "serve", "--dialect", ""), ["flash", "silverlight"]),
        (("flashpol", "check", "examp"), ["examples/"]),
        (("flashpol", "serve", "--policy", "examples/po"), ["examples/policy.xml"]),
    ],
)
def test_completion_of_words_offers_what_fits(complete: object, words: tuple[str, ...], completions: list[str]) -> None:
    assert callable(complete)
    assert [word.rstrip("/") for word in complete(*words)] == [word.rstrip("/") for word in completions]


def test_completion_for_zsh_parses_and_has_no_bare_colon() -> None:
    output("zsh", "-n", ZSH)
    for line in ZSH.read_text().splitlines():
        # [help]:name of the value:how to complete it. A colon in the second part would move text into the third.
        assert ":IP:" not in line
        assert ":DOMAIN:" not in line
