"""Members of params that are nearly those which decide what a request is about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.transports.protocol.mcp.member_spelling import misspelt


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"name": "a", "arguments": {"Name": "b"}, "_meta": {}}, None),
        ({"name": "a", "Name": "b"}, "'Name' is not how 'name' is written"),
        ({"NAME": "b"}, "'NAME' is not how 'name' is written"),
        ({"name": "a", "argument\u017f": {}}, "'argument\u017f' is not how 'arguments' is written"),
        ({"ref": {"Uri": "b"}}, "'Uri' is not how 'uri' is written"),
        ({"notifications": {"taskids": []}}, "'taskids' is not how 'taskIds' is written"),
    ],
)
def test_what_a_lenient_server_would_take_for_another_member_is_found(params: Any, said: str | None) -> None:
    assert misspelt(json.dumps(params).encode()) == said


def test_params_that_are_missing_are_written_well() -> None:
    assert misspelt(b"") is None
