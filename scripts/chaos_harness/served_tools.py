"""What the servers under test serve, in revisions with a handshake: a tool that reads, some that must not run twice. Pure.

The built-in demo server, which is behind the gateway beside them, speaks the stateless revision.
"""

from __future__ import annotations

from typing import Any, Final

LEGACY: Final = "2025-11-25"
_NO_METHOD: Final = -32601
_SERVER: Final = {"name": "chaos", "version": "1"}
READ, WRITE, WORK, ASK = "read", "write", "work", "ask"
_ARGUMENT: Final = {"type": "object", "properties": {"argument": {"type": "string"}, "seconds": {"type": "number"}}}
_TOOLS: Final = [
    {"name": READ, "inputSchema": _ARGUMENT, "annotations": {"readOnlyHint": True, "idempotentHint": True}},
    *({"name": name, "inputSchema": _ARGUMENT} for name in (WRITE, WORK, ASK)),
]
QUESTION: Final = {
    "message": "May it go on?",
    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
}


def called(message: dict[str, Any]) -> tuple[str, str, float]:
    """(tool, argument, seconds) of a call; ("", "", 0) where the message is none."""
    if message.get("method") != "tools/call":
        return "", "", 0.0
    arguments = message["params"].get("arguments", {})
    return message["params"]["name"], str(arguments.get("argument", "")), float(arguments.get("seconds", 0.0))


def no_session(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request of no session that is known. Source: MCP 2025-11-25, transports, "Session Management"."""
    return {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32600, "message": "Session not found"}}


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """The response to a request."""
    results: dict[str, dict[str, Any]] = {
        "ping": {},
        "tools/list": {"tools": _TOOLS},
        "logging/setLevel": {},
        "tools/call": {"content": [{"type": "text", "text": called(message)[1]}]},
        "initialize": {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": _SERVER},
    }
    result = results.get(message["method"])
    if result is None:
        error = {"code": _NO_METHOD, "message": f"Method not found: {message['method']}"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}
