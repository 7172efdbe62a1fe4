"""A SQLite file in the state directory. It never stands in the way of serving: while there is no disk, memory must do."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

UNREADABLE_SUFFIX: Final = ".unreadable"  # of a file that was moved aside
MEND_INTERVAL_S: Final = 5.0
"""Until then what came since is in memory alone, so soon; each try writes a page, so not at once."""
_BUSY_S: Final = 1.0
"""How long another's transaction may take, or an owner that is just ending may still hold the file."""
_POLL_S: Final = 0.005
_ERRORS_OF_THE_DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
_ERRORS_OF_OTHERS: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_PRIVATE: Final = 0o600
_BESIDE: Final = ("-wal", "-shm", "-journal")
# A killed process loses nothing that was committed; a machine that loses power may lose the last moments (synchronous = NORMAL),
# and is promised no more.
_SETTINGS: Final = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")


class _WrongVersion(sqlite3.DatabaseError):
    """The file was written by a gateway with another layout."""


class _Replaced(sqlite3.OperationalError):
    """Another file has taken the place of the one that is open: somebody else found it broken, or removed it."""


class SqliteFile:
    """Opens a file, carries out transactions, and goes on without it when it fails: moved aside where it is broken or of another
    version, so that a new one takes its place; left alone where only the disk is full or somebody else owns it.

    path:      None keeps nothing, and nothing is said of it.
    version:   of the layout that `tables` make; each creates something IF NOT EXISTS.
    oldest_version: of a layout to which `tables` only add: such a file is taken as it is, and is of `version` from then on.
    exclusive: it has one owner; otherwise the cells of a node share it, and a transaction may find it busy.
    contents:  what it keeps, for what is said: "events".
    say:       told in one line, with a level of `logging`, of what went wrong and what follows from it.
    """

    def __init__(
        self,
        path: Path | None,
        version: int,
        tables: Sequence[str],
        *,
        exclusive: bool,
        contents: str,
        say: Callable[[int, str], None],
        oldest_version: int | None = None,
    ) -> None:
        self._path = path
        self._version = version
        self._known_versions = (0, *range(version if oldest_version is None else oldest_version, version + 1))
        self._tables = tables
        self._exclusive = exclusive
        self._contents = contents
        self._say = say
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._mend_at_s = 0.0
        self._told = ""

    @property
    def is_wanted(self) -> bool:
        """Whether there should be a file, whatever has become of it."""
        return self._path is not None

    @property
    def is_durable(self) -> bool:
        """Whether what is written goes to disk now."""
        return self._connection is not None

    @property
    def has_failed(self) -> bool:
        """Whether something has gone wrong since all was well: what the file held may be lost."""
        return self._told != ""

    @property
    def wants_mending(self) -> bool:
        """Whether it is time to try again after a failure."""
        return self._path is not None and self._connection is None and time.monotonic() >= self._mend_at_s

    def open(self, prepare: Callable[[sqlite3.Connection], object]) -> None:
        """Open the file, or a new one in the place of one that cannot be used.

        prepare: part of the first transaction; where it fails the file counts as broken.
        """
        if self._path is None:
            return
        with _locked(self._path.parent):  # else one that moves a broken file aside could take the new one of another for it
            _ = self._try_to_open(self._path, prepare) or self._try_to_open(self._path, prepare)

    def mend(self, prepare: Callable[[sqlite3.Connection], object]) -> None:
        """Try again after a failure, as `open`; `prepare` can write what the file has missed."""
        if self._path is None:
            return
        self.open(prepare)
        if self.is_durable:
            self._told = ""
            self._say(logging.WARNING, f"{self._contents} are kept in {self._path} again")

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing. What a failure means for the file is seen to here.

        Raises: sqlite3.Error where it could not be carried out, or there is no file now.
        """
        connection, path = self._connection, self._path
        if connection is None or path is None:
            raise sqlite3.ProgrammingError(f"{self._contents} are not on disk now")
        try:
            if _inode(path) != self._inode:
                raise _Replaced("another file has taken its place")
            with _transaction(connection, writes=writes):
                yield connection
        except sqlite3.Error as error:
            with _locked(path.parent):
                may_try_at_once = self._fail(error, path)
            self._mend_at_s = time.monotonic() + (0.0 if may_try_at_once else MEND_INTERVAL_S)
            raise

    def close(self) -> None:
        """The end: what is written after it goes nowhere."""
        self._path = None
        self._disconnect()

    # ---- start and failure

    def _try_to_open(self, path: Path, prepare: Callable[[sqlite3.Connection], object]) -> bool:
        """Whether there is no use in trying once more at once."""
        self._inode = _inode(path)  # before it is opened: where it is replaced meanwhile, the first transaction notices
        try:
            _make_private(path)
            self._connection = connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            for setting in (*(["PRAGMA locking_mode = EXCLUSIVE"] if self._exclusive else []), *_SETTINGS):
                connection.execute(setting)
            with _transaction(connection, writes=True):
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in self._known_versions:
                    raise _WrongVersion(f"its layout is version {version}, this gateway writes version {self._version}")
                for table in self._tables:
                    connection.execute(table)
                connection.execute(f"PRAGMA user_version = {self._version}")
                prepare(connection)
        except (sqlite3.Error, OSError) as error:
            may_try_at_once = self._fail(error, path)
            self._disconnect()
            self._mend_at_s = time.monotonic() + MEND_INTERVAL_S
            return not may_try_at_once
        self._inode = self._inode or _inode(path)
        return True

    def _fail(self, error: Exception, path: Path) -> bool:
        """Go on in memory; whether the file has made room, so that another try begins with a new one."""
        code = _code(error)
        if code in _ERRORS_OF_OTHERS:
            if self._exclusive:
                self._disconnect()
                self._tell(f"another gateway keeps its {self._contents} in {path}: those of this one are kept in memory only")
            else:
                self._say(logging.WARNING, f"{path} is busy: {error}")
            return False
        self._disconnect()
        self._tell(f"{path} cannot be used ({error}): {self._contents} are kept in memory only")
        return code not in _ERRORS_OF_THE_DISK and self._make_room(path)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _tell(self, text: str) -> None:
        """Once, however often the same is tried."""
        if text != self._told:
            self._told = text
            self._say(logging.ERROR, text)

    def _make_room(self, path: Path) -> bool:
        """Put the file where somebody can look at it; the one before is overwritten. False where even that fails."""
        aside = path.with_name(path.name + UNREADABLE_SUFFIX)
        try:
            if _inode(path) == self._inode:  # else another cell was first, and this is its new file
                os.replace(path, aside)
                for suffix in _BESIDE:  # they belong to the old file, and would spoil the new one
                    with suppress(OSError):
                        os.unlink(f"{path}{suffix}")
                self._tell(f"{path} was moved to {aside}; a new file takes its place")
        except OSError as error:
            self._tell(f"{path} cannot be moved aside: {error.strerror}; {self._contents} are kept in memory only")
            return False
        return True


@contextmanager
def _transaction(connection: sqlite3.Connection, *, writes: bool) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the block, or with the process. One that was stopped in its block is waited
    for no longer than for a transaction, and a directory that is gone has nothing to lock: the block runs all the same.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        give_up_at_s = time.monotonic() + _BUSY_S
        while not _take(descriptor) and time.monotonic() < give_up_at_s:
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Whether its lock is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_private(path: Path) -> None:
    """See that nobody else may read the file, nor what SQLite keeps beside it, which gets the same mode.

    One that is there is not opened for that: closing it again would end the locks that this process has on it (POSIX, fcntl).

    Raises: OSError, also for what is no plain file of this user.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
    for each in (path, *(Path(f"{path}{suffix}") for suffix in _BESIDE)):
        with suppress(FileNotFoundError):
            status = os.lstat(each)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise OSError(errno.EPERM, "it is no plain file of this user")
            if status.st_mode & 0o077:
                os.chmod(each, _PRIVATE)


def _inode(path: Path) -> int | None:
    """Which file is there now, if any."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _code(error: Exception) -> int | None:
    """SQLite's primary result code; the low byte of an extended one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
