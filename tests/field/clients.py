"""Clients of the field at a gateway: each lists the tools and calls one of each backend, told an address and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.field.installing import HERE, environment, install_node, install_python

TRANSPORTS = {"/mcp": "Streamable HTTP", "/mcp/sse/connect": "HTTP+SSE", "/sse": "HTTP+SSE"}

_RUN_TIMEOUT_S = 60.0


@attrs.frozen
class Call:
    """expect: in what the client prints of the answer."""

    tool: str
    arguments: Mapping[str, Any]
    expect: str


@attrs.frozen(kw_only=True, eq=False)
class Client:
    """What clients.toml says of one."""

    title: str
    path: str
    python: Sequence[str] = ()
    node: Sequence[str] = ()
    program: str = ""
    arguments: Sequence[str] = ()
    list: Sequence[str] = ()
    call: Sequence[str] = ()
    in_ci: bool = False

    @property
    def name(self) -> str:
        return f"{self.title} at {self.path}"


def known_clients() -> Sequence[Client]:
    return [Client(**entry) for entry in tomllib.loads((HERE / "clients.toml").read_text())["client"]]


def try_client(client: Client, url: str, calls: Sequence[Call]) -> str:
    """Install and run it; why it failed, or "".

    url: of the gateway, without a path.
    Raises: InstallFailed.
    """
    python = install_python(client.python) if client.python else None
    node = install_node(client.node) if client.node else None
    variables = environment()
    if node is not None:
        variables["PATH"] = f"{node / 'node_modules' / '.bin'}:{variables['PATH']}"
    for command, expected in _commands(client, url + client.path, calls, python, node):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False, env=variables, cwd=variables["HOME"]
            )
        except subprocess.TimeoutExpired:
            return f"no end within {_RUN_TIMEOUT_S:g} s"
        missing = [text for text in expected if text not in done.stdout]
        if done.returncode or missing:
            return f"exit code {done.returncode}, without {missing}: {(done.stdout + done.stderr)[-400:]}"
    return ""


def _commands(
    client: Client, url: str, calls: Sequence[Call], python: Path | None, node: Path | None
) -> Iterator[tuple[list[str], list[str]]]:
    """Each command line, and what must be in its output."""
    tools = [call.tool for call in calls]
    if client.program:
        source = HERE / "programs" / client.program
        encoded = json.dumps([[call.tool, call.arguments] for call in calls])
        if source.suffix == ".py":
            assert python is not None
            program = [str(python), str(source)]
        else:
            assert node is not None
            program = ["node", shutil.copy(source, node)]  # it finds packages beside itself
        command = [*program, url, encoded, *(word.replace("{url}", url) for word in client.arguments)]
        yield command, [*tools, *(call.expect for call in calls)]
        return
    yield [word.replace("{url}", url) for word in client.list], tools
    for call in calls:
        words = [word.replace("{url}", url).replace("{tool}", call.tool) for word in client.call]
        pairs = [f"{name}={value}" for name, value in call.arguments.items()]
        at = words.index("{pairs}")
        yield [*words[:at], *pairs, *words[at + 1 :]], [call.expect]
