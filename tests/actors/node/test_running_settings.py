"""What the cells of a node run with, and which of them must be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.node.kept_backends import with_kept_backends
from mcp_gateway.actors.node.kept_revocations import with_kept_revocations
from mcp_gateway.actors.node.running_settings import RunningSettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping

STARTED = settings_from_mapping({"backends": [{"name": "demo", "builtin": "demo"}]}, "test")
ADD = {"backend": {"name": "two", "builtin": "demo"}}


def test_a_change_counts_and_is_kept_and_one_that_changes_nothing_is_not(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    running = RunningSettings(STARTED, path)
    assert running.change("undrain", {"name": "demo"}).events == ()
    assert (running.revision, running.now, path.exists()) == (0, STARTED, False)
    change = running.change("add-backend", ADD)
    assert (running.revision, running.now) == (1, change.settings)
    assert with_kept_backends(path, STARTED) == running.now


@pytest.mark.parametrize("fault", ["refused", "not kept"])
def test_what_fails_changes_nothing(fault: str, tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / ("kept.json" if fault == "refused" else "nowhere/kept.json"))
    with pytest.raises(ConfigError if fault == "refused" else OSError):
        running.change("add-backend", ADD if fault != "refused" else {"backend": {}})
    assert (running.revision, running.now, list(tmp_path.iterdir())) == (0, STARTED, [])
    assert running.to_tell([("cell/0", 1)]) == set()


def test_each_cell_is_told_of_each_change_once_and_again_when_it_has_started_anew(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    cells = [("cell/0", 1), ("cell/1", 1)]
    assert running.to_tell(cells) == set()  # they were started with what runs
    running.change("add-backend", ADD)
    assert running.to_tell(cells) == {"cell/0", "cell/1"}
    assert running.to_tell(cells) == set()
    assert running.to_tell([("cell/0", 2), ("cell/1", 1)]) == {"cell/0"}
    running.change("remove-backend", {"name": "two"})
    assert running.to_tell([("cell/1", 1)]) == {"cell/1"}
    assert running.to_tell([("cell/0", 2), ("cell/1", 1)]) == {"cell/0"}


def test_who_loses_access_is_kept_beyond_the_node_before_any_cell_is_told(tmp_path: Path) -> None:
    state = {"gateway": {"state_dir": str(tmp_path)}, "backends": [{"name": "demo", "builtin": "demo"}]}
    started = settings_from_mapping(state, "test")
    running = RunningSettings(started, tmp_path / "kept.json")
    running.change("revoke", {"subject": "alice"})
    assert with_kept_revocations(started).revocations.subjects == ("alice",)
    assert running.to_tell([("cell/0", 1)]) == {"cell/0"}
    running.change("revoke", {"subject": "alice"})
    assert running.to_tell([("cell/0", 1)]) == set()
    running.change("reload", {"settings": started})
    assert running.now.revocations.subjects == ("alice",)
