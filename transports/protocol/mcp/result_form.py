"""What a large result is made of, and a large response in which it stands, found out in one pass over its bytes. Pure.

A pass over megabytes is what the gateway spends most on with them: whoever wants to know something of a result asks for what this
one has found.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw

_PLAIN_BLOCKS: Final = frozenset({b'"text"', b'"image"', b'"audio"'})
_NAMES: Final = re.compile(rb"ui:|resourceUri|taskId")
"""What metadata names a resource or a task by. Some servers write "/" as "\\/"."""


def _pattern(*tokens: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"[ \t\r\n]*".join((b"", *tokens)))


_VERSION: Final = (b'"jsonrpc"', b":", rb'"2\.0"')
_ID: Final = (b'"id"', b":", rb'(0|-?[1-9][0-9]{0,17}|"[^"\\\x00-\x1f]{0,256}")')
_RESULT: Final = (b'"result"', b":", b"")
# As the serialisers of the official SDKs write it: the result comes last, or first.
_BEFORE_LAST_RESULT: Final = _pattern(b"{", *_VERSION, b",", *_ID, b",", *_RESULT)
_AFTER_LAST_RESULT: Final = _pattern(b"}", rb"\Z")
_BEFORE_FIRST_RESULT: Final = _pattern(b"{", *_RESULT)
_AFTER_FIRST_RESULT: Final = _pattern(b",", *_VERSION, b",", *_ID, b"}", rb"\Z")
_LONGEST_END_BYTES: Final = 512


class _Block(msgspec.Struct):
    type: Raw = Raw(b"")
    meta: Raw = msgspec.field(name="_meta", default=Raw(b""))


class _Form(msgspec.Struct):
    """Where a result may name resources and tasks."""

    content: list[_Block] = []
    contents: Raw = Raw(b"")
    messages: Raw = Raw(b"")
    task: Raw = Raw(b"")
    tasks: Raw = Raw(b"")
    taskId: Raw = Raw(b"")
    meta: Raw = msgspec.field(name="_meta", default=Raw(b""))


_decode_form = msgspec.json.Decoder(_Form).decode


def is_plain(result: bytes | memoryview) -> bool:
    """Whether a result holds content of text, images and audio only, and names neither resources nor tasks.

    Raises: msgspec.DecodeError where it is no JSON, or of another form than results are; RecursionError.
    """
    form = _decode_form(result)
    if form.contents or form.messages or form.task or form.tasks or form.taskId or _NAMES.search(form.meta):
        return False
    return all(bytes(block.type) in _PLAIN_BLOCKS and not _NAMES.search(block.meta) for block in form.content)


def read_response(body: bytes) -> tuple[bytes, bytes, bool] | None:
    """(id, result, whether it is plain) of a successful response; None for all that is written otherwise, or is none.

    What stands before and behind the result is matched to the letter: one pass over the result itself tells that all is valid.

    body: valid UTF-8.
    """
    end_at = max(0, len(body) - _LONGEST_END_BYTES)
    before, after = _BEFORE_LAST_RESULT.match(body), _AFTER_LAST_RESULT.search(body, end_at)
    found_id = before
    if before is None:
        before, after = _BEFORE_FIRST_RESULT.match(body), _AFTER_FIRST_RESULT.search(body, end_at)
        found_id = after
    if before is None or after is None or found_id is None:
        return None
    result = memoryview(body)[before.end() : after.start()]
    try:
        return found_id[1], bytes(result), is_plain(result)
    except (msgspec.DecodeError, RecursionError):
        return None
