"""Names of tools that every client takes. Pure.

Source: what models' interfaces refuse otherwise, and with it the whole list: 64 characters of letters, digits, "_" and "-". MCP
itself allows 128 and a dot (2025-11-25, server/tools, "Tool Names"). The rule for others is ours.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

LONGEST: Final = 64
_LEAST: Final = 16
"""Characters that a name keeps, however long its backend's prefix is."""
_DIGITS: Final = 8
_PORTABLE: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_-]+")
_MARK: Final = re.compile(rf"_[0-9a-f]{{{_DIGITS}}}")


def room_beside(prefix: str) -> int:
    """How long a name may be that stands behind this prefix."""
    return max(_LEAST, LONGEST - len(prefix))


def portable(name: str, longest: int = LONGEST) -> str:
    """The name where it is portable. Of any other one what is left of it, then "_" and eight digits of its SHA-256: the same in
    every cell and for ever.
    """
    if len(name) <= longest and _PORTABLE.fullmatch(name) is not None:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_OTHERS.sub('_', name)[: longest - _DIGITS - 1]}_{digest[:_DIGITS]}"


def is_marked(name: str) -> bool:
    """Whether a name ends as `portable` ends those that it makes; some servers' own names do as well."""
    return _MARK.fullmatch(name, max(0, len(name) - _DIGITS - 1)) is not None
