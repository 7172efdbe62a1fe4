"""Three gateways as one cluster under test: a balancer before them that knows of TCP alone, links to NATS servers behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from .fault_kinds import BACKENDS, NODE
from .gateway_under_test import PRODUCT, GatewayUnderTest
from .history import Stopped, Weighed
from .namespaces import LOOPBACK, Machine, Machines
from .nats_servers import NATS, NatsServers
from .relay import Relay

NODES: Final = ("node/0", "node/1", "node/2")
_MEMBERS: Final = re.compile(r"^mcp_gateway_cluster_nodes(?:\{[^}]*\})? (\d+)", re.MULTILINE)


class ClusterUnderTest:
    """Answers as one `GatewayUnderTest` does. nodes: {name: gateway}. url: of the balancer.

    machines: where a node and a NATS server run together; None: all on this one.
    """

    cells = len(NODES)

    def __init__(
        self, folder: Path, servers: dict[str, list[str]], command: Sequence[str] = PRODUCT, machines: Machines | None = None
    ) -> None:
        found = [Machine()] * len(NODES) if machines is None else machines.all
        self.machines = dict(zip(NODES, found, strict=True))
        self._back = LOOPBACK if machines is None else machines.back
        self._folder = folder
        self._servers = servers
        self._command = command
        self.nats = NatsServers(folder, found)
        self.links: dict[str, list[Relay]] = {}
        self.nodes: dict[str, GatewayUnderTest] = {}
        self.url = ""
        self.port = 0

    async def start(self) -> None:
        """Raises: GatewayFailed, ServerFailed."""
        self.nats.start_all()
        key_file = self._folder / "cluster.key"
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        for name in NODES:
            self.links[name] = [Relay([self.nats.places[each]], self._back) for each in NATS]
            for link in self.links[name]:
                await link.start()
            folder = self._folder / name.replace("/", "-")
            folder.mkdir()
            urls = ",".join(f"nats://{self._back}:{link.port}" for link in self.links[name])
            tables = f'[cluster]\nurl = "{urls}"\nnode = "{folder.name}"\nkey_file = "{key_file}"\n'
            self.nodes[name] = GatewayUnderTest(
                folder,
                NODE,
                1,
                self._servers,
                self._command,
                tables,
                beside=frozenset({"cluster-member"}),
                machine=self.machines[name],
            )
        self._balancer = Relay([(self.machines[name].front, node.port) for name, node in self.nodes.items()])
        await self._balancer.start()
        self.port = self._balancer.port
        self.url = f"http://127.0.0.1:{self.port}"
        for node in self.nodes.values():
            await node.start()
        while not await self.is_one():
            for node in self.nodes.values():
                node.check_that_it_runs()

    async def stop(self) -> Stopped:
        """One after the other, as a service manager that stops them all."""
        ended = [await node.stop() for node in self.nodes.values()]
        return Stopped(
            took_s=max(each.took_s for each in ended),
            allowed_s=ended[0].allowed_s,
            exit_code=next((each.exit_code for each in ended if each.exit_code != 0), 0),
            left_over=sum(each.left_over for each in ended),
            at_s=ended[-1].at_s,
        )

    def kill(self) -> None:
        for node in self.nodes.values():
            node.kill()
        for link in (*(each for links in self.links.values() for each in links), *([self._balancer] if self.port else [])):
            link.close()
        self.nats.stop_all()

    async def is_one(self) -> bool:
        """Whether every node sees all of them."""
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
                for node in self.nodes.values():
                    async with http.get(f"{node.url}/metrics") as response:
                        seen = _MEMBERS.search(await response.text())
                        if seen is None or int(seen[1]) != len(NODES):
                            return False
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False
        return True

    def is_whole(self) -> bool:
        return len(self.nats.running) == len(NATS) and all(node.is_whole() for node in self.nodes.values())

    async def all_answer(self, backends: Sequence[str] = BACKENDS) -> bool:
        return await self.is_one() and all([await node.all_answer(backends) for node in self.nodes.values()])

    def signal(self, name: str, number: signal.Signals) -> None:
        """To every process of a node at once, as when its machine is stopped."""
        for process in self.nodes[name].tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def weigh(self) -> Weighed:
        weights = [node.weigh() for node in self.nodes.values()]
        return Weighed(
            processes=sum(each.processes for each in weights),
            memory_bytes=sum(each.memory_bytes for each in weights),
            descriptors=sum(each.descriptors for each in weights),
            files=sum(each.files for each in weights),
            at_s=weights[-1].at_s,
        )
