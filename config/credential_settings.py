"""Settings of what the gateway shows to a server: `auth` of `[[backends]]` and what belongs to it. Rules as in `settings`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from .setting_rules import SettingProblem, quote, quote_url

AUTH_MODES: Final = ("none", "headers", "client_credentials", "token_exchange", "user")
OAUTH_MODES: Final = frozenset({"client_credentials", "token_exchange", "user"})
"""Those in which an authorization server gives out what the server is shown."""

PER_USER_MODES: Final = frozenset({"token_exchange", "user"})
"""Those in which each client's user is shown as that user."""

_SCHEMES_PER_USER: Final = ("http", "https")
_SCHEMES: Final = (*_SCHEMES_PER_USER, "sse+http", "sse+https", "ws", "wss", "grpc", "grpcs")
_OPEN_SCHEMES: Final = frozenset({"http", "sse+http", "ws", "grpc"})
_OAUTH_KEYS: Final = ("token_url", "issuer", "client_id", "client_secret_file", "scopes", "resource", "allow_private")
_LARGEST_SECRET_BYTES: Final = 65_536
_REFERENCE: Final = re.compile(r"\$\{(?:(?P<variable>[A-Za-z_][A-Za-z0-9_]*)|file:(?P<file>[^{}\x00]+))\}")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")


def credential_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check how one backend is shown who asks: only keys that mean something beside `auth`, and all that it needs."""
    auth = fields.get("auth")
    if auth is None or "replicas" not in fields or "headers" not in fields:
        return
    if auth == "headers" and not fields["headers"]:
        yield SettingProblem(key="headers", found="none", allowed='at least one beside auth = "headers"')
    if auth not in OAUTH_MODES:
        for key in _OAUTH_KEYS:
            if fields.get(key) and not (key == "allow_private" and fields.get("openapi")):
                allowed = f"only beside auth = {', '.join(quote(mode) for mode in AUTH_MODES if mode in OAUTH_MODES)}"
                yield SettingProblem(key=key, found=f"set beside auth = {quote(auth)}", allowed=allowed)
        return
    # A known gap: the connection of a WebSocket and of HTTP+SSE is shared by all who use it, and shows one token for all; gRPC,
    # which could show each call's own, does the same. What closes it: connections of these kinds for each user.
    schemes = _SCHEMES_PER_USER if auth in PER_USER_MODES else _SCHEMES
    for index, url in enumerate(fields["replicas"]):
        scheme = url.partition("://")[0]
        if scheme not in schemes:
            why = ", as other connections are shared by all users" if auth in PER_USER_MODES else ""
            allowed = f"URLs of {', '.join(schemes)} beside auth = {quote(auth)}{why}"
            yield SettingProblem(key=f"replicas[{index}]", found=quote_url(url), allowed=allowed)
        elif scheme in _OPEN_SCHEMES and not fields.get("allow_private", True):
            allowed = (
                "a URL with TLS (https, wss, grpcs), so that nobody on the way reads tokens, or allow_private = true beside it"
            )
            yield SettingProblem(key=f"replicas[{index}]", found=quote_url(url), allowed=allowed)
    if fields.get("openapi"):
        yield from _api_problems(fields)
    elif fields.get("grpc"):
        yield from _methods_problems(fields)
    elif not fields["replicas"]:
        yield SettingProblem(key="auth", found=quote(auth), allowed="only beside replicas")
    if any(name.lower() == "authorization" for name in fields["headers"]):
        allowed = f'another name beside auth = {quote(auth)}, or auth = "headers"'
        yield SettingProblem(key="headers.Authorization", found="set", allowed=allowed)
    if auth != "user" and not fields.get("client_id", "set"):
        allowed = f"what the authorization server knows the gateway by, beside auth = {quote(auth)}"
        yield SettingProblem(key="client_id", found="nothing", allowed=allowed)
    if _speaks_grpc(fields) and not fields.get("token_url", "set"):
        allowed = f"where tokens are asked for, beside auth = {quote(auth)}: a gRPC server does not say it"
        yield SettingProblem(key="token_url", found="nothing", allowed=allowed)
    elif auth == "token_exchange" and not fields.get("token_url", "set"):
        allowed = f"where tokens are exchanged, beside auth = {quote(auth)}"
        yield SettingProblem(key="token_url", found="nothing", allowed=allowed)
    is_pinned = fields.get("issuer", "set") or (auth != "user" and fields.get("token_url", "set"))
    if fields.get("client_secret_file") and not is_pinned:
        allowed = "the authorization server that client_secret_file is meant for; else the server could have it sent anywhere"
        yield SettingProblem(key="issuer", found="nothing", allowed=allowed)
    for key in ("token_url", "issuer"):
        if str(fields.get(key, "")).startswith("http://") and not fields.get("allow_private", True):
            yield SettingProblem(key=key, found=quote_url(fields[key]), allowed="an https URL, or allow_private = true beside it")


def _api_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Of an HTTP API by its description, which must not be able to choose where the gateway's tokens go."""
    auth, base_url = fields["auth"], str(fields.get("base_url", ""))
    if auth in PER_USER_MODES:
        allowed = 'auth = "client_credentials" beside openapi: what is shown to an API is the same for all users'
        yield SettingProblem(key="auth", found=quote(auth), allowed=allowed)
    elif not base_url:
        allowed = f"where the API is, beside auth = {quote(auth)}; else its description could have tokens sent anywhere"
        yield SettingProblem(key="base_url", found="nothing", allowed=allowed)
    elif base_url.startswith("http://") and not fields.get("allow_private", True):
        yield SettingProblem(key="base_url", found=quote_url(base_url), allowed="an https URL, or allow_private = true beside it")


def _methods_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Of a gRPC server by its reflection."""
    auth, address = fields["auth"], str(fields["grpc"])
    if auth in PER_USER_MODES:
        allowed = 'auth = "client_credentials" beside grpc: what is shown to its methods is the same for all users'
        yield SettingProblem(key="auth", found=quote(auth), allowed=allowed)
    elif not address.startswith("https://") and not fields.get("allow_private", True):
        allowed = "https://host:port, so that nobody on the way reads tokens, or allow_private = true beside it"
        yield SettingProblem(key="grpc", found=quote(address), allowed=allowed)


def _speaks_grpc(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("grpc")) or any(str(url).startswith(("grpc:", "grpcs:")) for url in fields["replicas"])


def user_credential_problems(
    backends: Sequence[Mapping[str, Any]], gateway: Mapping[str, Any], *, has_auth: bool
) -> Iterator[SettingProblem]:
    """Check that each user's credentials can be told apart and kept: who asks is known, and all cells read one vault."""
    for index, backend in enumerate(backends):
        auth = backend.get("auth")
        if auth not in PER_USER_MODES:
            continue
        if not has_auth and (auth == "token_exchange" or _is_reached_by_others(gateway)):
            allowed = "[auth] beside it, so that each user is shown as that user and nobody as somebody else"
            yield SettingProblem(key=f"backends[{index}].auth", found=quote(auth), allowed=allowed)
        if auth == "user" and _is_reached_by_others(gateway) and gateway.get("public_url") == "":
            allowed = "a gateway.public_url beside it: the address to which browsers come back from where users consent"
            yield SettingProblem(key=f"backends[{index}].auth", found=quote(auth), allowed=allowed)
        if auth == "user" and gateway.get("state_dir") == "" and gateway.get("cells") != 1:
            allowed = "a gateway.state_dir beside it, where all cells find what users have consented to, or cells = 1"
            yield SettingProblem(key=f"backends[{index}].auth", found=quote(auth), allowed=allowed)


def filled_in(headers: Mapping[str, str], environment: Mapping[str, str]) -> tuple[dict[str, str], list[SettingProblem]]:
    """Header values with what `${NAME}` has in the environment and what `${file:PATH}` has on its first and only line.

    What was filled in is not looked at again. Gives the problems as well: no value is in them.
    """
    problems: list[SettingProblem] = []

    def value_of(name: str, reference: re.Match[str]) -> str:
        variable, path = reference["variable"], reference["file"]
        value = _line_of(path) if path is not None else environment.get(variable)
        if value is None or _VALUE.fullmatch(value) is None:
            allowed = (
                f"a value for {variable} in the gateway's environment" if path is None else f"one line of text in {quote(path)}"
            )
            problems.append(
                SettingProblem(key=f"headers.{name}", found="nothing" if value is None else "other text", allowed=allowed)
            )
            return ""
        return value

    filled = {
        name: _REFERENCE.sub(lambda reference, name=name: value_of(name, reference), value)  # type: ignore[misc]
        for name, value in headers.items()
    }
    return filled, problems


def _line_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read(_LARGEST_SECRET_BYTES + 1)
    except (OSError, ValueError):
        return None
    return content.removesuffix("\n").removesuffix("\r") if len(content) <= _LARGEST_SECRET_BYTES else None


def _is_reached_by_others(gateway: Mapping[str, Any]) -> bool:
    host, public = gateway.get("host", "localhost"), gateway.get("public_url", "")
    return not _is_this_machine(host) or not _is_this_machine(urlsplit(public).hostname or "localhost")


def _is_this_machine(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
