"""The official suite's `auth/*` scenarios of a client: how the gateway logs in at a server, with a user at a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.suite import HERE, client_command, install_once, worst_statuses

_ROOT = HERE.parents[1]
_TIMEOUT_S = 90
# One of each kind at every run; the others are variations, and run when slow tests do.
OFTEN = ("metadata-var2", "basic-cimd", "scope-step-up", "token-endpoint-auth-basic", "pre-registration")
OFTEN += ("authorization-server-migration", "iss-wrong-issuer", "client-credentials-basic")
SELDOM = ("metadata-default", "metadata-var1", "metadata-var3", "scope-from-www-authenticate", "scope-from-scopes-supported")
SELDOM += ("scope-omitted-when-undefined", "scope-retry-limit", "token-endpoint-auth-post", "token-endpoint-auth-none")
SELDOM += ("resource-mismatch", "offline-access-scope", "offline-access-not-supported", "iss-supported", "iss-not-advertised")
SELDOM += ("iss-supported-missing", "iss-unexpected", "iss-normalized", "metadata-issuer-mismatch")
SELDOM += ("2025-03-26-oauth-metadata-backcompat", "2025-03-26-oauth-endpoint-fallback")


@pytest.mark.node_js
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", [*OFTEN, *(pytest.param(each, marks=pytest.mark.slow) for each in SELDOM)])
def test_the_gateway_logs_in_as_a_client_must(scenario: str, tmp_path: Path) -> None:
    """All that are scored for 2025-11-25 and 2026-07-28, those of 2025-03-26, and client credentials with a secret.

    Not among them, and not scored: client credentials by a signed JWT, DPoP, and the grants of the enterprise extensions.
    """
    install_once()
    command = client_command(f"auth/{scenario}", f"{sys.executable} -m tests.conformance.auth_client", tmp_path)
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment, cwd=_ROOT)
    (checks,) = tmp_path.rglob("checks.json")
    verdicts = worst_statuses(json.loads(checks.read_text()))
    bad = {check: status for check, status in verdicts.items() if status in ("FAILURE", "WARNING")}
    assert bad == {}, done.stdout[-3000:]
    assert "SUCCESS" in verdicts.values()
