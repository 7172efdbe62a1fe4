"""The gRPC listener of a whole cell, and clients by the stubs of the proto's package."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto.mcp_pb2_grpc import McpStub

from mcp_gateway.transports.protocol.grpc.methods import RPCS
from tests.doubles.certificates import Authority
from tests.doubles.grpc_cell import LONG_S, call, client, refused, run, serving
from tests.doubles.patience import until

KEY = "ci-0123456789abcdef"


def test_lists_calls_reads_and_prompts_are_served() -> None:
    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            assert [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest())).tools] == [
                "echo",
                "time",
                "slow",
                "fail",
            ]
            said = await stub.CallTool(call("echo", message="é"))
            assert (said.content[0].text.text, said.structured_content["message"]) == ("é", "é")
            assert (await stub.CallTool(call("fail"))).is_error
            resource = (await stub.ListResources(proto.ListResourcesRequest())).resources[0]
            read = await stub.ReadResource(proto.ReadResourceRequest(uri=resource.uri))
            assert read.resource[0].text
            prompt = (await stub.ListPrompts(proto.ListPromptsRequest())).prompts[0]
            assert (await stub.GetPrompt(proto.GetPromptRequest(name=prompt.name, arguments={"name": "Ada"}))).messages
            templates = await stub.ListResourceTemplates(proto.ListResourceTemplatesRequest())
            assert [template.name for template in templates.resource_templates] == ["echo"]

    run(scene)


def test_what_is_wrong_with_a_call_is_told_by_status_code_and_reason() -> None:
    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            assert await refused(stub.CallTool(call("nothing"))) == ("INVALID_ARGUMENT", "")
            assert await refused(stub.CallTool(call("echo"), metadata=(("mcp_tool", "time"),))) == (
                "INVALID_ARGUMENT",
                "header_mismatch",
            )
            assert await refused(stub.CallTool(call("echo"), metadata=(("mcp-server", "nobody"),))) == (
                "UNAVAILABLE",
                "no_backend",
            )
            assert await refused(stub.CallTool(call("echo"), metadata=(("origin", "https://evil.example"),))) == (
                "PERMISSION_DENIED",
                "origin_forbidden",
            )

    run(scene)


def test_metadata_names_one_server_whose_tools_have_no_prefix() -> None:
    async def scene() -> None:
        backends = [{"name": name, "builtin": "demo"} for name in ("one", "two")]
        async with serving(backends=backends) as (_, address), client(address) as stub:
            named = await stub.ListTools(proto.ListToolsRequest(), metadata=(("mcp-server", "one"),))
            assert [tool.name for tool in named.tools] == ["echo", "time", "slow", "fail"]
            assert "one__echo" in [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest())).tools]

    run(scene)


@pytest.mark.parametrize("timeout_s", [None, 1.0])
def test_a_client_that_goes_or_waits_no_longer_ends_its_call(timeout_s: float | None) -> None:
    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            waiting = cell.cell._port.waiting
            answer = stub.CallTool(call("slow", seconds=50), timeout=timeout_s)
            asking = asyncio.ensure_future(answer.code())
            await until(lambda: bool(waiting))
            if timeout_s is None:
                answer.cancel()
            await until(lambda: not waiting)
            assert await asking in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert cell.cell.server.connection_counts()["grpc"] == 0
            assert cell.cell.server.buffered.budget.held == 0

    run(scene)


def auth_table() -> dict[str, Any]:
    return {"api_keys": [{"name": "ci", "hash": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"}]}


def test_clients_show_who_they_are_in_metadata() -> None:
    async def scene() -> None:
        policies = [{"effect": "allow", "subjects": ["ci"], "tools": ["echo"]}]
        async with serving(auth=auth_table(), policies=policies) as (_, address), client(address) as stub:
            assert await refused(stub.ListTools(proto.ListToolsRequest())) == ("UNAUTHENTICATED", "unauthorized")
            wrong = (("authorization", "Bearer wrong"),)
            assert await refused(stub.CallTool(call("echo"), metadata=wrong)) == ("UNAUTHENTICATED", "unauthorized")
            own = (("authorization", f"Bearer {KEY}"),)
            assert [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest(), metadata=own)).tools] == ["echo"]
            assert (await stub.CallTool(call("echo", message="m"), metadata=own)).content
            assert (await refused(stub.CallTool(call("time"), metadata=own)))[0] in ("PERMISSION_DENIED", "INVALID_ARGUMENT")

    run(scene)


def test_more_requests_than_the_rate_are_refused() -> None:
    async def scene() -> None:
        async with serving(limits={"requests_per_second": 0.001, "burst": 1}) as (_, address), client(address) as stub:
            await stub.CallTool(call("echo", message="m"))
            assert await refused(stub.CallTool(call("echo"))) == ("RESOURCE_EXHAUSTED", "rate_limited")

    run(scene)


@pytest.mark.parametrize(
    "data", [b"GET /mcp HTTP/1.1\r\n\r\n", b"\xff" * 5_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200]
)
def test_bytes_that_are_no_grpc_end_their_connection_and_nothing_else(data: bytes) -> None:
    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            writer.write(data)
            with suppress(ConnectionError):
                while await asyncio.wait_for(reader.read(1_000), LONG_S):
                    pass
            writer.close()
            assert (await stub.CallTool(call("echo", message="m"))).content

    run(scene)


def test_messages_that_are_no_messages_are_refused_each() -> None:
    async def scene() -> None:
        async with serving() as (_, address), grpc.aio.insecure_channel(address) as channel:
            for path in RPCS:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await channel.unary_unary(path)(b"\xff\xff\xff")
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/model_context_protocol.Mcp/Made")(b"")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(scene)


def test_its_health_is_told_and_a_gateway_that_drains_takes_no_more() -> None:
    async def scene() -> None:
        async with serving() as (cell, address), grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert await check(b"") == b"\x08\x01"
            running = asyncio.ensure_future(McpStub(channel).CallTool(call("slow", seconds=1)))
            await until(lambda: bool(cell.cell._port.waiting))
            await cell.cell.drain(LONG_S)
            assert (await running).content, "what runs ends well"
            assert (await refused(check(b"")))[0] == "UNAVAILABLE"

    run(scene)


def test_tls_is_that_of_the_gateway_and_a_certificate_that_changes_is_taken(tmp_path: Path) -> None:
    async def scene() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        first, second = Authority(tmp_path / "a"), Authority(tmp_path / "b")
        certificate, key = first.certify("server")
        tls = {"certificate": str(certificate), "key": str(key)}
        async with serving(tls=tls) as (_, address):
            async with client(address, grpc.ssl_channel_credentials(first.path.read_bytes())) as stub:
                assert (await stub.CallTool(call("echo", message="m"))).content
            for new, old in zip(second.certify("server"), (certificate, key), strict=True):
                old.write_bytes(new.read_bytes())
            await _until_trusted(address, second)

    async def _until_trusted(address: str, authority: Authority) -> None:
        async with asyncio.timeout(LONG_S):
            while True:
                async with client(address, grpc.ssl_channel_credentials(authority.path.read_bytes())) as stub:
                    try:
                        assert (await stub.CallTool(call("echo", message="m"))).content
                        return
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.1)

    run(scene)


def test_a_client_without_the_certificate_that_it_must_have_is_not_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        authority = Authority(tmp_path)
        certificate, key = authority.certify("server")
        tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.path), "client_required": True}
        auth = {"client_certificates": True}
        async with serving(tls=tls, auth=auth) as (_, address):
            trusted = authority.path.read_bytes()
            async with client(address, grpc.ssl_channel_credentials(trusted)) as stub:
                assert (await refused(stub.CallTool(call("echo"))))[0] == "UNAVAILABLE"
            own, own_key = (path.read_bytes() for path in authority.certify("ann"))
            async with client(address, grpc.ssl_channel_credentials(trusted, own_key, own)) as stub:
                assert (await stub.CallTool(call("echo", message="m"))).content

    run(scene)
