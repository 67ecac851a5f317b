"""A node's durable records in one SQLite file, written by one thread (docs/PROTOCOL.md section 7).

WAL with synchronous=FULL: once `commit` returns, the batch survives a power cut, and a batch is there whole
or not at all. Every row carries a checksum, because SQLite has none: a node that acts on what a flipped bit
tells it to remember equivocates. Opening takes a lock on the directory, so that no second process can sign
for this node.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import quote
from zlib import crc32

from flocknode.files import partial_of, sync_directory
from protocol import durable
from protocol.events import Persist

Records: TypeAlias = dict[str, dict[bytes, bytes]]
Result = TypeVar("Result")

DATABASE = "ledger.db"
LOCK = "lock"
LOCK_ATTEMPTS = 5
LOCK_INTERVAL_S = 0.02
BLOCKS = "block"
"""The bucket that is the chain: its keys are heights, 8 bytes big endian, and it has a table of its own."""

_APPLICATION_ID = 0x464C434B  # "FLCK": tells our files from anyone else's
_LAYOUT = 1
_SCHEMA = f"""
    BEGIN;
    CREATE TABLE block (height INTEGER PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE record (bucket TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL,
                         PRIMARY KEY (bucket, key));
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_LAYOUT};
    COMMIT;
"""
_ROWS = 200
"""That one statement writes or deletes at most: any SQLite takes 999 parameters."""


class StoreError(Exception):
    """The database cannot be opened, read or written; the message names the file."""


class DirectoryInUseError(StoreError):
    """Another process runs this node; the message names the directory and that process."""


class DirectoryLock:
    """An exclusive lock on a node directory; the kernel drops it with the process, however that ends."""

    def __init__(self, directory: Path) -> None:
        """Raises `DirectoryInUseError` if it is held, `StoreError` if the directory cannot be written."""
        path = directory / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise DirectoryInUseError(f"{directory} is in use by process {holder}") from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)


def _lock(file: int) -> None:
    """Lock at once, or after the moment for which `running_process` holds it. Raises OSError."""
    for _ in range(LOCK_ATTEMPTS - 1):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            time.sleep(LOCK_INTERVAL_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def running_process(directory: Path) -> str | None:
    """Return the process id, as text, of the node that runs in `directory`; None where none does."""
    try:
        file = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(file)  # and so lets go of it
    return None


class Store:
    """The read-write store of a running node; create it with `open`. It works on a thread of its own."""

    def __init__(
        self, lock: DirectoryLock, thread: ThreadPoolExecutor, connection: sqlite3.Connection, path: Path
    ) -> None:
        self._lock = lock
        self._thread = thread
        self._connection = connection
        self._path = path
        self._closed = False
        # Blocks are read for others on a second connection, so that no commit waits for a slow peer's wish.
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="blocks")
        self._reader: LedgerReader | None = None

    @classmethod
    async def open(cls, directory: Path) -> Store:
        """Lock the directory and open its database, creating it if there is none.

        Raises `DirectoryInUseError`, or `StoreError` for a database that is damaged or not ours.
        """
        lock = DirectoryLock(directory)
        thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        path = directory / DATABASE
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _open_for_writing, path)
        except BaseException:
            thread.shutdown()
            lock.release()
            raise
        return cls(lock, thread, connection, path)

    async def load(self) -> Records:
        """All committed records but the blocks, by bucket and key; a bucket without a record is absent.

        Raises `StoreError` where a row does not match its checksum.
        """
        return await self._on_thread(lambda: _read_records(self._connection, self._path))

    async def commit(self, batch: Sequence[Persist]) -> None:
        """Write `batch`, the last record of each key, durably; where this raises `StoreError`, nothing."""
        await self._on_thread(lambda: _write(self._connection, batch, self._path))

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    async def with_blocks(self, work: Callable[[Iterator[bytes]], Result]) -> Result:
        """Run `work` on a thread, with an iterator of all blocks in order of height; only one is in memory.

        Iterating raises `StoreError` where a row does not match its checksum. What `work` raises is raised.
        """

        def run() -> Result:
            with closing(self._open_reader().blocks()) as rows:
                return work(value for _, value in rows)

        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reading, run)

    async def read_blocks(self, first_height: int, last_height: int, max_bytes: int) -> tuple[bytes, ...]:
        """Return the committed blocks from `first_height` on, encoded, up to `last_height` or a gap.

        The first whatever its size, then as many as weigh `max_bytes` together. Raises `StoreError` where a
        row does not match its checksum.
        """
        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._reading, self._read_blocks, first_height, last_height, max_bytes
        )

    def _read_blocks(self, first_height: int, last_height: int, max_bytes: int) -> tuple[bytes, ...]:
        # Closed at once: a query that is left open keeps the write-ahead log from being emptied.
        with closing(self._open_reader().consecutive(first_height, last_height)) as blocks:
            return durable.first_blocks(blocks, max_bytes)

    def _open_reader(self) -> LedgerReader:
        if self._reader is None:
            self._reader = LedgerReader(_open_for_reading(self._path), self._path)
        return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()

    async def close(self) -> None:
        """Finish what was begun, close the database and let go of the directory."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._close_reader)
        self._reading.shutdown()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()
        self._lock.release()

    async def _on_thread(self, work: Callable[[], Result]) -> Result:
        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class LedgerReader:
    """A read-only view of a node's ledger, whether the node runs or not; create it with `open_reader`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def height(self) -> int | None:
        """The highest height stored, None for an empty chain."""
        with _faults_of(self._path):
            height: int | None = self._connection.execute("SELECT max(height) FROM block").fetchone()[0]
            return height

    def blocks(self, first: int = 0, last: int = 2**63 - 1) -> Generator[tuple[int, bytes], None, None]:
        """(height, encoded block and certificate), ascending, for first <= height <= last.

        Raises `StoreError` where a row does not match its checksum.
        """
        with _faults_of(self._path):
            rows = self._connection.execute(
                "SELECT height, value, crc FROM block WHERE height BETWEEN ? AND ? ORDER BY height",
                (first, last),
            )
            for height, value, crc in rows:
                _check(crc, BLOCKS, _height_key(height), value, self._path)
                yield height, value

    def record(self, bucket: str, key: bytes) -> bytes | None:
        """Return a record that is no block; None if there is none. Raises `StoreError` for a damaged one."""
        with _faults_of(self._path):
            row = self._connection.execute(
                "SELECT value, crc FROM record WHERE bucket = ? AND key = ?", (bucket, key)
            ).fetchone()
            if row is None:
                return None
            value, crc = row
            _check(crc, bucket, key, value, self._path)
            return bytes(value)

    def consecutive(self, first: int, last: int) -> Generator[bytes, None, None]:
        """Encoded blocks of the heights `first` to `last`, up to the first that is missing.

        Raises `StoreError` where a row does not match its checksum.
        """
        with closing(self.blocks(first, last)) as rows:
            for expected, (height, value) in enumerate(rows, first):
                if height != expected:
                    return
                yield value

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def open_reader(directory: Path) -> Iterator[LedgerReader]:
    """Open a node's ledger for reading, without its lock. Raises `StoreError`."""
    path = directory / DATABASE
    connection = _open_for_reading(path)
    try:
        yield LedgerReader(connection, path)
    finally:
        connection.close()


def _open_for_reading(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(f"{path}: no such ledger")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        return _connect(uri, path, uri=True)
    except StoreError as error:
        # A reader shares the log's index with the writer, or creates it in a directory that it may write to.
        # A read-only copy has neither; if it has no log either, the file alone is the whole database.
        unopened = isinstance(error.__cause__, sqlite3.OperationalError)
        if unopened and not path.with_name(DATABASE + "-wal").exists():
            return _connect(uri + "&immutable=1", path, uri=True)
        raise


def _open_for_writing(path: Path) -> sqlite3.Connection:
    if not path.exists():
        _create(path)
    connection = _connect(str(path), path)
    try:
        with _faults_of(path):
            connection.execute("PRAGMA synchronous = FULL")
            # The secrets of a past round must not linger in free pages.
            connection.execute("PRAGMA secure_delete = ON")
            (fault,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if fault != "ok":
            raise StoreError(f"{path}: damaged: {fault}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    # Under another name first: an empty file in place of a ledger is damage, never a new node, because a node
    # that forgot what it has signed signs it again, differently.
    partial = partial_of(path)
    with _faults_of(path):
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)  # it will hold round secrets; the log and its index inherit the mode
        connection = sqlite3.connect(partial, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        partial.rename(path)
        sync_directory(path.parent)


def _connect(name: str, path: Path, uri: bool = False) -> sqlite3.Connection:
    with _faults_of(path):
        connection = sqlite3.connect(name, uri=uri, isolation_level=None, check_same_thread=False)
        try:
            _check_layout(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise StoreError(f"{path}: not a flocknode ledger")
    if layout != _LAYOUT:
        raise StoreError(f"{path}: layout {layout}, this version reads layout {_LAYOUT}")


def _read_records(connection: sqlite3.Connection, path: Path) -> Records:
    records: Records = {}
    with _faults_of(path):
        rows = connection.execute("SELECT bucket, key, value, crc FROM record ORDER BY bucket, key")
        for bucket, key, value, crc in rows:
            _check(crc, bucket, key, value, path)
            records.setdefault(bucket, {})[key] = value
    return records


def _write(connection: sqlite3.Connection, batch: Sequence[Persist], path: Path) -> None:
    with _faults_of(path):
        statements = list(_statements(batch))
        if len(statements) == 1:
            connection.execute(*statements[0])  # a transaction by itself
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(*statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(batch: Sequence[Persist]) -> Iterator[tuple[str, list[object]]]:
    """SQL and parameters, in few statements: each waits several times for the interpreter's lock."""
    blocks: list[tuple[object, ...]] = []
    records: list[tuple[object, ...]] = []
    deleted: dict[str, list[object]] = defaultdict(list)
    for (bucket, key), value in {(record.bucket, record.key): record.value for record in batch}.items():
        stored: object = _height_of(key) if bucket == BLOCKS else key
        if value is None:
            deleted[bucket].append(stored)
        elif bucket == BLOCKS:
            blocks.append((stored, value, _checksum(bucket, key, value)))
        else:
            records.append((bucket, stored, value, _checksum(bucket, key, value)))
    for rows in _cut(blocks):
        yield f"INSERT OR REPLACE INTO block (height, value, crc) VALUES {_marks(rows)}", _flat(rows)
    for rows in _cut(records):
        yield f"INSERT OR REPLACE INTO record (bucket, key, value, crc) VALUES {_marks(rows)}", _flat(rows)
    for bucket, keys in deleted.items():
        for some in _cut(keys):
            marks = ", ".join("?" * len(some))
            if bucket == BLOCKS:
                yield f"DELETE FROM block WHERE height IN ({marks})", list(some)
            else:
                yield f"DELETE FROM record WHERE bucket = ? AND key IN ({marks})", [bucket, *some]


def _cut(rows: Sequence[Result]) -> Iterator[Sequence[Result]]:
    """As many at a time as one statement takes."""
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def _marks(rows: Sequence[Sequence[object]]) -> str:
    marks = f"({', '.join('?' * len(rows[0]))})"
    return ", ".join([marks] * len(rows))


def _flat(rows: Sequence[Sequence[object]]) -> list[object]:
    return [value for row in rows for value in row]


def _height_of(key: bytes) -> int:
    height = int.from_bytes(key, "big")
    if len(key) != 8 or height >= 2**63:
        raise StoreError(f"a block's key is its height, 8 bytes big endian below 2^63, not {key.hex()}")
    return height


def _height_key(height: int) -> bytes:
    return height.to_bytes(8, "big")


def _checksum(bucket: str, key: bytes, value: bytes) -> int:
    return crc32(value, crc32(key, crc32(bucket.encode())))


def _check(crc: object, bucket: str, key: object, value: object, path: Path) -> None:
    # A flipped bit in a row's header changes a column's type, so types are not taken for granted either.
    if not (isinstance(key, bytes) and isinstance(value, bytes)) or crc != _checksum(bucket, key, value):
        name = f"record {bucket}/{key!r}"
        if bucket == BLOCKS and isinstance(key, bytes):
            name = f"block {_height_of(key)}"
        raise StoreError(f"{path}: damaged: {name} does not match its checksum")


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """SQLite's own exceptions, as `StoreError` naming the file."""
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError, ValueError) as error:
        raise StoreError(f"{path}: {error}") from error
