"""Bodies that come compressed. Source: RFC 9110, section 8.4."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.content_encoding import UnsupportedEncoding, decoded
from mcp_gateway.transports.protocol.mcp.refusals import Refused

LIMIT = 1_000


def raw(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(body) + coder.flush()


@given(st.binary(max_size=LIMIT))
def test_what_was_encoded_comes_back(body: bytes) -> None:
    for encoding, encoded in {
        "": body,
        "identity": body,
        "gzip": gzip.compress(body),
        "GZip , identity": gzip.compress(body),
        "x-gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "gzip, deflate": zlib.compress(gzip.compress(body)),
    }.items():
        assert decoded(encoded, encoding, LIMIT * 2) == body, encoding


def test_deflate_without_its_wrapping_is_taken() -> None:
    assert decoded(raw(b'{"a": 1}'), "deflate", LIMIT) == b'{"a": 1}'


def test_gzip_may_have_several_members_but_not_thousands() -> None:
    assert decoded(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", LIMIT) == b"ab"
    with pytest.raises(Refused, match="not gzip"):
        decoded(gzip.compress(b"") * 5_000, "gzip", LIMIT)


@pytest.mark.parametrize("count", [LIMIT, LIMIT + 1, 50_000_000])
def test_what_comes_out_is_bounded(count: int) -> None:
    body = bytes(count)
    for encoding, encoded in {
        "gzip": gzip.compress(body, 1),
        "deflate": zlib.compress(body, 1),
        "gzip,gzip": gzip.compress(gzip.compress(body)),
    }.items():
        if count == LIMIT:
            assert decoded(encoded, encoding, LIMIT) == body
        else:
            with pytest.raises(Refused) as caught:
                decoded(encoded, encoding, LIMIT)
            assert (caught.value.reason, caught.value.status) == ("too_large", 413)


def test_members_share_the_limit() -> None:
    with pytest.raises(Refused, match="too large"):
        decoded(gzip.compress(bytes(LIMIT)) + gzip.compress(b"x"), "gzip", LIMIT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "gzip,gzip,gzip", "*", "gzip;q=1"])
def test_another_encoding_is_refused_with_what_is_taken(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate, identity") as caught:
        decoded(b"x", encoding, LIMIT)
    assert caught.value.status == 415


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "gzip, deflate"]))
def test_any_bytes_are_decoded_or_refused(body: bytes, encoding: str) -> None:
    try:
        decoded(body, encoding, LIMIT)
    except Refused as refused:
        assert refused.reason in ("parse_error", "too_large")


@pytest.mark.parametrize("cut", [0, 1, 5, -1])
def test_a_body_that_is_not_whole_is_refused(cut: int) -> None:
    for encoding, encoded in {"gzip": gzip.compress(b"hello"), "deflate": zlib.compress(b"hello")}.items():
        with pytest.raises(Refused) as caught:
            decoded(encoded[:cut], encoding, LIMIT)
        assert (caught.value.reason, caught.value.status) == ("parse_error", 400)
