"""Settings of the gRPC listener: `[grpc]`. Rules as in `settings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .setting_rules import SettingProblem, Whole, quote


@attrs.frozen(kw_only=True)
class GrpcSettings:
    """`[grpc]`: MCP's own gRPC proto towards clients, on a port of its own at `gateway.host`; needs the extra `grpc`.

    port:            0 listens nowhere.
    max_connections: connections, and calls that run at once, of all cells together.
    """

    port: int = attrs.field(default=0, validator=Whole(0, 65_535))
    max_connections: int = attrs.field(default=1000, validator=Whole(1, 1_000_000))


def grpc_problems(
    grpc: Mapping[str, Any], gateway: Mapping[str, Any], actor_system: Mapping[str, Any], tls: Mapping[str, Any] | None
) -> Iterator[SettingProblem]:
    """Check `[grpc]` against the tables that it shares the machine and the certificates with."""
    port = grpc.get("port")
    if not port:
        return
    others = {"gateway.port": gateway.get("port"), "actor_system.admin_port": actor_system.get("admin_port")}
    for key, other in others.items():
        if port == other:
            yield SettingProblem(key="grpc.port", found=quote(port), allowed=f"another port than {key}")
    if tls is not None and tls.get("client_crl"):
        allowed = "nothing beside tls.client_crl: gRPC looks at no list of certificates that are taken back"
        yield SettingProblem(key="grpc.port", found=quote(port), allowed=allowed)
