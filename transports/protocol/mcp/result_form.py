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


def bytes_before_result(begun: bytes) -> int:
    """How many bytes of a response stand before its result; 0 where it is written otherwise, or that has not come yet.

    begun: at least so much of the response, from its beginning.
    """
    before = _BEFORE_LAST_RESULT.match(begun) or _BEFORE_FIRST_RESULT.match(begun)
    # Behind spaces that come later there may be more of them.
    return before.end() if before is not None and begun.startswith(b"{", before.end()) else 0


def bytes_behind_result(before: bytes, rest: bytes | memoryview) -> int:
    """How many bytes of a response stand behind its result; 0 where it is written otherwise. before: what stands before it."""
    pattern = _AFTER_LAST_RESULT if _BEFORE_LAST_RESULT.fullmatch(before) else _AFTER_FIRST_RESULT
    behind = pattern.search(rest, max(0, len(rest) - _LONGEST_END_BYTES)) if before else None
    return 0 if behind is None else len(rest) - behind.start()


def in_pieces(body: bytes) -> tuple[bytes, bytes, bytes]:
    """What stands before the result of a response, the result, and what stands behind it, as far as that shows."""
    start = bytes_before_result(body)
    end = len(body) - bytes_behind_result(body[:start], memoryview(body)[start:])
    return body[:start], body[start:end], body[end:]


def read_response(before: bytes, result: bytes, behind: bytes) -> tuple[bytes, bool] | None:
    """(id, whether the result is plain) of a successful response; None for all that is written otherwise, or is none.

    What stands before and behind the result is matched to the letter: one pass over the result itself tells that all is valid.

    before, result, behind: valid UTF-8.
    """
    if found := _BEFORE_LAST_RESULT.fullmatch(before):
        is_whole = _AFTER_LAST_RESULT.fullmatch(behind) is not None
    elif found := _AFTER_FIRST_RESULT.fullmatch(behind):
        is_whole = _BEFORE_FIRST_RESULT.fullmatch(before) is not None
    else:
        return None
    try:
        return (found[1], is_plain(result)) if is_whole else None
    except (msgspec.DecodeError, RecursionError):
        return None
