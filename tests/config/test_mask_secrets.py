"""The example of a guard."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.mask_secrets import judge

TOKEN = "ghp_" + "a" * 36


def after(result: dict[str, Any]) -> dict[str, Any]:
    return judge({"phase": "after", "result": result})


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "AKIA" + "A" * 16,
        "sk-" + "b" * 24,
        "xoxb-1234567890-abc",
        f"eyJ{'a' * 12}.eyJ{'b' * 12}.{'c' * 12}",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_what_looks_like_a_secret_is_masked_wherever_it_stands(secret: str) -> None:
    result = {"content": [{"type": "text", "text": f"a {secret} b"}], "structuredContent": {"x": [secret, 1, None]}}
    masked = {"content": [{"type": "text", "text": "a [masked] b"}], "structuredContent": {"x": ["[masked]", 1, None]}}
    assert after(result) == {"action": "replace", "result": masked}


def test_what_has_none_passes_as_it_is() -> None:
    assert after({"content": [{"type": "text", "text": "skip the rest"}]}) == {"action": "allow"}


def test_a_call_with_a_private_key_is_refused_and_others_pass() -> None:
    key = {"phase": "before", "arguments": {"files": [{"text": "-----BEGIN PRIVATE KEY-----"}]}}
    assert judge(key)["action"] == "refuse"
    assert judge({"phase": "before", "arguments": {"a": TOKEN}}) == {"action": "allow"}
