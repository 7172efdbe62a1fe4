"""A stdio server of 2025-11-25 that says of its tools what a file says: `python changing_server.py FILE`.

FILE: the JSON of a list of tools, read again for each list. A call gives its own name and arguments as text, and as structured
content; one with the argument `result` gives that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def result_of(method: str, params: dict[str, Any], tools: Path) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "changing", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": json.loads(tools.read_text())}
    if method == "tools/call":
        arguments = params.get("arguments", {})
        if "result" in arguments:
            given: dict[str, Any] = arguments["result"]
            return given
        said = {"name": params["name"], "arguments": arguments}
        return {"content": [{"type": "text", "text": json.dumps(said)}], "structuredContent": said}
    return {} if method == "ping" else None


def main() -> None:
    tools = Path(sys.argv[1])
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        result = result_of(message["method"], message.get("params", {}), tools)
        answer = {"result": result} if result is not None else {"error": {"code": -32601, "message": "unknown method"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
