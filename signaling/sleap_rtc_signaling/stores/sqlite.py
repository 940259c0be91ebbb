"""Accounts and rooms in one SQLite file (write-ahead log), for one machine.

All statements run on one thread of the store's own, so the event loop never waits
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
from typing import Final, TypeVar

from sleap_rtc_plugin.protocol.errors import StorageFailed, TooMany
from sleap_rtc_plugin.protocol.limits import MAX_ROOMS_PER_ACCOUNT
from sleap_rtc_signaling.instructions import DropPeerId, KeepPeerId
from sleap_rtc_signaling.limits import (
    DAY_S,
    MAX_ACCOUNTS,
    STORE_BUSY_TIMEOUT_S,
    STORE_RETRY_S,
)
from sleap_rtc_signaling.relay_book import RelayUsage
from sleap_rtc_signaling.stores import Room

__all__ = ["SqliteStore"]

T = TypeVar("T")

# What leads from each version to the next; a new file takes all of it.
_SCHEMA: Final = (
    (
        """
        CREATE TABLE accounts (
            account_id TEXT PRIMARY KEY,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE rooms (
            room_id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX rooms_of_owner ON rooms (owner)",
    ),
    (
        """
        CREATE TABLE relayed (
            day INTEGER NOT NULL,
            room_id TEXT NOT NULL,
            account_id TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            PRIMARY KEY (day, room_id)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE times (
            name TEXT PRIMARY KEY,
            at REAL NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE kept_peer_ids (
            room_id TEXT NOT NULL,
            peer_id TEXT NOT NULL,
            resume_digest BLOB NOT NULL,
            PRIMARY KEY (room_id, peer_id)
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
_AWAKE: Final = "awake_at"
_SCHEMA_VERSION: Final = len(_SCHEMA)


class SqliteStore:
    """A `Store` in the file `path`, opened with `SqliteStore.open`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False
        self._executor = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="signaling-store"
        )

    @classmethod
    async def open(cls, path: Path) -> "SqliteStore":
        """Open the file, and make it where it is missing.

        Raises:
            StorageFailed: it cannot be opened, or a newer version made it.
        """
        store = cls(path)
        try:
            await store._run(store._connect)
        except BaseException:
            await store.close()
            raise
        return store

    async def add_account(
        self, account_id: str, created_at: float, expires_at: float
    ) -> None:
        """Remember an account."""

        def add(connection: sqlite3.Connection) -> None:
            (count,) = connection.execute("SELECT count(*) FROM accounts").fetchone()
            if count >= MAX_ACCOUNTS:
                raise TooMany(what="accounts on this server", limit=str(MAX_ACCOUNTS))
            connection.execute(
                "INSERT INTO accounts VALUES (?, ?, ?)",
                (account_id, created_at, expires_at),
            )

        await self._write(add)

    async def has_account(self, account_id: str, now: float) -> bool:
        """Tell whether the account exists and has not expired."""
        query = "SELECT 1 FROM accounts WHERE account_id = ? AND expires_at > ?"
        return await self._fetch(query, account_id, now) is not None

    async def add_room(self, room: Room) -> None:
        """Remember a room; counting and adding are one transaction."""

        def add(connection: sqlite3.Connection) -> None:
            (count,) = connection.execute(
                "SELECT count(*) FROM rooms WHERE owner = ? AND expires_at > ?",
                (room.owner, room.created_at),
            ).fetchone()
            if count >= MAX_ROOMS_PER_ACCOUNT:
                limit = str(MAX_ROOMS_PER_ACCOUNT)
                raise TooMany(what="rooms of this account", limit=limit)
            connection.execute(
                "INSERT INTO rooms VALUES (?, ?, ?, ?)",
                (room.room_id, room.owner, room.created_at, room.expires_at),
            )

        await self._write(add)

    async def find_room(self, room_id: str, now: float) -> Room | None:
        """Return a room that has not expired."""
        row = await self._fetch(
            "SELECT room_id, owner, created_at, expires_at FROM rooms"
            " WHERE room_id = ? AND expires_at > ?",
            room_id,
            now,
        )
        if row is None:
            return None
        room, owner, created_at, expires_at = row
        return Room(
            room_id=room, owner=owner, created_at=created_at, expires_at=expires_at
        )

    async def renew_room(self, room_id: str, expires_at: float) -> bool:
        """Let a room live longer; another server may have given it more already."""
        return await self._change(
            "UPDATE rooms SET expires_at = max(expires_at, ?) WHERE room_id = ?",
            expires_at,
            room_id,
        )

    async def delete_room(self, room_id: str, owner: str) -> bool:
        """Delete a room; False if `owner` has no such room."""
        query = "DELETE FROM rooms WHERE room_id = ? AND owner = ?"
        return await self._change(query, room_id, owner)

    async def wake_up(self, now: float) -> None:
        """Let time stand still for the rooms since `stay_awake` was last called."""

        def shift(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "SELECT at FROM times WHERE name = ?", (_AWAKE,)
            ).fetchone()
            if row is not None and row[0] < now:
                connection.execute(
                    "UPDATE rooms SET expires_at = expires_at + ? WHERE expires_at > ?",
                    (now - row[0], row[0]),
                )
            _note_awake(connection, now)

        await self._write(shift)

    async def stay_awake(self, now: float) -> None:
        """Write down that the server is there."""
        await self._write(lambda connection: _note_awake(connection, now))

    async def keep_peer_id(self, kept: KeepPeerId) -> None:
        """Write down who holds an id."""

        def keep(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO kept_peer_ids VALUES (?, ?, ?)",
                (kept.room_id, kept.peer_id, kept.resume_digest),
            )

        await self._write(keep)

    async def drop_peer_id(self, dropped: DropPeerId) -> None:
        """Forget who held an id."""
        query = "DELETE FROM kept_peer_ids WHERE room_id = ? AND peer_id = ?"
        await self._change(query, dropped.room_id, dropped.peer_id)

    async def kept_peer_ids(self, now: float) -> list[tuple[KeepPeerId, float]]:
        """Return who holds an id in a room, and when that room ends."""

        def fetch() -> list[tuple[KeepPeerId, float]]:
            rows = self._opened().execute(
                "SELECT room_id, peer_id, resume_digest, expires_at"
                " FROM kept_peer_ids JOIN rooms USING (room_id)"
                " WHERE expires_at > ?",
                (now,),
            )
            return [(KeepPeerId(*kept), expires_at) for *kept, expires_at in rows]

        return await self._run(fetch)

    async def add_relayed(
        self, rows: Mapping[tuple[int, str], tuple[str, int]]
    ) -> None:
        """Add what was relayed: day and room -> account and bytes."""

        def add(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO relayed VALUES (?, ?, ?, ?)"
                " ON CONFLICT (day, room_id) DO UPDATE SET"
                " bytes = bytes + excluded.bytes",
                [
                    (day, room_id, account_id, size_bytes)
                    for (day, room_id), (account_id, size_bytes) in rows.items()
                ],
            )

        await self._write(add)

    async def relayed(self, day: int, room_id: str, account_id: str) -> RelayUsage:
        """Return what was relayed on a day, by all servers on this store."""

        def add_up() -> RelayUsage:
            room, account, total = (
                self._opened()
                .execute(
                    "SELECT coalesce(sum(bytes) FILTER (WHERE room_id = ?), 0),"
                    " coalesce(sum(bytes) FILTER (WHERE account_id = ?), 0),"
                    " coalesce(sum(bytes), 0) FROM relayed WHERE day = ?",
                    (room_id, account_id, day),
                )
                .fetchone()
            )
            return RelayUsage(room=room, account=account, total=total)

        return await self._run(add_up)

    async def purge(self, now: float) -> None:
        """Remove what has expired."""
        await self._change("DELETE FROM relayed WHERE day < ?", now // DAY_S - 1)
        await self._change("DELETE FROM rooms WHERE expires_at <= ?", now)
        await self._change("DELETE FROM accounts WHERE expires_at <= ?", now)
        await self._change(
            "DELETE FROM kept_peer_ids WHERE room_id NOT IN (SELECT room_id FROM rooms)"
        )

    async def check(self) -> None:
        """Raise `StorageFailed` if the file cannot be read."""
        await self._fetch("SELECT count(*) FROM rooms WHERE room_id = ''")

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, self._disconnect)
        self._executor.shutdown()

    # -- on the store's thread ----------------------------------------------------

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
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version > _SCHEMA_VERSION:
                    reason = f"its version {version} is newer than this program's"
                    raise StorageFailed(place=str(self._path), reason=reason)
                for statements in _SCHEMA[version:]:
                    for statement in statements:
                        connection.execute(statement)
                if version < _SCHEMA_VERSION:
                    connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            connection = self._opened()
            with _transaction(connection):
                return change(connection)

        return await self._run(transact)

    async def _change(self, query: str, *values: str | float) -> bool:
        def change(connection: sqlite3.Connection) -> bool:
            return connection.execute(query, values).rowcount > 0

        return await self._write(change)

    async def _fetch(
        self, query: str, *values: str | float
    ) -> tuple[str, str, float, float] | None:
        def fetch() -> tuple[str, str, float, float] | None:
            row: tuple[str, str, float, float] | None
            row = self._opened().execute(query, values).fetchone()
            return row

        return await self._run(fetch)

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


def _note_awake(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("INSERT OR REPLACE INTO times VALUES (?, ?)", (_AWAKE, now))


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
