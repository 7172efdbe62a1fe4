"""A cell's part in the daily quotas of its node: every second it reports what was used, and learns what others have counted."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.transports.ports.daily_quota import MOST_CLIENTS, DailyQuota, day_of

REPORT_S: Final = 1.0


class QuotaReports:
    """Begins with what was counted before the cell was there; what is used after `close` is not counted.

    A thread of its own waits for the file, which other cells may be writing.

    On crash: what the cell has counted since its last report is lost.
    """

    def __init__(self, quota: DailyQuota, file: QuotaFile) -> None:
        self._quota = quota
        self._file = file
        today = day_of(time.time())
        quota.learn(today, file.news(today, MOST_CLIENTS))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quotas")
        self._closing = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._report_often())

    async def close(self) -> None:
        """After one more report."""
        self._closing.set()
        await self._task
        self._file.close()
        self._thread.shutdown(wait=False)

    async def _report_often(self) -> None:
        is_over = False
        while not is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    is_over = await self._closing.wait()
            await self._report()

    async def _report(self) -> None:
        day, uses = self._quota.report(time.time())
        is_taken, totals = await asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, day, uses)
        if is_taken:
            self._quota.report_taken()
        self._quota.learn(day, totals)

    def _exchange(self, day: int, uses: dict[str, int]) -> tuple[bool, dict[str, int]]:
        """In the thread. (whether these uses were taken, what all have counted)."""
        return self._file.add(day, uses), self._file.news(day, MOST_CLIENTS)


def quota_reports(quota: DailyQuota | None, state_path: Path | None, node: str) -> QuotaReports | None:
    """None where nothing is limited, or where there is nowhere to count for all cells."""
    return None if quota is None or state_path is None else QuotaReports(quota, QuotaFile(state_path, node))
