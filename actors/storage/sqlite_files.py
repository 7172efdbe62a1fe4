"""What those who keep a SQLite file have in common."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def move_aside(path: Path, name: str) -> Path | None:
    """Put a file that cannot be used where somebody can look at it, so that a new one can take its place.

    name: of the file in the same folder; one that is there is overwritten.

    Returns its new path, or None where there was no file.

    Raises: OSError; then nothing has changed
    """
    aside: Path | None = path.with_name(name)
    try:
        os.replace(path, path.with_name(name))
    except FileNotFoundError:
        aside = None
    for suffix in ("-wal", "-shm", "-journal"):  # they belong to the old file, and would spoil the new one
        with suppress(OSError):
            os.unlink(f"{path}{suffix}")
    return aside
