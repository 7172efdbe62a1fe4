"""The client of the commands reads what a gateway answers, and whatever else answers in one clear line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.commands import stateless_client
from mcp_gateway.scripts.commands.gateway_address import GatewayAddress
from mcp_gateway.scripts.commands.stateless_client import CallFailed, StatelessClient
from tests.doubles.ports import free_port


class Scripted(StatelessClient):
    """Answers each request with the next messages of a script; remembers what was asked."""

    def __init__(self, *answers: Any, token: str = "", **options: Any) -> None:
        super().__init__(GatewayAddress("http://127.0.0.1:1", token=token), "/mcp", **options)
        self._script = iter(answers)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    def _messages(self, body: bytes, headers: Any) -> Iterator[dict[str, Any]]:
        self.asked.append(json.loads(body)["params"])
        self.headers.append(dict(headers))
        answer = next(self._script)
        yield from answer if isinstance(answer, list) else [{"result": answer}]


def test_all_pages_of_a_list_are_one() -> None:
    client = Scripted({"tools": [{"name": "a"}], "nextCursor": "2"}, {"tools": [{"name": "b"}]})
    assert [tool["name"] for tool in client.items("tools/list", "tools")] == ["a", "b"]
    assert [params.get("cursor") for params in client.asked] == [None, "2"]


@pytest.mark.parametrize("odd", [None, [], {"io.mcp-gateway/missingBackends": ["mail"]}])
def test_who_is_missing_in_a_list_is_known_of_all_its_pages(odd: object) -> None:
    """Whatever a server that is no gateway has in that place is passed over."""
    pages = ({"files": "upstream_failed"}, {"mail": "upstream_timeout"})
    answers = [{"tools": [], "nextCursor": "2", "_meta": {"io.mcp-gateway/missingBackends": page}} for page in pages]
    client = Scripted(*answers, {"tools": [], "_meta": odd})
    assert list(client.items("tools/list", "tools")) == []
    assert client.missing == {"files": "upstream_failed", "mail": "upstream_timeout"}


def test_a_list_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stateless_client, "_MOST_PAGES", 3)
    client = Scripted(*[{"tools": [], "nextCursor": "again"}] * 9)
    with pytest.raises(CallFailed, match="more than 3 pages"):
        list(client.items("tools/list", "tools"))
    assert len(client.asked) == 3


def test_questions_are_answered_and_the_call_goes_on_with_the_state_it_was_given() -> None:
    asked = {"resultType": "input_required", "inputRequests": {"k": {"method": "elicitation/create"}}, "requestState": "s"}
    client = Scripted(asked, {"content": []}, answers=lambda method, params: {"action": "accept", "content": {"m": method}})
    assert client.request("tools/call", {"name": "t", "arguments": {}}) == {"content": []}
    assert client.asked[1]["requestState"] == "s"
    assert client.asked[1]["inputResponses"] == {"k": {"action": "accept", "content": {"m": "elicitation/create"}}}
    assert client.headers[0]["Mcp-Name"] == "t"


def test_questions_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stateless_client, "_MOST_ROUNDS", 3)
    client = Scripted(*[{"resultType": "input_required", "requestState": "s"}] * 9, answers=lambda *_: {})
    with pytest.raises(CallFailed, match="asked 3 times"):
        client.request("tools/call", {"name": "t"})
    assert len(client.asked) == 3


def test_where_nobody_can_be_asked_nothing_is_declared_and_a_question_ends_the_call() -> None:
    client = Scripted({"resultType": "input_required"})
    with pytest.raises(CallFailed, match="nobody can be asked"):
        client.request("tools/call", {"name": "t"})
    assert client.asked[0]["_meta"]["io.modelcontextprotocol/clientCapabilities"] == {}


def test_notifications_come_before_the_result_and_the_refusal_keeps_its_reason() -> None:
    heard: list[str] = []
    client = Scripted(
        [{"method": "notifications/progress", "params": {"progress": 1}}, {"result": {"ok": 1}}],
        [{"error": {"message": "who are you?", "data": {"reason": "unauthorized"}}}],
        [],
    )
    assert client.request("tools/call", {"name": "t"}, lambda method, params: heard.append(method)) == {"ok": 1}
    assert heard == ["notifications/progress"]
    with pytest.raises(CallFailed, match=r"who are you\?") as failed:
        client.request("ping", {})
    assert failed.value.reason == "unauthorized"
    with pytest.raises(CallFailed, match="before it was whole"):
        client.request("ping", {})


def test_a_token_is_shown_and_nothing_where_there_is_none() -> None:
    assert Scripted({}, token="secret").request("ping", {}) == {}
    with_token, without = Scripted({}, token="secret"), Scripted({})
    with_token.request("ping", {})
    without.request("ping", {})
    assert with_token.headers[0]["Authorization"] == "Bearer secret"
    assert "Authorization" not in without.headers[0]


def test_the_id_by_which_the_log_knows_a_request_is_told() -> None:
    error = {"message": "the server has ended", "data": {"reason": "upstream_failed", "request_id": "cell/0#7"}}
    with pytest.raises(CallFailed, match=r"^the server has ended \(request cell/0#7\)$"):
        Scripted([{"error": error}]).request("tools/call", {"name": "t"})


def test_where_a_user_must_consent_and_nobody_can_be_asked_the_address_is_told() -> None:
    error = {"code": 4033, "message": "mail needs consent", "data": {"reason": "consent_required", "url": "https://gw/connect?a"}}
    with pytest.raises(CallFailed, match=r"^mail needs consent: open https://gw/connect\?a, and call again$"):
        Scripted([{"error": error}]).request("tools/call", {"name": "t"})
    with pytest.raises(CallFailed, match=r"^mail needs consent$"):
        Scripted([{"error": {**error, "data": {"reason": "consent_required", "url": 5}}}]).request("tools/call", {"name": "t"})


def test_where_nothing_listens_that_is_said() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CallFailed, match=f"the gateway at {url}/mcp cannot be reached"):
        StatelessClient(GatewayAddress(url), "/mcp").request("ping", {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(error=JSON)
def test_any_error_is_one_line(error: Any) -> None:
    with pytest.raises(CallFailed):
        Scripted([{"error": error}]).request("ping", {})


@given(data=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_answers_is_a_message_or_said_to_be_none(data: bytes) -> None:
    try:
        assert isinstance(stateless_client._message(data, 200), dict)
    except CallFailed as failed:
        assert "no gateway" in str(failed)
