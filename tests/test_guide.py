"""The pages for people: their links lead somewhere, and the files that their commands name exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The headings as GitHub links to them: lower case, no punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        # The tests also run in copies of the tree without CHANGELOG.md and CONTRIBUTING.md.
        if target.parent == ROOT and target.name != "README.md":
            continue
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


# Wrapped at 100 columns, except tables and URLs.
WRAPPED = [ROOT / "docs" / "guide.md", ROOT / "docs" / "reference.md"] + [
    ROOT / "docs" / "guide" / f"{name}.md"
    for name in (
        "install",
        "systemd",
        "containers",
        "fleet",
        "tls",
        "client-address",
        "troubleshooting",
        "websocket",
        "rtmpt",
    )
]


@pytest.mark.parametrize("page", WRAPPED, ids=named)
def test_lines_of_a_page_are_wrapped(page: Path) -> None:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        assert len(line) <= 100 or line.startswith("|"), number


def commands(page: Path) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_name_files_that_exist(page: Path) -> None:
    text = commands(page)
    for path in re.findall(r"(?<![\w/.])(?:deploy|examples)/[\w./-]+", text):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"\bflashpol ([a-z]+)(?= )", text)) <= {*COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_a_page_pass_nc_no_flag_that_netcat_traditional_lacks(page: Path) -> None:
    """It is the nc of a standard Debian: no -N, which netcat-openbsd has. `nc -N` alone is about that flag."""
    flags = re.findall(r"\| nc ((?:-\w+ (?:\d+ )?)*)", page.read_text())
    assert {flag for each in flags for flag in re.findall(r"-\w+", each)} <= {"-w"}


def test_guide_links_to_each_of_its_pages() -> None:
    reached = {path for path, _ in links(ROOT / "docs" / "guide.md")}
    assert {f"guide/{page.name}" for page in (ROOT / "docs" / "guide").iterdir()} <= reached
