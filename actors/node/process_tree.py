"""The processes of a node as rows of `status`: the launcher, what Thespian runs for itself, the node supervisor, its children."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from mcp_gateway.actors.messages.node import NodeArguments
from mcp_gateway.actors.messages.supervision import SupervisionSnapshot

from .node_status import tree_row


def launcher_row(
    node: SupervisionSnapshot, trees: Mapping[str, Sequence[Mapping[str, Any]]], admin_pid: int, arguments: NodeArguments
) -> dict[str, Any]:
    """The row at the top, all others below it.

    node:  the node supervisor, which asks, and its children.
    trees: {name of a child: the rows below it}, as cells report them.
    """
    now_s = time.time()
    children = [
        tree_row(
            row.name,
            pid=row.pid,
            uptime_s=row.uptime_s,
            incarnation=row.incarnation,
            restarts=row.restarts,
            children=trees.get(row.name, ()),
        )
        for row in node.children
    ]
    own = tree_row(
        node.name,
        pid=node.pid,
        uptime_s=node.uptime_s,
        incarnation=node.incarnation,
        restarts=node.restarts,
        children=children,
    )
    thespian = [
        tree_row(name, pid=process.pid, uptime_s=now_s - process.create_time(), incarnation=node.incarnation)
        for name, process in thespian_processes(admin_pid).items()
    ]
    uptime_s = now_s - arguments.started_at_s
    return tree_row("launcher", pid=arguments.launcher_pid, uptime_s=uptime_s, children=[*thespian, own])


def thespian_processes(admin_pid: int) -> dict[str, psutil.Process]:
    """{"admin", "logger": process}: the parent of the node supervisor, which asks, and the parent's other child."""
    admin = psutil.Process(admin_pid)
    loggers = [process for process in admin.children() if process.pid != os.getpid()]
    return {"admin": admin} | ({"logger": loggers[-1]} if loggers else {})
