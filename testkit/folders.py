"""Folders of tests, which pytest closes to other users."""

import tempfile
from pathlib import Path


def let_others_in(folder: Path) -> None:
    """Let every user come as far as this folder of a test."""
    for each in (folder, *folder.parents[: folder.parents.index(Path(tempfile.gettempdir()))]):
        each.chmod(0o755)
