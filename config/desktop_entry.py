"""One server as another program's file has it, in the words of `[[backends]]`. Pure.

Sources: the settings of Claude Desktop and Code, Cursor, VS Code, Cline, Roo, Windsurf, Zed, Continue, Gemini, Copilot and
opencode. They agree on little but the names of a few keys.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from .backend_settings import RESERVED_HEADERS
from .desktop_values import canonical, is_comment, is_false, is_true, is_word, word_of
from .placeholders import Variables, expand
from .setting_rules import SettingProblem, kind_of, name_part, quote

URL_KEYS: Final = ("url", "serverurl", "httpurl", "sseurl", "uri", "endpoint", "endpointurl")
COMMAND_KEYS: Final = ("command", "cmd")
_ENV_KEYS: Final = ("env", "environment", "envs", "envvars", "environmentvariables")
_CWD_KEYS: Final = ("cwd", "workingdirectory", "workdir")
_HEADER_KEYS: Final = ("headers", "httpheaders")
_ALLOW_KEYS: Final = ("enabledtools", "includetools", "allowedtools")
_DENY_KEYS: Final = ("disabledtools", "excludetools", "excludedtools", "deniedtools")
_KIND_KEYS: Final = ("type", "transport", "transporttype")
_KINDS: Final = {
    **dict.fromkeys(("stdio", "local", "command", "process"), "stdio"),
    **dict.fromkeys(("http", "https", "streamablehttp", "streamable", "httpstream", "httpstreamable", "httpstreaming"), "http"),
    **dict.fromkeys(("sse", "httpsse", "httpwithsse", "legacysse"), "sse"),
    **dict.fromkeys(("ws", "wss", "websocket", "websockets"), "ws"),
    **dict.fromkeys(("remote", "url", "auto"), "auto"),
}
_ALLOWED_KINDS: Final = "one of stdio, http, streamable-http, sse, ws"
_OFF_KEYS: Final = {"disabled": True, "enabled": False, "isactive": False, "active": False}
# Of no account here: what only the program that owns the file does or shows.
_PASSED_OVER: Final = frozenset(
    (
        *("name", "id", "title", "description", "icon", "icons", "iconurl", "version", "author", "homepage", "repository"),
        *("category", "tags", "note", "notes", "comment", "comments", "gallery", "source", "settings", "timeout", "inittimeout"),
        *("startuptimeout", "autoapprove", "alwaysallow", "autoallow", "trust", "watchpaths", "restart", "dev", "capabilities"),
        *("inputs", "readme", "installed", "scope"),
    )
)
_READ: Final = frozenset(
    (
        *(*URL_KEYS, *COMMAND_KEYS, *_ENV_KEYS, *_CWD_KEYS, *_HEADER_KEYS, *_KIND_KEYS, *_OFF_KEYS),
        *(*_ALLOW_KEYS, *_DENY_KEYS, "tools", "args", "arguments", "envfile", "requestoptions", "requestinit"),
    )
)
_SPELLINGS: Final = ("command", "args", "env", "cwd", "url", "type", "headers", "disabled", "enabled", "envFile", "transport")
_SHELLS: Final = frozenset({"sh", "bash", "zsh", "dash", "fish", "ksh"})
_WINDOWS_PROGRAMS: Final = frozenset({"cmd", "powershell", "wsl"})
_WINDOWS_PATH: Final = re.compile(r"(?:^|(?<=[=\s\"',;]))[A-Za-z]:[\\/](?!/)|^\\\\[\w.$-]+\\")
_WINDOWS_VARIABLE: Final = re.compile(r"%[A-Za-z][A-Za-z0-9_()]{2,}%")
_TO_FILL_IN: Final = re.compile(r"<[A-Za-z](?:[A-Za-z0-9 _.:|-]{0,60}[A-Za-z0-9])>")
_HAS_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@attrs.frozen(kw_only=True)
class Surroundings:
    """What of the machine a file may refer to.

    folder:      of the project that the file speaks of, absolute.
    environment: the gateway's own.
    is_file:     whether a path is a file.
    read_lines:  the lines of an `envFile`, None where it cannot be read.
    """

    folder: str
    environment: Mapping[str, str] = attrs.field(repr=False)
    home: str
    is_file: Callable[[str], bool]
    read_lines: Callable[[str], Sequence[str] | None]


@attrs.frozen(kw_only=True)
class WrittenServer:
    """One server of a file.

    name:     as written.
    where:    "mcpServers.files": how problems call it.
    table:    what it amounts to, a `[[backends]]` table without name; nothing where there are problems.
    problems: why it cannot be understood; `key` is that of its entry.
    warnings: what of it was passed over, one line each.
    """

    name: str
    where: str
    table: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    problems: tuple[SettingProblem, ...] = ()
    warnings: tuple[str, ...] = ()


def read_entry(where: str, name: str, entry: Any, inputs: Mapping[str, str], surroundings: Surroundings) -> WrittenServer | None:
    if entry is None or entry is False or entry == "":
        return None
    if isinstance(entry, str):
        entry = {"url" if _HAS_SCHEME.match(entry) else "command": entry}
    elif isinstance(entry, list):
        entry = {"command": entry}
    if not isinstance(entry, dict):
        problem = SettingProblem(key="", found=kind_of(entry), allowed="a table")
        return WrittenServer(name=name, where=where, problems=(problem,))
    reader = _Reader(entry, inputs, surroundings)
    if reader.is_off():
        return None
    table = reader.table()
    return WrittenServer(
        name=name,
        where=where,
        table={} if reader.problems else table,
        problems=tuple(reader.problems),
        warnings=tuple(f"{where}: {warning}" for warning in reader.warnings),
    )


class _Reader:
    """Reads one entry into a table, and collects what is wrong with it and what is passed over."""

    def __init__(self, entry: Mapping[str, Any], inputs: Mapping[str, str], surroundings: Surroundings) -> None:
        self.problems: list[SettingProblem] = []
        self.warnings: list[str] = []
        self._surroundings = surroundings
        self._variables = Variables(
            environment=surroundings.environment, inputs=inputs, folder=surroundings.folder, home=surroundings.home
        )
        self._is_off = is_true(entry.get("_disabled"))
        self._fields: dict[str, tuple[str, Any]] = {}  # {canonical key: (as written, value)}
        self._take(entry)

    def _take(self, entry: Mapping[str, Any], where: str = "") -> None:
        """A table under `transport` says what may stand in the entry itself; an older form of Continue."""
        for key, value in entry.items():
            if value is None or value == "" or is_comment(key):
                continue
            plain = canonical(key)
            if plain == "transport" and isinstance(value, dict):
                self._take(value, f"{where}{key}.")
            else:
                self._fields[plain] = (where + key, value)

    def is_off(self) -> bool:
        said = ((self._fields[key][1], is_off) for key, is_off in _OFF_KEYS.items() if key in self._fields)
        return self._is_off or any(is_true(value) if is_off else is_false(value) for value, is_off in said)

    def table(self) -> dict[str, Any]:
        """A `[[backends]]` table without a name."""
        self._name_strangers()
        key, url, kind = self._transport()
        if kind is None:
            return {}
        if kind == "stdio":
            table = self._program()
            self._pass_over(_HEADER_KEYS, "a program that is started has no headers")
        else:
            table = self._address(key, url, kind)
            self._pass_over((*_ENV_KEYS, *_CWD_KEYS, "envfile"), "a server that others run has no environment of ours")
        tools = self._tools()
        return table | ({"tools": tools} if tools else {})

    def _tools(self) -> dict[str, list[str]]:
        """Which of its tools are served. A table of tools that only describes them chooses none."""
        allow, deny = self._tool_names(_ALLOW_KEYS), self._tool_names(_DENY_KEYS)
        key, tools = self._first(("tools",)) or ("tools", None)
        if isinstance(tools, dict):
            for name, said in tools.items():
                where, plain = f"{key}.{name_part(name)}", canonical(name)
                if isinstance(said, list) and plain in ("allow", "allowed", "include", "included", "enabled"):
                    allow += (word for _, word in self._words(where, said))
                elif isinstance(said, list) and plain in ("deny", "denied", "exclude", "excluded", "disabled"):
                    deny += (word for _, word in self._words(where, said))
                elif is_false(said) or (
                    isinstance(said, dict) and (is_false(said.get("enabled")) or is_true(said.get("disabled")))
                ):
                    deny.append(name)
        else:
            allow += self._tool_names(("tools",))
        chosen = {"allow": [] if "*" in allow else allow, "deny": deny}
        return {name: list(dict.fromkeys(names)) for name, names in chosen.items() if names}

    def _tool_names(self, keys: Sequence[str]) -> list[str]:
        """Of one name, or of a list of them or of `{name}`."""
        key, value = self._first(keys) or ("", [])
        if isinstance(value, list):
            value = [each.get("name") if isinstance(each, dict) else each for each in value]
        elif isinstance(value, str):
            value = [value]
        return [word for _, word in self._words(key, value)]

    # ---- which kind of server

    def _transport(self) -> tuple[str, Any, str | None]:
        """(key of the URL, URL, kind); the kind is None where it cannot be told."""
        key, url = self._first(URL_KEYS) or ("url", None)
        command = self._first(COMMAND_KEYS)
        said_key, said, kind = self._kind()
        if url is None and command is None:
            if self._fields.get("source", ("", ""))[1] == "extension" or set(self._fields) == {"settings"}:
                self._wrong("", "an extension of Zed, which brings its own program", "command, or url, of the server itself")
            else:
                self._wrong("", "neither of them", "either command or url")
            return key, url, None
        if url is not None and command is not None:
            if kind is None:
                self._wrong("", "command and url", "either command or url, or a type that tells which of them counts")
                return key, url, None
            return key, url, kind
        if command is not None:
            if said is not None and kind != "stdio":
                self.warnings.append(f"{said_key} says {quote(said)}; as it has a command it is started and spoken to over stdio")
            return key, url, "stdio"
        if said is not None and kind is None:
            self._wrong(said_key, quote(said), _ALLOWED_KINDS)
            return key, url, None
        return key, url, "auto" if kind in (None, "stdio") else kind

    def _kind(self) -> tuple[str, Any, str | None]:
        """(key, as written, what that means), of the key that says most where there are several."""
        said = [self._fields[key] for key in _KIND_KEYS if key in self._fields]
        kinds = [(key, value, _KINDS.get(canonical(value)) if isinstance(value, str) else None) for key, value in said]
        kinds.sort(key=lambda each: each[2] in (None, "auto"))
        return kinds[0] if kinds else ("type", None, None)

    # ---- a server that is reached by URL

    def _address(self, key: str, url: Any, kind: str) -> dict[str, Any]:
        if not isinstance(url, str):
            self._wrong(key, kind_of(url), "a URL")
            return {}
        url = self._text(key, url.strip(), _TO_FILL_IN)
        scheme = _HAS_SCHEME.match(url)
        if scheme is None:
            self._wrong(key, "an address without a scheme" if url.strip() else "nothing", "a URL such as https://example.com/mcp")
            return {}
        plain, rest = scheme[1].lower(), url[scheme.end(1) :].partition("#")[0]
        is_web, is_secure = plain in ("http", "https"), plain.endswith("s")
        if is_web and (kind == "sse" or (kind == "auto" and canonical(key) == "sseurl")):
            plain = f"sse+{plain}"
        elif is_web and kind == "ws":
            plain = "wss" if is_secure else "ws"
        elif is_web and kind == "auto":
            plain = f"auto+{plain}"
        headers = self._headers()
        return {"replicas": [plain + rest], **({"headers": headers} if headers else {})}

    def _headers(self) -> dict[str, str]:
        headers: dict[str, tuple[str, str]] = {}  # {lower case: (as written, value)}
        reserved: list[str] = []
        for name, value in self._pairs(_HEADER_KEYS, ":"):
            if name.lower() in RESERVED_HEADERS:
                reserved.append(name)
            else:
                headers[name.lower()] = (name, value.strip())
        if reserved:
            self.warnings.append(f"headers that the gateway sets itself: {_names(reserved)}")
        return dict(headers.values())

    # ---- a program

    def _program(self) -> dict[str, Any]:
        env = dict(self._env_file()) | dict(self._pairs(_ENV_KEYS, "="))
        self._variables = attrs.evolve(self._variables, own=env)
        words = self._command()
        cwd = self._first(_CWD_KEYS)
        table: dict[str, Any] = {"command": words}
        if env:
            table["env"] = env
        if cwd is not None:
            key, folder = cwd
            if isinstance(folder, str):
                table["cwd"] = self._path(self._text(key, folder, _WINDOWS_PATH, _WINDOWS_VARIABLE, _TO_FILL_IN))
            else:
                self._wrong(key, kind_of(folder), "a path")
        return table

    def _command(self) -> list[str]:
        key, command = self._first(COMMAND_KEYS) or ("command", None)
        if isinstance(command, dict):  # an older form of Zed
            inner = {canonical(name): value for name, value in command.items()}
            for name, known in (("args", "args"), ("arguments", "args"), ("env", "env")):
                if inner.get(name) not in (None, ""):
                    self._fields.setdefault(known, (f"{key}.{name}", inner[name]))
            key, command = f"{key}.path", inner.get("path") or inner.get("command")
        arguments_key, arguments = self._first(("args", "arguments")) or ("args", [])
        more = self._words(arguments_key, arguments)
        if isinstance(command, str):
            first = self._words(key, command) if self._is_line(command, bool(more)) else [(key, command.strip())]
        else:
            first = self._words(key, command)
        if not first:
            self._wrong(key, kind_of(command), "the name or path of a program")
            return []
        words = [*first, *more]
        program = self._program_name(*first[0], words)
        is_script = program in _SHELLS
        return [
            self._path(self._text(where, word, _WINDOWS_PATH, _WINDOWS_VARIABLE, _TO_FILL_IN, is_script=is_script and index > 0))
            for index, (where, word) in enumerate(words)
        ]

    def _is_line(self, command: str, has_arguments: bool) -> bool:
        """Whether a command is a program with its arguments; a path may have spaces, too."""
        if not re.search(r"\s", command.strip()) or _WINDOWS_PATH.match(command):
            return False
        if not command.startswith(("/", "~")):
            return True
        is_file = self._surroundings.is_file
        return not is_file(self._path(command)) and (not has_arguments or is_file(self._path(command.split()[0])))

    def _program_name(self, key: str, word: str, words: Sequence[tuple[str, str]]) -> str:
        name = re.split(r"[/\\]", word)[-1].lower()
        plain, _, ending = name.rpartition(".")
        if ending in ("exe", "cmd", "bat") and plain:
            if plain not in _WINDOWS_PROGRAMS:
                self._wrong(key, f"{quote(word)}, a program of Windows", f"the program as it is called here, such as {plain}")
                return plain
        else:
            plain = name
        if plain in _WINDOWS_PROGRAMS:
            inner = [each for _, each in words[1:] if not re.fullmatch(r"[/-][A-Za-z]+", each)]
            itself = f": {quote(inner[0])}" if inner else ""
            self._wrong(key, f"{quote(word)}, a program of Windows", f"the program itself, without it{itself}")
        return plain

    def _words(self, key: str, value: Any) -> list[tuple[str, str]]:
        """(key, word) of arguments in any form, as written; nulls and empty strings are as if not there."""
        if isinstance(value, str):
            try:
                return [(key, word) for word in shlex.split(value)]
            except ValueError as error:
                self._wrong(key, f"a command line that cannot be taken apart ({str(error).lower()})", "an array of strings")
                return []
        if not isinstance(value, list):
            if is_word(value):
                return [(key, word_of(value))]
            self._wrong(key, kind_of(value), "an array of strings")
            return []
        words = []
        for index, each in enumerate(value):
            if is_word(each):
                words.append((f"{key}[{index}]", word_of(each)))
            elif each is not None and each != "":
                self._wrong(f"{key}[{index}]", kind_of(each), "a string")
        return words

    def _env_file(self) -> Iterator[tuple[str, str]]:
        """Source: VS Code, `envFile`; lines NAME=VALUE, `export` before and quotes around the value as shells have them."""
        key, path = self._first(("envfile",)) or ("", None)
        if not isinstance(path, str):
            return
        path = self._path(self._text(key, path, _WINDOWS_PATH, _TO_FILL_IN))
        lines = self._surroundings.read_lines(path if path.startswith("/") else f"{self._surroundings.folder}/{path}")
        if lines is None:
            self.warnings.append(f"{key}: a file that cannot be read was passed over")
        for line in lines or ():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            name, value = name.strip(), value.strip()
            if equals and name and not name.startswith("#"):
                is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
                yield name, value[1:-1] if is_quoted else re.split(r"\s#", value)[0].rstrip()

    # ---- what both use

    def _first(self, keys: Sequence[str]) -> tuple[str, Any] | None:
        return next((self._fields[key] for key in keys if key in self._fields), None)

    def _wrong(self, key: str, found: str, allowed: str) -> None:
        self.problems.append(SettingProblem(key=key, found=found, allowed=allowed))

    def _text(self, key: str, text: str, *unwanted: re.Pattern[str], is_script: bool = False) -> str:
        """The text with its variables put in; what is meant for another system, or for the reader to fill in, is a problem."""
        expanded = expand(text, self._variables, is_script=is_script)
        for reference, remedy in expanded.missing:
            self._wrong(key, f"{_shown(reference)}, which has no value", remedy)
        for pattern in unwanted:
            if (found := pattern.search(expanded.text)) is None:
                continue
            if pattern is _TO_FILL_IN:
                self._wrong(key, f"{_shown(found[0])}, which is to be filled in", "your own value in its place")
            elif pattern is _WINDOWS_PATH:
                self._wrong(key, "a path of Windows", "a path of this machine, such as /home/me/server")
            else:
                self._wrong(key, f"{_shown(found[0])}, a variable of Windows", f"${{{found[0].strip('%')}}}, or the value itself")
        return expanded.text

    def _path(self, text: str) -> str:
        """A `~` at the beginning is the home of the user, also in an argument: nobody else would put it in."""
        return self._surroundings.home + text[1:] if text == "~" or text.startswith("~/") else text

    def _pairs(self, keys: Sequence[str], separator: str) -> Iterator[tuple[str, str]]:
        """Names and values of a table, of a list of `NAME=value`, or of one of `{name, value}`."""
        key: str
        key, value = self._first(keys) or ("", None)
        if keys is _HEADER_KEYS and value is None:
            for outer in ("requestoptions", "requestinit"):
                written, options = self._fields.get(outer, ("", None))
                if isinstance(options, dict) and options.get("headers"):
                    key, value = f"{written}.headers", options["headers"]
        if value is None:
            return
        if isinstance(value, dict):
            pairs = [(f"{key}.{name_part(name)}", name, each) for name, each in value.items()]
        elif isinstance(value, list):
            pairs = [pair for index, each in enumerate(value) if (pair := self._pair(f"{key}[{index}]", each, separator))]
        else:
            self._wrong(key, kind_of(value), "a table of strings")
            return
        for where, name, each in pairs:
            if each is None or each == "" or name.startswith("//"):
                continue
            if is_word(each):
                yield name, self._text(where, word_of(each), _TO_FILL_IN)
            else:
                self._wrong(where, kind_of(each), "a string")

    def _pair(self, where: str, each: Any, separator: str) -> tuple[str, str, Any] | None:
        if isinstance(each, str):
            name, found, value = each.partition(separator)
            if found and name.strip():
                return where, name.strip(), value.strip()
        if isinstance(each, dict) and (names := [each[key] for key in ("name", "key") if is_word(each.get(key))]):
            return where, word_of(names[0]), each.get("value")
        if each is not None and each != "":
            self._wrong(where, kind_of(each), f"a string NAME{separator}value")
        return None

    def _pass_over(self, keys: Sequence[str], why: str) -> None:
        written = [self._fields[key][0] for key in keys if key in self._fields and self._fields[key][1] not in ({}, [])]
        if written:
            self.warnings.append(f"{_names(written)}: passed over, {why}")

    def _name_strangers(self) -> None:
        strangers = [written for key, (written, _) in self._fields.items() if key not in _READ and key not in _PASSED_OVER]
        if not strangers:
            return
        import difflib  # only when there is something to say

        hints = [
            name_part(key) + _hint(difflib.get_close_matches(key[:100].lower(), _SPELLINGS, n=1, cutoff=0.75))
            for key in strangers
        ]
        more = f" and {len(hints) - 20} more" if len(hints) > 20 else ""
        self.warnings.append(f"unknown keys, passed over: {', '.join(hints[:20])}{more}")


def _hint(near: Sequence[str]) -> str:
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(reference: str) -> str:
    return reference if len(reference) <= 80 and reference.isprintable() else quote(reference)


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(name_part, names[:20]))
