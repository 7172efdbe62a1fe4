"""What becomes of the tasks that cells run when their processes are killed."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.running_gateway import Form, wait_until
from tests.end_to_end.task_client import LegacyTasks, ModernTasks, TaskClient


@pytest.mark.parametrize("form", ["node", "two cells"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_result_outlives_the_cell_that_had_it_and_a_call_does_not(form: Form, era: str, start_gateway: StartGateway) -> None:
    with start_sdk_server(name=era, era=era) as server:  # type: ignore[arg-type]
        backends = [{"name": "all", "prefix": "", "replicas": [server.url]}]
        with start_gateway(form, backends, expects_errors=True) as gateway:
            clients = {"legacy": LegacyTasks, "modern": ModernTasks}
            client: TaskClient = clients[era](gateway.endpoint())
            over = [client.call("slow", seconds=1.2)["taskId"] for _ in range(3)]
            assert [client.outcome(task_id)["content"][0]["text"] for task_id in over] == ["slept 1.2 s"] * 3
            before = [client.get(task_id) for task_id in over]
            running = client.call("slow", seconds=60)["taskId"]
            for pid in gateway.cell_pids():
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: serves(client), 10, "a cell serves again")
            assert [client.get(task_id) for task_id in over] == before
            assert [client.outcome(task_id)["content"][0]["text"] for task_id in over] == ["slept 1.2 s"] * 3
            died = client.get(running)
            assert died["status"] == "failed"
            assert "was lost with the process" in died["statusMessage"]


def serves(client: TaskClient) -> bool:
    try:
        client.tools()
    except (OSError, ValueError):
        return False
    return True
