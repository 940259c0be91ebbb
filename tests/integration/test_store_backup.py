"""Backups of the store: there and back, cut off, spoiled, and beside newer records."""

import asyncio
import base64
from pathlib import Path

import pytest
from support.signaling_lab import Clock, Lab, config

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.registry.directory_store import DirectoryStore
from sleap_rtc_plugin.registry.object_store import ObjectStore, memory_store
from sleap_rtc_signaling.config import ConfigError, StoreConfig
from sleap_rtc_signaling.instructions import KeepPeerId
from sleap_rtc_signaling.limits import BACKUPS_KEPT, DAY_S
from sleap_rtc_signaling.relay_book import RelayUsage
from sleap_rtc_signaling.server import SignalingServer
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.stores.backup import read_backup, restore, write_backup
from sleap_rtc_signaling.stores.memory import MemoryRecords
from sleap_rtc_signaling.stores.records import Record, RecordKey
from sleap_rtc_signaling.stores.sqlite import SqliteRecords

NOW = 100.0


async def filled() -> Store:
    store = Store(MemoryRecords())
    await store.wake_up(NOW)
    await store.add_account("ann", NOW, 900.0)
    await store.add_account("bob", NOW, 105.0)
    for name in ("room-1", "room-2"):
        await store.add_room(
            Room(room_id=name, owner="ann", created_at=NOW, expires_at=500.0)
        )
    await store.keep_peer_id(KeepPeerId("room-1", "worker-1", b"\x00\xff"))
    await store.add_relayed({(5, "room-1"): ("ann", 70)})
    return store


@pytest.fixture(params=["memory", "folder"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return memory_store()
    (tmp_path / "backups").mkdir()
    return DirectoryStore(tmp_path / "backups")


async def test_there_and_back_into_another_back_end(
    objects: ObjectStore, tmp_path: Path
) -> None:
    written = await write_backup((await filled()).records, objects, NOW)
    data = await read_backup(objects)
    assert len(data) == written.size_bytes
    assert await read_backup(objects, written.key) == data
    records = await SqliteRecords.open(tmp_path / "db")
    done = await restore(records, data, 110.0)
    assert (done.made_at, done.kept, done.ended) == (NOW, 0, 1)
    assert done.written == written.records + written.counters - 1
    store = Store(records)
    assert await store.has_account("ann", 110.0)
    room = await store.find_room("room-2", 110.0)
    assert room is not None
    assert (room.owner, room.expires_at) == ("ann", 500.0)
    assert await store.made_rooms("ann", 110.0) == ["room-1", "room-2"]
    assert await store.kept_peer_ids(110.0) == [
        (KeepPeerId("room-1", "worker-1", b"\x00\xff"), 500.0)
    ]
    assert await store.relayed(5, "room-1", "ann") == RelayUsage(70, 70, 70)
    # The room is not given back the time since the backup's server was there.
    await store.wake_up(120.0)
    assert await store.find_room("room-2", 120.0) == room
    await store.close()


async def test_what_is_newer_stays_unless_asked() -> None:
    store = await filled()
    objects = memory_store()
    await write_backup(store.records, objects, NOW)
    data = await read_backup(objects)
    await store.change_room("room-1", "Newer", None, NOW)
    await store.delete_room("room-2", "ann")
    await store.add_relayed({(5, "room-1"): ("ann", 5)})
    done = await restore(store.records, data, NOW)
    # Only the room that is missing is back.
    assert done.written == 1
    room = await store.find_room("room-1", NOW)
    assert room is not None
    assert room.name == "Newer"
    assert (await store.relayed(5, "room-1", "ann")).room == 75
    done = await restore(store.records, data, NOW, overwrite=True)
    assert done.kept == 0
    room = await store.find_room("room-1", NOW)
    assert room is not None
    assert room.name == ""
    assert (await store.relayed(5, "room-1", "ann")).room == 70


async def test_what_is_cut_off_or_spoiled_changes_nothing() -> None:
    objects = memory_store()
    await write_backup((await filled()).records, objects, NOW)
    data = await read_backup(objects)
    lines = data.splitlines(keepends=True)
    spoiled = [
        b"",
        b"\n",
        b"\xff" * 50,
        data[: len(data) // 2],
        b"".join(lines[:-1]),
        b"".join(lines[1:]),
        b"".join([*lines[:1], *lines[2:]]),
        data.replace(b'"version":1', b'"version":2', 1),
        b"".join([lines[0], b'{"key":["a","b","c"],"value":"%%%"}\n', *lines[2:]]),
        b"".join([lines[0], b'{"key":["a","b","c"]}\n', *lines[2:]]),
    ]
    for each in spoiled:
        records = MemoryRecords()
        with pytest.raises(StorageFailed, match="backup"):
            await restore(records, each, NOW)
        assert await records.kinds() == []
        assert await records.all_counters() == []


async def test_secrets_of_a_moment_are_in_no_backup() -> None:
    records = (await filled()).records
    for kind in ("pairing", "sign-in", "sign-in-flow", "dashboard"):
        await records.create(Record(RecordKey(kind, "1"), b"of a moment"), NOW)
    objects = memory_store()
    await write_backup(records, objects, NOW)
    data = await read_backup(objects)
    assert base64.b64encode(b"of a moment") not in data
    assert b"sign-in" not in data
    # Nor does one that somebody put together bring any in.
    head, *lines, end = data.splitlines(keepends=True)
    forged = (
        lines[0].replace(b'"room"', b'"sign-in"').replace(b'"account"', b'"sign-in"')
    )
    with pytest.raises(StorageFailed, match="no backup holds"):
        await restore(MemoryRecords(), b"".join([head, forged, *lines[1:], end]), NOW)


async def test_a_week_is_kept(objects: ObjectStore) -> None:
    records = (await filled()).records
    keys = [
        (await write_backup(records, objects, NOW + day * DAY_S)).key
        for day in range(BACKUPS_KEPT + 2)
    ]
    assert len(set(keys)) == BACKUPS_KEPT
    data = await read_backup(objects, keys[-1])
    assert (await restore(MemoryRecords(), data, NOW)).made_at == (
        NOW + (BACKUPS_KEPT + 1) * DAY_S
    )
    with pytest.raises(StorageFailed, match="no such"):
        await read_backup(objects, "signaling-backup/day-9.jsonl")
    with pytest.raises(StorageFailed, match="no backup"):
        await read_backup(memory_store())


async def test_a_server_writes_backups(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    store = StoreConfig(backup_to=str(folder), backup_every_s=0.05)
    server = SignalingServer(config(tmp_path, store=store))
    async with server:
        lab = Lab(server, Clock())
        account = await lab.account()
        room_id, token = await lab.room(account)
        objects = DirectoryStore(folder)
        async with asyncio.timeout(20):
            while True:
                try:
                    data = await read_backup(objects)
                except StorageFailed:
                    data = b""
                if room_id.encode() in data:
                    break
                await asyncio.sleep(0.02)
        assert token.encode() not in data
        assert account.encode() not in data
        await lab.close()


async def test_a_place_for_backups_that_cannot_be(tmp_path: Path) -> None:
    store = StoreConfig(backup_to="ftp://nowhere")
    server = SignalingServer(config(tmp_path, store=store))
    with pytest.raises(ConfigError, match="backup_to"):
        await server.start()
