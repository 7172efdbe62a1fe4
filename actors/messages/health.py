"""What the health monitor asks and is told, and whom it ejects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.transports.ports.replica_id import ReplicaId


@attrs.frozen
class ReplicaEjected:
    """Health monitor -> router: this replica takes no traffic until it is restored.

    retry_after_s: when its server is tried again, where that is known.
    """

    replica: ReplicaId
    reason: str
    retry_after_s: float | None = None


@attrs.frozen
class ReplicaRestored:
    """Health monitor -> router: this replica answers its probes again."""

    replica: ReplicaId


@attrs.frozen
class ProbeComponent:
    """Health monitor -> actor: are you there?"""

    request_id: str


@attrs.frozen
class ComponentProbed:
    """Actor -> health monitor: yes. problem: why it is only half well, or ""."""

    request_id: str
    component: str
    problem: str = ""


@attrs.frozen
class ProbeReplicas:
    """Health monitor, router -> connection pool -> upstreams: ask each server whether it is well, and tell `asker`.

    replica: the only one to ask; None for all.
    """

    request_id: str
    timeout_s: float
    asker: ActorAddress = attrs.field(repr=False)
    replica: ReplicaId | None = None


@attrs.frozen(kw_only=True)
class ReplicaProbed:
    """Upstream -> health monitor, router; also to the health monitor of each cell that does not probe: one probe has ended.

    problem:       "" where all is well.
    is_starting:   that is the problem, and may pass: it says nothing of how the replica will be.
    is_certain:    that is the problem, and will not pass by itself.
    retry_after_s: set where the server was not asked, because it is left alone for so long.
    """

    request_id: str
    replica: ReplicaId
    problem: str
    is_starting: bool = False
    is_certain: bool = False
    elapsed_s: float
    retry_after_s: float | None = None


@attrs.frozen
class HealthRequested:
    request_id: str


@attrs.frozen(kw_only=True)
class HealthReported:
    """Health monitor -> edge: overall status and {component: {"status", "since", "reason"?}}; of the cluster with more.

    history: the last changes, oldest first: {"at", "component", "was", "status", "reason"?}; times are RFC 3339.
    """

    request_id: str
    status: str
    components: Mapping[str, Mapping[str, Any]]
    history: tuple[Mapping[str, str], ...] = attrs.field(default=(), repr=False)
