"""The pages for people: what they link to and what their commands name is there."""

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
    """The headings as GitHub links to them: lower case, without punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        # CHANGELOG.md and CONTRIBUTING.md are not in every copy of the tree that the tests run in.
        if target.parent == ROOT and target.name != "README.md":
            continue
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def commands(page: Path) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_name_what_is_there(page: Path) -> None:
    text = commands(page)
    for path in re.findall(r"(?<![\w/.])(?:deploy|examples)/[\w./-]+", text):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"\bflashpol ([a-z]+)(?= )", text)) <= {*COMMANDS}


def test_every_page_of_the_guide_is_named_in_it() -> None:
    reached = {path for path, _ in links(ROOT / "docs" / "guide.md")}
    assert {f"guide/{page.name}" for page in (ROOT / "docs" / "guide").iterdir()} <= reached
