"""What must be true before anything starts: free ports, a state directory, the key of the actor system, a run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import attrs

from mcp_gateway.actors.node.kept_revocations import RevocationsUnreadableError, with_kept_revocations
from mcp_gateway.actors.runtime.system_key import KEY_SIZE_BYTES, KeyFileUnsafe, load_or_create_key, load_secret
from mcp_gateway.config.exposure import exposure_warnings
from mcp_gateway.config.settings import Settings
from mcp_gateway.config.shown_text import shown
from mcp_gateway.transports.downstream.operators.addresses import address_lines, addresses_to_copy
from mcp_gateway.transports.downstream.server.tls import ServerTls, TlsUnusableError

from .settings_source import SettingsSource

RUN_PREFIX = "mcp-gateway-run-"
RUN_FILE_NAME = "run.json"


_logger = logging.getLogger(__name__)


class StartRefused(Exception):
    """The gateway cannot start as it was asked to; the text is one clear line for the user."""


def reserve_port(host: str, port: int) -> list[socket.socket]:
    """Hold host:port for all cells: sockets bound with SO_REUSEPORT that never listen, so they get no connections.

    Port 0 picks a free one, the same for every address of the host; read it from the first socket.

    Raises: StartRefused if somebody listens there, or the address is not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartRefused(f"cannot listen on {host}: {error.strerror}") from error
    reserved: list[socket.socket] = []
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        wanted = (address[0], port or (reserved[0].getsockname()[1] if reserved else 0), *address[2:])
        try:
            # With SO_REUSEPORT alone a second gateway would silently share the port of the first.
            with _bound(family, wanted):
                pass
            reserved.append(_bound(family, wanted, socket.SO_REUSEPORT))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6 and reserved:
                continue  # "localhost" names ::1 also where IPv6 is switched off
            for reservation in reserved:
                reservation.close()
            raise StartRefused(_why_not(host, wanted[1], error)) from error
    return reserved


def reserve_ports(settings: Settings) -> tuple[list[socket.socket], int]:
    """Hold the clients' port, see `reserve_port`, and find the admin's: a system that may choose can name one port for both.

    Raises: StartRefused
    """
    while True:
        admin_port = check_admin_port(settings.actor_system.bind, settings.actor_system.admin_port)
        reserved = reserve_port(settings.gateway.host, settings.gateway.port)
        if reserved[0].getsockname()[1] != admin_port:
            return reserved, admin_port
        for reservation in reserved:
            reservation.close()


def check_admin_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises: StartRefused if it is taken: Thespian would try for 11 s and then give an obscure error.
    """
    try:
        with _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        hint = "; another gateway, or what is left of one: choose another --admin-port" if error.errno == errno.EADDRINUSE else ""
        raise StartRefused(f"actor system: {_why_not(host, port, error)}{hint}") from error


def _bound(family: int, address: tuple[Any, ...], *options: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in (socket.SO_REUSEADDR, *options):
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use"
    return f"cannot listen on {host}:{port}: {error.strerror}"


STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""What asks for an orderly stop; so does SIGHUP when it tells that the terminal has closed."""


class Hangup:
    """What SIGHUP means here: the terminal of the gateway has closed, or somebody asks for the settings to be read again.

    is_ignored: whoever started the gateway wants it to survive its terminal, as nohup does; then it is not looked at at all.
    """

    def __init__(self) -> None:
        self.is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = _has_terminal()

    def is_stop(self) -> bool:
        """Whether the terminal that was there when the gateway started is not there any more."""
        return self._had_terminal and not _has_terminal()


def _has_terminal() -> bool:
    """Whether there is a controlling terminal. Source: tty(4): opening it fails where there is none, or none any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def log_what_was_left_out(settings: Settings) -> None:
    """Say which servers of other programs' files are not served and why, and what else of those files was passed over."""
    for server in settings.left_out:
        _logger.error("server %r is left out: %s", server.title, server.reason, extra={"fields": {"backend": server.name}})
    for warning in settings.warnings:
        _logger.warning("%s", warning)


def log_exposure(settings: Settings) -> None:
    """Say what a gateway lacks that others can reach."""
    for warning in exposure_warnings(settings):
        _logger.warning("%s", warning)


def say_where(settings: Settings) -> None:
    """The one line on standard output, which programs wait for; on a terminal the addresses to copy follow it.

    Where nobody reads it any more, the gateway serves all the same.
    """
    lines = [f"mcp-gateway listening on {settings.url}"]
    if sys.stdout.isatty():
        backends = ((backend.name, backend.title) for backend in settings.backends)
        virtual = ((server.name, "") for server in settings.servers)
        lines += address_lines(addresses_to_copy(settings.url, (*backends, *virtual), settings.grpc.port))
    try:
        print("\n".join(map(shown, lines)), flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is buffered would fail again when this process ends
        os.close(nowhere)


def allow_many_files() -> None:
    """Use all file descriptors that this user may: a thousand clients are more than the usual limit of 1024 has room for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def prepare_state_directory(state_path: Path | None) -> None:
    """Make the state directory, for this user only, and see that it can be written. One that others may read is closed to them.

    Raises: StartRefused, also where others could have put something into it.
    """
    if state_path is None:
        return
    try:
        state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _close_to_others(state_path)
        with tempfile.TemporaryFile(dir=state_path):
            pass
    except OSError as error:
        raise StartRefused(f"state_dir {state_path} cannot be written: {error.strerror}") from error


def with_revocations(settings: Settings) -> Settings:
    """The settings with who had lost access when the gateway ran last.

    Raises: StartRefused where that cannot be read.
    """
    try:
        return with_kept_revocations(settings)
    except RevocationsUnreadableError as error:
        raise StartRefused(f"{error}; who is in it would have access again: mend or remove it") from error


def check_tls(settings: Settings) -> None:
    """Raises: StartRefused where the files of [tls] cannot be used."""
    if settings.tls is not None:
        try:
            ServerTls(settings.tls)
        except TlsUnusableError as error:
            raise StartRefused(str(error)) from error


def check_grpc(settings: Settings) -> None:
    """Raises: StartRefused where [grpc] cannot be served."""
    port = settings.grpc.port
    if not port:
        return
    if find_spec("grpc") is None or find_spec("mcp_grpc_transport_proto") is None:
        raise StartRefused("[grpc]: gRPC is not installed here: pip install 'mcp-gateway[grpc]'")
    for held in reserve_port(settings.gateway.host, port):
        held.close()


def check_cluster(settings: Settings) -> None:
    """Raises: StartRefused where the files of [cluster] cannot be used."""
    cluster = settings.cluster
    if cluster is None:
        return
    # Here, because a node that is alone does without it.
    from mcp_gateway.actors.cluster.configured_engine import password_of, tls_context

    for named in (cluster.key_file, cluster.password_file, cluster.tls_ca, cluster.tls_certificate, cluster.tls_key):
        if named and not Path(named).expanduser().exists():
            hint = "; make it on one node and copy it to the others: (umask 077; head -c 32 /dev/urandom > FILE)"
            raise StartRefused(f"[cluster]: {named} is not there{hint if named == cluster.key_file else ''}")
    try:
        load_secret(Path(cluster.key_file).expanduser())
        password_of(cluster)
        tls_context(cluster)
    except (KeyFileUnsafe, OSError, ValueError) as error:  # an SSLError is an OSError
        raise StartRefused(f"[cluster]: {error}") from error


def _close_to_others(state_path: Path) -> None:
    """Raises: StartRefused, OSError"""
    for status in (state_path.lstat(), state_path.stat()):  # of a link, and of what it leads to
        if status.st_uid != os.geteuid():
            text = f"belongs to user id {status.st_uid}, this process runs as {os.geteuid()}"
            raise StartRefused(f"state_dir {state_path} {text}: choose another")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        text = "others may write to it, so what is in it cannot be trusted: choose another, or empty it and make it 0700"
        raise StartRefused(f"state_dir {state_path} has mode {mode:04o}; {text}")
    if mode & 0o077:
        state_path.chmod(mode & ~0o077)
        _logger.warning(
            "state_dir %s had mode %04o, so that others could read it; it has %04o now", state_path, mode, mode & ~0o077
        )


def read_or_make_key(state_path: Path | None) -> bytes:
    """Return the key in the state directory, made on first use; without a directory a fresh one that nobody else learns.

    Raises: StartRefused
    """
    if state_path is None:
        return os.urandom(KEY_SIZE_BYTES)
    try:
        return load_or_create_key(state_path)
    except KeyFileUnsafe as error:
        raise StartRefused(f"key file {error}") from error
    except OSError as error:
        raise StartRefused(f"key file in {state_path} cannot be used: {error.strerror}") from error


@attrs.define
class RunDirectory:
    """One directory per run: metric files, Thespian's own log, and a file that tells admin commands what runs.

    Its processes hold a lock on that file, inherited by fork, so a directory whose lock is free belongs to a run that has ended.
    """

    path: Path
    _lock_fd: int

    @classmethod
    def make(cls, state_path: Path | None) -> RunDirectory:
        """Make a fresh one in the state directory (or the temporary one), after removing those of ended runs."""
        parent = state_path or Path(tempfile.gettempdir())
        for ended in parent.glob(f"{RUN_PREFIX}*"):
            # In the temporary directory anybody may have made one, and put a pipe into it that nobody writes to.
            if ended.lstat().st_uid == os.geteuid() and _ended_description(ended):
                shutil.rmtree(ended, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=parent))
        lock_fd = os.open(path / RUN_FILE_NAME, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        (path / "metrics").mkdir(mode=0o700)
        return cls(path, lock_fd)

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics"

    def describe(self, **fields: object) -> None:
        """Write what runs here: {"pid", "url", "certificate", "is_embedded", "admin_port", "source"}, see `announce`."""
        text = json.dumps(fields).encode()
        # Over the old text in one write, blanks where that was longer: who reads meanwhile never finds half of it.
        os.pwrite(self._lock_fd, text.ljust(os.fstat(self._lock_fd).st_size), 0)

    def describe_nothing(self) -> None:
        """Tell admin commands not to attach: nothing is ready for them."""
        os.ftruncate(self._lock_fd, 0)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def live_runs(state_path: Path) -> list[dict[str, Any]]:
    """What runs with this state directory, as described by `RunDirectory.describe`."""
    runs = []
    for directory in sorted(state_path.glob(f"{RUN_PREFIX}*")):
        try:
            if _ended_description(directory) is None:
                runs.append(json.loads((directory / RUN_FILE_NAME).read_bytes()))
        except (OSError, ValueError):
            continue
    return runs


def _ended_description(directory: Path) -> bytes | None:
    """The description that an ended run left; b"" if there is none (perhaps it is just starting), None while it lives."""
    try:
        with (directory / RUN_FILE_NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return file.read()
    except BlockingIOError:
        return None
    except OSError:
        return b""


def with_real_ports(settings: Settings, *, port: int, admin_port: int | None = None) -> Settings:
    """The settings with the ports that were found where the file says 0."""
    actor_system = settings.actor_system if admin_port is None else attrs.evolve(settings.actor_system, admin_port=admin_port)
    return attrs.evolve(settings, gateway=attrs.evolve(settings.gateway, port=port), actor_system=actor_system)


def announce(settings: Settings, run_directory: RunDirectory, *, pid: int, source: SettingsSource) -> str:
    """Describe the run for admin commands, and return the URL that it serves. source: where `reload` shall look again."""
    url = settings.url
    is_embedded = settings.actor_system.is_embedded
    admin_port = None if is_embedded else settings.actor_system.admin_port
    certificate = "" if settings.tls is None else str(Path(settings.tls.certificate).expanduser().absolute())
    run_directory.describe(
        pid=pid, url=url, certificate=certificate, is_embedded=is_embedded, admin_port=admin_port, source=source.to_keep()
    )
    return url
