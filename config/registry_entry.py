"""A server as the MCP registry describes it in its `server.json`, in the words of `[[backends]]`. Pure.

What the description asks a person for comes from environment variables: a variable of a server by its own name, a header or an
argument by its name in capitals.
Source: modelcontextprotocol/registry, docs/reference/server-json, schemas 2025-07-09 (snake_case) to 2025-12-11.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from .names import served_names

KINDS: Final = ("remote", "npm", "pypi", "oci")
"""What can be served of a description, in the order in which it is chosen: what others run before what is run here."""

_RUNNERS: Final = {"npm": ("npx", "bunx"), "pypi": ("uvx",), "oci": ("docker", "podman")}
"""{registry: programs that may run its packages, the usual one first}. A hint that names another is not followed."""
_REGISTRIES: Final = {"npm": "npmjs.org", "pypi": "pypi.org", "oci": "docker.io"}
"""{registry: its domain}: where the programs look that fetch from it; its host may have `registry` or `index` before that."""
_IDENTIFIERS: Final = {
    "npm": re.compile(r"(?:@[A-Za-z0-9~][A-Za-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*"),
    "pypi": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    "oci": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*(?:@sha256:[0-9a-f]{64})?"),
}
_FLAGS: Final = {
    "npm": frozenset({"-y", "--yes", "-q", "--quiet", "--bun"}),
    "pypi": frozenset({"-q", "--quiet", "--isolated", "--no-progress"}),
    "oci": frozenset({"-i", "--interactive", "--rm", "--init", "--read-only"}),
}
_OPTIONS: Final = {
    "npm": frozenset[str](),
    "pypi": frozenset({"-p", "--python"}),
    "oci": frozenset(
        {
            *(
                "-e",
                "--env",
                "-v",
                "--volume",
                "--mount",
                "--tmpfs",
                "--network",
                "--add-host",
                "-p",
                "--publish",
                "-u",
                "--user",
            ),
            *("-w", "--workdir", "-m", "--memory", "--cpus", "--platform", "--pull", "--name", "-l", "--label"),
        }
    ),
}
"""{registry: what a description may tell its runner, alone and with a value}. Others could have it fetch something else from
somewhere else (`--registry`, `--index-url`, `--from`), or take a container's walls away (`--privileged`, `--cap-add`)."""
_NETWORK: Final = re.compile(r"(?!host$)[A-Za-z0-9][A-Za-z0-9_.-]*")
"""One of its own: whoever shares that of the machine is at its loopback, as who works on it is."""
_OF_THE_RUNNER: Final = re.compile(
    r"(?:(?:NPM|UV|PIP|BUN|DOCKER|CONTAINERS?|PODMAN|LD|DYLD|PYTHON)_.*|PYTHONPATH|PYTHONHOME|NODE_OPTIONS|PATH|HOME|BASH_ENV)",
    re.IGNORECASE,
)
"""Environment variables that would do the same."""
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_!-]*")
_VARIABLE: Final = re.compile(r"\{([^{}]+)\}")
_REMOTES: Final = {"streamable-http": "", "sse": "sse+"}
_MOST_INPUTS: Final = 200
_LONGEST: Final = 200


class RegistryRefused(Exception):
    """The description cannot be served; the text says why, and what would help, a line for each thing."""


@attrs.frozen
class RegistryServer:
    """table: as `[[backends]]` has it. kind: what was chosen of it. notes: what whoever adds it should know.

    taken: names of the variables of the environment whose values the server gets.
    """

    table: Mapping[str, Any] = attrs.field(repr=False)
    kind: str
    notes: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


def registry_server(document: Any, environment: Mapping[str, str], *, name: str = "", kind: str = "") -> RegistryServer:
    """The backend that a description amounts to.

    name: under which it is served; made of its own if not given. kind: one of `KINDS`; the first that there is if not given.

    Raises: RegistryRefused
    """
    server = _table(_get(_table(document, "the file"), "server") or document, "server")  # the registry's API wraps it
    written = _text(server, "name", "server")
    offers = list(_offers(server))
    chosen = next((offer for each in ((kind,) if kind else KINDS) for offer in offers if offer[0] == each), None)
    if chosen is None:
        found = ", ".join(sorted({each for each, _ in offers})) or "nothing"
        wanted = kind or "a remote over streamable-http or sse, or an npm, pypi or oci package"
        raise RegistryRefused(f"{_short(written)}: {wanted} is wanted, and it has {found}")
    inputs = _Inputs(environment)
    made = _remote(chosen[1], inputs) if chosen[0] == "remote" else _package(chosen[0], chosen[1], inputs)
    if inputs.missing:
        raise RegistryRefused("\n".join(f"{_short(written)} needs {each}" for each in inputs.missing))
    title = _get(server, "title")
    table = {"name": name or served_names([written.rpartition("/")[2]])[0], **made}
    if isinstance(title, str) and 0 < len(title) <= _LONGEST and title.isprintable():
        table["title"] = title
    return RegistryServer(table, chosen[0], tuple(inputs.notes), tuple(inputs.taken))


def _offers(server: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(kind, table) of each way to have it."""
    for remote in _tables(server, "remotes"):
        if (_get(remote, "type") or _get(remote, "transportType")) in tuple(_REMOTES):
            yield "remote", remote
    for package in _tables(server, "packages"):
        registry, transport = _get(package, "registryType"), _get(package, "transport")
        is_stdio = transport is None or (isinstance(transport, Mapping) and transport.get("type") == "stdio")
        yield f"{_short(str(registry))}{'' if is_stdio else ' over HTTP'}", package


class _Inputs:
    """Finds values for what a description asks for. missing, notes: in words. taken: names of variables of the environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._count = 0
        self.missing: list[str] = []
        self.notes: list[str] = []
        self.taken: list[str] = []

    def value(self, asked: Mapping[str, Any], variable: str) -> str | None:
        """None where it is left out. variable: of the environment, where a person's own value may be."""
        self._count += 1
        if self._count > _MOST_INPUTS:
            raise RegistryRefused(f"it asks for more than {_MOST_INPUTS} things")
        if (fixed := _get(asked, "value")) is not None:
            if not isinstance(fixed, str):
                raise RegistryRefused(f"the value of {_short(variable)} is no text")
            return self.filled(fixed, _get(asked, "variables"))
        found = self.environment.get(variable)
        choices = _get(asked, "choices")
        if found is not None and isinstance(choices, list) and choices and found not in choices:
            allowed = ", ".join(_short(str(each)) for each in choices[:20])
            self.missing.append(f"{variable} to be one of {allowed}")
        if found is not None:
            self.taken.append(_short(variable))
            return found
        default = _get(asked, "default")
        if isinstance(default, (str, int, float)):
            return str(default).lower() if isinstance(default, bool) else str(default)
        described = _get(asked, "description")
        words = f" ({_short(described)})" if isinstance(described, str) and described else ""
        secret = ", a secret" if _get(asked, "isSecret") is True else ""
        if _get(asked, "isRequired") is True:
            self.missing.append(f"${{{_short(variable)}}}{words}{secret}: set it in the environment of this command")
        else:
            self.notes.append(f"left out, for want of ${{{_short(variable)}}}{words}{secret}")
        return None

    def filled(self, text: str, variables: Any) -> str:
        """With each {name} that the description explains; what it does not stays as it is."""
        known = variables if isinstance(variables, Mapping) else {}

        def fill(found: re.Match[str]) -> str:
            asked = known.get(found[1])
            if not isinstance(asked, Mapping):
                return found[0]
            return self.value(asked, variable_of(found[1])) or ""

        return _VARIABLE.sub(fill, text)


def variable_of(name: str) -> str:
    """The environment variable in which a person's value for something of this name is looked for."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").upper()


def _remote(remote: Mapping[str, Any], inputs: _Inputs) -> dict[str, Any]:
    url = inputs.filled(_text(remote, "url", "remote"), _get(remote, "variables"))
    kind = _get(remote, "type") or _get(remote, "transportType")
    table: dict[str, Any] = {"replicas": [_REMOTES[kind] + url]}
    if headers := _named(_tables(remote, "headers"), inputs, variable_of):
        table["headers"] = headers
    return table


def _package(registry: str, package: Mapping[str, Any], inputs: _Inputs) -> dict[str, Any]:
    identifier = _text(package, "identifier", "package")
    if not _IDENTIFIERS[registry].fullmatch(identifier) or len(identifier) > _LONGEST:
        raise RegistryRefused(f"{_short(identifier)!r} is no name of {registry}")
    base = _get(package, "registryBaseUrl")
    domain = _REGISTRIES[registry]
    known = (f"https://{label}{domain}" for label in ("", "registry.", "index."))
    if base is not None and str(base).rstrip("/") not in known:
        raise RegistryRefused(f"packages of {_short(str(base))} are not fetched, only those of {domain}")
    runner = _get(package, "runtimeHint") or _RUNNERS[registry][0]
    if runner not in _RUNNERS[registry]:
        raise RegistryRefused(f"{registry} packages are run by {' or '.join(_RUNNERS[registry])}, not by {_short(str(runner))!r}")
    version = _get(package, "version")
    if version is not None and (not isinstance(version, str) or not _VERSION.fullmatch(version) or len(version) > _LONGEST):
        raise RegistryRefused(f"{_short(str(version))!r} is no version")
    if _get(package, "fileSha256") is not None:
        inputs.notes.append("its checksum is not compared: the program that fetches it knows nothing of it")
    env = _named(_tables(package, "environmentVariables"), inputs, str)
    if changed := next((name for name in env if _OF_THE_RUNNER.fullmatch(name)), None):
        raise RegistryRefused(f"{_short(changed)} would change what {runner} does, which no description may")
    before = list(_arguments(_tables(package, "runtimeArguments"), inputs))
    _check_runtime(registry, runner, before)
    behind = list(_arguments(_tables(package, "packageArguments"), inputs))
    if registry == "oci":
        is_named = "@" in identifier or ":" in identifier.rpartition("/")[2]
        image = identifier if is_named or version is None else f"{identifier}:{version}"
        passed = [word for name in env for word in ("-e", name)]
        command = [runner, "run", "-i", "--rm", *passed, *before, image, *behind]
    else:
        asks_nothing = ["-y"] if runner == "npx" and not {"-y", "--yes"} & set(before) else []
        command = [runner, *asks_nothing, *before, identifier if version is None else f"{identifier}@{version}", *behind]
    return {"command": command, **({"env": env} if env else {})}


def _check_runtime(registry: str, runner: str, words: Sequence[str]) -> None:
    """Raises: RegistryRefused where more is said to the runner than it may be told."""
    left = iter(words)
    for word in left:
        if word in _FLAGS[registry]:
            continue
        name, is_whole, part = word.partition("=")
        value = part if is_whole else next(left, None) if name in _OPTIONS[registry] else None
        is_known = name in _OPTIONS[registry] and value is not None
        if not is_known or (name == "--network" and not _NETWORK.fullmatch(str(value))):
            raise RegistryRefused(f"{_short(word)!r} is nothing that a description may tell {runner}; say it with -- yourself")


def _named(asked: Iterable[Mapping[str, Any]], inputs: _Inputs, variable: Callable[[str], str]) -> dict[str, str]:
    """{name: value} of what has one."""
    found: dict[str, str] = {}
    for each in asked:
        name = _text(each, "name", "variable or header")
        if (value := inputs.value(each, variable(name))) is not None:
            found[name] = value
    return found


def _arguments(asked: Iterable[Mapping[str, Any]], inputs: _Inputs) -> Iterator[str]:
    """Source: the schema, `PositionalArgument` and `NamedArgument`. One that may come more than once comes once."""
    for each in asked:
        if _get(each, "type") == "named":
            name = _text(each, "name", "argument")
            is_flag = not {"value", "default", "isRequired", "is_required", "choices"} & each.keys()
            if is_flag and variable_of(name) not in inputs.environment:
                inputs.notes.append(f"left out: the argument {_short(name)}")
            elif (value := inputs.value(each, variable_of(name))) is not None:
                yield from (name, value) if value else (name,)
        else:
            hint = _get(each, "valueHint")
            value = inputs.value(each, variable_of(hint if isinstance(hint, str) else "argument"))
            if value is not None:
                yield value


def _get(table: Mapping[str, Any], key: str) -> Any:
    """By its name in either spelling."""
    found = table.get(key)
    return table.get(re.sub(r"(?=[A-Z])", "_", key).lower()) if found is None else found


def _table(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RegistryRefused(f"{what}: an object is wanted")
    return value


def _tables(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = _get(table, key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise RegistryRefused(f"{key}: a list is wanted")
    return [_table(each, key) for each in found]


def _text(table: Mapping[str, Any], key: str, what: str) -> str:
    found = _get(table, key)
    if not isinstance(found, str) or not found:
        raise RegistryRefused(f"{what}: {key} is wanted, a text")
    return found


def _short(text: str) -> str:
    """On one line, of a bearable length."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}…"
