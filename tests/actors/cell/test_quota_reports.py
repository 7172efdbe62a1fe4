"""Cells that count one client's day together, by a file that they share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from mcp_gateway.actors.cell import quota_reports as reports_module
from mcp_gateway.actors.cell.quota_reports import QuotaReports, quota_reports
from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.transports.ports.daily_quota import DailyQuota
from tests.doubles.patience import until

NOW_S = 20_000 * 86_400 + 43_200.0


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays noon, so that no midnight comes between."""
    monkeypatch.setattr(reports_module, "time", type("Noon", (), {"time": staticmethod(lambda: NOW_S)}))
    monkeypatch.setattr(reports_module, "REPORT_S", 0.01)


def begun(quota: DailyQuota, folder: Path) -> QuotaReports:
    reports = quota_reports(quota, folder, "")
    assert reports is not None
    return reports


def used(quota: DailyQuota, tries: int) -> int:
    return sum(not quota.take("ann", NOW_S) for _ in range(tries))


class NotingQuota(DailyQuota):
    """Notes what it was told last, {client: requests}."""

    told: Mapping[str, int] = {}

    def learn(self, day: int, totals: Mapping[str, int]) -> None:
        super().learn(day, totals)
        self.told = {**self.told, **totals}


def test_what_one_cell_has_counted_the_other_knows_a_report_later(tmp_path: Path) -> None:
    async def run() -> None:
        one, two = NotingQuota(5), NotingQuota(5)
        running = [begun(each, tmp_path) for each in (one, two)]
        assert used(one, 3) == 3
        await until(lambda: two.told == {"ann": 3})
        assert used(two, 9) == 2
        await until(lambda: one.told == {"ann": 5})
        assert used(one, 1) == 0
        for each in running:
            await each.close()

    asyncio.run(run())


def test_who_begins_later_knows_what_was_counted_before_and_the_last_report_is_made_at_the_end(tmp_path: Path) -> None:
    async def run() -> None:
        before = DailyQuota(5)
        reports = begun(before, tmp_path)
        assert used(before, 3) == 3
        await reports.close()
        after = DailyQuota(5)
        await begun(after, tmp_path).close()
        assert used(after, 9) == 2

    asyncio.run(run())


class HeldFile(QuotaFile):
    """Another cell writes while this one has to count: until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.let_go = threading.Event()
        self.added: list[Mapping[str, int]] = []
        self.was_let_go: list[bool] = []

    def add(self, day: int, uses: Mapping[str, int]) -> bool:
        if uses:
            self.added.append(uses)
            self.was_let_go.append(self.let_go.wait(20))
        return super().add(day, uses)


def test_while_the_file_is_busy_the_loop_goes_on_and_what_is_used_meanwhile_is_counted_once(tmp_path: Path) -> None:
    async def run() -> None:
        file, quota = HeldFile(tmp_path), DailyQuota(9)
        reports = QuotaReports(quota, file)
        assert used(quota, 2) == 2
        await until(lambda: file.added)
        assert used(quota, 1) == 1
        closing = asyncio.create_task(reports.close())
        await asyncio.sleep(0)
        file.let_go.set()
        await closing
        assert (file.added, file.was_let_go) == ([{"ann": 2}, {"ann": 1}], [True, True])
        after = DailyQuota(9)
        await begun(after, tmp_path).close()
        assert used(after, 99) == 6

    asyncio.run(run())


def test_without_a_limit_or_a_state_directory_there_are_no_reports(tmp_path: Path) -> None:
    assert quota_reports(None, tmp_path, "") is None
    assert quota_reports(DailyQuota(1), None, "") is None
