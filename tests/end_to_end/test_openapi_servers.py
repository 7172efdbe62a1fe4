"""An HTTP API behind its OpenAPI description, through a whole gateway and the official clients of both eras."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.pet_api import KEY, PETSTORE, PetApi, pet_api
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import FORMS, RunningGateway, wait_until
from tests.node.node_client import run_node_client


@pytest.fixture(scope="module")
def api() -> Iterator[PetApi]:
    with pet_api() as running:
        yield running


@pytest.fixture(scope="module", params=FORMS)
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway, api: PetApi) -> Iterator[RunningGateway]:
    pets = {
        "name": "pets",
        "openapi": f"{api.url}/openapi.json",
        "allow_private": True,
        "auth": "headers",
        "headers": {"Authorization": KEY},
        "tools": {"check": ["results"]},
    }
    others = {"name": "shut", "openapi": str(PETSTORE), "base_url": f"{api.url}/v1"}
    with start_gateway(request.param, [pets, others]) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
def test_operations_are_tools_for_clients_of_both_eras(mode: str, gateway: RunningGateway, api: PetApi) -> None:
    async def conversation() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == [f"{name}__{tool}" for name in ("pets", "shut") for tool in ("listPets", "createPets", "showPetById")]
            told = [tool.name for tool in (await client.list_tools()).tools if tool.output_schema is not None]
            assert told == ["pets__listPets", "pets__showPetById"], "only where results are checked"
            made = await client.call_tool("pets__createPets", {"body": {"id": 7, "name": mode}})
            assert (made.is_error, text_of(made)) == (False, "HTTP 201 Created")
            found = await client.call_tool("pets__showPetById", {"petId": "7"})
            assert found.structured_content == {"id": 7, "name": mode}
            await client.call_tool("pets__createPets", {"body": {"id": "seven", "name": mode}})
            with pytest.raises(MCPError, match="outputSchema"):
                await client.call_tool("pets__showPetById", {"petId": "seven"})
            missing = await client.call_tool("pets__showPetById", {"petId": "none"})
            assert missing.is_error
            assert text_of(missing).startswith("HTTP 404 Not Found")
            shut = await client.call_tool("shut__listPets", {})
            assert shut.is_error
            assert text_of(shut).startswith("HTTP 401 Unauthorized")
            wrong = await client.call_tool("pets__showPetById", {})
            assert wrong.is_error
            assert "petId is missing" in text_of(wrong)

    run(conversation())
    assert ("GET", "/v1/pets/7", KEY) in api.asked


@pytest.mark.node_js
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_the_typescript_client_lists_them(mode: Any, gateway: RunningGateway) -> None:
    seen = run_node_client(gateway.endpoint("pets"), mode)
    assert "showPetById" in str(seen["tools"])


def test_a_description_that_cannot_be_had_leaves_the_others_served(start_gateway: StartGateway, api: PetApi) -> None:
    demo = {"name": "demo", "builtin": "demo"}
    gone = {"name": "gone", "openapi": "missing.json", "base_url": api.url}
    with start_gateway("embedded", [demo, gone], expects_errors=True) as gateway:

        async def names() -> list[str]:
            async with connected(gateway.endpoint(), "2026-07-28") as (client, _):
                return [tool.name for tool in (await client.list_tools()).tools]

        assert run(names())[0] == "demo__echo"
        # The file comes: the next probe finds it.
        (gateway.state_dir.parent / "missing.json").write_text(PETSTORE.read_text())
        wait_until(lambda: "gone__listPets" in run(names()), 20, "the tools of the description")
