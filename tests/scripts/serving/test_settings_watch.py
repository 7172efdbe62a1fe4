"""Settings are read again when somebody asks, or when a file has changed and is whole; never half, and never twice."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mcp_gateway.scripts.serving.settings_source import SettingsSource
from mcp_gateway.scripts.serving.settings_watch import LOOK_S, SettingsWatch, log_answer

DEMO = '[[backends]]\nname = "demo"\nbuiltin = "demo"\n'


class Looking:
    """A watch, asked as often as it looks."""

    def __init__(self, path: Path, *, watches_files: bool = True) -> None:
        self.watch = SettingsWatch(SettingsSource(config=str(path)), watches_files=watches_files)
        self.now_s = 0.0

    def is_due(self) -> bool:
        self.now_s += LOOK_S
        return self.watch.is_due(self.now_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(DEMO)
    return path


def test_a_file_that_stays_as_it_is_is_not_read_again(path: Path) -> None:
    looking = Looking(path)
    assert not any(looking.is_due() for _ in range(5))


def test_a_changed_file_is_read_once_and_only_when_it_has_come_to_rest(path: Path) -> None:
    looking = Looking(path)
    path.write_text(DEMO + "# half of")
    assert not looking.is_due()
    path.write_text(DEMO + DEMO.replace('name = "demo"', 'name = "other"'))
    assert not looking.is_due()
    assert looking.is_due()
    settings = looking.watch.read()
    assert settings is not None
    assert [backend.name for backend in settings.backends] == ["demo", "other"]
    assert not any(looking.is_due() for _ in range(5))


def test_a_folder_is_read_again_when_one_of_its_files_changes_appears_or_goes(tmp_path: Path) -> None:
    servers = tmp_path / "mcp.json"
    servers.write_text('{"mcpServers": {"one": {"url": "http://127.0.0.1:1/mcp"}}}')
    watch = SettingsWatch(SettingsSource(mcp_json=(str(tmp_path),)), watches_files=True)
    more = tmp_path / ".vscode" / "mcp.json"
    more.parent.mkdir()
    names = []
    for change in (
        lambda: servers.write_text('{"mcpServers": {"two": {"url": "http://127.0.0.1:1/mcp"}}}'),
        lambda: more.write_text('{"servers": {"three": {"url": "http://127.0.0.1:1/mcp"}}}'),
        servers.unlink,
    ):
        change()
        assert not watch.is_due(LOOK_S * (10 * len(names) + 1))
        assert watch.is_due(LOOK_S * (10 * len(names) + 2))
        settings = watch.read()
        assert settings is not None
        names.append([backend.name for backend in settings.backends])
    assert names == [["two"], ["two", "three"], ["three"]]


def test_a_file_that_was_replaced_is_a_changed_one_and_one_that_is_away_for_a_moment_is_waited_for(path: Path) -> None:
    looking = Looking(path)
    path.rename(path.with_suffix(".old"))
    assert not looking.is_due()
    path.with_suffix(".old").rename(path)
    assert not any(looking.is_due() for _ in range(3))  # the same again
    fresh = path.with_suffix(".new")
    fresh.write_text(DEMO)
    fresh.replace(path)
    assert [looking.is_due(), looking.is_due()] == [False, True]


def test_files_are_not_looked_at_where_nobody_wants_it_but_a_signal_is_heard(path: Path) -> None:
    looking = Looking(path, watches_files=False)
    path.write_text(DEMO + DEMO.replace('name = "demo"', 'name = "other"'))
    assert not any(looking.is_due() for _ in range(3))
    looking.watch.ask()
    assert looking.is_due()
    settings = looking.watch.read()
    assert settings is not None
    assert len(settings.backends) == 2
    assert not looking.is_due()


def test_a_file_with_mistakes_changes_nothing_and_each_is_a_line_of_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looking = Looking(path)
    path.write_text("[gateway]\nport = -1\nfoo = 2\n")
    assert looking.watch.read() is None
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(line.startswith("nothing was reloaded: ") for line in lines)


def test_without_a_file_there_is_nothing_to_read(caplog: pytest.LogCaptureFixture) -> None:
    watch = SettingsWatch(SettingsSource(), watches_files=True)
    watch.ask()
    assert watch.read() is None
    assert "without a file" in caplog.text


def test_the_answer_to_a_reload_is_told_to_the_log_and_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert (
        log_answer({"changes": [("added", "x")], "tables": ["policies"], "left": ["gateway.port"]})
        == "reloaded, 1 backend changes"
    )
    assert log_answer({"refused": ["f: no"]}) == "the last reload was refused: f: no"
    assert log_answer({"error": "gone"}) == "the last reload was refused: gone"
    log_answer({"changes": [], "tables": [], "left": []})
    assert [record.getMessage() for record in caplog.records] == [
        "reloaded: x added",
        "reloaded: [policies] changed",
        "gateway.port differs from what runs and was left: it changes when the gateway starts again",
        "nothing was reloaded: f: no",
        "nothing was reloaded: gone",
        "reloaded: nothing has changed",
    ]
