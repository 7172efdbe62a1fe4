"""The number by which two versions know whether their processes understand each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.node import wire_fingerprint


def test_it_is_of_every_message_and_setting_and_of_no_version() -> None:
    names = {path.name for path in wire_fingerprint._SPOKEN}
    assert {"node.py", "between_cells.py", "event_log.py", "settings.py", "jsonrpc.py", "packet_seal.py"} <= names
    assert "version.py" not in names


def test_another_file_is_another_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "messages.py"
    monkeypatch.setattr(wire_fingerprint, "_SPOKEN", (file,))
    file.write_text("A = 1\n")
    first = wire_fingerprint._fingerprint()
    assert first == wire_fingerprint._fingerprint()
    file.write_text("A = 2\n")
    assert wire_fingerprint._fingerprint() != first
