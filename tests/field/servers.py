"""Servers of the field behind a gateway: what is tried with each, and what came of it."""

from __future__ import annotations

import functools
import http.server
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psutil
from mcp.shared.exceptions import MCPError

from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import RunningGateway
from tests.field.installing import HERE, caches, path

STEPS = ("list", "call", "resource", "prompt", "server killed", "starter killed")
REFUSED = "refused"

_FIRST_ANSWER_S = 180.0
_CONVERSATION_S = 90.0
_REFUSAL_S = 10.0
_MARK = "FIELD_SERVER"

Outcomes = dict[str, dict[str, str]]
"""{client's era: {step: why it failed, "" where it did not}}; steps that a server has nothing for are left out."""


@attrs.frozen(kw_only=True, eq=False)
class Server:
    """What servers.toml says of one. needs: a program that must be there for it."""

    name: str
    title: str
    command: Sequence[str]
    env: Mapping[str, str] = attrs.field(factory=dict)
    tool: str = ""
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    expect: str = ""
    resource: str = ""
    prompt: str = ""
    prompt_arguments: Mapping[str, str] = attrs.field(factory=dict)
    needs: str = ""
    is_broken: bool = False
    in_ci: bool = False

    def backend(self) -> dict[str, Any]:
        """Its `[[backends]]` table. Its processes are known by what is in their environment."""
        return {
            "name": self.name,
            "command": list(self.command),
            "env": {**self.env, **caches(), "PATH": path(), _MARK: self.name},
        }

    def fetching(self) -> list[str]:
        """A command that fetches it as its start would, and starts nothing."""
        if self.command[0] == "npx":
            return ["npx", "-y", f"--package={self.command[2]}", "--", "node", "--version"]
        package = self.command[2] if self.command[1] == "--from" else self.command[1]
        return ["uvx", "--from", package, "python", "--version"]


def known_servers(place: Place) -> list[Server]:
    """Those of servers.toml that this machine can run."""
    entries = [Server(**place.filled(entry)) for entry in tomllib.loads((HERE / "servers.toml").read_text())["server"]]
    return [each for each in entries if not each.needs or shutil.which(each.needs)]


@attrs.frozen
class Place:
    """What servers are told of: a folder with a Git repository, and the address of a page."""

    folder: Path
    page: str

    def filled(self, value: Any) -> Any:
        """The same with its placeholders replaced, in strings however deep."""
        if isinstance(value, str):
            texts = {"{folder}": str(self.folder), "{page}": self.page, "{programs}": str(HERE / "programs")}
            return functools.reduce(lambda text, each: text.replace(*each), texts.items(), value)
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        return {key: self.filled(each) for key, each in value.items()} if isinstance(value, dict) else value


@contextmanager
def make_place(folder: Path) -> Iterator[Place]:
    """folder: an empty one."""
    (folder / "note.txt").write_text("a note of the field\n")
    (folder / "page").mkdir()
    (folder / "page" / "index.html").write_text(
        "<title>A page of the field</title><h1>A page of the field</h1><p>Words of the field</p>"
    )
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for arguments in (["init", "-q"], ["add", "note.txt"], [*identity, "commit", "-qm", "Keep a note"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, timeout=20)
    handler = functools.partial(_Quiet, directory=str(folder / "page"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Place(folder, f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def wait_for_first_answer(gateway: RunningGateway, server: Server) -> None:
    """Ask for its tools until they come: it is refused where it has taken too long for the first probes.

    Raises: AssertionError after three minutes.
    """
    deadline_s = time.monotonic() + _FIRST_ANSWER_S

    async def ask() -> None:
        async with connected(gateway.endpoint(server.name), "2026-07-28") as (client, _):
            await client.list_tools()

    while True:
        try:
            return run(ask(), _CONVERSATION_S)
        except Exception as error:
            assert time.monotonic() < deadline_s, f"{server.name}: {_said(error)}"
            time.sleep(1.0)


def try_server(gateway: RunningGateway, server: Server) -> Outcomes:
    return {mode: _try_in(gateway, server, mode) for mode in MODES}


def _try_in(gateway: RunningGateway, server: Server, mode: str) -> dict[str, str]:
    outcomes: dict[str, str] = {}

    async def attempt(step: str, make: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]) -> None:
        try:
            found = await make()
        except Exception as error:
            outcomes[step] = _said(error)
        else:
            outcomes[step] = "" if is_right(found) else f"answered {found!r}"[:300]

    async def converse() -> None:
        async with connected(gateway.endpoint(server.name), mode) as (client, _):

            def call() -> Awaitable[Any]:
                return client.call_tool(server.tool, dict(server.arguments))

            def is_answer(result: Any) -> bool:
                return not result.is_error and server.expect in text_of(result)

            await attempt("list", client.list_tools, lambda found: server.tool in {tool.name for tool in found.tools})
            await attempt("call", call, is_answer)
            if server.resource:
                await attempt("resource", lambda: client.read_resource(server.resource), lambda found: bool(found.contents))
            if server.prompt:
                arguments = dict(server.prompt_arguments) or None
                await attempt("prompt", lambda: client.get_prompt(server.prompt, arguments), lambda found: bool(found.messages))
            for step in ("server killed", "starter killed"):
                _kill(gateway, server, innermost=step == "server killed")
                await attempt(step, call, is_answer)

    async def expect_refusal() -> None:
        async with connected(gateway.endpoint(server.name), mode) as (client, _):
            await client.list_tools()

    if server.is_broken:
        return {REFUSED: _refusal(expect_refusal)}
    try:
        run(converse(), _CONVERSATION_S)
    except Exception as error:
        outcomes.setdefault("list", _said(error))
    return outcomes


def _refusal(ask: Callable[[], Coroutine[Any, Any, None]]) -> str:
    """What is wrong with how a server is refused that cannot be started: soon, and with a reason for programs."""
    started_s = time.monotonic()
    try:
        run(ask(), _CONVERSATION_S)
    except Exception as error:
        took_s = time.monotonic() - started_s
        is_told = isinstance(cause := _cause(error), MCPError) and "reason" in (cause.error.data or {})
        return "" if is_told and took_s < _REFUSAL_S else f"after {took_s:.1f} s: {_said(error)}"
    return "it was served"


def _kill(gateway: RunningGateway, server: Server, *, innermost: bool) -> None:
    """SIGKILL to what the gateway has started for it, or to the server itself below npx or uvx. What the gateway has started is
    gone when this returns, so that it can know: of a call before that nobody can say whether the server has read it.
    """
    marked = {each.pid: each for each in gateway.processes() if _mark(each) == server.name}
    starters = [each for each in marked.values() if each.ppid() not in marked]
    assert starters, f"{server.name}: nothing of it runs"
    for victim in map(_innermost, starters) if innermost else starters:
        victim.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(starters, timeout=5)
    assert not left, f"{server.name}: {left} outlived its server by 5 s"


def _innermost(process: psutil.Process) -> psutil.Process:
    """The server below its starters: npx is a Node.js program that runs it in a shell, uvx becomes `uv tool uvx`."""
    is_starter = process.name() in ("sh", "uv", "uvx") or process.name().startswith("npm exec")
    children = process.children()
    return _innermost(children[0]) if is_starter and children else process


def _mark(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.environ().get(_MARK, ""))
    return ""


def _cause(error: BaseException) -> BaseException:
    """The innermost of nested groups, which task groups make of any error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    return repr(_cause(error))[:300]
