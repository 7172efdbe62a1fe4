"""What a client sees less of than it may use: a virtual server, and the tools that it has chosen itself. Pure.

A virtual server is a set of policies over the merged server, asked as those of the configuration are; what it does not have is
answered as what does not exist.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.config.curation_settings import ServerSettings
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.wildcard import Wildcard

from .actions import Names
from .name_patterns import NamePatterns
from .permissions import Permissions
from .policies import Policies

LONGEST_CHOICE: Final = 4_096
_MOST_PATTERNS: Final = 100
_MOST_KNOWN: Final = 256
"""Choices of clients that are remembered."""
_CALL: Final = "tools/call"
_decode_tools = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_string = msgspec.json.Decoder(str).decode


class Views:
    """servers: virtual ones. backends: all of the merged server. names: how things are called there."""

    def __init__(self, servers: Sequence[ServerSettings], backends: Sequence[Naming], names: Names) -> None:
        policies = {each.name: Policies(tuple(_parts(each, backends))) for each in servers}
        self._servers = {name: Permissions(parts, names, knows_clients=False) for name, parts in policies.items()}
        self.instructions = {each.name: each.instructions for each in servers}
        self._backends = {naming.backend: naming for naming in backends}
        self._choices: OrderedDict[str, NamePatterns] = OrderedDict()

    def addressed(self, exchange: Exchange) -> Exchange:
        """An exchange that was addressed to a virtual server is one of the merged server, of which it sees a part."""
        if exchange.endpoint not in self._servers:
            return exchange
        return msgspec.structs.replace(exchange, endpoint="", server=exchange.endpoint)

    def check(self, exchange: Exchange) -> None:
        """Raises: Refused with invalid_params or unknown_method where the exchange asks for what its view does not have."""
        if exchange.server:
            server = self._servers.get(exchange.server)
            if server is None:
                raise Refused("no_backend", f"no server {exchange.server!r}", request_id=exchange.request_id)
            try:
                server.check(exchange)
            except Refused as refused:
                raise _unknown(exchange) if refused.reason == "forbidden" else refused from None
        if exchange.tools and exchange.method == _CALL and not self._choice(exchange).match(_called(exchange)):
            raise _unknown(exchange)

    def within_reach(self, exchange: Exchange, backends: tuple[Naming, ...]) -> tuple[Naming, ...]:
        server = self._servers.get(exchange.server)
        return backends if server is None else tuple(each for each in backends if server.may_enter(None, each.backend))

    def has_part_of(self, server: str, backends: Iterable[str]) -> bool:
        """Whether anything of any of these is in the virtual server."""
        view = self._servers.get(server)
        return view is not None and any(view.may_enter(None, backend) for backend in backends)

    def shown_list(self, exchange: Exchange, backend: str, method: str, result: bytes) -> bytes:
        """A server's list result without what the view of the exchange does not have.

        Raises: msgspec.DecodeError where it is no list result of that method.
        """
        if (server := self._servers.get(exchange.server)) is not None:
            result = server.shown_list(None, backend, method, result)
        if exchange.tools and method == "tools/list":
            result = self._chosen(exchange, backend, result)
        return result

    def _chosen(self, exchange: Exchange, backend: str, result: bytes) -> bytes:
        choice = self._choice(exchange)
        naming = self._backends.get(backend)
        prefix = naming.prefix if naming is not None and not exchange.endpoint else ""
        values = members(result)
        tools = _decode_tools(values.get("tools", Raw(b"[]")))
        shown = [tool for tool in tools if choice.match(prefix + _decode_string(tool.get("name", Raw(b""))))]
        values["tools"] = Raw(msgspec.json.encode(shown))
        if "cacheScope" in values:  # whoever asks next may have chosen others
            values["cacheScope"] = Raw(b'"private"')
        return msgspec.json.encode(values)

    def _choice(self, exchange: Exchange) -> NamePatterns:
        choice = self._choices.get(exchange.tools)
        if choice is None:
            choice = self._choices[exchange.tools] = _patterns_of(exchange)
            if len(self._choices) > _MOST_KNOWN:
                self._choices.popitem(last=False)
        return choice


NO_VIEWS: Final = Views((), (), Names((), lambda exchange: ""))
"""Where there are no virtual servers."""


def _patterns_of(exchange: Exchange) -> NamePatterns:
    """Raises: Refused with invalid_request."""
    patterns = {each.strip() for each in exchange.tools.split(",")} - {""}
    if len(exchange.tools) > LONGEST_CHOICE or len(patterns) > _MOST_PATTERNS:
        text = f"tools: {_MOST_PATTERNS} patterns and {LONGEST_CHOICE} characters at most"
        raise Refused("invalid_request", text, request_id=exchange.request_id)
    return NamePatterns(patterns)


def _parts(server: ServerSettings, backends: Sequence[Naming]) -> Iterator[PolicySettings]:
    for naming, pattern in _split(server.include, backends):
        if pattern == "*":  # methods of its own as well
            yield PolicySettings(effect="allow", backends=(naming.backend,))
        else:  # by the names of the merged server: `backends` beside them would let a server call its tool like another one
            yield attrs.evolve(_named(naming, pattern), effect="allow")
    for naming, pattern in _split(server.exclude, backends):
        named = PolicySettings(effect="deny") if pattern == "*" else _named(naming, pattern)
        yield attrs.evolve(named, effect="deny", backends=(naming.backend,))


def _split(parts: Iterable[str], backends: Sequence[Naming]) -> Iterator[tuple[Naming, str]]:
    for part in parts:
        backend, _, pattern = part.partition("/")
        named = Wildcard(backend)
        yield from ((naming, pattern) for naming in backends if named.matches(naming.backend))


def _named(naming: Naming, pattern: str) -> PolicySettings:
    names = (naming.outer_name(pattern),)
    interfaces = {naming.interfaces + pattern} if pattern.startswith("*") else set()
    uris = tuple(sorted({naming.outer_uri(pattern)} | interfaces))
    return PolicySettings(effect="allow", tools=names, prompts=names, resources=uris)


def _called(exchange: Exchange) -> str:
    return exchange.target.removeprefix(f"{_CALL}/")


def _unknown(exchange: Exchange) -> Refused:
    """As what is not there is answered. Source: MCP 2025-11-25, server/tools, "Error Handling"."""
    request_id, message = exchange.request_id, exchange.message
    if exchange.method == _CALL:
        return Refused("invalid_params", f"Unknown tool: {_called(exchange)[:200]}", request_id=request_id)
    if isinstance(message, Request) and "/" in exchange.target.removeprefix(message.method):
        return Refused("invalid_params", f"there is no {exchange.target[:200]!r} here", request_id=request_id)
    return Refused("unknown_method", f"unknown method {exchange.method[:200]!r}", request_id=request_id)
