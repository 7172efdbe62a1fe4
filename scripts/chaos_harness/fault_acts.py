"""Brings faults about, takes their cause away again, and watches until all is well."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import psutil

from .fault_kinds import DEMO, LOCAL, hurt_backends
from .gateway_under_test import GatewayUnderTest
from .history import FaultBegan, FaultEnded, Recovered
from .recorder import Recorder
from .rude_clients import RUDE, be_rude
from .schedule import Planned
from .servers import Servers
from .tool_server import Mode

_POLL_S: Final = 0.05
_SPARE_DESCRIPTORS: Final = 4
_HOG_BYTES: Final = 512 * 2**20
_HOG_SHARE: Final = 10
"""At most one part in so many of the memory that is free: the machine may be somebody's."""
_HOG: Final = "import sys, time; held = bytearray(int(sys.argv[1])); held[::4096] = b'x' * len(held[::4096]); time.sleep(600)"
_MODES: Final = {
    "garbage from server": Mode.GARBAGE,
    "nothing from server": Mode.NOTHING,
    "slow server": Mode.SLOW,
    "500 from server": Mode.ERROR,
    "reset by server": Mode.RESET,
    "garbage from process": Mode.GARBAGE,
}

Act = AbstractAsyncContextManager[None]


class NobodyThere(Exception):
    """Whom the fault was to meet is not there now: another fault has been quicker."""


class FaultActs:
    """Carries out what was planned, each fault as a task of its own."""

    def __init__(self, gateway: GatewayUnderTest, servers: Servers, recorder: Recorder) -> None:
        self._gateway = gateway
        self._servers = servers
        self._recorder = recorder
        self._acts: dict[str, Callable[[str], Act]] = {
            **{f"kill {name}": self._kill for name in ("cell", "event log", "supervisor", "admin")},
            **{f"stop {name}": self._stop for name in ("cell", "event log", "supervisor")},
            "pause admin": self._pause,
            "pause gateway": self._pause,
            "kill gateway": self._kill_gateway,
            "restart cell": self._restart,
            "rolling restart": lambda _target: self._command("restart", "--rolling"),
            "upgrade": lambda _target: self._command("upgrade"),
            "reload": lambda _target: self._command("reload"),
            "crash actor": self._crash,
            "kill server": self._kill_server,
            "hang server": self._hang_server,
            "kill process": self._kill_local,
            "full disk": self._fill_disk,
            "no descriptors": self._take_descriptors,
            "no memory": self._hog_memory,
            "network cut": self._cut_network,
        }

    async def carry_out(self, planned: Planned) -> None:
        """From its beginning until all is well again, or the run is over."""
        kind, target = planned.kind.name, planned.target
        old = self._gateway.process(target)
        act: Act
        if kind in _MODES:
            act = self._misbehave(kind, target)
        elif kind in RUDE:
            act = self._be_rude(kind)
        else:
            act = self._acts[kind](target)
        began = FaultBegan(fault_id=planned.fault_id, fault=kind, target=target, at_s=self._recorder.now_s())
        with contextlib.suppress(NobodyThere, psutil.NoSuchProcess, ProcessLookupError):
            async with act:
                self._recorder.add(began)
                await asyncio.sleep(planned.lasts_s)
            self._recorder.add(FaultEnded(fault_id=planned.fault_id, at_s=self._recorder.now_s()))
            replaced = old.pid if old is not None and kind.startswith(("kill ", "stop ", "restart ")) else None
            await self._until_well(planned, target, replaced)
            self._recorder.add(Recovered(fault_id=planned.fault_id, at_s=self._recorder.now_s()))

    async def _until_well(self, planned: Planned, target: str, replaced: int | None) -> None:
        """replaced: the process of `target` that another one has to take the place of."""
        while True:
            now = self._gateway.process(target)
            has_come = replaced is None or (now is not None and now.pid != replaced)
            if has_come and self._gateway.is_whole():
                break
            await asyncio.sleep(_POLL_S)
        while not await self._gateway.all_answer(hurt_backends(planned.kind, target) or (DEMO,)):
            await asyncio.sleep(_POLL_S)

    def _process(self, target: str) -> psutil.Process:
        process = self._gateway.process(target)
        if process is None:
            raise NobodyThere(target)
        return process

    # ---- processes of the gateway

    @asynccontextmanager
    async def _kill(self, target: str) -> AsyncIterator[None]:
        process = self._process(target)
        yield
        process.kill()

    @asynccontextmanager
    async def _stop(self, target: str) -> AsyncIterator[None]:
        """Nobody wakes it again: it has to be found."""
        process = self._process(target)
        yield
        process.suspend()

    @asynccontextmanager
    async def _pause(self, target: str) -> AsyncIterator[None]:
        process = self._process(target)
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    @asynccontextmanager
    async def _kill_gateway(self, target: str) -> AsyncIterator[None]:
        process = self._process(target)
        yield
        process.kill()
        await self._gateway.start_again()

    @asynccontextmanager
    async def _restart(self, target: str) -> AsyncIterator[None]:
        self._process(target)
        yield
        await self._gateway.command("restart", target)

    @asynccontextmanager
    async def _command(self, *arguments: str) -> AsyncIterator[None]:
        """What an operator does to all cells of a node."""
        yield
        await self._gateway.command(*arguments)

    @asynccontextmanager
    async def _crash(self, target: str) -> AsyncIterator[None]:
        self._process(target.rpartition("/")[0])
        yield
        await self._gateway.command("kill", target)

    # ---- servers

    @asynccontextmanager
    async def _kill_server(self, name: str) -> AsyncIterator[None]:
        self._servers.signal(name, signal.SIGKILL)
        try:
            yield
        finally:
            self._servers.start(name)

    @asynccontextmanager
    async def _hang_server(self, name: str) -> AsyncIterator[None]:
        self._servers.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self._servers.signal(name, signal.SIGCONT)

    @asynccontextmanager
    async def _misbehave(self, kind: str, name: str) -> AsyncIterator[None]:
        self._servers.behave(name, _MODES[kind])
        try:
            yield
        finally:
            self._servers.behave(name, Mode.WELL)

    @asynccontextmanager
    async def _kill_local(self, _target: str) -> AsyncIterator[None]:
        found = self._gateway.local_servers()
        if not found:
            raise NobodyThere(LOCAL)
        yield
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @asynccontextmanager
    async def _cut_network(self, _target: str) -> AsyncIterator[None]:
        namespace = self._servers.namespace
        if namespace is None:
            raise NobodyThere("a namespace")
        namespace.cut(True)
        try:
            yield
        finally:
            namespace.cut(False)

    # ---- what it needs

    @asynccontextmanager
    async def _fill_disk(self, _target: str) -> AsyncIterator[None]:
        """No process may write to any place of any file. It fails as on a full disk, but only for this gateway."""
        self._limit(resource.RLIMIT_FSIZE, lambda _: 1)
        try:
            yield
        finally:
            self._limit(resource.RLIMIT_FSIZE, None)

    @asynccontextmanager
    async def _take_descriptors(self, _target: str) -> AsyncIterator[None]:
        self._limit(resource.RLIMIT_NOFILE, lambda process: process.num_fds() + _SPARE_DESCRIPTORS)
        try:
            yield
        finally:
            self._limit(resource.RLIMIT_NOFILE, None)

    def _limit(self, which: int, soft: Callable[[psutil.Process], int] | None) -> None:
        """Of every process that it has now. soft: None gives back what is allowed at most."""
        for _, process in self._gateway.own_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                _, hard = process.rlimit(which)
                process.rlimit(which, (hard if soft is None else soft(process), hard))

    @asynccontextmanager
    async def _hog_memory(self, _target: str) -> AsyncIterator[None]:
        size = min(_HOG_BYTES, psutil.virtual_memory().available // _HOG_SHARE)
        hog = await asyncio.create_subprocess_exec(sys.executable, "-c", _HOG, str(size))
        try:
            yield
        finally:
            hog.kill()
            await hog.wait()

    @asynccontextmanager
    async def _be_rude(self, kind: str) -> AsyncIterator[None]:
        rude = asyncio.create_task(be_rude(kind, self._gateway.port))
        try:
            yield
        finally:
            rude.cancel()
            await asyncio.gather(rude, return_exceptions=True)
