"""From the bytes of a JSON file as people keep them to values: comments, commas at the end, byte order marks, UTF-16. Pure."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from typing import Any, Final

import attrs

_LARGEST_WITH_COMMENTS: Final = 262_144  # characters; the reader for those takes a second for 60 000
_PLACE: Final = re.compile(r"<string>:(?P<line>\d+) (?P<what>.*) at column (?P<column>\d+)", re.DOTALL)


@attrs.frozen(kw_only=True)
class JsonDocument:
    """value: as `json.loads` gives it. twice: keys that stand twice in one table, of which the last counts."""

    value: Any = attrs.field(repr=False)
    twice: tuple[str, ...] = ()


class NotJson(ValueError):
    """What cannot be read. line, column: from 1, None where the reader does not tell."""

    def __init__(self, found: str, allowed: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(found)
        self.found, self.allowed, self.line, self.column = found, allowed, line, column


def read_json(content: bytes) -> JsonDocument:
    """Read JSON; with comments and commas at the end (JSON5) where it is no plain JSON.

    Raises: NotJson
    """
    text = _decoded(content)
    if not text.strip():
        raise NotJson("an empty file", "JSON")
    twice: dict[str, None] = {}

    def table(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                twice[key] = None
            made[key] = value
        return made

    try:
        try:
            value = json.loads(text, object_pairs_hook=table)
        except json.JSONDecodeError as error:
            if len(text) > _LARGEST_WITH_COMMENTS:
                raise NotJson(f"invalid JSON ({error.msg})", "JSON", error.lineno, error.colno) from None
            import json5  # only where it is needed: it is slow to load, and slow

            twice.clear()
            value = json5.loads(text, object_pairs_hook=table)
    except RecursionError:
        raise NotJson("arrays or objects nested too deeply", "JSON") from None
    except NotJson:
        raise
    except ValueError as error:
        raise _refusal(str(error)) from None
    return JsonDocument(value=value, twice=tuple(twice))


def _refusal(text: str) -> NotJson:
    place = _PLACE.fullmatch(text)
    if place is None:
        return NotJson("an integer of more than 4300 digits" if "digits" in text else "invalid JSON", "JSON")
    what = place["what"] if place["what"].isprintable() else "an unexpected character"
    return NotJson(f"invalid JSON ({what[:1].lower()}{what[1:]})", "JSON", int(place["line"]), int(place["column"]))


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 (as PowerShell's `>` writes it) by its byte order mark or by the zeros beside the first character."""
    content = content.removeprefix(codecs.BOM_UTF8)
    encoding = "utf-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content[1:2] == b"\x00" and content[:1] != b"\x00":
        encoding = "utf-16-le"
    elif content[:1] == b"\x00" and content[1:2] not in (b"\x00", b""):
        encoding = "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, "replace")
        found = f"byte 0x{content[error.start]:02x}, which is not {encoding.upper()}"
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise NotJson(found, "UTF-8 or UTF-16", line, column) from None
