"""Subscriptions at the merged endpoint whose server goes away and comes back."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import start_sdk_server
from tests.doubles.stream_reader import StreamReader
from tests.end_to_end.raw_http import ask_modern, modern, request, tool_call
from tests.end_to_end.running_gateway import Form, wait_until

CHANGED = "notifications/tools/list_changed"


@pytest.mark.parametrize("form", ["embedded", "two cells"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_subscriber_hears_of_a_server_that_was_away_again(
    form: Form, era: Literal["legacy", "modern"], start_gateway: StartGateway
) -> None:
    with start_sdk_server(name="away", era=era) as server:
        backends = [{"name": "away", "replicas": [server.url]}, {"name": "demo", "builtin": "demo"}]
        with start_gateway(form, backends, gateway={"health_check_interval": 0.5}, expects_errors=True) as gateway:
            body, headers = modern(request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
            with StreamReader(gateway.endpoint(), headers, body) as stream:
                wait_until(lambda: len(stream.methods()) == 1, 10, "the subscription is acknowledged")
                server.kill()
                wait_until(lambda: gateway.health()["status"] != "healthy", 20, "its server is seen to be away")
                server.start()
                wait_until(lambda: CHANGED in stream.methods(), 25, "the client is told of its lists")
                stream.messages.clear()
                add = tool_call("away__add_tool", {"name": "later"})
                wait_until(lambda: "result" in ask_modern(gateway.endpoint(), add).message, 10, "its calls are served again")
                wait_until(lambda: CHANGED in stream.methods(), 10, "and hears what the server says from then on")
                assert stream.is_open
