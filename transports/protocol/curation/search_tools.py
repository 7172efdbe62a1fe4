"""`search_tools` and `call_tool`: two tools of the gateway's own that stand for a list too long to be shown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import is_modern
from mcp_gateway.transports.protocol.merging.wildcard import Wildcard

from .tool_index import ToolIndex

SEARCH: Final = "search_tools"
CALL: Final = "call_tool"
_USUAL: Final = 5
_MOST: Final = 20
_MOST_BYTES: Final = 262_144
"""Of the tools that one answer shows; the best one is shown in any case."""

_encode = msgspec.json.encode
_decode_string = msgspec.json.Decoder(str).decode
_Read = TypeVar("_Read")

TOOLS: Final = (
    {
        "name": SEARCH,
        "title": "Search tools",
        "description": (
            "Finds the tools that fit what you want to do, best first, each with the schema of its arguments."
            f" Call one with {CALL}."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What you want to do, in a few words."},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
            },
            "required": ["query"],
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    },
    {
        "name": CALL,
        "title": "Call a tool",
        "description": f"Calls a tool that {SEARCH} has found.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "The tool's name."},
                "arguments": {"type": "object", "description": "Its arguments, as its inputSchema says."},
            },
            "required": ["name"],
        },
    },
)


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `search_tools` is asked."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = _USUAL


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    arguments: Raw = Raw(b"{}")


_decode_question = msgspec.json.Decoder(Question).decode
_decode_wanted = msgspec.json.Decoder(_Wanted).decode


def question_of(message: Request) -> tuple[Request, Question]:
    """(the list that a call of `search_tools` asks for, what of it is wanted).

    Raises: Refused with invalid_params.
    """
    params = _members_of(message)
    question = _read(_decode_question, params, message)
    kept = {name: value for name, value in params.items() if name == "_meta"}
    return Request(message.id, "tools/list", _encode(kept)), question


def call_of(message: Request) -> Request:
    """The call that a call of `call_tool` stands for. Raises: Refused with invalid_params."""
    params = _members_of(message)
    wanted = _read(_decode_wanted, params, message)
    return Request(message.id, message.method, _encode({**params, "name": wanted.name, "arguments": wanted.arguments}))


def _members_of(message: Request) -> dict[str, Raw]:
    try:
        return members(message.params)
    except msgspec.DecodeError as error:
        raise Refused("invalid_params", f"the parameters cannot be read: {error}", request_id=message.id) from None


def _read(decode: Callable[[bytes], _Read], params: Mapping[str, Raw], message: Request) -> _Read:
    try:
        return decode(bytes(params.get("arguments", Raw(b"{}"))))
    except msgspec.DecodeError as error:
        raise Refused("invalid_params", f"arguments: {error}", request_id=message.id) from None


class SearchedList:
    """What is shown of a list of tools. above: of a longer one the two tools are, and pinned ones; see `[search]`."""

    def __init__(self, above: int, pinned: Sequence[str]) -> None:
        self._above = above
        self._pinned = [Wildcard(each) for each in pinned]

    def shown(self, tools: Sequence[Mapping[str, Raw]]) -> list[Mapping[str, Raw]]:
        """A tool of a server that is called like one of the two could not be called, and is not shown."""
        others = [tool for tool in tools if _name_of(tool) not in (SEARCH, CALL)]
        if len(others) <= self._above:
            return others
        return [*_ENCODED, *(tool for tool in others if any(each.matches(_name_of(tool)) for each in self._pinned))]


def _name_of(tool: Mapping[str, Raw]) -> str:
    name = tool.get("name", Raw(b""))
    return _decode_string(name) if bytes(name).startswith(b'"') else ""


def found(tools: Sequence[Mapping[str, Raw]], question: Question, index: ToolIndex, revision: str) -> dict[str, object]:
    """The result of a call of `search_tools`. index: of these tools."""
    shown: list[Mapping[str, Raw]] = []
    room = _MOST_BYTES
    for place in index.find(question.query, question.limit):
        room -= len(_encode(tools[place]))
        if shown and room < 0:
            break
        shown.append(tools[place])
    content = {"tools": shown}
    text = _encode(content).decode() if shown else "No tool fits. Ask in other words."
    result: dict[str, object] = {
        "content": [{"type": "text", "text": text}],
        "structuredContent": content,
        "isError": False,
    }
    return {"resultType": "complete", **result} if is_modern(revision) else result


_ENCODED: Final = tuple({name: Raw(_encode(value)) for name, value in tool.items()} for tool in TOOLS)
