"""What a server asks is asked line by line, until each field has what its schema takes, or nobody answers any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.commands.form_answers import FormAnswers

NAME = {"name": {"type": "string"}}


class Typing:
    """Someone who types these lines, and then leaves."""

    def __init__(self, *lines: str) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        try:
            return next(self._lines) + "\n"
        except StopIteration:
            raise EOFError from None


def form(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"mode": "form", "message": "Who are you?", "requestedSchema": schema}


def answer(params: Mapping[str, Any], *lines: str) -> Mapping[str, Any]:
    return FormAnswers(Typing(*lines))("elicitation/create", params)


@pytest.mark.parametrize(
    ("field", "lines", "value"),
    [
        ({"type": "string"}, ["Ada"], "Ada"),
        ({"type": "string"}, ["", "Ada"], "Ada"),
        ({"type": "string", "default": "Bob"}, [""], "Bob"),
        ({"type": "integer"}, ["x", "2.5", "7"], 7),
        ({"type": "number"}, ["x", "2.5"], 2.5),
        ({"type": "boolean"}, ["maybe", "Y"], True),
        ({"type": "boolean", "default": True}, [""], True),
        ({"type": "boolean"}, ["no"], False),
        ({"type": "string", "enum": ["red", "blue"]}, ["green", "blue"], "blue"),
        ({"type": "string", "oneOf": [{"const": "r", "title": "Red"}]}, ["Red", "r"], "r"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, ["a, b"], ["a", "b"]),
    ],
)
def test_a_field_is_asked_until_its_value_fits(field: dict[str, Any], lines: list[str], value: object) -> None:
    assert answer(form({"it": field}, "it"), *lines) == {"action": "accept", "content": {"it": value}}


def test_a_field_that_may_be_empty_is_left_out_when_it_is() -> None:
    assert answer(form(NAME), "") == {"action": "accept", "content": {}}


def test_who_leaves_dismisses_the_question() -> None:
    assert answer(form(NAME, "name")) == {"action": "cancel"}


@pytest.mark.parametrize(("line", "action"), [("y", "accept"), ("", "decline"), ("no", "decline")])
def test_an_address_is_shown_whole_and_only_a_person_agrees_to_it(
    line: str, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    params = {"mode": "url", "message": "Log in\x1b[2J", "url": "https://id.example/consent?state=1"}
    assert answer(params, line) == {"action": action}
    shown = capsys.readouterr().err
    assert "open https://id.example/consent?state=1" in shown
    assert "\x1b" not in shown


def test_what_cannot_be_asked_at_a_terminal_is_dismissed() -> None:
    assert FormAnswers(Typing("y"))("sampling/createMessage", {}) == {"action": "cancel"}


def test_a_title_cannot_command_the_terminal() -> None:
    typing = Typing("Ada")
    FormAnswers(typing)("elicitation/create", form({"name": {"type": "string", "title": "Na\x1b]0;x\x07me"}}, "name"))
    assert "\x1b" not in typing.prompts[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(
    properties=st.dictionaries(st.text(), st.dictionaries(st.sampled_from(["type", "enum", "oneOf", "title", "default"]), JSON))
)
def test_any_schema_is_asked_or_dismissed(properties: dict[str, Any]) -> None:
    assert answer(form(properties, *properties), *["1"] * 20)["action"] in ("accept", "decline", "cancel")
