"""Every patch and private call of Thespian's multiprocess base: who may speak to an actor, how its process lives and dies.

Thespian 4.0.1 listens on all interfaces and unpickles whatever arrives: anyone who reaches a port runs code. `harden` closes
that for every process forked afterwards. Nothing here imports Thespian at module level, because it reads its environment
when it is first imported: call `set_environment` before anything else of Thespian is imported.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import hashlib
import hmac
import importlib
import importlib.metadata
import itertools
import logging
import multiprocessing
import os
import pickle
import secrets
import signal
import stat
import struct
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
from setproctitle import setproctitle

THESPIAN_VERSION = "4.0.1"

KEY_SIZE_BYTES = 32
KEY_FILE_NAME = "actor-system.key"

MAX_PACKET_BYTES = 64 * 1024 * 1024  # ours; the gateway sends less than a tenth of that
MAX_HALF_RECEIVED_SOCKETS = 100  # ours: connections of a process whose first packet is not complete; the oldest are closed
MAX_RECEIVE_S = 30.0  # one packet must arrive within this time (Thespian: 7 min)
MAX_PACKET_AGE_S = 120.0  # four times the transmit timeout
REPLAY_WINDOW_PACKETS = 4096  # Thespian queues at most 1050 packets, so none is overtaken by more
MAX_KNOWN_SENDERS = 1024

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

# What the patches below replace or call; `check_thespian` looks for each.
_PROCESS_NAMES = {"MultiProcAdmin": "admin", "logger": "logger"}
"""What Thespian calls its own processes -> what `ps` and the status call them; an actor names itself when it is wired."""
ADMIN_TITLE = "mcp-gateway: admin"

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
    "thespian.system.transport.TCPTransport:TCPTransport._acceptNewIncoming",
    "thespian.system.transport.streamBuffer:ackDataErrPacket",
    "thespian.system.multiprocCommon:MultiProcAdmin",
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


class KeyFileUnsafe(Exception):
    """The key file could have been read or written by somebody else, or is damaged."""


# ---- before Thespian is imported


def set_environment(*, log_file: Path | None = None) -> None:
    """Set what Thespian reads from the environment when it is imported; values the user has set are kept.

    log_file: where Thespian itself writes of dropped and timed out transmits; the only place that names them.

    Raises: RuntimeError when it is too late, because Thespian's transport is imported already.
    """
    import sys

    if "thespian.system.transport" in sys.modules:
        raise RuntimeError("set_environment was called after Thespian was imported: it would have no effect")
    os.environ.setdefault("THESPIAN_TRANSMIT_TIMEOUT_PERIOD", "0:30")  # MM:SS; a hung peer blocks its sender for that long
    os.environ.setdefault("THESPLOG_FILE_MAXSIZE", str(1024 * 1024))
    if log_file is not None:
        os.environ.setdefault("THESPLOG_FILE", str(log_file))


# ---- key


def load_or_create_key(state_dir: Path) -> bytes:
    """Read the node's packet key, or make one; the same 32 bytes for all who call at the same time.

    Raises: KeyFileUnsafe when the file is not private to this user or not a key; OSError when it cannot be read or written.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / KEY_FILE_NAME
    try:
        return _read_key(path)
    except FileNotFoundError:
        _create_key(path)
        return _read_key(path)


def _read_key(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileUnsafe(f"{path}: cannot be opened as a plain file ({error.strerror})") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileUnsafe(f"{path}: is not a plain file")
        if status.st_uid != os.geteuid():
            raise KeyFileUnsafe(f"{path}: belongs to user id {status.st_uid}, this process runs as {os.geteuid()}")
        if status.st_mode & 0o077:
            raise KeyFileUnsafe(f"{path}: others may read or write it (mode {stat.S_IMODE(status.st_mode):04o}); delete it")
        key = file.read(KEY_SIZE_BYTES + 1)
    if len(key) != KEY_SIZE_BYTES:
        raise KeyFileUnsafe(f"{path}: is not a key of {KEY_SIZE_BYTES} bytes; delete it")
    return key


def _create_key(path: Path) -> None:
    """Write a fresh key unless somebody else is faster; a reader never sees half of it."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # O_EXCL, mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE_BYTES))
            file.flush()
            os.fsync(fd)
        os.link(temporary, path)
    except FileExistsError:
        pass  # the other's key counts
    finally:
        os.unlink(temporary)


# ---- who may speak to an actor


class PacketSeal:
    """Signs what this process sends and admits what was signed with the same key: once, in time, for one of its own ports.

    A sealed packet is: header tag (16 bytes), sender (8), counter (8), monotonic clock in ns (8), target port (2), body tag
    (16), body. The header tag covers the body's size, so a peer without the key cannot make us wait for, let alone store, a
    body. The tags are keyed BLAKE2b. Source: RFC 7693; the replay window follows RFC 4303 (ESP), section 3.4.3.

    The clock is shared by all processes of one machine: a system hardened like this does not span machines. No encryption.
    """

    _FIELDS = struct.Struct(">8sQQH")
    TAG_BYTES = 16
    HEADER_BYTES = TAG_BYTES + _FIELDS.size
    OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_SIZE_BYTES:
            raise ValueError(f"the packet key has {len(key)} bytes, at least {KEY_SIZE_BYTES} are needed")
        self._key = key
        self.begin_process()

    def begin_process(self) -> None:
        """Forget whom the parent process was: a forked child is a sender and receiver of its own."""
        self._sender = secrets.token_bytes(8)
        self._counter = itertools.count(1)
        self._own_ports: set[int] = set()
        self._windows: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # {sender: (highest counter, bits of those seen)}

    def add_own_port(self, port: int) -> None:
        self._own_ports.add(port)

    def seal(self, body: bytes, target_port: int) -> bytes:
        fields = self._FIELDS.pack(self._sender, next(self._counter), time.monotonic_ns(), target_port)
        header_tag = self._tag(b"header", struct.pack(">Q", len(body)), fields)
        return b"".join((header_tag, fields, self._tag(b"body", header_tag, body), body))

    def admits_header(self, header: bytes, body_size: int) -> bool:
        """Whether HEADER_BYTES announce a packet of body_size bytes that this process should receive."""
        header_tag, fields = header[: self.TAG_BYTES], header[self.TAG_BYTES :]
        if not hmac.compare_digest(header_tag, self._tag(b"header", struct.pack(">Q", body_size), fields)):
            return False
        sender, counter, sent_ns, port = self._FIELDS.unpack(fields)
        is_fresh = abs(time.monotonic_ns() - sent_ns) <= MAX_PACKET_AGE_S * 1e9
        return is_fresh and port in self._own_ports and not self._is_seen(sender, counter)

    def open(self, packet: bytes) -> bytes | None:
        """The body of a packet whose header was admitted, or None; a second packet with the same number is refused."""
        header, body = packet[: self.HEADER_BYTES], packet[self.OVERHEAD_BYTES :]
        expected = self._tag(b"body", header[: self.TAG_BYTES], body)
        if not hmac.compare_digest(packet[self.HEADER_BYTES : self.OVERHEAD_BYTES], expected):
            return None
        sender, counter, _, _ = self._FIELDS.unpack(header[self.TAG_BYTES :])
        if self._is_seen(sender, counter):  # the same packet over two connections at once
            return None
        self._mark_seen(sender, counter)
        return body

    def _tag(self, purpose: bytes, *parts: bytes) -> bytes:
        tag = hashlib.blake2b(key=self._key, digest_size=self.TAG_BYTES, person=purpose)
        for part in parts:
            tag.update(part)
        return tag.digest()

    def _is_seen(self, sender: bytes, counter: int) -> bool:
        highest, seen = self._windows.get(sender, (0, 0))
        behind = highest - counter
        return behind >= 0 and (behind >= REPLAY_WINDOW_PACKETS or bool(seen >> behind & 1))

    def _mark_seen(self, sender: bytes, counter: int) -> None:
        highest, seen = self._windows.pop(sender, (0, 0))
        if counter > highest:
            seen = (seen << min(counter - highest, REPLAY_WINDOW_PACKETS) | 1) & ((1 << REPLAY_WINDOW_PACKETS) - 1)
            highest = counter
        else:
            seen |= 1 << (highest - counter)
        self._windows[sender] = (highest, seen)
        if len(self._windows) > MAX_KNOWN_SENDERS:
            self._windows.popitem(last=False)


class SealedReceiveBuffer:
    """Takes the place of Thespian's ReceiveBuffer: nothing is stored before the header is admitted, nothing unpickled before
    the whole packet is.

    A refused packet reads as complete without content, which Thespian answers with an error and a closed socket; in the role
    of an acknowledgement, with another attempt.
    """

    seal: PacketSeal
    acknowledgements: dict[bytes, str]  # {pickled bytes: Thespian's constant}; they carry nothing and are compared, not unpickled

    _MAX_SIZE_DIGITS = len(str(MAX_PACKET_BYTES))

    def __init__(self, _unpickle: object = None) -> None:
        self._packet = bytearray()
        self._size: int | None = None
        self._is_admitted = False
        self._is_refused = False
        self._extra = b""
        self._content: tuple[Any, bytes] | None = None

    def addMore(self, data: bytes) -> None:
        if not data or self._is_refused:
            return
        self._packet += data
        if self._size is None and not self._find_size():
            return
        assert self._size is not None
        if len(self._packet) > self._size:
            self._extra += bytes(self._packet[self._size :])
            del self._packet[self._size :]
        if not self._is_admitted:
            self._judge_header(self._size)

    def is_empty(self) -> bool:
        return self._size is None and not self._packet

    def remainingAmount(self) -> int:
        if self._size is None:
            return 20  # as Thespian: a size and the first bytes
        if not self._is_admitted:
            return min(self._size, PacketSeal.HEADER_BYTES) - len(self._packet)
        return self._size - len(self._packet)

    def isDone(self) -> bool:
        return self._is_refused or (self._size is not None and len(self._packet) == self._size)

    def removeExtra(self) -> None:
        self._extra = b""

    def completed(self) -> tuple[Any, bytes] | None:
        """Content and what came after it, or None; Thespian may ask twice, so the verdict is kept."""
        if self._is_refused or not self.isDone():
            return None
        if self._content is None:
            packet = bytes(self._packet)
            if packet in self.acknowledgements:
                self._content = (self.acknowledgements[packet], b"")
            else:
                body = self.seal.open(packet) if len(packet) > PacketSeal.OVERHEAD_BYTES else None
                if body is None:
                    self._refuse()
                    return None
                self._content = (pickle.loads(body), b"")
        return self._content[0], self._extra

    def _find_size(self) -> bool:
        digits, mark, rest = self._packet.partition(b">")
        if not mark:
            if len(digits) > self._MAX_SIZE_DIGITS or (digits and not digits.isdigit()):
                self._refuse()
            return False
        # No sign, no space: a negative size would make recv() raise and end the process.
        if not digits.isdigit() or len(digits) > self._MAX_SIZE_DIGITS or not 0 < int(digits) <= MAX_PACKET_BYTES:
            self._refuse()
            return False
        self._size, self._packet = int(digits), rest
        return True

    def _judge_header(self, size: int) -> None:
        if size <= PacketSeal.OVERHEAD_BYTES:
            self._is_admitted = True  # at most an acknowledgement; `completed` compares
            if not any(len(each) == size for each in self.acknowledgements):
                self._refuse()
        elif len(self._packet) >= PacketSeal.HEADER_BYTES:
            header = bytes(self._packet[: PacketSeal.HEADER_BYTES])
            self._is_admitted = self.seal.admits_header(header, size - PacketSeal.OVERHEAD_BYTES)
            if not self._is_admitted:
                self._refuse()

    def _refuse(self) -> None:
        self._is_refused = True
        self._packet.clear()
        self._extra = b""


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
    _hardened = _Hardened(key, bind)


def key_in_use() -> bytes | None:
    """The key this process was hardened with, itself or by an ancestor; None before harden()."""
    return None if _hardened is None else _hardened.key


def _patch_addresses(bind: str) -> None:
    from thespian.system.transport import IPBase

    IPBase.thisSystem.add_local_addr(bind)
    IPBase.IPActorAddress.bindArgs = property(lambda address: ((bind, address.sockname[1]),))


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
        return b"%d>%b" % (len(packet), packet)

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


def child_pid_of(actor: Any) -> int | None:
    """Pid of the child that the actor has created last; None in-process."""
    children = _children(actor)
    return int(children[-1].childProc.pid) if children else None


def _children(actor: Any) -> list[Any]:
    """Thespian's records of the actor's child processes, oldest first."""
    return getattr(actor._myRef, "_child_procs", [])


# ---- sending


@functools.cache
def _transmission() -> tuple[Any, Any]:
    from thespian.system.transport import SendStatus, TransmitIntent

    return TransmitIntent, SendStatus


def send_with_result(
    actor: Any, target: Any, message: object, on_done: Callable[[str | None], None], timeout_s: float
) -> None:
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
