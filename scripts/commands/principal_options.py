"""Options that say who somebody is, for commands that tell what they would be allowed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .attaching import Refused

if TYPE_CHECKING:
    from mcp_gateway.config.settings import Settings
    from mcp_gateway.transports.ports.principal import Principal

API_KEY: Final = "api-key"
VOUCHERS: Final = (API_KEY, "proxy", "certificate")
"""Issuers of principals that are no authorization servers."""

_MOST_NAMED: Final = 10


def add_principal_options(parser: argparse.ArgumentParser, without: str) -> None:
    """without: what holds where --as is not given."""
    parser.add_argument("--as", metavar="SUBJECT", dest="subject", help=f"who asks, or 'ISSUER SUBJECT'; {without}")
    parser.add_argument("--issuer", metavar="I", default="", help=f"who vouches for it: an issuer's URL, {', '.join(VOUCHERS)}")
    parser.add_argument("--group", metavar="G", action="append", default=[], help="of which group; may be given again")
    parser.add_argument("--scope", metavar="S", action="append", default=[], help="with which scope; may be given again")
    parser.add_argument("--client", metavar="C", default="", help="through which program (client_id)")


def say_who(options: argparse.Namespace) -> bool:
    """Whether the options say anything of somebody."""
    return options.subject is not None or bool(options.issuer or options.group or options.scope or options.client)


def doubts(principal: Principal | None, settings: Settings) -> Iterator[str]:
    """Why nobody may be who the options say it is: what is asked of such a one is answered, and may not be what was meant."""
    if principal is None:
        return
    issuer, subject, auth = principal.issuer, principal.subject, settings.auth
    if auth is None:
        if issuer:
            yield f"nobody logs in here, so nobody is {principal.key!r}: the configuration has no [auth]"
        return
    keys = [key.name for key in auth.api_keys]
    issuers = [each.issuer for each in auth.issuers]
    if issuer == API_KEY and subject not in keys:
        yield f"no API key {subject!r} is configured; {_there_are(keys)}"
    elif "://" in issuer and issuer not in issuers:
        yield f"no issuer {issuer!r} is configured; {_there_are(issuers)}"
    elif not issuer and subject in keys:
        yield f"{subject!r} is taken for a person of any issuer; the API key of that name is {f'{API_KEY} {subject}'!r}"


def _there_are(names: Sequence[str]) -> str:
    return f"there are {', '.join(names[:_MOST_NAMED])}{', …' if len(names) > _MOST_NAMED else ''}" if names else "there are none"


def principal_of(options: argparse.Namespace, settings: Settings) -> Principal | None:
    """Who the options say it is; of an API key that is configured, with its groups and scopes as well. None for nobody.

    Raises: Refused where they say something of nobody.
    """
    from mcp_gateway.transports.identity.vouched_users import CERTIFICATE_ISSUER, PROXY_ISSUER, with_operator_scope
    from mcp_gateway.transports.ports.principal import Principal

    if options.subject is None:
        if say_who(options):
            raise Refused("--issuer, --group, --scope and --client say something of whom --as names: name somebody")
        return None
    issuer, subject = options.issuer, options.subject
    first, _, rest = subject.partition(" ")
    if not issuer and rest and (first in VOUCHERS or "://" in first):  # as policies have it; other names may have spaces
        issuer, subject = first, rest
    groups, scopes = frozenset(options.group), frozenset(options.scope)
    for key in settings.auth.api_keys if settings.auth is not None and issuer == API_KEY else ():
        if key.name == subject:
            groups, scopes = groups | frozenset(key.groups), scopes | frozenset(key.scopes)
    user = Principal(issuer=issuer, subject=subject, client=options.client, groups=groups, scopes=scopes)
    if settings.auth is None or issuer not in (PROXY_ISSUER, CERTIFICATE_ISSUER):
        return user
    return with_operator_scope(user, settings.auth)
