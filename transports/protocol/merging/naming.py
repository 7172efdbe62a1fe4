"""How one merged server names what its backends offer: tools and prompts by prefix, resources by scheme.

A resource keeps a valid URI (RFC 3986): backend `files` shows `file:///a` as `files+file:///a`, because strict clients refuse
a prefix such as `files__` in a scheme. An interface of MCP Apps keeps its scheme, because hosts know it by that: backend `board`
shows `ui://main/a.html` as `ui://board/main/a.html`. With an empty prefix nothing is renamed.

Source: MCP Apps (ext-apps) 2026-01-26, "UI Resource Format" and "Resource Discovery".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.change_notifications import RESOURCE_UPDATED
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.modern_rules import item_of
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.result_form import is_plain
from mcp_gateway.transports.protocol.mcp.revisions import ITEM_MEMBER, LIST_MEMBERS, NAMED_ITEM_MEMBER

_encode = msgspec.json.encode
_decode_string = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_items = msgspec.json.Decoder(list[dict[str, Raw]]).decode

_INTERFACE: Final = "ui://"
_NAMES_A_RESOURCE: Final = "resourceUri"
_NAMES_A_RESOURCE_BYTES: Final = _NAMES_A_RESOURCE.encode()
"""How members of `_meta` end that name a resource: `ui.resourceUri`, and `ui/resourceUri` as it was before."""
_META_LEVELS: Final = 20
"""Levels of `_meta` in which URIs are looked for. Apps has two."""

_LARGE_BYTES: Final = 4_096


@attrs.frozen
class Naming:
    """The names of one backend inside a merged server. All parts are empty where the backend stands alone.

    interfaces: how the URIs of its interfaces begin.
    """

    backend: str
    prefix: str
    scheme: str = attrs.field(init=False)
    interfaces: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # "_" may not stand in a scheme; the prefix keeps backends apart, so a clash can only come from that replacement.
        label = re.sub(r"[^a-z0-9.-]", "-", self.backend.lower()) if self.prefix else ""
        object.__setattr__(self, "scheme", label and f"{label}+")
        object.__setattr__(self, "interfaces", label and f"{_INTERFACE}{label}/")

    def outer_name(self, inner: str) -> str:
        return self.prefix + inner

    def inner_name(self, outer: str) -> str:
        return outer.removeprefix(self.prefix)

    def outer_uri(self, inner: str) -> str:
        if self.interfaces and inner.startswith(_INTERFACE):
            return self.interfaces + inner.removeprefix(_INTERFACE)
        return self.scheme + inner

    def inner_uri(self, outer: str) -> str:
        """The backend's own URI; the prefix itself is understood as well (`files__file:///a`)."""
        if self.interfaces and outer.startswith(self.interfaces):
            return _INTERFACE + outer.removeprefix(self.interfaces)
        return outer.removeprefix(self.scheme) if outer.startswith(self.scheme) else outer.removeprefix(self.prefix)

    def has_uri(self, outer: str) -> bool:
        """Whether a URI that a client of the merged server names is one of this backend."""
        return bool(self.prefix) and outer.startswith((self.scheme, self.interfaces, self.prefix))

    @property
    def default_patterns(self) -> tuple[str, ...]:
        """The route patterns that lead to this backend where the configuration has no routes."""
        if not self.prefix:
            return ("*",)
        by_prefix = (f"{method}/{self.prefix}*" for method in NAMED_ITEM_MEMBER)
        return (*by_prefix, f"resources/read/{self.scheme}*", f"resources/read/{self.interfaces}*")


def route_target(method: str, params: bytes, request_id: bytes) -> str:
    """What a route pattern is matched against: `tools/call/<name>`, `prompts/get/<name>`, `resources/read/<uri>`, or the method.

    Subscriptions and completions follow the resource or prompt that they speak of.

    Raises: Refused with invalid_params where the addressed item is missing.
    """
    member = ITEM_MEMBER.get(method)
    try:
        if member is not None:
            return f"{method}/{item_of(members(params), member, request_id)}"
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return f"resources/read/{item_of(members(params), 'uri', request_id)}"
        if method == "completion/complete":
            reference = members(members(params).get("ref", Raw(b"")))
            if "name" in reference:
                return f"prompts/get/{item_of(reference, 'name', request_id)}"
            return f"resources/read/{item_of(reference, 'uri', request_id)}"
    except msgspec.DecodeError:
        raise Refused("invalid_params", "params must be an object with its required members", request_id=request_id) from None
    return method


def inner_params(naming: Naming, method: str, params: bytes) -> bytes:
    """The params as the backend knows them: prefix and scheme taken off."""
    if not naming.prefix:
        return params
    if method in ("tools/call", "prompts/get"):
        return _with_member(params, "name", naming.inner_name)
    if method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
        return _with_member(params, "uri", naming.inner_uri)
    if method == "completion/complete":
        outer = members(params)
        inner = _with_member(bytes(outer["ref"]), "name", naming.inner_name)
        outer["ref"] = Raw(_with_member(inner, "uri", naming.inner_uri))
        return _encode(outer)
    return params


def outer_items(naming: Naming, method: str, result: bytes) -> list[dict[str, Raw]]:
    """The items of one backend's list result, renamed for the merged server; ids of tasks have been sealed before.

    Raises: msgspec.DecodeError where the result is no list result of that method.
    """
    list_member, item_member = LIST_MEMBERS[method]
    rename = naming.outer_name if item_member == "name" else naming.outer_uri
    items = _decode_items(members(result).get(list_member, Raw(b"[]")))
    if naming.prefix and item_member != "taskId":
        for item in items:
            if item_member not in item:
                raise msgspec.ValidationError(f"an item of {list_member} lacks {item_member!r}")
            item[item_member] = Raw(_encode(rename(_decode_string(item[item_member]))))
            _rename_meta(naming, item)
    return items


def outer_result(naming: Naming, result: bytes) -> bytes:
    """A result whose resource links, embedded resources and interfaces can be read back through the merged server."""
    if not naming.prefix or not _may_need_renaming(result):
        return result
    values = members(result)
    _rename_meta(naming, values)
    for name, rename in (("content", _outer_block), ("contents", _outer_contents), ("messages", _outer_message)):
        if name in values:
            values[name] = _each(values[name], naming, rename)
    return _encode(values)


def outer_notification(naming: Naming, method: str, params: bytes) -> bytes:
    """The params of a server's notification as the merged server's clients know them."""
    if method == RESOURCE_UPDATED:
        params = _with_member(params, "uri", naming.outer_uri)
    if naming.prefix and _may_name_resource(params):
        values = members(params)
        _rename_meta(naming, values)
        return _encode(values)
    return params


def _with_member(json_object: bytes, name: str, change: Callable[[str], str]) -> bytes:
    values = members(json_object)
    if name not in values:
        return json_object
    try:
        values[name] = Raw(_encode(change(_decode_string(values[name]))))
    except msgspec.ValidationError:
        return json_object
    return _encode(values)


def _each(value: Raw, naming: Naming, change: Callable[[Naming, Raw], Raw]) -> Raw:
    """A list with each of its members changed; anything else is changed itself (the content of a prompt's message)."""
    if not bytes(value).startswith(b"["):
        return change(naming, value)
    return Raw(_encode([change(naming, each) for each in _decode_list(value)]))


def _outer_message(naming: Naming, message: Raw) -> Raw:
    """A message of a prompt, whose content is one block."""
    values = _members_of(message)
    if "content" not in values:
        return message
    values["content"] = _each(values["content"], naming, _outer_block)
    return Raw(_encode(values))


def _outer_block(naming: Naming, block: Raw) -> Raw:
    """A content block: a resource link has its own uri, an embedded resource that of its contents.

    Source: MCP 2026-07-28, server/tools, "Resource Links" and "Embedded Resources".
    """
    values = _members_of(block)
    kind = bytes(values.get("type", b""))
    if kind == b'"resource_link"':
        return _outer_contents(naming, block)
    has_resource = kind == b'"resource"' and "resource" in values
    if has_resource:
        values["resource"] = _outer_contents(naming, values["resource"])
    return Raw(_encode(values)) if _rename_meta(naming, values) or has_resource else block


def _outer_contents(naming: Naming, contents: Raw) -> Raw:
    if not bytes(contents).startswith(b"{"):
        return contents
    renamed = _with_member(bytes(contents), "uri", naming.outer_uri)
    values = members(renamed)
    return Raw(_encode(values)) if _rename_meta(naming, values) else Raw(renamed)


def _may_need_renaming(result: bytes) -> bool:
    """Whether it is worth to look closer. Of a small result a look at all of its text is cheaper, of a large one at its form."""
    if len(result) <= _LARGE_BYTES:
        return b'"resource' in result or b'"contents"' in result or _may_name_resource(result)
    try:
        return not is_plain(result)
    except msgspec.DecodeError:
        return True


def _may_name_resource(json_bytes: bytes) -> bool:
    """Whether it is worth to look closer. Some servers write "/" as "\\/"."""
    return b"ui:" in json_bytes or _NAMES_A_RESOURCE_BYTES in json_bytes


def _rename_meta(naming: Naming, values: dict[str, Raw]) -> bool:
    """Rename what `_meta` of an object names; whether it has named anything."""
    meta = values.get("_meta")
    if meta is None:
        return False
    renamed = _outer_meta(naming, meta, _META_LEVELS)
    values["_meta"] = renamed
    return renamed is not meta


def _outer_meta(naming: Naming, value: Raw, levels: int, *, is_uri: bool = False) -> Raw:
    """Metadata whose interfaces, and resources by name, can be read through the merged server; the same object where it has none.

    is_uri: the name of the member says so.
    """
    raw = bytes(value)
    if not is_uri and not _may_name_resource(raw):
        return value
    if raw.startswith(b'"'):
        text = _decode_string(raw)
        return Raw(_encode(naming.outer_uri(text))) if is_uri or text.startswith(_INTERFACE) else value
    if not levels or not raw.startswith((b"{", b"[")):
        return value
    if raw.startswith(b"["):
        listed = _decode_list(raw)
        items = [_outer_meta(naming, each, levels - 1) for each in listed]
        return value if all(new is old for new, old in zip(items, listed, strict=True)) else Raw(_encode(items))
    values = members(raw)
    outer = {
        name: _outer_meta(naming, each, levels - 1, is_uri=name.endswith(_NAMES_A_RESOURCE)) for name, each in values.items()
    }
    return value if all(outer[name] is each for name, each in values.items()) else Raw(_encode(outer))


def _members_of(value: Raw) -> dict[str, Raw]:
    return members(bytes(value)) if bytes(value).startswith(b"{") else {}
