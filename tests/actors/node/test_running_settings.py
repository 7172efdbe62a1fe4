"""What the cells of a node run with, and which of them must be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.node.kept_backends import Taken, with_kept_backends
from mcp_gateway.actors.node.kept_revocations import FILE_NAME as REVOCATIONS_FILE
from mcp_gateway.actors.node.kept_revocations import with_kept_revocations
from mcp_gateway.actors.node.running_settings import RunningSettings
from mcp_gateway.actors.node.settings_tables import encoded_tables, fingerprint_of
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.settings import Settings

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


def test_a_revocation_that_one_of_its_two_files_does_not_take_is_in_neither(tmp_path: Path) -> None:
    """The operator reads that nothing has changed: that holds for what follows this node, and for the next start."""
    state = {"gateway": {"state_dir": str(tmp_path)}, "backends": [{"name": "demo", "builtin": "demo"}]}
    started = settings_from_mapping(state, "test")
    kept_path = tmp_path / "kept.json"
    running = RunningSettings(started, kept_path)
    running.change("revoke", {"subject": "alice"})
    before = running.now
    (tmp_path / f"{REVOCATIONS_FILE}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        running.change("revoke", {"subject": "bob"})
    assert (running.now, running.revision) == (before, 1)
    assert with_kept_backends(kept_path, started).revocations == with_kept_revocations(started).revocations == before.revocations
    (tmp_path / f"{REVOCATIONS_FILE}.new").rmdir()
    running.change("revoke", {"subject": "bob"})
    assert with_kept_backends(kept_path, started).revocations.subjects == ("alice", "bob")


# ---- settings of a cluster


def of_cluster(settings: Settings, number: int, file: Settings = STARTED, before: Settings = STARTED) -> dict[str, object]:
    tables = encoded_tables(settings)
    return {"number": number, "file": fingerprint_of(file), "before": fingerprint_of(before), "tables": tables}


def test_settings_of_the_cluster_are_taken_once_and_older_ones_never(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    shared = running.preview("add-backend", ADD)
    assert (running.now, running.revision) == (STARTED, 0)
    assert running.change("take-settings", of_cluster(shared.settings, 3)).events == (("added", "two"),)
    assert (running.now, running.revision, running.taken.number) == (shared.settings, 1, 3)
    assert shared.file == running.taken.file
    for number in (3, 2):
        assert running.change("take-settings", of_cluster(STARTED, number)).events == ()
    assert (running.now, running.revision) == (shared.settings, 1)
    again = RunningSettings(with_kept_backends(tmp_path / "kept.json", STARTED), tmp_path / "kept.json")
    assert (again.now, again.taken) == (running.now, running.taken)


def test_settings_that_the_node_has_anyway_are_taken_without_telling_any_cell(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    running.change("take-settings", of_cluster(STARTED, 4))
    assert (running.taken.number, running.revision) == (4, 0)


def test_who_has_started_with_another_file_runs_that_until_the_next_change(tmp_path: Path) -> None:
    other = settings_from_mapping({"backends": [{"name": "new", "builtin": "demo"}]}, "test")
    running = RunningSettings(other, tmp_path / "kept.json")
    running.change("take-settings", of_cluster(STARTED, 5))
    assert (running.now, running.taken.number) == (other, 5)
    running.change("take-settings", of_cluster(STARTED, 6))
    assert running.now.backends == STARTED.backends


def test_who_has_the_file_that_another_node_had_before_takes_what_that_has_read_since(tmp_path: Path) -> None:
    """The first change of a cluster may be that one node reads its file again."""
    other = settings_from_mapping({"backends": [{"name": "new", "builtin": "demo"}]}, "test")
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    running.change("take-settings", of_cluster(other, 1, file=other))
    assert (running.now.backends, running.taken) == (other.backends, Taken(1, fingerprint_of(other)))


def test_what_is_draining_at_this_node_goes_on_draining(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    shared = running.preview("add-backend", ADD).settings
    running.change("drain", {"name": "demo"})
    running.change("take-settings", of_cluster(shared, 1))
    assert [(each.name, each.draining) for each in running.now.backends] == [("demo", True), ("two", False)]


@pytest.mark.parametrize("replica", [None, "builtin:demo"], ids=["all", "one replica"])
def test_what_drains_at_one_node_drains_at_no_other_when_that_node_changes_something_for_all(
    replica: str | None, tmp_path: Path
) -> None:
    one, other = (RunningSettings(STARTED, tmp_path / f"{name}.json") for name in ("one", "other"))
    one.change("drain", {"name": "demo", "replica": replica})
    before = one.now.backends[0]
    shared = one.preview("add-backend", ADD)
    assert shared.change.events == (("added", "two"),)
    for node in (one, other):
        node.change("take-settings", of_cluster(shared.settings, 1))
    assert one.now.backends[0] == before
    assert other.now.backends[0] == STARTED.backends[0]


def test_a_file_that_has_a_backend_drain_says_so_for_all_nodes(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    file = settings_from_mapping({"backends": [{"name": "demo", "builtin": "demo", "draining": True}]}, "test")
    shared = running.preview("reload", {"settings": file})
    assert [each.draining for each in shared.settings.backends] == [True]
    assert shared.change.events == (("drained", "demo"),)


def test_what_cannot_be_read_is_refused_and_not_counted_as_taken(tmp_path: Path) -> None:
    running = RunningSettings(STARTED, tmp_path / "kept.json")
    for tables in (b"{}", b"no json"):
        with pytest.raises(ConfigError):
            running.change("take-settings", {**of_cluster(STARTED, 1), "tables": tables})
    assert running.taken.number == 0
