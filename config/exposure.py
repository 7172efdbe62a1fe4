"""What a gateway that others can reach lacks, in words for whoever has set it up. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from .settings import Settings


def exposure_warnings(settings: Settings) -> Iterator[str]:
    """One line for each thing to think of; of what others could reach, none for a gateway that only this machine reaches.

    Known gap: without [auth] the gateway cannot see whether a proxy before it authenticates.
    """
    yield from _policies_of_nothing(settings)
    gateway = settings.gateway
    public = urlsplit(gateway.public_url)
    is_bound_beyond = not _is_loopback(gateway.host)
    if not is_bound_beyond and _is_loopback(public.hostname or "localhost"):
        return
    where = f"gateway.host: {gateway.host} is reached from other machines" if is_bound_beyond else "gateway.public_url: is set"
    if is_bound_beyond and not gateway.allowed_hosts and not gateway.public_url:
        yield f"{where}, and no name of it is known: requests by a name are refused until public_url or allowed_hosts has it"
    if settings.auth is None:
        text = f"{where}, and nobody is authenticated: whoever reaches it may call {_what(settings)}"
        yield f"{text}; put a proxy that asks before it"
    elif settings.auth.mode == "optional":
        yield f"{where}, and auth.mode is 'optional': whoever reaches it may call {_what(settings)} without saying who it is"
    if settings.tls is not None:
        return
    if public.scheme == "http" or (not public.scheme and not gateway.trusted_proxies):
        yield f"{where}, and no TLS stands before it: set public_url to its https address, and trusted_proxies to the proxy's"


def _policies_of_nothing(settings: Settings) -> Iterator[str]:
    """A slip of the pen in a deny leaves allowed what it meant. Backends may come while the gateway runs, so it is no mistake.
    Nor is it one that nobody may do anything, but it is seldom what was meant.
    """
    if settings.policies and all(policy.effect == "deny" for policy in settings.policies):
        yield 'policies: all deny, and what none allows is denied to everybody; one with effect = "allow" alone allows the rest'
    known = {backend.name for backend in settings.backends}
    for index, policy in enumerate(settings.policies):
        for name in policy.backends:
            if "*" not in name and name not in known:
                yield f"policies[{index}].backends: {name!r} is the name of no backend: this policy is about nothing there"


def _what(settings: Settings) -> str:
    return "what the policies allow to anybody" if settings.policies else "every tool"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
