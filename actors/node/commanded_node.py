"""What a node says of itself and does as it is told: status and commands, of operators here and at other nodes of its cluster."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.between_cells import Forwarded
from mcp_gateway.actors.messages.cluster import (
    ChangeSpread,
    ClusterDescribed,
    ForwardLost,
    ForwardToNode,
    ShareRevocations,
    ShareSettings,
)
from mcp_gateway.actors.messages.lifecycle import LogLevelChanged
from mcp_gateway.actors.messages.node import (
    CLUSTER_MEMBER,
    NODE_SUPERVISOR,
    ApplySettings,
    CellArguments,
    CommandAnswered,
    CommandRequested,
    NodeArguments,
    NodeStatusReported,
    NodeStatusRequested,
    PublishForNode,
    SettingsApplied,
)
from mcp_gateway.actors.messages.supervision import ChildRestarted, ChildRestartRefused, RestartChildRequested
from mcp_gateway.actors.runtime.fork_server import ForkServer, ForkServerGone
from mcp_gateway.actors.runtime.thespian_hardening import fork_children_from, fork_server, send_with_result
from mcp_gateway.actors.supervision.restart_plan import ChildSpec
from mcp_gateway.actors.supervision.supervisor import Supervisor
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.loader import ConfigError
from mcp_gateway.config.settings import LOG_LEVELS

from .backend_changes import BACKEND_COMMANDS, SHARED_COMMANDS
from .named_nodes import DRAIN_NODE, NODE_COMMANDS, named_command
from .node_status import merge_cell_statuses, with_lag
from .process_tree import launcher_row, thespian_processes
from .question_ledger import Question, QuestionLedger
from .running_settings import RunningSettings
from .settings_tables import encoded_tables
from .wire_fingerprint import WIRE_FINGERPRINT

ANSWER_DEADLINE_S = 2.0  # a cell that has not answered a status request by then is left out of the answer
COMMAND_DEADLINE_S = 30.0
LOADING_DEADLINE_S = 90.0  # new code takes a second to be loaded, on a machine that has one; nobody is kept waiting meanwhile
_LOADING_POLL_S = 0.05
ENDED = {"error": "the process ended before it answered"}
_MOST_UNPUBLISHED = 100
_ALL_NODES = "all nodes"


def _settings_question(revision: int) -> str:
    return f"settings#{revision}"


class CommandedNode(Supervisor):
    """The part of the node supervisor that answers. What it asks its children, and who waits for that, is kept as questions."""

    _settings: RunningSettings
    _admin_pid: int

    def __init__(self) -> None:
        super().__init__()
        self._unpublished: deque[PublishForNode] = deque(maxlen=_MOST_UNPUBLISHED)  # until a cell runs that can
        self._log_level: LogLevelChanged | None = None  # as an operator has asked for
        self._questions = QuestionLedger()
        self._question_count = 0
        self._sharing: set[str] = set()  # ids of questions that wait for all nodes of the cluster
        self._cluster: dict[str, Any] = {}  # as the cluster member has described it last
        self._loading: tuple[str, ForkServer] | None = None  # (id of the question that waits for it, what loads new code)
        self._fork_servers: list[ForkServer] = []  # the last is what children are forked from since an upgrade

    # ---- what runs

    @property
    def _node(self) -> NodeArguments:
        assert isinstance(self.arguments, NodeArguments)
        return self.arguments

    def child_full_name(self, spec: ChildSpec) -> str:
        return f"cell/{spec.arguments.cell_index}" if isinstance(spec.arguments, CellArguments) else spec.name

    def _cells(self) -> Iterator[tuple[str, str, int, ActorAddress]]:
        """(short name, full name, incarnation, address) of every cell that runs."""
        for short in self.supervision.names:
            spec = self.supervision.spec(short)
            if isinstance(spec.arguments, CellArguments) and (address := self.child_address(short)) is not None:
                yield short, self.child_full_name(spec), self.supervision.incarnation(short), address

    def _cell_processes(self) -> Iterator[tuple[str, str, int, ActorAddress]]:
        """The same of every cell, also of one that starts, or ends with clients connected to it."""
        for short in self.supervision.names:
            spec = self.supervision.spec(short)
            if isinstance(spec.arguments, CellArguments) and (address := self.child_mailbox(short)) is not None:
                yield short, self.child_full_name(spec), self.supervision.incarnation(short), address

    @property
    def _has_member(self) -> bool:
        return CLUSTER_MEMBER in self.supervision.names

    def receiveMsg_ClusterDescribed(self, message: ClusterDescribed, sender: ActorAddress) -> None:
        self._cluster = message.status

    # ---- events of the node

    def _publish_event(self, topic: str, payload: dict[str, Any]) -> None:
        self._unpublished.append(PublishForNode(topic=topic, payload=payload, timestamp_ms=int(time.time() * 1000)))
        self._publish_what_waits()

    def _publish_what_waits(self) -> None:
        cell = next((address for _, _, _, address in self._cells()), None)
        while cell is not None and self._unpublished:
            self.send(cell, self._unpublished.popleft())

    # ---- status

    def receiveMsg_NodeStatusRequested(self, message: NodeStatusRequested, sender: ActorAddress) -> None:
        question_id = self._next_question_id()
        cells = {full: address for _, full, _, address in self._cells()}
        for address in cells.values():
            self.send(address, NodeStatusRequested(request_id=question_id))
        self._wait_for(question_id, cells, sender, message.request_id, ANSWER_DEADLINE_S)

    def receiveMsg_NodeStatusReported(self, message: NodeStatusReported, sender: ActorAddress) -> None:
        self._answer_questions(self._questions.answered(message.request_id, message.name, message.status))

    def _report_status(self, question: Question) -> None:
        trees = {name: status.get("tree", ()) for name, status in question.answers.items()}
        last_ids = [answer["last_event_id"] for answer in question.answers.values()]
        status = {
            "version": version("mcp-gateway"),
            "uptime_seconds": round(time.time() - self._node.started_at_s, 3),
            "tree": [launcher_row(self.snapshot(), trees, self._admin_pid, self._node)],
            **merge_cell_statuses(question.answers.values()),
            **({"cluster": with_lag(self._cluster, last_ids)} if self._cluster else {}),
        }
        self.send(question.asker, NodeStatusReported(request_id=question.request_id, name=self.name, status=status))

    # ---- commands

    def receiveMsg_CommandRequested(self, message: CommandRequested, sender: ActorAddress) -> None:
        settings = self._settings.now
        named = named_command(
            message.command,
            message.arguments,
            own="" if settings.cluster is None else settings.cluster.node,
            others=[row["name"] for row in self._cluster.get("nodes", ()) if row["name"] != self._cluster["node"]],
            backends=[backend.name for backend in settings.backends],
        )
        message = attrs.evolve(message, command=named.command, arguments=named.arguments)
        if named.node:
            self._ask_node(named.node, message, sender)
        else:
            self._carry_out_here(message, sender)

    def _carry_out_here(self, message: CommandRequested, sender: ActorAddress) -> None:
        child = str(message.arguments.get("child", ""))
        shorts = {self.child_full_name(self.supervision.spec(short)): short for short in self.supervision.names}
        cell = next((full for _, full, _, _ in self._cells() if child.startswith(f"{full}/")), None)
        if message.command == "log-level":
            self._change_log_level(message, sender)
        elif message.command in BACKEND_COMMANDS:
            self._change_backends(message, sender)
        elif message.command == "upgrade":
            self._upgrade(message, sender)
        elif message.command == DRAIN_NODE:  # the launcher does so as for any other SIGTERM; the answer goes first
            done = {"ok": True, "changes": [("drains, and ends then", "the node")], "tables": [], "left": []}
            answer = CommandAnswered(request_id=message.request_id, answer=done)
            send_with_result(self, sender, answer, lambda _: os.kill(self._node.launcher_pid, signal.SIGTERM), ANSWER_DEADLINE_S)
        elif message.command not in ("restart", "kill", "sessions"):
            self._answer_command(sender, message, {"error": f"unknown command {message.command!r}"})
        elif cell is not None:
            self._pass_on(message, sender, cell)
        elif message.command == "kill":
            self._kill_process(message, sender, child, shorts)
        elif child in shorts and message.command == "restart":
            question_id = self._next_question_id()
            self.send(self.myAddress, RestartChildRequested(name=shorts[child], request_id=question_id))
            self._wait_for(question_id, ["the restart"], sender, message.request_id, COMMAND_DEADLINE_S, ENDED)
        else:
            self._answer_command(sender, message, {"error": self._no_such(child, [*shorts])})

    # ---- new code

    def _upgrade(self, message: CommandRequested, asker: ActorAddress) -> None:
        """Have processes that start from now on run the code on disk, which is loaded first; who asks has loaded it, too."""
        if message.arguments.get("fingerprint") != WIRE_FINGERPRINT:
            error = "what processes say to each other differs between the two versions: start the gateway anew"
            self._answer_command(asker, message, {"error": error})
            return
        self._give_up_loading("another upgrade was asked for")
        question_id = self._next_question_id()
        outcome = {"error": "the code that is installed was not loaded in time: everything runs on as it is"}
        self._loading = question_id, fork_server(self._node.forking_entry, (self._settings.now, self._node.cell_factory))
        self._wait_for(question_id, ["the code"], asker, message.request_id, LOADING_DEADLINE_S, outcome)
        self.start_timer("loading", _LOADING_POLL_S)

    def receiveTimer_loading(self, _payload: object) -> None:
        if self._loading is None:
            return
        question_id, server = self._loading
        try:
            is_ready = server.is_ready()
        except ForkServerGone:
            self._give_up_loading("the code that is installed cannot be loaded: the log says why; everything runs on as it is")
            return
        if not is_ready and self._questions.is_open(question_id):
            self.start_timer("loading", _LOADING_POLL_S)
        elif not is_ready:
            self._give_up_loading("")
        else:
            self._loading = None
            for earlier in self._fork_servers:
                earlier.close()
            self._fork_servers.append(server)
            fork_children_from(self, server)
            self._answer_questions(self._questions.settled(question_id, {"ok": True}))

    def _forget_fork_servers(self) -> None:
        """Those before the last that have ended, with the last of their processes."""
        self._fork_servers = [each for each in self._fork_servers if each is self._fork_servers[-1] or not each.has_ended()]

    def _give_up_loading(self, error: str) -> None:
        if self._loading is not None:
            question_id, server = self._loading
            self._loading = None
            server.kill()
            self._answer_questions(self._questions.settled(question_id, {"error": error}))

    # ---- settings

    def _change_log_level(self, message: CommandRequested, asker: ActorAddress) -> None:
        level = str(message.arguments.get("level"))
        if level not in LOG_LEVELS:
            self._answer_command(asker, message, {"error": f"{level!r} is no level; there are {', '.join(LOG_LEVELS)}"})
            return
        self._log_level = LogLevelChanged(level=level)
        logging.root.setLevel(level.upper())
        self._tell_log_level()
        self._answer_command(asker, message, {"ok": True, "level": level})

    def _change_backends(self, message: CommandRequested, asker: ActorAddress) -> None:
        before, revoked_before = self._settings.revision, self._settings.now.revocations
        try:
            if message.command in SHARED_COMMANDS and self._has_member and self._share_settings(message, asker):
                return
            change = self._settings.change(message.command, message.arguments)
        except ConfigError as error:
            self._answer_command(asker, message, {"refused": str(error).splitlines()})
            return
        except OSError as error:
            file = error.filename or "what is kept of it"
            text = f"nothing has changed: {file} cannot be written: {error.strerror}"
            self._answer_command(asker, message, {"error": text})
            return
        outcome = change.outcome
        if self._settings.revision == before:
            question_id = self._next_question_id()
            waiting = self._share_revocations(message.command, question_id, revoked_before)  # perhaps not all nodes have it yet
            self._wait_for(question_id, waiting, asker, message.request_id, COMMAND_DEADLINE_S, outcome)
            return
        for name in self.supervision.names:
            spec = self.supervision.spec(name)
            if isinstance(spec.arguments, CellArguments):
                arguments = attrs.evolve(spec.arguments, settings=change.settings)
                self.supervision.replace_spec(attrs.evolve(spec, arguments=arguments))
        for kind, backend in change.events:
            self._publish_event(f"mcp.backend.{kind}", {"backend": backend})
        question_id = _settings_question(self._settings.revision)
        waiting = self._tell_settings() | self._share_revocations(message.command, question_id, revoked_before)
        self._wait_for(question_id, waiting, asker, message.request_id, COMMAND_DEADLINE_S, outcome)

    def _share_settings(self, message: CommandRequested, asker: ActorAddress) -> bool:
        """Have all nodes of the cluster change, this one as any other; False where nothing would change. Raises: ConfigError."""
        shared = self._settings.preview(message.command, message.arguments)
        if shared.change.settings == self._settings.now:
            return False
        if (member := self.child_address(CLUSTER_MEMBER)) is None:
            self._answer_command(asker, message, {"error": "the node joins its cluster just now: nothing has changed"})
            return True
        question_id = self._next_question_id()
        taken, tables = self._settings.taken, encoded_tables(shared.settings)
        share = ShareSettings(request_id=question_id, taken=taken.number, file=shared.file, before=taken.file, tables=tables)
        self.send(member, share)
        self._sharing.add(question_id)
        self._wait_for(question_id, [_ALL_NODES], asker, message.request_id, COMMAND_DEADLINE_S, shared.change.outcome)
        return True

    def _share_revocations(self, command: str, question_id: str, before: Revocations) -> set[str]:
        """Have the cluster refuse what this node does; who is to be waited for."""
        if command != "revoke" or not self._has_member:
            return set()
        if (member := self.child_address(CLUSTER_MEMBER)) is not None:
            share = ShareRevocations(request_id=question_id, before=before, after=self._settings.now.revocations)
            self.send(member, share)
            self._sharing.add(question_id)
            return {_ALL_NODES}
        return set()  # the next one takes all that this node refuses to the cluster

    def receiveMsg_ChangeSpread(self, message: ChangeSpread, sender: ActorAddress) -> None:
        self._sharing.discard(message.request_id)
        if message.error_text:
            self._answer_questions(self._questions.settled(message.request_id, {"error": message.error_text}))
        else:
            self._answer_questions(self._questions.answered(message.request_id, _ALL_NODES))

    def _tell_settings(self) -> set[str]:
        """Tell every cell that does not run with the settings of now; returns their full names.

        One that starts was made from older settings, and one that ends serves its clients by older ones until it has.
        """
        cells = {full: (incarnation, address) for _, full, incarnation, address in self._cell_processes()}
        told = self._settings.to_tell((full, incarnation) for full, (incarnation, _) in cells.items())
        for full in told:
            self.send(cells[full][1], ApplySettings(revision=self._settings.revision, settings=self._settings.now))
        return told

    def receiveMsg_SettingsApplied(self, message: SettingsApplied, sender: ActorAddress) -> None:
        self._answer_questions(self._questions.answered(_settings_question(message.revision), message.name))

    def _tell_log_level(self) -> None:
        """Tell every process, also those that have started since with the level of the file."""
        for name in self.supervision.names if self._log_level is not None else ():
            if (address := self.child_address(name)) is not None:
                self.send(address, self._log_level)

    def _pass_on(self, message: CommandRequested, asker: ActorAddress, cell: str) -> None:
        if "signal" in message.arguments:
            error = f"{message.arguments['child']} is an actor inside a process: a signal cannot reach it alone"
            self._answer_command(asker, message, {"error": error})
            return
        arguments = {**message.arguments, "child": message.arguments["child"].removeprefix(f"{cell}/")}
        address = next(address for _, full, _, address in self._cells() if full == cell)
        question_id = self._next_question_id()
        self.send(address, CommandRequested(request_id=question_id, command=message.command, arguments=arguments))
        self._wait_for(question_id, [cell], asker, message.request_id, COMMAND_DEADLINE_S, ENDED)

    def _kill_process(self, message: CommandRequested, asker: ActorAddress, child: str, shorts: dict[str, str]) -> None:
        number = message.arguments.get("signal", signal.SIGKILL)
        if child in shorts:
            pid = self.child_pid(shorts[child])
        elif child == self.name:
            pid = os.getpid()
        else:
            process = thespian_processes(self._admin_pid).get(child)
            pid = None if process is None else process.pid
        known = [*shorts, self.name, "admin", "logger"]
        if pid is None:
            error = f"{child} is not running" if child in known else self._no_such(child, known)
            self._answer_command(asker, message, {"error": error})
        elif number not in signal.valid_signals():
            self._answer_command(asker, message, {"error": f"{number} is not a signal"})
        else:
            # The signal may end this process as well: the answer goes first.
            answer = CommandAnswered(request_id=message.request_id, answer={"ok": True, "pid": pid})
            send_with_result(self, asker, answer, lambda _: os.kill(pid, number), ANSWER_DEADLINE_S)

    def _no_such(self, child: str, known: Sequence[str]) -> str:
        text = f"there is no child {child!r}; known are {', '.join(known)} and the actors of a cell (cell/0/router)"
        nodes = [row["name"] for row in self._cluster.get("nodes", ())]
        return f"{text}, of the nodes {', '.join(nodes)} (NODE/cell/0)" if nodes else text

    def receiveMsg_ChildRestarted(self, message: ChildRestarted, sender: ActorAddress) -> None:
        self._answer_questions(self._questions.settled(message.request_id, {"ok": True}))

    def receiveMsg_ChildRestartRefused(self, message: ChildRestartRefused, sender: ActorAddress) -> None:
        self._answer_questions(self._questions.settled(message.request_id, {"error": message.error_text}))

    def receiveMsg_CommandAnswered(self, message: CommandAnswered, sender: ActorAddress) -> None:
        self._answer_questions(self._questions.settled(message.request_id, message.answer))

    def _answer_command(self, asker: ActorAddress, message: CommandRequested, answer: dict[str, Any]) -> None:
        self.send(asker, CommandAnswered(request_id=message.request_id, answer=answer))

    # ---- other nodes

    def _ask_node(self, node: str, message: CommandRequested, asker: ActorAddress) -> None:
        """Have another node of the cluster carry out a command of an operator of this one."""
        member = self.child_address(CLUSTER_MEMBER)
        if member is None:
            self._answer_command(asker, message, {"error": f"node {node} cannot be reached: the cluster member is starting"})
            return
        question_id = self._next_question_id()
        self.send(member, self._to_node(node, attrs.evolve(message, request_id=question_id)))
        outcome = {"error": f"node {node} has not answered: whether it was done is not known"}
        self._wait_for(question_id, [CLUSTER_MEMBER], asker, message.request_id, COMMAND_DEADLINE_S, outcome)

    def _to_node(self, node: str, message: object) -> ForwardToNode:
        assert self._settings.now.cluster is not None
        own = f"{self._settings.now.cluster.node}/{NODE_SUPERVISOR}"
        return ForwardToNode(to_cell=f"{node}/{NODE_SUPERVISOR}", from_cell=own, message=message)

    def receiveMsg_Forwarded(self, message: Forwarded, sender: ActorAddress) -> None:
        """Of the supervisor of another node, by this node's member, who takes the answer back."""
        said = message.message
        if isinstance(said, CommandAnswered):
            self._answer_questions(self._questions.settled(said.request_id, said.answer))
        elif isinstance(said, CommandRequested) and said.command in NODE_COMMANDS:
            self.log(logging.WARNING, f"{message.from_cell} has {said.command} carried out: {said.arguments}")
            self._carry_out_here(attrs.evolve(said, request_id=f"{message.from_cell} {said.request_id}"), sender)

    def receiveMsg_ForwardLost(self, message: ForwardLost, sender: ActorAddress) -> None:
        lost = message.forward.message
        if isinstance(lost, CommandRequested):
            node = message.forward.to_cell.partition("/")[0]
            what = "nothing was done" if message.is_unsent else "whether it was done is not known"
            self._answer_questions(self._questions.settled(lost.request_id, {"error": f"node {node} cannot be reached: {what}"}))

    # ---- questions to cells

    def _next_question_id(self) -> str:
        self._question_count += 1
        return f"question#{self._question_count}"

    def _wait_for(
        self,
        question_id: str,
        names: Iterable[str],
        asker: ActorAddress,
        request_id: str,
        deadline_s: float,
        outcome: dict[str, Any] | None = None,
    ) -> None:
        """Answer the asker when all of them have answered; see `Question`."""
        due_s = self.monotonic_s() + deadline_s
        question = Question(asker=asker, request_id=request_id, due_s=due_s, waiting=set(names), outcome=outcome)
        self._answer_questions(self._questions.ask(question_id, question))

    def _answer_questions(self, ended: Iterable[Question]) -> None:
        for question in ended:
            if question.outcome is None:
                self._report_status(question)
            else:
                self.send(question.asker, CommandAnswered(request_id=question.request_id, answer=question.outcome))
