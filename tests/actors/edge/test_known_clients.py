"""Clients are known by what they show until that ends or is taken back; an actor that crashes meanwhile is asked anew."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.edge import known_clients
from mcp_gateway.actors.edge.known_clients import KnownClients
from mcp_gateway.actors.messages.identity import IssuerUnreachable, TokenRejected, TokenVerified, VerificationLost, VerifyToken
from mcp_gateway.config.identity_settings import ApiKeySettings, AuthSettings, IssuerSettings, Revocations
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.patience import until
from tests.doubles.running_cell import cell_settings, running_cell
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks

KEY = ApiKeySettings(name="ci", hash=f"sha256:{hashlib.sha256(b'secret').hexdigest()}")
AUTH = AuthSettings(
    issuers=(IssuerSettings(issuer=ISSUER, audience=("x",)),),
    api_keys=(KEY,),
    user_header="X-User",
    denied_subjects=["mallory"],  # type: ignore[arg-type]
)
ALICE = Principal(issuer=ISSUER, subject="alice", expires_ms=int(time.time() * 1000) + 3_600_000, fingerprint="f" * 32)
TOKEN = Credential(kind=CredentialKind.BEARER, value="token of alice")
API_KEY = Credential(kind=CredentialKind.BEARER, value="secret")


class Actor:
    """Stands in for the identity actor: answers each question with the next of `answers`; what is no answer is raised."""

    def __init__(self, *answers: Callable[[str], Any]) -> None:
        self._answers = list(answers)
        self.asked: list[VerifyToken] = []

    def ask(self, child: str, question: Any) -> asyncio.Future[Any]:
        assert child == "identity"
        self.asked.append(question)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer = self._answers.pop(0)(question.request_id)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future


def verified(request_id: str, principal: Principal = ALICE, check_again_ms: int = 0) -> TokenVerified:
    return TokenVerified(request_id=request_id, principal=principal, check_again_ms=check_again_ms or principal.expires_ms)


def clients(actor: Actor, auth: AuthSettings = AUTH) -> KnownClients:
    return KnownClients(settings_with(auth), actor.ask)


def settings_with(auth: AuthSettings, **revoked: Any) -> Settings:
    settings = cell_settings(gateway={"public_url": PUBLIC_URL})
    return attrs.evolve(settings, auth=auth, revocations=Revocations(**revoked))


async def reason(known: KnownClients, credential: Credential) -> str:
    with pytest.raises(Refused) as caught:
        await known.authenticate(credential)
    return caught.value.reason


def test_a_client_is_asked_about_once_and_known_from_then_on() -> None:
    async def body() -> None:
        actor = Actor(verified)
        known = clients(actor)
        assert known.known(TOKEN) is None
        assert await known.authenticate(TOKEN) is ALICE
        assert known.known(TOKEN) is ALICE
        assert await known.authenticate(TOKEN) is ALICE
        assert (actor.asked[0].token, actor.asked[0].public_url) == (b"token of alice", PUBLIC_URL)
        assert len(actor.asked) == 1

    asyncio.run(body())


def test_many_who_show_the_same_are_asked_about_once() -> None:
    async def body() -> None:
        actor = Actor(verified)
        known = clients(actor)
        assert set(await asyncio.gather(*(known.authenticate(TOKEN) for _ in range(100)))) == {ALICE}
        assert len(actor.asked) == 1

    asyncio.run(body())


def test_api_keys_and_vouched_users_need_no_actor() -> None:
    async def body() -> None:
        known = clients(Actor())
        assert (await known.authenticate(API_KEY)).key == "api-key ci"
        user = Credential(kind=CredentialKind.PROXY, value="bob")
        assert (await known.authenticate(user)).key == "proxy bob"
        found = known.known(user)
        assert found is not None
        assert found.key == "proxy bob"
        assert known.known(attrs.evolve(user, kind=CredentialKind.BEARER)) is None
        assert known.known(attrs.evolve(user, groups=("admin",))) is None

    asyncio.run(body())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda request_id: TokenRejected(request_id=request_id, text="no"), "unauthorized"),
        (lambda request_id: IssuerUnreachable(request_id=request_id, text="away"), "upstream_failed"),
        (lambda request_id: verified(request_id, attrs.evolve(ALICE, subject="mallory")), "unauthorized"),
        (lambda request_id: verified(request_id, attrs.evolve(ALICE, issuer="https://other.example")), "unauthorized"),
    ],
)
def test_nobody_is_not_known_afterwards_either(answer: Callable[[str], Any], expected: str) -> None:
    async def body() -> None:
        known = clients(Actor(answer))
        assert await reason(known, TOKEN) == expected
        assert known.known(TOKEN) is None

    asyncio.run(body())


def test_without_issuers_a_token_is_refused_without_a_question() -> None:
    async def body() -> None:
        known = clients(Actor(), AuthSettings(api_keys=(KEY,)))
        assert await reason(known, TOKEN) == "unauthorized"
        assert await reason(known, attrs.evolve(TOKEN, value="x" * 16_385)) == "unauthorized"

    asyncio.run(body())


@pytest.mark.parametrize(
    "lost", [lambda request_id: VerificationLost(request_id=request_id), lambda _: LookupError("not running")]
)
def test_an_actor_that_crashes_meanwhile_is_asked_anew(lost: Callable[[str], Any]) -> None:
    async def body() -> None:
        actor = Actor(lost, lost, verified)
        assert await clients(actor).authenticate(TOKEN) is ALICE
        assert len({question.request_id for question in actor.asked}) == 3

    asyncio.run(body())


def test_an_actor_that_always_crashes_is_given_up() -> None:
    async def body() -> None:
        actor = Actor(*[lambda _: LookupError("not running")] * 9)
        assert await reason(clients(actor), TOKEN) == "upstream_failed"
        assert len(actor.asked) == 3

    asyncio.run(body())


def test_an_actor_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_clients, "_ASK_S", 0.05)

    async def body() -> None:
        assert await reason(clients(Actor(lambda _: None)), TOKEN) == "upstream_failed"

    asyncio.run(body())


def test_what_is_to_be_checked_again_is() -> None:
    async def body() -> None:
        soon = lambda request_id: verified(request_id, check_again_ms=1)  # noqa: E731
        actor = Actor(soon, soon)
        known = clients(actor)
        await known.authenticate(TOKEN)
        assert known.known(TOKEN) is None
        await known.authenticate(TOKEN)
        assert len(actor.asked) == 2

    asyncio.run(body())


# ---- ends


def test_a_stream_is_told_when_its_credential_ends() -> None:
    async def body() -> None:
        known, told = clients(Actor()), list[str]()
        now_ms = int(time.time() * 1000)
        known.on_end(attrs.evolve(ALICE, expires_ms=now_ms + 120), lambda: told.append("later"))
        known.on_end(attrs.evolve(ALICE, expires_ms=now_ms + 40), lambda: told.append("sooner"))
        call_off = known.on_end(attrs.evolve(ALICE, expires_ms=now_ms + 60), lambda: told.append("called off"))
        known.on_end(ALICE, lambda: told.append("in an hour"))
        call_off()
        await until(lambda: len(told) == 2)
        assert told == ["sooner", "later"]
        assert time.time() * 1000 >= now_ms + 120
        known.close()

    asyncio.run(body())


def test_one_that_fails_at_its_end_keeps_no_other_open() -> None:
    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        failures, told = list[BaseException](), list[str]()
        known = clients(Actor())
        expired = attrs.evolve(ALICE, expires_ms=1)
        known.on_end(expired, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        known.on_end(expired, lambda: told.append("told"))
        await until(lambda: told)
        assert isinstance(failures[0], ZeroDivisionError)

    asyncio.run(body())


def test_what_a_change_of_the_settings_takes_back_has_ended_when_it_returns() -> None:
    async def body() -> None:
        known, told = clients(Actor(verified, verified)), list[str]()
        alice, program = await known.authenticate(TOKEN), await known.authenticate(API_KEY)
        known.on_end(alice, lambda: told.append("alice"))
        known.on_end(program, lambda: told.append("program"))
        known.take_settings(settings_with(AUTH))
        assert told == []
        assert known.known(API_KEY) == program
        known.take_settings(settings_with(attrs.evolve(AUTH, api_keys=())))
        assert told == ["program"]
        assert known.known(API_KEY) is None
        known.take_settings(settings_with(attrs.evolve(AUTH, denied_subjects=("ali*",))))
        assert told == ["program", "alice"]
        assert await reason(known, TOKEN) == "unauthorized"
        known.close()

    asyncio.run(body())


@pytest.mark.parametrize("revoked", [{"subjects": ("alice",)}, {"fingerprints": (ALICE.fingerprint,)}])
def test_who_is_revoked_is_nobody_until_that_is_undone(revoked: dict[str, Any]) -> None:
    async def body() -> None:
        known, told = clients(Actor(*[verified] * 3)), list[str]()
        known.on_end(await known.authenticate(TOKEN), lambda: told.append("alice"))
        known.take_settings(settings_with(AUTH, **revoked))
        assert told == ["alice"]
        assert await reason(known, TOKEN) == "unauthorized"
        known.take_settings(settings_with(AUTH))
        assert await known.authenticate(TOKEN) is ALICE

    asyncio.run(body())


def test_what_is_taken_back_while_it_is_checked_is_not_let_in() -> None:
    async def body() -> None:
        answers: list[asyncio.Future[Any]] = []

        def ask(child: str, question: Any) -> asyncio.Future[Any]:
            answers.append(asyncio.get_running_loop().create_future())
            return answers[-1]

        settings = attrs.evolve(cell_settings(), auth=AUTH)
        known = KnownClients(settings, ask)
        checking = asyncio.ensure_future(known.authenticate(TOKEN))
        await until(lambda: answers)
        known.take_settings(settings_with(attrs.evolve(AUTH, denied_subjects=("alice",))))
        answers[0].set_result(verified("1"))
        with pytest.raises(Refused, match="has no access"):
            await checking
        told: list[str] = []
        known.on_end(ALICE, lambda: told.append("told"))  # of a stream that was just being opened
        await until(lambda: told)

    asyncio.run(body())


# ---- in a whole cell


def test_a_cell_knows_by_a_file_of_keys_and_goes_on_after_a_crash_of_the_actor(tmp_path: Path) -> None:
    issuer_key = IssuerKey.make("k")
    (tmp_path / "keys.json").write_bytes(jwks(issuer_key))
    auth = {"issuers": [{"issuer": ISSUER, "jwks_file": str(tmp_path / "keys.json")}]}

    async def body() -> None:
        settings = cell_settings(auth=auth, gateway={"public_url": PUBLIC_URL})
        async with running_cell(settings) as cell:
            authenticator = cell.cell._port.authenticator
            assert authenticator is not None
            first = Credential(kind=CredentialKind.BEARER, value=issuer_key.token())
            assert (await authenticator.authenticate(first)).subject == "alice"
            before = await cell.rows()
            await cell.command("kill", "identity")
            second = Credential(kind=CredentialKind.BEARER, value=issuer_key.token({"sub": "bob"}))
            assert (await authenticator.authenticate(second)).subject == "bob"
            assert authenticator.known(first) is not None
            after = await cell.rows()
            again = [name for name in after if after[name]["incarnation"] != before[name]["incarnation"]]
            assert again == ["cell/0/identity"]

    asyncio.run(body())


def test_a_cell_without_auth_has_nobody_who_knows_clients() -> None:
    async def body() -> None:
        async with running_cell(cell_settings()) as cell:
            assert cell.cell._port.authenticator is None

    asyncio.run(body())
