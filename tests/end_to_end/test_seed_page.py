"""The seed document's Phoenix example, by copy and paste, in headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.phoenix_client import phoenix_client
from tests.doubles.seed_page import seed_page
from tests.end_to_end.python_client import run
from tests.end_to_end.running_gateway import Form
from tests.node.node_client import install_once

pytestmark = pytest.mark.node_js

PHOENIX = Path(__file__).parents[1] / "node" / "node_modules" / "phoenix" / "priv" / "static" / "phoenix.mjs"

# Source: the seed document, "WebSocket Connection", every line of it.
EXAMPLE = """
// Client-side JavaScript
import { Socket } from "phoenix";

const socket = new Socket("/mcp", {
  params: { user_id: "user123" }
});

socket.connect();

const channel = socket.channel("mcp:events", {});

channel.join()
  .receive("ok", resp => console.log("Joined successfully", resp))
  .receive("error", resp => console.log("Unable to join", resp));

channel.on("event", payload => {
  console.log("Event received:", payload);
});

// Send request
channel.push("request", {
  method: "echo",
  params: { message: "Hello" },
  id: "req-123"
});
"""

PAGE = f"""<!doctype html><title>seed</title>
<script>
  console.log = (...said) => fetch("/seen", {{ method: "POST", body: JSON.stringify(said) }});
  console.error = console.log;
  onerror = message => console.log("failed", String(message));
</script>
<script type="importmap">{{ "imports": {{ "phoenix": "/phoenix.mjs" }} }}</script>
<script type="module">{EXAMPLE}
channel.on("response", payload => console.log("Response received:", payload));
channel.onError(() => console.log("cut"));
</script>
"""


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_the_seeds_example_joins_is_answered_reads_events_and_rejoins_when_it_is_cut(
    form: Form, start_gateway: StartGateway
) -> None:
    install_once()
    files = {"/": ("text/html", PAGE.encode()), "/phoenix.mjs": ("text/javascript", PHOENIX.read_bytes())}

    def told(seen: list[Any], *wanted: Any) -> int:
        return sum(each[: len(wanted)] == list(wanted) for each in seen)

    async def converse(port: int, url: str) -> None:
        response = {"type": "response", "id": "req-123", "result": {"message": "Hello"}}
        async with seed_page(port, files) as page, phoenix_client(url) as other:
            await page.until(lambda seen: told(seen, "Joined successfully", {"topic": "all"}) == 1)
            await page.until(lambda seen: told(seen, "Response received:", response) == 1)
            await other.join()
            for number in (1, 2):
                await other.ask("j1", "mcp:events", "event", {"event": "hello", "data": {"n": number}})
                await page.until(lambda seen, number=number: {"n": number} in _data(seen))  # type: ignore[misc]
                if number == 1:
                    page.cut()
                    await page.until(lambda seen: told(seen, "Joined successfully") == 2)
            assert told(page.seen, "cut") >= 1
            assert told(page.seen, "failed") == told(page.seen, "Unable to join") == 0

    with start_gateway(form, [{"name": "demo", "prefix": "", "builtin": "demo"}]) as gateway:
        run(converse(gateway.port, gateway.url), timeout_s=90)


def _data(seen: list[Any]) -> list[Any]:
    return [each[1]["data"] for each in seen if each[0] == "Event received:" and each[1]["event"] == "client.hello"]
