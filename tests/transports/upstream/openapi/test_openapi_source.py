"""An API behind its description, over real HTTP: read once, asked as the operator says, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.adapted.adapted_conversation import ToolOutcome
from mcp_gateway.transports.upstream.openapi import openapi_source
from mcp_gateway.transports.upstream.openapi.openapi_source import OpenApiSource
from tests.doubles.pet_api import KEY, PETSTORE, PetApi, pet_api
from tests.doubles.ports import free_port


@pytest.fixture
def api() -> Iterator[PetApi]:
    with pet_api() as running:
        yield running


def source(openapi: str, **fields: Any) -> OpenApiSource:
    given = {"name": "pets", "prefix": "", "openapi": openapi, "headers": {"Authorization": KEY}, **fields}
    return OpenApiSource(BackendSettings(**given), 10_000)


async def quiet(_progress: float, _text: str) -> None:
    """Nobody listens."""


async def called(pets: OpenApiSource, name: str, **arguments: Any) -> ToolOutcome | None:
    try:
        return await pets.call(name, arguments, 5.0, quiet)
    finally:
        await pets.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_a_file_and_an_address_describe_the_same_api(api: PetApi) -> None:
    for pets in (
        source(str(PETSTORE), base_url=f"{api.url}/v1"),
        source(f"{api.url}/openapi.json", allow_private=True),
    ):
        found = run(called(pets, "showPetById", petId="1"))
        assert (found.structured, found.is_error) == ({"id": 1, "name": "Rex"}, False)
    assert api.asked[-1] == ("GET", "/v1/pets/1", KEY)


def test_the_address_of_a_description_may_not_be_private_unless_that_is_allowed(api: PetApi) -> None:
    with pytest.raises(UpstreamError, match="cannot be fetched"):
        run(called(source(f"{api.url}/openapi.json".replace("http:", "https:")), "listPets"))
    assert api.asked == []


def test_a_call_with_a_body_an_unknown_pet_and_an_unknown_tool(api: PetApi) -> None:
    def pets() -> OpenApiSource:
        return source(str(PETSTORE), base_url=f"{api.url}/v1")

    assert run(called(pets(), "createPets", body={"id": 2, "name": "Tom"})).content[0]["text"] == "HTTP 201 Created"
    assert run(called(pets(), "listPets", limit=1)).structured == {"result": [{"id": 1, "name": "Rex"}]}
    missing = run(called(pets(), "showPetById", petId="9"))
    assert (missing.is_error, missing.structured) == (True, {"status": 404, "body": {"code": 404, "message": "no such pet"}})
    assert run(called(pets(), "nothing")) is None


def test_what_the_gateway_shows_stands_over_what_a_client_says(api: PetApi, tmp_path: Path) -> None:
    document = json.loads(PETSTORE.read_text())
    document["paths"]["/pets"]["get"]["parameters"].append({"name": "X-Team", "in": "header", "schema": {"type": "string"}})
    (tmp_path / "api.json").write_text(json.dumps(document))
    pets = source(str(tmp_path / "api.json"), base_url=f"{api.url}/v1", headers={"authorization": KEY, "x-team": "ours"})
    assert run(called(pets, "listPets", **{"X-Team": "theirs"})).is_error is False


def test_the_description_is_read_once_for_all_who_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    content = openapi_source._file_content
    monkeypatch.setattr(openapi_source, "_file_content", lambda path: reads.append(path) or content(path))

    async def ask_all() -> None:
        pets = source(str(PETSTORE), base_url="http://127.0.0.1:1")
        assert [len(tools) for tools in await asyncio.gather(*(pets.tools() for _ in range(5)))] == [3] * 5
        await pets.tools()
        await pets.close()

    run(ask_all())
    assert reads == [str(PETSTORE)]


def test_a_description_that_was_not_there_is_read_when_it_is(tmp_path: Path) -> None:
    async def ask_twice() -> None:
        pets = source(str(tmp_path / "later.json"), base_url="http://127.0.0.1:1")
        with pytest.raises(UpstreamError, match="cannot be read: No such file"):
            await pets.tools()
        (tmp_path / "later.json").write_text("{}")
        with pytest.raises(UpstreamError, match="cannot be used: it has no `openapi`"):
            await pets.tools()
        (tmp_path / "later.json").write_text(PETSTORE.read_text())
        assert len(await pets.tools()) == 3
        await pets.close()

    run(ask_twice())


def test_a_description_at_and_past_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = PETSTORE.stat().st_size
    for bound, is_read in ((size, True), (size - 1, False)):
        monkeypatch.setattr(openapi_source, "LARGEST_DESCRIPTION_BYTES", bound)
        pets = source(str(PETSTORE), base_url="http://127.0.0.1:1")
        if is_read:
            assert len(run(pets.tools())) == 3
        else:
            with pytest.raises(UpstreamError, match="larger than"):
                run(pets.tools())


def test_an_answer_larger_than_a_message_may_be_is_an_error_of_the_tool(api: PetApi) -> None:
    pets = source(str(PETSTORE), base_url=f"{api.url}/v1")
    api.pets["2"] = {"id": 2, "name": "x" * 10_000}
    found = run(called(pets, "listPets"))
    assert (found.is_error, found.content[0]["text"]) == (True, "HTTP 200: the answer is larger than 10000 bytes")


def test_what_is_no_text_is_shown_under_no_address_of_the_api(api: PetApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openapi_source, "outcome_of", lambda status, headers, body, url: url)
    pets = source(str(PETSTORE), base_url=f"{api.url}/v1")
    assert run(called(pets, "listPets", limit=1)) == f"openapi://{pets._backend.name}/pets?limit=1"


def test_a_probe_tells_a_server_that_is_there_from_one_that_is_not(api: PetApi) -> None:
    async def probe(url: str) -> None:
        pets = source(str(PETSTORE), base_url=url)
        try:
            await pets.probe(5.0)
        finally:
            await pets.close()

    run(probe(f"{api.url}/v1"))
    with pytest.raises(UpstreamError, match="cannot connect"):
        run(probe(f"http://127.0.0.1:{free_port()}"))
