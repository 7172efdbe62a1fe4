"""The TypeScript client and the Python server understand each other directly, so that what fails later fails in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.sdk_server import start_sdk_server
from tests.node.node_client import run_node_client

pytestmark = pytest.mark.node_js

EXPECTED = {
    "errors": {},
    "server": "everything",
    "echo": "hi",
    "structured": {"result": 3},
    "tool_error": True,
    "elicitation_message": "What is your name?",
    "elicit": "accept: Hello, Ada!",
    "sampling_prompt": "What is the answer?",
    "sample": "test-model: 42",
    "roots": "file:///root",
    "progress": [1, 2, 3],
    "logs": [{"message": "hello", "number": 0}],
    "cancelled": True,
    "resources": ["test://blob", "test://static"],
    "templates": ["test://item/{item_id}"],
    "resource": '{"item": "7", "checksum": "37"}',
    "prompts": ["greet"],
    "prompt": "Say hello to Bo.",
    "completion": ["Ada", "Alan"],
}


@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("modern", "2026-07-28"), ("auto", "2026-07-28")])
def test_the_typescript_client_uses_every_feature_of_the_python_server(mode: str, version: str) -> None:
    with start_sdk_server() as server:
        seen = run_node_client(server.url, mode)  # type: ignore[arg-type]
        server.wait_for(lambda counters: counters["cancelled"] == ["typescript"])
    assert {key: seen.get(key) for key in EXPECTED} == EXPECTED
    assert (seen["protocol_version"], seen["session"]) == (version, mode == "legacy")


def test_the_client_that_finds_out_falls_back_to_a_session_on_a_legacy_server() -> None:
    with start_sdk_server(era="legacy") as server:
        seen = run_node_client(server.url, "auto")
    assert (seen["errors"], seen["protocol_version"], seen["session"]) == ({}, "2025-11-25", True)


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs chooses the registry; the versions and their hashes are ours."""
    lock = Path(__file__).with_name("package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert '"integrity"' in lock
