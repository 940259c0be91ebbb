import asyncio
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import StorageFailed, TooMany
from sleap_rtc_plugin.protocol.limits import MAX_ROOMS_PER_ACCOUNT
from sleap_rtc_signaling.instructions import DropPeerId, KeepPeerId
from sleap_rtc_signaling.limits import DAY_S
from sleap_rtc_signaling.relay_book import RelayUsage
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.stores import store as store_module
from sleap_rtc_signaling.stores.sqlite import SqliteRecords


def room(name: str = "room-1", owner: str = "ann", until: float = 100.0) -> Room:
    return Room(room_id=name, owner=owner, created_at=0.0, expires_at=until)


async def opened(folder: Path) -> Store:
    return Store(await SqliteRecords.open(folder / "db"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await opened(tmp_path)
    yield store
    await store.close()


async def test_accounts_exist_until_they_expire(store: Store) -> None:
    await store.add_account("ann", 0.0, 100.0)
    assert await store.has_account("ann", 99.0)
    assert not await store.has_account("ann", 100.0)
    assert not await store.has_account("bob", 0.0)


async def test_accounts_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_ACCOUNTS", 2)
    await store.add_account("ann", 0.0, 100.0)
    await store.add_account("bob", 0.0, 100.0)
    with pytest.raises(TooMany):
        await store.add_account("eve", 0.0, 100.0)


async def test_a_room_is_found_until_it_expires(store: Store) -> None:
    await store.add_room(room())
    assert await store.find_room("room-1", 99.0) == room()
    assert await store.find_room("room-1", 100.0) is None
    assert await store.find_room("room-2", 0.0) is None


async def test_a_room_is_renewed_and_never_shortened(store: Store) -> None:
    await store.add_room(room())
    assert await store.renew_room("room-1", 200.0)
    assert await store.renew_room("room-1", 150.0)
    found = await store.find_room("room-1", 199.0)
    assert found is not None
    assert found.expires_at == 200.0
    assert not await store.renew_room("room-2", 200.0)


async def test_only_the_owner_deletes(store: Store) -> None:
    await store.add_room(room())
    assert not await store.delete_room("room-1", "eve")
    assert await store.find_room("room-1", 0.0) is not None
    assert await store.delete_room("room-1", "ann")
    assert not await store.delete_room("room-1", "ann")
    assert await store.find_room("room-1", 0.0) is None


async def test_rooms_of_an_account_are_bounded_also_at_once(tmp_path: Path) -> None:
    stores = [await opened(tmp_path) for _ in range(2)]
    results = await asyncio.gather(
        *(
            stores[n % 2].add_room(room(f"room-{n}"))
            for n in range(MAX_ROOMS_PER_ACCOUNT + 10)
        ),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, TooMany)]
    assert len(refused) == 10
    assert [r for r in results if r is not None and r not in refused] == []
    await stores[0].add_room(room("room-of-bob", owner="bob"))
    for store in stores:
        await store.close()


async def test_expired_rooms_do_not_count(store: Store) -> None:
    for n in range(MAX_ROOMS_PER_ACCOUNT):
        await store.add_room(room(f"room-{n}"))
    later = Room(room_id="later", owner="ann", created_at=100.0, expires_at=200.0)
    await store.add_room(later)


async def test_purging_removes_what_expired(store: Store) -> None:
    await store.add_account("ann", 0.0, 50.0)
    await store.add_room(room())
    await store.add_room(room("room-2", until=500.0))
    await store.purge(100.0)
    assert not await store.has_account("ann", 0.0)
    assert await store.find_room("room-1", 0.0) is None
    assert await store.find_room("room-2", 0.0) is not None


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    await first.add_room(room())
    await first.close()
    second = await opened(tmp_path)
    assert await second.find_room("room-1", 0.0) == room()
    await second.close()


# -- what was relayed --------------------


async def test_what_was_relayed_adds_up(store: Store) -> None:
    assert await store.relayed(5, "room-1", "ann") == RelayUsage()
    await store.add_relayed({(5, "room-1"): ("ann", 10), (5, "room-2"): ("ann", 20)})
    await store.add_relayed({(5, "room-1"): ("ann", 1), (5, "room-3"): ("bob", 400)})
    await store.add_relayed({(6, "room-1"): ("ann", 8_000)})
    assert await store.relayed(5, "room-1", "ann") == RelayUsage(11, 31, 431)
    assert await store.relayed(5, "room-9", "eve") == RelayUsage(0, 0, 431)


async def test_the_day_before_yesterday_is_forgotten(store: Store) -> None:
    await store.add_relayed({(day, "room-1"): ("ann", 1) for day in (7, 8, 9)})
    await store.purge(9 * DAY_S + 5)
    totals = [(await store.relayed(day, "", "")).total for day in (7, 8, 9)]
    assert totals == [0, 1, 1]


# What the programs before records wrote into a new file, version by version.
OLD_SCHEMA = (
    """
    CREATE TABLE accounts (
        account_id TEXT PRIMARY KEY,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE rooms (
        room_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX rooms_of_owner ON rooms (owner);
    INSERT INTO accounts VALUES ('ann', 0.5, 50.5), ('bob', 1.0, 1000.25);
    INSERT INTO rooms VALUES
        ('room-1', 'ann', 0.0, 100.0), ('room-2', 'ann', 2.0, 200.125),
        ('room-3', 'bob', 3.0, 40.0);
    """,
    """
    CREATE TABLE relayed (
        day INTEGER NOT NULL,
        room_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (day, room_id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO relayed VALUES
        (5, 'room-1', 'ann', 10), (5, 'room-2', 'ann', 20), (5, 'room-3', 'bob', 400);
    """,
    """
    CREATE TABLE times (
        name TEXT PRIMARY KEY,
        at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE kept_peer_ids (
        room_id TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        resume_digest BLOB NOT NULL,
        PRIMARY KEY (room_id, peer_id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO times VALUES ('awake_at', 60.0);
    INSERT INTO kept_peer_ids VALUES ('room-1', 'worker-1', x'0001ff');
    """,
)


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_file_of_an_older_version_is_brought_up_to_date(
    tmp_path: Path, version: int
) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    for statements in OLD_SCHEMA[:version]:
        connection.executescript(statements)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    for _ in range(2):
        store = await opened(tmp_path)
        assert await store.has_account("ann", 50.0)
        assert not await store.has_account("ann", 50.5)
        assert await store.find_room("room-1", 99.0) == room()
        assert await store.find_room("room-2", 0.0) == Room(
            room_id="room-2", owner="ann", created_at=2.0, expires_at=200.125
        )
        assert await store.made_rooms("ann", 0.0) == ["room-1", "room-2"]
        if version >= 2:
            assert await store.relayed(5, "room-1", "ann") == RelayUsage(10, 30, 430)
        if version == 3:
            assert await store.kept_peer_ids(0.0) == [
                (KeepPeerId("room-1", "worker-1", b"\x00\x01\xff"), 100.0)
            ]
        await store.close()
    store = await opened(tmp_path)
    await store.wake_up(1_060.0)
    found = await store.find_room("room-1", 0.0)
    assert found is not None
    assert found.expires_at == (1_100.0 if version == 3 else 100.0)
    await store.close()


async def test_accounts_and_rooms_of_older_versions_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    connection.executescript("".join(OLD_SCHEMA))
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    monkeypatch.setattr(store_module, "MAX_ACCOUNTS", 2)
    monkeypatch.setattr(store_module, "MAX_ROOMS_PER_ACCOUNT", 2)
    store = await opened(tmp_path)
    with pytest.raises(TooMany):
        await store.add_account("eve", 0.0, 100.0)
    with pytest.raises(TooMany):
        await store.add_room(room("room-4"))
    await store.add_room(room("room-4", owner="bob"))
    await store.close()


# -- down for a while --------------------


async def test_the_time_without_a_server_is_nobodys(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.wake_up(0.0)
    await store.add_room(room("room-1", until=100.0))
    await store.add_room(room("room-2", until=40.0))
    await store.stay_awake(60.0)
    await store.close()
    # A night later.
    store = await opened(tmp_path)
    await store.wake_up(30_060.0)
    await store.purge(30_060.0)
    found = await store.find_room("room-1", 30_099.0)
    assert found is not None
    assert found.expires_at == 30_100.0
    assert await store.find_room("room-2", 0.0) is None
    # A second start at once changes nothing, nor does a clock that was set back.
    for now in (30_060.0, 5_000.0):
        await store.wake_up(now)
        assert await store.find_room("room-1", 0.0) == found
    await store.close()


async def test_who_holds_an_id_is_known_after_a_restart(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.add_room(room("room-1"))
    await store.add_room(room("room-2", until=50.0))
    held = [
        KeepPeerId("room-1", "worker-1", b"one"),
        KeepPeerId("room-1", "worker-2", b"two"),
        KeepPeerId("room-2", "worker-1", b"three"),
    ]
    for kept in held:
        await store.keep_peer_id(kept)
    newer = KeepPeerId("room-1", "worker-1", b"newer")
    await store.keep_peer_id(newer)
    await store.drop_peer_id(DropPeerId("room-1", "worker-2"))
    await store.close()
    store = await opened(tmp_path)
    assert await store.kept_peer_ids(0.0) == [(newer, 100.0), (held[2], 50.0)]
    await store.purge(60.0)
    assert await store.kept_peer_ids(0.0) == [(newer, 100.0)]
    await store.close()


def modes_in(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.skipif(sys.platform == "win32", reason="no mode bits")
async def test_the_file_is_private(store: Store, tmp_path: Path) -> None:
    await store.add_room(room())
    assert modes_in(tmp_path) == {0o600}


async def test_what_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"something else" * 100)
    with pytest.raises(StorageFailed, match="db"):
        await opened(tmp_path)


async def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageFailed, match="newer"):
        await opened(tmp_path)


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.check()
    await store.close()
    await store.close()
    with pytest.raises(StorageFailed, match="closed"):
        await store.check()


async def test_many_servers_may_start_on_a_new_file_at_once(tmp_path: Path) -> None:
    opening = (opened(tmp_path) for _ in range(8))
    for store in await asyncio.gather(*opening):
        await store.close()
