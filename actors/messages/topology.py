"""What runs in a cell: the addresses of its chain, its backends and routes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.config.backend_settings import BackendSettings, LeftOutServer, RouteSettings


@attrs.frozen(kw_only=True)
class GatewayWired:
    """Gateway supervisor -> cell supervisor -> edge: the chain is up; these are its addresses by short name."""

    addresses: Mapping[str, ActorAddress] = attrs.field(repr=False)
    incarnations: Mapping[str, int]


@attrs.frozen(kw_only=True)
class Topology:
    """Cell -> its supervisors -> edge and chain: the backends and routes that shall run; sent again after each change.

    left_out: servers that cannot be understood and so are none of the backends.
    """

    backends: tuple[BackendSettings, ...]
    routes: tuple[RouteSettings, ...]
    left_out: tuple[LeftOutServer, ...] = ()
