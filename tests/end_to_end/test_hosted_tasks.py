"""Tasks at servers of the client's own era that have none: the gateway runs the call, in every form of it, at either endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.running_gateway import Form, RunningGateway, start_gateway
from tests.end_to_end.task_client import EXTENSION, LegacyTasks, ModernTasks, TaskClient, TaskError, status_of

CLIENTS = {"legacy": LegacyTasks, "modern": ModernTasks}
KEYS = {"ada": "ada-key-0123456789abcdef", "bob": "bob-key-0123456789abcdef"}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, SdkServer]]:
    """{era: server without tasks}."""
    with ExitStack() as stack:
        yield {era: stack.enter_context(start_sdk_server(name=era, era=era)) for era in ("legacy", "modern")}  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(
    request: pytest.FixtureRequest, start_gateway: StartGateway, servers: dict[str, SdkServer]
) -> Iterator[RunningGateway]:
    backends = [{"name": name, "replicas": [server.url]} for name, server in servers.items()]
    with start_gateway(request.param, backends) as gateway:
        yield gateway
        assert gateway.restart_count() == 0


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_call_runs_as_a_task_and_its_result_is_the_calls(gateway: RunningGateway, era: str, is_merged: bool) -> None:
    client: TaskClient = CLIENTS[era](gateway.endpoint("" if is_merged else era))
    slow = f"{era}__slow" if is_merged else "slow"
    task_id = client.call(slow, seconds=1.5)["taskId"]
    assert client.get(task_id)["taskId"] == task_id
    assert client.outcome(task_id)["content"][0]["text"] == "slept 1.5 s"
    assert status_of(client, task_id) == "completed"
    if isinstance(client, ModernTasks):
        assert client.call(f"{era}__echo" if is_merged else "echo", message="quick")["resultType"] == "complete"


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_what_the_call_of_a_legacy_task_asks_is_asked_with_its_result(gateway: RunningGateway, is_merged: bool) -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Input Required Status". On two cells the answer reaches either."""
    client = LegacyTasks(gateway.endpoint("" if is_merged else "legacy"))
    for _ in range(3):
        task_id = client.call("legacy__elicit" if is_merged else "elicit")["taskId"]
        assert client.outcome(task_id)["content"][0]["text"] == "accept: Hello, Ada!"
        assert client.asked == [task_id]
        client.asked.clear()


def test_a_cancelled_task_ends_its_call_at_the_server(gateway: RunningGateway, era: str, servers: dict[str, SdkServer]) -> None:
    tag = f"cancelled-{gateway.port}"
    client: TaskClient = CLIENTS[era](gateway.endpoint(era))
    task_id = client.call("slow", seconds=60, tag=tag)["taskId"]
    servers[era].wait_for(lambda counters: tag in counters["started"])
    client.cancel(task_id)
    assert status_of(client, task_id) == "cancelled"
    servers[era].wait_for(lambda counters: tag in counters["cancelled"])


def test_tasks_are_announced_and_any_cell_finds_one(gateway: RunningGateway, era: str) -> None:
    client: TaskClient = CLIENTS[era](gateway.endpoint(era))
    if isinstance(client, LegacyTasks):
        assert client.capabilities()["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
        assert {tool["execution"]["taskSupport"] for tool in client.tools()["tools"]} == {"optional"}
    else:
        assert client.capabilities()["extensions"] == {EXTENSION: {}}
    task_id = client.call("slow", seconds=1.2)["taskId"]
    assert {client.get(task_id)["taskId"] for _ in range(8)} == {task_id}
    for shown in ("nobody's", task_id[:-1]):
        with pytest.raises(TaskError) as refused:
            client.get(shown)
        assert refused.value.code == -32602


class KnownTasks(ModernTasks):
    """A client of 2026-07-28 that proves who it is. name: of its key."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url)
        self.name = name

    def body_of(self, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        body, headers = super().body_of(method, params)
        return body, {**headers, "Authorization": f"Bearer {KEYS[self.name]}"}


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_task_is_that_of_one_principal_before_and_after_a_restart(
    form: Form, tmp_path: Path, servers: dict[str, SdkServer]
) -> None:
    """Source: SEP-2663, "Security Considerations", "Auth binding"."""
    backends = [{"name": "modern", "replicas": [servers["modern"].url]}]
    auth = {"api_keys": [{"name": name, "hash": f"sha256:{sha256(key.encode()).hexdigest()}"} for name, key in KEYS.items()]}
    task_id = ""
    for status in ("working", "completed"):
        with start_gateway(tmp_path, form, backends, auth=auth) as gateway:
            ada, bob = (KnownTasks(gateway.endpoint(), name) for name in KEYS)
            task_id = task_id or ada.call("modern__slow", seconds=1.5)["taskId"]
            assert ada.get(task_id)["status"] in (status, "completed")
            with pytest.raises(TaskError) as refused:
                bob.get(task_id)
            assert refused.value.code == -32602
            assert ada.outcome(task_id)["content"][0]["text"] == "slept 1.5 s"
