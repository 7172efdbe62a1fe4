"""An issuer logs somebody out: over each transport, what is open in any cell has ended when the issuer hears so, and for good."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.doubles.identity_provider import identity_provider
from tests.doubles.ports import free_port
from tests.doubles.stream_reader import StreamReader
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks, logout_claims
from tests.end_to_end.raw_http import ask, open_session, request
from tests.end_to_end.running_gateway import Form, RunningGateway, start_gateway, wait_until

DEMO = {"name": "demo", "prefix": "", "builtin": "demo"}
KEY = IssuerKey.make("k")
MANY = 6
"""Connections enough to have met both cells."""


def auth_table(directory: Path) -> dict[str, Any]:
    (directory / "keys.json").write_bytes(jwks(KEY))
    return {"issuers": [{"issuer": ISSUER, "jwks_file": str(directory / "keys.json"), "logout_audience": "gateway"}]}


BEGAN_S = time.time()


def token(subject: str, **claims: Any) -> str:
    """One of before this file's tests."""
    return KEY.token({"sub": subject, "iat": BEGAN_S - 5, **claims})


def log_out(gateway: RunningGateway, **claims: Any) -> int:
    """What the issuer reads."""
    shown = KEY.token({**logout_claims(time.time()), **claims}, {"typ": "logout+jwt"})
    sent = urllib.parse.urlencode({"logout_token": shown}).encode()
    try:
        with urllib.request.urlopen(f"{gateway.url}/mcp/oauth/logout", sent, timeout=15) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def statuses(gateway: RunningGateway, credential: str) -> set[int]:
    """What many requests on connections of their own read."""
    authorization = {"Authorization": f"Bearer {credential}"}
    return {ask(gateway.endpoint(), request("ping"), authorization).status for _ in range(MANY)}


def ticket(gateway: RunningGateway, shown: dict[str, str]) -> str:
    return str(json.loads(ask(f"{gateway.url}/mcp/ticket", b"", shown).body)["ticket"])


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_what_is_open_has_ended_in_every_cell_when_the_issuer_is_answered_and_stays_so(tmp_path: Path, form: Form) -> None:
    with start_gateway(tmp_path, form, [DEMO], auth=auth_table(tmp_path), gateway={"public_url": PUBLIC_URL}) as gateway:
        shown = {name: {"Authorization": f"Bearer {token(name)}"} for name in ("alice", "bob")}
        websocket_url = gateway.url.replace("http", "ws", 1)
        paths = ("/mcp/ws", "/mcp/websocket?vsn=2.0.0")
        with ExitStack() as stack:
            streams: dict[str, list[StreamReader]] = {name: [] for name in shown}
            sockets: dict[str, list[Any]] = {name: [] for name in shown}
            for name, headers in shown.items():
                for _ in range(MANY):
                    session = {**open_session(gateway.endpoint(), headers), **headers}
                    for url, own in ((gateway.endpoint(), session), (f"{gateway.url}/sse", headers)):
                        streams[name].append(stack.enter_context(StreamReader(url, own)))
                    topic = f"{gateway.url}/mcp/sse/events/client.*?ticket={ticket(gateway, headers)}"
                    streams[name].append(stack.enter_context(StreamReader(topic, {})))
                    for path in paths:
                        opened = connect(f"{websocket_url}{path}", additional_headers=headers)
                        sockets[name].append(stack.enter_context(opened))
            unused = ticket(gateway, shown["alice"])
            assert log_out(gateway) == 200
            wait_until(lambda: not any(stream.is_open for stream in streams["alice"]), 5, "the streams have ended")
            assert all(stream.is_open for stream in streams["bob"])
            for socket in sockets["alice"]:
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(timeout=5)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
            for socket in sockets["bob"]:
                with pytest.raises(TimeoutError):
                    socket.recv(timeout=0.01)
            with pytest.raises(InvalidStatus) as refused:
                connect(f"{websocket_url}/mcp/ws?ticket={unused}").__enter__()
            assert refused.value.response.status_code == 401
        assert statuses(gateway, token("alice")) == {401}
        assert 401 not in statuses(gateway, token("bob")) | statuses(gateway, token("alice", iat=time.time() + 5))
        assert log_out(gateway) == 400, "the same token again"
        assert gateway.errors() == []
    with start_gateway(tmp_path, form, [DEMO], auth=auth_table(tmp_path), gateway={"public_url": PUBLIC_URL}) as gateway:
        assert statuses(gateway, token("alice")) == {401}
        assert 401 not in statuses(gateway, token("bob"))


def test_of_a_session_that_is_logged_out_another_one_of_the_same_person_goes_on(tmp_path: Path) -> None:
    with start_gateway(tmp_path, "two cells", [DEMO], auth=auth_table(tmp_path), gateway={"public_url": PUBLIC_URL}) as gateway:
        tokens = {session: token("alice", sid=session) for session in ("phone", "desk")}
        assert log_out(gateway, sid="phone", sub=None) == 200
        assert statuses(gateway, tokens["phone"]) == {401}
        assert 401 not in statuses(gateway, tokens["desk"])


def test_a_logout_of_a_real_identity_provider_is_heard(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with identity_provider() as provider:
        client = provider.registered(
            redirect_uris=["https://gateway.example/callback"],
            token_endpoint_auth_method="none",
            backchannel_logout_uri=f"{url}/mcp/oauth/logout",
            backchannel_logout_session_required=True,
        )
        auth = {"issuers": [{"issuer": provider.issuer, "allow_private": True, "logout_audience": client}]}
        with start_gateway(tmp_path, "two cells", [DEMO], auth=auth, gateway={"port": port, "public_url": url}) as gateway:
            tokens = {user: provider.user_token(user, f"{url}/mcp") for user in ("alice", "bob")}
            assert 401 not in statuses(gateway, tokens["alice"])
            provider.log_out(client, "alice")
            assert statuses(gateway, tokens["alice"]) == {401}
            assert 401 not in statuses(gateway, tokens["bob"])
            this_second = int(time.time())
            wait_until(lambda: time.time() > this_second + 1, 3, "another second has begun, by which issuers count")
            assert 401 not in statuses(gateway, provider.user_token("alice", f"{url}/mcp"))
