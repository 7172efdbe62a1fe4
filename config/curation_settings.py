"""Settings of what clients see of all servers together: `[[servers]]`, `[search]`. Rules as in `settings`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from .common_rules import NAME, as_tuple
from .setting_rules import Each, SettingProblem, Text, Whole, quote

_PARTS: Final = Each(
    Text(
        r"(?:\*|[A-Za-z][A-Za-z0-9_-]*)/[^\x00-\x1f\x7f\ud800-\udfff]+",
        "BACKEND/PATTERN such as files/read_*, or */read_*",
        longest=1_000,
    ),
    most=1_000,
)
_TOOLS: Final = Each(Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "the name of a tool, or a pattern", longest=200), most=1_000)
_PROSE: Final = Text(r"[^\x00\ud800-\udfff]*", "a text", longest=16_384)


@attrs.frozen(kw_only=True)
class ServerSettings:
    """`[[servers]]`: a virtual server, which has a part of what the backends have, at /mcp/servers/NAME.

    include:      what it has, as BACKEND/PATTERN: the pattern is held against the names of tools and prompts and the URIs of
                  resources as the backend itself has them; "*" stands for any text, and for any backend.
    exclude:      what it has not, whatever is included.
    instructions: what clients are told instead of the backends' own instructions; "" tells them those.
    """

    name: str = attrs.field(validator=NAME)
    include: tuple[str, ...] = attrs.field(converter=as_tuple, validator=_PARTS)
    exclude: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_PARTS)
    instructions: str = attrs.field(default="", validator=_PROSE)


@attrs.frozen(kw_only=True)
class SearchSettings:
    """`[search]`: what clients read instead of a list of tools that is too long for a model.

    above:  of lists with more tools than this `search_tools` and `call_tool` are shown in their stead; 0 shows every list.
    pinned: patterns of tools, as lists show them, that stay in the list.
    """

    above: int = attrs.field(default=0, validator=Whole(0, 100_000))
    pinned: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=_TOOLS)


def server_list_problems(
    servers: Sequence[Mapping[str, Any]], backend_names: Collection[str], where: str = "servers"
) -> Iterator[SettingProblem]:
    """Check that each virtual server has an address of its own."""
    owners: dict[str, int] = {}
    for index, server in enumerate(servers):
        name = server.get("name")
        if name is None:
            continue
        if name in backend_names:
            yield SettingProblem(key=f"{where}[{index}].name", found=quote(name), allowed="a name that no backend has")
        if owners.setdefault(name, index) != index:
            allowed = f"a name of its own ({where}[{owners[name]}] has it)"
            yield SettingProblem(key=f"{where}[{index}].name", found=quote(name), allowed=allowed)


def unknown_parts(
    servers: Sequence[Mapping[str, Any]], backend_names: Collection[str], where: str = "servers"
) -> Iterator[SettingProblem]:
    """What a file includes or excludes of backends that it does not have: most often a slip."""
    known = ", ".join(sorted(backend_names)[:10]) or "none is configured"
    for index, server in enumerate(servers):
        for key in ("include", "exclude"):
            for place, part in enumerate(server.get(key, ())):
                backend = part.partition("/")[0]
                if backend not in backend_names and backend != "*":
                    allowed = f"the name of a backend before the slash: {known}"
                    yield SettingProblem(key=f"{where}[{index}].{key}[{place}]", found=quote(part), allowed=allowed)
