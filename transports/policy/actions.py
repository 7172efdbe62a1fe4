"""What a client's exchange amounts to, in the terms of policies. Pure.

Names are brought to those of the merged server: whichever endpoint, prefix, scheme or route leads to an item, policies know it by
one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, members
from mcp_gateway.transports.protocol.mcp.member_spelling import misspelt
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS, TASK_METHODS
from mcp_gateway.transports.protocol.merging.naming import Naming

from .policies import Action

KINDS: Final = {
    "tools/call": "tool",
    "prompts/get": "prompt",
    "resources/read": "resource",
    "resources/subscribe": "resource",
    "resources/unsubscribe": "resource",
}
"""Methods that name one thing."""

LISTED_BY: Final = {
    "tools/list": ("tools/call", "tool"),
    "prompts/list": ("prompts/get", "prompt"),
    "resources/list": ("resources/read", "resource"),
    "resources/templates/list": ("resources/read", "template"),
}
"""{list: (the method, the kind) that its items are for}."""

_FREE: Final = frozenset({"initialize", "ping", "server/discover"})
_OWN: Final = frozenset({*LIST_MEMBERS, *TASK_METHODS, "logging/setLevel", "subscriptions/listen"})
_LEADS_TO: Final = {"resources/subscribe": "resources/read/", "resources/unsubscribe": "resources/read/"}
_decode_string = msgspec.json.Decoder(str).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode


class Asked(msgspec.Struct, frozen=True):
    """One action of an exchange. is_own: whether it gives nothing beyond what the client may do anyway, see
    `Policies.decide_unless_denied`."""

    action: Action
    is_own: bool = False


class Names:
    """What things are called in the merged server. backends: all of it, in the order of the configuration.

    find_backend: who serves an exchange of the merged server, by its routes or its task; "" where nobody does.
    """

    def __init__(self, backends: Sequence[Naming], find_backend: Callable[[Exchange], str]) -> None:
        self._namings = {naming.backend: naming for naming in backends}
        self._alone = backends[0].backend if len(backends) == 1 and not backends[0].prefix else ""
        self._find_backend = find_backend

    def backend_of(self, exchange: Exchange) -> str:
        return exchange.endpoint or self._alone or self._find_backend(exchange)

    def naming(self, backend: str) -> Naming | None:
        """None where there is no such backend."""
        return self._namings.get(backend)

    def called(self, exchange: Exchange, backend: str, kind: str, shown: str) -> tuple[str, str]:
        """(name in the merged server, name at its own) of what the client calls by the name that is shown."""
        naming = self._namings.get(backend)
        if naming is None:
            return shown, ""
        is_name = kind in ("tool", "prompt")
        own = shown
        if not exchange.endpoint:
            own = naming.inner_name(shown) if is_name else naming.inner_uri(shown)
        return self.outer(backend, kind, own), own

    def outer(self, backend: str, kind: str, own: str) -> str:
        naming = self._namings.get(backend)
        if naming is None:
            return own
        return naming.outer_name(own) if kind in ("tool", "prompt") else naming.outer_uri(own)

    def listeners(self, exchange: Exchange, uri: str) -> Iterable[str]:
        """The backends that are asked to tell of a resource."""
        alone = exchange.endpoint or self._alone
        return (alone,) if alone else [name for name, naming in self._namings.items() if naming.has_uri(uri)]


def actions_of(exchange: Exchange, names: Names) -> list[Asked]:
    """All of which must be allowed; none where it is not for policies to say: a session and its end, a client's answers.

    Raises: msgspec.DecodeError where it cannot be read; Refused with forbidden for a request that is sent as a notification, with
    invalid_params for one that a server may read otherwise.
    """
    message = exchange.message
    if isinstance(message, Notification):
        if not message.method.startswith("notifications/"):  # a server might run it all the same
            raise Refused("forbidden", f"{message.method[:100]!r} is no notification")
        return []
    if not isinstance(message, Request) or message.method in _FREE:
        return []
    method, params = message.method, message.params
    _check_spelling(params)
    if method in KINDS:
        kind = KINDS[method]
        shown = exchange.target.removeprefix(_LEADS_TO.get(method, f"{method}/"))
        return [Asked(_named(exchange, names, method, kind, shown, params))]
    if method == "completion/complete" and (completed := list(_completed(params))):
        return [Asked(_named(exchange, names, method, kind, shown, params)) for kind, shown in completed]
    if method not in _OWN:
        return [Asked(Action(method=method, backend=names.backend_of(exchange), params=params))]
    is_of_one = bool(exchange.endpoint) or method in TASK_METHODS
    asked = [Asked(Action(method=method, backend=names.backend_of(exchange) if is_of_one else "", params=params), is_own=True)]
    if method == "subscriptions/listen":
        asked += map(Asked, _listened(exchange, names, params))
    return asked


def _check_spelling(params: bytes) -> None:
    if (problem := misspelt(params)) is not None:
        raise Refused("invalid_params", problem)


def _named(exchange: Exchange, names: Names, method: str, kind: str, shown: str, params: bytes) -> Action:
    backend = names.backend_of(exchange)
    name, own_name = names.called(exchange, backend, kind, shown)
    return Action(method=method, backend=backend, kind=kind, name=name, own_name=own_name, params=params)


def _completed(params: bytes) -> Iterator[tuple[str, str]]:
    """(kind, name) of all that a reference names: its `type` is for servers to read, and they may read something else."""
    reference = members(bytes(members(params).get("ref", Raw(b"{}"))))
    for member, kind in (("name", "prompt"), ("uri", "template")):
        if member in reference:
            shown = _decode_string(reference[member])
            yield "resource" if kind == "template" and "{" not in shown else kind, shown


def _listened(exchange: Exchange, names: Names, params: bytes) -> Iterator[Action]:
    """The resources of a subscription: the same right as in the revisions that subscribe to each one."""
    wanted = members(bytes(members(params).get("notifications", Raw(b"{}"))))
    for uri in _decode_strings(wanted.get("resourceSubscriptions", Raw(b"[]"))):
        for backend in names.listeners(exchange, uri):
            name, own_name = names.called(exchange, backend, "resource", uri)
            yield Action(method="resources/subscribe", backend=backend, kind="resource", name=name, own_name=own_name)
