"""Change notifications of several servers that say the same: one now, and one more for all that follow shortly after. Pure."""

from __future__ import annotations

from typing import Final

CHANGE_WINDOW_S: Final = 0.1
"""How long what says the same is gathered: far below what a person notices, longer than servers that start together differ."""


class HeldChanges:
    """The first notification of a kind passes at once and opens a window; of those that come meanwhile the last one is kept.

    Whoever owns this closes each window after CHANGE_WINDOW_S. Nothing is lost: a client that lists after the last notification
    has read sees every change before it.
    """

    def __init__(self) -> None:
        self._windows: dict[str, bytes] = {}  # {method: what is kept, or nothing}

    def passes(self, method: str, data: bytes) -> bool:
        """Whether the notification goes out now, and with it a window opens; otherwise it is kept."""
        if method not in self._windows:
            self._windows[method] = b""
            return True
        self._windows[method] = data
        return False

    def close(self, method: str) -> bytes:
        """The window's time has passed: what was kept goes out now and opens another one; empty where nothing was."""
        kept = self._windows.pop(method, b"")
        if kept:
            self._windows[method] = b""
        return kept
