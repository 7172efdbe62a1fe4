"""What a request's head must look like before anything is made of it: who reads it more kindly than a proxy before it, or less,
can be made to see another request than that proxy did. Pure.

Source: RFC 9112, sections 2.2 (line ends), 3 (request line), 3.2 (Host), 6.1 and 6.3 (framing); RFC 6874, section 3 (no zone in
Host).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mcp_gateway.transports.protocol.mcp.refusals import Refused

_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e\x80-\xff]+ HTTP/1\.[01]\r\n")
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{0,5})?")
_LENGTH: Final = re.compile(r"[0-9]{1,19}")
HEADERS_TOO_LARGE: Final = Refused("too_large", "the headers are too large", status=431)
"""Source: RFC 6585, section 5."""


def check_lines(head: bytes) -> re.Match[bytes]:
    """Judge the bytes, all up to the empty line; what matches is the request line.

    Raises: Refused.
    """
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise malformed("lines of the head end in CR LF, and neither stands alone")
    request_line = _REQUEST_LINE.match(head)
    if request_line is None:
        raise malformed("the request line is a method, a target and HTTP/1.1 or HTTP/1.0")
    return request_line


def check_fields(request_line: str, hosts: Sequence[str], lengths: Sequence[str], codings: Sequence[str]) -> None:
    """Judge what says for whom the request is and where it ends: the values of Host, Content-Length and Transfer-Encoding.

    Raises: Refused.
    """
    is_old = request_line.endswith("0")
    if len(hosts) != 1 and not (is_old and not hosts):
        raise malformed("a request has one Host")
    target = request_line.split(" ", 2)[1]
    if target[0] != "/" and target.startswith(("http://", "https://")):
        hosts = [*hosts, target.partition("://")[2].partition("/")[0].partition("?")[0]]
    if not all(_AUTHORITY.fullmatch(each) for each in hosts):
        raise malformed("Host is a name or an IP address, perhaps with a port")
    if codings:
        if lengths or is_old or len(codings) > 1 or codings[0].lower() != "chunked":
            raise malformed("Transfer-Encoding is chunked or left out, and never beside Content-Length or in HTTP/1.0")
    elif lengths and (len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None):
        raise malformed("Content-Length is one whole number")


def malformed(text: str) -> Refused:
    return Refused("invalid_request", text)
