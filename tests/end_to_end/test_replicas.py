"""Two replicas of one backend: a session stays where it is, survives the death of its replica, and the replica comes back."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.raw_http import Answer, ask, ask_modern, open_session, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

USERS = [f"user-{number}" for number in range(16)]
Replicas = tuple[RunningGateway, tuple[SdkServer, SdkServer]]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[SdkServer, SdkServer]]:
    with start_sdk_server() as one, start_sdk_server() as other:
        yield one, other


@pytest.fixture(params=["embedded", "two cells"])
def replicas(
    request: pytest.FixtureRequest, start_gateway: StartGateway, servers: tuple[SdkServer, SdkServer]
) -> Iterator[Replicas]:
    backend = {"name": "all", "prefix": "", "replicas": [server.url for server in servers]}
    with start_gateway(request.param, [backend], gateway={"health_check_interval": 1.0}) as gateway:
        wait_until(lambda: gateway.health()["status"] == "healthy", 5, "healthy")
        yield gateway, servers
        assert gateway.restart_count() == 0


def whoami(answer: Answer) -> dict[str, Any]:
    """What the tool says of the server that ran it."""
    assert "result" in answer.message, answer
    who: dict[str, Any] = json.loads(answer.text)
    return who


def pid_in(gateway: RunningGateway, session: dict[str, str]) -> int:
    return int(whoami(ask(gateway.endpoint(), tool_call("whoami"), session))["pid"])


def pid_for(gateway: RunningGateway, user: str) -> int:
    return int(whoami(ask_modern(f"{gateway.endpoint()}?user_id={user}", tool_call("whoami")))["pid"])


def replica_health(gateway: RunningGateway, server: SdkServer) -> str:
    status: str = gateway.health()["components"][f"all/{server.url}"]["status"]
    return status


def test_a_session_and_a_user_stay_with_one_replica_and_many_use_both(replicas: Replicas) -> None:
    gateway, servers = replicas
    pids = {server.pid for server in servers}
    sessions = [open_session(gateway.endpoint()) for _ in range(24)]
    homes = [pid_in(gateway, session) for session in sessions]
    for _ in range(3):
        assert [pid_in(gateway, session) for session in sessions] == homes
    assert set(homes) == pids
    users = [pid_for(gateway, user) for user in USERS]
    for _ in range(3):
        assert [pid_for(gateway, user) for user in USERS] == users
    assert set(users) == pids


def test_a_killed_replica_costs_nobody_a_session_and_takes_its_keys_back_when_it_returns(replicas: Replicas) -> None:
    gateway, servers = replicas
    # 1. Sessions and users on both replicas.
    sessions = [open_session(gateway.endpoint()) for _ in range(24)]
    homes = [pid_in(gateway, session) for session in sessions]
    users = {user: pid_for(gateway, user) for user in USERS}
    victim, survivor = servers if homes[0] == servers[0].pid else servers[::-1]
    lost_pid = victim.pid

    # 2. A call that runs while its replica is killed must not run again elsewhere: it fails, soon and clearly.
    tag = f"hit {gateway.form}"
    running: list[Answer] = []
    caller = threading.Thread(
        target=lambda: running.append(
            ask(gateway.endpoint(), tool_call("slow", {"seconds": 20, "tag": tag}, request_id="hit"), sessions[0])
        )
    )
    caller.start()
    victim.wait_for(lambda counters: tag in counters["started"])
    victim.kill()
    killed_s = time.monotonic()
    caller.join(12)
    assert time.monotonic() - killed_s < 10  # it would run for 20
    assert (running[0].message["id"], running[0].reason) == ("hit", "upstream_failed")
    assert tag not in survivor.counters()["started"]

    # 3. Every session goes on under its own id, at once and on the survivor.
    assert [pid_in(gateway, session) for session in sessions] == [survivor.pid] * len(sessions)
    assert {pid_for(gateway, user) for user in USERS} == {survivor.pid}

    # 4. The dead one is ejected and shown as such.
    wait_until(lambda: all(replica_health(gateway, victim) == "unhealthy" for _ in range(8)), 10, "ejected in every cell")
    assert gateway.health()["status"] == "degraded"
    assert replica_health(gateway, survivor) == "healthy"
    if gateway.form != "embedded":
        assert health_in_status(gateway) == {victim.url: "unhealthy", survivor.url: "healthy"}
    assert [pid_in(gateway, session) for session in sessions] == [survivor.pid] * len(sessions)

    # 5. It returns on its port, and with it exactly the users that were its own.
    victim.restart()
    assert victim.pid != lost_pid
    wait_until(lambda: replica_health(gateway, victim) == "healthy", 10, "restored")
    expected = {user: victim.pid if pid == lost_pid else survivor.pid for user, pid in users.items()}
    wait_until(lambda: {user: pid_for(gateway, user) for user in USERS} == expected, 10, "its keys are back")
    assert len(Counter(expected.values())) == 2
    newcomers = [open_session(gateway.endpoint()) for _ in range(24)]
    assert {pid_in(gateway, session) for session in newcomers} == {victim.pid, survivor.pid}
    assert {pid_in(gateway, session) for session in sessions} <= {victim.pid, survivor.pid}


def health_in_status(gateway: RunningGateway) -> dict[str, str]:
    return {replica["address"]: replica["health"] for backend in gateway.status()["backends"] for replica in backend["replicas"]}


def test_a_session_forgotten_by_its_server_is_opened_again_behind_the_clients_back(replicas: Replicas) -> None:
    """The server restarts between two calls: it answers 404 to the session that the gateway kept for the client."""
    gateway, servers = replicas
    session = open_session(gateway.endpoint())
    home = pid_in(gateway, session)
    server = next(server for server in servers if server.pid == home)
    server.restart()
    who = whoami(ask(gateway.endpoint(), tool_call("whoami"), session))
    assert who["pid"] in {server.pid for server in servers}
    assert who["client"] == "raw"


def test_an_ended_session_is_refused_everywhere(replicas: Replicas) -> None:
    gateway, _ = replicas
    session = open_session(gateway.endpoint())
    pid_in(gateway, session)
    assert ask(gateway.endpoint(), b"", session, verb="DELETE").status in (200, 204)
    wait_until(
        lambda: all(ask(gateway.endpoint(), tool_call("whoami"), session).status == 404 for _ in range(8)),
        5,
        "every cell refuses the session",
    )
