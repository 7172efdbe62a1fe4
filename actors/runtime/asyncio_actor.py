"""An actor that owns an event loop, on either base: the meeting point of loop code and actor messages between processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
from thespian.actors import ActorAddress, ThespianWatch, WatchMessage

from .gateway_actor import GatewayActor
from .lanes import Lanes
from .thespian_hardening import send_with_result

_logger = logging.getLogger(__name__)


@attrs.frozen
class TaskFailed:
    """Loop code -> its own actor: a task or callback ended with an error nobody caught."""

    error: BaseException = attrs.field(repr=False)


@attrs.frozen
class MessageToForward:
    """Loop code -> its own actor, in-process: send this on."""

    target: ActorAddress = attrs.field(repr=False)
    message: object = attrs.field(repr=False)


class AsyncioActor(GatewayActor):
    """An actor whose sockets and tasks live on an event loop.

    On a multiprocess base the process has two threads: Thespian's main thread runs the handlers and owns the actor's state; a
    thread named "loop" runs asyncio and owns sockets and futures. Handlers reach the loop by `run_async` and `call_loop`; loop
    code reaches actors by `deliver`, which may be called from any thread. On the in-process base both are the one loop.

    Such an actor never creates actors: a process with threads must not fork.

    Receives  TaskFailed (its own loop)
    On crash  an error in a task crashes the actor like an error in a handler; tasks are cancelled
    """

    SEND_TIMEOUT_S = 10.0  # a target that takes nothing for that long is given up: `on_undeliverable`
    LOOP_STOP_S = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._lanes = Lanes(self._transmit, self._report_undeliverable)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._main_thread_id = threading.get_ident()
        self._from_loop: deque[tuple[ActorAddress | None, object]] = deque()
        self._is_bell_rung = False
        self._bell_read_fd = self._bell_write_fd = -1
        self._thread: threading.Thread | None = None
        self._stop_loop: asyncio.Event | None = None

    # ---- what an actor overrides

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        """React to mail that `deliver` had to give up; runs as a handler."""
        self.log(logging.WARNING, f"{len(messages)} messages to {target} were given up: {reason}")

    def on_batch_handled(self) -> None:
        """Finish what several messages have in common: called after each message, or after all that came as one batch."""

    def on_readable(self, fd: int) -> None:
        """React to one of `watched_fds` being ready."""

    def watched_fds(self) -> Sequence[int]:
        """File descriptors (sockets, pipes, pidfds; no duplicates, no closed ones) that Thespian's main thread should watch."""
        return ()

    # ---- what an actor uses

    def start_loop(self) -> None:
        """Start the loop thread, or join the running loop on the in-process base; from `on_wired`."""
        if self.loop is not None:
            return
        if self.runtime is not None:
            self.loop = asyncio.get_running_loop()
            return
        self._bell_read_fd, self._bell_write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        is_running = threading.Event()
        # A daemon: Thespian never ends a process whose ordinary threads still run.
        self._thread = threading.Thread(target=self._run_loop, args=(is_running,), name="loop", daemon=True)
        self._thread.start()
        is_running.wait()

    def run_async(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """From a handler: run the coroutine as a task on the loop; an error in it crashes the actor."""
        self.call_loop(self._spawn, coroutine)

    def call_loop(self, function: Callable[..., Any], *arguments: Any) -> None:
        """From a handler: call the function in the loop thread, unless that has ended; an error in it crashes the actor."""
        assert self.loop is not None, "start_loop first"
        if self.loop.is_closed():  # an actor that leaves still hears what became of its mail
            return
        self.loop.call_soon_threadsafe(self._call_in_loop, function, arguments)

    def deliver(self, target: ActorAddress, message: object) -> None:
        """Send to an actor from any thread, in order per target; what cannot be sent goes to `on_undeliverable`.

        The actor's own address is a target like any other, and never leaves the process.
        """
        if self.runtime is not None:
            # By way of this actor, so that it is the sender: the runtime's own mail names the target as its sender.
            self.runtime.post(self.myAddress, message if target == self.myAddress else MessageToForward(target, message))
        elif threading.get_ident() == self._main_thread_id:
            self._queue(target, message)
        else:
            self._from_loop.append((target, message))
            self._ring_bell()

    # ---- engine, actor thread

    def receiveMessage(self, message: Any, sender: ActorAddress) -> Any:
        super().receiveMessage(message, sender)
        if self.runtime is not None:
            return None
        if not self._is_crashed:
            try:
                self.on_batch_handled()
            except Exception as error:
                self._crash(error, message, sender)
        self._lanes.flush()
        if self._is_crashed or self._bell_read_fd < 0:
            return None  # the bell would ring for ever at an actor that no longer answers it
        # Thespian forgets the watch at every return without one.
        return ThespianWatch([self._bell_read_fd, *self.watched_fds()])

    def receiveMsg_WatchMessage(self, message: WatchMessage, sender: ActorAddress) -> None:
        for fd in message.ready:
            if fd == self._bell_read_fd:
                self._take_from_loop()
            else:
                self.on_readable(fd)

    def receiveMsg_MessageToForward(self, message: MessageToForward, sender: ActorAddress) -> None:
        self.send(message.target, message.message)

    def receiveMsg_TaskFailed(self, message: TaskFailed, sender: ActorAddress) -> None:
        if isinstance(message.error, Exception):
            raise message.error
        raise RuntimeError(f"the event loop ended: {message.error!r}") from message.error

    def _take_from_loop(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell_read_fd, 4096)
        self._is_bell_rung = False  # before the queue is emptied: what is appended later rings again
        while self._from_loop:
            target, message = self._from_loop.popleft()
            if target is None or target == self.myAddress:
                super().receiveMessage(message, self.myAddress)
            else:
                self._queue(target, message)

    def _queue(self, target: ActorAddress, message: object) -> None:
        self._lanes.queue(target.actorAddressString, target, message)

    def _transmit(self, target: ActorAddress, message: object, on_result: Callable[[str | None], None]) -> None:
        send_with_result(self, target, message, on_result, self.SEND_TIMEOUT_S)

    def _report_undeliverable(self, target: ActorAddress, messages: tuple[object, ...], reason: str) -> None:
        # Called back by Thespian's transport, outside of any handler: it would swallow the error.
        try:
            self.on_undeliverable(target, messages, reason)
        except Exception as error:
            self._crash(error, messages[0], target)

    def _leave(self) -> None:
        super()._leave()
        for task in self._tasks if self._thread is None else ():
            task.cancel()
        thread, self._thread = self._thread, None
        if thread is not None and self._stop_loop is not None and self.loop is not None and thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop_loop.set)
            thread.join(self.LOOP_STOP_S)
        while self._from_loop:
            target, message = self._from_loop.popleft()
            if target is not None and target != self.myAddress:
                self._queue(target, message)
        self._lanes.flush_all()

    # ---- engine, loop thread

    def _run_loop(self, is_running: threading.Event) -> None:
        async def run_until_stopped() -> None:
            self.loop = asyncio.get_running_loop()
            self._stop_loop = asyncio.Event()
            is_running.set()
            await self._stop_loop.wait()

        try:
            asyncio.run(run_until_stopped())
        except BaseException as error:
            self.fail_from_loop(error)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        assert self.loop is not None
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail_from_loop(error)

    def _call_in_loop(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self.fail_from_loop(error)

    def fail_from_loop(self, error: BaseException) -> None:
        """Crash the actor from any thread; what it has delivered before still goes out."""
        if self.runtime is not None:
            self.runtime.post(self.myAddress, TaskFailed(error))
        else:
            self._from_loop.append((None, TaskFailed(error)))
            self._ring_bell()

    def _ring_bell(self) -> None:
        if self._is_bell_rung:
            return
        self._is_bell_rung = True
        with contextlib.suppress(BlockingIOError):  # full of bells already
            os.write(self._bell_write_fd, b"\0")
