"""Results that are larger than clients shall get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation.cut_results import CUT, cut_result


def cut(result: dict[str, Any], most: int) -> Any:
    return json.loads(cut_result(json.dumps(result).encode(), most))


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def test_a_result_up_to_the_bound_is_the_very_same_and_one_byte_more_is_cut() -> None:
    result = json.dumps({"content": [text("x" * 500)]}).encode()
    assert cut_result(result, len(result)) is result
    assert cut_result(result, len(result) - 1) != result


def test_whole_blocks_are_kept_then_the_beginning_of_a_text_and_it_is_told() -> None:
    shown = cut({"content": [text("a"), text("b" * 5_000), text("c")], "_meta": {"x": 1}}, 1_000)
    first, second, told = shown["content"]
    assert (first, second["type"], set(second["text"])) == (text("a"), "text", {"b"})
    assert 300 < len(second["text"]) < 1_000
    assert told["text"].startswith("[Cut by the gateway: the result had 5")
    assert shown["_meta"] == {
        "x": 1,
        CUT: {"bytes": len(json.dumps({"content": [text("a"), text("b" * 5_000), text("c")], "_meta": {"x": 1}}))},
    }
    assert "isError" not in shown


def test_structured_content_is_left_out_and_its_result_an_error() -> None:
    shown = cut({"content": [text("a")], "structuredContent": {"x": "y" * 5_000}, "isError": False}, 1_000)
    assert (len(shown["content"]), shown["isError"], "structuredContent" in shown) == (2, True, False)


def test_an_image_is_kept_whole_or_not_at_all() -> None:
    image = {"type": "image", "data": "x" * 5_000, "mimeType": "image/png"}
    assert [block["type"] for block in cut({"content": [image, text("b")]}, 1_000)["content"]] == ["text"]


@pytest.mark.parametrize(
    "result", [{"resultType": "input_required", "inputRequests": {"x": "y" * 500}}, {"task": {"x": "y" * 500}}]
)
def test_what_is_no_result_yet_is_not_cut(result: dict[str, Any]) -> None:
    assert cut(result, 100) == result


@given(st.lists(st.text(max_size=400), max_size=5), st.integers(200, 2_000))
def test_what_is_left_is_about_as_much_as_may_be(texts: list[str], most: int) -> None:
    encoded = json.dumps({"content": [text(each) for each in texts]}, ensure_ascii=False).encode("utf-8", "replace")
    shown = cut_result(encoded, most)
    assert shown is encoded or len(shown) <= 4 * most + 400
    json.loads(shown)


@pytest.mark.parametrize(
    "beside",
    [{"_meta": {"x": "y" * 5_000}}, {"said": "y" * 5_000}, {"isError": ["y" * 5_000]}, {"toolResult": "y" * 5_000}],
)
@pytest.mark.parametrize("content", [{}, {"content": [{"type": "text", "text": "z" * 5_000}]}])
def test_nothing_beside_the_content_makes_a_result_larger_than_it_may_be(beside: Any, content: Any) -> None:
    cut = cut_result(json.dumps({**content, **beside, "resultType": "complete"}).encode(), 500)
    assert len(cut) < 1_000
    assert json.loads(cut)["resultType"] == "complete"
    assert "Cut by the gateway" in json.loads(cut)["content"][-1]["text"]
