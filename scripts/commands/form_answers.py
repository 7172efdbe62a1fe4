"""Asks the person at the terminal what a server wants to know.

Source: MCP 2026-07-28, client/elicitation: forms of flat fields and addresses to open, which a person may decline or dismiss.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mcp_gateway.config.shown_text import shown

Read = Callable[[str], str]
"""Shows a prompt and returns a line; EOFError at the end of the input."""


class FormAnswers:
    """Answers questions of servers line by line. read: `input`, unless a test says otherwise."""

    def __init__(self, read: Read | None = None) -> None:
        self._read = read or _read_line

    def __call__(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer, as `inputResponses` has it; what cannot be asked here is dismissed."""
        if method != "elicitation/create":
            return {"action": "cancel"}
        try:
            if params.get("mode") == "url":
                return self._visit(params)
            return self._fill_in(params)
        except EOFError:
            return {"action": "cancel"}

    def _visit(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The address is shown whole, and nothing opens it: whom to trust is for the person to say."""
        self._say(params.get("message"))
        self._say(f"open {params.get('url')}")
        return {"action": "accept" if self._agrees("Have you done that? [y/N] ") else "decline"}

    def _fill_in(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self._say(params.get("message"))
        schema = params.get("requestedSchema")
        properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
        required = schema.get("required", []) if isinstance(schema, dict) else []
        if not properties:
            return {"action": "accept", "content": {}} if self._agrees("Go on? [y/N] ") else {"action": "decline"}
        content: dict[str, Any] = {}
        for name, field in properties.items():
            value = self._field(name, field if isinstance(field, dict) else {}, is_required=name in required)
            if value is not None:
                content[name] = value
        return {"action": "accept", "content": content}

    def _field(self, name: str, field: Mapping[str, Any], *, is_required: bool) -> Any:
        """The value of one field; None where it is left out."""
        default, kind, choices = field.get("default"), field.get("type", "string"), _choices(field)
        hints = [f"one of {', '.join(map(str, choices))}" if choices else str(kind)]
        hints += [f"default {json.dumps(default)}"] if default is not None else [] if is_required else ["may be empty"]
        title = field.get("title") or name
        while True:
            text = self._read(shown(f"{title} ({'; '.join(hints)}): ")).strip()
            if not text and default is not None:
                return default
            if not text and not is_required:
                return None
            try:
                return _value(text, kind, choices)
            except ValueError as error:
                self._say(error)

    def _agrees(self, prompt: str) -> bool:
        return self._read(prompt).strip().lower() in ("y", "yes")

    @staticmethod
    def _say(text: object) -> None:
        if text:
            print(shown(str(text)), file=sys.stderr, flush=True)


def _choices(field: Mapping[str, Any]) -> list[Any]:
    """The only values that a field may have; [] where it may have any."""
    titled, plain = field.get("oneOf"), field.get("enum")
    if isinstance(titled, list):
        return [choice.get("const") for choice in titled if isinstance(choice, dict)]
    return plain if isinstance(plain, list) else []


def _value(text: str, kind: object, choices: list[Any]) -> Any:
    """Raises: ValueError, for people."""
    if kind == "boolean":
        if text.lower() not in ("y", "yes", "true", "n", "no", "false"):
            raise ValueError("yes or no, please")
        return text.lower() in ("y", "yes", "true")
    value: Any = text
    if kind in ("integer", "number"):
        try:
            value = int(text) if kind == "integer" else float(text)
        except ValueError:
            raise ValueError(f"{'a whole number' if kind == 'integer' else 'a number'}, please") from None
    if kind == "array":
        value = [each.strip() for each in text.split(",") if each.strip()]
    elif choices and value not in choices:
        raise ValueError(f"one of {', '.join(map(str, choices))}, please")
    if value == "":
        raise ValueError("this cannot be left out")
    return value


def _read_line(prompt: str) -> str:
    """On standard error: standard output belongs to the tool's answer."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
