"""Processes with the code that is on disk: a fresh interpreter loads it once, and is what they are forked from.

They share its memory, as those before them share the launcher's. They are no children of who asks for them, so what a parent has
of its children is carried over: SIGCHLD and the exit code when one ends, and by way of the server they die with who asked.
Source: multiprocessing's own `forkserver`, whose processes do neither.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import popen_fork, util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Final

import attrs

_START_S: Final = 4.0
"""For what blocks the one who asks: a process from a server that has loaded all."""
_LOADING_S: Final = 1.5
"""For one that had to be started again. It goes on loading: whoever asks once more finds it further."""
_MOST_BYTES: Final = 2**17
_EXIT_TOLD_S: Final = 0.2
"""A process is seen to have ended before its parent has reaped it and told how."""
_END_S: Final = 1.0
"""For the kernel to end processes, in which there may be gigabytes, once their server has ended."""


class ForkServerGone(Exception):
    """It has ended, or does not answer, and its processes end with it; or it cannot start another one now."""


@attrs.frozen
class ServerArguments:
    """What the interpreter is given that becomes the server, in a memory file that no other process can open.

    key: to harden Thespian with. parent_pid: whom it dies with. context: what its entry module loads by.
    """

    key: bytes = attrs.field(repr=False)
    parent_pid: int
    context: Any


# ---- who asks


class ForkServer:
    """One server and its processes, as the process that has started it sees them.

    entry: module that it runs, with the numbers of two descriptors as its arguments: `ServerArguments`, and for `serve_forks`.
    """

    def __init__(self, entry: str, arguments: ServerArguments) -> None:
        self._entry = entry
        self._arguments = arguments
        self._exit_codes: dict[int, int] = {}
        self._spawn()

    def _spawn(self) -> None:
        self._is_ready = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptor = os.memfd_create("mcp-gateway")
        with theirs, open(descriptor, "wb") as file:
            pickle.dump(self._arguments, file)
            file.flush()
            os.lseek(descriptor, 0, os.SEEK_SET)
            command = [sys.executable, "-P", "-m", self._entry, str(descriptor), str(theirs.fileno())]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(descriptor, theirs.fileno()))

    def is_ready(self) -> bool:
        """Whether it has loaded the code.

        Raises: ForkServerGone
        """
        while not self._is_ready and self._next_report(0.0) is not None:
            pass
        return self._is_ready

    def close(self) -> None:
        """Ask for no more: it ends when its processes have."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """And with it all of its processes."""
        self.process.kill()
        self.process.wait()

    def fork(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[int, int]:
        """Start a process that calls this; (its pid, a pidfd of it). A server that has died is started again.

        Raises: ForkServerGone, also where it has not loaded all yet
        """
        if self.has_ended():
            self._socket.close()
            self._spawn()
        self._wait_until_ready()
        deadline_s = time.monotonic() + _START_S
        try:
            self._socket.send(pickle.dumps((target, arguments)))
        except OSError as error:
            raise ForkServerGone(f"the fork server takes nothing: {error.strerror}") from error
        while (left_s := deadline_s - time.monotonic()) > 0:
            report, pidfd = self._next_report(left_s) or ([], -1)
            if report[:1] == ["started"]:
                return report[1], pidfd
            if report[:1] == ["refused"]:
                raise ForkServerGone(f"the fork server cannot start a process: {report[1]}")
        self.kill()
        raise ForkServerGone(f"the fork server has not answered within {_START_S:g} s")

    def _wait_until_ready(self) -> None:
        """Raises: ForkServerGone"""
        deadline_s = time.monotonic() + _LOADING_S
        while not self._is_ready:
            if self._next_report(max(0.0, deadline_s - time.monotonic())) is None:
                raise ForkServerGone("the fork server has not loaded the code yet")

    def exit_code(self, pid: int) -> int | None:
        """Of a process that has ended; None where it has not been told, for the server has ended, too."""
        deadline_s = time.monotonic() + _EXIT_TOLD_S
        with contextlib.suppress(ForkServerGone):
            while pid not in self._exit_codes and (left_s := deadline_s - time.monotonic()) > 0:
                self._next_report(left_s)
        return self._exit_codes.pop(pid, None)

    def _next_report(self, timeout_s: float) -> tuple[list[Any], int] | None:
        """What the server says next, with the descriptor that comes with it; None where that is nothing within this time.

        Raises: ForkServerGone
        """
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _MOST_BYTES, 1)
        except OSError as error:
            raise ForkServerGone(f"the fork server cannot be heard: {error.strerror}") from error
        if not data:
            raise ForkServerGone("the fork server has ended")
        report: list[Any] = json.loads(data)
        if report[0] == "ready":
            self._is_ready = True
        elif report[0] == "ended":
            self._exit_codes[report[1]] = report[2]
        return report, next(iter(descriptors), -1)


class ForkServerContext(BaseContext):
    """A start method of multiprocessing, for this one server."""

    _name = "fork"  # for what its processes start themselves

    def __init__(self, server: ForkServer) -> None:
        super().__init__()
        self._server = server

    def Process(self, *arguments: Any, **named: Any) -> BaseProcess:
        return _ForkedProcess(self._server, *arguments, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere it is the start method that its processes have."""
        return multiprocessing.get_context, ("fork",)


class _ForkedProcess(BaseProcess):
    def __init__(self, server: ForkServer, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._server = server

    def _Popen(self, process: Any) -> _ForkedPopen:
        return _ForkedPopen(self._server, process)


class _ForkedPopen(popen_fork.Popen):
    """A process of the server, as its parent would see it. sentinel: its pidfd, so that no other process is ever meant."""

    def __init__(self, server: ForkServer, process: Any) -> None:
        self._server = server
        super().__init__(process)

    def _launch(self, process_obj: Any) -> None:
        self.pid, self.sentinel = self._server.fork(process_obj._target, process_obj._args)
        self._parent = self._server.process
        self.finalizer = util.Finalize(self, os.close, (self.sentinel,))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and (self._is_over(0.0 if flag else None) or self._ends_with_server()):
            code = self._server.exit_code(self.pid)
            self.returncode = -signal.SIGKILL if code is None else code  # as the end of the server ends it
        return self.returncode

    def _is_over(self, timeout_s: float | None) -> bool:
        return bool(select.select([self.sentinel], [], [], timeout_s)[0])

    def _ends_with_server(self) -> bool:
        """The signal that tells of the server's end comes a moment before this one ends, and of that no other tells."""
        return self._parent.poll() is not None and self._is_over(_END_S)

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.sentinel, sig)


# ---- the server


def take_arguments(descriptor: int) -> ServerArguments:
    """What `ForkServer` has put there."""
    with open(descriptor, "rb") as file:
        arguments: ServerArguments = pickle.load(file)
    return arguments


def serve_forks(descriptor: int) -> None:
    """Fork what is asked for, until there is nobody to ask and nothing left that was forked."""
    _Forks(socket.socket(fileno=descriptor)).serve()


class _Forks:
    def __init__(self, asker: socket.socket) -> None:
        self._asker = asker
        self._parent_pid = os.getppid()
        self._processes: dict[int, BaseProcess] = {}  # {sentinel: process}
        self._poll = select.poll()
        self._is_asked = True

    def serve(self) -> None:
        self._say(["ready"])
        self._poll.register(self._asker, select.POLLIN)
        while self._is_asked or self._processes:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._asker.fileno():
                    self._take(self._asker.recv(_MOST_BYTES))
                else:
                    self._reap(descriptor)

    def _take(self, request: bytes) -> None:
        if not request:
            self._is_asked = False
            self._poll.unregister(self._asker)
            return
        process = multiprocessing.get_context("fork").Process(target=self._run, args=pickle.loads(request))
        try:
            process.start()
        except OSError as error:  # those that run are not to end because there can be no more
            self._say(["refused", error.strerror])
            return
        assert process.pid is not None
        self._processes[process.sentinel] = process
        self._poll.register(process.sentinel, select.POLLIN)
        pidfd = os.pidfd_open(process.pid)
        socket.send_fds(self._asker, [json.dumps(["started", process.pid]).encode()], [pidfd])
        os.close(pidfd)

    def _run(self, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._asker.close()
        target(*arguments)

    def _reap(self, sentinel: int) -> None:
        process = self._processes.pop(sentinel)
        self._poll.unregister(sentinel)
        process.join()
        self._say(["ended", process.pid, process.exitcode])
        os.kill(self._parent_pid, signal.SIGCHLD)

    def _say(self, report: list[Any]) -> None:
        with contextlib.suppress(OSError):  # who asked may be about to end this process, too
            self._asker.send(json.dumps(report).encode())
