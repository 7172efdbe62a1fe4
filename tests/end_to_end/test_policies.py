"""Who may what, for programs with API keys, over every transport and in both forms: calls, lists, topics, reloads, audit."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from mcp_gateway.scripts.command_line import main
from tests.conftest import StartGateway
from tests.doubles.phoenix_client import phoenix_client
from tests.doubles.topic_reader import read_topic
from tests.end_to_end.every_transport import WAYS, bearer
from tests.end_to_end.raw_http import ask, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

DEV, OPS, NOBODY = "key-of-dev-0123456789", "key-of-ops-0123456789", "key-of-nobody-0123456"
BACKENDS = [{"name": "one", "builtin": "demo"}, {"name": "two", "builtin": "demo"}]
KEYS = [
    {"name": "dev", "hash": f"sha256:{hashlib.sha256(DEV.encode()).hexdigest()}", "groups": ["devs"], "scopes": ["read"]},
    {"name": "ops", "hash": f"sha256:{hashlib.sha256(OPS.encode()).hexdigest()}", "scopes": ["mcp-gateway:operate"]},
    {"name": "nobody", "hash": f"sha256:{hashlib.sha256(NOBODY.encode()).hexdigest()}"},
]
POLICIES: list[dict[str, Any]] = [
    {"effect": "allow", "subjects": ["ops"]},
    {"effect": "allow", "groups": ["devs"], "tools": ["one__*"], "prompts": ["one__*"], "topics": ["client.dev.*"]},
    {"effect": "deny", "groups": ["devs"], "tools": ["one__fail"]},
    {"effect": "allow", "groups": ["devs"], "scopes": ["read", "write"], "tools": ["two__time"]},
    {"effect": "allow", "groups": ["devs"], "tools": ["two__echo"], "when": "arguments.message.startsWith('ok')"},
]
PADDING = "x" * 70_000


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, BACKENDS, auth={"mode": "required", "api_keys": KEYS}, policies=POLICIES) as running:
        yield running


def run(body: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(body)


def outcome(answer: dict[str, Any]) -> str:
    return answer["error"]["data"]["reason"] if "error" in answer else "ok"


def over(gateway: RunningGateway, way: str, message: dict[str, Any], key: str = DEV) -> Any:
    return run(WAYS[way](gateway.url, modern(message)[0], key=key))


def call(gateway: RunningGateway, way: str, name: str, key: str = DEV, **arguments: Any) -> Any:
    return over(gateway, way, tool_call(name, arguments), key)


@pytest.mark.parametrize("way", WAYS)
def test_calls_are_allowed_and_denied_alike_over_every_transport(gateway: RunningGateway, way: str) -> None:
    assert outcome(call(gateway, way, "one__echo", message="hi")) == "ok"
    assert outcome(call(gateway, way, "one__fail")) == "forbidden"
    assert outcome(call(gateway, way, "two__slow")) == "forbidden"
    assert outcome(call(gateway, way, "one__echo", NOBODY, message="hi")) == "forbidden"
    assert outcome(call(gateway, way, "two__time", OPS)) == "ok"
    refused = call(gateway, way, "two__time")
    assert (outcome(refused), refused["error"]["code"], refused["error"]["data"]["scopes"]) == (
        "insufficient_scope",
        4032,
        ["read", "write"],
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_condition_is_held_against_the_arguments_that_the_server_reads(gateway: RunningGateway, way: str) -> None:
    assert outcome(call(gateway, way, "two__echo", message="ok then")) == "ok"
    assert outcome(call(gateway, way, "two__echo", message="not so")) == "forbidden"
    assert outcome(call(gateway, way, "two__echo")) == "forbidden"
    assert outcome(call(gateway, way, "two__echo", message="ok then", more=PADDING)) == "forbidden"


@pytest.mark.parametrize("way", WAYS)
def test_lists_show_what_may_be_used(gateway: RunningGateway, way: str) -> None:
    listed = over(gateway, way, request("tools/list", {}))["result"]
    assert [tool["name"] for tool in listed["tools"]] == ["one__echo", "one__time", "one__slow", "two__echo"]
    assert listed["cacheScope"] == "private"
    assert len(over(gateway, way, request("tools/list", {}), OPS)["result"]["tools"]) == 8
    assert over(gateway, way, request("tools/list", {}), NOBODY)["result"]["tools"] == []
    assert over(gateway, way, request("resources/list", {}))["result"]["resources"] == []
    prompts = over(gateway, way, request("prompts/list", {}))["result"]["prompts"]
    assert {prompt["name"].partition("__")[0] for prompt in prompts} == {"one"}


@pytest.mark.parametrize("way", WAYS)
def test_what_names_a_thing_without_calling_it_is_held_against_the_same_rule(gateway: RunningGateway, way: str) -> None:
    (resource,) = over(gateway, way, request("resources/list", {}), OPS)["result"]["resources"][:1]
    uri = resource["uri"]
    assert outcome(over(gateway, way, request("resources/read", {"uri": uri}))) == "forbidden"
    assert outcome(over(gateway, way, request("resources/read", {"uri": uri}), OPS)) == "ok"
    reference = {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "a", "value": ""}}
    assert outcome(over(gateway, way, request("completion/complete", reference))) == "forbidden"
    listen = {"notifications": {"resourceSubscriptions": [uri]}}
    assert outcome(over(gateway, way, request("subscriptions/listen", listen))) == "forbidden"


def test_sessions_and_endpoints_of_one_backend_know_the_same_rules(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint(), bearer(DEV))
    assert ask(gateway.endpoint(), tool_call("one__echo", {"message": "hi"}), session).text == "hi"
    refused = ask(gateway.endpoint(), tool_call("one__fail"), session)
    assert (refused.status, refused.reason) == (403, "forbidden")
    alone = gateway.endpoint("two")
    session = open_session(alone, bearer(DEV))
    listed = ask(alone, request("tools/list"), session).message["result"]["tools"]
    assert [tool["name"] for tool in listed] == ["echo"]
    assert ask(alone, tool_call("slow"), session).reason == "forbidden"
    assert ask(alone, tool_call("one__echo", {"message": "hi"}), session).reason == "forbidden"
    stepped_up = ask(alone, tool_call("time"), session)
    assert (stepped_up.status, stepped_up.reason) == (403, "insufficient_scope")
    assert 'scope="read write"' in stepped_up.headers["www-authenticate"]


def test_a_request_that_is_sent_as_a_notification_reaches_no_server(gateway: RunningGateway) -> None:
    """Attack: a tool without an id."""
    session = open_session(gateway.endpoint(), bearer(DEV))
    told = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "one__fail", "arguments": {}}}
    assert ask(gateway.endpoint(), told, session).status == 403


def test_two_members_of_one_name_never_come_to_a_condition(gateway: RunningGateway) -> None:
    """Attack: the gateway reads one, the server the other; also in a message of which not all is looked at."""
    for padding in ("", PADDING):
        arguments = '{"deep":{"message":"a","message":"b"},"message":"ok","message":"bad"}'
        meta = json.dumps(modern(request("x"))[0]["params"]["_meta"] | {"io.example/padding": padding})
        params = f'{{"name":"two__echo","arguments":{arguments},"_meta":{meta}}}'
        body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode()
        headers = modern(tool_call("two__echo"))[1] | bearer(DEV)
        assert ask(gateway.endpoint(), body, headers).reason == "invalid_request"


def test_topics_are_followed_and_published_by_the_policies(gateway: RunningGateway) -> None:
    async def body() -> None:
        async with (
            phoenix_client(gateway.url, headers=bearer(DEV)) as dev,
            phoenix_client(gateway.url, headers=bearer(OPS)) as ops,
        ):
            await dev.join("mcp:client.*")
            await dev.join("mcp:client.dev.*", join_ref="j2")
            await ops.join()
            for topic in ("mcp:client.other", "mcp:client.other.*"):
                refused = await dev.ask("j3", topic, "phx_join", {})
                assert (refused.status, refused.response["reason"]) == ("error", "forbidden"), topic
            refused = await dev.ask("j1", "mcp:client.*", "event", {"event": "other", "data": {}})
            assert refused.response["reason"] == "forbidden"
            assert (await ops.ask("j1", "mcp:events", "event", {"event": "other", "data": {"n": 1}})).status == "ok"
            assert (await dev.ask("j1", "mcp:client.*", "event", {"event": "dev.a", "data": {"n": 2}})).status == "ok"
            assert (await ops.event("client.other")).payload["data"] == {"n": 1}
            assert (await dev.event("client.dev.a", "mcp:client.*")).payload["data"] == {"n": 2}
            assert not [told for told in dev.told if told.payload.get("event") == "client.other"]

    run(body())


def test_an_event_stream_of_everything_has_what_its_client_may_follow(gateway: RunningGateway) -> None:
    async def body() -> None:
        async with (
            read_topic(gateway.port, "client.*", **bearer(DEV)) as stream,
            phoenix_client(gateway.url, headers=bearer(OPS)) as ops,
        ):
            assert stream.status == 200
            await stream.next("connected")
            await ops.join()
            for name in ("other", "dev.b"):
                assert (await ops.ask("j1", "mcp:events", "event", {"event": name, "data": {}})).status == "ok"
            assert (await stream.next("vsm_event")).topic == "client.dev.b"
        async with read_topic(gateway.port, "client.other.*", **bearer(DEV)) as refused:
            assert (refused.status, await refused.reason()) == (403, "forbidden")

    run(body())


def test_the_audit_trail_has_each_decision_once_and_is_whole(gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
    trail = gateway.state_dir / "audit.jsonl"
    secret = "s3cret of this call"

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in trail.read_text().splitlines()]

    earlier = len(entries())
    for way in WAYS:
        assert outcome(call(gateway, way, "one__echo", message=secret)) == "ok"

    def calls() -> list[dict[str, Any]]:
        return [entry for entry in entries()[earlier:] if entry["method"] == "tools/call" and entry["name"] == "one__echo"]

    def are_there() -> bool:
        return {entry["transport"] for entry in calls()} >= {"streamable_http", "http_sse", "websocket"}

    wait_until(are_there, 10, "the calls are in the trail")  # either cell writes what it has decided
    last = calls()[-1]
    assert (last["issuer"], last["subject"], last["outcome"], last["rule"]) == ("api-key", "dev", "allowed", "policies[1]")
    text = trail.read_text()
    assert secret not in text
    assert DEV not in text
    assert main(["audit", "verify", "--state-dir", str(gateway.state_dir)]) == 0
    assert f"entries 1 to {len(entries())} follow each other" in capsys.readouterr().out


def test_explain_says_what_the_gateway_does(gateway: RunningGateway, capsys: pytest.CaptureFixture[str]) -> None:
    who = ["explain", "--config", str(gateway.config_path), "--as", "dev", "--issuer", "api-key", "--group", "devs"]
    assert main([*who, "--scope", "read", "tools/call/one__fail"]) == 1
    assert "denied by policies[2]" in capsys.readouterr().out
    assert main([*who, "--scope", "read", "tools/call/two__time"]) == 1
    assert main([*who, "tools/call/two__echo", "--arguments", '{"message": "ok"}']) == 0


def test_a_reload_changes_the_rules_of_every_cell(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", BACKENDS, auth={"mode": "required", "api_keys": KEYS}, policies=POLICIES) as gateway:
        for _ in range(8):
            assert outcome(call(gateway, "WebSocket", "one__echo", message="hi")) == "ok"
        text = gateway.config_path.read_text()
        gateway.config_path.write_text(text.replace('tools = ["one__*"]', 'tools = ["one__time"]'))
        assert gateway.admin("reload")[0] == 0
        for _ in range(8):  # connections enough to have met both cells
            assert outcome(call(gateway, "WebSocket", "one__echo", message="hi")) == "forbidden"
            assert outcome(call(gateway, "WebSocket", "one__time")) == "ok"


def test_without_policies_who_is_known_may_do_everything(start_gateway: StartGateway) -> None:
    with start_gateway("embedded", BACKENDS, auth={"mode": "required", "api_keys": KEYS}) as gateway:
        assert outcome(call(gateway, "streamable HTTP", "two__echo", NOBODY, message="hi")) == "ok"
        assert not (gateway.state_dir / "audit.jsonl").exists()
