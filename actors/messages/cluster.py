"""What a node's processes and its cluster member say to each other: who else is there, and what goes to other nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.config.identity_settings import Revocations

from .weight import LIGHT_BYTES, weight_bytes


@attrs.frozen(kw_only=True)
class ClusterMemberArguments:
    """NodeSupervisor -> ClusterMember, in its Wiring.

    node_incarnation: random for each start of the node; it outlives the member's own crashes.
    retention_events: events that the cluster's log keeps.
    url:              where the node serves, for people.
    state_path:       the state directory of the node, None where it has none.
    quota_path:       the same where cells count there what clients use of their day, because that is limited.
    """

    settings: ClusterSettings = attrs.field(repr=False)
    node_incarnation: str
    cell_count: int
    retention_events: int
    url: str
    state_path: Path | None = None
    quota_path: Path | None = None


@attrs.frozen(kw_only=True)
class NodesChanged:
    """ClusterMember -> every cell: these are the other nodes; what is for their cells goes to the sender.

    cells:       {name in the cluster: incarnation}, "node-b/cell/0" for example.
    cell_counts: {node: cells that are configured there}.
    is_member:   whether this node counts as there for the others; where not, it is told of none.
    """

    cells: dict[str, tuple[int, int, int]]
    cell_counts: dict[str, int]
    is_member: bool


@attrs.frozen
class Ownership:
    """Who owns a thing that the cluster has once. token: of the fence, higher than that of every owner before."""

    node: str
    token: int


@attrs.frozen(kw_only=True)
class OwnersTold:
    """ClusterMember -> every cell, after each change and each renewal: who owns what, {thing: owner}.

    lease_until_s: until when this node may use what it owns, on the clock of leases; 0 where it is no member.
    """

    owners: dict[str, Ownership]
    lease_until_s: float


@attrs.frozen
class OwnershipWanted:
    """Cell -> ClusterMember: have this node own the thing, unless another one does."""

    thing: str


@attrs.frozen(kw_only=True)
class ForwardToNode:
    """Cell -> ClusterMember -> that of another node, which passes it on as `Forwarded`. Cells by their names in the cluster.

    incarnation:    of the cell that sends it, within its node; 0 for a supervisor.
    to_incarnation: of the one that it is for, as its node has said of it: its successor knows nothing of what it goes on with.
    """

    to_cell: str
    from_cell: str
    incarnation: int = 0
    to_incarnation: int = 0
    message: Any = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.message) + LIGHT_BYTES


@attrs.frozen(kw_only=True)
class ForwardLost:
    """ClusterMember -> cell: this did not get there, as far as is known. is_unsent: certainly not."""

    forward: ForwardToNode = attrs.field(repr=False)
    is_unsent: bool

    @property
    def weight_bytes(self) -> int:
        return self.forward.weight_bytes


@attrs.frozen(kw_only=True)
class OwnRevocations:
    """NodeSupervisor -> ClusterMember, when the member starts: who is refused at this node."""

    revocations: Revocations = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ShareRevocations:
    """NodeSupervisor -> ClusterMember: the node has refused, or taken back, these; have all nodes do so."""

    request_id: str
    before: Revocations = attrs.field(repr=False)
    after: Revocations = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ShareSettings:
    """NodeSupervisor -> ClusterMember: have all nodes, this one too, run with these settings, unless another was faster.

    taken:  the number of the settings of the cluster that they were made from.
    file:   fingerprint of the file that they come from; before: of that which the settings came from that they replace.
    tables: as `settings_tables.encoded_tables` gives them.
    """

    request_id: str
    taken: int
    file: str
    before: str
    tables: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ChangeSpread:
    """The answer to ShareRevocations and ShareSettings: every node that is there has taken them. error_text: why not, or ""."""

    request_id: str
    error_text: str = ""


@attrs.frozen(kw_only=True)
class ClusterDescribed:
    """ClusterMember -> NodeSupervisor, cells -> their health monitors; after each change and every second.

    status: the part "cluster" of the node's status; a cell adds "lag_events", by how much it is behind the cluster's log.
    """

    status: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class LimitsAsked:
    """Cell -> ClusterMember, every second: so much was asked for, {client: parts of its limit per second}."""

    wanted: dict[str, float] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class LimitsHeld:
    """ClusterMember -> every cell: of clients' limits the node holds these parts, {client: part}, and of all others `default`."""

    default: float
    parts: dict[str, float] = attrs.field(repr=False)
