"""Where a run writes what it has shown."""

from __future__ import annotations

import tempfile
from pathlib import Path


class FolderUnusable(Exception):
    """The report cannot be written where it is wanted; the text says why."""


def made_folder(wanted: Path | None, prefix: str) -> Path:
    """The folder, made where it is missing; a new one whose name begins so where none is wanted.

    Raises: FolderUnusable
    """
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix=prefix))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        raise FolderUnusable(f"no report can be written into {wanted}: {error.strerror}") from error
    return wanted.resolve()
