"""The source and the documents do not use some words, for which there are plainer ones: see CONTRIBUTING.md."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHERE = ("flashpol", "docs", "bench", "faults", "README.md", "SECURITY.md")
TEXT = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".md", ".js", ".css", ".go"}
WORDS = re.compile(
    r"\b(nobody|whoever|for ever|anew|mend(s|ed)?|stands? (in|still)|those inside|dice)\b", re.IGNORECASE
)
# What may contain one of them: the user `nobody`.
LITERAL = re.compile(r"\"nobody\"|`nobody`|--user[ =]nobody|User=nobody")


def text_files() -> list[Path]:
    """All text files of these places, but not the C that Cython generates below flashpol/."""
    roots = [ROOT / name for name in WHERE]
    found = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return [path for path in found if path.suffix in TEXT and path.parts[len(ROOT.parts)] + path.suffix != "flashpol.c"]


def findings(text: str) -> list[str]:
    """The lines with such a word, with their numbers."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{number}: {line.strip()}" for number, line in lines if WORDS.search(LITERAL.sub("", line))]


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_file_contains_none_of_the_rejected_words(path: Path) -> None:
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("Whoever asks waits.", 1),
        ("It stands still", 1),
        ("it waits for ever, in vain", 1),
        ('user = "nobody"', 0),
        ('user = "nobody", since nobody else may', 1),
        ("amended; standstill; forever", 0),
    ],
)
def test_findings_of_a_line_are_words_that_are_not_meant_literally(line: str, count: int) -> None:
    assert len(findings(line)) == count
