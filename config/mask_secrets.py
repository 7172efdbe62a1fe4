"""An example of a guard: masks what looks like a secret in what tools give, and refuses calls that carry a private key.

[backends.tools]
guard = { callable = "mcp_gateway.config.mask_secrets:judge" }
"""

from __future__ import annotations

import re
from typing import Any, Final

_MASK: Final = "[masked]"
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_SECRETS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    r"|\bAKIA[0-9A-Z]{16}\b"  # an access key of AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b"  # a token of GitHub
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,200}"  # of Slack
    r"|\bsk-[A-Za-z0-9_-]{20,200}"  # of several providers of models
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # a JSON Web Token
)


def judge(question: dict[str, Any]) -> dict[str, Any]:
    """question, answer: see `transports/upstream/guard/guardrail.py`."""
    if question["phase"] == "before":
        if any(_PRIVATE_KEY.search(text) for text in _texts(question["arguments"])):
            return {"action": "refuse", "reason": "a private key must not leave"}
        return {"action": "allow"}
    masked = _masked(question["result"])
    return {"action": "allow"} if masked == question["result"] else {"action": "replace", "result": masked}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRETS.sub(_MASK, value)
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return {name: _masked(each) for name, each in value.items()} if isinstance(value, dict) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _texts(each)]
