"""Ids of tasks as clients read them: sealed, so that any cell knows whose they are and who runs them. Pure.

Source: SEP-2663, "Security Considerations": an id is not to be guessed, and whoever asks for a task must be allowed to. That it
also names the server and, of a task that the gateway runs itself, the process is ours: the client's id outlives both.
"""

from __future__ import annotations

import msgspec

from mcp_gateway.transports.protocol.mcp.tasks import task_id_of

from .sealing import Seal, SealBroken

_KIND = "task"


class TaskId(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed id holds.

    replica:     that runs it, or "" where the session tells.
    principal:   whose it is, as far as we know one.
    task:        the server's own id, or the name that its holder has given it.
    cell:        that runs the task itself, for a server that has none; "" for a task of the server.
    incarnation: of the holder; one that was started again does not have the task any more.
    created_ms:  since the epoch, of a task that a cell runs.
    """

    backend: str
    replica: str
    principal: str
    task: str
    cell: str = ""
    incarnation: str = ""
    created_ms: int = 0


_decode = msgspec.msgpack.Decoder(TaskId).decode


def sealed_task_id(seal: Seal, task: TaskId) -> str:
    """The same text for the same task each time: clients compare."""
    return seal.seal_alike(_KIND, msgspec.msgpack.encode(task))


def read_task_id(seal: Seal, shown: str) -> TaskId | None:
    """What a client has brought back, or None for an id that this gateway never sealed."""
    try:
        return _decode(seal.open(_KIND, shown))
    except (SealBroken, msgspec.DecodeError):
        return None


def question_id(task_id: str, key: str) -> str:
    """The id under which a client is asked what one of our tasks needs, so that its answer finds that task. task_id: sealed."""
    return f"{task_id}/{key}"


def answered_question(seal: Seal, request_id: object) -> tuple[TaskId, str] | None:
    """(task, key) that a response with this id answers, where it is one of ours. request_id: as a value."""
    if not isinstance(request_id, str) or "/" not in request_id:
        return None
    shown, _, key = request_id.partition("/")
    task = read_task_id(seal, shown)
    return None if task is None else (task, key)


def addressed_task(seal: Seal, params: bytes) -> TaskId | None:
    """The task that a request is about, where its id is one of ours."""
    shown = task_id_of(params)
    return None if shown is None else read_task_id(seal, shown)
