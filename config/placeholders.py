"""`${VAR}` and its kin, as programs that start MCP servers write them: put into a text, or named where they have no value. Pure.

Sources: Claude Code (`${VAR}`, `${VAR:-default}`, `${CLAUDE_PLUGIN_ROOT}`), VS Code (`${env:VAR}`, `${input:id}`,
`${workspaceFolder}`, `${userHome}`), Gemini (`$VAR`), Continue (`${{ secrets.VAR }}`), opencode (`{env:VAR}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(
    r"\$\{\{(?P<double>[^{}]*)\}\}"
    r"|\$\{(?P<braced>(?:[^{}]|\$\{[^{}]*\})*)\}"  # a default may refer to another variable
    r"|\{env:(?P<opencode>[^{}]*)\}"
    rf"|(?<!\$)\$(?P<bare>{_NAME})"
)
_BRACED = re.compile(rf"(?:env:)?\s*(?P<name>{_NAME})\s*(?:(?P<sign>:?-)(?P<default>.*))?", re.DOTALL | re.IGNORECASE)
_INPUT = re.compile(r"input:(?P<id>[^{}]+)", re.IGNORECASE)
_DOUBLE = re.compile(rf"(?:secrets|inputs|env)\.(?P<name>{_NAME})")
_FOLDERS = frozenset(
    {"workspaceFolder", "workspaceRoot", "CLAUDE_PLUGIN_ROOT", "CLAUDE_PROJECT_DIR", "cwd", "extensionPath", "__dirname"}
)


@attrs.frozen(kw_only=True)
class Variables:
    """Where values come from.

    environment: the gateway's own.
    own:         the `env` of the server itself, for its command and arguments; it stands before the gateway's.
    inputs:      {id: default} of VS Code's `inputs`; without a default it is not in there.
    folder:      what `${workspaceFolder}` and its kin mean where the environment does not name them.
    """

    environment: Mapping[str, str] = attrs.field(repr=False)
    own: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    inputs: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    folder: str
    home: str

    def value_of(self, name: str) -> str | None:
        for known in (self.own, self.environment):
            if name in known:
                return known[name]
        if name in _FOLDERS:
            return self.folder
        if name == "workspaceFolderBasename":
            return self.folder.rstrip("/").rpartition("/")[2]
        return self.home if name == "userHome" else None

    def input_value(self, input_id: str) -> str | None:
        return self.environment.get(input_variable(input_id), self.inputs.get(input_id))


@attrs.frozen
class Expanded:
    """missing: what has no value, as (reference as written, what would give it one)."""

    text: str = attrs.field(repr=False)
    missing: tuple[tuple[str, str], ...] = ()


def input_variable(input_id: str) -> str:
    """The environment variable that an input is read from: `github-token` is INPUT_GITHUB_TOKEN."""
    return "INPUT_" + re.sub(r"[^A-Za-z0-9]", "_", input_id).upper()


def expand(text: str, variables: Variables, *, is_script: bool = False) -> Expanded:
    """Put values in; what was put in is not looked at again.

    A bare $name without a value is an error in capitals only: in small letters it is more likely part of a password.
    is_script: a shell reads the text, so that it knows bare names by itself.
    """
    missing: list[tuple[str, str]] = []

    def value_of(reference: re.Match[str]) -> str:
        value = _value_of(reference, variables)
        if isinstance(value, str):
            return value
        name = reference["bare"]
        if name is None or not (is_script or name.upper() != name):
            missing.append(value)
        return reference[0]

    return Expanded(_REFERENCE.sub(value_of, text), tuple(dict.fromkeys(missing)))


def _value_of(reference: re.Match[str], variables: Variables) -> str | tuple[str, str]:
    """The value, or an entry for `Expanded.missing`."""
    inner = reference["braced"]
    if inner is None:
        known = _DOUBLE.fullmatch((reference["double"] or "").strip())
        name = reference["bare"] or reference["opencode"] or (known["name"] if known else "")
        value = variables.value_of(name)
        return (reference[0], _remedy(name)) if value is None else value
    if inner in ("/", "pathSeparator"):
        return "/"
    if (asked := _INPUT.fullmatch(inner)) is not None:
        value = variables.input_value(asked["id"])
        remedy = f"its value in the environment variable {input_variable(asked['id'])}"
        return (reference[0], remedy) if value is None else value
    if inner.startswith("workspaceFolder:"):  # one of several roots in VS Code; here there is one
        inner = "workspaceFolder"
    if (known := _BRACED.fullmatch(inner)) is None:
        return reference[0], _remedy("")
    value = variables.value_of(known["name"])
    if known["default"] is not None and (value is None or (value == "" and known["sign"] == ":-")):
        default = expand(known["default"], variables)
        return default.missing[0] if default.missing else default.text
    return (reference[0], _remedy(known["name"])) if value is None else value


def _remedy(name: str) -> str:
    return f"a value for {name} in the gateway's environment" if name else "${VAR}, ${VAR:-default}, ${env:VAR} or ${input:id}"
