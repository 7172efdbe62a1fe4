"""Text that others have written, as a person may see it on a terminal. Pure.

A terminal obeys control characters, and some characters turn the direction of the text around them or take no room: what is seen
would be another text than what is there. Every such character stands as its escape instead.

Source: ECMA-48 (C0, DEL and C1), Unicode Standard Annex 9 (directional formatting), Unicode Technical Report 36, section 2.5.
"""

from __future__ import annotations

import json
from typing import Any


def shown(text: str) -> str:
    """The text on one line: `\\x1b`, `\\n`, `\\u202e` stand for what cannot be seen, and every space is a plain one."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown_lines(text: str) -> str:
    """The same of a text whose line feeds are its own, such as a list of errors."""
    return "\n".join(map(shown, text.split("\n")))


def shown_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON for programs, which harms nobody who looks at it."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
