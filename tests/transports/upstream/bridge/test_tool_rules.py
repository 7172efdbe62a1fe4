"""What calls and results have to pass."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.guard_port import Guarded, GuardRefused, Phase
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.bridge.tool_rules import ToolRules, gives_later

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Guard:
    """Replaces "secret" by "masked", and refuses what has "evil" in it."""

    def __init__(self) -> None:
        self.asked: list[Guarded] = []

    async def judge(self, guarded: Guarded) -> bytes:
        self.asked.append(guarded)
        if b"evil" in guarded.value:
            raise GuardRefused("that is evil")
        return guarded.value.replace(b"secret", b"masked") if b"secret" in guarded.value else guarded.value


def made(guard: Guard | None = None, **tools: Any) -> ToolRules:
    rules = ToolRules.of("b", tools, guard)
    assert rules is not None
    rules.learn(json.dumps({"tools": [{"name": "t", "inputSchema": INTEGER, "outputSchema": INTEGER}]}).encode())
    return rules


def encoded(**value: Any) -> bytes:
    return json.dumps(value).encode()


def before(rules: ToolRules, **arguments: Any) -> Any:
    return json.loads(asyncio.run(rules.before("t", encoded(name="t", arguments=arguments), "i ann")))


def after(rules: ToolRules, **result: Any) -> Any:
    return json.loads(asyncio.run(rules.after("t", encoded(**result), "i ann")))


def test_without_rules_there_is_nothing_to_pass() -> None:
    assert ToolRules.of("b", {"deny": ("x",), "max_result_bytes": 0}, None) is None


def test_arguments_that_the_schema_does_not_allow_never_reach_the_server() -> None:
    rules = made(check=("arguments",))
    assert before(rules, n=1)["arguments"] == {"n": 1}
    with pytest.raises(UpstreamError, match='n: "1" is not of type') as refused:
        before(rules, n="1")
    assert (refused.value.failure.reason, refused.value.fate) == ("invalid_params", Fate.ENDED)
    assert (rules.has_to_look_up("t"), rules.has_to_look_up("u"), made(max_result_bytes=9).has_to_look_up("u")) == (
        False,
        True,
        False,
    )


def test_a_result_that_the_schema_does_not_allow_never_reaches_the_client() -> None:
    rules = made(check=("results",))
    assert after(rules, content=[], structuredContent={"n": 1})["structuredContent"] == {"n": 1}
    with pytest.raises(UpstreamError, match="outputSchema") as refused:
        after(rules, content=[], structuredContent={"n": "1"})
    assert refused.value.failure.reason == "upstream_failed"


def test_a_guard_is_asked_before_and_after_and_changes_or_refuses() -> None:
    guard = Guard()
    rules = made(guard)
    assert before(rules, text="a secret") == {"name": "t", "arguments": {"text": "a masked"}}
    assert after(rules, content=[{"type": "text", "text": "secret"}])["content"][0]["text"] == "masked"
    assert [(each.phase, each.backend, each.tool, each.user) for each in guard.asked] == [
        (Phase.BEFORE, "b", "t", "i ann"),
        (Phase.AFTER, "b", "t", "i ann"),
    ]
    for refuse in (lambda: before(rules, text="evil"), lambda: after(rules, content=[{"type": "text", "text": "evil"}])):
        with pytest.raises(UpstreamError, match="that is evil") as refused:
            refuse()
        assert refused.value.failure.reason == "forbidden"


def test_a_question_or_a_task_is_no_result_to_be_judged() -> None:
    guard = Guard()
    rules = made(guard)
    assert after(rules, resultType="input_required", requestState="evil")
    assert after(rules, task={"taskId": "evil"})
    assert guard.asked == []


@pytest.mark.parametrize(
    "result",
    [{"toolResult": "evil"}, {"task": {}, "toolResult": "evil"}, {"said": "evil"}, {"resultType": "other", "said": "evil"}],
)
def test_a_result_without_content_is_judged_as_well(result: dict[str, Any]) -> None:
    with pytest.raises(UpstreamError, match="that is evil"):
        after(made(Guard()), **result)


def test_what_the_guard_puts_in_is_held_against_the_schema_as_well() -> None:
    class Careless:
        async def judge(self, guarded: Guarded) -> bytes:
            return b'{"n": "x"}'

    with pytest.raises(UpstreamError):
        before(made(Careless(), check=("arguments",)), n=1)  # type: ignore[arg-type]


def test_a_large_result_is_cut() -> None:
    result = after(made(max_result_bytes=300), content=[{"type": "text", "text": "x" * 1_000}])
    assert "Cut by the gateway" in result["content"][-1]["text"]


def test_what_a_task_gives_later_passes_guard_and_size_too() -> None:
    rules = made(Guard(), max_result_bytes=10_000)
    text = {"content": [{"type": "text", "text": "secret"}]}
    masked = {"content": [{"type": "text", "text": "masked"}]}

    def later(method: str, **result: Any) -> Any:
        return json.loads(asyncio.run(rules.later(method, encoded(**result), "")))

    assert later("tasks/result", **text) == masked
    assert later("tasks/get", status="completed", result=text) == {"status": "completed", "result": masked}
    assert later("tasks/get", status="working") == {"status": "working"}
    assert (gives_later("tasks/get"), gives_later("tools/call")) == (True, False)


def test_a_schema_that_checks_nothing_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    rules = made(check=("arguments",))
    rules.learn(json.dumps({"tools": [{"name": "t", "inputSchema": {"$ref": "#"}}]}).encode())
    with caplog.at_level(logging.WARNING):
        before(rules)
        before(rules)
    assert len(caplog.records) == 1
