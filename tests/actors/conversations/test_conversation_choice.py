"""Which conversation serves which request."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.conversations.conversation_choice import conversation_for
from mcp_gateway.actors.conversations.gathering import Discover, ListAll, SetLevel
from mcp_gateway.actors.conversations.listening import Listen, ListenAlone
from mcp_gateway.actors.conversations.relay import RelayRequest
from mcp_gateway.actors.conversations.session_opening import OpenSession
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.recording_desk import ALONE, FILES, LEGACY, MAIL, MODERN, Scene, request


def chosen(method: str, *namings, revision: str = MODERN, endpoint: str = "") -> Scene:
    message = request(method, name="files__a") if method != "initialize" else request(method, **{"protocolVersion": LEGACY})
    return Scene(conversation_for, *namings, message=message, revision=revision, endpoint=endpoint)


@pytest.mark.parametrize(
    ("method", "merged", "alone"),
    [
        ("tools/list", ListAll, RelayRequest),
        ("prompts/list", ListAll, RelayRequest),
        ("resources/list", ListAll, RelayRequest),
        ("resources/templates/list", ListAll, RelayRequest),
        ("server/discover", Discover, RelayRequest),
        ("logging/setLevel", SetLevel, RelayRequest),
        ("subscriptions/listen", Listen, ListenAlone),
        ("tools/call", RelayRequest, RelayRequest),
        ("resources/subscribe", RelayRequest, RelayRequest),
        ("no/such", RelayRequest, RelayRequest),
    ],
)
def test_the_merged_server_gathers_and_a_single_backend_is_relayed(method, merged, alone):
    assert type(chosen(method, FILES, MAIL).conversation) is merged
    assert type(chosen(method, FILES).conversation) is merged, "one backend that has a prefix is still renamed"
    assert type(chosen(method, ALONE).conversation) is alone
    assert type(chosen(method, FILES, MAIL, endpoint="mail").conversation) is alone


def test_a_call_to_the_merged_server_is_routed_by_its_name():
    assert [call.backend for call in chosen("tools/call", FILES, MAIL).desk.sent] == [""]
    assert [call.backend for call in chosen("tools/call", FILES, MAIL, endpoint="mail").desk.sent] == ["mail"]


def test_a_handshake_opens_a_session_in_legacy_revisions_only():
    assert type(chosen("initialize", FILES, MAIL, revision=LEGACY).conversation) is OpenSession
    assert type(chosen("initialize", ALONE, revision=LEGACY).conversation) is OpenSession
    assert type(chosen("initialize", ALONE, revision=MODERN).conversation) is RelayRequest


def test_no_backend_is_a_refusal_with_the_id_of_the_request():
    with pytest.raises(Refused) as caught:
        chosen("tools/list")
    assert (caught.value.reason, caught.value.request_id) == ("no_backend", b"7")
