"""Reads the servers that people have written down for other programs, and says which of them are left out and why."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from .backend_settings import BackendSettings, LeftOutServer
from .desktop_entry import Surroundings, WrittenServer
from .desktop_files import KNOWN_FILES, SERVER_KEYS, project_folder, written_servers
from .json_text import NotJson, read_json
from .loader import ConfigError, ConfigProblem, backend_from_mapping, beside_file, read_bytes, unreadable
from .names import served_names
from .setting_rules import SettingProblem, quote
from .settings import GatewaySettings
from .shown_text import shown

_LONGEST_TITLE = 300
_ENDINGS = (".json", ".jsonc", ".json5", ".code-workspace")


@attrs.frozen(kw_only=True)
class DesktopServers:
    """What the files amount to. problems: of the servers that are left out, all of them; warnings: one line each."""

    backends: tuple[BackendSettings, ...]
    left_out: tuple[LeftOutServer, ...]
    problems: tuple[ConfigProblem, ...]
    warnings: tuple[str, ...]


@attrs.frozen
class _Found:
    file: str
    server: WrittenServer


def is_desktop_file(path: str) -> bool:
    """Whether a path leads to such a file rather than to one of the gateway's own, which are TOML."""
    return path.lower().endswith(_ENDINGS) or os.path.isdir(path)


def load_desktop_files(
    paths: Sequence[str | os.PathLike[str]],
    gateway: GatewaySettings | None = None,
    taken: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
) -> DesktopServers:
    """Read the servers of files and of folders, in which the files of known names are read.

    taken:       names that others have. environment: for variables; that of this process if not given.
    Raises: ConfigError for a file that cannot be read, or in which no servers can be found.
    """
    environment = os.environ if environment is None else environment
    found: list[_Found] = []
    warnings: list[str] = []
    for path in (os.path.expanduser(os.fspath(path)) for path in paths):
        for file in _files(path):
            servers, more = _read_file(file, environment, must_have_servers=file == path)
            found += (_Found(file, server) for server in servers)
            warnings += more
    names = served_names([each.server.name for each in found], taken)
    backends: list[BackendSettings] = []
    left_out: list[LeftOutServer] = []
    problems: list[ConfigProblem] = []
    for each, name in zip(found, names, strict=True):
        warnings += (f"{shown(each.file)}: {warning}" for warning in each.server.warnings)
        title = _title(each.server.name)
        try:
            backends.append(_backend(each, name, title, gateway or GatewaySettings()))
        except ConfigError as error:
            problems += error.problems
            left_out.append(LeftOutServer(name=name, title=title, reason="; ".join(map(str, error.problems))))
    return DesktopServers(backends=tuple(backends), left_out=tuple(left_out), problems=tuple(problems), warnings=tuple(warnings))


def _files(path: str) -> list[str]:
    """The files that a path names. Raises ConfigError where a folder has none."""
    if not os.path.isdir(path):
        return [path]
    known = [os.path.join(path, name) for name in KNOWN_FILES if os.path.isfile(os.path.join(path, name))]
    if not known:
        raise unreadable(path, "a folder without any of the known files", ", ".join(KNOWN_FILES))
    return known


def _read_file(
    file: str, environment: Mapping[str, str], *, must_have_servers: bool
) -> tuple[tuple[WrittenServer, ...], list[str]]:
    """(its servers, warnings)."""
    try:
        document = read_json(read_bytes(file))
    except NotJson as error:
        allowed = f"{error.allowed} with servers under one of {SERVER_KEYS}"
        problem = ConfigProblem(file=file, key="", found=error.found, allowed=allowed, line=error.line, column=error.column)
        raise ConfigError([problem]) from None
    surroundings = Surroundings(
        folder=project_folder(os.path.abspath(file)),
        environment=environment,
        home=os.path.expanduser("~"),
        is_file=os.path.isfile,
        read_lines=_lines,
    )
    servers = written_servers(document.value, surroundings)
    warnings = [f"{shown(file)}: the key {quote(key)} stands twice in one table; the last one counts" for key in document.twice]
    if servers is None:
        if must_have_servers:
            raise unreadable(file, "no servers", f"servers under one of {SERVER_KEYS}, or a table of servers itself")
        return (), warnings
    return servers, warnings


def _backend(found: _Found, name: str, title: str, gateway: GatewaySettings) -> BackendSettings:
    """Raises ConfigError with all that is wrong with this server, in the words of its file."""
    server = found.server
    wrong: Sequence[SettingProblem | ConfigProblem] = server.problems
    if not wrong:
        table: dict[str, Any] = {"name": name, "title": "" if title == name else title, **server.table}
        try:
            return beside_file(backend_from_mapping(table, found.file, gateway), project_folder(os.path.abspath(found.file)))
        except ConfigError as error:
            wrong = error.problems
    raise ConfigError(
        ConfigProblem(
            file=found.file,
            key=".".join(part for part in (server.where, _key_in_file(each.key)) if part),
            found=each.found,
            allowed=each.allowed.replace("replicas", "url"),
        )
        for each in wrong
    )


def _key_in_file(key: str) -> str:
    """What stands under `command` and `replicas` of a backend is spelled otherwise in such a file."""
    key = re.sub(r"^command\[([0-9]+)\]$", lambda match: f"args[{int(match[1]) - 1}]" if match[1] != "0" else "command", key)
    return re.sub(r"^replicas(\[0\])?$", "url", key)


def _lines(path: str) -> list[str] | None:
    try:
        return read_bytes(path).decode("utf-8-sig").splitlines()
    except (ConfigError, UnicodeDecodeError):
        return None


def _title(name: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in name).strip()
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 1]}…"
