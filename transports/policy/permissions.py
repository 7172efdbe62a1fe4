"""What the clients of a cell may do, as its edge asks: one answer for calls, lists and topics. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.topics.client_events import CLIENT_TOPICS

from .actions import LISTED_BY, Asked, Names, actions_of
from .name_patterns import topics_from
from .policies import ALLOWED, DENIED, Action, Decision, Policies

_LONGEST_SHOWN: Final = 100
FOLLOW: Final = "topics/follow"
PUBLISH: Final = "topics/publish"
_ANYWHERE: Final = "ping"
_UPDATED: Final = "notifications/resources/updated"
_MOST_KNOWN: Final = 1_024
"""Clients whose backends are remembered."""
_decode_items = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_string = msgspec.json.Decoder(str).decode

Note = Callable[[Principal | None, Action, Decision, Exchange | None], None]


class Permissions:
    """policies: see there. names: how things are called here.

    knows_clients: whether a client that nobody knows could say who it is.
    note:          told of each decision, with the exchange that it is about; None where that is about a topic.
    """

    def __init__(self, policies: Policies, names: Names, *, knows_clients: bool, note: Note | None = None) -> None:
        self._policies = policies
        self._names = names
        self._knows_clients = knows_clients
        self._note = note
        self._reached: dict[Principal | None, tuple[Naming, ...]] = {}
        self._entered: dict[tuple[Principal | None, str], bool] = {}

    def check(self, exchange: Exchange) -> None:
        """Raises: Refused with forbidden, insufficient_scope or unauthorized; with invalid_params where it cannot be read."""
        request_id = exchange.request_id
        try:
            asked = actions_of(exchange, self._names)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused("invalid_params", f"the parameters cannot be read: {error}", request_id=request_id) from None
        except Refused as refused:
            refused.request_id = request_id
            raise
        for each in asked:
            decision = self._decide(exchange.principal, each)
            self._noted(exchange.principal, each.action, decision, exchange)
            if not decision.is_allowed:
                raise self._refusal(exchange.principal, each.action, decision, request_id)
        if exchange.endpoint and isinstance(exchange.message, Request) and exchange.method != _ANYWHERE:
            self._check_entry(exchange)

    def _check_entry(self, exchange: Exchange) -> None:
        """At a backend's own endpoint there is as little for who may use nothing of it as in the merged server: neither what it
        says of itself, nor a session or its news.
        """
        principal, backend = exchange.principal, exchange.endpoint
        if not self.may_enter(principal, backend):
            action = Action(method=exchange.method, backend=backend)
            self._noted(principal, action, DENIED, exchange)
            raise self._refusal(principal, action, DENIED, exchange.request_id)

    def may_enter(self, principal: Principal | None, backend: str) -> bool:
        """Whether this client may use something of a backend; true as well where there is none."""
        may_enter = self._entered.get((principal, backend))
        if may_enter is None:
            if len(self._entered) >= _MOST_KNOWN:
                self._entered.clear()
            naming = self._names.naming(backend)
            may_enter = self._entered[principal, backend] = naming is None or self._policies.may_reach(principal, naming)
        return may_enter

    def decisions(self, exchange: Exchange) -> list[tuple[Action, Decision]]:
        """What `check` decides by, for those who want to know why.

        Raises: msgspec.DecodeError, Refused, as `actions_of` does.
        """
        return [(each.action, self._decide(exchange.principal, each)) for each in actions_of(exchange, self._names)]

    def _decide(self, principal: Principal | None, asked: Asked) -> Decision:
        decide = self._policies.decide_unless_denied if asked.is_own else self._policies.decide
        return decide(principal, asked.action)

    def may_follow(self, principal: Principal | None, topic: str) -> bool:
        return self._policies.decide(principal, Action(method=FOLLOW, kind="topic", name=topic)).is_allowed

    def check_followed(self, principal: Principal | None, pattern: str) -> None:
        """Whether it may follow some of what a topic or a pattern stands for; who wants everything, of all or of clients, gets
        whatever that is: a channel is for requests, too.

        Raises: Refused, as `check` does.
        """
        self._check_topic(principal, *self.topic_decision(principal, FOLLOW, pattern))

    def check_published(self, principal: Principal | None, topic: str) -> None:
        """Raises: Refused, as `check` does."""
        self._check_topic(principal, *self.topic_decision(principal, PUBLISH, topic))

    def topic_decision(self, principal: Principal | None, method: str, topic: str) -> tuple[Action, Decision]:
        """What `check_followed` and `check_published` decide by. Of a pattern of which some is allowed, the kind is "topics"."""
        action = Action(method=method, kind="topic", name=topic)
        decision = self._policies.decide(principal, action)
        if method == FOLLOW and not decision.is_allowed:
            some = Action(method=method, kind="topics", name=topic)
            if topics_from(topic) in ("", CLIENT_TOPICS) or self._policies.may_ever(principal, some):
                return some, ALLOWED
        return action, decision

    def _check_topic(self, principal: Principal | None, action: Action, decision: Decision) -> None:
        self._noted(principal, action, decision)
        if not decision.is_allowed:
            raise self._refusal(principal, action, decision, None)

    def _noted(self, principal: Principal | None, action: Action, decision: Decision, exchange: Exchange | None = None) -> None:
        if self._note is not None:
            self._note(principal, action, decision, exchange)

    def may_hear(self, principal: Principal | None, backend: str, message: Message | None) -> bool:
        """Whether a server's word outside of any call is for this client: of a resource, where it may subscribe to that."""
        if not isinstance(message, Notification) or message.method != _UPDATED:
            return self.may_enter(principal, backend)
        try:
            own = _decode_string(members(message.params).get("uri", Raw(b'""')))
        except msgspec.DecodeError:
            return False
        outer = self._names.outer(backend, "resource", own)
        action = Action(method="resources/subscribe", backend=backend, kind="resource", name=outer, own_name=own)
        return self._policies.decide(principal, action).is_allowed

    def within_reach(self, principal: Principal | None, backends: tuple[Naming, ...]) -> tuple[Naming, ...]:
        """Those of which this client may use something: no other one is asked for it, or has a session for it.

        All of them where it may use nothing: what they have is shown to it as empty lists.
        """
        reached = self._reached.get(principal)
        if reached is None:
            if len(self._reached) >= _MOST_KNOWN:
                self._reached.clear()
            reached = tuple(each for each in backends if self._policies.may_reach(principal, each)) or backends
            self._reached[principal] = reached
        return reached

    def shown_list(self, principal: Principal | None, backend: str, method: str, result: bytes) -> bytes:
        """A server's list result without what this client may not use: as it is where the method lists nothing of that kind.

        Raises: msgspec.DecodeError where it is no list result of that method.
        """
        if method not in LISTED_BY:
            return result
        list_member, item_member = LIST_MEMBERS[method]
        values = members(result)
        items = _decode_items(values.get(list_member, Raw(b"[]")))
        shown = [item for item in items if self._is_shown(principal, backend, method, item.get(item_member))]
        if len(shown) < len(items):
            values[list_member] = Raw(msgspec.json.encode(shown))
        if "cacheScope" in values:  # whoever asks next may see something else
            values["cacheScope"] = Raw(b'"private"')
        return msgspec.json.encode(values)

    def _is_shown(self, principal: Principal | None, backend: str, method: str, name: Raw | None) -> bool:
        """What has no name cannot be used either."""
        if name is None or not bytes(name).startswith(b'"'):
            return False
        use, kind = LISTED_BY[method]
        own = _decode_string(name)
        outer = self._names.outer(backend, kind, own)
        return self._policies.may_ever(principal, Action(method=use, backend=backend, kind=kind, name=outer, own_name=own))

    def _refusal(self, principal: Principal | None, action: Action, decision: Decision, request_id: bytes | None) -> Refused:
        what = f"{action.method} of {action.name[:_LONGEST_SHOWN]!r}" if action.name else action.method
        if principal is None and self._knows_clients:
            return Refused("unauthorized", f"{what} is not for clients that nobody knows: log in", request_id=request_id)
        if decision.scopes:
            text = f"{what} needs the scopes {' '.join(decision.scopes)}"
            return Refused("insufficient_scope", text, request_id=request_id, data={"scopes": list(decision.scopes)})
        return Refused("forbidden", f"{what} is not allowed", request_id=request_id)
