"""The client of the suite's `auth/*` scenarios: a gateway before the suite's server, a client before the gateway, and its user.

What the suite judges is how the gateway logs in at a server. The client asks for the tools and calls one; whoever it is asked for
consent, the user opens the address and goes on wherever the browser is sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.doubles.oauth_server import LegacyClient, a_browser
from tests.doubles.running_cell import cell_settings, running_cell

_MOST_CONSENTS = 3
# A document of the operator's own, at the address that the suite knows.
_DOCUMENT = "https://conformance-test.local/client-metadata.json"


def backend(url: str, scenario: str, context: dict[str, Any], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "server", "prefix": "", "replicas": [url], "auth": "user", "allow_private": True}
    if scenario == "auth/basic-cimd":
        found["client_id"] = _DOCUMENT
    if scenario.startswith("auth/client-credentials"):
        found["auth"] = "client_credentials"
    if "client_id" in context:
        found["client_id"] = context["client_id"]
    if "client_secret" in context:
        found["issuer"] = issuer_of(url)  # as an operator knows whom a secret is for
        (folder / "secret").write_text(context["client_secret"])
        found["client_secret_file"] = str(folder / "secret")
    return found


def issuer_of(url: str) -> str:
    parts = urlsplit(url)
    with urlopen(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}", timeout=10) as answer:
        return str(json.load(answer)["authorization_servers"][0])


async def use(url: str, scenario: str, context: dict[str, Any], folder: Path) -> None:
    settings = cell_settings([backend(url, scenario, context, folder)])
    async with running_cell(settings) as cell, a_browser() as browser:
        client = LegacyClient(f"{cell.url}/mcp")
        try:
            await client.open()
            for method, params in (("tools/list", {}), ("tools/call", {"name": "test-tool", "arguments": {}})) * 2:
                for _ in range(_MOST_CONSENTS):
                    answer = await client.ask(method, params)
                    consent = _consent_in(answer)
                    print(method, json.dumps(answer)[:300])
                    if not consent:
                        break
                    print(await browser.consent(consent))
        finally:
            await client.close()


def _consent_in(answer: dict[str, Any]) -> str:
    """The address that the answer asks the user to open, or ""."""
    data = answer.get("error", {}).get("data", {})
    return str(next((each["url"] for each in data.get("elicitations", ())), data.get("url", "")))


def main() -> None:
    scenario, context = os.environ["MCP_CONFORMANCE_SCENARIO"], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(use(sys.argv[1], scenario, context, Path(folder)))


if __name__ == "__main__":
    main()
