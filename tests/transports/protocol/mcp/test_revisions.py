"""The revisions and the methods that each of them has."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.mcp.revisions import (
    LEGACY_REVISIONS,
    MODERN_REVISIONS,
    REVISIONS,
    is_known_method,
    is_modern,
    nearest_legacy,
    negotiated_legacy,
    negotiated_with_server,
)

# Source: schema.ts of each revision, ClientRequest, and SEP-2663 for tasks of the modern one. {method: (legacy, modern)}
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
    "tasks/get": (True, True),
    "tasks/cancel": (True, True),
    "tasks/result": (True, False),
    "tasks/list": (True, False),
    "tasks/update": (False, True),
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


@pytest.mark.parametrize(
    ("announced", "nearest"),
    [
        *((revision, revision) for revision in LEGACY_REVISIONS),
        ("2024-10-07", "2024-11-05"),
        ("2025-05-01", "2025-03-26"),
        ("2026-01-01", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2030-01-01", "2025-11-25"),
        ("DRAFT-2026-v1", "2025-11-25"),
        ("1.0", "2025-11-25"),
        ("", "2025-11-25"),
    ],
)
def test_a_version_that_nobody_knows_is_read_as_the_nearest_legacy_one(announced, nearest):
    assert nearest_legacy(announced) == nearest


@given(st.text() | st.from_regex(re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), fullmatch=True))
def test_any_version_of_a_server_leads_to_a_legacy_one(announced):
    assert nearest_legacy(announced) in LEGACY_REVISIONS


@pytest.mark.parametrize("announced", [*LEGACY_REVISIONS, "2024-10-07", "2030-01-01", "DRAFT-2026-v1"])
def test_a_server_hears_the_version_that_it_has_answered_with(announced):
    """Source: MCP 2025-11-25, basic/transports, "Protocol Version Header"."""
    assert negotiated_with_server(announced) == announced


def test_a_modern_version_in_a_handshake_is_spoken_to_as_the_newest_legacy_one():
    assert negotiated_with_server("2026-07-28") == "2025-11-25"


@pytest.mark.parametrize("announced", [5, None, [], {}, True, "", "a b", "2025-11-25\r\nX: y", "é", "9" * 65])
def test_what_no_header_can_carry_cannot_be_spoken(announced):
    with pytest.raises(ValueError, match="cannot be spoken"):
        negotiated_with_server(announced)
