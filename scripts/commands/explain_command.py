"""`mcp-gateway explain`: which policy decides what somebody may do, by the file alone; no gateway need run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from mcp_gateway.config.shown_text import shown

from .attaching import EXIT_REFUSED, Refused, say, settings_of

if TYPE_CHECKING:
    from mcp_gateway.config.settings import Settings
    from mcp_gateway.transports.policy.policies import Action, Decision
    from mcp_gateway.transports.ports.edge_port import Exchange
    from mcp_gateway.transports.ports.principal import Principal

EXIT_DENIED: Final = 1
_VOUCHERS: Final = ("api-key", "proxy", "certificate")
"""Issuers of principals that are no authorization servers."""
_TOPICS: Final = ("topics/follow", "topics/publish")


def add_explain_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("explain", help="say which policy decides what somebody may do; exit 0 allowed, 1 denied")
    parser.add_argument(
        "--as", metavar="SUBJECT", dest="subject", help="who asks, or 'ISSUER SUBJECT'; nobody in particular if not given"
    )
    parser.add_argument("--issuer", metavar="I", default="", help=f"who vouches for it: an issuer's URL, {', '.join(_VOUCHERS)}")
    parser.add_argument("--group", metavar="G", action="append", default=[], help="of which group; may be given again")
    parser.add_argument("--scope", metavar="S", action="append", default=[], help="with which scope; may be given again")
    parser.add_argument("--client", metavar="C", default="", help="through which program (client_id)")
    parser.add_argument("--config", metavar="F.toml", help="the configuration with the policies")
    parser.add_argument("--server", metavar="NAME", default="", help="at /mcp/servers/NAME, with the names that it has there")
    parser.add_argument("--transport", metavar="T", default="streamable_http", help="over which transport; routes may ask for it")
    parser.add_argument("--arguments", metavar="JSON", default="{}", help="of the tool or prompt, for conditions")
    parser.add_argument("what", metavar="METHOD/NAME", help="tools/call/files__read, resources/read/URI, topics/follow/all, …")
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the tool and so on, where it is not part of the first word")
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    try:
        decisions = _decisions(settings_of(options), options)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    if not decisions:
        print("allowed: no policy is asked for that")
    for action, decision in decisions:
        print(shown(_line(action, decision)))
    return 0 if all(decision.is_allowed for _, decision in decisions) else EXIT_DENIED


def _decisions(settings: Settings, options: argparse.Namespace) -> list[tuple[Action, Decision]]:
    """Raises: Refused."""
    import msgspec

    from mcp_gateway.actors.cell.cell_permissions import permissions_of
    from mcp_gateway.transports.policy.policies import Action, Policies
    from mcp_gateway.transports.protocol.mcp.refusals import Refused as RequestRefused

    if options.server and options.server not in {backend.name for backend in settings.backends}:
        raise Refused(f"no backend {options.server!r} is configured")
    permissions = permissions_of(settings, lambda _: None)
    if permissions is None:
        return []
    method, name = _method_and_name(options.what, options.name)
    if method in _TOPICS:
        action = Action(method=method, kind="topic", name=name)
        return [(action, Policies(settings.policies).decide(_principal(options), action))]
    try:
        return permissions.decisions(_exchange(options, method, name))
    except (RequestRefused, msgspec.DecodeError, ValueError) as error:
        raise Refused(f"{method} of {name!r} with these arguments is no request: {error}") from None


def _method_and_name(what: str, name: str | None) -> tuple[str, str]:
    from mcp_gateway.transports.policy.actions import KINDS

    if name is not None:
        return what, name
    for method in (*KINDS, *_TOPICS):
        if what.startswith(f"{method}/"):
            return method, what.removeprefix(f"{method}/")
    return what, ""


def _principal(options: argparse.Namespace) -> Principal | None:
    from mcp_gateway.transports.ports.principal import Principal

    if options.subject is None:
        return None
    issuer, subject = options.issuer, options.subject
    first, _, rest = subject.partition(" ")
    if not issuer and rest and (first in _VOUCHERS or "://" in first):  # as policies have it; other names may have spaces
        issuer, subject = first, rest
    groups, scopes = frozenset(options.group), frozenset(options.scope)
    return Principal(issuer=issuer, subject=subject, client=options.client, groups=groups, scopes=scopes)


def _exchange(options: argparse.Namespace, method: str, name: str) -> Exchange:
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
        principal=_principal(options),
        deadline_s=0.0,
    )


def _line(action: Action, decision: Decision) -> str:
    what = f"{action.method} of {action.name!r}" if action.name else action.method
    if action.backend:
        what += f" at backend {action.backend!r}"
    if decision.is_allowed and decision.rule is None:
        return f"{what}: allowed, as no policy denies it"
    if decision.scopes:
        return f"{what}: insufficient_scope by {decision.rule_name}, needs {' '.join(decision.scopes)}"
    verdict = "allowed" if decision.is_allowed else "denied"
    return f"{what}: {verdict} by {decision.rule_name}" + ("" if decision.rule is not None else ", as no policy allows it")
