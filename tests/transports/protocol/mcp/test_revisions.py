"""The revisions and the methods that each of them has."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.protocol.mcp.revisions import (
    LEGACY_REVISIONS,
    MODERN_REVISIONS,
    REVISIONS,
    is_known_method,
    is_modern,
    negotiated_legacy,
)

# Source: schema.ts of each revision, ClientRequest. {method: (legacy, modern)}
METHODS = {
    "initialize": (True, False),
    "ping": (True, False),
    "logging/setLevel": (True, False),
    "resources/subscribe": (True, False),
    "resources/unsubscribe": (True, False),
    "server/discover": (False, True),
    "subscriptions/listen": (False, True),
    "tools/list": (True, True),
    "tools/call": (True, True),
    "resources/list": (True, True),
    "resources/templates/list": (True, True),
    "resources/read": (True, True),
    "prompts/list": (True, True),
    "prompts/get": (True, True),
    "completion/complete": (True, True),
    "notifications/initialized": (False, False),
    "sampling/createMessage": (False, False),
    "tools/Call": (False, False),
    "": (False, False),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_known_to_the_revisions_whose_schema_has_it(method):
    is_legacy_method, is_modern_method = METHODS[method]
    assert {is_known_method(method, revision) for revision in LEGACY_REVISIONS} == {is_legacy_method}
    assert {is_known_method(method, revision) for revision in MODERN_REVISIONS} == {is_modern_method}


def test_the_eras_are_told_apart():
    assert [revision for revision in REVISIONS if is_modern(revision)] == ["2026-07-28"]
    assert not is_modern("2099-01-01")


@pytest.mark.parametrize(
    ("requested", "answered"),
    [
        *((revision, revision) for revision in LEGACY_REVISIONS),
        ("2099-01-01", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
def test_a_handshake_is_answered_with_the_requested_revision_or_the_newest_that_has_one(requested, answered):
    """Source: MCP 2025-11-25, basic/lifecycle, "Version Negotiation"."""
    assert negotiated_legacy(requested) == answered
