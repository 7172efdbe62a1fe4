"""Log lines: one JSON object each, never longer than a pipe writes whole."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from mcp_gateway.scripts.log_lines import LONGEST_LINE_BYTES, JsonLineFormatter


def line_of(text: str, error: BaseException | None = None, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("name", logging.WARNING, "path", 1, text, (), (type(error), error, None) if error else None)
    record.__dict__.update(extra)
    line = JsonLineFormatter().format(record)
    assert "\n" not in line
    assert len(line.encode()) <= LONGEST_LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_names_the_actor_and_its_fields() -> None:
    line = line_of("text", actor="cell/0/router", fields={"request_id": "r1"})
    assert (line["level"], line["actor"], line["text"], line["request_id"]) == ("warning", "cell/0/router", "text", "r1")


def test_of_a_long_error_the_end_is_kept() -> None:
    assert line_of("text", ValueError("x" * 9000 + "the end"))["error"].endswith("the end")


@pytest.mark.parametrize("letter", ["x", "é", "\n", '"', "\U0001f600"])
def test_a_text_of_any_length_and_any_letters_fits(letter: str) -> None:
    assert line_of(letter * 9000)["level"] == "warning"
    assert line_of(letter * 9000, ValueError(letter * 9000))["error"]


def test_fields_that_are_too_long_are_left_out() -> None:
    assert "payload" not in line_of("text", fields={"payload": "x" * 9000})
