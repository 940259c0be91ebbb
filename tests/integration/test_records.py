"""What every back end of the store must do, each compared with memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dynamodb import Tables, dynamodb_tables

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, StorageFailed
from sleap_rtc_signaling.config import StoreConfig
from sleap_rtc_signaling.limits import MAX_RECORD_BYTES
from sleap_rtc_signaling.stores.dynamodb import DynamoRecords
from sleap_rtc_signaling.stores.memory import MemoryRecords
from sleap_rtc_signaling.stores.records import (
    AT_ANY_TIME,
    Record,
    RecordKey,
    Records,
)
from sleap_rtc_signaling.stores.sqlite import SqliteRecords

KEY = RecordKey("room", "room-1")
Opener = Callable[[], Awaitable[Records]]


@pytest.fixture(scope="module")
def tables() -> Iterator[Tables]:
    with dynamodb_tables() as made:
        yield made


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
async def opener(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Opener]:
    """Opens the same records, as often as one likes where they are shared."""
    opened: list[Records] = []
    if request.param == "memory":
        opened.append(MemoryRecords())

        async def again() -> Records:
            return opened[0]
    elif request.param == "sqlite":

        async def again() -> Records:
            opened.append(await SqliteRecords.open(tmp_path / "db"))
            return opened[-1]
    else:
        config = request.getfixturevalue("tables").make()

        async def again() -> Records:
            opened.append(await DynamoRecords.open(config))
            return opened[-1]

    yield again
    for records in opened:
        await records.close()


@pytest.fixture
async def records(opener: Opener) -> Records:
    return await opener()


def made(
    name: str = "", value: bytes = b"{}", ends: float | None = None, index: str = ""
) -> Record:
    return Record(RecordKey("member", "room-1", name), value, ends, index)


async def test_a_record_is_there_until_it_ends(records: Records) -> None:
    assert await records.get(KEY, 0.0) is None
    written = Record(KEY, b'{"a":"\xc3\xa9"}', 1_732_416_000.1234567, "ann")
    assert await records.create(written, 0.0)
    found = await records.get(KEY, 1_732_416_000.0)
    assert found is not None
    assert found.version > 0
    assert (found.key, found.value, found.expires_at, found.index) == (
        *(written.key, written.value),
        *(written.expires_at, written.index),
    )
    assert await records.get(KEY, 1_732_416_000.1234567) is None
    # Whoever wakes up after a night finds it still.
    assert await records.get(KEY, AT_ANY_TIME) == found


async def test_only_the_first_creates(opener: Opener) -> None:
    first, second = await opener(), await opener()
    assert await first.create(made(ends=10.0), 0.0)
    assert not await second.create(made(value=b"2"), 9.0)
    # One that has ended is none.
    assert await second.create(made(value=b"3"), 10.0)
    found = await first.get(made().key, 10.0)
    assert found is not None
    assert (found.value, found.expires_at) == (b"3", None)


async def test_compare_and_swap(opener: Opener) -> None:
    first, second = await opener(), await opener()
    assert not await first.replace(made(), 0.0)
    await first.create(made(ends=50.0, index="ann"), 0.0)
    read = await second.get(made().key, 0.0)
    assert read is not None
    changed = Record(read.key, b"1", 60.0, "bob", read.version)
    assert await second.replace(changed, 0.0)
    assert not await first.replace(changed, 0.0)
    found = await first.get(read.key, 0.0)
    assert found is not None
    assert found.version != read.version
    assert (found.value, found.expires_at, found.index) == (b"1", 60.0, "bob")
    assert [r.value for r in await first.indexed("member", "bob", 0.0, 9)] == [b"1"]
    assert await first.indexed("member", "ann", 0.0, 9) == []
    assert not await first.replace(found, 60.0)


async def test_a_record_made_anew_is_another(records: Records) -> None:
    await records.create(made(), 0.0)
    before = await records.get(made().key, 0.0)
    assert before is not None
    assert await records.delete(before.key, before.version)
    await records.create(made(value=b"new"), 0.0)
    assert not await records.replace(before, 0.0)
    assert not await records.delete(before.key, before.version)


async def test_deleting(records: Records) -> None:
    assert not await records.delete(KEY)
    await records.create(Record(KEY, b""), 0.0)
    assert not await records.delete(KEY, 7)
    assert await records.delete(KEY)
    assert await records.get(KEY, 0.0) is None


async def test_a_partition_is_in_order_and_bounded(records: Records) -> None:
    for name in ("c", "a", "d", "b", "a-b", ""):
        await records.create(made(name), 0.0)
    await records.create(made("aa", ends=5.0), 0.0)
    await records.create(Record(RecordKey("member", "room-10", "a"), b""), 0.0)
    await records.create(Record(RecordKey("other", "room-1", "a"), b""), 0.0)
    found = await records.partition("member", "room-1", 5.0, 4)
    assert [record.key.name for record in found] == ["", "a", "a-b", "b"]
    everything = await records.partition("member", "room-1", 5.0, 99)
    assert len(everything) == 6
    assert len(await records.everything("member", 5.0)) == 7
    assert len(await records.everything("member", 4.0)) == 8
    assert await records.partition("member", "room-1", 5.0, 0) == []
    assert await records.kinds() == ["member", "other"]


async def test_a_partition_larger_than_a_page(records: Records) -> None:
    large = b"x" * 150_000
    for n in range(12):
        await records.create(made(f"n-{n:02}", large, None if n % 2 else 5.0), 0.0)
    found = await records.partition("member", "room-1", 5.0, 5)
    assert [record.key.name for record in found] == [
        f"n-{n:02}" for n in range(1, 11, 2)
    ]
    assert len(await records.everything("member", 0.0)) == 12


async def test_what_is_too_large_is_refused_before_it_is_sent(
    records: Records,
) -> None:
    with pytest.raises(LocalProtocolError):
        made(value=b"x" * (MAX_RECORD_BYTES + 1))
    assert await records.create(made("x" * 64, b"x" * MAX_RECORD_BYTES), 0.0)


async def test_by_index(records: Records) -> None:
    for n in range(5):
        await records.create(made(f"n-{n}", index="ann" if n % 2 else "bob"), 0.0)
    await records.create(made("ended", index="ann", ends=1.0), 0.0)
    await records.create(Record(KEY, b"", index="ann"), 0.0)
    found = await records.indexed("member", "ann", 1.0, 9)
    assert {record.key.name for record in found} == {"n-1", "n-3"}
    assert len(await records.indexed("member", "ann", 1.0, 1)) == 1
    await records.create(made("none"), 0.0)
    assert await records.indexed("member", "", 0.0, 9) == []


async def test_counters_lose_nothing(opener: Opener) -> None:
    sides = [await opener(), await opener()]
    await asyncio.gather(
        *(sides[n % 2].add(KEY, {"bytes": n, "all-of": 1}, 9.0) for n in range(40))
    )
    assert await sides[0].counters(KEY) == {"bytes": 780, "all-of": 40}
    added = await sides[1].add(KEY, {"bytes": -780, "big": 2**52}, None)
    assert added == {"bytes": 0, "all-of": 40, "big": 2**52}
    assert await sides[0].counters(RecordKey("room", "room-2")) == {}
    # They are no records.
    assert await sides[0].get(KEY, 0.0) is None
    assert await sides[0].everything("room", 0.0) == []
    (kept,) = await sides[0].all_counters()
    assert (kept.key, kept.counters, kept.expires_at) == (KEY, added, 9.0)


async def test_many_want_the_same_at_once(opener: Opener) -> None:
    sides = [await opener(), await opener()]
    created = await asyncio.gather(
        *(sides[n % 2].create(made(value=b"%d" % n), 0.0) for n in range(20))
    )
    assert created.count(True) == 1
    read = await sides[0].get(made().key, 0.0)
    assert read is not None
    swapped = await asyncio.gather(
        *(
            sides[n % 2].replace(Record(read.key, b"%d" % n, version=read.version), 0.0)
            for n in range(20)
        )
    )
    assert swapped.count(True) == 1


async def test_what_is_purged_is_gone_or_never_handed_out(records: Records) -> None:
    await records.create(made("a", ends=5.0), 0.0)
    await records.create(made("b"), 0.0)
    await records.add(KEY, {"n": 1}, None)
    await records.purge(5.0)
    assert [r.key.name for r in await records.everything("member", 5.0)] == ["b"]
    assert await records.counters(KEY) == {"n": 1}


async def test_closed_records_say_so(opener: Opener) -> None:
    records = await opener()
    await records.check()
    await records.close()
    await records.close()
    if not isinstance(records, MemoryRecords):
        with pytest.raises(StorageFailed, match="closed"):
            await records.check()


# -- any calls, compared with memory --------------------

NAMES = st.sampled_from(["", "a", "b"])
KEYS = st.builds(
    RecordKey, st.sampled_from(["x", "y"]), st.sampled_from(["p", "q"]), NAMES
)
ENDS = st.sampled_from([None, 5.0, 10.0, 15.5])
INDEXES = st.sampled_from(["", "i", "j"])
VALUES = st.binary(max_size=3)
TIMES = st.sampled_from([0.0, 5.0, 7.25, 12.0])
CALLS = st.one_of(
    st.tuples(st.just("create"), KEYS, VALUES, ENDS, INDEXES, TIMES),
    st.tuples(st.just("replace"), KEYS, VALUES, ENDS, INDEXES, TIMES),
    st.tuples(st.just("stale"), KEYS, VALUES, ENDS, INDEXES, TIMES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("add"), KEYS, st.integers(-9, 9), ENDS),
)


class Side:
    """One back end, and the versions that were seen there."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.old: dict[RecordKey, int] = {}

    async def call(self, name: str, key: RecordKey, *rest: Any) -> Any:
        if name == "delete":
            return await self.records.delete(key)
        if name == "add":
            amount, ends = rest
            return await self.records.add(key, {"n": amount}, ends)
        value, ends, index, now = rest
        if name == "create":
            return await self.records.create(Record(key, value, ends, index), now)
        found = await self.records.get(key, AT_ANY_TIME)
        version = self.old.get(key, 0) if found is None else found.version
        if name == "stale":
            version = self.old.get(key, 0)
        self.old.setdefault(key, version)
        return await self.records.replace(Record(key, value, ends, index, version), now)

    async def seen(self) -> Any:
        seen: list[Any] = []
        for now in (0.0, 5.0, 12.0):
            for kind in ("x", "y"):
                every = await self.records.everything(kind, now)
                seen.append(sorted(shown(record) for record in every))
                for place in ("p", "q"):
                    listed = await self.records.partition(kind, place, now, 2)
                    seen.append([shown(record) for record in listed])
                found = await self.records.indexed(kind, "i", now, 9)
                seen.append(sorted(shown(record) for record in found))
        counters = await self.records.all_counters()
        seen.append(
            sorted((str(c.key), dict(c.counters), str(c.expires_at)) for c in counters)
        )
        return seen


def shown(record: Record) -> tuple[str, bytes, str, str]:
    return str(record.key), record.value, str(record.expires_at), record.index


async def compare(calls: list[Any], records: Records) -> None:
    sides = [Side(MemoryRecords()), Side(records)]
    for call in calls:
        results = [await side.call(*call) for side in sides]
        assert results[0] == results[1], call
    seen = [await side.seen() for side in sides]
    assert seen[0] == seen[1]


@given(calls=st.lists(CALLS, max_size=25))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sqlite_does_as_memory_does(calls: list[Any], tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "db"
        path.unlink(missing_ok=True)
        records = await SqliteRecords.open(path)
        try:
            await compare(calls, records)
        finally:
            await records.close()

    asyncio.run(run())


@given(calls=st.lists(CALLS, max_size=15))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dynamodb_does_as_memory_does(calls: list[Any], tables: Tables) -> None:
    async def run() -> None:
        records = await DynamoRecords.open(tables.make())
        try:
            await compare(calls, records)
        finally:
            await records.close()

    asyncio.run(run())


# -- when DynamoDB does not do its part --------------------


class Refusing:
    """A client that fails some times before it does what it is asked."""

    def __init__(self, client: Any, code: str, times: int) -> None:
        self.client, self.code, self.times, self.calls = client, code, times, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        if name == "close":
            return real

        def call(**options: Any) -> Any:
            from botocore.exceptions import ClientError, ReadTimeoutError

            self.calls += 1
            if self.calls <= self.times:
                if self.code == "timeout":
                    raise ReadTimeoutError(endpoint_url="http://secret")
                raise ClientError({"Error": {"Code": self.code}}, name)
            return real(**options)

        return call


@pytest.fixture
async def table(tables: Tables) -> AsyncIterator[DynamoRecords]:
    records = await DynamoRecords.open(tables.make())
    yield records
    await records.close()


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "ProvisionedThroughputExceededException"]
)
async def test_throttling_is_waited_out(table: DynamoRecords, code: str) -> None:
    refusing = Refusing(table._client, code, 2)
    table._client = refusing
    assert await table.create(made(), 0.0)
    assert refusing.calls == 3
    assert await table.get(made().key, 0.0) is not None


async def test_throttling_without_an_end_is_told(
    table: DynamoRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleap_rtc_signaling.stores.dynamodb.DYNAMODB_RETRY_S", 0.3)
    table._client = Refusing(table._client, "ThrottlingException", 10**6)
    with pytest.raises(StorageFailed, match="ThrottlingException"):
        await table.create(made(), 0.0)


async def test_a_write_whose_answer_was_lost_is_not_done_twice(
    table: DynamoRecords,
) -> None:
    refusing = Refusing(table._client, "timeout", 1)
    table._client = refusing
    with pytest.raises(StorageFailed) as caught:
        await table.add(KEY, {"n": 1}, None)
    assert refusing.calls == 1
    assert "secret" not in str(caught.value)
    refusing.calls = 0
    assert await table.counters(KEY) == {}
    assert refusing.calls == 2


async def test_no_table_and_no_server_are_told(tables: Tables) -> None:
    config = StoreConfig(kind="dynamodb", table="none", endpoint=tables.endpoint)
    with pytest.raises(StorageFailed, match="ResourceNotFound"):
        await DynamoRecords.open(config)
    config = StoreConfig(kind="dynamodb", table="none", endpoint="no address")
    with pytest.raises(StorageFailed):
        await DynamoRecords.open(config)
