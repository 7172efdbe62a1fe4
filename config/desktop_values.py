"""How programs that are made with JavaScript spell keys and values of their settings. Pure."""

from __future__ import annotations

import re
from typing import Any


def canonical(key: str) -> str:
    """The key without case, "-", "_" and spaces, which are of no account."""
    return re.sub(r"[-_\s]", "", key).lower()


def is_comment(key: str) -> bool:
    """Whether a key is for people only, or about the file itself (`$schema`)."""
    return key.startswith(("//", "_", "#", "$"))


def is_true(value: Any) -> bool:
    return value is True or value == 1 or (isinstance(value, str) and value.strip().lower() in ("true", "yes", "on", "1"))


def is_false(value: Any) -> bool:
    return value is False or value == 0 or (isinstance(value, str) and value.strip().lower() in ("false", "no", "off", "0"))


def is_word(value: Any) -> bool:
    """Whether there is something that can be written as one word."""
    return isinstance(value, (str, int, float)) and value != ""


def word_of(value: Any) -> str:
    """A value as JavaScript writes it, which those programs are made with."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, int) and abs(value) >= 10**21:
        return repr(float(value)) if abs(value) < 10**300 else "Infinity"
    return str(value)
