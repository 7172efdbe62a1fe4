"""What is kept of a client's `initialize`: what a server that has lost the session must be told again, within bounds. Pure.

The server that is asked first gets all of it. What is kept travels in the session's id, lies in the journal and in the memory of
cells, so it is ours to say how much a client may have there.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import negotiated_legacy

MOST_HANDSHAKE_BYTES: Final = 1_536
"""About half of what an id has room for; clients that tell all that they can do need some four hundred."""
MOST_CLIENT_BYTES: Final = 8_192
_LONGEST_NAME_BYTES: Final = 100
_LONGEST_VERSION_BYTES: Final = 50
_ACTED_ON: Final = frozenset({"roots", "sampling", "elicitation", "tasks", "extensions"})
"""Source: MCP 2025-11-25, basic/lifecycle, "Capability Negotiation". All else is `experimental`, whatever it is called."""

_NOTHING_SAID: Final = {"protocolVersion": Raw(b'""'), "capabilities": Raw(b"{}"), "clientInfo": Raw(b"{}")}


def kept_handshake(params: bytes, most_bytes: int = MOST_HANDSHAKE_BYTES) -> bytes:
    """The params of an `initialize` with which the session is opened again.

    params: as `handshake.initialize_revision` takes them; what is missing counts as empty.

    Who the client is stays, cut; icons, descriptions and `_meta` go. Of its capabilities those that nobody acts on go where there
    is no room for them, the largest first.

    Raises: Refused with too_large where even the rest has no room.
    """
    values = {**_NOTHING_SAID, **members(params)}
    version = bytes(values["protocolVersion"])
    if len(version) > _LONGEST_VERSION_BYTES:
        version = msgspec.json.encode(negotiated_legacy(msgspec.json.decode(version, type=str)))
    info = members(bytes(values["clientInfo"]))
    kept_info = {name: _cut(bytes(info[name])) for name in ("name", "title", "version") if name in info}
    kept = {"protocolVersion": Raw(version), "clientInfo": Raw(msgspec.json.encode(kept_info))}
    room = most_bytes - len(msgspec.json.encode({**kept, "capabilities": {}}))
    capabilities = _fitting(members(bytes(values["capabilities"])), room)
    if capabilities is None:
        text = f"the client's capabilities and clientInfo take more than the {most_bytes} bytes that are kept of them"
        raise Refused("too_large", text)
    return msgspec.json.encode({"protocolVersion": Raw(version), "capabilities": capabilities, "clientInfo": kept["clientInfo"]})


def kept_client(client_info: bytes, capabilities: bytes) -> tuple[bytes, bytes]:
    """What a server is told of a client that has no session, and says both with each request.

    As it is up to MOST_CLIENT_BYTES, which has room for an icon's address; beyond that as `kept_handshake` has it.

    Raises: Refused with too_large.
    """
    if len(client_info) + len(capabilities) <= MOST_CLIENT_BYTES:
        return client_info, capabilities
    said = {**_NOTHING_SAID, "clientInfo": Raw(client_info), "capabilities": Raw(capabilities)}
    kept = members(kept_handshake(msgspec.json.encode(said), MOST_CLIENT_BYTES))
    return bytes(kept["clientInfo"]), bytes(kept["capabilities"])


def kept_user(user: str) -> str:
    """What a client calls its user, or, where that is long, something as good to hash."""
    text = user.encode(errors="replace")
    return user if len(text) <= _LONGEST_NAME_BYTES else hashlib.blake2b(text, digest_size=16).hexdigest()


def _fitting(capabilities: dict[str, Raw], room: int) -> dict[str, Raw] | None:
    """Those that fit into so many bytes; None where those that are acted on do not."""
    sizes = {name: len(msgspec.json.encode(name)) + len(bytes(value)) + 2 for name, value in capabilities.items()}
    size = sum(sizes.values()) - 1  # no comma after the last one
    dropped = set()
    for name in sorted(sizes.keys() - _ACTED_ON, key=lambda name: (-sizes[name], name)):
        if size <= room:
            break
        size -= sizes[name]
        dropped.add(name)
    if size > room:
        return None
    return {name: value for name, value in capabilities.items() if name not in dropped}


def _cut(value: bytes) -> Raw:
    """A name as it is, or its beginning. value: JSON; what is long and no string becomes an empty one."""
    if len(value) <= _LONGEST_NAME_BYTES:
        return Raw(value)
    try:
        text = msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return Raw(b'""')
    visible = "".join(character for character in text[:_LONGEST_NAME_BYTES] if character.isprintable())
    return Raw(msgspec.json.encode(visible.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore")))
