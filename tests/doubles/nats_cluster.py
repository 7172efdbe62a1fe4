"""Three real NATS servers that are one: streams in as many copies, and a write that is acknowledged is on the disk of two."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import nats
from nats.js.api import ClusterInfo

from tests.doubles.gateway_process import wait_until
from tests.doubles.nats_server import NatsServer
from tests.doubles.ports import free_port

NAMES: Final = ("one", "two", "three")


class NatsCluster:
    """Use as a context manager. servers: {name: server}, each killed and started again by itself."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        routes = {name: free_port() for name in NAMES}
        self.servers = {name: NatsServer(folder / name, "-c", str(_configured(folder, name, routes))) for name in NAMES}

    @property
    def url(self) -> str:
        """As `[cluster] url` has it."""
        return ",".join(server.url for server in self.servers.values())

    def __enter__(self) -> NatsCluster:
        with ExitStack() as stack:
            for server in self.servers.values():
                stack.enter_context(server)
            self.wait_until_writable()
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start_missing(self) -> None:
        """Start those that were killed."""
        for server in self.servers.values():
            if not server.is_running:
                server.start()

    def kill(self, *names: str) -> None:
        for name in names:
            self.servers[name].kill()

    def leader(self, stream: str) -> str:
        """The server that orders what comes into this stream now.

        Raises: OSError where there is none, as a condition that is waited for may.
        """
        return asyncio.run(self._ask(stream)).leader or ""

    def copies(self, stream: str) -> int:
        """How many servers have all of it. Raises: OSError where it has no leader."""
        return 1 + sum(bool(each.current) for each in asyncio.run(self._ask(stream)).replicas or ())

    def others(self, name: str) -> tuple[str, ...]:
        return tuple(each for each in NAMES if each != name)

    def wait_until_writable(self) -> None:
        """Until the servers have found each other, and one that decides for them."""
        wait_until(lambda: asyncio.run(self._account()), 60, "the NATS servers are one cluster")

    async def _account(self) -> bool:
        client = await self._connect()
        try:
            await client.jetstream(timeout=1).account_info()
            return True
        except (nats.errors.Error, nats.js.errors.Error):
            return False
        finally:
            await client.close()

    async def _ask(self, stream: str) -> ClusterInfo:
        client = await self._connect()
        try:
            info = await client.jetstream(timeout=1).stream_info(stream)
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise OSError(f"{stream} has no leader: {error}") from None
        finally:
            await client.close()
        if info.cluster is None or not info.cluster.leader:
            raise OSError(f"{stream} has no leader")
        return info.cluster

    async def _connect(self) -> nats.NATS:
        urls = [server.url for server in self.servers.values() if server.is_running]
        try:
            return await nats.connect(servers=urls, connect_timeout=2, allow_reconnect=False)
        except nats.errors.Error as error:
            raise OSError(str(error)) from None


def _configured(folder: Path, name: str, routes: dict[str, int]) -> Path:
    """The file of one server. Source: NATS, "JetStream Clustering", and `sync_interval` in "JetStream configuration"."""
    others = ", ".join(f'"nats://127.0.0.1:{port}"' for other, port in routes.items() if other != name)
    path = folder / f"{name}.conf"
    path.write_text(
        f'server_name = "{name}"\n'
        "jetstream { sync_interval = always }\n"
        f'cluster {{ name = "tests", listen = "127.0.0.1:{routes[name]}", routes = [{others}] }}\n'
    )
    return path
