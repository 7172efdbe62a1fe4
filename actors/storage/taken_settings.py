"""Up to which settings of its cluster a node has come, in a file of the state directory: older ones do not come back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

FILE_NAME: Final = "cluster-settings.json"


def taken_number(state_path: Path) -> int:
    """The highest number that was kept; 0 where there is none, or none that can be read."""
    try:
        number = json.loads((state_path / FILE_NAME).read_bytes())["number"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return number if type(number) is int else 0


def keep_taken_number(state_path: Path, number: int) -> None:
    """Write it, as a whole or not at all. Raises: OSError."""
    fresh = state_path / f"{FILE_NAME}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"number": number}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(state_path / FILE_NAME)
