"""A cell's part in the daily quotas of its node: every second it reports what was used, and learns what others have counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.transports.ports.daily_quota import MOST_CLIENTS, DailyQuota, day_of

REPORT_S: Final = 1.0


class QuotaReports:
    """Begins with what was counted before the cell was there; what is used after `close` is not counted.

    On crash: what the cell has counted since its last report is lost.
    """

    def __init__(self, quota: DailyQuota, file: QuotaFile) -> None:
        self._quota = quota
        self._file = file
        self._learn(day_of(time.time()))
        self._task = asyncio.get_running_loop().create_task(self._report_often())

    def close(self) -> None:
        self._task.cancel()
        self._report()
        self._file.close()

    async def _report_often(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._report()

    def _report(self) -> None:
        day, uses = self._quota.report(time.time())
        if self._file.add(day, uses):
            self._quota.report_taken()
        self._learn(day)

    def _learn(self, day: int) -> None:
        self._quota.learn(day, self._file.news(day, MOST_CLIENTS))


def quota_reports(quota: DailyQuota | None, state_path: Path | None, node: str) -> QuotaReports | None:
    """None where nothing is limited, or where there is nowhere to count for all cells."""
    return None if quota is None or state_path is None else QuotaReports(quota, QuotaFile(state_path, node))
