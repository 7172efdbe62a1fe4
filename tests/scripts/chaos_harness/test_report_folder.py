from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.scripts.chaos_harness import chaos_run, soak_run
from mcp_gateway.scripts.chaos_harness.report_folder import FolderUnusable, made_folder


def test_a_folder_is_made_where_it_is_wanted_and_a_new_one_where_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_folder(tmp_path / "a" / "b", "x").is_dir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, second = made_folder(None, "mine-"), made_folder(None, "mine-")
    assert first != second
    assert first.name.startswith("mine-")


def test_a_folder_that_cannot_be_is_told_in_a_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="no report can be written"):
        made_folder(tmp_path / "file" / "report", "x")
    for main, name in ((chaos_run.main, "chaos"), (soak_run.main, "chaos --soak")):
        assert main(["--report", str(tmp_path / "file" / "report")]) == chaos_run.EXIT_FAILED
        said = capsys.readouterr().err
        assert said.startswith(f"{name}: no report can be written into ")
        assert len(said.splitlines()) == 1
