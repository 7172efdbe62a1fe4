"""Access is taken while the gateway runs: by command and by reload, in every cell before it is acknowledged, and for good."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.stream_reader import StreamReader
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks
from tests.end_to_end.raw_http import BOTH_ANSWERS, ask, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, start_gateway, wait_until

DEMO = {"name": "demo", "prefix": "", "builtin": "demo"}
ISSUER_KEY = IssuerKey.make("k")
MANY = 8
"""Connections enough to have met both cells."""


def auth_table(directory: Path) -> dict[str, Any]:
    (directory / "keys.json").write_bytes(jwks(ISSUER_KEY))
    keys = [{"name": name, "hash": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"} for name in ("ci", "cron")]
    return {"issuers": [{"issuer": ISSUER, "jwks_file": str(directory / "keys.json")}], "api_keys": keys}


def statuses(gateway: RunningGateway, credential: str) -> set[int]:
    """What many requests on connections of their own read."""
    authorization = {"Authorization": f"Bearer {credential}"}
    return {ask(gateway.endpoint(), request("ping"), authorization).status for _ in range(MANY)}


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    auth = auth_table(tmp_path_factory.mktemp("keys"))
    with start_gateway("two cells", [DEMO], auth=auth, gateway={"public_url": PUBLIC_URL}) as running:
        yield running


def test_nobody_is_served_who_has_not_said_who_it_is(gateway: RunningGateway) -> None:
    assert ask(gateway.endpoint(), request("ping")).status == 401
    assert statuses(gateway, "made-up") == {401}
    assert statuses(gateway, IssuerKey.make("k").token()) == {401}
    assert 401 not in statuses(gateway, "ci") | statuses(gateway, ISSUER_KEY.token())


def test_a_subject_that_is_revoked_is_nobody_in_any_cell_when_the_command_ends(gateway: RunningGateway) -> None:
    alice, bob = ISSUER_KEY.token({"sub": "alice"}), ISSUER_KEY.token({"sub": "bob"})
    assert 401 not in statuses(gateway, alice) | statuses(gateway, bob)
    assert gateway.admin("revoke", "alice") == (0, "alice has no access any more\n")
    assert statuses(gateway, alice) == {401}
    assert 401 not in statuses(gateway, bob)
    assert gateway.admin("revoke", "https://id.example alice")[0] == 0
    assert "but still has no access as 'https://id.example alice'" in gateway.admin("revoke", "--undo", "alice")[1]
    assert gateway.admin("revoke", "--undo", "https://id.example alice") == (0, "https://id.example alice has access again\n")
    assert gateway.admin("revoke", "--undo", "alice") == (0, "alice has access again\n")
    assert 401 not in statuses(gateway, alice)


def test_streams_of_who_is_revoked_have_ended_in_every_cell_and_others_stay_open(gateway: RunningGateway) -> None:
    tokens = {name: ISSUER_KEY.token({"sub": name}) for name in ("eve", "bob")}
    with ExitStack() as stack:
        streams: dict[str, list[StreamReader]] = {name: [] for name in tokens}
        for name, token in tokens.items():
            shown = {"Authorization": f"Bearer {token}"}
            for _ in range(MANY):
                session = {**open_session(gateway.endpoint(), shown), **shown}
                streams[name].append(stack.enter_context(StreamReader(gateway.endpoint(), session)))
                streams[name].append(stack.enter_context(StreamReader(f"{gateway.url}/sse", shown)))
        assert gateway.admin("revoke", "eve")[0] == 0
        wait_until(lambda: not any(stream.is_open for stream in streams["eve"]), 5, "the streams have ended")
        assert all(stream.is_open for stream in streams["bob"])


def test_one_credential_is_revoked_and_another_of_the_same_subject_goes_on(gateway: RunningGateway) -> None:
    lost, other = (ISSUER_KEY.token({"jti": jti}) for jti in ("lost", "other"))
    fingerprint = hashlib.sha256(lost.rpartition(".")[0].encode()).hexdigest()[:32]
    assert gateway.admin("revoke", "--fingerprint", fingerprint)[0] == 0
    assert statuses(gateway, lost) == {401}
    assert 401 not in statuses(gateway, other)


def test_what_names_nobody_is_refused(gateway: RunningGateway) -> None:
    code, text = gateway.admin("revoke", "--fingerprint", "abc")
    assert code == 2
    assert "32 hexadecimal digits" in text


def test_a_key_that_is_no_longer_in_the_file_opens_nothing_after_a_reload(gateway: RunningGateway) -> None:
    assert 401 not in statuses(gateway, "cron")
    before = gateway.config_path.read_text()
    digest = hashlib.sha256(b"cron").hexdigest()
    gateway.config_path.write_text(before.replace(digest, "0" * 64))
    assert gateway.admin("reload") == (0, "[auth] changed\n")
    assert statuses(gateway, "cron") == {401}
    assert 401 not in statuses(gateway, "ci")
    gateway.config_path.write_text(before)
    assert gateway.admin("reload")[0] == 0
    assert 401 not in statuses(gateway, "cron")


def test_who_was_revoked_stays_so_when_the_gateway_starts_again(tmp_path: Path) -> None:
    auth = auth_table(tmp_path)
    for is_first in (True, False):
        with start_gateway(tmp_path, "two cells", [DEMO], auth=auth, gateway={"public_url": PUBLIC_URL}) as gateway:
            if is_first:
                assert gateway.admin("revoke", "ci")[0] == 0
            assert statuses(gateway, "ci") == {401}
            assert 401 not in statuses(gateway, "cron")


def test_a_cell_that_ends_or_starts_refuses_who_is_revoked_meanwhile(tmp_path: Path) -> None:
    """A cell that is restarted serves those once more who are connected to it, while its last requests run."""
    eve, bob = (ISSUER_KEY.token({"sub": name}) for name in ("eve", "bob"))
    table = {"public_url": PUBLIC_URL, "drain_timeout": 50.0}
    with start_gateway(tmp_path, "two cells", [DEMO], auth=auth_table(tmp_path), gateway=table) as gateway, ExitStack() as stack:
        kept, slow = ([_connection(gateway, stack) for _ in range(MANY)] for _ in range(2))
        assert 401 not in {_ask(connection, eve, request("ping")) for connection in kept}
        for connection in slow:  # which keep their cells from ending
            _send(connection, bob, modern(tool_call("slow", {"seconds": 45})))
        wait_until(lambda: gateway.status()["connections"].get("streamable_http", 0) >= MANY, 30, "the slow calls run")
        restart = threading.Thread(target=gateway.admin, args=("restart", "cell/0"))
        restart.start()
        wait_until(lambda: _starting_or_ending(gateway), 30, "the cell ends")
        assert gateway.admin("revoke", "eve")[0] == 0
        assert {_ask(connection, eve, request("ping")) for connection in kept} == {401}
        for connection in slow:
            connection.close()
        while restart.is_alive():
            assert statuses(gateway, eve) == {401}
        assert statuses(gateway, eve) == {401}


def _connection(gateway: RunningGateway, stack: ExitStack) -> http.client.HTTPConnection:
    return stack.enter_context(closing(http.client.HTTPConnection(gateway.host, gateway.port, timeout=30)))


def _send(connection: http.client.HTTPConnection, token: str, message: tuple[dict[str, Any], dict[str, str]]) -> None:
    body, own = message
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": BOTH_ANSWERS, **own}
    connection.request("POST", "/mcp", json.dumps(body), headers)


def _ask(connection: http.client.HTTPConnection, token: str, message: dict[str, Any]) -> int:
    _send(connection, token, (message, {}))
    response = connection.getresponse()
    response.read()
    return response.status


def _starting_or_ending(gateway: RunningGateway) -> bool:
    """Whether a cell does not say of itself what it is made of."""
    rows = list(gateway.status()["tree"])
    for row in rows:
        rows += row["children"]
    return any(not row["children"] for row in rows if row["name"] in ("cell/0", "cell/1"))
