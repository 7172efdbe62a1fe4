"""The settings that a node's cells run with: changed by an operator, kept for the next node, told to each cell once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from mcp_gateway.actors.messages.node import TAKE_SETTINGS
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.settings import Settings

from .backend_changes import BackendChange, backend_change, without_drains
from .kept_backends import Taken, keep_backends, kept_taken
from .kept_revocations import keep_revocations
from .settings_tables import fingerprint_of


@attrs.frozen
class SharedChange:
    """change: at this node. settings: for all nodes; what drains here alone does not go with them. file: fingerprint of the one
    that they come from."""

    change: BackendChange
    settings: Settings
    file: str


class RunningSettings:
    """now: what cells shall run with. revision: counts the changes; 0 is what the node was started with.

    taken: which settings of a cluster that is.
    """

    def __init__(self, settings: Settings, kept_path: Path) -> None:
        self.now = settings
        self.revision = 0
        self.taken = kept_taken(kept_path, settings)
        self._kept_path = kept_path
        self._told: dict[str, tuple[int, int]] = {}  # {name of a cell: (incarnation, revision)}

    def preview(self, command: str, arguments: Mapping[str, Any]) -> SharedChange:
        """What a command would change for all nodes of a cluster. Raises: ConfigError."""
        change = backend_change(self.now, command, arguments)
        file = fingerprint_of(arguments["settings"]) if command == "reload" else self.taken.file
        return SharedChange(change, backend_change(without_drains(self.now), command, arguments).settings, file)

    def change(self, command: str, arguments: Mapping[str, Any]) -> BackendChange:
        """Carry out one of `backend_changes.BACKEND_COMMANDS`.

        Kept first: whoever dies from now on, what follows it knows as much as the operator who is answered.

        Raises: ConfigError where it may not be done, OSError where it cannot be kept; then nothing has changed.
        """
        taken = self.taken
        if command == TAKE_SETTINGS:
            # A node that has started with another file than the others have, or had before this change, runs what its own file
            # says, until the next one.
            has_other_file = not taken.number and taken.file not in (arguments["file"], arguments["before"])
            if has_other_file or arguments["number"] <= taken.number:
                self.taken = attrs.evolve(taken, number=max(arguments["number"], taken.number))
                return BackendChange(settings=self.now, events=())
            taken = Taken(arguments["number"], arguments["file"])
        change = backend_change(self.now, command, arguments)
        has_changed = change.settings != self.now
        if has_changed:
            keep_backends(self._kept_path, change.settings, taken, lambda: self._keep_revocations(change.settings.revocations))
        self.now, self.taken = change.settings, taken
        if not has_changed and command != "reload":  # told in any case: what it is for may have been mended beside the file
            return change
        self.revision += 1
        return change

    def _keep_revocations(self, revocations: Revocations) -> None:
        state_path = self.now.gateway.state_path
        if state_path is not None and revocations != self.now.revocations:
            keep_revocations(state_path, revocations)

    def to_tell(self, cells: Iterable[tuple[str, int]]) -> set[str]:
        """Names of the cells, (name, incarnation), that have not been told of the newest revision; from now on they have.

        One that has started since is among them: it may have been made from older settings.
        """
        untold = {name: incarnation for name, incarnation in cells if self.revision}
        untold = {name: each for name, each in untold.items() if self._told.get(name) != (each, self.revision)}
        self._told |= {name: (incarnation, self.revision) for name, incarnation in untold.items()}
        return set(untold)
