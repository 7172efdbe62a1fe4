"""Tasks through the gateway: both forms, at one backend and at the merged endpoint, in every form of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.doubles.stream_reader import StreamReader
from tests.end_to_end.running_gateway import RunningGateway, start_gateway
from tests.end_to_end.task_client import EXTENSION, TERMINAL, LegacyTasks, ModernTasks, TaskClient, TaskError, status_of, until

CLIENTS = {"legacy": LegacyTasks, "modern": ModernTasks}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, SdkServer]]:
    """{name: server}: two of each era with tasks."""
    with ExitStack() as stack:
        yield {
            f"{era}{number}": stack.enter_context(start_sdk_server(name=f"{era}{number}", era=era, tasks=True))
            for era in ("legacy", "modern")
            for number in (1, 2)
        }


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


# ---- a client and a server of the same era


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_task_is_created_polled_asked_for_and_over(gateway: RunningGateway, era: str, is_merged: bool) -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Message Flow"; SEP-2663, "Example Message Flow"."""
    client: TaskClient = CLIENTS[era](gateway.endpoint("" if is_merged else f"{era}1"))
    prefix = f"{era}1__" if is_merged else ""
    created = client.call(f"{prefix}slow_compute", seconds=0.3, label="a")
    assert created["status"] == "working"
    assert client.get(created["taskId"])["taskId"] == created["taskId"]
    assert client.outcome(created["taskId"])["content"][0]["text"] == "computed a in 0.3 s"
    assert status_of(client, created["taskId"]) == "completed"
    asking = client.call(f"{prefix}confirm_delete", filename="f")["taskId"]
    assert client.outcome(asking)["content"][0]["text"] == "accept: f"
    if isinstance(client, LegacyTasks):
        assert client.asked == [asking]
        assert {created["taskId"], asking} <= set(client.list())


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_task_that_is_cancelled_says_so(gateway: RunningGateway, era: str, is_merged: bool) -> None:
    client: TaskClient = CLIENTS[era](gateway.endpoint("" if is_merged else f"{era}1"))
    task_id = client.call(f"{era}1__slow_compute" if is_merged else "slow_compute", seconds=60)["taskId"]
    client.cancel(task_id)
    assert until(lambda: task if (task := client.get(task_id))["status"] in TERMINAL else None)["status"] == "cancelled"


def test_an_id_of_nobodys_task_is_a_wrong_parameter(gateway: RunningGateway, era: str) -> None:
    """Source: both specifications, "Protocol Errors"."""
    for endpoint in ("", f"{era}1"):
        with pytest.raises(TaskError) as refused:
            CLIENTS[era](gateway.endpoint(endpoint)).get("nobody's")
        assert refused.value.code == -32602


def test_a_client_that_has_not_declared_tasks_reads_what_it_lacks(gateway: RunningGateway) -> None:
    """Source: SEP-2663, "Protocol Errors"."""
    task_id = ModernTasks(gateway.endpoint()).call("modern1__slow_compute", seconds=5)["taskId"]
    for endpoint, shown in (("", "nobody's"), ("", task_id), ("modern1", "T1")):
        with pytest.raises(TaskError) as refused:
            ModernTasks(gateway.endpoint(endpoint), declares=False).get(shown)
        assert refused.value.code == -32021
        assert refused.value.data["requiredCapabilities"] == {"extensions": {EXTENSION: {}}}


# ---- several servers


def test_tasks_of_two_servers_never_meet(gateway: RunningGateway, era: str) -> None:
    client: TaskClient = CLIENTS[era](gateway.endpoint())
    ids = {name: client.call(f"{name}__slow_compute", seconds=0, label=name)["taskId"] for name in (f"{era}1", f"{era}2")}
    for name, task_id in ids.items():
        assert client.outcome(task_id)["content"][0]["text"] == f"computed {name} in 0 s"
    with pytest.raises(TaskError):
        CLIENTS[era](gateway.endpoint(f"{era}1")).get(ids[f"{era}2"])
    if isinstance(client, LegacyTasks):
        assert set(ids.values()) <= set(client.list())


def test_somebody_elses_task_is_nobodys(gateway: RunningGateway) -> None:
    """Source: SEP-2663, "Security Considerations", "Auth binding": as far as the gateway knows who asks."""
    ada, bob = (ModernTasks(gateway.endpoint(), user=name) for name in ("ada", "bob"))
    task_id = ada.call("modern1__slow_compute", seconds=0)["taskId"]
    assert ada.get(task_id)["taskId"] == task_id
    with pytest.raises(TaskError) as refused:
        bob.get(task_id)
    assert refused.value.code == -32602


def test_the_merged_server_announces_what_its_servers_have(gateway: RunningGateway) -> None:
    assert ModernTasks(gateway.endpoint()).capabilities()["extensions"] == {EXTENSION: {}}
    tasks = LegacyTasks(gateway.endpoint()).capabilities()["tasks"]
    assert tasks == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_subscription_tells_what_becomes_of_a_task(gateway: RunningGateway, is_merged: bool) -> None:
    """Source: SEP-2663, "Task Status Notifications"."""
    client = ModernTasks(gateway.endpoint("" if is_merged else "modern1"))
    task_id = client.call("modern1__slow_compute" if is_merged else "slow_compute", seconds=0.5)["taskId"]
    body, headers = client.body_of("subscriptions/listen", {"notifications": {"taskIds": [task_id]}})
    with StreamReader(gateway.endpoint("" if is_merged else "modern1"), headers, body) as stream:
        until(lambda: {} if "completed" in [each["params"].get("status") for each in stream.messages] else None)
        acknowledged, *told = [each["params"] for each in stream.messages]
    assert acknowledged["notifications"] == {"taskIds": [task_id]}
    assert {each["taskId"] for each in told} == {task_id}
    assert told[-1]["result"]["content"][0]["text"] == "computed  in 0.5 s"


# ---- a modern client and a server of the other era, or without tasks


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_modern_client_has_tasks_at_a_legacy_server(gateway: RunningGateway, is_merged: bool) -> None:
    """Those of the server where it has them, of its own call where it has none; each in the words of the client."""
    client = ModernTasks(gateway.endpoint("" if is_merged else "legacy1"))
    prefix = "legacy1__" if is_merged else ""
    asking = client.call(f"{prefix}confirm_delete", filename="f")
    assert asking["resultType"] == "task"
    assert client.outcome(asking["taskId"])["content"][0]["text"] == "accept: f"
    slow = client.call(f"{prefix}slow", seconds=1.5)
    assert slow["resultType"] == "task"
    assert client.outcome(slow["taskId"])["content"][0]["text"] == "slept 1.5 s"
    assert client.call(f"{prefix}echo", message="quick")["resultType"] == "complete"
    for tool, how in (("slow_compute", {"seconds": 60}), ("slow", {"seconds": 60, "tag": "cancelled"})):
        task_id = client.call(f"{prefix}{tool}", **how)["taskId"]
        client.cancel(task_id)
        assert status_of(client, task_id) == "cancelled"


@pytest.mark.parametrize("is_merged", [False, True], ids=["alone", "merged"])
def test_a_legacy_client_has_tasks_at_a_modern_server(gateway: RunningGateway, is_merged: bool) -> None:
    """Of tools that the server makes tasks of, and of others; each in the words of the client."""
    client = LegacyTasks(gateway.endpoint("" if is_merged else "modern1"))
    prefix = "modern1__" if is_merged else ""
    supports = {tool["name"]: tool.get("execution", {}).get("taskSupport") for tool in client.tools()["tools"]}
    assert supports[f"{prefix}echo"] == supports[f"{prefix}failing_job"] == "optional"
    for tool, arguments, text in (
        ("confirm_delete", {"filename": "f"}, "accept: f"),
        ("slow", {"seconds": 0.3}, "slept 0.3 s"),
        ("elicit", {}, "accept: Hello, Ada!"),
        ("test_tool_with_task", {}, "Hello, Ada!"),
    ):
        task_id = client.call(f"{prefix}{tool}", **arguments)["taskId"]
        assert client.outcome(task_id)["content"][0]["text"] == text
        assert status_of(client, task_id) == "completed"
        assert set(client.asked) <= {task_id}, "questions name the task that they belong to"
        client.asked.clear()
    for tool in ("slow_compute", "slow"):
        task_id = client.call(f"{prefix}{tool}", seconds=60)["taskId"]
        assert client.cancel(task_id)["status"] == "cancelled"
        with pytest.raises(TaskError) as refused:
            client.cancel(task_id)
        assert refused.value.code == -32602
    failed = client.call(f"{prefix}failing_job")["taskId"]
    assert client.outcome(failed)["isError"]
    assert status_of(client, failed) == "failed"


def test_a_task_of_the_gateway_is_found_from_every_cell_and_is_nobodys_elsewhere(gateway: RunningGateway) -> None:
    """On two cells each connection lands on either."""
    task_id = ModernTasks(gateway.endpoint("legacy1")).call("slow", seconds=1.2)["taskId"]
    found = [ModernTasks(gateway.endpoint("legacy1")).get(task_id)["status"] for _ in range(8)]
    assert set(found) <= {"working", "completed"}
    with pytest.raises(TaskError) as refused:
        ModernTasks(gateway.endpoint("legacy2")).get(task_id)
    assert refused.value.code == -32602


def test_a_task_that_died_with_the_gateway_says_so(tmp_path: Path, servers: dict[str, SdkServer]) -> None:
    backends = [{"name": "legacy1", "replicas": [servers["legacy1"].url]}]
    with start_gateway(tmp_path, "embedded", backends) as gateway:
        task_id = ModernTasks(gateway.endpoint("legacy1")).call("slow", seconds=1.5)["taskId"]
    with start_gateway(tmp_path, "embedded", backends) as again:
        lost = ModernTasks(again.endpoint("legacy1")).get(task_id)
    assert lost["status"] == "failed"
    assert "was lost with the process" in lost["statusMessage"]


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_result_that_was_there_before_the_gateway_ended_is_there_after(
    tmp_path: Path, servers: dict[str, SdkServer], form: str, era: str
) -> None:
    """Of a call that the gateway ran itself, at a server of either era; one that still ran says that it died."""
    other = {"legacy": "modern", "modern": "legacy"}[era]
    backends = [{"name": name, "replicas": [servers[name].url]} for name in (f"{era}1", f"{other}1")]
    found: dict[str, str] = {}
    with start_gateway(tmp_path, form, backends) as gateway:  # type: ignore[arg-type]
        client: TaskClient = CLIENTS[era](gateway.endpoint())
        for name in (f"{era}1", f"{other}1"):
            over, running = (
                client.call(f"{name}__slow", seconds=1.3)["taskId"],
                client.call(f"{name}__slow", seconds=60)["taskId"],
            )
            assert client.outcome(over)["content"][0]["text"] == "slept 1.3 s"
            found |= {over: "completed", running: "failed"}
        port = gateway.port
    with start_gateway(tmp_path, form, backends) as again:  # type: ignore[arg-type]
        client._url = client._url.replace(f":{port}", f":{again.port}")
        for task_id, status in found.items():
            task = client.get(task_id)
            assert task["status"] == status
            if status == "completed":
                assert client.outcome(task_id)["content"][0]["text"] == "slept 1.3 s"
            else:
                assert "was lost with the process" in task["statusMessage"]


# ---- replicas, restarts


def test_a_task_is_asked_for_where_it_runs(tmp_path: Path) -> None:
    """Source: SEP-2663, "Streamable HTTP: Routing Headers": "typically required for correctness"."""
    with ExitStack() as stack:
        urls = [stack.enter_context(start_sdk_server(name=f"r{number}", era="modern", tasks=True)).url for number in (1, 2)]
        backends = [{"name": "twice", "replicas": urls}, {"name": "once", "replicas": urls[:1]}]
        gateway = stack.enter_context(start_gateway(tmp_path, "embedded", backends))
        for endpoint, tool in (("", "twice__slow_compute"), ("twice", "slow_compute")):
            client = ModernTasks(gateway.endpoint(endpoint))
            for number in range(4):
                made = client.ask("tools/call", {"name": tool, "arguments": {"seconds": 0, "label": str(number)}})
                assert client.outcome(made["taskId"])["content"][0]["text"] == f"computed {number} in 0 s"


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_tasks_outlive_a_restart_of_the_gateway(tmp_path: Path, servers: dict[str, SdkServer], form: str, era: str) -> None:
    backends = [{"name": name, "replicas": [server.url]} for name, server in servers.items()]
    port = 0
    with start_gateway(tmp_path, form, backends) as gateway:  # type: ignore[arg-type]
        client: TaskClient = CLIENTS[era](gateway.endpoint())
        task_id = client.call(f"{era}1__slow_compute", seconds=0.2, label="kept")["taskId"]
        port = gateway.port
    with start_gateway(tmp_path, form, backends) as again:  # type: ignore[arg-type]
        client._url = client._url.replace(f":{port}", f":{again.port}")
        assert client.outcome(task_id)["content"][0]["text"] == "computed kept in 0.2 s"
