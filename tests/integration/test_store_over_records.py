"""What the store means, over each of its back ends, with two servers on it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.dynamodb import Tables, dynamodb_tables

from sleap_rtc_plugin.protocol.errors import StorageFailed, TooMany
from sleap_rtc_plugin.protocol.limits import MAX_ROOMS_PER_ACCOUNT
from sleap_rtc_signaling.instructions import DropPeerId, KeepPeerId
from sleap_rtc_signaling.limits import ROOM_MAKING_S, SWEEP_INTERVAL_S
from sleap_rtc_signaling.relay_book import RelayUsage
from sleap_rtc_signaling.stores import Room, Store
from sleap_rtc_signaling.stores import store as store_module
from sleap_rtc_signaling.stores.dynamodb import DynamoRecords
from sleap_rtc_signaling.stores.memory import MemoryRecords
from sleap_rtc_signaling.stores.records import AT_ANY_TIME, Record, RecordKey
from sleap_rtc_signaling.stores.sqlite import SqliteRecords

Stores = tuple[Store, Store]


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    with dynamodb_tables() as found:
        yield found


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Stores]:
    """The same store as two servers see it."""
    if request.param == "memory":
        shared = MemoryRecords()
        both = Store(shared), Store(shared)
    elif request.param == "sqlite":
        path = tmp_path / "db"
        both = (
            Store(await SqliteRecords.open(path)),
            Store(await SqliteRecords.open(path)),
        )
    else:
        config = request.getfixturevalue("tables").make()
        both = (
            Store(await DynamoRecords.open(config)),
            Store(await DynamoRecords.open(config)),
        )
    yield both
    for store in both:
        await store.close()


def room(name: str, until: float, made: float = 0.0, owner: str = "ann") -> Room:
    return Room(room_id=name, owner=owner, created_at=made, expires_at=until)


async def test_accounts_are_bounded_at_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_ACCOUNTS", 7)
    results = await asyncio.gather(
        *(stores[n % 2].add_account(f"a-{n}", 0.0, 5_000.0) for n in range(20)),
        return_exceptions=True,
    )
    # Never more; of those who come at once one too few may get in.
    assert 1 <= results.count(None) <= 7
    assert all(isinstance(r, TooMany) for r in results if r is not None)
    while results.count(None) < 7:
        await stores[0].add_account(f"late-{len(results)}", 0.0, 5_000.0)
        results.append(None)
    with pytest.raises(TooMany):
        await stores[1].add_account("one-too-many", 0.0, 9_000_000.0)
    # Those that have ended make room.
    await stores[1].add_account("later", 9_000.0, 9_000_000.0)
    assert await stores[0].has_account("later", 8_000_000.0)


async def test_rooms_are_bounded_at_once_and_gone_ones_make_place(
    stores: Stores,
) -> None:
    results = await asyncio.gather(
        *(
            stores[n % 2].add_room(room(f"room-{n}", 100.0))
            for n in range(MAX_ROOMS_PER_ACCOUNT + 4)
        ),
        return_exceptions=True,
    )
    assert results.count(None) == MAX_ROOMS_PER_ACCOUNT
    assert sum(isinstance(result, TooMany) for result in results) == 4
    (first, *_) = await stores[1].made_rooms("ann", 0.0)
    assert await stores[1].delete_room(first, "ann")
    await stores[0].add_room(room("room-new", 900.0))
    with pytest.raises(TooMany):
        await stores[0].add_room(room("room-more", 900.0))
    await stores[0].add_room(room("room-later", 900.0, made=100.0))
    assert len(await stores[0].made_rooms("ann", 100.0)) == 2


async def test_time_is_given_back_once_whoever_starts(stores: Stores) -> None:
    await stores[0].wake_up(0.0)
    for n in range(6):
        await stores[0].add_room(room(f"room-{n}", 100.0, made=1.0))
    await stores[0].add_room(room("ended", 40.0, made=1.0))
    await stores[0].stay_awake(60.0)
    # A night later two servers start at once.
    await asyncio.gather(*(store.wake_up(30_060.0) for store in stores))
    await stores[1].wake_up(30_060.0)
    for n in range(6):
        found = await stores[0].find_room(f"room-{n}", 30_060.0)
        assert found is not None
        assert found.expires_at == 30_100.0
    assert await stores[0].find_room("ended", 30_060.0) is None


async def test_time_is_given_back_also_where_it_was_cut_off(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stores[0].wake_up(0.0)
    for n in range(5):
        await stores[0].add_room(room(f"room-{n}", 100.0, made=1.0))
    await stores[0].stay_awake(60.0)
    replaced = 0
    replace = stores[0].records.replace

    async def dies(*args: object) -> bool:
        nonlocal replaced
        replaced += 1
        if replaced > 3:
            raise StorageFailed(place="the disk", reason="it is gone")
        return await replace(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(stores[0].records, "replace", dies)
        with pytest.raises(StorageFailed):
            await stores[0].wake_up(1_060.0)
    await stores[1].wake_up(2_060.0)
    ends = set()
    for n in range(5):
        found = await stores[1].find_room(f"room-{n}", AT_ANY_TIME)
        assert found is not None
        ends.add(found.expires_at)
    # All the same, and by the whole time.
    assert ends == {2_100.0}


async def test_ids_relayed_bytes_and_what_rooms_leave_behind(stores: Stores) -> None:
    one, other = stores
    await one.add_room(room("room-1", 500.0))
    await one.add_room(room("room-2", 90.0))
    held = [
        KeepPeerId("room-1", "worker-1", b"\x00\xff"),
        KeepPeerId("room-1", "worker-2", b"two"),
        KeepPeerId("room-2", "worker-1", b"three"),
    ]
    for kept in held:
        await one.keep_peer_id(kept)
    await other.keep_peer_id(KeepPeerId("room-1", "worker-1", b"newer"))
    await other.drop_peer_id(DropPeerId("room-1", "worker-2"))
    expected = (KeepPeerId("room-1", "worker-1", b"newer"), 500.0)
    assert await other.kept_peer_ids(0.0) == [expected, (held[2], 90.0)]
    assert await other.kept_peer_ids(90.0) == [expected]

    await asyncio.gather(
        *(s.add_relayed({(5, "room-1"): ("ann", 10)}) for s in stores * 5),
        other.add_relayed({(5, "room-9"): ("bob", 1)}),
    )
    assert await one.relayed(5, "room-1", "ann") == RelayUsage(100, 100, 101)

    await one.remove_room(room("room-2", 90.0))
    later = max(SWEEP_INTERVAL_S, ROOM_MAKING_S) + 1.0
    await one.purge(0.0)
    await one.renew_room("room-1", 10 * later)
    await other.purge(later)
    kinds = await one.records.everything("kept-id", later)
    assert [record.key.partition for record in kinds] == ["room-1"]


class _Late(MemoryRecords):
    """Shows one room only from the second look on: it is being made just now."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    async def get(self, key: RecordKey, now: float) -> Record | None:
        if key == RecordKey("room", "room-3"):
            self.looks += 1
            if self.looks == 1:
                return None
        return await super().get(key, now)


async def test_a_room_that_is_being_made_keeps_its_place() -> None:
    records = _Late()
    store = Store(records)
    for n in range(MAX_ROOMS_PER_ACCOUNT):
        await store.add_room(room(f"room-{n}", 100.0))
    records.looks = 0
    with pytest.raises(TooMany):
        await store.add_room(room("one-too-many", 100.0))
