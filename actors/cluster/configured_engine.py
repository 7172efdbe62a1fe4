"""The engine that `[cluster]` names. Its client is loaded with the first connection: most nodes are alone."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

from mcp_gateway.config.cluster_settings import ClusterSettings

from .engine import Engine, EngineAway


async def connect(settings: ClusterSettings, retention_events: int) -> Engine:
    """Raises: EngineAway, also for files that cannot be used now: somebody may be about to replace them."""
    from .nats_engine import NatsEngine

    try:
        password, tls = password_of(settings), tls_context(settings)
    except (OSError, ValueError) as error:
        raise EngineAway(f"[cluster]: {error}") from error
    return await NatsEngine.connect(
        settings.urls,
        cluster=settings.name,
        name=settings.node,
        replicas=settings.replicas,
        retention=2 * retention_events,  # as many of the gateway and of clients each
        # A number that no log has reached before, where the servers have lost one: ids go on rising, and who comes back with one
        # of before learns what it missed.
        first_sequence=lambda: int(time.time() * 1000),
        user=settings.user or None,
        password=password,
        tls=tls,
    )


def password_of(settings: ClusterSettings) -> str | None:
    """Read at each connection: it may have been changed. Raises: OSError, ValueError for a file that cannot be read."""
    return Path(settings.password_file).expanduser().read_text().strip() if settings.password_file else None


def tls_context(settings: ClusterSettings) -> ssl.SSLContext | None:
    """What the servers must show, and are shown; None where they are spoken to in the clear.

    Raises: OSError for files that cannot be read or used.
    """
    if not settings.tls_ca and not settings.tls_certificate and not settings.url.startswith("tls:"):
        return None
    context = ssl.create_default_context(cafile=str(Path(settings.tls_ca).expanduser()) if settings.tls_ca else None)
    if settings.tls_certificate:
        context.load_cert_chain(Path(settings.tls_certificate).expanduser(), Path(settings.tls_key).expanduser())
    return context
