"""Members of one cluster on one loop, on the engine in memory: they find each other, talk, are cut off and come back."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import msgspec
import pytest

from mcp_gateway.actors.cluster import member as member_module
from mcp_gateway.actors.cluster import membership, owner_claims
from mcp_gateway.actors.cluster.engine import Engine, EngineAway, Entry
from mcp_gateway.actors.cluster.member import Member
from mcp_gateway.actors.cluster.membership import SPEECH, Presence, encoded, presence_key
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import PacketSender, Peer, packet_cipher
from mcp_gateway.actors.cluster.record_format import FORMAT
from mcp_gateway.actors.cluster.sealed_keys import SealedKeys
from mcp_gateway.actors.messages.cluster import ForwardToNode, Ownership
from mcp_gateway.scripts.chaos_harness.ownership_history import broken_promises, read_history
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from tests.doubles.patience import until

SECRET = b"s" * 32
SOON_S = 10.0


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for what takes ten."""
    for module in (membership, member_module):
        monkeypatch.setattr(module, "RENEW_S", 0.3)
        monkeypatch.setattr(module, "PRESENCE_TTL_S", 1)
    monkeypatch.setattr(membership, "FENCE_S", 0.8)


@pytest.fixture
def long_leases(short_lives: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed as often, but nobody is cut off because the machine is busy."""
    monkeypatch.setattr(membership, "FENCE_S", 30.0)
    for module in (membership, member_module):
        monkeypatch.setattr(module, "PRESENCE_TTL_S", 40)


class Node:
    """A member and what its node is told."""

    def __init__(
        self, hub: MemoryHub, name: str, incarnation: str = "1", secret: bytes = SECRET, engine: MemoryEngine | None = None
    ) -> None:
        self.engine = engine or MemoryEngine(hub)
        self.others: dict[str, Presence] = {}
        self.is_member = False
        self.taken: list[ForwardToNode] = []
        self.taken_of: list[int] = []  # epochs of who sent that
        self.lost: list[tuple[ForwardToNode, bool]] = []
        self.owners: dict[str, Ownership] = {}
        self.lease_until_s = 0.0
        own = Presence(node=name, epoch=0, incarnation=f"{name}{incarnation}", cells={"cell/0": 1})
        self.member = Member(self._connect, own, packet_cipher(secret), self)
        self.running = asyncio.create_task(self.member.run())

    async def _connect(self) -> Engine:
        if not self.engine.is_connected:
            raise EngineAway("cut off")
        return self.engine

    def nodes_changed(self, others: Mapping[str, Presence], *, is_member: bool) -> None:
        self.others, self.is_member = dict(others), is_member

    def take_forward(self, forward: ForwardToNode, sender_epoch: int) -> None:
        self.taken.append(forward)
        self.taken_of.append(sender_epoch)

    def forward_lost(self, forward: ForwardToNode, *, is_unsent: bool) -> None:
        self.lost.append((forward, is_unsent))

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        self.owners, self.lease_until_s = dict(owners), lease_until_s

    def owns(self, thing: str) -> bool:
        """As a cell of it decides that."""
        owner = self.owners.get(thing)
        return owner is not None and owner.node == self.member.node and lease_clock_s() < self.lease_until_s

    def say(self, to: str, message: Any) -> None:
        self.member.forward(ForwardToNode(to_cell=f"{to}/cell/0", from_cell="x/cell/0", message=message))

    async def die(self) -> None:
        """At once, without a word."""
        self.engine._hub.cut_off.add(self.engine)
        self.running.cancel()
        await asyncio.wait([self.running])


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test, 60)

    asyncio.run(bounded())


async def pair() -> tuple[MemoryHub, Node, Node]:
    hub = MemoryHub()
    a, b = Node(hub, "a"), Node(hub, "b")
    await until(lambda: a.others.keys() == {"b"} and b.others.keys() == {"a"})
    return hub, a, b


def test_nodes_find_each_other_and_stay() -> None:
    async def test() -> None:
        _, a, b = await pair()
        epochs = (a.member.epoch, b.member.epoch)
        await asyncio.sleep(1.5)  # longer than a key lives that nobody renews
        assert (a.is_member, b.is_member) == (True, True)
        assert (a.member.epoch, b.member.epoch) == epochs
        assert [row["name"] for row in a.member.status()["nodes"]] == ["a", "b"]

    run(test())


def test_messages_arrive_in_order_whatever_their_size() -> None:
    async def test() -> None:
        _, a, b = await pair()
        messages: list[Any] = [number if number % 10 else b"x" * 100_000 * (number // 10) for number in range(100)]
        for message in messages:
            a.say("b", message)
        await until(lambda: len(b.taken) == len(messages))
        assert [forward.message for forward in b.taken] == messages
        assert set(b.taken_of) == {a.member.epoch}
        assert not a.lost

    run(test())


@pytest.mark.usefixtures("long_leases")
def test_only_what_a_node_says_anew_of_itself_is_news() -> None:
    async def test() -> None:
        _, a, b = await pair()
        update, puts = b.engine.update, list[tuple[str, bool]]()

        async def noted(key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
            put = await update(key, value, revision, ttl_s, is_news)
            puts.append((key, is_news))
            return put

        b.engine.update = noted  # type: ignore[method-assign]
        own = presence_key("b")
        await until(lambda: len(puts) >= 2)
        assert (own, True) not in puts
        b.member.describe(is_draining=True)
        await until(lambda: (own, True) in puts)
        until_then = len(puts)
        await until(lambda: len(puts) >= until_then + 2)
        assert puts.count((own, True)) == 1
        await until(lambda: a.others["b"].is_draining)

    run(test())


def test_what_a_node_says_of_itself_is_told_to_the_others() -> None:
    async def test() -> None:
        _, a, b = await pair()
        b.member.describe(cells={"cell/0": 2, "cell/1": 1}, is_draining=True)
        await until(lambda: a.others["b"].cells == {"cell/0": 2, "cell/1": 1})
        assert a.others["b"].is_draining

    run(test())


def test_who_has_not_taken_what_all_nodes_share_is_known_by_name_until_it_has_or_is_gone() -> None:
    async def test() -> None:
        _, a, b = await pair()
        assert a.member.behind(revocations=0, settings=0) == []
        assert a.member.behind(settings=2) == ["a", "b"]
        a.member.describe(settings=2, revocations=3)
        assert a.member.behind(settings=2) == a.member.behind(revocations=3) == ["b"]
        b.member.describe(settings=2)
        await until(lambda: not a.member.behind(settings=2))
        assert a.member.behind(revocations=3) == ["b"]
        await b.die()
        await until(lambda: not a.member.behind(revocations=3))

    run(test())


def test_who_is_a_member_and_under_which_epoch_all_members_see_alike() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        both = (("a", a.member.epoch), ("b", b.member.epoch))
        await until(lambda: a.member.members() == b.member.members() == both)
        hub.cut_off.add(b.engine)
        await until(lambda: b.member.members() == ())

    run(test())


def test_what_is_for_a_node_that_is_not_there_was_certainly_not_sent() -> None:
    async def test() -> None:
        _, a, _ = await pair()
        a.say("nobody", 1)
        await until(lambda: a.lost)
        assert a.lost[0][1] is True

    run(test())


def test_a_node_that_dies_is_missed_and_what_was_for_it_comes_back_as_not_sent() -> None:
    async def test() -> None:
        _, a, b = await pair()
        await b.die()
        a.say("b", 1)
        await until(lambda: a.lost)
        assert a.lost[0][1] is True
        await until(lambda: not a.others)
        assert a.is_member

    run(test())


def test_a_node_that_leaves_in_order_is_missed_at_once_and_its_name_is_free() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        b.running.cancel()
        await asyncio.wait([b.running])
        await b.member.leave()
        await until(lambda: not a.others)
        assert presence_key("b") not in hub.keys
        again = Node(hub, "b", incarnation="2")
        await until(lambda: again.is_member)

    run(test())


def test_a_node_that_leaves_while_a_renewal_is_under_way_is_missed_at_once_as_well() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        update = b.engine.update
        has_renewed = asyncio.Event()

        async def update_without_answer(*arguments: Any) -> int:
            await update(*arguments)
            has_renewed.set()
            await asyncio.sleep(3_600)
            raise AssertionError("the node has left")

        b.engine.update = update_without_answer  # type: ignore[method-assign]
        await has_renewed.wait()
        b.running.cancel()
        await asyncio.wait([b.running])
        await b.member.leave()
        assert presence_key("b") not in hub.keys
        await until(lambda: not a.others)

    run(test())


@pytest.mark.usefixtures("long_leases")
def test_a_node_of_a_newer_form_is_left_alone_and_one_of_another_speech_is_not_spoken_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, keys = Node(hub, "a"), SealedKeys(MemoryEngine(hub), packet_cipher(SECRET))
        await until(lambda: a.is_member)
        await keys.create(presence_key("newer"), msgspec.msgpack.encode({"format": FORMAT + 1, "node": "newer"}))
        foreign = Presence(node="foreign", epoch=0, incarnation="f", member="m", cells={"cell/0": 1}, speech=SPEECH + 1)
        await keys.create(presence_key("foreign"), encoded(foreign))
        await until(lambda: a.others.keys() == {"foreign"})
        a.say("foreign", "hello")
        await until(lambda: a.lost)
        assert [is_unsent for _, is_unsent in a.lost] == [True]
        assert any("what node newer says of itself is left alone" in message for message in caplog.messages)
        assert any("node foreign is of another version" in message for message in caplog.messages)
        late = Node(hub, "newer")
        await until(lambda: any("a node named newer is there already" in message for message in caplog.messages))
        assert not late.is_member

    run(test())


def test_a_member_that_is_to_end_does_though_its_engine_has_forgotten_that() -> None:
    """Source: asyncio.wait_for before Python 3.12: cancelled as its future is done, it returns the result."""

    async def test() -> None:
        _, _, b = await pair()
        is_asked = asyncio.Event()

        async def forgetful(subject: str, payload: bytes, timeout_s: float) -> bytes:
            is_asked.set()
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                return b"ping"
            raise AssertionError("it is cancelled")

        b.engine.request = forgetful  # type: ignore[method-assign]
        await is_asked.wait()
        b.running.cancel()
        async with asyncio.timeout(SOON_S):
            await asyncio.wait([b.running])
        assert b.running.cancelled()

    run(test())


def test_a_node_that_is_cut_off_fences_itself_before_the_others_miss_it_and_comes_back_under_another_epoch() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        epoch = b.member.epoch
        hub.cut_off.add(b.engine)
        a_missed_it_first = False
        async with asyncio.timeout(SOON_S):
            while b.is_member:
                a_missed_it_first = a_missed_it_first or not a.others
                await asyncio.sleep(0.005)
        assert not a_missed_it_first
        assert b.others == {}
        await until(lambda: not a.others)
        b.say("a", 1)
        await until(lambda: b.lost)
        assert b.lost[0][1] is True
        hub.cut_off.clear()
        await until(lambda: b.is_member and a.others and b.others)
        assert b.member.epoch > epoch

    run(test())


def test_a_node_that_nobody_can_reach_does_not_keep_its_membership_though_it_reaches_the_engine() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        for subject in list(hub.servers):
            if subject.startswith("req.b."):
                del hub.servers[subject]
        await until(lambda: not b.is_member)
        await until(lambda: not a.others)

    run(test())


def test_a_second_node_of_a_name_waits_until_the_first_is_gone() -> None:
    async def test() -> None:
        hub, _, b = await pair()
        second = Node(hub, "b", incarnation="2")
        await asyncio.sleep(1.5)
        assert (b.is_member, second.is_member) == (True, False)
        await b.die()
        await until(lambda: second.is_member)

    run(test())


def test_the_member_of_a_node_whose_member_has_crashed_joins_at_once_under_another_epoch() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        epoch = b.member.epoch
        await b.die()
        again = Node(hub, "b")
        await until(lambda: again.is_member)
        assert again.member.epoch > epoch
        await until(lambda: a.others["b"].epoch == again.member.epoch)
        a.say("b", "hello")
        await until(lambda: again.taken)
        assert not a.lost

    run(test())


def test_a_recorded_message_is_refused_by_a_node_that_has_started_anew_with_the_epoch_that_it_had() -> None:
    """Whoever has the engine has all that was sent, and says which revision, so which epoch, a key gets."""

    async def test() -> None:
        hub, a, b = await pair()
        (subject,) = [each for each in hub.servers if each.startswith("req.b.")]
        engine, answer = hub.servers[subject]
        recorded: list[bytes] = []

        async def record(packet: bytes) -> bytes:
            recorded.append(packet)
            return await answer(packet)

        hub.servers[subject] = (engine, record)
        a.say("b", "run this tool")
        await until(lambda: b.taken)
        epoch = b.member.epoch
        await b.die()
        await until(lambda: not a.others)
        a.running.cancel()
        hub.revision = epoch - 1
        again = Node(hub, "b", incarnation="2")
        await until(lambda: again.is_member)
        assert again.member.epoch == epoch
        (subject,) = [each for each in hub.servers if each.startswith("req.b.") and hub.servers[each][0] is again.engine]
        for packet in recorded:
            await hub.servers[subject][1](packet)
        assert any(packet != b"ping" for packet in recorded)
        assert not again.taken

    run(test())


@pytest.mark.usefixtures("long_leases")
def test_a_node_with_another_key_is_neither_seen_nor_heard_nor_understood(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        hub, a, b = await pair()
        stranger = Node(hub, "c", secret=b"t" * 32)
        await until(lambda: stranger.is_member)
        await MemoryEngine(hub).create(presence_key("d"), encoded(Presence(node="d", epoch=0, incarnation="d1")))
        last = Node(hub, "e")
        await until(lambda: "e" in a.others and "e" in b.others and {"a", "b"} <= last.others.keys())
        assert (a.others.keys(), b.others.keys(), last.others.keys()) == ({"b", "e"}, {"a", "e"}, {"a", "b"})
        assert stranger.others == {}
        said = "what node c says of itself is left alone: it was not written with the key_file of this one"
        await until(lambda: caplog.messages.count(said) == 3)  # once by each of the others
        stranger.say("a", "rubbish")
        await until(lambda: stranger.lost)
        own = b.others["a"]
        target = Peer("a", own.epoch, own.member)
        (packet,) = PacketSender(packet_cipher(b"t" * 32), Peer("b", 1, "m"), target).packets(b"rubbish")
        assert await stranger.engine.request(f"req.a.{own.member}", packet, 5.0) == b"refused"
        assert not a.taken

    run(test())


@pytest.mark.usefixtures("long_leases")
def test_what_nodes_say_of_themselves_cannot_be_read_in_the_engine() -> None:
    async def test() -> None:
        hub, *_ = await pair()
        kept = [entry.value or b"" for entry, _ in hub.keys.values()]
        assert len(kept) == 2
        assert not any(b"incarnation" in value for value in kept)

    run(test())


def test_a_node_starts_before_its_engine_does() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(hub, "a")
        hub.cut_off.add(a.engine)
        await asyncio.sleep(0.2)
        assert a.member.status()["engine"] == "away"
        hub.cut_off.clear()
        await until(lambda: a.is_member)
        assert a.member.status()["engine"] == "connected"

    run(test())


class BlindEngine(MemoryEngine):
    """One whose watches end by a defect."""

    async def watch(self, prefix: str) -> AsyncIterator[tuple[Entry, ...]]:
        yield ()
        raise RuntimeError("a defect")


def test_a_member_whose_watch_ends_by_a_defect_ends_as_well_instead_of_knowing_nobody_for_ever() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(hub, "a", engine=BlindEngine(hub))
        with pytest.raises(RuntimeError, match="a defect"):
            await a.running

    run(test())


# ---- ownership


def test_of_two_nodes_that_want_a_thing_one_owns_it_and_both_know_who() -> None:
    async def test() -> None:
        _, a, b = await pair()
        for node in (a, b):
            node.member.want("the/thing")
        await until(lambda: a.owners and a.owners == b.owners)
        assert [a.owns("the/thing"), b.owns("the/thing")].count(True) == 1
        assert a.member.status()["owned"] == [
            {"thing": "the/thing", "node": a.owners["the/thing"].node, "token": a.owners["the/thing"].token}
        ]

    run(test())


def test_what_a_node_owns_is_taken_over_after_its_presence_has_ended_and_never_before() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        a.member.want("thing")
        await until(lambda: a.owns("thing") and b.owners)
        token = a.owners["thing"].token
        hub.cut_off.add(a.engine)  # as a node whose network is gone: it goes on, and knows only its own clock
        async with asyncio.timeout(SOON_S):
            while not b.owns("thing"):
                b.member.want("thing")
                await asyncio.sleep(0.005)
                assert not (a.owns("thing") and b.owns("thing"))
                assert not b.owns("thing") or presence_key("a") not in hub.keys
        assert b.owners["thing"].token > token
        hub.cut_off.clear()
        await until(lambda: a.is_member and a.owners == b.owners)
        assert (a.owns("thing"), b.owns("thing")) == (False, True)

    run(test())


def test_a_node_that_was_cut_off_and_finds_nobody_in_its_place_owns_its_things_again_with_a_higher_token() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        a.member.want("thing")
        await until(lambda: a.owns("thing"))
        token = a.owners["thing"].token
        hub.cut_off.add(a.engine)
        await until(lambda: not a.owns("thing") and not b.others)
        hub.cut_off.clear()
        await until(lambda: a.is_member)
        assert not a.owns("thing")
        a.member.want("thing")
        await until(lambda: a.owns("thing"))
        assert a.owners["thing"].token > token

    run(test())


def test_a_member_that_crashes_leaves_its_node_what_it_owns_under_the_same_token() -> None:
    async def test() -> None:
        hub, a, b = await pair()
        a.member.want("thing")
        await until(lambda: a.owns("thing") and b.owners)
        before = a.owners["thing"]
        await a.die()
        again = Node(hub, "a")
        await until(lambda: again.is_member and again.owns("thing"))
        b.member.want("thing")
        assert again.owners["thing"] == before
        await until(lambda: b.owners.get("thing") == before)

    run(test())


def test_a_node_that_leaves_in_order_lets_go_so_that_nobody_waits() -> None:
    async def test() -> None:
        _, a, b = await pair()
        a.member.want("thing")
        await until(lambda: a.owns("thing") and b.owners)
        token = a.owners["thing"].token
        a.running.cancel()
        await asyncio.wait([a.running])
        await a.member.leave()
        await until(lambda: not b.owners)
        b.member.want("thing")
        await until(lambda: b.owns("thing"))
        assert b.owners["thing"].token > token

    run(test())


def test_a_node_that_is_no_member_is_given_nothing() -> None:
    async def test() -> None:
        hub, a, _ = await pair()
        hub.cut_off.add(a.engine)
        await until(lambda: not a.is_member)
        a.member.want("thing")
        await asyncio.sleep(0.3)
        hub.cut_off.clear()
        await until(lambda: a.is_member)
        assert not a.owners

    run(test())


class FlakyEngine(MemoryEngine):
    """One that now and then does what it is asked, and does not say so."""

    def __init__(self, hub: MemoryHub, chance: random.Random) -> None:
        super().__init__(hub)
        self._chance = chance

    def _lose_some_answers(self) -> None:
        if self._chance.random() < 0.1:
            raise EngineAway("the answer is lost")

    async def create(self, key: str, value: bytes, ttl_s: int | None = None) -> int:
        revision = await super().create(key, value, ttl_s)
        self._lose_some_answers()
        return revision

    async def update(self, key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
        revision = await super().update(key, value, revision, ttl_s)
        self._lose_some_answers()
        return revision


RUNS = 20
RUN_S = 5.0


async def run_with_faults(number: int) -> None:
    """Three nodes that all want three things, while they are cut off, come back, die and are started again."""
    chance = random.Random(number)
    hub = MemoryHub()
    things = [f"run-{number}/{name}" for name in "xyz"]
    nodes = [Node(hub, name, engine=FlakyEngine(hub, chance)) for name in "abc"]
    end_s = lease_clock_s() + RUN_S
    starts = 1
    while lease_clock_s() < end_s:
        index = chance.randrange(3)
        match chance.choice(("nothing", "nothing", "cut off", "join", "die")):
            case "cut off":
                hub.cut_off.add(nodes[index].engine)
            case "join":
                hub.cut_off.clear()
            case "die":
                await nodes[index].die()
                starts += 1
                nodes[index] = Node(hub, "abc"[index], incarnation=f"{starts}", engine=FlakyEngine(hub, chance))
        for _ in range(10):
            await asyncio.sleep(0.02)
            for thing in things:
                assert [node.owns(thing) for node in nodes].count(True) <= 1
                nodes[chance.randrange(3)].member.want(thing)
    for node in nodes:
        node.running.cancel()


def test_twenty_runs_with_faults_have_one_owner_at_a_time_and_histories_that_an_order_explains(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owner_claims, "TAKE_OVER_AFTER_S", 0.1)
    caplog.set_level(logging.INFO)

    async def test() -> None:
        await asyncio.gather(*(run_with_faults(number) for number in range(RUNS)))

    run(test())
    history = read_history(caplog.messages)
    events = [record["event"] for record in history]
    assert events.count("acquired") > RUNS * 3
    assert events.count("refused") > 0
    assert broken_promises(history) == []
