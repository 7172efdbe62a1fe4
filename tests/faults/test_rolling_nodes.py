"""A node of two that is drained, ended and started again while clients call on and on: none of them is refused."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.doubles.cluster_nodes import running_cluster
from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.moving_session import Session

CLIENTS = 3
_PAUSE_S = 0.03


class Callers:
    """Each calls with a session of its own, over a connection for each request, at the nodes in turn.

    nodes:     those that are asked now. Where one takes no connection, or ends it without a word, the next one is asked, as a
               balancer does.
    served:    {url of a node: calls that it has answered}.
    refusals:  what was answered otherwise.
    """

    def __init__(self, nodes: Sequence[GatewayProcess], endpoint: str) -> None:
        self.nodes = list(nodes)
        self.served: Counter[str] = Counter()
        self.refusals: list[str] = []
        self._endpoint = endpoint
        self._is_over = threading.Event()

    @contextmanager
    def calling(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(self._call_on, number) for number in range(CLIENTS)]
            try:
                yield
            finally:
                self._is_over.set()
        for each in running:
            each.result()

    def _call_on(self, turn: int) -> None:
        session = Session(self.nodes[turn % len(self.nodes)], self._endpoint)
        while not self._is_over.wait(_PAUSE_S):
            turn += 1
            self._call(session, turn)

    def _call(self, session: Session, turn: int) -> None:
        nodes = list(self.nodes)
        for place in range(len(nodes)):
            node = nodes[(turn + place) % len(nodes)]
            try:
                answer = session.call(node, "echo", message=f"{turn}")
            except ConnectionError:
                continue
            if answer.status == 200 and "error" not in answer.body:
                self.served[node.url] += 1
            else:
                self.refusals.append(f"{answer.status} {answer.body}")
            return
        self.refusals.append("no node takes a connection")


@pytest.mark.timeout(240)
def test_a_node_is_replaced_while_clients_call_and_none_is_refused(tmp_path: Path, legacy_server: SdkServer) -> None:
    rest = f'[[backends]]\nname = "legacy"\nreplicas = ["{legacy_server.url}"]\n'
    with running_cluster(tmp_path, rest, "a", "b", cells=1) as cluster, ThreadPoolExecutor(1) as pool:
        a, b = cluster.nodes["a"], cluster.nodes["b"]
        callers = Callers([a, b], "/mcp/servers/legacy")
        with callers.calling():
            wait_until(lambda: callers.served[a.url] and callers.served[b.url], 30, "both nodes serve")
            # 1. One call is under way at the node that is to go.
            session = Session(b, "/mcp/servers/legacy")
            before = legacy_server.counters()["started"].count("slow")
            slow = pool.submit(session.text, b, "slow", seconds=1.5)
            wait_until(lambda: legacy_server.counters()["started"].count("slow") > before, 30, "the slow call runs")
            # 2. The node is drained from the other one, and ends.
            assert a.command("drain", "b").returncode == 0
            assert slow.result(60) == "slept 1.5 s"
            assert b.process.wait(60) == 0
            served = callers.served[a.url]
            wait_until(lambda: callers.served[a.url] > served + CLIENTS, 30, "the other node serves")
            # 3. It comes back, and has its share again.
            settings = b.state_dir.with_suffix(".toml").read_text()
            with GatewayProcess(b.state_dir, cell_factory=None, settings=settings) as again:
                callers.nodes = [a, again]
                wait_until(lambda: callers.served[again.url] > CLIENTS, 30, "the new node serves the sessions of before")
                assert session.text(again, "echo", message="hello") == "hello"
                callers.nodes = [a]
                asked = callers.served[a.url]
                wait_until(lambda: callers.served[a.url] > asked + CLIENTS, 30, "nobody asks the node that ends with the test")
    assert callers.refusals == []
