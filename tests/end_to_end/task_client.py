"""Clients that use tasks over plain HTTP, one of each era: the SDK's client has none."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.end_to_end.raw_http import LEGACY, MODERN, ask, request

EXTENSION = "io.modelcontextprotocol/tasks"
TERMINAL = frozenset({"completed", "failed", "cancelled"})
ACCEPTED = {"action": "accept", "content": {"name": "Ada", "confirm": "yes"}}

Json = dict[str, Any]


class TaskError(Exception):
    """A request was refused. code, data: of the JSON-RPC error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.code = error["code"]
        self.data = error.get("data")


class ModernTasks:
    """A client of 2026-07-28. declares: whether it says in each request that it knows tasks. user: who it says it is."""

    revision = MODERN

    def __init__(self, url: str, *, declares: bool = True, user: str = "") -> None:
        self._url = f"{url}?user_id={user}" if user else url
        extensions = {"extensions": {EXTENSION: {}}} if declares else {}
        self._meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "tasks", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, **extensions},
        }

    def body_of(self, method: str, params: Json) -> tuple[Json, dict[str, str]]:
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        item = params.get("taskId" if method.startswith("tasks/") else "name")
        if item is not None:
            headers["Mcp-Name"] = item
        return request(method, {**params, "_meta": self._meta}), headers

    def ask(self, method: str, params: Json | None = None) -> Json:
        body, headers = self.body_of(method, params or {})
        return _result(ask(self._url, body, headers, timeout_s=30).message)

    def tools(self) -> Json:
        return self.ask("tools/list")

    def capabilities(self) -> Json:
        found: Json = self.ask("server/discover")["capabilities"]
        return found

    def call(self, tool: str, **arguments: Any) -> Json:
        """The task, or the result where the server has decided so."""
        return self.ask("tools/call", {"name": tool, "arguments": arguments})

    def get(self, task_id: str) -> Json:
        return self.ask("tasks/get", {"taskId": task_id})

    def cancel(self, task_id: str) -> Json:
        return self.ask("tasks/cancel", {"taskId": task_id})

    def update(self, task_id: str, answers: Json) -> Json:
        return self.ask("tasks/update", {"taskId": task_id, "inputResponses": answers})

    def outcome(self, task_id: str) -> Json:
        """The result of the task, once all its questions are answered.

        Raises: TaskError with what the task has failed with.
        """

        def over() -> Json | None:
            task = self.get(task_id)
            if task["status"] == "input_required":
                self.update(task_id, dict.fromkeys(task["inputRequests"], ACCEPTED))
            return task if task["status"] in TERMINAL else None

        task = until(over)
        if "error" in task:
            raise TaskError(task["error"])
        found: Json = task["result"]
        return found


class LegacyTasks:
    """A client of 2025-11-25 with a session. asked: related tasks of the questions that it was asked."""

    revision = LEGACY

    def __init__(self, url: str, *, revision: str = LEGACY) -> None:
        self._url = url
        self.asked: list[str | None] = []
        info = {"name": "tasks", "version": "1"}
        opening = {"protocolVersion": revision, "capabilities": {"elicitation": {}}, "clientInfo": info}
        opened = ask(url, request("initialize", opening))
        self.initialized = _result(opened.message)
        self.headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": revision}
        self.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def tell(self, message: Json) -> None:
        assert ask(self._url, message, self.headers).status == 202

    def ask(self, method: str, params: Json | None = None) -> Json:
        """Send a request and answer what comes before its response."""
        return _result(self._exchange(request(method, params or {})))

    def tools(self) -> Json:
        return self.ask("tools/list")

    def capabilities(self) -> Json:
        found: Json = self.initialized["capabilities"]
        return found

    def call(self, tool: str, **arguments: Any) -> Json:
        """The task, its members at the top as in the other era."""
        found: Json = self.ask("tools/call", {"name": tool, "arguments": arguments, "task": {"ttl": 60_000}})["task"]
        return found

    def get(self, task_id: str) -> Json:
        return self.ask("tasks/get", {"taskId": task_id})

    def cancel(self, task_id: str) -> Json:
        return self.ask("tasks/cancel", {"taskId": task_id})

    def list(self) -> list[str]:
        """The ids of all tasks, page by page."""
        found: list[str] = []
        cursor: Json = {}
        while True:
            page = self.ask("tasks/list", cursor)
            found += [task["taskId"] for task in page["tasks"]]
            if "nextCursor" not in page:
                return found
            cursor = {"cursor": page["nextCursor"]}

    def outcome(self, task_id: str) -> Json:
        found = self.ask("tasks/result", {"taskId": task_id})
        assert found["_meta"]["io.modelcontextprotocol/related-task"] == {"taskId": task_id}
        return found

    def _exchange(self, message: Json) -> Json:
        host, _, path = self._url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self.headers}
            connection.request("POST", f"/{path}", json.dumps(message).encode(), headers)
            response = connection.getresponse()
            if not response.headers["Content-Type"].startswith("text/event-stream"):
                answer: Json = json.loads(response.read())
                return answer
            for line in response:
                said: Json = json.loads(line[5:]) if line.startswith(b"data:") and line[5:].strip() else {}
                if said.get("id") == message["id"] and "method" not in said:
                    return said
                if "id" in said and "method" in said:
                    related = said["params"].get("_meta", {}).get("io.modelcontextprotocol/related-task", {})
                    self.asked.append(related.get("taskId"))
                    meta = {"_meta": {"io.modelcontextprotocol/related-task": related}} if related else {}
                    self.tell({"jsonrpc": "2.0", "id": said["id"], "result": {**ACCEPTED, **meta}})
            raise AssertionError("the stream ended without a response")
        finally:
            connection.close()


TaskClient = ModernTasks | LegacyTasks


def until(check: Callable[[], Json | None], timeout_s: float = 20.0) -> Json:
    deadline_s = time.monotonic() + timeout_s
    while (found := check()) is None:
        assert time.monotonic() < deadline_s, "the task did not end in time"
        time.sleep(0.05)
    return found


def status_of(client: TaskClient, task_id: str) -> str:
    status: str = client.get(task_id)["status"]
    return status


def _result(message: Json) -> Json:
    if "error" in message:
        raise TaskError(message["error"])
    result: Json = message["result"]
    return result
