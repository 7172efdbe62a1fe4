"""The files in which people write down their servers for other programs: their names, and where in them servers stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from .desktop_entry import COMMAND_KEYS, URL_KEYS, Surroundings, WrittenServer, read_entry
from .desktop_values import canonical, is_comment, is_word, word_of
from .setting_rules import name_part

KNOWN_FILES: Final = (
    ".mcp.json",
    "mcp.json",
    ".vscode/mcp.json",
    ".cursor/mcp.json",
    ".roo/mcp.json",
    ".kilocode/mcp.json",
    ".windsurf/mcp.json",
    ".gemini/settings.json",
    ".zed/settings.json",
    ".amazonq/mcp.json",
    ".continue/mcpServers/mcp.json",
    "opencode.json",
    "opencode.jsonc",
    "claude_desktop_config.json",
    "cline_mcp_settings.json",
    "mcp_settings.json",
    "mcp_config.json",
    "mcp-config.json",
)
"""What such a file is called, as seen from the folder of a project or of a program."""

SERVER_KEYS: Final = "mcpServers, servers, mcp.servers, mcp, context_servers, mcp_servers"
"""Under which keys servers are looked for, for people to read."""

_TOOL_FOLDERS: Final = frozenset(name.partition("/")[0] for name in KNOWN_FILES if "/" in name) | {".claude", ".claude-plugin"}
_TABLES: Final = ("mcpservers", "servers", "contextservers", "modelcontextprotocolservers")
_OUTER_TABLES: Final = ("mcp", "settings", "experimental")  # one of the tables above may stand in there


@attrs.frozen
class _Entries:
    where: str
    named: tuple[tuple[str, str, Any], ...]  # (where, name, entry)
    inputs: Any = None


def project_folder(file: str) -> str:
    """The folder that a file speaks of: its own, or the one above where that belongs to a program (`.vscode/mcp.json`)."""
    folder, _, _ = file.rpartition("/")
    above, _, name = folder.rpartition("/")
    return (above if name in _TOOL_FOLDERS else folder) or "/"


def written_servers(document: Any, surroundings: Surroundings) -> tuple[WrittenServer, ...] | None:
    """The servers of a file, those that are switched off left out; None where none can be found."""
    entries = _find(document)
    if entries is None:
        return None
    inputs = _input_defaults(entries.inputs)
    found = (read_entry(where, name, entry, inputs, surroundings) for where, name, entry in entries.named)
    return tuple(server for server in found if server is not None)


def _find(document: Any) -> _Entries | None:
    if isinstance(document, list):
        return _entries("", document, None)
    if not isinstance(document, dict):
        return None
    found = [*_tables(document, "", None), *_outer_tables(document)]
    if not found:
        named = {name: entry for name, entry in document.items() if _looks_like_server(entry) and not is_comment(name)}
        if named:
            return _entries("", named, None)
        return _entries("", [document], None) if _looks_like_server(document) else None
    return next((each for each in found if each.named), found[0])


def _tables(document: Mapping[str, Any], where: str, inputs: Any) -> Iterator[_Entries]:
    """Servers under one of the known keys, in the order of those; `amp.mcpServers` is one of them, too."""
    for wanted in _TABLES:
        for key, value in document.items():
            if canonical(key.rpartition(".")[2]) == wanted and isinstance(value, dict | list):
                yield _entries(".".join(part for part in (where, key) if part), value, document.get("inputs", inputs))


def _outer_tables(document: Mapping[str, Any]) -> Iterator[_Entries]:
    for key, value in document.items():
        if not isinstance(value, dict) or canonical(key) not in _OUTER_TABLES:
            continue
        inner = [*_tables(value, key, document.get("inputs")), *_outer_tables(value)]
        yield from inner
        if not inner and canonical(key) == "mcp":
            yield _entries(key, value, None)


def _entries(where: str, servers: Any, inputs: Any) -> _Entries:
    named: list[tuple[str, str, Any]] = []
    if isinstance(servers, dict):
        for name, entry in servers.items():
            if not is_comment(name):
                named.append((f"{where}.{name_part(name)}" if where else name_part(name), name, entry))
    else:
        for index, element in enumerate(servers):
            name, entry = _named(element)
            named.append((f"{where}[{index}]", name or f"server {index + 1}", entry))
    return _Entries(where, tuple(named), inputs)


def _named(element: Any) -> tuple[str, Any]:
    """(name or "", entry) of one element of a list: `{name, ...}`, or a table of that one server."""
    if not isinstance(element, dict):
        return "", element
    if names := [element[key] for key in ("name", "id", "title") if is_word(element.get(key))]:
        return word_of(names[0]), element
    if len(element) == 1 and not _looks_like_server(element):
        ((name, entry),) = element.items()
        if _looks_like_server(entry):
            return name, entry
    return "", element


def _looks_like_server(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    keys = {canonical(key) for key in entry}
    return not keys.isdisjoint((*COMMAND_KEYS, *URL_KEYS)) or ("transport" in keys and isinstance(entry.get("transport"), dict))


def _input_defaults(inputs: Any) -> dict[str, str]:
    """{id: default} of those that have one."""
    if not isinstance(inputs, list):
        return {}
    tables = [each for each in inputs if isinstance(each, dict) and is_word(each.get("id")) and is_word(each.get("default"))]
    return {word_of(each["id"]): word_of(each["default"]) for each in tables}
