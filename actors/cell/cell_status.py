"""What a cell says of itself, and the commands that it carries out: both by asking its actors."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import attrs

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.supervision import (
    ChildRestarted,
    RestartChildRequested,
    SnapshotRequested,
    SnapshotTaken,
    SupervisionSnapshot,
)
from mcp_gateway.transports.downstream.server.server import GatewayServer

from .gateway_supervisor import BESIDE_THE_CHAIN, GATEWAY_CHILDREN

_QUESTION_TIMEOUT_S = 2.0


class CellStatus:
    """The answers of one cell to `status` and to commands; loop only."""

    def __init__(self, cell_name: str, port: LoopPort, server: GatewayServer) -> None:
        self._name = cell_name
        self._port = port
        self._server = server
        self._ids = itertools.count(1)

    async def take(self) -> dict[str, Any]:
        """As `CellContent.status` says."""
        taken: SnapshotTaken = await self._ask("cell-supervisor", SnapshotRequested(request_id=self._next_id()))
        pools, routes, viability = await asyncio.gather(
            *(self._status_of(child) for child in ("connection-pool", "router", "viability-monitor"))
        )
        return {
            "tree": [_row(child) for child in taken.snapshot.children],
            "backends": [
                {
                    "name": backend.name,
                    "title": backend.title or backend.name,
                    "protocol": backend.protocol,
                    "draining": backend.draining,
                    "draining_replicas": list(backend.draining_replicas),
                    "replicas": [
                        {
                            "address": replica,
                            "health": "unknown",
                            "circuit": "unknown",
                            "ring_share": 0.0,
                            **routes.get(backend.name, {}).get(replica, {}),
                            "pool": pools.get(backend.name, {}).get(replica, {}),
                        }
                        for replica in backend.replica_ids
                    ],
                }
                for backend in self._port.settings.backends
            ],
            "servers": [
                {"name": server.name, "include": list(server.include), "exclude": list(server.exclude)}
                for server in self._port.settings.servers
            ],
            "left_out": [attrs.asdict(server) for server in self._port.settings.left_out],
            "grpc_port": self._port.settings.grpc.port,
            "sessions": len(self._port.sessions),
            "connections": self._server.connection_counts(),
            "viability": viability,
        }

    async def _status_of(self, child: str) -> dict[str, Any]:
        try:
            answer = await self._ask(child, StatusRequested(self._next_id()))
        except (LookupError, TimeoutError):
            return {}
        return dict(answer.status)

    async def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """ "kill" crashes an in-process actor, "restart" restarts it in order; arguments: {"child": short name}."""
        child = str(arguments.get("child", ""))
        known = (*GATEWAY_CHILDREN, *BESIDE_THE_CHAIN)
        if name not in ("kill", "restart"):
            return {"error": f"a cell has no command {name!r}"}
        if child not in known:
            return {"error": f"no child {child!r}; there are {', '.join(known)}"}
        try:
            if name == "kill":
                self._port.tell(child, CrashRequested())
                return {"ok": True}
            request = RestartChildRequested(name=child, request_id=self._next_id())
            if child == "edge":  # its questions end with it, this one as well; but in-process all has happened when tell returns
                self._port.tell("cell-supervisor", request)
                return {"ok": True, "started": [child]}
            supervisor = "cell-supervisor" if child in BESIDE_THE_CHAIN else "gateway-supervisor"
            answer = await self._ask(supervisor, request)
        except (LookupError, TimeoutError) as error:
            return {"error": f"{child}: {str(error) or 'no answer in time'}"}
        if isinstance(answer, ChildRestarted):
            return {"ok": True, "started": list(answer.started)}
        return {"error": answer.error_text}

    async def _ask(self, child: str, question: Any) -> Any:
        return await asyncio.wait_for(self._port.ask(child, question), _QUESTION_TIMEOUT_S)

    def _next_id(self) -> str:
        return f"{self._name}?{next(self._ids)}"


def _row(snapshot: SupervisionSnapshot) -> dict[str, Any]:
    return {
        "name": snapshot.name,
        "pid": snapshot.pid,
        "incarnation": snapshot.incarnation,
        "uptime_seconds": round(snapshot.uptime_s, 3),
        "restarts": snapshot.restarts,
        **({"last_exit": snapshot.last_exit_text} if snapshot.last_exit_text else {}),
        "children": [_row(child) for child in snapshot.children],
    }
