"""What each revision has no place for, one case per row of the tables."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.eras.revision_differences import (
    BLOCKS_SINCE,
    MEMBERS_SINCE,
    fitted_answer,
    fitted_notification,
    fitted_question,
    fitted_result,
    is_older,
    question_problem,
)
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, REVISIONS
from tests.transports.protocol.eras.test_translation import json_values

# (kind of object, method, how a result of that method holds one)
PLACES = [
    ("Tool", "tools/list", lambda item: {"tools": [item]}),
    ("Resource", "resources/list", lambda item: {"resources": [item]}),
    ("ResourceTemplate", "resources/templates/list", lambda item: {"resourceTemplates": [item]}),
    ("Prompt", "prompts/list", lambda item: {"prompts": [item]}),
    ("PromptArgument", "prompts/list", lambda item: {"prompts": [{"name": "p", "arguments": [item]}]}),
    ("Implementation", "initialize", lambda item: {"serverInfo": item}),
    ("ServerCapabilities", "initialize", lambda item: {"capabilities": item}),
    ("Contents", "resources/read", lambda item: {"contents": [item]}),
    ("Block", "tools/call", lambda item: {"content": [{"type": "text", "text": "t", **item}]}),
    ("Block", "prompts/get", lambda item: {"messages": [{"role": "user", "content": {"type": "text", "text": "t", **item}}]}),
    ("Annotations", "tools/call", lambda item: {"content": [{"type": "text", "text": "t", "annotations": item}]}),
    ("Annotations", "resources/list", lambda item: {"resources": [{"uri": "a:b", "annotations": item}]}),
]
CASES = [
    (kind, method, place, member, since)
    for kind, method, place in PLACES
    for member, since in MEMBERS_SINCE[kind].items()
    if not (kind == "ServerCapabilities" and member == "tasks")
]


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("kind", "method", "place", "member", "since"), CASES)
def test_a_member_is_shown_from_the_revision_on_that_brought_it(
    kind: str, method: str, place: Any, member: str, since: str, revision: str
) -> None:
    """Source: schema.ts of each revision."""
    value = {"type": "object"} if member == "outputSchema" else {"a": 1}
    without = {"name": "n"} if kind != "ServerCapabilities" else {"tools": {}}
    result = place({**without, member: value})
    kept = copy.deepcopy(result)
    shown = fitted_result(method, result, revision)
    assert shown == (place({**without, member: value}) if revision >= since else place(without))
    assert result == kept


@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
@pytest.mark.parametrize("kind", ["text", "image", "audio", "resource_link", "resource", "something/new"])
def test_content_of_an_unknown_kind_becomes_text(kind: str, revision: str) -> None:
    """A client refuses a whole result for one block of a type that its schema does not have; new kinds are not ours to judge."""
    block = {"type": kind, "uri": "a:b", "name": "n", "mimeType": "audio/wav", "data": "QQ=="}
    (shown,) = fitted_result("tools/call", {"content": [block]}, revision)["content"]
    if revision >= BLOCKS_SINCE.get(kind, ""):
        assert shown == block
    else:
        assert shown["type"] == "text"
        assert ("a:b" if kind == "resource_link" else "audio/wav") in shown["text"]


def test_structured_content_is_left_out_before_2025_06_18_and_becomes_text_where_there_is_none() -> None:
    full = {"content": [{"type": "text", "text": "3"}], "structuredContent": {"result": 3}}
    assert fitted_result("tools/call", full, "2025-06-18") == full
    assert fitted_result("tools/call", full, "2025-03-26") == {"content": [{"type": "text", "text": "3"}]}
    bare = {"content": [], "structuredContent": {"result": 3}}
    assert fitted_result("tools/call", bare, "2024-11-05") == {"content": [{"type": "text", "text": '{"result":3}'}]}


@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
def test_structured_content_that_is_no_object_is_only_for_modern_clients(revision: str) -> None:
    """Source: MCP 2026-07-28, changelog, SEP-2106."""
    result = {"content": [{"type": "text", "text": "[1]"}], "structuredContent": [1]}
    assert fitted_result("tools/call", result, "2026-07-28") == result
    assert "structuredContent" not in fitted_result("tools/call", result, revision)
    tools = {"tools": [{"name": "t", "outputSchema": {"type": "array"}}]}
    assert fitted_result("tools/list", tools, "2026-07-28") == tools
    assert fitted_result("tools/list", tools, revision) == {"tools": [{"name": "t"}]}


def test_progress_has_a_message_from_2025_03_26_on() -> None:
    params = {"progress": 1, "message": "m"}
    assert fitted_notification("notifications/progress", params, "2025-03-26") == params
    assert fitted_notification("notifications/progress", params, "2024-11-05") == {"progress": 1}
    assert fitted_notification("notifications/message", params, "2024-11-05") == params


@pytest.mark.parametrize(
    ("method", "params", "since"),
    [
        ("elicitation/create", {"message": "m"}, "2025-06-18"),
        ("elicitation/create", {"mode": "url"}, "2025-11-25"),
        ("sampling/createMessage", {"tools": [{}]}, "2025-11-25"),
        ("sampling/createMessage", {}, "2024-11-05"),
        ("roots/list", {}, "2024-11-05"),
    ],
)
@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
def test_a_client_is_only_asked_what_its_revision_knows(method: str, params: dict[str, Any], since: str, revision: str) -> None:
    assert bool(question_problem(method, params, revision)) == (revision < since)


def test_titled_choices_become_names_before_2025_11_25() -> None:
    """Source: schema of 2025-06-18, EnumSchema, and of 2025-11-25, TitledSingleSelectEnumSchema."""
    choice = {"type": "string", "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}
    params = {"mode": "form", "message": "m", "requestedSchema": {"type": "object", "properties": {"x": choice}}}
    assert fitted_question("elicitation/create", params, "2025-11-25") == params
    assert fitted_question("elicitation/create", params, "2025-06-18") == {
        "message": "m",
        "requestedSchema": {
            "type": "object",
            "properties": {"x": {"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]}},
        },
    }


def test_several_blocks_of_a_sampling_message_are_one_before_2025_11_25() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    params = {"messages": [{"role": "user", "content": blocks}], "maxTokens": 1, "toolChoice": {}}
    assert fitted_question("sampling/createMessage", params, "2025-11-25") == params
    assert fitted_question("sampling/createMessage", params, "2025-06-18") == {
        "messages": [{"role": "user", "content": {"type": "text", "text": "a\nb"}}],
        "maxTokens": 1,
    }
    answer = {"role": "assistant", "model": "m", "content": blocks[:1]}
    assert fitted_answer("sampling/createMessage", answer, "2025-06-18")["content"] == blocks[0]
    assert fitted_answer("elicitation/create", answer, "2025-06-18") == answer


@given(
    st.dictionaries(
        st.sampled_from(["tools", "content", "messages", "contents", "serverInfo", "structuredContent"]), json_values
    ),
    st.sampled_from([place[1] for place in PLACES]),
    st.sampled_from(REVISIONS),
)
def test_whatever_a_server_sends_is_fitted_and_fitting_twice_changes_nothing(
    result: dict[str, Any], method: str, revision: str
) -> None:
    once = fitted_result(method, result, revision)
    assert fitted_result(method, once, revision) == once
    assert fitted_result(method, result, "2026-07-28") == result


@pytest.mark.parametrize(
    ("revision", "since", "expected"),
    [
        ("2024-10-07", "2025-03-26", True),
        ("2024-10-07", "2024-11-05", False),
        ("2025-11-25", "2030-01-01", False),
        ("2025-06-18", "2030-01-01", True),
        ("2030-01-01", "2026-07-28", True),
        ("2025-11-25", "2024-10-07", False),
        ("nonsense", "2025-11-25", False),
    ],
)
def test_a_revision_that_nobody_knows_is_as_old_as_the_nearest(revision: str, since: str, expected: bool) -> None:
    assert is_older(revision, since) is expected
