"""The credentials of users at servers on disk: SQLite in the state directory, sealed under keys of their own, for all cells.

Each entry is sealed with the names under which it lies (AES-256-GCM, RFC 5116), so that none can be put in the place of another.
Without the key file the entries are worth nothing: users are asked anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcp_gateway.actors.runtime.system_key import KEY_SIZE_BYTES, KeyFileUnsafe, load_or_create_secret, replace_secret
from mcp_gateway.transports.ports.credential_vault import EntryId, EntryKind, VaultFailed

from .sqlite_file import SqliteFile

FILE_NAME: Final = "credentials.sqlite3"
KEY_FILE_NAME: Final = "credentials.key"
MOST_FLOWS: Final = 1_000
"""Consents under way, of the whole node; the one that began first makes room for one too many."""

_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_FOREVER_MS: Final = 2**62
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS entries (kind TEXT NOT NULL, name TEXT NOT NULL, backend TEXT NOT NULL, principal TEXT NOT NULL,"
    " key_id BLOB NOT NULL, content BLOB NOT NULL, changed_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,"
    " leased_until_ms INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (kind, name)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_end ON entries (expires_ms)",
)
_SELECT: Final = "SELECT key_id, content FROM entries WHERE kind = ? AND name = ? AND expires_ms > ?"
_INSERT: Final = (
    "INSERT OR REPLACE INTO entries (kind, name, backend, principal, key_id, content, changed_ms, expires_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_DELETE: Final = "DELETE FROM entries WHERE kind = ? AND name = ?"
_EXPIRE: Final = "DELETE FROM entries WHERE expires_ms <= ?"
_CROWDED: Final = (
    "DELETE FROM entries WHERE kind = 'flow' AND name IN"
    " (SELECT name FROM entries WHERE kind = 'flow' ORDER BY changed_ms DESC, name LIMIT -1 OFFSET ?)"
)
_LEASE: Final = "UPDATE entries SET leased_until_ms = ? WHERE kind = ? AND name = ? AND leased_until_ms <= ? RETURNING 1"
_RELEASE: Final = "UPDATE entries SET leased_until_ms = 0 WHERE kind = ? AND name = ?"
_logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class KeptCredential:
    """What people may see of an entry. changed_ms: when it was got or renewed last, since the epoch."""

    kind: EntryKind
    backend: str
    principal: str
    changed_ms: int


class StoredVault:
    """Implements `CredentialVault`."""

    def __init__(self, state_path: Path) -> None:
        state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keys = _KeyRing(state_path / KEY_FILE_NAME)
        self._file = SqliteFile(
            state_path / FILE_NAME, _VERSION, _TABLES, exclusive=False, contents="credentials", say=_logger.log
        )
        self._file.open(lambda connection: None)

    def read(self, entry: EntryId, now_ms: int) -> bytes | None:
        for _ in range(2):  # the second time where it has just been sealed anew, under a key that opens nothing of before
            with self._transaction(writes=False) as connection:
                row = connection.execute(_SELECT, (entry.kind.value, entry.name, now_ms)).fetchone()
            opened = None if row is None else self._keys.opened(row[0], row[1], _names(entry))
            if row is None or opened is not None:
                break
        return opened

    def write(self, entry: EntryId, content: bytes, now_ms: int, expires_ms: int | None = None) -> None:
        names = _names(entry)
        with self._transaction() as connection:  # whoever replaces the keys holds the same lock
            key_id, sealed = self._keys.sealed(content, names)
            end_ms = _FOREVER_MS if expires_ms is None else expires_ms
            connection.execute(_INSERT, (*names, key_id, sealed, now_ms, end_ms))
            connection.execute(_EXPIRE, (now_ms,))
            if entry.kind is EntryKind.FLOW:
                connection.execute(_CROWDED, (MOST_FLOWS,))

    def take(self, entry: EntryId, now_ms: int) -> bytes | None:
        with self._transaction() as connection:
            row = connection.execute(_SELECT, (entry.kind.value, entry.name, now_ms)).fetchone()
            connection.execute(_DELETE, (entry.kind.value, entry.name))
            return None if row is None else self._keys.opened(row[0], row[1], _names(entry))

    def delete(self, entry: EntryId) -> None:
        with self._transaction() as connection:
            connection.execute(_DELETE, (entry.kind.value, entry.name))

    def lease(self, entry: EntryId, until_ms: int, now_ms: int) -> bool:
        with self._transaction() as connection:
            return bool(connection.execute(_LEASE, (until_ms, entry.kind.value, entry.name, now_ms)).fetchall())

    def principals(self) -> frozenset[str]:
        with self._transaction(writes=False) as connection:
            return frozenset(row[0] for row in connection.execute("SELECT DISTINCT principal FROM entries WHERE kind = 'grant'"))

    def forget(self, principal: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM entries WHERE kind = 'flow' OR (kind = 'grant' AND principal = ?)", (principal,))

    def release(self, entry: EntryId) -> None:
        with self._transaction() as connection:
            connection.execute(_RELEASE, (entry.kind.value, entry.name))

    # ---- for people

    def kept(self) -> list[KeptCredential]:
        """What is kept, without what is secret, and without flows under way. Raises: VaultFailed."""
        query = "SELECT kind, backend, principal, changed_ms FROM entries WHERE kind != 'flow' ORDER BY backend, principal, kind"
        with self._transaction(writes=False) as connection:
            rows = connection.execute(query).fetchall()
        return [KeptCredential(kind=EntryKind(kind), backend=b, principal=p, changed_ms=when) for kind, b, p, when in rows]

    def delete_of(self, backend: str | None = None, principal: str | None = None) -> int:
        """Forget what belongs to both, as far as they are given, and what is under way; how much it was. Raises: VaultFailed."""
        wanted = [(name, value) for name, value in (("backend", backend), ("principal", principal)) if value is not None]
        condition = " AND ".join(f"{name} = ?" for name, _ in wanted) or "TRUE"
        with self._transaction() as connection:
            connection.execute("DELETE FROM entries WHERE kind = 'flow'")
            return connection.execute(f"DELETE FROM entries WHERE {condition}", [value for _, value in wanted]).rowcount

    def rotate(self) -> int:
        """Seal everything under a new key and forget the old ones; how many entries there are. Raises: VaultFailed; OSError."""
        with self._transaction():
            self._keys.add()
        for _ in range(2):  # the second time for what others have written meanwhile, under the key that they knew
            with self._transaction() as connection:
                count = self._seal_anew(connection)
        with self._transaction():
            self._keys.forget_old()
        return count

    def _seal_anew(self, connection: sqlite3.Connection) -> int:
        rows = connection.execute("SELECT kind, name, backend, principal, key_id, content FROM entries").fetchall()
        for kind, name, backend, principal, key_id, content in rows:
            names = (kind, name, backend, principal)
            opened = self._keys.opened(key_id, content, names)
            if opened is None:
                connection.execute(_DELETE, (kind, name))
                continue
            sealed = self._keys.sealed(opened, names)
            connection.execute("UPDATE entries SET key_id = ?, content = ? WHERE kind = ? AND name = ?", (*sealed, kind, name))
        return len(rows)

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        if self._file.wants_mending:
            self._file.mend(lambda connection: None)
        try:
            with self._file.transaction(writes=writes) as connection:
                yield connection
        except sqlite3.Error as error:
            raise VaultFailed(f"the vault of credentials cannot be used: {error}") from None
        except (OSError, KeyFileUnsafe) as error:
            raise VaultFailed(f"the key of the vault cannot be used: {error}") from None


class _KeyRing:
    """The keys in a file, the newest first; it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: dict[bytes, AESGCM] = {}
        self._read_of: tuple[int, int] | None = None

    def sealed(self, content: bytes, names: tuple[str, str, str, str]) -> tuple[bytes, bytes]:
        """(id of the key, what lies in the vault). Raises: OSError, KeyFileUnsafe."""
        key_id, cipher = next(iter(self._current().items()))
        nonce = os.urandom(_NONCE_BYTES)
        return key_id, nonce + cipher.encrypt(nonce, content, msgspec.msgpack.encode(names))

    def opened(self, key_id: bytes, sealed: bytes, names: tuple[str, str, str, str]) -> bytes | None:
        """None for what was sealed under a key that is gone, or has been altered. Raises: VaultFailed."""
        try:
            cipher = self._current().get(key_id)
        except (OSError, KeyFileUnsafe) as error:
            raise VaultFailed(f"the key of the vault cannot be used: {error}") from None
        try:
            return (
                None
                if cipher is None
                else cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], msgspec.msgpack.encode(names))
            )
        except (InvalidTag, ValueError):
            return None

    def add(self) -> None:
        replace_secret(self._path, secrets.token_bytes(KEY_SIZE_BYTES) + load_or_create_secret(self._path))

    def forget_old(self) -> None:
        replace_secret(self._path, load_or_create_secret(self._path)[:KEY_SIZE_BYTES])

    def _current(self) -> dict[bytes, AESGCM]:
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            seen = None
        if seen is None or seen != self._read_of:
            content = load_or_create_secret(self._path)
            if not content or len(content) % KEY_SIZE_BYTES:
                raise KeyFileUnsafe(f"{self._path}: does not hold keys of {KEY_SIZE_BYTES} bytes; delete it")
            parts = [content[start : start + KEY_SIZE_BYTES] for start in range(0, len(content), KEY_SIZE_BYTES)]
            self._keys = {hashlib.blake2b(key, digest_size=8, person=b"mcp-gw-vault").digest(): AESGCM(key) for key in parts}
            self._read_of = seen
        return self._keys


def _names(entry: EntryId) -> tuple[str, str, str, str]:
    return entry.kind.value, entry.name, entry.backend, entry.principal
