"""A small process beside a cell: ends the stdio servers of a cell that was killed before it could.

`kill -9` of a cell leaves its child processes, and theirs, to others. The guard reads the process groups that the cell has
started from a pipe; when the pipe ends, the cell has, and the guard kills what is left of them. In a node the launcher adopts
and ends orphans as well; the guard does it where there is no launcher (embedded), or where it was killed too.

What has left its group, as a daemon does, is found by a variable that all of them inherit. Who takes it out of the environment
of what it starts, or overwrites its own, is found by the process that has adopted it, as long as that lives: the launcher, or
the embedded gateway. A known gap where that is killed: a control group would close it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO, Final

_logger = logging.getLogger(__name__)

_LEAVE_S: Final = 2.0  # it looks at every process of the machine, which may be busy
_MOST_LOOKS: Final = 20
_LOOK_AGAIN_S: Final = 0.02
_MARK: Final = "MCP_GATEWAY_GUARD"
"""Names the environment variable. Source: Jenkins, `ProcessTreeKiller`, ends by a cookie what builds have left behind."""
_GUARD_NAME: Final = "mcp-gateway: stdio-guard"


class ProcessGuard:
    """Tells the guard process of this process which groups it runs. The guard is started with the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._mark = ""  # made by the process that uses it: those that are forked from one have each their own

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs in its environment so that all that it starts ends with this process."""
        self._mark = self._mark or secrets.token_hex(16)
        return {_MARK: self._mark}

    def watch(self, group: int) -> None:
        self._groups.add(group)
        self._tell(b"+%d\n" % group)

    def forget(self, group: int) -> None:
        """The group was ended: its number may come to mean something else."""
        self._groups.discard(group)
        if self._process is not None:
            self._tell(b"-%d\n" % group)

    def owns(self, pid: int) -> bool:
        """Whether it is a server's, or the guard itself: somebody waits for its end."""
        return pid in self._groups or (self._process is not None and pid == self._process.pid)

    @property
    def is_used(self) -> bool:
        """Whether there are groups that it would end."""
        return bool(self._groups)

    def _tell(self, line: bytes) -> None:
        """A guard that has died is replaced by one that knows all groups; a write below PIPE_BUF bytes is whole or not at all."""
        for _ in range(2):
            try:
                if self._process is None:
                    self._process = _start_guard(self.environment[_MARK])
                    line = b"".join(b"+%d\n" % each for each in self._groups)
                assert self._process.stdin is not None
                self._process.stdin.write(line)
                return
            except OSError as error:
                _logger.warning("the guard of the stdio servers has died: %s", error)
                self.stop()

    def stop(self) -> None:
        """Let the guard end, which it does soon; it kills the groups that were not forgotten, and what has left one."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # on a busy machine it has more to do; reaped later
            process.wait(_LEAVE_S)


def _start_guard(mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, mark],
        env={name: value for name, value in os.environ.items() if name != _MARK},  # of a gateway that is a server of another one
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )


def is_guard(command_line: Sequence[str]) -> bool:
    """Whether a process with this command line is a guard; also one that has yet to give itself its name."""
    text = " ".join(command_line)
    return text.startswith(_GUARD_NAME) or f" -m {__name__} " in text


def end_group(group: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal to every process of the group; nothing where there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_marked(mark: str) -> None:
    """Kill whatever has this mark in its environment, until nothing is found: some may just be starting others."""
    entry = f"{_MARK}={mark}".encode()
    for _ in range(_MOST_LOOKS):
        found = [_end_if_marked(int(name), entry) for name in os.listdir("/proc") if name.isdigit()]
        if not any(found):
            return
        time.sleep(_LOOK_AGAIN_S)


def _end_if_marked(pid: int, entry: bytes) -> bool:
    """Whether it was; the number means the same process from the look to the signal."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            is_marked = entry in environment.read().split(b"\0")
        if is_marked:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:  # somebody else's, or gone
        return False
    finally:
        os.close(pidfd)
    return is_marked


def run_guard(lines: BinaryIO, mark: str = "") -> None:
    """Follow the groups until the pipe ends, then kill those that are left, and what is marked."""
    groups: set[int] = set()
    for line in lines:
        if line.endswith(b"\n") and line[1:].strip().isdigit():
            (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
    for group in groups:
        end_group(group)
    if mark:
        end_marked(mark)


PROCESS_GUARD: Final = ProcessGuard()
"""One for all stdio servers of this process."""


if __name__ == "__main__":
    from setproctitle import setproctitle

    setproctitle(_GUARD_NAME)
    run_guard(sys.stdin.buffer, *sys.argv[1:2])
