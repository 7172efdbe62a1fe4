"""stdio servers: child processes that speak in lines, each in a process group of its own, none of which outlives the gateway.

Source: MCP 2025-11-25, basic/transports "stdio" and basic/lifecycle "Shutdown"; 2026-07-28, basic/transports/stdio.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamConversation
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.framing.line_splitter import LineSplitter, LongLine
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .message_pipe import NeverOpens, PipeClosed, TooLarge
from .pipe_conversation import IDLE_S, PipeConversation
from .process_guard import PROCESS_GUARD, end_group

_logger = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 300.0
"""The first start by `npx -y` or `uvx` downloads the server: for minutes, on a slow line."""

_QUIT_S: Final = 1.0  # after its input has ended; the end of a whole cell waits for no longer than both together
_TERMINATE_S: Final = 0.7
_LAST_WORDS_S: Final = 0.2  # a process has ended, but a child of its own holds its output open
_STATUS_S: Final = 1.0  # a process has closed its output: it is ending, which takes it a while on a busy machine
_LINES_AHEAD: Final = 64
_BYTES_AHEAD: Final = 1_048_576
_KILLED_S: Final = 5.0
_LOG_LINE_BYTES: Final = 1_000
_ERROR_BYTES_PER_S: Final = 1_048_576
_SHORTEST_SECRET: Final = 6
_YOUNG_S: Final = 10.0  # a process that ends earlier may be one of a crash loop
_REMEMBERED_LINES: Final = 200
_LAST_WORDS: Final = 200
_NUMBERS: Final = re.compile(r"(?:0x)?[0-9a-fA-F]*[0-9][0-9a-fA-F]*")
_WORD: Final = re.compile(r"\w\w")
# What a server finds in its environment besides its own `env`: who and where it is, and how to reach the world. The rest of
# ours may hold secrets, and settings of our own that would mislead it.
_INHERITED: Final = re.compile(
    r"HOME|LANG|LANGUAGE|LC_[A-Z]+|LOGNAME|NODE_EXTRA_CA_CERTS|PATH|SHELL|SSL_CERT_(?:DIR|FILE)|TERM|TMPDIR|TZ|USER|XDG_[A-Z_]+"
    r"|(?:ALL|FTP|HTTP|HTTPS|NO)_PROXY|(?:all|ftp|http|https|no)_proxy"
)


class StdioUpstream:
    """Registry strategy for backends with a command.

    idle_process_s: without anything to do for so long, the process of one session is ended; 0 keeps it.
    """

    name = "stdio_upstream"
    schemes = frozenset({"stdio"})

    def __init__(self, idle_process_s: float = 0.0) -> None:
        self._idle_process_s = idle_process_s or float("inf")

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        backend, name = target.backend, target.replica_id
        log = ServerLog(name, backend)
        return PipeConversation(
            name,
            lambda: ChildProcess(backend, name, target.max_message_bytes, log),
            backend=backend.name,
            max_pipes=target.max_connections,
            era=era or ServerEra(backend.protocol),
            longest_call_s=backend.request_timeout,
            start_timeout_s=START_TIMEOUT_S,
            idle_s=max(IDLE_S, self._idle_process_s),
            private_idle_s=self._idle_process_s,
            trouble="crash loop",
        )


class ChildProcess:
    """A `MessagePipe`: one running server. log: shared with the processes of the same server."""

    def __init__(self, backend: BackendSettings, name: str, max_message_bytes: int, log: ServerLog | None = None) -> None:
        self._backend = backend
        self._name = name
        self._log = _ProcessLog(log or ServerLog(name, backend))
        self._output = _Output(max_message_bytes)
        self._errors = _ErrorOutput(self._log)
        self._input = _Input(self._on_input_lost)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._exited = asyncio.Event()
        self._is_closing = False

    async def open(self) -> None:
        self._process = process = self._start()
        PROCESS_GUARD.watch(process.pid)
        loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        loop.add_reader(self._pidfd, self._on_exit)
        await loop.connect_write_pipe(lambda: self._input, process.stdin)
        await loop.connect_read_pipe(lambda: self._output, process.stdout)
        await loop.connect_read_pipe(lambda: self._errors, process.stderr)
        self._log.begin(process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        backend = self._backend
        folder = os.path.expanduser(backend.cwd)
        try:
            return subprocess.Popen(
                [os.path.expanduser(backend.command[0]), *backend.command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env={**inherited_environment(os.environ), **backend.env, **PROCESS_GUARD.environment},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            if not os.path.isdir(folder):  # the error tells of the program in any case
                raise NeverOpens(f"its folder {folder!r} is not there") from None
            is_lasting = isinstance(error, FileNotFoundError | PermissionError)  # others pass: no memory, no descriptors
            kind = NeverOpens if is_lasting else PipeClosed
            raise kind(f"{backend.command[0]!r} cannot be started: {reason}") from None

    # ---- messages

    async def send(self, message: bytes, on_begin: Callable[[], None]) -> None:
        if b"\n" in message or b"\r" in message:  # JSON may have them between its tokens, and nowhere else
            message = message.replace(b"\n", b" ").replace(b"\r", b" ")
        # A child that the process has left may hold its input open for a moment: nobody reads what is written then.
        if self._exited.is_set() or not await self._input.write(message + b"\n", on_begin):
            raise await self._closed()

    async def receive(self) -> bytes | TooLarge:
        while (line := await self._output.next_line()) is not None:
            if isinstance(line, LongLine):
                return TooLarge(line.head, line.tail)
            line = line.removeprefix(codecs.BOM_UTF8)  # some programs begin their output with it
            if line.startswith((b"{", b"[")):
                return line
            self._log.write("skipped output that is no message", line)
        with contextlib.suppress(TimeoutError):  # a server may close its output and live on
            await asyncio.wait_for(self._exited.wait(), _STATUS_S)
        raise await self._closed()

    async def _closed(self) -> PipeClosed:
        """How it has ended, with what it has said of that itself."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return PipeClosed("the server has closed its input or output")
        with contextlib.suppress(TimeoutError):  # a child that the process has left may hold it open
            await asyncio.wait_for(self._errors.is_over.wait(), _LAST_WORDS_S)
        how = f"has ended with exit status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        words = self._log.last_words
        return PipeClosed(f"the server's process {how}{': ' if words else ''}{words}")

    # ---- the end

    def _on_exit(self) -> None:
        """The process has ended, and its group with it. Until it is reaped, nobody else can get the group's number."""
        process = self._process
        assert process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        end_group(process.pid)
        PROCESS_GUARD.forget(process.pid)
        process.poll()
        if not self._is_closing:
            self._log.end()
        self._exited.set()
        self._output.end_after(_LAST_WORDS_S)

    def _on_input_lost(self) -> None:
        if not self._is_closing:  # else it may finish what it is saying: some crash where nobody takes it
            self._output.end_after(_LAST_WORDS_S)

    async def close(self) -> None:
        """Its input ends, then SIGTERM, then SIGKILL, with time to leave in between."""
        process = self._process
        if process is None:
            return
        self._is_closing = True
        try:
            self._input.close()
            if not await self._has_left(_QUIT_S):
                end_group(process.pid, signal.SIGTERM)
                await self._has_left(_TERMINATE_S)
        finally:
            if not self._exited.is_set():
                end_group(process.pid)
            self._input.abort()
            self._output.close()
            self._errors.close()
            # Last: of a file that is closed while the loop watches it the number stays watched, and its next owner is never read.
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                stream.close()
        if not await self._has_left(_KILLED_S):
            _logger.error("%s: process %d cannot be killed", self._name, process.pid)

    async def _has_left(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout_s)
        return self._exited.is_set()


class _Input(asyncio.BaseProtocol):
    """What the server reads: one whole message after the other, the next one once it takes what came before."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._transport: asyncio.WriteTransport | None = None
        self._turn = asyncio.Lock()
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        self._may_write.set()
        self._on_lost()

    async def write(self, line: bytes, on_begin: Callable[[], None]) -> bool:
        """False where the server reads no more."""
        async with self._turn:
            await self._may_write.wait()
            if self._transport is None or self._transport.is_closing():
                return False
            on_begin()
            self._transport.write(line)
            return True

    def close(self) -> None:
        """End the input once all is read that was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Output(asyncio.Protocol):
    """What the server writes, in lines; read no further ahead than a few of them."""

    def __init__(self, max_line_bytes: int) -> None:
        self._splitter = LineSplitter(max_line_bytes)
        self._lines: deque[bytes | LongLine] = deque()
        self._size_bytes = 0
        self._news = asyncio.Event()
        self._is_over = False
        self._is_paused = False
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for line in self._splitter.feed(data):
            self._lines.append(line)
            self._size_bytes += _size_bytes(line)
        self._news.set()
        if len(self._lines) >= _LINES_AHEAD or self._size_bytes >= _BYTES_AHEAD:
            assert self._transport is not None
            self._transport.pause_reading()
            self._is_paused = True

    def connection_lost(self, _: Exception | None) -> None:
        if line := self._splitter.rest():
            self._lines.append(line)
        self._transport = None
        self._is_over = True
        self._news.set()

    def end_after(self, delay_s: float) -> None:
        """Expect no more, even where the process has left its output to one of its own; what is there already is read."""
        asyncio.get_running_loop().call_later(delay_s, self._end)

    def _end(self) -> None:
        if self._is_paused:
            self.end_after(_LAST_WORDS_S)
        elif self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def next_line(self) -> bytes | LongLine | None:
        """None at the end."""
        while not self._lines:
            if self._is_over:
                return None
            if self._is_paused and self._transport is not None:
                self._is_paused = False
                self._transport.resume_reading()
            self._news.clear()
            await self._news.wait()
        line = self._lines.popleft()
        self._size_bytes -= _size_bytes(line)
        return line


class _ErrorOutput(asyncio.Protocol):
    """What the server writes to its standard error; a flood of it is read only so fast, which slows the server alone."""

    def __init__(self, log: _ProcessLog) -> None:
        self._log = log
        self._splitter = LineSplitter(_LOG_LINE_BYTES)
        self._read_bytes = 0
        self._transport: asyncio.ReadTransport | None = None
        self.is_over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for line in self._splitter.feed(data):
            self._log.write_error(line.head + b" ..." if isinstance(line, LongLine) else line)
        if not self._read_bytes:
            asyncio.get_running_loop().call_later(1.0, self._begin_second)
        self._read_bytes += len(data)
        if self._read_bytes >= _ERROR_BYTES_PER_S and self._transport is not None:
            self._transport.pause_reading()

    def _begin_second(self) -> None:
        if self._read_bytes >= _ERROR_BYTES_PER_S and self._transport is not None:
            self._transport.resume_reading()
        self._read_bytes = 0

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if line := self._splitter.rest():
            self._log.write_error(line.head if isinstance(line, LongLine) else line)
        self.is_over.set()


class ServerLog:
    """Writes what the processes of a server say beside their messages: not too much of it, nothing of the secrets that they were
    given, and nothing of what each of a crash loop says again.
    """

    def __init__(self, name: str, backend: BackendSettings) -> None:
        self._name = name
        self._secrets = sorted((value for value in backend.env.values() if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._budget = LogBudget()
        self.known: frozenset[str] = frozenset()
        """What the last process that ended young had said, without its numbers."""

    def text_of(self, line: bytes) -> str:
        text = line[:_LOG_LINE_BYTES].decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def write(self, what: str, text: str) -> None:
        left_out = self._budget.take(asyncio.get_running_loop().time())
        if left_out is None:
            return
        before = f" ({left_out} lines before it were left out)" if left_out else ""
        _logger.info("%s: %s%s: %s", self._name, what, before, text)

    def write_start(self, process_id: int) -> None:
        _logger.log(logging.DEBUG if self.known else logging.INFO, "%s: started process %d", self._name, process_id)


class _ProcessLog:
    """What one process says."""

    def __init__(self, log: ServerLog) -> None:
        self._log = log
        self._young_until_s = 0.0
        self._said: set[str] = set()
        self._last_error = ""

    def begin(self, process_id: int) -> None:
        self._young_until_s = asyncio.get_running_loop().time() + _YOUNG_S
        self._log.write_start(process_id)

    @property
    def _is_young(self) -> bool:
        return asyncio.get_running_loop().time() < self._young_until_s

    def write(self, what: str, line: bytes) -> None:
        text = self._log.text_of(line)
        if self._is_young and len(self._said) < _REMEMBERED_LINES:
            said = _NUMBERS.sub("#", text)
            self._said.add(said)
            if said in self._log.known:
                return
        self._log.write(what, text)

    def write_error(self, line: bytes) -> None:
        self.write("stderr", line)
        text = self._log.text_of(line)
        if sums_up(text):
            self._last_error = text

    @property
    def last_words(self) -> str:
        """What its last error was, on one line; "" where it said nothing."""
        return "".join(each if each.isprintable() else " " for each in self._last_error).strip()[:_LAST_WORDS]

    def end(self) -> None:
        """The process has ended by itself."""
        self._log.known = frozenset(self._said) if self._is_young else frozenset()


def sums_up(line: str) -> bool:
    """Whether a line may say what an error is: it is not indented and has words.

    Python ends a traceback with its message; Node.js follows it up with a stack, braces and its own version.
    """
    return bool(line[:1].strip() and _WORD.search(line)) and not line.startswith("Node.js v")


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a server gets of our own environment."""
    return {name: value for name, value in environment.items() if _INHERITED.fullmatch(name)}


def _size_bytes(line: bytes | LongLine) -> int:
    return len(line) if isinstance(line, bytes) else len(line.head) + len(line.tail)
