"""What is kept of a client's `initialize`: what servers act on, never more than there is room for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.kept_handshake import (
    MOST_CLIENT_BYTES,
    MOST_HANDSHAKE_BYTES,
    kept_client,
    kept_handshake,
    kept_user,
)

LEGACY = "2025-06-18"
INFO = {"name": "c", "title": "C", "version": "1"}
ALL = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}, "url": {}}, "tasks": {}, "extensions": {}}


def params(capabilities: Any = None, info: Any = None, version: str = LEGACY, **rest: Any) -> bytes:
    opening = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info or INFO, **rest}
    return json.dumps(opening, separators=(",", ":")).encode()


def kept(*args: Any, **rest: Any) -> dict[str, Any]:
    result = kept_handshake(params(*args, **rest))
    assert len(result) <= MOST_HANDSHAKE_BYTES
    decoded: dict[str, Any] = json.loads(result)
    return decoded


def test_a_usual_handshake_is_kept_as_it_is():
    capabilities = {**ALL, "experimental": {"x": {}}, "vendor": 1}
    assert kept(capabilities) == {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": INFO}


def test_pictures_and_metadata_are_not_kept():
    shown = {**INFO, "icons": [{"src": "data:" + "A" * 60_000}], "websiteUrl": "http://c", "description": "d"}
    assert kept(ALL, shown, _meta={"x": "y"}, other=1) == {"protocolVersion": LEGACY, "capabilities": ALL, "clientInfo": INFO}


@pytest.mark.parametrize("name", ["experimental", "vendor"])
def test_what_nobody_acts_on_is_kept_while_there_is_room_and_not_past_that(name):
    empty = len(kept_handshake(params({**ALL, name: ""})))
    fits = {**ALL, name: "A" * (MOST_HANDSHAKE_BYTES - empty)}
    assert kept(fits)["capabilities"] == fits
    assert kept({**ALL, name: fits[name] + "A"})["capabilities"] == ALL
    assert kept({**ALL, name: "A" * 4_000_000})["capabilities"] == ALL


def test_the_largest_of_what_nobody_acts_on_goes_first():
    some = {"small": "a" * 100, "large": "a" * 1_000, "middle": "a" * 400}
    assert kept({**ALL, **some})["capabilities"].keys() == {*ALL, "small", "middle"}


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_servers_act_on_is_refused_where_it_has_no_room(name):
    empty = len(kept_handshake(params({name: {"x": ""}})))
    fits = {name: {"x": "A" * (MOST_HANDSHAKE_BYTES - empty)}}
    assert kept(fits)["capabilities"] == fits
    with pytest.raises(Refused) as caught:
        kept({name: {"x": fits[name]["x"] + "A"}})
    assert (caught.value.reason, caught.value.status) == ("too_large", 413)
    assert str(MOST_HANDSHAKE_BYTES) in caught.value.text


def test_a_hundred_thousand_capabilities_are_no_more_work_than_reading_them():
    many = {f"x{number}": {} for number in range(100_000)}
    assert kept({**many, **ALL})["capabilities"].items() >= ALL.items()


@pytest.mark.parametrize("text", ["n" * 1_000_000, "ü" * 1_000, "\x00" * 1_000, '"' * 1_000, "\U0001f600" * 1_000])
def test_names_are_cut(text):
    info = kept(ALL, {"name": text, "title": text, "version": text})["clientInfo"]
    assert all(text.startswith(value) and len(value.encode()) <= 100 for value in info.values())
    assert kept(ALL, {"name": "n" * 98})["clientInfo"] == {"name": "n" * 98}


def test_a_name_that_is_no_string_is_none_where_it_is_long():
    assert kept(ALL, {"name": ["x"] * 100, "version": 1})["clientInfo"] == {"name": "", "version": 1}


def test_a_version_that_nobody_can_have_is_the_one_that_answers_it():
    assert kept(ALL, version="9" * 1_000)["protocolVersion"] == "2025-11-25"
    assert kept(ALL, version="2024-10-07")["protocolVersion"] == "2024-10-07"


values = st.recursive(st.none() | st.booleans() | st.text(max_size=400), lambda inner: st.lists(inner, max_size=4))


@given(st.dictionaries(st.sampled_from([*ALL, "experimental", "x", "ü"]), values), st.dictionaries(st.text(), values))
def test_whatever_a_client_says_what_is_kept_has_room_and_is_the_clients_own(capabilities, info):
    try:
        result = kept(capabilities, {**INFO, **info})
    except Refused as refused:
        assert refused.reason == "too_large"
    else:
        assert result["capabilities"].items() <= capabilities.items() if capabilities else not result["capabilities"]


def test_a_user_has_a_short_name_to_hash_that_tells_it_from_others():
    assert kept_user("ada") == "ada"
    assert kept_user("u" * 100) == "u" * 100
    long = [kept_user("u" * 101), kept_user("u" * 102), kept_user("\ud800" * 101)]
    assert len(set(long)) == 3
    assert {len(each) for each in long} == {32}


def test_a_client_without_a_session_is_known_as_it_says_up_to_the_bound():
    info = b'{"name":"c","version":"1","icons":[{"src":"%b"}]}'
    fits = info % (b"A" * (MOST_CLIENT_BYTES - len(info) + 2 - len(b'{"roots":{}}')))
    assert kept_client(fits, b'{"roots":{}}') == (fits, b'{"roots":{}}')
    assert kept_client(fits.replace(b"A", b"AA", 1), b'{"roots":{}}') == (b'{"name":"c","version":"1"}', b'{"roots":{}}')
    assert kept_client(b'{"name":"c"}', b'{"roots":{},"x":"%b"}' % (b"A" * 4_000_000)) == (b'{"name":"c"}', b'{"roots":{}}')
    with pytest.raises(Refused) as caught:
        kept_client(b'{"name":"c"}', b'{"roots":"%b"}' % (b"A" * MOST_CLIENT_BYTES))
    assert caught.value.reason == "too_large"
