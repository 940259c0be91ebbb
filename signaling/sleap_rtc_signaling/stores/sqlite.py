"""Records in one SQLite file (write-ahead log), for one machine.

All statements run on one thread of the file's own, so the event loop never waits
for the disk. Several servers may use the same file.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_signaling.limits import STORE_BUSY_TIMEOUT_S, STORE_RETRY_S
from sleap_rtc_signaling.stores.records import (
    Counters,
    Record,
    RecordKey,
    first_version,
)
from sleap_rtc_signaling.stores.sqlite_schema import bring_up_to_date

__all__ = ["SqliteRecords"]

T = TypeVar("T")

_COLUMNS: Final = "kind, partition, name, value, expires_at, position, version"
_AT: Final = "kind = ? AND partition = ? AND name = ?"
_LIVES: Final = "(expires_at IS NULL OR expires_at > ?)"


class SqliteRecords:
    """`Records` in the file `path`, opened with `SqliteRecords.open`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False
        self._executor = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="signaling-store"
        )

    @classmethod
    async def open(cls, path: Path) -> "SqliteRecords":
        """Open the file, and make it where it is missing.

        Raises:
            StorageFailed: it cannot be opened, or a newer version made it.
        """
        records = cls(path)
        try:
            await records._run(records._connect)
        except BaseException:
            await records.close()
            raise
        return records

    async def get(self, key: RecordKey, now: float) -> Record | None:
        """Return a record that has not ended."""
        found = await self._select(f"{_AT} AND {_LIVES}", *_at(key), now)
        return found[0] if found else None

    async def create(self, record: Record, now: float) -> bool:
        """Store a new record; False where a living one has its key."""

        def create(connection: sqlite3.Connection) -> bool:
            connection.execute(
                f"DELETE FROM records WHERE {_AT} AND NOT {_LIVES}",  # noqa: S608 -- ours
                (*_at(record.key), now),
            )
            inserted = connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                (*_at(record.key), *_held(record), first_version()),
            )
            return inserted.rowcount > 0

        return await self._write(create)

    async def replace(self, record: Record, now: float) -> bool:
        """Store a record in place of the one with its version."""
        return await self._change(
            "UPDATE records SET value = ?, expires_at = ?, position = ?,"  # noqa: S608
            f" version = version + 1 WHERE {_AT} AND version = ? AND {_LIVES}",
            *_held(record),
            *_at(record.key),
            record.version,
            now,
        )

    async def delete(self, key: RecordKey, version: int | None = None) -> bool:
        """Delete a record; False where there is none, or not of this version."""
        return await self._change(
            f"DELETE FROM records WHERE {_AT}"  # noqa: S608 -- ours
            " AND version = coalesce(?, version)",
            *_at(key),
            version,
        )

    async def partition(
        self, kind: str, partition: str, now: float, limit: int
    ) -> list[Record]:
        """Return the first records of a partition, in the order of their names."""
        query = f"kind = ? AND partition = ? AND {_LIVES} ORDER BY name LIMIT ?"
        return await self._select(query, kind, partition, now, limit)

    async def indexed(
        self, kind: str, index: str, now: float, limit: int
    ) -> list[Record]:
        """Return records by their index."""
        query = f"kind = ? AND position = ? AND position != '' AND {_LIVES} LIMIT ?"
        return await self._select(query, kind, index, now, limit)

    async def everything(self, kind: str, now: float) -> list[Record]:
        """Return all records of a kind."""
        return await self._select(f"kind = ? AND {_LIVES}", kind, now)

    async def add(
        self, key: RecordKey, amounts: Mapping[str, int], expires_at: float | None
    ) -> Mapping[str, int]:
        """Add to the counters of a record."""

        def add(connection: sqlite3.Connection) -> Mapping[str, int]:
            connection.executemany(
                "INSERT INTO counters VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                [(*_at(key), name, amount) for name, amount in amounts.items()],
            )
            if expires_at is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO counter_ends VALUES (?, ?, ?, ?)",
                    (*_at(key), expires_at),
                )
            return _counters(connection, key)

        return await self._write(add)

    async def counters(self, key: RecordKey) -> Mapping[str, int]:
        """Return the counters that `add` moved."""
        return await self._run(lambda: _counters(self._opened(), key))

    async def kinds(self) -> list[str]:
        """Return which kinds of records there are."""

        def fetch() -> list[str]:
            rows = self._opened().execute("SELECT DISTINCT kind FROM records")
            return sorted(kind for (kind,) in rows)

        return await self._run(fetch)

    async def all_counters(self) -> list[Counters]:
        """Return all counters."""

        def fetch() -> list[Counters]:
            found: dict[RecordKey, tuple[dict[str, int], float | None]] = {}
            rows = self._opened().execute(
                "SELECT kind, partition, name, counter, amount, expires_at"
                " FROM counters LEFT JOIN counter_ends USING (kind, partition, name)"
            )
            for kind, partition, name, counter, amount, ends in rows:
                key = RecordKey(kind, partition, name)
                found.setdefault(key, ({}, ends))[0][counter] = amount
            return [Counters(key, *rest) for key, rest in found.items()]

        return await self._run(fetch)

    async def purge(self, now: float) -> None:
        """Remove what has ended."""

        def remove(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM records WHERE expires_at <= ?", (now,))
            connection.execute(
                "DELETE FROM counters WHERE (kind, partition, name) IN"
                " (SELECT kind, partition, name FROM counter_ends"
                " WHERE expires_at <= ?)",
                (now,),
            )
            connection.execute("DELETE FROM counter_ends WHERE expires_at <= ?", (now,))

        await self._write(remove)

    async def check(self) -> None:
        """Raise `StorageFailed` if the file cannot be read."""
        await self._select("kind = '' LIMIT 1")

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown()

    # -- on the file's thread -----------------------------------------------------

    def _connect(self) -> None:
        # Made here, so that nobody else may read it from the first byte on; SQLite
        # gives its side files the same mode.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=STORE_BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            _use_write_ahead_log(connection)
            # A room whose session string was printed outlives a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            with _transaction(connection):
                bring_up_to_date(connection, str(self._path))
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _select(self, query: str, *values: Any) -> list[Record]:
        def fetch() -> list[Record]:
            rows = self._opened().execute(
                f"SELECT {_COLUMNS} FROM records WHERE {query}",  # noqa: S608 -- ours
                values,
            )
            return [
                Record(RecordKey(kind, partition, name), *rest)
                for kind, partition, name, *rest in rows
            ]

        return await self._run(fetch)

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            connection = self._opened()
            with _transaction(connection):
                return change(connection)

        return await self._run(transact)

    async def _change(self, query: str, *values: Any) -> bool:
        def change(connection: sqlite3.Connection) -> bool:
            return connection.execute(query, values).rowcount > 0

        return await self._write(change)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise StorageFailed(place=str(self._path), reason="it is closed")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, work)
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(place=str(self._path), reason=str(error)) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("it is not open")
        return self._connection


def _at(key: RecordKey) -> tuple[str, str, str]:
    return key.kind, key.partition, key.name


def _held(record: Record) -> tuple[bytes, float | None, str]:
    return record.value, record.expires_at, record.index


def _counters(connection: sqlite3.Connection, key: RecordKey) -> dict[str, int]:
    rows = connection.execute(
        f"SELECT counter, amount FROM counters WHERE {_AT}",  # noqa: S608 -- ours
        _at(key),
    )
    return dict(rows.fetchall())


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file's journal; two servers that start at once do so in turn.

    SQLite does not wait for a lock here, whatever the connection's timeout.
    """
    give_up_at = time.monotonic() + STORE_BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(STORE_RETRY_S)
        else:
            return


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
