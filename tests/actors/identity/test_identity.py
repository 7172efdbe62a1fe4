"""The actor as the edge sees it: a question about a token, and its answer, also when the actor crashes over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.actors.identity.identity import Identity
from mcp_gateway.actors.messages.identity import IssuerUnreachable, TokenRejected, TokenVerified, VerificationLost, VerifyToken
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.config.identity_settings import AuthSettings, IssuerSettings
from tests.doubles.actor_stage import Stage
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks

KEY = IssuerKey.make("k")


class Bench:
    """The actor, wired; must be made on a running loop."""

    def __init__(self, keys_path: Path) -> None:
        self.stage = Stage()
        self.edge, self.keys_path = self.stage.peer(), keys_path
        self.auth = AuthSettings(issuers=(IssuerSettings(issuer=ISSUER, jwks_file=str(keys_path)),))
        self.identity = self.stage.start(Identity, {}, None, name="cell/0/identity")

    def ask(self, token: str, request_id: str = "1") -> None:
        question = VerifyToken(request_id=request_id, token=token.encode(), auth=self.auth, public_url=PUBLIC_URL)
        self.edge.say(self.identity, question)

    async def answers(self, count: int = 1) -> list[Any]:
        async with asyncio.timeout(10):
            while len(self.edge.received) < count:
                await asyncio.sleep(0.005)
        return self.edge.take(object)


def on_bench(tmp_path: Path, scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(KEY))

    async def body() -> None:
        await scenario(Bench(path))

    asyncio.run(body())


def test_a_token_is_verified_by_the_keys_of_its_issuer(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.ask(KEY.token())
        (answer,) = await bench.answers()
        assert isinstance(answer, TokenVerified)
        assert answer.principal.key == f"{ISSUER} alice"
        assert answer.check_again_ms == answer.principal.expires_ms

    on_bench(tmp_path, scenario)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("opaque", "nobody who is known"),
        (KEY.token({"iss": "https://other.example"}), "another issuer"),
        (KEY.token({"aud": "https://other.example"}), "not made out"),
        (IssuerKey.make("unknown").token(), "does not name"),
        ("a.b.c", "not encoded"),
    ],
)
def test_a_token_of_nobody_is_rejected_with_the_reason(tmp_path: Path, token: str, text: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.ask(token)
        (answer,) = await bench.answers()
        assert isinstance(answer, TokenRejected)
        assert text in answer.text

    on_bench(tmp_path, scenario)


def test_an_issuer_that_is_away_is_no_rejection(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.keys_path.unlink()
        bench.ask(KEY.token())
        (answer,) = await bench.answers()
        assert isinstance(answer, IssuerUnreachable)

    on_bench(tmp_path, scenario)


def test_who_waits_when_the_actor_crashes_is_told_to_ask_again(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.ask(KEY.token(), "1")
        bench.ask(KEY.token(), "2")
        bench.stage.tell(bench.identity, CrashRequested())
        assert {answer.request_id for answer in await bench.answers(2) if isinstance(answer, VerificationLost)} == {"1", "2"}
        assert not bench.stage.is_alive(bench.identity)

    on_bench(tmp_path, scenario)


def test_keys_of_an_issuer_that_is_no_longer_configured_are_let_go(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.ask(KEY.token())
        await bench.answers()
        assert len(bench.stage.instance(bench.identity)._keys) == 1
        bench.auth = AuthSettings(mode="optional")
        bench.ask(KEY.token())
        (answer,) = await bench.answers()
        assert isinstance(answer, TokenRejected)
        assert bench.stage.instance(bench.identity)._keys == {}

    on_bench(tmp_path, scenario)


def test_a_defect_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr("mcp_gateway.actors.identity.identity.read_token", lambda _: 1 / 0)
        bench.ask(KEY.token())
        (answer,) = await bench.answers()
        assert isinstance(answer, IssuerUnreachable)
        assert answer.text == "internal error"

    on_bench(tmp_path, scenario)
