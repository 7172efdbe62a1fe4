"""Decides who may do what by the policies of a configuration. Pure.

With one policy, what none allows is denied; one that denies wins. What cannot be decided (a condition that fails) is decided
against the client.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.config.conditions import MOST_ARGUMENT_BYTES, Condition, are_bounded
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.duplicate_names import has_duplicate_names
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.merging.naming import Naming

from .name_patterns import NamePatterns, bare_uris, plain_uris, template_ends, topics_from

_MOST_KNOWN: Final = 1_024
"""Principals whose policies are remembered."""

_WITH_ISSUER: Final = re.compile(r"(?:https?://\S+|api-key|proxy|certificate) ")
_decode = msgspec.json.Decoder().decode


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants to do.

    method:    of MCP; "topics/follow" and "topics/publish" are ours.
    backend:   who would serve it; "" where nobody or everybody would.
    kind:      of what is named: "tool", "prompt", "resource", "template" (some of its URIs), "topic" (one, or all of a pattern),
               "topics" (some of a pattern), or "".
    name:      as lists of the merged server show it, by whatever name and endpoint the client calls it.
    own_name:  as its server knows it.
    params:    the JSON of an object, as it is forwarded, or empty; conditions look at its `arguments`.
    """

    method: str
    backend: str = ""
    kind: str = ""
    name: str = ""
    own_name: str = ""
    params: bytes = b""


class Decision(msgspec.Struct, frozen=True):
    """rule: place of the policy that decides, None where none does. scopes: all that the action needs, where scopes are all that
    is missing."""

    is_allowed: bool
    rule: int | None = None
    scopes: tuple[str, ...] = ()

    @property
    def rule_name(self) -> str:
        """As the configuration counts them."""
        return "default" if self.rule is None else f"policies[{self.rule}]"


ALLOWED: Final = Decision(True)
DENIED: Final = Decision(False)


class Policies:
    """settings: in the order of the file."""

    def __init__(self, settings: Sequence[PolicySettings]) -> None:
        self._policies = tuple(_Policy(index, each) for index, each in enumerate(settings))
        self._reach_of: dict[Principal | None, _Reach] = {}

    def decide(self, principal: Principal | None, action: Action) -> Decision:
        reach, facts = self._reach(principal), _Facts(principal, action)
        for policy in reach.denies:
            if policy.covers(action) and policy.condition_holds(facts):
                return Decision(False, policy.index)
        for policy in reach.allows:
            if policy.covers(action) and policy.condition_holds(facts):
                return Decision(True, policy.index)
        near = [policy for policy in reach.lacks_scopes if policy.covers(action) and policy.condition_holds(facts)]
        if near:
            held = frozenset() if principal is None else principal.scopes
            nearest = min(near, key=lambda policy: len(policy.scopes - held))
            return Decision(False, nearest.index, nearest.settings.scopes)
        return DENIED

    def decide_unless_denied(self, principal: Principal | None, action: Action) -> Decision:
        """The same of what gives a client nothing beyond what it may do anyway: lists, its own tasks, its own session."""
        facts = _Facts(principal, action)
        for policy in self._reach(principal).denies:
            if policy.covers(action) and policy.condition_holds(facts):
                return Decision(False, policy.index)
        return ALLOWED

    def may_ever(self, principal: Principal | None, action: Action) -> bool:
        """Whether there can be arguments with which it is allowed: what lists show."""
        reach = self._reach(principal)
        return any(policy.covers(action) for policy in reach.allows) and not any(
            policy.condition is None and policy.covers(action) for policy in reach.denies
        )

    def may_reach(self, principal: Principal | None, backend: Naming) -> bool:
        """Whether it may use anything of a backend, perhaps after another login; true as well where it has none of that."""
        reach = self._reach(principal)
        return any(policy.reaches(backend) for policy in (*reach.allows, *reach.lacks_scopes)) and not any(
            policy.shuts(backend) for policy in reach.denies
        )

    def _reach(self, principal: Principal | None) -> _Reach:
        reach = self._reach_of.get(principal)
        if reach is None:
            if len(self._reach_of) >= _MOST_KNOWN:
                self._reach_of.clear()
            reach = self._reach_of[principal] = self._found_reach(principal)
        return reach

    def _found_reach(self, principal: Principal | None) -> _Reach:
        mine = [policy for policy in self._policies if policy.concerns(principal)]
        held = frozenset() if principal is None else principal.scopes
        return _Reach(
            denies=tuple(policy for policy in mine if not policy.allows and policy.scopes <= held),
            allows=tuple(policy for policy in mine if policy.allows and policy.scopes <= held),
            lacks_scopes=tuple(policy for policy in mine if policy.allows and not policy.scopes <= held),
        )


@attrs.frozen
class _Reach:
    """The policies that are about one principal, in the order of the file."""

    denies: tuple[_Policy, ...]
    allows: tuple[_Policy, ...]
    lacks_scopes: tuple[_Policy, ...]


class _Policy:
    """One policy, ready to be asked."""

    def __init__(self, index: int, settings: PolicySettings) -> None:
        self.index = index
        self.settings = settings
        self.allows = settings.effect == "allow"
        self.scopes = frozenset(settings.scopes)
        self.condition = Condition(settings.when) if settings.when else None
        self._groups, self._clients, self._backends, self._methods = map(
            _patterns, (settings.groups, settings.clients, settings.backends, settings.methods)
        )
        # Apart: "a*" shall not match what stands before the subject in "api-key ci".
        self._subjects = NamePatterns(each for each in settings.subjects if not _WITH_ISSUER.match(each))
        self._principals = NamePatterns(each for each in settings.subjects if _WITH_ISSUER.match(each))
        resources, topics = _patterns(settings.resources), _patterns(settings.topics)
        self._plain_resources = NamePatterns(
            (*settings.resources, *(plain for each in settings.resources for plain in plain_uris(each)))
        )
        named = {
            "tool": _patterns(settings.tools),
            "prompt": _patterns(settings.prompts),
            "resource": resources,
            "template": resources,
            "topic": topics,
            "topics": topics,
        }
        self._named = {kind: patterns for kind, patterns in named.items() if patterns is not None}
        # A server may call its tool as another one's is called in the merged server: no such name may open anything.
        self._knows_own_names = bool(settings.backends) or not self.allows

    def concerns(self, principal: Principal | None) -> bool:
        """Whether it is about this client, but for its scopes."""
        if principal is None:
            return not self.settings.subjects and self._groups is None and self._clients is None
        return (
            (not self.settings.subjects or self._subjects.match(principal.subject) or self._principals.match(principal.key))
            and (self._groups is None or self._groups.match_any(principal.groups))
            and (self._clients is None or self._clients.match(principal.client))
        )

    def covers(self, action: Action) -> bool:
        """Whether it is about this action, but for its condition."""
        if self._methods is not None and not self._methods.match(action.method):
            return False
        if self._backends is not None and not self._backends.match(action.backend):
            return False
        if not self._named:
            return True
        patterns = self._named.get(action.kind)
        if patterns is None:
            return False
        return self._names(patterns, action.kind, action.name) or (
            self._knows_own_names and bool(action.own_name) and self._names(patterns, action.kind, action.own_name)
        )

    def reaches(self, backend: Naming) -> bool:
        """Whether it could be about something of this backend."""
        if self._backends is not None and not self._backends.match(backend.backend):
            return False
        starts = {"tool": (backend.prefix,), "prompt": (backend.prefix,), "resource": (backend.scheme, backend.interfaces)}
        return not self._named or any(
            kind in starts and (self._knows_own_names or any(patterns.may_match_between(start, "") for start in starts[kind]))
            for kind, patterns in self._named.items()
        )

    def shuts(self, backend: Naming) -> bool:
        """Whether it is about all of this backend, whatever that is."""
        is_about_all = not (self._named or self.settings.methods or self.condition)
        return is_about_all and (self._backends is None or self._backends.match(backend.backend))

    def _names(self, patterns: NamePatterns, kind: str, name: str) -> bool:
        """What stands for several names, or can be read in several ways: allowed where all of them are, denied where any is."""
        if kind == "resource":
            readings = [patterns.match(name), *map(self._plain_resources.match, plain_uris(name))]
            if self.allows:
                return all(readings)
            return any(readings) or any(map(self._plain_resources.match, bare_uris(name)))
        if kind == "template":
            return patterns.may_match_between(*template_ends(name)) if self.allows else patterns.match(name)
        if kind in ("topic", "topics") and (start := topics_from(name)) is not None:
            needs_all = self.allows is (kind == "topic")
            return patterns.match_all_from(start) if needs_all else patterns.may_match_between(start, "")
        return patterns.match(name)

    def condition_holds(self, facts: _Facts) -> bool:
        if self.condition is None:
            return True
        values = facts.values(self.condition.variables)
        outcome = None if values is None else self.condition.holds(values)
        return outcome if outcome is not None else not self.allows


class _Facts:
    """What conditions ask about one action, found out when the first one does."""

    def __init__(self, principal: Principal | None, action: Action) -> None:
        self._principal = principal
        self._action = action
        self._arguments: Any = msgspec.UNSET

    def values(self, names: Sequence[str]) -> dict[str, Any] | None:
        """None where one of them cannot be told."""
        values: dict[str, Any] = {}
        for name in names:
            if name == "arguments":
                if self._arguments is msgspec.UNSET:
                    self._arguments = _read_arguments(self._action.params)
                if self._arguments is None:
                    return None
                values[name] = self._arguments
            else:
                values[name] = self._value(name)
        return values

    def _value(self, name: str) -> object:
        action, principal = self._action, self._principal
        if name in ("method", "backend"):
            return getattr(action, name)
        if name in ("groups", "scopes"):
            return [] if principal is None else sorted(getattr(principal, name))
        if name in ("subject", "issuer", "client"):
            return "" if principal is None else getattr(principal, name)
        return action.name if name == action.kind else ""


def _read_arguments(params: bytes) -> dict[str, Any] | None:
    """None where they are too large to be looked at, or could be read in two ways."""
    try:
        given = bytes(members(params).get("arguments", Raw(b"{}")))
        if len(given) > MOST_ARGUMENT_BYTES:
            return None
        arguments = _decode(given)
        is_clear = isinstance(arguments, dict) and are_bounded(arguments) and not has_duplicate_names(given)
        is_clear = is_clear and not _has_names_alike(arguments)
    except (msgspec.DecodeError, RecursionError):
        return None
    return arguments if is_clear else None


def _has_names_alike(value: object) -> bool:
    """Whether an object in it has two names that differ by case alone, of which some servers take the last for both."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if len({name.casefold() for name in each}) < len(each):
                return True
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return False


def _patterns(given: Sequence[str]) -> NamePatterns | None:
    return NamePatterns(given) if given else None
