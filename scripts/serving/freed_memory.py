"""What the process keeps of the memory that it has freed."""

from __future__ import annotations

import ctypes
from typing import Final

KEPT_BYTES: Final = 16 * 1024 * 1024
"""Ours: what four messages of the largest size take. Memory that was given back comes again a page at a time, which took a third
of the processor time of a message of megabytes."""
_M_TRIM_THRESHOLD: Final = -1  # Source: glibc, malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> None:
    """Have this process, and those that it forks, keep so much of it for the next large message. Other C libraries than glibc do
    as they like.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
