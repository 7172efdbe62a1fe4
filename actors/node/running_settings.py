"""The settings that a node's cells run with: changed by an operator, kept for the next node, told to each cell once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcp_gateway.config.settings import Settings

from .backend_changes import BackendChange, backend_change
from .kept_backends import keep_backends
from .kept_revocations import keep_revocations


class RunningSettings:
    """now: what cells shall run with. revision: counts the changes; 0 is what the node was started with."""

    def __init__(self, settings: Settings, kept_path: Path) -> None:
        self.now = settings
        self.revision = 0
        self._kept_path = kept_path
        self._told: dict[str, tuple[int, int]] = {}  # {name of a cell: (incarnation, revision)}

    def change(self, command: str, arguments: Mapping[str, Any]) -> BackendChange:
        """Carry out one of `backend_changes.BACKEND_COMMANDS`.

        Kept first: whoever dies from now on, what follows it knows as much as the operator who is answered.

        Raises: ConfigError where it may not be done, OSError where it cannot be kept; then nothing has changed.
        """
        change = backend_change(self.now, command, arguments)
        if change.settings != self.now:
            keep_backends(self._kept_path, change.settings)
            if change.settings.revocations != self.now.revocations and (state_path := self.now.gateway.state_path) is not None:
                keep_revocations(state_path, change.settings.revocations)
            self.now = change.settings
        elif command != "reload":  # told in any case: what it is for may have been mended beside the file
            return change
        self.revision += 1
        return change

    def to_tell(self, cells: Iterable[tuple[str, int]]) -> set[str]:
        """Names of the cells, (name, incarnation), that have not been told of the newest revision; from now on they have.

        One that has started since is among them: it may have been made from older settings.
        """
        untold = {name: incarnation for name, incarnation in cells if self.revision}
        untold = {name: each for name, each in untold.items() if self._told.get(name) != (each, self.revision)}
        self._told |= {name: (incarnation, self.revision) for name, incarnation in untold.items()}
        return set(untold)
