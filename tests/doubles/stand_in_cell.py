"""A cell's content without a gateway in it: enough of a web server to see which process answers, drains and gets events."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tornado.httpserver
import tornado.netutil
import tornado.web

from mcp_gateway.actors.messages.node_link import CellContent, NodeLink
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.topics.topic_log import Event


class StandInCell:
    """Serves /pid, /open (how many other requests are open), /slow?seconds=S,
    /publish?topic=T, /events, /forward?text=T, /forwarded, /escalate, /hang (the loop).

    STAND_IN_FAILS=start in the environment: it cannot start. STAND_IN_STOPPED: a file that tells that it was stopped in order.
    """

    def __init__(self, settings: Settings, cell_name: str, link: NodeLink) -> None:
        self._settings = self.began_with = settings
        self._name = cell_name
        self._link = link
        self._open_count = 0
        self.events: list[Event] = []
        self.other_cells: dict[str, object] = {}
        self.forwarded: list[tuple[str, object]] = []
        self.failed: list[tuple[str, object]] = []
        self.drained_while_others_serve: bool | None = None
        self.node_ends = False
        self._server: tornado.httpserver.HTTPServer | None = None

    async def start(self) -> None:
        if os.environ.get("STAND_IN_FAILS") == "start":
            raise RuntimeError("told to fail")
        handlers = [
            (rf"/{name}", _Handler, {"cell": self, "answer": answer})
            for name, answer in {
                "pid": self._pid,
                "open": self._open,
                "slow": self._slow,
                "publish": self._publish,
                "events": self._events,
                "forward": self._forward,
                "forwarded": self._forwarded,
                "escalate": self._escalate,
                "hang": self._hang,
            }.items()
        ]
        gateway = self._settings.gateway
        sockets = tornado.netutil.bind_sockets(gateway.port, gateway.host, reuse_port=True)
        self._server = tornado.httpserver.HTTPServer(tornado.web.Application(handlers, log_function=lambda _: None))
        self._server.add_sockets(sockets)

    async def drain(self, deadline_s: float, *, others_serve: bool = False, node_ends: bool = False) -> None:
        assert self._server is not None
        self.drained_while_others_serve = others_serve
        self.node_ends = node_ends
        self._server.stop()
        until_s = time.monotonic() + deadline_s
        while self._open_count and time.monotonic() < until_s:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.stop()
        await self._server.close_all_connections()
        self._tell_stopped()

    def _tell_stopped(self) -> None:
        if (path := os.environ.get("STAND_IN_STOPPED")) is not None:
            Path(path).write_text(self._name)

    async def status(self) -> dict[str, Any]:
        router = {"name": f"{self._name}/router", "pid": os.getpid(), "incarnation": 1, "uptime_seconds": 1.0, "restarts": 0}
        replica = {"address": "builtin:demo", "health": "healthy", "circuit": "closed", "pool": {"idle": 1}, "ring_share": 1.0}
        return {
            "tree": [{**router, "children": []}],
            "backends": [
                {"name": backend.name, "protocol": "auto", "draining": backend.draining, "replicas": [replica]}
                for backend in self._settings.backends
            ],
            "sessions": 1,
            "connections": {"streamable_http": self._open_count},
        }

    async def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("child") != "router":
            return {"error": f"there is no {arguments.get('child')}"}
        return {"ok": True, "command": name}

    def deliver_events(self, events: list[Event]) -> None:
        self.events += events

    def apply_settings(self, settings: Settings) -> None:
        self._settings = settings

    def nodes_changed(self, cell_counts: Mapping[str, int], *, is_member: bool) -> None:
        """There is no cluster."""

    def hold_limits(self, default: float, parts: Mapping[str, float]) -> None:
        """There is no limit."""

    def limits_asked(self) -> dict[str, float]:
        return {}

    def owners_told(self, owners: Mapping[str, object], lease_until_s: float) -> None:
        """It holds nothing."""

    def cluster_described(self, status: Mapping[str, Any]) -> None:
        """Nobody asks it how the cluster is."""

    def cells_changed(self, running: Mapping[str, object]) -> None:
        self.other_cells = dict(running)

    def deliver_forwarded(self, from_cell: str, message: object) -> None:
        self.forwarded.append((from_cell, message))

    def forward_failed(self, cell_name: str, messages: tuple[object, ...], *, is_unsent: bool = False) -> None:
        self.failed += [(cell_name, message) for message in messages]

    # ---- answers

    async def _pid(self, _request: tornado.web.RequestHandler) -> object:
        return os.getpid()

    async def _open(self, _request: tornado.web.RequestHandler) -> object:
        return self._open_count - 1

    async def _slow(self, request: tornado.web.RequestHandler) -> object:
        await asyncio.sleep(float(request.get_query_argument("seconds")))
        return os.getpid()

    async def _publish(self, request: tornado.web.RequestHandler) -> object:
        self._link.publish(request.get_query_argument("topic"), {"by": os.getpid()}, int(time.time() * 1000))
        return os.getpid()

    async def _events(self, _request: tornado.web.RequestHandler) -> object:
        return {"pid": os.getpid(), "events": [[event.id, event.topic] for event in self.events]}

    async def _forward(self, request: tornado.web.RequestHandler) -> object:
        text = request.get_query_argument("text")
        for name in self.other_cells:
            self._link.forward(name, text)
        return {"pid": os.getpid(), "to": self.other_cells}

    async def _forwarded(self, _request: tornado.web.RequestHandler) -> object:
        return {"pid": os.getpid(), "forwarded": self.forwarded, "failed": self.failed, "cells": self.other_cells}

    async def _escalate(self, _request: tornado.web.RequestHandler) -> object:
        self._link.request_stop("told to escalate")
        return os.getpid()

    async def _hang(self, _request: tornado.web.RequestHandler) -> object:
        time.sleep(3600)  # noqa: ASYNC251 - a loop that hangs is what is wanted
        return None


class _Handler(tornado.web.RequestHandler):
    def initialize(self, cell: StandInCell, answer: Any) -> None:
        self._cell = cell
        self._answer = answer

    async def get(self) -> None:
        self._cell._open_count += 1
        try:
            self.set_header("Connection", "close")  # the next request may reach another cell
            self.finish(json.dumps(await self._answer(self)))
        finally:
            self._cell._open_count -= 1


def make_cell(settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> CellContent:
    return StandInCell(settings, cell_name, link)
