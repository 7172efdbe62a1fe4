"""Several backends as one MCP server: what a client reads when the answers of all of them become one. The rules are ours."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.change_notifications import LIST_CHANGES, feature_of
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, LIST_MEMBERS, META_SERVER_INFO, REVISIONS, is_modern

from .list_bounds import shortened
from .naming import Naming, outer_items

MISSING_BACKENDS: Final = "io.mcp-gateway/missingBackends"
"""`_meta` key of a merged result: {backend: why it is missing}."""

_CAPABILITY_DEPTH: Final = 20
"""Levels of capabilities that are united; what lies deeper is taken from the first server that has it. The schema has three."""

LIST_PAGE_ITEMS: Final = 1000
"""Items on one page of a merged list: more than any model can read at once, and far below the message limit."""

PageStart: TypeAlias = int | tuple[str, int]
"""Where a page begins: with this item of the whole list; or, in a list that is gathered in parts, of what begins at a backend."""


@attrs.frozen
class BackendAnswer:
    """One backend's part of a merged answer: the `result` objects of its pages, in order, as JSON."""

    naming: Naming
    results: Sequence[bytes] = attrs.field(repr=False)


def merged_capabilities(results: Iterable[Mapping[str, Any]], *, more_come: bool = False) -> dict[str, Any]:
    """The union of what the servers can do; a flag is set where any of them sets it.

    more_come: a server is starting. Its lists come later, and the client is told of them then.
    """
    merged: dict[str, Any] = {}
    for result in results:
        capabilities = result.get("capabilities")
        if isinstance(capabilities, dict):
            _unite(merged, capabilities)
    if more_come:
        _unite(merged, {feature_of(change): {"listChanged": True} for change in LIST_CHANGES})
    return merged


def merged_instructions(answers: Iterable[tuple[str, Mapping[str, Any]]]) -> str | None:
    """The servers' instructions, each under its backend's name and as long as a description may be."""
    parts = [(backend, result.get("instructions")) for backend, result in answers]
    texts = [f"{backend}: {shortened(text)}" for backend, text in parts if isinstance(text, str) and text]
    return "\n\n".join(texts) or None


def merged_initialize(
    answers: Sequence[tuple[str, Mapping[str, Any]]],
    revision: str,
    server_info: Mapping[str, str],
    *,
    more_come: bool = False,
) -> dict[str, Any]:
    """The result of `initialize`.

    answers: (backend, result) of those that answered. revision: see `common_revision`. more_come: others are starting.
    """
    result: dict[str, Any] = {
        "protocolVersion": revision,
        "capabilities": merged_capabilities((result for _, result in answers), more_come=more_come),
        "serverInfo": dict(server_info),
    }
    instructions = merged_instructions(answers)
    if instructions:
        result["instructions"] = instructions
    return result


def common_revision(requested: str, offered: Iterable[str]) -> str:
    """The oldest of the revisions that the client asked for and its servers offered: what all of them understand."""
    known = [revision for revision in (requested, *offered) if revision in LEGACY_REVISIONS]
    return min(known, key=LEGACY_REVISIONS.index)


def merged_discover(
    answers: Sequence[tuple[str, Mapping[str, Any]]],
    missing: Mapping[str, str],
    server_info: Mapping[str, str],
    *,
    more_come: bool = False,
) -> dict[str, Any]:
    """The result of `server/discover`.

    missing: {backend: why} of those that did not answer; nobody caches what lacks them. more_come: some of them are starting.
    """
    results = [result for _, result in answers]
    merged: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(REVISIONS),
        "capabilities": merged_capabilities(results, more_come=more_come),
        "_meta": {META_SERVER_INFO: dict(server_info)},
        **_cache_hints(results),
    }
    instructions = merged_instructions(answers)
    if instructions:
        merged["instructions"] = instructions
    if missing:
        merged["ttlMs"] = 0
        merged["_meta"][MISSING_BACKENDS] = dict(missing)
    return merged


@attrs.frozen
class MergedList:
    """All items of a merged list, or of a part of it that some of its servers have given.

    member:  what they are called. beside: what else each page says.
    counts:  {backend: how many of them are its own}, in their order, where this is a part.
    goes_on: the backend at which the next part begins, or "".
    """

    member: str
    items: Sequence[Mapping[str, Raw]] = attrs.field(repr=False)
    beside: Mapping[str, Any]
    counts: Mapping[str, int] | None = None
    goes_on: str = ""

    @property
    def is_public(self) -> bool:
        """Whether its servers let everybody have it."""
        return self.beside.get("cacheScope") == "public"

    @property
    def flaws(self) -> Mapping[str, str]:
        """{backend: what is missing of its list, or wrong with it}."""
        flaws: Mapping[str, str] = self.beside.get("_meta", {}).get(MISSING_BACKENDS, {})
        return flaws

    def page(self, first_item: int) -> dict[str, Any]:
        """The result from this item on.

        Raises: Refused with invalid_params past the end of the list.
        """
        if first_item and first_item >= len(self.items) and not self.goes_on:
            raise Refused("invalid_params", "the cursor points past the end of the list")
        result: dict[str, Any] = {self.member: self.items[first_item : first_item + LIST_PAGE_ITEMS]}
        if first_item + LIST_PAGE_ITEMS < len(self.items) or self.goes_on:
            result["nextCursor"] = list_cursor(self._start(first_item + LIST_PAGE_ITEMS))
        return {**result, **self.beside}

    def pages_after(self, first_item: int) -> dict[PageStart, dict[str, Any]]:
        """{where it begins: result} of the pages that follow the one from this item on, as far as they are here."""
        end = len(self.items) - (LIST_PAGE_ITEMS - 1 if self.goes_on else 0)
        return {self._start(item): self.page(item) for item in range(first_item + LIST_PAGE_ITEMS, end, LIST_PAGE_ITEMS)}

    def _start(self, item: int) -> PageStart:
        if self.counts is None:
            return item
        for backend, count in self.counts.items():
            if item < count:
                return backend, item
            item -= count
        return self.goes_on, 0


def merged_list(
    method: str,
    answers: Sequence[BackendAnswer],
    missing: Mapping[str, str],
    revision: str,
    server_info: Mapping[str, str],
    *,
    is_part: bool = False,
    goes_on: str = "",
) -> MergedList:
    """A merged list, in the order of the configuration and then of each server.

    Of items of one server by the same name or URI, by which nobody could tell them apart, the first is served.

    missing: {backend: why} of those that did not answer in time.
    is_part, goes_on: see `MergedList`.

    Raises: Refused with upstream_failed where no answer is a list result.
    """
    list_member, item_member = LIST_MEMBERS[method]
    items: list[dict[str, Raw]] = []
    hints: list[dict[str, Any]] = []
    missing = dict(missing)
    repeats: dict[str, str] = {}  # what is told beside them: nothing is missing, so that the answer may be kept
    has_page = False
    counts: dict[str, int] = {}
    for answer in answers:
        before = len(items)
        names: set[bytes] = set()
        repeated: list[str] = []
        try:
            for page in answer.results:
                for item in outer_items(answer.naming, method, page):
                    name = bytes(item.get(item_member, b""))
                    if name and name in names:
                        repeated.append(name.decode())
                    else:
                        names.add(name)
                        items.append(item)
                hints.append(_hints_of(page))
                has_page = True
        except msgspec.DecodeError as error:
            missing[answer.naming.backend] = f"malformed list: {error}"
        counts[answer.naming.backend] = len(items) - before
        if repeated and answer.naming.backend not in missing:
            repeats[answer.naming.backend] = f"names more than once, of which the first is served: {', '.join(repeated[:5])}"
    if not has_page and any(answer.results for answer in answers):
        raise Refused("upstream_failed", "no backend sent a list that can be read", data={"missing": missing})
    beside: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    if is_modern(revision):
        beside.update(resultType="complete", **_cache_hints(hints))
        meta[META_SERVER_INFO] = dict(server_info)
        if missing:
            beside["ttlMs"] = 0
    if missing or repeats:
        meta[MISSING_BACKENDS] = missing | repeats
    if meta:
        beside["_meta"] = meta
    return MergedList(list_member, items, beside, counts if is_part else None, goes_on)


def item_count(method: str, result: bytes) -> int:
    """How many items a page of a server has; none where it is no page."""
    try:
        return len(msgspec.json.decode(members(result).get(LIST_MEMBERS[method][0], Raw(b"[]")), type=list[Raw]))
    except msgspec.DecodeError:
        return 0


def is_private(result: bytes) -> bool:
    """Whether a result is for nobody but the client that asked for it. Source: MCP 2026-07-28, server/utilities/caching."""
    return b'"private"' in result and _hints_of(result).get("cacheScope") == "private"


def list_cursor(start: PageStart) -> str:
    shown = f"items:{start}" if isinstance(start, int) else f"items:{start[1]}:{start[0]}"
    return base64.urlsafe_b64encode(shown.encode()).decode()


def list_position(params: bytes, request_id: bytes) -> PageStart:
    """Where the page begins that a merged list request asks for.

    Raises: Refused with invalid_params where the cursor is none of ours.
    """
    shown = members(params).get("cursor")
    if shown is None:
        return 0
    try:
        cursor = msgspec.json.decode(shown, type=str)
        name, number, *backend = base64.urlsafe_b64decode(cursor).decode().split(":", 2)
        if name == "items" and number.isdecimal() and len(number) < 10:
            start: PageStart = (backend[0], int(number)) if backend else int(number)
            if list_cursor(start) == cursor:
                return start
    except ValueError:  # neither a string nor Base64
        pass
    raise Refused("invalid_params", "unknown cursor", request_id=request_id)


def _unite(into: dict[str, Any], more: Mapping[str, Any], depth: int = 0) -> None:
    for key, value in more.items():
        known = into.get(key)
        if isinstance(value, dict) and depth < _CAPABILITY_DEPTH:
            if not isinstance(known, dict):
                known = into[key] = {}
            _unite(known, value, depth + 1)
        elif isinstance(known, bool) and isinstance(value, bool):
            into[key] = known or value
        else:
            into.setdefault(key, value)


def _hints_of(page: bytes) -> dict[str, Any]:
    result = members(page)
    return {key: msgspec.json.decode(result[key]) for key in ("ttlMs", "cacheScope") if key in result}


def _cache_hints(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The shortest time to live, and private where any part is. Source: MCP 2026-07-28, server/utilities/caching."""
    times, scopes = [], []
    for result in results:
        ttl_ms = result.get("ttlMs")
        times.append(ttl_ms if isinstance(ttl_ms, int) and not isinstance(ttl_ms, bool) and ttl_ms > 0 else 0)
        scopes.append(result.get("cacheScope"))
    is_public = bool(scopes) and all(scope == "public" for scope in scopes)
    return {"ttlMs": min(times, default=0), "cacheScope": "public" if is_public else "private"}
