"""A conversation of an admin command with a running node."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcp_gateway.actors.runtime import thespian_hardening
from mcp_gateway.actors.runtime.system_key import KEY_FILE_NAME, KeyFileUnsafe, load_or_create_key
from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.serving.start_checks import live_runs
from mcp_gateway.scripts.serving.time_limit import at_most

_NODE_SUPERVISOR = "mcp_gateway.actors.node.node_supervisor.NodeSupervisor"
ATTACH_TIMEOUT_S = 5.0
HELLO_TIMEOUT_S = 3.0
STATUS_TIMEOUT_S = 8.0
COMMAND_TIMEOUT_S = 35.0


class AttachFailed(Exception):
    """There is no node to talk to, or it does not answer; the text is one clear line."""


class AdminClient:
    """Asks the node supervisor; answers are matched by request id, because late ones of earlier questions arrive too.

    run: how the gateway describes itself, see `start_checks.announce`.
    """

    def __init__(self, conversation: Any, node: Any, run: dict[str, Any]) -> None:
        self.run = run
        self._conversation = conversation
        self._node = node

    def status(self) -> dict[str, Any]:
        """What `mcp-gateway status --json` prints.

        Raises: AttachFailed
        """
        from mcp_gateway.actors.messages.node import NodeStatusRequested

        answer: dict[str, Any] = self._ask(NodeStatusRequested(request_id=uuid.uuid4().hex), STATUS_TIMEOUT_S).status
        return answer

    def command(self, command: str, arguments: dict[str, Any], timeout_s: float = COMMAND_TIMEOUT_S) -> dict[str, Any]:
        """{"ok": True, ...}, {"error": one line} or {"refused": lines}.

        Raises: AttachFailed
        """
        from mcp_gateway.actors.messages.node import CommandRequested

        request = CommandRequested(request_id=uuid.uuid4().hex, command=command, arguments=arguments)
        answer: dict[str, Any] = self._ask(request, timeout_s).answer
        return answer

    def _ask(self, request: Any, timeout_s: float) -> Any:
        answer = self._conversation.ask(self._node, request, timeout_s)
        while answer is not None and getattr(answer, "request_id", None) != request.request_id:
            answer = self._conversation.listen(timeout_s)
        if answer is None:
            raise AttachFailed(f"the gateway did not answer within {timeout_s:g} s")
        return answer


@contextlib.contextmanager
def attach(settings: Settings) -> Iterator[AdminClient]:
    """Attach to the node that runs with these settings; never starts one.

    Raises: AttachFailed
    """
    host, port, state_path = settings.actor_system.bind, settings.actor_system.admin_port, settings.gateway.state_path
    if settings.actor_system.is_embedded:
        raise AttachFailed("an embedded gateway has no admin port")
    if state_path is None:
        raise AttachFailed('state_dir is "": the gateway keeps its key in memory, so nobody can attach to it')
    run = _check_that_it_runs(host, port, state_path)
    key = _read_key(state_path)
    thespian_hardening.set_environment()
    thespian_hardening.harden(key, host)
    _start_no_process()
    from thespian.actors import ActorSystem, ActorSystemException

    from mcp_gateway.actors.messages.node import NODE_GLOBAL_NAME, Ping, Pong

    silence = AttachFailed(f"what listens on {host}:{port} does not answer as the gateway would; it may be starting again")
    try:
        with contextlib.ExitStack() as stack:
            with at_most(ATTACH_TIMEOUT_S, silence):
                # Only attaches: something listens there, and if that is no admin with our key, this fails after a while.
                system = ActorSystem("multiprocTCPBase", {"Admin Port": port}, transientUnique=True)
                conversation = stack.enter_context(system.private())
                node = conversation.createActor(_NODE_SUPERVISOR, globalName=NODE_GLOBAL_NAME)
            if not isinstance(conversation.ask(node, Ping(sequence=0), HELLO_TIMEOUT_S), Pong):
                raise AttachFailed(f"the gateway on admin port {port} does not answer; it may be starting again")
            yield AdminClient(conversation, node, run)
    except ActorSystemException as error:
        raise AttachFailed(f"what listens on {host}:{port} is no gateway with the key in {state_path}") from error


def _start_no_process() -> None:
    """Where the admin has died since it was looked for, Thespian would start one here: it would take the gateway's place.

    This process forks nothing else, so it is simply not allowed to.
    """

    def refuse(_process: object) -> None:
        raise AttachFailed("the gateway has just ended; it may be starting again")

    multiprocessing.process.BaseProcess.start = refuse  # type: ignore[method-assign,assignment]


def _check_that_it_runs(host: str, port: int, state_path: Path) -> dict[str, Any]:
    """Its description. Refuse at once what Thespian would try for 11 s, or answer by starting a system of its own.

    Raises: AttachFailed
    """
    runs = live_runs(state_path)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(2.0)
        is_open = probe.connect_ex((host, port)) == 0
    for run in runs:
        if is_open and run["admin_port"] == port:
            return run
    for run in runs:
        if run["is_embedded"]:
            raise AttachFailed(f"the gateway on {run['url']} (pid {run['pid']}) is embedded: it has no admin port to attach to")
    others = "".join(f"; the one on {run['url']} has --admin-port {run['admin_port']}" for run in runs)
    if is_open:
        raise AttachFailed(f"what listens on {host}:{port} is no gateway with state_dir {state_path}{others}")
    raise AttachFailed(f"no gateway runs on admin port {port} of {host}{others}")


def _read_key(state_path: Path) -> bytes:
    path = state_path / KEY_FILE_NAME
    if not path.exists():
        raise AttachFailed(f"there is no key {path}: the gateway on this admin port was started with another --state-dir")
    try:
        return load_or_create_key(state_path)
    except (OSError, KeyFileUnsafe) as error:
        raise AttachFailed(f"key file {error}") from error
