"""What may be wrong where a gateway is to run: each check looks at one thing and says what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import importlib
import json
import os
import resource
import shutil
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from cryptography import x509

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.exposure import exposure_warnings
from mcp_gateway.config.setting_rules import quote_url
from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.serving.start_checks import (
    StartRefused,
    check_admin_port,
    check_cluster,
    check_grpc,
    check_tls,
    live_runs,
    reserve_port,
)
from mcp_gateway.transports.identity.discovery import metadata_urls
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch
from mcp_gateway.transports.upstream.openapi.api_description import DescriptionRefused, read_description, read_document

from .gateway_address import TOKEN_VARIABLE, NothingToFollow, find_gateway

_CONNECT_S: Final = 3.0
_LARGEST_HEALTH_BYTES: Final = 4_194_304
_SPARE_BYTES: Final = 256 * 1024 * 1024
_FEW_FILES: Final = 4_096
_SOON_S: Final = 14 * 86_400.0
_TLS: Final = "TLS: "
_NOT_THERE: Final = "start the server, or correct its address"
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80, "grpcs": 443, "nats": 4222, "tls": 4222}


class Verdict(Enum):
    """How a thing is. Only a PROBLEM keeps a gateway from doing its work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """what: was looked at. text: how it is. advice: what to do, "" where there is nothing."""

    what: str
    verdict: Verdict
    text: str
    advice: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    """Everything that the checks find, in the order of what depends on what."""
    for check in CHECKS:
        yield from check(settings)


def _exposure(settings: Settings) -> Iterator[Finding]:
    for warning in exposure_warnings(settings):
        what, _, text = warning.partition(": ")
        yield Finding(what, Verdict.WARNING, text)


def _certificates(settings: Settings) -> Iterator[Finding]:
    if settings.tls is None:
        return
    try:
        check_tls(settings)
    except StartRefused as refusal:
        yield Finding("tls", Verdict.PROBLEM, str(refusal), "name files that this user can read and that belong together")
        return
    with contextlib.suppress(OSError, ValueError):
        certificate = x509.load_pem_x509_certificate(Path(settings.tls.certificate).expanduser().read_bytes())
        left_s = certificate.not_valid_after_utc.timestamp() - time.time()
        until = f"the certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
        if left_s < 0:
            yield Finding("tls", Verdict.PROBLEM, until, "renew it: clients refuse it")
        elif left_s < _SOON_S:
            yield Finding("tls", Verdict.WARNING, until, "renew it: the gateway reads the file again by itself")
        else:
            yield Finding("tls", Verdict.OK, until)


def _state(settings: Settings) -> Iterator[Finding]:
    """Looked at without a change: making and closing it is for `serve`."""
    path = settings.gateway.state_path
    if path is None:
        yield Finding("state_dir", Verdict.WARNING, "everything is kept in memory", "name one to keep sessions and events")
        return
    try:
        status = path.stat()
    except FileNotFoundError:
        above = next(each for each in path.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            yield Finding("state_dir", Verdict.OK, f"{path} will be made")
        else:
            yield Finding("state_dir", Verdict.PROBLEM, f"{path} cannot be made", f"make it, or let this user write to {above}")
        return
    except OSError as error:
        yield Finding("state_dir", Verdict.PROBLEM, f"{path}: {error.strerror}", "let this user reach it")
        return
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        text = f"{path} belongs to user id {status.st_uid}, this is {os.geteuid()}"
        yield Finding("state_dir", Verdict.PROBLEM, text, "run as its owner, or choose another")
    elif mode & 0o022:
        text = f"{path} has mode {mode:04o}: others may write to it"
        yield Finding("state_dir", Verdict.PROBLEM, text, "choose another, of mode 0700")
    elif (free := shutil.disk_usage(path).free) < _SPARE_BYTES:
        text = f"{path} has {free // 1_048_576} MB of room"
        yield Finding("state_dir", Verdict.WARNING, text, "make room: without it events and sessions are kept in memory only")
    else:
        yield Finding("state_dir", Verdict.OK, f"{path}, {free // 1_048_576} MB of room")


def _ports(settings: Settings) -> Iterator[Finding]:
    state_path = settings.gateway.state_path
    running = [] if state_path is None else live_runs(state_path)
    if running:
        yield Finding("gateway", Verdict.OK, f"runs at {running[0]['url']} (process {running[0]['pid']})")
        return
    host, node = settings.gateway.host, settings.actor_system
    try:
        for held in reserve_port(host, settings.gateway.port):
            held.close()
    except StartRefused as refusal:
        yield Finding("port", Verdict.PROBLEM, str(refusal), "end what listens there, or choose another gateway.port")
    else:
        yield Finding("port", Verdict.OK, f"{settings.gateway.port} on {host} is free")
    try:
        check_admin_port(node.bind, node.admin_port)
    except StartRefused as refusal:
        advice = "or serve --embedded, which has none"
        yield Finding("admin port", Verdict.PROBLEM, str(refusal).removeprefix("actor system: "), advice)
    else:
        yield Finding("admin port", Verdict.OK, f"{node.admin_port} on {node.bind} is free")
    try:
        check_grpc(settings)
    except StartRefused as refusal:
        yield Finding("grpc", Verdict.PROBLEM, str(refusal).removeprefix("[grpc]: "), "put that right, or leave [grpc] out")
    else:
        if settings.grpc.port:
            yield Finding("grpc", Verdict.OK, f"port {settings.grpc.port} on {host} is free")


def _limits(_: Settings) -> Iterator[Finding]:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        text = f"a process may have {hard} file descriptors"
        yield Finding("limits", Verdict.WARNING, text, f"allow {_FEW_FILES} or more (LimitNOFILE, ulimit -n)")
    else:
        yield Finding("limits", Verdict.OK, "file descriptors enough")


def _issuers(settings: Settings) -> Iterator[Finding]:
    for issuer in () if settings.auth is None else settings.auth.issuers:
        what = f"issuer {issuer.issuer}"
        if issuer.jwks_file:
            found = Path(issuer.jwks_file).expanduser().is_file()
            verdict = Verdict.OK if found else Verdict.PROBLEM
            yield Finding(what, verdict, f"keys from {issuer.jwks_file}", "" if found else "there is no such file")
            continue
        failures = asyncio.run(_unreachable(issuer.issuer, FetchRules(allow_private=issuer.allow_private, timeout_s=_CONNECT_S)))
        if failures is None:
            yield Finding(what, Verdict.OK, "its metadata is there")
        else:
            advice = "see that it is reached from here; allow_private = true is for one on the own network"
            yield Finding(what, Verdict.PROBLEM, failures, advice)


async def _unreachable(issuer: str, rules: FetchRules) -> str | None:
    """Why its metadata cannot be had; None where they can."""
    failures = []
    for url in metadata_urls(issuer):
        try:
            fetched = await fetch(url, rules=rules)
        except FetchFailed as error:
            failures.append(str(error))
            continue
        if fetched.status == 200:
            return None
        failures.append(f"{url} answers {fetched.status}")
    return "; ".join(dict.fromkeys(failures))


def _cluster(settings: Settings) -> Iterator[Finding]:
    """One NATS server that is reached is enough; that it takes this node shows when the node starts."""
    if settings.cluster is None:
        return
    try:
        check_cluster(settings)
    except StartRefused as refusal:
        text = str(refusal).removeprefix("[cluster]: ")
        yield Finding("cluster", Verdict.PROBLEM, text, "name files that this user can read, the same key_file at every node")
        return
    urls = settings.cluster.url.split(",")
    problems = {url: problem for url in urls if (problem := asyncio.run(_not_connected(url))) is not None}
    for url, problem in problems.items():
        verdict = Verdict.PROBLEM if len(problems) == len(urls) else Verdict.WARNING
        yield Finding("cluster", verdict, f"{url}: {problem}", "start NATS there, or correct cluster.url")
    if not problems:
        yield Finding("cluster", Verdict.OK, f"{', '.join(urls)}: takes connections")


def _backends(settings: Settings) -> Iterator[Finding]:
    if not settings.backends:
        yield Finding("backends", Verdict.WARNING, "there are none", "add [[backends]], or --mcp-json with your servers")
    for backend in settings.backends:
        yield from _backend(backend)


def _backend(backend: BackendSettings) -> Iterator[Finding]:
    what = f"backend {backend.name}"
    if backend.builtin is not None:
        yield Finding(what, Verdict.OK, "built in")
    elif backend.command:
        yield _program(what, backend)
    elif backend.openapi and "://" not in backend.openapi:
        yield _description(what, Path(backend.openapi).expanduser(), backend.base_url)
    elif backend.openapi:
        yield _server(what, backend.openapi)
    elif backend.grpc:
        yield _server(what, backend.grpc if "://" in backend.grpc else f"http://{backend.grpc}")
    for url in backend.replicas:
        yield _server(what, url)
    speaks_grpc = backend.grpc or any(url.startswith(("grpc:", "grpcs:")) for url in backend.replicas)
    if speaks_grpc and find_spec("grpc") is None:
        yield Finding(what, Verdict.PROBLEM, "no gRPC is installed", "pip install 'mcp-gateway[grpc]'")
    if "guard" in backend.tools:
        yield _guard(f"guard of {backend.name}", backend.tools["guard"])


def _server(what: str, url: str) -> Finding:
    problem = asyncio.run(_not_connected(url))
    shown = quote_url(url)[1:-1]
    if problem is None:
        return Finding(what, Verdict.OK, f"{shown} takes connections")
    is_distrusted = problem.startswith(_TLS)
    advice = "name its authority's file in SSL_CERT_FILE, or mend its certificate" if is_distrusted else _NOT_THERE
    return Finding(what, Verdict.PROBLEM, f"{shown}: {problem}", advice)


def _guard(what: str, guard: Mapping[str, Any]) -> Finding:
    """Imported, as the gateway does when it asks first; not asked."""
    if "url" in guard:
        return _server(what, guard["url"])
    named = str(guard["callable"])
    module, _, function = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever an operator's module does
        return Finding(what, Verdict.PROBLEM, f"{named}: {error}", "correct callable, or install its module beside the gateway")
    if not callable(found):
        return Finding(what, Verdict.PROBLEM, f"{named} is no function", "correct callable")
    return Finding(what, Verdict.OK, f"{named} is there")


def _description(what: str, path: Path, base_url: str) -> Finding:
    try:
        described = read_description(read_document(path.read_bytes()), base_url, "")
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}"
        return Finding(what, Verdict.PROBLEM, text, "correct openapi, or make the file readable")
    except DescriptionRefused as refused:
        return Finding(what, Verdict.PROBLEM, f"{path}: {refused}", "correct the description")
    left_out = f", {len(described.left_out)} left out" if described.left_out else ""
    return Finding(what, Verdict.OK, f"{path} describes {len(described.operations)} operations{left_out}")


def _program(what: str, backend: BackendSettings) -> Finding:
    folder = Path(backend.cwd).expanduser()
    if not folder.is_dir():
        return Finding(what, Verdict.PROBLEM, f"its folder {folder} is not there", "make it, or correct cwd")
    name = backend.command[0]
    path = backend.env.get("PATH", os.environ.get("PATH"))
    found = shutil.which(name if os.sep not in name else str(folder / name), path=path)
    if found is None:
        return Finding(what, Verdict.PROBLEM, f"there is no program {name!r}", "install it, or name it by its path")
    return Finding(what, Verdict.OK, f"{found} is there")


async def _not_connected(url: str) -> str | None:
    """Why no connection to the server can be had; None where one can. Nothing is said to it."""
    parts = urlsplit(url.rpartition("+")[2] if "+" in url.partition("://")[0] else url)
    context = ssl.create_default_context() if parts.scheme in ("https", "wss", "grpcs") else None
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or _PORTS[parts.scheme], ssl=context)
    except TimeoutError:
        return f"no connection within {_CONNECT_S:g} s"
    except ssl.SSLError as error:
        return f"{_TLS}{error.reason or error}"
    except OSError as error:
        return os.strerror(error.errno) if error.errno is not None and error.errno in errno.errorcode else str(error)
    writer.close()
    return None


def _running(settings: Settings) -> Iterator[Finding]:
    """What a gateway that runs here says of its own health: a program that is there may end at once."""
    try:
        gateway = find_gateway(settings.gateway.state_path, None, settings.actor_system.admin_port)
        connection = gateway.connection()
        try:
            connection.request("GET", "/health", headers=gateway.headers())
            health = json.loads(connection.getresponse().read(_LARGEST_HEALTH_BYTES))
        finally:
            connection.close()
    except NothingToFollow:
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = f"it does not answer: {error or type(error).__name__}"
        yield Finding("health", Verdict.PROBLEM, text, "look at `mcp-gateway status` and `mcp-gateway logs`")
        return
    yield from health_findings(health)


def health_findings(health: Any) -> Iterator[Finding]:
    """health: the answer of `/health`."""
    status = health.get("status") if isinstance(health, dict) else None
    if status == "healthy":
        yield Finding("health", Verdict.OK, "all that runs is well")
        return
    components = health.get("components") if isinstance(health, dict) else None
    if not isinstance(components, dict):
        yield Finding("health", Verdict.WARNING, str(status), f"with an operator's token in {TOKEN_VARIABLE} it says why")
        return
    for name, component in components.items():
        if component.get("status") == "unhealthy":
            text = str(component.get("reason") or "it does not do its work")
            yield Finding(f"health of {name}", Verdict.PROBLEM, text, "`mcp-gateway logs` says more")
        elif component.get("status") == "degraded":
            yield Finding(f"health of {name}", Verdict.WARNING, str(component.get("reason") or "it is not well"))


CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    _exposure,
    _certificates,
    _state,
    _ports,
    _limits,
    _issuers,
    _cluster,
    _backends,
    _running,
)
