"""What a call has given, from the answer of the API. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http.client import responses
from typing import Any, Final

from mcp_gateway.transports.upstream.adapted.adapted_conversation import ToolOutcome

from .api_answers import RESULT
from .api_schemas import is_json

_TEXTS: Final = frozenset(
    {"", "application/xml", "application/javascript", "application/yaml", "application/x-www-form-urlencoded"}
)


def outcome_of(status: int, headers: Mapping[str, str], body: bytes, url: str) -> ToolOutcome:
    """headers: lower-case names. url: that it is shown under, for content that is neither text nor a picture.

    An API's JSON is structured content: an object as it is, anything else under `result`. What it refuses is a tool's error, with
    its status first, so that a model can tell what to mend. Of redirects none is followed: they may lead anywhere.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_error = not 200 <= status < 300
    value = _json_of(media_type, body)
    text = _text_of(media_type, body, headers) if value is None else json.dumps(value.value, ensure_ascii=False)
    head = f"HTTP {status} {responses.get(status, '')}".strip()
    if is_error:
        if 300 <= status < 400 and (location := headers.get("location")):
            head += f", which leads to {location[:500]}"
        shown = f"{head}: {text}" if text else head
        structured: dict[str, Any] = {"status": status}
        if value is not None:
            structured["body"] = value.value
        return ToolOutcome([{"type": "text", "text": shown}], structured, is_error=True)
    if value is not None:
        structured = value.value if isinstance(value.value, dict) else {RESULT: value.value}
        return ToolOutcome([{"type": "text", "text": text}], structured)
    if text is None:
        return ToolOutcome([_blob(media_type, body, url)])
    return ToolOutcome([{"type": "text", "text": text or head}])


class _Value:
    """Any JSON, null included."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _json_of(media_type: str, body: bytes) -> _Value | None:
    if not body or not is_json(media_type):
        return None
    try:
        return _Value(json.loads(body, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        return None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _text_of(media_type: str, body: bytes, headers: Mapping[str, str]) -> str | None:
    if not (media_type.startswith("text/") or media_type in _TEXTS or is_json(media_type) or media_type.endswith("+xml")):
        return None if body else ""
    charset = headers.get("content-type", "").lower().partition("charset=")[2].partition(";")[0].strip(' "') or "utf-8"
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _blob(media_type: str, body: bytes, url: str) -> dict[str, Any]:
    data = base64.b64encode(body).decode()
    kind = media_type.partition("/")[0]
    if kind in ("image", "audio"):
        return {"type": kind, "data": data, "mimeType": media_type}
    return {"type": "resource", "resource": {"uri": url, "mimeType": media_type, "blob": data}}
