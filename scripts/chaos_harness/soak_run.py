"""`scripts/chaos --soak`: sessions are opened and left in every way; what each costs, and whether all of it is given back."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp

from .abandoning import WAYS, NotOpened, abandon, open_session
from .fault_kinds import EMBEDDED, NODE
from .gateway_under_test import GatewayFailed, GatewayUnderTest
from .report_folder import FolderUnusable, made_folder
from .servers import ServerFailed, Servers
from .soak_report import Sample, Soak, as_json, as_markdown, broken_promises

WARM_UP_SHARE: Final = 0.25
"""Of the soak, before memory is weighed: until what is kept for a while, as parked calls and tasks are, is as much as may be."""
SAMPLE_S: Final = 1.0
AT_ONCE: Final = 4
IDLE_TIMEOUT_SHARE: Final = 0.1
LEAST_IDLE_S, MOST_IDLE_S = 8.0, 60.0
"""The idle timeout: this share of the soak, within these bounds."""
IDLE_SESSIONS_A_SECOND: Final = 20
MOST_IDLE: Final = 5_000
"""How many sessions lie idle in the end: so many for each second of the soak, at most so many."""
_EXIT_BROKEN, _EXIT_FAILED = 1, 2


class SoakRun:
    """One soak of one gateway."""

    def __init__(self, folder: Path, form: str, cells: int, seconds: float, warm_up_s: float) -> None:
        self._seconds = seconds
        self._warm_up_s = warm_up_s
        self._servers = Servers(folder)
        self._idle_s = min(MOST_IDLE_S, max(LEAST_IDLE_S, seconds * IDLE_TIMEOUT_SHARE))
        tables = f"\n[transports.streamable_http]\nsession_idle_timeout = {self._idle_s}\n"
        self._gateway = GatewayUnderTest(folder, form, cells, self._servers.addresses, tables=tables)
        self._abandoned: Counter[str] = Counter()
        self._refused = 0

    async def run(self) -> Soak:
        """Raises: GatewayFailed, ServerFailed"""
        try:
            self._servers.start_all()
            await self._gateway.start()
            churned = await self._churn()
            before = await self._given_back()
            count = min(MOST_IDLE, int(self._seconds * IDLE_SESSIONS_A_SECOND))
            await self._open_idle(count)
            full = await self._sample()
            after = await self._given_back()
            await self._gateway.stop()
            form = EMBEDDED if self._gateway.form == EMBEDDED else f"a node of {self._gateway.cells} cells"
            return Soak(
                title=f"Soak: {form}, {self._seconds:.0f} s",
                cells=self._gateway.cells,
                churned=tuple(churned),
                rested=(before, full, after),
                idle_count=count,
                abandoned=dict(self._abandoned),
                refused=self._refused,
            )
        finally:
            self._gateway.kill()
            self._servers.stop_all()

    async def _churn(self) -> list[Sample]:
        """Clients come and go; samples after the warm-up."""
        ways = itertools.cycle(WAYS)
        end_s = time.monotonic() + self._seconds

        async def come_and_go() -> None:
            while time.monotonic() < end_s:
                await self._abandon(next(ways))

        clients = [asyncio.create_task(come_and_go()) for _ in range(AT_ONCE)]
        await asyncio.sleep(self._warm_up_s)
        samples = []
        while time.monotonic() < end_s:
            samples.append(await self._sample())
            await asyncio.sleep(SAMPLE_S)
        await asyncio.gather(*clients)
        return samples

    async def _abandon(self, way: str) -> None:
        self._abandoned[way] += 1
        self._refused += not await abandon(way, self._gateway.url)

    async def _open_idle(self, count: int) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:

            async def open_some(number: int) -> None:
                for _ in range(number):
                    try:
                        await open_session(http, self._gateway.url)
                    except (OSError, aiohttp.ClientError, NotOpened):
                        self._refused += 1

            await asyncio.gather(*(open_some(count // AT_ONCE) for _ in range(AT_ONCE)))

    async def _given_back(self) -> Sample:
        """As soon as no session is known any more; at the latest after two idle timeouts, which must do."""
        deadline_s = time.monotonic() + 2 * self._idle_s
        while (sample := await self._sample()).sessions and time.monotonic() < deadline_s:
            await asyncio.sleep(SAMPLE_S)
        return sample

    async def _sample(self) -> Sample:
        weight = self._gateway.weigh()
        async with aiohttp.ClientSession() as http, http.get(f"{self._gateway.url}/metrics") as response:
            shown = [line for line in (await response.text()).splitlines() if line and not line.startswith("#")]
        sessions = sum(float(line.split()[-1]) for line in shown if line.startswith("mcp_gateway_sessions{"))
        return Sample(
            at_s=weight.at_s, memory_mb=weight.memory_bytes / 1e6, files=weight.files, series=len(shown), sessions=int(sessions)
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos --soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="while clients come and go (default 180)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--embedded", action="store_true", help="one cell in one process")
    form.add_argument("--cells", type=int, default=2, help="a node of so many cells (default 2)")
    parser.add_argument("--warm-up", type=float, metavar="SECONDS", help="of these, before memory is weighed (default a quarter)")
    parser.add_argument("--report", type=Path, metavar="DIR", help="for the report and the log (default: a new folder)")
    options = parser.parse_args(arguments)
    warm_up_s = options.seconds * WARM_UP_SHARE if options.warm_up is None else options.warm_up
    if not 0 <= warm_up_s < options.seconds:
        parser.error(f"--warm-up: found {warm_up_s:g}; allowed: from 0 to less than --seconds, which is {options.seconds:g}")
    form_name = EMBEDDED if options.embedded else NODE
    try:
        folder = made_folder(options.report, "mcp-gateway-soak-")
        soak = asyncio.run(SoakRun(folder, form_name, options.cells, options.seconds, warm_up_s).run())
    except (FolderUnusable, GatewayFailed, ServerFailed) as error:
        print(f"chaos --soak: {error}", file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    (folder / "soak.md").write_text(as_markdown(soak))
    (folder / "soak.json").write_text(json.dumps(as_json(soak), indent=1) + "\n")
    print(as_markdown(soak))
    print(f"report and log: {folder}")
    return _EXIT_BROKEN if broken_promises(soak) else 0


if __name__ == "__main__":
    sys.exit(main())
