"""Who is a member of the cluster, as each node decides for itself and reads of others. Pure.

A node is a name and an epoch. It is there while its presence key is, which it renews in time, and only where a ping through its
own subject has come back: a node that nobody can reach must not keep its things. Before the key could end, it fences itself: from
then on nobody may rely on what it owns. Times are of a clock that this node alone reads, and that goes on while its machine
sleeps; all that nodes must agree on is how long a second is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

import attrs
import msgspec

from .engine import Entry
from .record_format import FORMAT, NewerFormat, check_format

PRESENCE_TTL_S: Final = 10
RENEW_S: Final = 3.0
FENCE_S: Final = 8.0
"""After the sending of the last renewal that succeeded: two seconds are left for clocks that differ, and for the work."""

PRESENCE_PREFIX: Final = "node."

SPEECH: Final = 1
"""Of `ForwardToNode` and all that goes in it; higher where a node of before would misread it."""


class Presence(msgspec.Struct, frozen=True):
    """What a node says of itself in its presence key.

    epoch:       0 in the first value of a key, whose revision it is then.
    term:        the epoch in which the key was made. While it lives the node may have other epochs, of members that crashed and
                 joined again, and owns what it did.
    incarnation: random for each start of the node: a second one with its name is another.
    member:      random for each start of the process that takes what other nodes send; that may crash while its node goes on.
    cells:       {name within the node: incarnation} of those that run.
    cell_count:  of those configured; they share out the node's servers.
    revocations, settings: the numbers of the state of the shared ones that all its cells have taken.
    format:      see `record_format`.
    speech:      form of what it says to other nodes: those of another one are not understood.
    """

    node: str
    epoch: int
    incarnation: str
    member: str = ""
    cells: dict[str, int] = {}
    cell_count: int = 1
    is_draining: bool = False
    revocations: int = 0
    settings: int = 0
    version: str = ""
    url: str = ""
    term: int = 0
    format: int = FORMAT
    speech: int = SPEECH


_decode = msgspec.msgpack.Decoder(Presence).decode


def presence_key(node: str) -> str:
    return f"{PRESENCE_PREFIX}{node}"


def encoded(presence: Presence) -> bytes:
    return msgspec.msgpack.encode(presence)


def read_presence(value: bytes, revision: int) -> Presence | None:
    """What a presence key holds, None for something else. Raises: NewerFormat."""
    try:
        check_format(value)
        presence = _decode(value)
    except msgspec.DecodeError:
        return None
    if presence.epoch:
        return presence
    return msgspec.structs.replace(presence, epoch=revision, term=presence.term or revision)


def presence_in(entry: Entry | None) -> Presence | None:
    """What an entry of a presence key holds, None for something that this version does not read."""
    try:
        return None if entry is None or entry.value is None else read_presence(entry.value, entry.revision)
    except NewerFormat:
        return None


class Step(Enum):
    """What a node has to do for its membership now."""

    WAIT = "wait"
    JOIN = "join"
    RENEW = "renew"
    FENCE = "fence"


class OwnLease:
    """This node's own membership: when to join, to renew, to fence. A member between `joined` and `fenced`."""

    def __init__(self) -> None:
        self.epoch = 0
        self.revision = 0
        self._valid_s: float | None = None  # when the renewal that counts was sent
        self._tried_s = float("-inf")

    @property
    def is_member(self) -> bool:
        return self._valid_s is not None

    def next_step(self, now_s: float) -> Step:
        """A step that is tried is tried again after RENEW_S, or at once where the last one failed for a known reason."""
        if self._valid_s is not None and now_s >= self._valid_s + FENCE_S:
            return Step.FENCE
        if now_s < self._tried_s + (RENEW_S if self.is_member else RENEW_S / 3):
            return Step.WAIT
        return Step.RENEW if self.is_member else Step.JOIN

    def due_s(self, now_s: float) -> float:
        """When the next step is due, at the latest."""
        due_s = self._tried_s + (RENEW_S if self.is_member else RENEW_S / 3)
        if self._valid_s is not None:
            due_s = min(due_s, self._valid_s + FENCE_S)
        return max(due_s, now_s)

    @property
    def until_s(self) -> float:
        """When the node must fence itself; 0 where it is no member."""
        return 0.0 if self._valid_s is None else self._valid_s + FENCE_S

    def left_s(self, now_s: float) -> float:
        """Until the node must fence itself."""
        return max(self.until_s - now_s, 0.0)

    def hurry(self) -> None:
        """What the key says has changed: renew now."""
        self._tried_s = float("-inf")

    def tried(self, now_s: float) -> None:
        """A step begins."""
        self._tried_s = now_s

    def joined(self, epoch: int, sent_s: float) -> None:
        """epoch: the revision of the key as it was made."""
        self.epoch = self.revision = epoch
        self._valid_s = sent_s

    def renewed(self, revision: int, sent_s: float) -> None:
        """sent_s: when it was sent; the key may have been given its new life at any time since."""
        if self._valid_s is not None:  # one that was under way when the node fenced itself comes too late
            self.revision, self._valid_s = revision, max(self._valid_s, sent_s)

    def fenced(self) -> None:
        """The node counts as gone: it may be a member again under another epoch."""
        self._valid_s = None
        self._tried_s = float("-inf")

    def age_s(self, now_s: float) -> float | None:
        """Since the renewal that counts was sent; None without one."""
        return None if self._valid_s is None else now_s - self._valid_s


@attrs.frozen
class NodeView:
    """Another member, or this one. revision: of its key."""

    presence: Presence
    revision: int


class Nodes:
    """The members by name, as the presence keys say.

    own:    the name of this node, whose own key says nothing new.
    unread: {name: why its key cannot be read}; such a node counts as not there, but nothing of its own is free.
    """

    def __init__(self, own: str) -> None:
        self.own = own
        self.unread: dict[str, str] = {}
        self._views: dict[str, NodeView] = {}

    @property
    def views(self) -> Mapping[str, NodeView]:
        return self._views

    def changed(self, entries: Iterable[tuple[str, int, bytes | None]]) -> bool:
        """Take changes of presence keys, (key, revision, value); tells whether another node has come, gone or changed.

        A key that is gone is a node that is gone: not before may anybody take over what it owned.
        """
        before = {node: view.presence for node, view in self._views.items() if node != self.own}
        for key, revision, value in entries:
            node = key.removeprefix(PRESENCE_PREFIX)
            self.unread.pop(node, None)
            self._views.pop(node, None)
            try:
                presence = None if value is None else read_presence(value, revision)
            except NewerFormat as error:
                self.unread[node] = str(error)
                continue
            if presence is not None and presence.node == node:
                self._views[node] = NodeView(presence, revision)
            elif value is not None:
                self.unread[node] = "it was not written with the key_file of this one"
        return before != {node: view.presence for node, view in self._views.items() if node != self.own}

    def others(self) -> dict[str, Presence]:
        """{node: what it says of itself} of the other members."""
        return {node: view.presence for node, view in sorted(self._views.items()) if node != self.own}

    def is_there(self, node: str, epoch: int) -> bool:
        """Whether a node is a member in this epoch: what it owns is its own still."""
        view = self._views.get(node)
        return view is not None and view.presence.epoch == epoch


def remote_cells(others: Mapping[str, Presence], own_epoch: int) -> dict[str, tuple[int, int, int]]:
    """{name in the cluster: incarnation} of the cells of other nodes."""
    return {
        f"{node}/{cell}": remote_incarnation(own_epoch, presence.epoch, incarnation)
        for node, presence in others.items()
        for cell, incarnation in presence.cells.items()
    }


def remote_incarnation(own_epoch: int, epoch: int, incarnation: int) -> tuple[int, int, int]:
    """Of a cell of another node, as this one knows it.

    Where either node has joined anew, or the cell was started again, something may have been lost: it is another, a higher one.
    """
    return own_epoch, epoch, incarnation
