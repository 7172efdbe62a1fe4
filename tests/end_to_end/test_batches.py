"""JSON-RPC batches of revision 2025-03-26, over real HTTP to the built-in demo server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_gateway.transports.downstream.exchanges.batch import MAX_MESSAGES
from tests.end_to_end.running_gateway import wait_until


class BatchClient:
    """One session over one keep-alive connection."""

    def __init__(self, host: str, port: int, revision: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=10)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "batch", "version": "1"}}
        _, _, headers = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        self._headers["Mcp-Session-Id"] = headers["Mcp-Session-Id"]

    def post(self, body: Any) -> tuple[int, Any, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body)
        self._connection.request("POST", "/mcp", content, self._headers)
        answer = self._connection.getresponse()
        read = answer.read()
        return answer.status, json.loads(read) if read else None, answer.headers

    def send(self, body: Any) -> None:
        self._connection.request("POST", "/mcp", json.dumps(body), self._headers)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def demo_gateway(start_gateway: Any) -> Iterator[Any]:
    with start_gateway("embedded", [{"name": "demo", "builtin": "demo", "prefix": ""}]) as gateway:
        yield gateway


@pytest.fixture
def client(demo_gateway: Any) -> Iterator[BatchClient]:
    made = BatchClient(demo_gateway.host, demo_gateway.port, "2025-03-26")
    yield made
    made.close()


def request(request_id: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def test_each_request_of_a_batch_gets_its_own_answer(client: BatchClient) -> None:
    """MCP 2025-03-26, basic/index, "Batching": implementations MUST support receiving batches."""
    echo = request(1, "tools/call", name="echo", arguments={"message": "a"})
    slow = request(2, "tools/call", name="slow", arguments={"seconds": 0.1, "steps": 1}, _meta={"progressToken": 1})
    wrong = request(3, "tools/call", arguments={})
    told = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
    status, answers, _ = client.post([echo, told, slow, wrong, request(4, "ping")])
    assert status == 200
    by_id = {answer["id"]: answer for answer in answers}
    assert set(by_id) == {1, 2, 3, 4}
    assert by_id[1]["result"]["content"][0]["text"] == "a"
    assert "Done" in by_id[2]["result"]["content"][0]["text"]
    assert by_id[3]["error"]["data"]["reason"] == "invalid_params"
    assert by_id[4]["result"] == {}


def test_a_batch_of_notifications_is_only_acknowledged(client: BatchClient) -> None:
    status, answers, _ = client.post([{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}] * 2)
    assert (status, answers) == (202, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[", "parse_error"),
        (b"[]", "invalid_request"),
        (json.dumps([request(1, "ping")] * (MAX_MESSAGES + 1)).encode(), "invalid_request"),
    ],
)
def test_a_broken_batch_is_refused_as_a_whole(client: BatchClient, body: bytes, reason: str) -> None:
    status, answer, _ = client.post(body)
    assert (status, answer["error"]["data"]["reason"]) == (400, reason)


def test_the_longest_batch_is_served(client: BatchClient) -> None:
    status, answers, _ = client.post([request(number, "ping") for number in range(MAX_MESSAGES)])
    assert status == 200
    assert sorted(answer["id"] for answer in answers) == list(range(MAX_MESSAGES))


def test_an_initialize_or_a_non_message_inside_a_batch_fails_alone(client: BatchClient) -> None:
    """MCP 2025-03-26, basic/lifecycle: "The initialize request MUST NOT be part of a JSON-RPC batch"."""
    status, answers, _ = client.post([request(1, "initialize"), 7, request(2, "ping")])
    assert status == 200
    reasons = {json.dumps(each["id"]): each.get("error", {}).get("data", {}).get("reason") for each in answers}
    assert reasons == {"1": "invalid_request", "null": "invalid_request", "2": None}


def test_other_revisions_have_no_batches(demo_gateway: Any) -> None:
    later = BatchClient(demo_gateway.host, demo_gateway.port, "2025-06-18")
    status, answer, _ = later.post([request(1, "ping")])
    later.close()
    assert (status, answer["error"]["data"]["reason"]) == (400, "invalid_request")


def test_the_slots_of_a_batch_are_free_when_its_answer_has_left_or_its_client_has(demo_gateway: Any) -> None:
    def open_count() -> float:
        return float(demo_gateway.metric_sum("mcp_gateway_downstream_connections", transport="streamable_http"))

    calls = {"echo": {"message": "x"}, "slow": {"seconds": 3}}
    for names in (["echo"] * 20, ["echo", "slow"] * 10):
        client = BatchClient(demo_gateway.host, demo_gateway.port, "2025-03-26")
        params = [{"name": name, "arguments": calls[name]} for name in names]
        batch = [{"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": each} for number, each in enumerate(params)]
        if "slow" not in names:
            assert len(client.post(batch)[1]) == 20
        else:
            client.send(batch)
            wait_until(lambda: open_count() == 20, 5, "all count, also those that are answered")
        client.close()
        wait_until(lambda: open_count() == 0, 5, "none is open")


def test_the_answers_of_a_batch_are_together_no_larger_than_a_message(start_gateway: Any) -> None:
    most_bytes = 65_536
    demo = [{"name": "demo", "builtin": "demo", "prefix": ""}]
    with start_gateway("embedded", demo, gateway={"max_message_bytes": most_bytes}) as gateway:
        client = BatchClient(gateway.host, gateway.port, "2025-03-26")
        status, answers, _ = client.post([request(number, "tools/list") for number in range(MAX_MESSAGES)])
        assert status == 200
        assert sorted(answer["id"] for answer in answers) == list(range(MAX_MESSAGES))
        results = [json.dumps(answer) for answer in answers if "result" in answer]
        refused = {answer["error"]["data"]["reason"] for answer in answers if "error" in answer}
        assert (0 < sum(map(len, results)) <= 1.2 * most_bytes, refused) == (True, {"too_large"})
        client.close()
