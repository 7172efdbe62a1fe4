"""Who has lost access, in a file of the state directory: a gateway that starts again lets nobody in whom it had turned away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs

from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import Settings

FILE_NAME = "revocations.json"


class RevocationsUnreadableError(Exception):
    """The file is there and cannot be understood; the text names it. Who is in it is not known, so nobody may be served."""


def keep_revocations(state_path: Path, revocations: Revocations) -> None:
    """Write them, as a whole or not at all.

    Raises: OSError
    """
    fresh = state_path / f"{FILE_NAME}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(attrs.asdict(revocations), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(state_path / FILE_NAME)


def with_kept_revocations(settings: Settings) -> Settings:
    """The settings with what was kept last; as they are without a state directory.

    Raises: RevocationsUnreadableError
    """
    state_path = settings.gateway.state_path
    if state_path is None:
        return settings
    path = state_path / FILE_NAME
    try:
        return attrs.evolve(settings, revocations=Revocations(**json.loads(path.read_bytes())))
    except FileNotFoundError:
        return settings
    except (OSError, ValueError, TypeError, InvalidSetting) as error:
        raise RevocationsUnreadableError(f"{path} cannot be read: {error}") from error
