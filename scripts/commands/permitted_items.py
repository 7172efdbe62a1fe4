"""What of a list somebody else would be shown, by the policies of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_gateway.config.settings import Settings
    from mcp_gateway.transports.ports.principal import Principal


def permitted_items(
    settings: Settings, principal: Principal | None, method: str, server: str | None, items: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """items: of a list by that method, at /mcp, or at the server of that name, as clients see them who may use everything."""
    import msgspec

    from mcp_gateway.actors.cell.cell_permissions import permissions_of
    from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS
    from mcp_gateway.transports.protocol.merging.naming import Naming

    permissions = permissions_of(settings, lambda _: None)
    if permissions is None:
        return list(items)
    list_member, item_member = LIST_MEMBERS[method]
    namings = [Naming(each.name, each.prefix) for each in settings.backends]  # of which no prefix begins another

    def named(shown: str) -> tuple[str, str]:
        """(whose it is, what it is called there)"""
        for naming in namings:
            if naming.backend == server:
                return naming.backend, shown
        for naming in namings:
            if item_member == "name" and shown.startswith(naming.prefix):
                return naming.backend, naming.inner_name(shown)
            if item_member != "name" and (naming.has_uri(shown) or not naming.prefix):
                return naming.backend, naming.inner_uri(shown)
        return "", shown

    def is_shown(item: Mapping[str, Any]) -> bool:
        backend, own = named(str(item.get(item_member, "")))
        result = permissions.shown_list(principal, backend, method, msgspec.json.encode({list_member: [{item_member: own}]}))
        return bool(msgspec.json.decode(result)[list_member])

    return [item for item in items if is_shown(item)]
