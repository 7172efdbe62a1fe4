"""What a client's requests are hashed on, the values behind the sources that routes name, and who the client is. Pure.

What a client says of itself ("user", "header:NAME") chooses a replica and nothing else: it can say something else each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus

import attrs
import msgspec

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .principal import Principal

_ARGUMENT: Final = "argument:"
_LONGEST_USER: Final = 1_000


PRINCIPAL: Final = "principal"
"""The key of who a client has proved to be. Without authentication no request has it."""

CREDENTIAL: Final = "credential"
"""The key of what it has shown for that, by its fingerprint."""

_OF_PRINCIPAL: Final = "principal:"


def principal_of(keys: Mapping[str, str]) -> str:
    """Whose private results a request may have; "" where nobody knows."""
    return keys.get(PRINCIPAL, "")


def owner_of(keys: Mapping[str, str]) -> str:
    """To whom the ids of a request's tasks and parked calls are given.

    Whoever brings such an id has it from us already. That it must say as well who it said it was can only keep somebody out.
    """
    principal = principal_of(keys)
    if principal:
        return f"{_OF_PRINCIPAL}{principal}"
    user = keys.get("user", "")
    return f"user:{user}" if user.startswith(_OF_PRINCIPAL) else user


@attrs.frozen
class Asker:
    """For whom a server is asked. principal: "" for nobody in particular. credential: fingerprint of what it has shown, or ""."""

    principal: str = ""
    credential: str = ""

    @classmethod
    def of(cls, keys: Mapping[str, str]) -> Asker:
        return cls(keys.get(PRINCIPAL, ""), keys.get(CREDENTIAL, ""))


def keys_of_owner(owner: str) -> dict[str, str]:
    """The keys of a request that is made for whoever `owner_of` names: a server is shown that one, and nobody else."""
    return {PRINCIPAL: owner.removeprefix(_OF_PRINCIPAL)} if owner.startswith(_OF_PRINCIPAL) else {}


def holder_of(keys: Mapping[str, str]) -> str:
    """Whose share of what all clients share a request takes: that of its principal, or else of its address."""
    principal = principal_of(keys)
    return f"{_OF_PRINCIPAL}{principal}" if principal else keys.get("ip", "")


def holder(principal: Principal | None, address: str) -> str:
    """The same before there are keys."""
    return address if principal is None else f"{_OF_PRINCIPAL}{principal.key}"


def is_principal(holder: str) -> bool:
    """Whether a holder is somebody who has proved who that is, and no address."""
    return holder.startswith(_OF_PRINCIPAL)


class HashKeys:
    """Finds the values of "user", "session", "ip", "header:NAME" and "argument:NAME" for one message of a client."""

    def __init__(self, settings: Settings) -> None:
        sources = {source for route in settings.routes for source in route.hash_sources} | {*settings.limits.key_sources}
        self._headers = [source.partition(":")[2] for source in sources if source.startswith("header:")]
        self._arguments = [source.partition(":")[2] for source in sources if source.startswith(_ARGUMENT)]

    def of_connection(
        self, headers: Mapping[str, str], query: str, remote_ip: str, principal: Principal | None = None
    ) -> dict[str, str]:
        """{source: value} of what does not change while the client stays connected. headers: as in `server.Incoming`.

        A user that has proved who it is is that one, whatever its query says.

        A known gap: a connection that was there before a route with another `header:NAME` keeps no value for it; keeping all
        headers of every connection would close it.
        """
        keys = {"ip": remote_ip}
        if principal is not None:
            keys[PRINCIPAL] = keys["user"] = principal.key
            keys[CREDENTIAL] = principal.fingerprint
        elif query and (user := query_value(query, "user_id")):
            keys["user"] = user[:_LONGEST_USER]
        for name in self._headers:
            value = headers.get("-".join(word.capitalize() for word in name.split("-")))
            if value is not None:
                keys[f"header:{name}"] = value
        return keys

    def of_message(
        self, connection: Mapping[str, str], session: SessionState | None, new_session: str, message: Message | None
    ) -> dict[str, str]:
        """The same for one message. new_session: the key of the session that the message opens, or ""."""
        keys = dict(connection)
        if session is not None:
            keys["session"] = session.key
            keys.setdefault("user", session.hash_key)
        elif new_session:
            keys["session"] = new_session
        if self._arguments and isinstance(message, Request):
            keys.update(_argument_keys(message.params, self._arguments))
        return keys

    def with_arguments(self, keys: Mapping[str, str], message: Request) -> dict[str, str]:
        """The keys with those of this message's arguments, and of no other message's."""
        others = {name: value for name, value in keys.items() if not name.startswith(_ARGUMENT)}
        return {**others, **_argument_keys(message.params, self._arguments)}


def query_value(query: str, name: str) -> str | None:
    """The first value of a query parameter that has one, however long or crowded the query is: the head bounds it."""
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if value and unquote_plus(key) == name:
            return unquote_plus(value)
    return None


def chosen_tools(headers: Mapping[str, str], query: str) -> str:
    """Which tools a client wants to see: of `?tools=` and of the header `Mcp-Tools` the latter."""
    return headers.get("Mcp-Tools") or (query_value(query, "tools") or "" if "tools" in query else "")


def _argument_keys(params: bytes, names: list[str]) -> dict[str, str]:
    """{"argument:NAME": value as JSON} of the tool arguments that routes hash on."""
    try:
        arguments = jsonrpc.members(bytes(jsonrpc.members(params).get("arguments", msgspec.Raw(b""))))
    except msgspec.DecodeError:
        return {}
    return {f"{_ARGUMENT}{name}": bytes(arguments[name]).decode(errors="replace") for name in names if name in arguments}
