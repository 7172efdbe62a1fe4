"""`mcp-gateway explain`: which policy decides what somebody may do, by the file alone; no gateway need run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from mcp_gateway.config.shown_text import shown

from .attaching import EXIT_REFUSED, Refused, say, settings_of
from .principal_options import add_principal_options, doubts, principal_of

if TYPE_CHECKING:
    from mcp_gateway.config.settings import Settings
    from mcp_gateway.transports.policy.policies import Action, Decision
    from mcp_gateway.transports.ports.edge_port import Exchange
    from mcp_gateway.transports.ports.principal import Principal

EXIT_DENIED: Final = 1
_FOLLOW: Final = "topics/follow"
_TOPICS: Final = (_FOLLOW, "topics/publish")


def add_explain_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("explain", help="say which policy decides what somebody may do; exit 0 allowed, 1 denied")
    add_principal_options(parser, "nobody in particular if not given")
    parser.add_argument("--config", metavar="F.toml", help="the configuration with the policies")
    parser.add_argument("--server", metavar="NAME", default="", help="at /mcp/servers/NAME, with names as there")
    parser.add_argument("--transport", metavar="T", default="streamable_http", help="over which transport; routes may ask for it")
    parser.add_argument("--arguments", metavar="JSON", default="{}", help="of the tool or prompt, for conditions")
    parser.add_argument("what", metavar="METHOD/NAME", help="tools/call/files__read, resources/read/URI, topics/follow/all, …")
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the tool and so on, where it is not part of the first word")
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    try:
        settings = settings_of(options)
        answers = _answers(settings, options)
        for doubt in doubts(principal_of(options, settings), settings):
            say(doubt, 0)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    if not answers:
        print("allowed: no policy is asked for that")
    for _, line in answers:
        print(shown(line))
    return 0 if all(is_allowed for is_allowed, _ in answers) else EXIT_DENIED


def _answers(settings: Settings, options: argparse.Namespace) -> list[tuple[bool, str]]:
    """Whether what is asked for is allowed, with the line that says so.

    Raises: Refused.
    """
    import msgspec

    from mcp_gateway.actors.cell.cell_permissions import permissions_of, views_of
    from mcp_gateway.transports.protocol.mcp.refusals import Refused as RequestRefused

    known = {*(backend.name for backend in settings.backends), *(server.name for server in settings.servers)}
    if options.server and options.server not in known:
        raise Refused(f"no backend {options.server!r} is configured, and no virtual server of that name")
    permissions = permissions_of(settings, lambda _: None)
    method, name = _method_and_name(options.what, options.name)
    if method == _FOLLOW and (refusal := _operators_refusal(settings, principal_of(options, settings), name)):
        return [(False, refusal)]
    try:
        if method in _TOPICS:
            if permissions is None:
                return []
            decisions = [permissions.topic_decision(principal_of(options, settings), method, name)]
        else:
            views = views_of(settings, lambda _: None)
            exchange = views.addressed(_exchange(options, principal_of(options, settings), method, name))
            try:
                views.check(exchange)
            except RequestRefused:
                return [(False, f"{method} of {name!r}: denied, as the virtual server {options.server!r} does not have it")]
            if permissions is None:
                return []
            decisions = permissions.decisions(exchange)
        return [(decision.is_allowed, _line(action, decision)) for action, decision in decisions]
    except (RequestRefused, msgspec.DecodeError, ValueError) as error:
        raise Refused(f"{method} of {name!r} with these arguments is no request: {error}") from None


def _operators_refusal(settings: Settings, principal: Principal | None, pattern: str) -> str:
    """Why topics are not followed whatever the policies say: those of the gateway's own are for operators; "" where they may be.

    Raises: Refused.
    """
    from mcp_gateway.transports.protocol.topics.client_events import is_for_operators
    from mcp_gateway.transports.protocol.topics.topic_log import InvalidTopic, TopicPattern

    try:
        is_theirs = is_for_operators(TopicPattern(pattern))
    except InvalidTopic as error:
        raise Refused(f"{_FOLLOW}: {error}") from None
    if not is_theirs or settings.auth is None:
        return ""
    if principal is None:
        return f"{_FOLLOW} of {pattern!r}: denied, as it is for operators, and nobody has logged in"
    if settings.auth.makes_operator(principal.scopes):
        return ""
    return f"{_FOLLOW} of {pattern!r}: denied, as it is for operators, who have the scope {settings.auth.operator_scope}"


def _method_and_name(what: str, name: str | None) -> tuple[str, str]:
    from mcp_gateway.transports.policy.actions import KINDS

    if name is not None:
        return what, name
    for method in (*KINDS, *_TOPICS):
        if what.startswith(f"{method}/"):
            return method, what.removeprefix(f"{method}/")
    return what, ""


def _exchange(options: argparse.Namespace, principal: Principal | None, method: str, name: str) -> Exchange:
    """The request as an edge would get it.

    Raises: ValueError, Refused of the protocol.
    """
    import msgspec

    from mcp_gateway.transports.policy.actions import KINDS
    from mcp_gateway.transports.ports.edge_port import Exchange
    from mcp_gateway.transports.ports.request_kind import RequestKind
    from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
    from mcp_gateway.transports.protocol.merging.naming import route_target

    member = "uri" if KINDS.get(method) == "resource" else "name"
    arguments = msgspec.json.decode(options.arguments, type=dict)
    params = msgspec.json.encode({member: name, "arguments": arguments} if method in KINDS else {})
    return Exchange(
        exchange_id=0,
        transport=options.transport,
        revision="",
        endpoint=options.server,
        kind=RequestKind.REQUEST,
        message=Request(b"0", method, params),
        target=route_target(method, params, b"0"),
        principal=principal,
        deadline_s=0.0,
    )


def _line(action: Action, decision: Decision) -> str:
    what = f"{action.method} of {action.name!r}" if action.name else action.method
    if action.backend:
        what += f" at backend {action.backend!r}"
    if action.kind == "topics":
        return f"{what}: allowed, with those of its events that may be followed each by itself"
    if decision.is_allowed and decision.rule is None:
        return f"{what}: allowed, as no policy denies it"
    if decision.scopes:
        return f"{what}: insufficient_scope by {decision.rule_name}, needs {' '.join(decision.scopes)}"
    verdict = "allowed" if decision.is_allowed else "denied"
    return f"{what}: {verdict} by {decision.rule_name}" + ("" if decision.rule is not None else ", as no policy allows it")
