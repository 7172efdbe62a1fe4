"""HTTP that means one thing to a proxy and another to us.

Many of them carry a second request, hidden where a lenient reader would find it; it must not be answered.
"""

from __future__ import annotations

import json

from tests.attacks.arena import Arena
from tests.attacks.attack import CLOSED, HARMLESS, attack

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
_HIDDEN = "smuggled/by-hand"


def hidden_request(arena: Arena) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": _HIDDEN}).encode()
    lines = ["POST /mcp HTTP/1.1", f"Host: {arena.host}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def only_once(arena: Arena, *lines: str, body: bytes = PING, path: str = "/mcp", verb: str = "POST") -> str:
    """Send it with a hidden request behind it; there must be one answer and no second one."""
    answer = await arena.post(body + hidden_request(arena), *lines, path=path, verb=verb, then_s=2.0)
    assert b"HTTP/1.1 " not in answer.body, f"the hidden request was answered: {answer.body!r}"
    assert answer.is_closed or answer.status == 0, f"the connection stays open behind it: {answer}"
    return answer.reads


@attack("status 400", "invalid_request")
async def a_length_and_chunks(arena: Arena) -> str:
    """Content-Length beside Transfer-Encoding."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PING), PING)
    return await only_once(arena, f"Content-Length: {len(body)}", "Transfer-Encoding: chunked", body=body)


@attack("status 400", "invalid_request")
async def two_lengths(arena: Arena) -> str:
    """Two Content-Lengths that differ."""
    return await only_once(arena, f"Content-Length: {len(PING)}", f"Content-Length: {len(PING) + 200}")


@attack("status 400", "invalid_request", tries=8)
async def a_length_that_is_no_number(arena: Arena) -> str:
    """Content-Length with a sign, in hexadecimal, as a list, with digits of other scripts."""
    wrong = ("+40", "0x28", "40, 41", "-1", "4 0", "40;", "\uff14\uff10", "")
    return await only_once(arena, f"Content-Length: {wrong[next(arena.numbers) % len(wrong)]}")


@attack("status 400", "status 501", "invalid_request", tries=6)
async def a_strange_transfer_encoding(arena: Arena) -> str:
    """Transfer-Encoding that only some understand."""
    wrong = ("xchunked", "chunked, identity", "identity", "gzip, chunked", "chunked, chunked", "chunked;q=1")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PING), PING)
    return await only_once(arena, f"Transfer-Encoding: {wrong[next(arena.numbers) % len(wrong)]}", body=body)


@attack("status 400", "too_large", "invalid_request", tries=6)
async def a_chunk_size_that_lies(arena: Arena) -> str:
    """Chunk sizes that overflow, are negative, or no numbers."""
    sizes = (b"ffffffffffffffffff", b"-5", b"+5", b"0x5", b"5_0", b"")
    return await only_once(
        arena, "Transfer-Encoding: chunked", body=sizes[next(arena.numbers) % len(sizes)] + b"\r\nhello\r\n0\r\n\r\n"
    )


@attack("status 400", "invalid_request", "too_large", CLOSED)
async def a_chunk_extension_without_end(arena: Arena) -> str:
    """A megabyte behind the size of a chunk."""
    answer = await arena.post(b"5;x=" + b"y" * 1_000_000 + b"\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", then_s=5.0)
    assert answer.is_closed, answer
    return answer.reads


@attack("status 400", "invalid_request", tries=6)
async def control_characters_in_a_header(arena: Arena) -> str:
    """NUL, bare CR and others in the value of a header."""
    wrong = ("a\x00b", "a\rX-Inner: b", "a\x0bb", "a\x1bb", "a\x7fb", "\x00")
    return await only_once(arena, f"X-Odd: {wrong[next(arena.numbers) % len(wrong)]}", f"Content-Length: {len(PING)}")


@attack("status 400", "invalid_request", tries=5)
async def a_header_name_that_is_none(arena: Arena) -> str:
    """A space before the colon, no name, no colon."""
    wrong = ("Content-Length : 5", ": x", "no colon here", "Content Length: 5", "Content-Length\t: 5")
    return await only_once(arena, wrong[next(arena.numbers) % len(wrong)], f"Content-Length: {len(PING)}")


@attack("status 400", "invalid_request")
async def a_folded_header(arena: Arena) -> str:
    """A header that goes on in the next line."""
    return await only_once(arena, "Transfer-Encoding:\r\n chunked", f"Content-Length: {len(PING)}")


@attack("status 400", "invalid_request")
async def line_ends_that_are_none(arena: Arena) -> str:
    """Lines that end with LF alone."""
    body = PING + hidden_request(arena)
    head = f"POST /mcp HTTP/1.1\nHost: {arena.host}\nContent-Type: application/json\nContent-Length: {len(PING)}\n\n"
    answer = await arena.say(head.encode() + body, then_s=2.0)
    assert b"HTTP/1.1 " not in answer.body, answer
    return answer.reads


@attack("status 431", "status 400", "too_large")
async def headers_of_a_megabyte(arena: Arena) -> str:
    """Headers of a megabyte."""
    return (await arena.post(PING, f"X-Long: {'x' * 1_000_000}")).reads


@attack("status 431", "status 400", "too_large")
async def ten_thousand_headers(arena: Arena) -> str:
    """Ten thousand headers."""
    return (await arena.post(PING, *(f"X-{number}: 1" for number in range(10_000)))).reads


@attack("status 400", "status 414", "too_large", CLOSED)
async def an_address_of_a_megabyte(arena: Arena) -> str:
    """A request line of a megabyte."""
    return (await arena.post(PING, path="/mcp?" + "x" * 1_000_000)).reads


@attack("status 400", "invalid_request", CLOSED, tries=6)
async def another_protocol(arena: Arena) -> str:
    """TLS, HTTP/2, HTTP/0.9, SSH or nothing that anybody speaks."""
    words = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /mcp\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x00" * 1_000 + b"\r\n\r\n",
        b"POST /mcp HTTP/9.9\r\nHost: x\r\n\r\n",
    )
    answer = await arena.say(words[next(arena.numbers) % len(words)], then_s=5.0)
    assert answer.is_closed, answer
    return answer.reads


@attack("status 405", "status 404", "status 400", "invalid_request", "origin_forbidden", tries=6)
async def a_verb_for_proxies(arena: Arena) -> str:
    """CONNECT, TRACE and verbs of WebDAV."""
    verbs = ("CONNECT", "TRACE", "PROPFIND", "PATCH", "PUT", "TRACK")
    answer = await arena.post(PING, verb=verbs[next(arena.numbers) % len(verbs)])
    assert b"X-Secret" not in answer.body
    return answer.reads


@attack("status 400", "status 404", "origin_forbidden", "invalid_request", tries=4)
async def somebody_elses_address(arena: Arena) -> str:
    """The address of another host in the request line, as one asks a proxy."""
    targets = ("http://127.0.0.1:9/mcp", "http://evil.example/mcp", "//evil.example/mcp", "ftp://x/mcp")
    return (await arena.post(PING, path=targets[next(arena.numbers) % len(targets)])).reads


@attack("status 404", "status 400", "no_backend", "invalid_request", tries=12)
async def a_path_out_of_its_folder(arena: Arena) -> str:
    """`..` in the path, plain and encoded, to files of the machine and to the state."""
    paths = (
        "/mcp/servers/../../../../etc/passwd",
        "/mcp/servers/..%2f..%2f..%2fetc%2fpasswd",
        "/mcp/servers/%2e%2e/%2e%2e/health",
        "/metrics/dashboard/../../../etc/passwd",
        "/metrics/dashboard/..%2f..%2fsettings.py",
        "/metrics/dashboard/%2e%2e/%2e%2e/operations.py",
        "/mcp/servers/demo/../../../../etc/passwd",
        "/mcp/servers/demo%00/x",
        "/mcp/servers/..\\..\\windows",
        "/mcp/sse/events/../../../state/key",
        "/mcp/../../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
    )
    path = paths[next(arena.numbers) % len(paths)]
    for verb in ("GET", "POST"):
        answer = await arena.post(PING if verb == "POST" else b"", path=path, verb=verb)
        assert b"root:" not in answer.body, path
        assert b"import " not in answer.body, path
    return answer.reads


@attack(HARMLESS)
async def a_body_where_none_belongs(arena: Arena) -> str:
    """A request inside the body of a GET."""
    answer = await arena.post(hidden_request(arena), path="/health/live", verb="GET")
    assert answer.status == 200
    assert b"HTTP/1.1 " not in answer.body, answer
    return HARMLESS


@attack("too_large", "status 417")
async def a_body_that_is_only_announced(arena: Arena) -> str:
    """A terabyte that waits for `100 Continue`."""
    answer = await arena.post(b"", "Content-Length: 1000000000000", "Expect: 100-continue")
    assert b" 100 " not in answer.head.encode()[:20]
    return answer.reads


@attack(HARMLESS)
async def a_hundred_requests_at_once(arena: Arena) -> str:
    """A hundred requests on one connection without waiting for an answer."""
    head = f"GET /health/live HTTP/1.1\r\nHost: {arena.host}\r\n\r\n"
    last = head.replace("live", "none").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    answer = await arena.say(head.encode() * 99 + last.encode(), then_s=5.0)
    statuses = [int(part[:3]) for part in (answer.head.encode() + b"\r\n\r\n" + answer.body).split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200] * 99 + [404], statuses
    return HARMLESS


@attack("status 400", "status 426", "invalid_request", "unsupported_version")
async def a_tunnel_that_was_refused(arena: Arena) -> str:
    """A WebSocket handshake that must fail, with a request behind it that a proxy would take for frames."""
    lines = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 99",
        "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
    )
    head = "\r\n".join(["GET /mcp/ws HTTP/1.1", f"Host: {arena.host}", *lines, "", ""]).encode()
    answer = await arena.say(head + hidden_request(arena))
    assert answer.status != 101
    return answer.reads


@attack(HARMLESS, tries=3)
async def an_upgrade_to_another_protocol(arena: Arena) -> str:
    """An upgrade to HTTP/2 without TLS."""
    answer = await arena.post(
        PING, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    )
    assert answer.status != 101, answer
    return HARMLESS


@attack(HARMLESS, tries=3)
async def believed_to_be_somebody_else(arena: Arena) -> str:
    """Headers of a proxy from somebody who is none: no address that is told contains them."""
    lines = (
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: https",
        "Forwarded: host=evil.example",
        "X-Forwarded-Prefix: /evil",
    )
    answer = await arena.post(b"", *lines, "X-Forwarded-For: 10.0.0.1", path="/", verb="GET")
    assert answer.status == 200, answer
    assert b"evil" not in answer.body
    assert "evil" not in answer.head
    return HARMLESS
