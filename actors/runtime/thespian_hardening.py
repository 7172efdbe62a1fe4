"""Every patch and private call of Thespian's multiprocess base: who may speak to an actor, how its process lives and dies.

Thespian 4.0.1 listens on all interfaces and unpickles whatever arrives: anyone who reaches a port runs code. `harden` closes
that for every process forked afterwards. Nothing here imports Thespian at module level, because it reads its environment
when it is first imported: call `set_environment` before anything else of Thespian is imported.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import importlib
import importlib.metadata
import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
from setproctitle import setproctitle

from .fork_server import ForkServer, ForkServerContext, ServerArguments, take_arguments
from .packet_seal import MAX_PACKET_BYTES, PacketSeal, SealedReceiveBuffer

THESPIAN_VERSION = "4.0.1"

MAX_HALF_RECEIVED_SOCKETS = 100  # ours: connections of a process whose first packet is not complete; the oldest are closed
MAX_RECEIVE_S = 30.0  # one packet must arrive within this time (Thespian: 7 min)

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_PROCESS_NAMES = {"MultiProcAdmin": "admin", "logger": "logger"}
"""What Thespian calls its own processes -> what `ps` and the status call them; an actor names itself when it is wired."""
ADMIN_TITLE = f"mcp-gateway: {_PROCESS_NAMES['MultiProcAdmin']}"

# What the patches below replace or call; `check_thespian` looks for each.
_NEEDED_ATTRIBUTES = (
    "thespian.system.transport.IPBase:IPActorAddress.bindArgs",
    "thespian.system.transport.IPBase:thisSystem.add_local_addr",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.addMore",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.completed",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.isDone",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.is_empty",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.remainingAmount",
    "thespian.system.transport.TCPTransport:ReceiveBuffer.removeExtra",
    "thespian.system.transport.TCPTransport:ackMsg",
    "thespian.system.transport.TCPTransport:ackDataErrMsg",
    "thespian.system.transport.TCPTransport:ackPacket",
    "thespian.system.transport.TCPTransport:MAX_INCOMING_SOCKET_PERIOD",
    "thespian.system.transport.TCPTransport:TCPTransport.__init__",
    "thespian.system.transport.TCPTransport:TCPTransport.serializer",
    "thespian.system.transport.TCPTransport:TCPTransport.childResetFileNumList",
    "thespian.system.multiprocCommon:MultiProcReplicator.init_replicator",
    "thespian.system.transport.TCPTransport:TCPTransport._acceptNewIncoming",
    "thespian.system.transport.streamBuffer:ackDataErrPacket",
    "thespian.system.multiprocCommon:MultiProcAdmin",
    "thespian.system.multiprocCommon:MultiProcReplicator._childExited",
    "thespian.system.multiprocCommon:MultiProcReplicator.childDied",
    "thespian.system.multiprocCommon:MultiProcManager.run",
    "thespian.system.multiprocCommon:MultiProcManager._send_intent",
    "thespian.system.multiprocCommon:startupASLogger",
    "thespian.system.multiprocCommon:setProcName",
    "thespian.system.logdirector:setProcName",
    "thespian.system.transport:TransmitIntent",
    "thespian.system.transport:SendStatus.Sent",
    "thespian.system.transport:SendStatus.DeadTarget",
)


class UnsupportedThespian(Exception):
    """The installed Thespian is not the one these patches were written for: a node must not start unhardened."""


# ---- before Thespian is imported


def set_environment(*, log_file: Path | None = None) -> None:
    """Set what Thespian reads from the environment when it is imported; values the user has set are kept.

    log_file: where Thespian itself writes of dropped and timed out transmits; the only place that names them.

    Raises: RuntimeError when it is too late, because Thespian's transport is imported already.
    """
    if "thespian.system.transport" in sys.modules:
        raise RuntimeError("set_environment was called after Thespian was imported: it would have no effect")
    os.environ.setdefault("THESPIAN_TRANSMIT_TIMEOUT_PERIOD", "0:30")  # MM:SS; a hung peer blocks its sender for that long
    os.environ.setdefault("THESPLOG_FILE_MAXSIZE", str(1024 * 1024))
    if log_file is not None:
        os.environ.setdefault("THESPLOG_FILE", str(log_file))


# ---- the patches


@attrs.define
class _Hardened:
    """What harden() has done in this process and its ancestors."""

    key: bytes
    bind: str


_hardened: _Hardened | None = None
_logging_root = logging.root
_logging_manager = logging.Logger.manager


def check_thespian() -> None:
    """Make sure that the patches fit.

    Raises: UnsupportedThespian naming the version or every attribute that is missing.
    """
    version = importlib.metadata.version("thespian")
    if version != THESPIAN_VERSION:
        raise UnsupportedThespian(f"Thespian {version} is installed, the patches are for {THESPIAN_VERSION}")
    missing = []
    for needed in _NEEDED_ATTRIBUTES:
        module_name, _, path = needed.partition(":")
        try:
            functools.reduce(getattr, path.split("."), importlib.import_module(module_name))
        except (ImportError, AttributeError):
            missing.append(needed)
    if missing:
        raise UnsupportedThespian(f"Thespian {version} lacks {', '.join(missing)}")


def harden(key: bytes, bind: str = "127.0.0.1") -> None:
    """Patch Thespian in this process and all that are forked from it; call before ActorSystem(), also to attach to one.

    Every port listens on `bind` only; every packet must be sealed with `key`; the Admin survives the death of its logger;
    actor and logger processes pass through `prepare_process`. Needs the fork start method, Thespian's default.

    Raises: UnsupportedThespian; RuntimeError when hardened already with another key or address; ValueError for a short key.
    """
    global _hardened, _logging_root, _logging_manager
    check_thespian()
    _logging_root, _logging_manager = logging.root, logging.Logger.manager
    if _hardened is not None:
        if _hardened != _Hardened(key, bind):
            raise RuntimeError("this process is hardened already, with another key or address")
        return
    seal = PacketSeal(key)
    os.environ["THESPIAN_BASE_IPADDR"] = bind  # the address that is advertised; read for each socket
    _patch_addresses(bind)
    _patch_packets(seal)
    _patch_processes()
    _patch_log()
    _hardened = _Hardened(key, bind)


def key_in_use() -> bytes | None:
    """The key this process was hardened with, itself or by an ancestor; None before harden()."""
    return None if _hardened is None else _hardened.key


def _patch_addresses(bind: str) -> None:
    from thespian.system.transport import IPBase

    IPBase.thisSystem.add_local_addr(bind)
    IPBase.IPActorAddress.bindArgs = property(lambda address: ((bind, address.sockname[1]),))


def _patch_log() -> None:
    """Name Thespian's log file once: it looks for a temporary directory each time otherwise, and fails where there is none."""
    from thespian.system import utilis

    if (path := os.environ.get("THESPLOG_FILE")) is not None:
        utilis._thesplog_file, utilis._thesplog_old_file = path, f"{path}.old"


def _patch_packets(seal: PacketSeal) -> None:
    from thespian.system.transport import TCPTransport as tcp
    from thespian.system.transport.streamBuffer import ackDataErrPacket

    SealedReceiveBuffer.seal = seal
    SealedReceiveBuffer.acknowledgements = {
        message.partition(b">")[2]: constant
        for message, constant in ((tcp.ackMsg, tcp.ackPacket), (tcp.ackDataErrMsg, ackDataErrPacket))
    }
    os.register_at_fork(after_in_child=seal.begin_process)

    def serialize(transport: Any, intent: Any) -> bytes:
        body = pickle.dumps((transport.myAddress, intent.message), pickle.HIGHEST_PROTOCOL)
        packet = seal.seal(body, intent.targetAddr.addressDetails.sockname[1])
        if len(packet) > MAX_PACKET_BYTES:
            raise ValueError(f"a message of {len(packet)} bytes is too large, at most {MAX_PACKET_BYTES} can be sent")
        return b"".join((b"%d>" % len(packet), packet))

    original_init, original_accept = tcp.TCPTransport.__init__, tcp.TCPTransport._acceptNewIncoming

    def init(transport: Any, *arguments: Any) -> None:
        original_init(transport, *arguments)
        seal.add_own_port(transport.socket.getsockname()[1])

    def accept(transport: Any) -> None:
        original_accept(transport)
        # Half-received packets only; a connection that has proved itself is kept elsewhere.
        while len(transport._incomingSockets) > MAX_HALF_RECEIVED_SOCKETS:
            transport._incomingSockets.pop(next(iter(transport._incomingSockets))).close()

    tcp.ReceiveBuffer = SealedReceiveBuffer
    tcp.MAX_INCOMING_SOCKET_PERIOD = timedelta(seconds=MAX_RECEIVE_S)
    tcp.TCPTransport.serializer = serialize
    tcp.TCPTransport.__init__ = init
    tcp.TCPTransport._acceptNewIncoming = accept


def _patch_processes() -> None:
    from thespian.system import logdirector, multiprocCommon

    # 4.0.1 reads `self.logDefs` where only `self.logdefs` exists, so the Admin dies with its logger.
    multiprocCommon.MultiProcAdmin.logDefs = property(lambda admin: admin.logdefs)
    # 4.0.1 forgets all children that are dead when it hears of one: a second that dies meanwhile would never be told of. Each
    # death is a SIGCHLD, whose handling tells of every dead child and forgets it then.
    multiprocCommon.MultiProcReplicator._childExited = lambda replicator, address: None
    original_run, original_logger = multiprocCommon.MultiProcManager.run, multiprocCommon.startupASLogger

    def run(manager: Any) -> Any:
        prepare_process()  # Thespian's own signal handlers are in place by now, the actor does not yet exist
        return original_run(manager)

    @functools.wraps(original_logger)
    def start_logger(*arguments: Any) -> Any:
        # An orphaned logger would hold the Admin's port for ever.
        _die_with_parent(signal.SIGKILL)
        return original_logger(*arguments)

    def name_process(name: str, _address: Any) -> None:
        setproctitle(f"mcp-gateway: {_PROCESS_NAMES.get(name, name)}")

    multiprocCommon.MultiProcManager.run = run
    multiprocCommon.startupASLogger = start_logger
    multiprocCommon.setProcName = logdirector.setProcName = name_process


# ---- children with the code on disk


def fork_server(entry: str, context: Any) -> ForkServer:
    """Have a fresh interpreter load the code that is on disk; once it has, `fork_children_from` has children made of it.

    entry:   module that it runs, with the arguments that `ForkServer` says; it calls `begin_fork_server` first.
    context: what that module loads by.
    """
    assert _hardened is not None
    return ForkServer(entry, ServerArguments(_hardened.key, os.getpid(), context))


def begin_fork_server(descriptor: int) -> ServerArguments:
    """Read what this process was given, and die with its parent from here on."""
    arguments = take_arguments(descriptor)
    _die_with_parent(signal.SIGKILL)
    if os.getppid() != arguments.parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)  # it died before the kernel knew of our wish
    return arguments


def fork_children_from(actor: Any, server: ForkServer) -> None:
    """From now on each child of this actor is forked from there, not from this process; what runs is left as it is."""
    actor._myRef.mpcontext = ForkServerContext(server)
    actor._myRef.transport.childResetFileNumList = list  # what a child closes that was forked from here: it has none of them


# ---- how a process lives and dies


def prepare_process(pdeathsig: signal.Signals = signal.SIGKILL) -> None:
    """Make this actor process mortal and its log lines cheap; `harden` has it called in every actor process.

    pdeathsig: what the kernel sends this process when its parent process dies.
    """
    # Thespian handles every signal in Python: a real segfault would then return to its cause and spin for ever.
    faulthandler.disable()  # before SIG_DFL, because it puts back the handlers that it once found
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.enable()  # after SIG_DFL, because it goes on with the handler that it finds
    _die_with_parent(pdeathsig)
    # Thespian's log forwarder costs 0.4 to 2 ms a record and shares the transmit queue; the inherited handlers write at once.
    logging.root = logging.Logger.root = _logging_root
    logging.Logger.manager = _logging_manager


def _die_with_parent(number: signal.Signals) -> None:
    _prctl(_PR_SET_PDEATHSIG, int(number))
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os.kill(os.getpid(), number)  # it died before the kernel knew of our wish


def become_subreaper() -> None:
    """Adopt orphaned descendants of this process, so that the launcher sees, finds and reaps all of the node."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error_number = ctypes.get_errno()
        raise OSError(error_number, f"prctl({option}): {os.strerror(error_number)}")


class ChildProcess:
    """The process of a child actor; never signals a process that has merely inherited its pid."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def is_alive(self) -> bool:
        """Whether it has not ended; reaps it if it has."""
        return bool(self._process.is_alive())

    def kill(self) -> None:
        """Send SIGKILL unless it has ended."""
        self._process.kill()

    def end_text(self) -> str:
        """How it ended ("killed by SIGSEGV", "exit code 1"), or "alive"."""
        code = self._process.exitcode
        if code is None:
            return "alive"
        if code < 0:
            try:
                return f"killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"killed by signal {-code}"
        return f"exit code {code}"


def create_child(actor: Any, actor_class: type) -> tuple[Any, ChildProcess | None]:
    """Create a child actor; its address, and its process on a multiprocess base (None in-process or when none could start)."""
    before = len(_children(actor))
    address = actor.createActor(actor_class)
    children = _children(actor)
    return address, ChildProcess(children[-1].childProc) if len(children) > before else None


def _children(actor: Any) -> list[Any]:
    """Thespian's records of the actor's child processes, oldest first."""
    return getattr(actor._myRef, "_child_procs", [])


# ---- sending


@functools.cache
def _transmission() -> tuple[Any, Any]:
    from thespian.system.transport import SendStatus, TransmitIntent

    return TransmitIntent, SendStatus


def send_with_result(actor: Any, target: Any, message: object, on_done: Callable[[str | None], None], timeout_s: float) -> None:
    """Send from an actor of the multiprocess base and learn what became of it.

    on_done: called once, in the actor's thread, outside of any handler; None when the target's transport has taken the
        message (its handler has not run yet), else why not: "dead target", "expired", "failed", "rejected".
    timeout_s: after this time Thespian stops trying.
    """
    transmit_intent, send_status = _transmission()

    def done(status: Any, _intent: Any) -> None:
        if status:
            on_done(None)
        elif status == send_status.DeadTarget:
            on_done("dead target")
        elif status == send_status.BadPacket:
            on_done("rejected")
        else:
            on_done("expired" if status == send_status.Expired else "failed")

    period = timedelta(seconds=timeout_s)
    actor._myRef._send_intent(transmit_intent(target, message, onSuccess=done, onError=done, maxPeriod=period))
