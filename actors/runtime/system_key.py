"""The key of a node's packets: a file in the state directory that nobody else may read or write."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

KEY_SIZE_BYTES = 32
KEY_FILE_NAME = "actor-system.key"
_LARGEST_SECRET_BYTES = 4_096
_MOST_KEYS = 4


class KeyFileUnsafe(Exception):
    """The key file could have been read or written by somebody else, or is damaged."""


def load_or_create_key(state_dir: Path) -> bytes:
    """Read the node's packet key, or make one; the same 32 bytes for all who call at the same time.

    Raises: KeyFileUnsafe when the file is not private to this user or not a key; OSError when it cannot be read or written.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / KEY_FILE_NAME
    key = load_or_create_secret(path)
    if len(key) != KEY_SIZE_BYTES:
        raise KeyFileUnsafe(f"{path}: is not a key of {KEY_SIZE_BYTES} bytes; delete it")
    return key


def load_or_create_secret(path: Path) -> bytes:
    """The secret in a file that nobody else may read or write, a new key where there is none; it may be of any length.

    Raises: as `load_or_create_key`.
    """
    try:
        return _read_secret(path)
    except FileNotFoundError:
        _create_key(path)
        return _read_secret(path)


def load_secret(path: Path) -> bytes:
    """The secret in a file that nobody else may read or write, and that somebody else has made.

    Raises: KeyFileUnsafe, also where it is shorter than a key; OSError, FileNotFoundError too.
    """
    secret = _read_secret(path)
    if len(secret) < KEY_SIZE_BYTES:
        raise KeyFileUnsafe(f"{path}: has {len(secret)} bytes, at least {KEY_SIZE_BYTES} are needed")
    return secret


def load_secrets(path: Path) -> tuple[bytes, ...]:
    """Those in such a file, the newest first: two to four keys one behind the other, or one secret of any other length.

    Raises: as `load_secret`.
    """
    secret = load_secret(path)
    count, rest = divmod(len(secret), KEY_SIZE_BYTES)
    if rest or count > _MOST_KEYS:
        return (secret,)
    return tuple(secret[start : start + KEY_SIZE_BYTES] for start in range(0, len(secret), KEY_SIZE_BYTES))


def replace_secret(path: Path, secret: bytes) -> None:
    """Put another secret into the file; a reader sees the one or the other. Raises: OSError."""
    temporary = _written_beside(path, secret)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _read_secret(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileUnsafe(f"{path}: cannot be opened as a plain file ({error.strerror})") from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileUnsafe(f"{path}: is not a plain file")
        if status.st_uid != os.geteuid():
            raise KeyFileUnsafe(f"{path}: belongs to user id {status.st_uid}, this process runs as {os.geteuid()}")
        if status.st_mode & 0o077:
            raise KeyFileUnsafe(f"{path}: others may read or write it (mode {stat.S_IMODE(status.st_mode):04o}); delete it")
        return file.read(_LARGEST_SECRET_BYTES)


def _create_key(path: Path) -> None:
    """Write a fresh key unless somebody else is faster; a reader never sees half of it."""
    temporary = _written_beside(path, secrets.token_bytes(KEY_SIZE_BYTES))
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # the other's key counts
    finally:
        os.unlink(temporary)


def _written_beside(path: Path, secret: bytes) -> str:
    """The name of a new private file in the same folder, which is on the disk when this returns."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # O_EXCL, mode 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(fd)
    except OSError:
        os.unlink(temporary)
        raise
    return temporary
