"""What an operator may change of a run, as it is now, in a file: for the actor system that follows one that died."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs

from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.settings import Settings

from .settings_tables import fingerprint_of, settings_tables, with_tables


@attrs.frozen
class Taken:
    """Which settings of its cluster a node has. number: of the newest that it has taken, 0 for none; file: fingerprint of the
    file that they were made from."""

    number: int
    file: str


def keep_backends(path: Path, settings: Settings, taken: Taken, keep_beside: Callable[[], None] | None = None) -> None:
    """Write them, as a whole or not at all; readable for this user only, because headers and environments are secrets.

    keep_beside: keeps elsewhere what belongs to the same change. Called when these are written and only have to take their place,
                 for which there is room on a full disk too: where it raises, they do not take it.

    Raises: OSError
    """
    kept = {**settings_tables(settings), "revocations": attrs.asdict(settings.revocations), "taken": attrs.asdict(taken)}
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(kept, file)
    if keep_beside is not None:
        keep_beside()
    fresh.replace(path)


def with_kept_backends(path: Path, settings: Settings) -> Settings:
    """The settings with what was kept last; as they are where nothing was changed."""
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return settings
    return attrs.evolve(with_tables(settings, kept), revocations=Revocations(**kept["revocations"]))


def kept_taken(path: Path, settings: Settings) -> Taken:
    """What the node had of its cluster before the actor system that died; that of a start with these settings otherwise."""
    try:
        return Taken(**json.loads(path.read_bytes())["taken"])
    except FileNotFoundError:
        return Taken(0, fingerprint_of(settings))
