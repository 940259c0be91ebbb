"""What the SQLite file looked like in each version, and how one leads to the next.

The first three versions had a table for everything that a server remembers; since the
fourth there are records and counters. Called by `sqlite` when it opens a file.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_signaling.stores import layout
from sleap_rtc_signaling.stores.records import Record, RecordKey

__all__ = ["SCHEMA_VERSION", "bring_up_to_date"]

_ACCOUNTS_AND_ROOMS: Final = (
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
)
_RELAYED: Final = (
    """
    CREATE TABLE relayed (
        day INTEGER NOT NULL,
        room_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (day, room_id)
    ) STRICT, WITHOUT ROWID
    """,
)
_TIMES_AND_IDS: Final = (
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
)
_RECORDS: Final = (
    """
    CREATE TABLE records (
        kind TEXT NOT NULL,
        partition TEXT NOT NULL,
        name TEXT NOT NULL,
        value BLOB NOT NULL,
        expires_at REAL,
        position TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (kind, partition, name)
    ) STRICT
    """,
    "CREATE INDEX records_by_position ON records (kind, position) WHERE position != ''",
    "CREATE INDEX records_by_end ON records (expires_at) WHERE expires_at IS NOT NULL",
    """
    CREATE TABLE counters (
        kind TEXT NOT NULL,
        partition TEXT NOT NULL,
        name TEXT NOT NULL,
        counter TEXT NOT NULL,
        amount INTEGER NOT NULL,
        PRIMARY KEY (kind, partition, name, counter)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE counter_ends (
        kind TEXT NOT NULL,
        partition TEXT NOT NULL,
        name TEXT NOT NULL,
        expires_at REAL NOT NULL,
        PRIMARY KEY (kind, partition, name)
    ) STRICT, WITHOUT ROWID
    """,
)


def bring_up_to_date(connection: sqlite3.Connection, place: str) -> None:
    """Lead a file of any version to this one, within the caller's transaction.

    Raises:
        StorageFailed: a newer version made the file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        reason = f"its version {version} is newer than this program's"
        raise StorageFailed(place=place, reason=reason)
    for statements, move in _STEPS[version:]:
        for statement in statements:
            connection.execute(statement)
        if move is not None:
            move(connection)
    if version < SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _tables_to_records(connection: sqlite3.Connection) -> None:
    """Make records of what the third version kept in tables."""
    for account_id, created_at, ends in connection.execute("SELECT * FROM accounts"):
        _put(connection, layout.account_record(account_id, created_at, ends))
        _add(connection, *layout.account_counter(ends), 1)
    rooms_of: dict[str, list[layout.Made]] = {}
    rooms = connection.execute(
        "SELECT room_id, owner, created_at, expires_at FROM rooms ORDER BY created_at"
    )
    for room_id, owner, created_at, ends in rooms:
        room = layout.Room(
            room_id=room_id, owner=owner, created_at=created_at, expires_at=ends
        )
        _put(connection, layout.room_record(room))
        made = layout.Made(room_id=room_id, at=created_at)
        rooms_of.setdefault(owner, []).append(made)
    for owner, made_rooms in rooms_of.items():
        _put(connection, layout.made_record(owner, made_rooms))
    for room_id, peer_id, digest in connection.execute("SELECT * FROM kept_peer_ids"):
        _put(connection, layout.kept_record(room_id, peer_id, digest))
    for (at,) in connection.execute("SELECT at FROM times WHERE name = 'awake_at'"):
        _put(connection, layout.awake_record(layout.Awake(at=at)))
    for row in connection.execute(
        "SELECT day, room_id, account_id, bytes FROM relayed"
    ):
        day, room_id, account_id, size_bytes = row
        amounts = layout.relayed_amounts({(day, room_id): (account_id, size_bytes)})
        for key, amount in amounts.items():
            _add(connection, key, layout.BYTES, layout.relayed_ends(day), amount)
    for table in ("accounts", "rooms", "relayed", "times", "kept_peer_ids"):
        connection.execute(f"DROP TABLE {table}")


def _put(connection: sqlite3.Connection, record: Record) -> None:
    key = record.key
    connection.execute(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, 1)",
        (
            *(key.kind, key.partition, key.name),
            *(record.value, record.expires_at, record.index),
        ),
    )


def _add(
    connection: sqlite3.Connection,
    key: RecordKey,
    counter: str,
    ends: float,
    amount: int,
) -> None:
    where = (key.kind, key.partition, key.name)
    connection.execute(
        "INSERT INTO counters VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
        (*where, counter, amount),
    )
    connection.execute(
        "INSERT OR REPLACE INTO counter_ends VALUES (?, ?, ?, ?)", (*where, ends)
    )


_Move = Callable[[sqlite3.Connection], None]
_STEPS: Final[tuple[tuple[tuple[str, ...], _Move | None], ...]] = (
    (_ACCOUNTS_AND_ROOMS, None),
    (_RELAYED, None),
    (_TIMES_AND_IDS, None),
    (_RECORDS, _tables_to_records),
)
SCHEMA_VERSION: Final = len(_STEPS)
