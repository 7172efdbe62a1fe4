"""The public descriptions that the tests read; see the README beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcp_gateway.transports.upstream.openapi.api_description import Description, read_description, read_document

FOLDER = Path(__file__).parent / "descriptions"


def described(name: str, base_url: str = "https://api.example") -> Description:
    return read_description(read_document((FOLDER / name).read_bytes()), base_url, "")


def small(operation: dict[str, Any], path: str = "/a", **members: Any) -> dict[str, Any]:
    """A description of one GET."""
    return {"openapi": "3.1.0", "servers": [{"url": "https://api.example"}], "paths": {path: {"get": operation}}, **members}
