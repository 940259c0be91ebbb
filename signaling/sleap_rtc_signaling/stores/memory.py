"""Records in a dictionary: for tests, and for what nobody misses after a restart."""

from collections.abc import Mapping
from dataclasses import replace

from sleap_rtc_signaling.stores.records import (
    Counters,
    Record,
    RecordKey,
    first_version,
)

__all__ = ["MemoryRecords"]


class MemoryRecords:
    """`Records` that are gone with the process."""

    def __init__(self) -> None:
        self._records: dict[RecordKey, Record] = {}
        self._counters: dict[RecordKey, dict[str, int]] = {}
        self._ends: dict[RecordKey, float] = {}

    async def get(self, key: RecordKey, now: float) -> Record | None:
        """Return a record that has not ended."""
        record = self._records.get(key)
        return record if record is not None and _lives(record, now) else None

    async def create(self, record: Record, now: float) -> bool:
        """Store a new record; False where a living one has its key."""
        if await self.get(record.key, now) is not None:
            return False
        self._records[record.key] = replace(record, version=first_version())
        return True

    async def replace(self, record: Record, now: float) -> bool:
        """Store a record in place of the one with its version."""
        before = await self.get(record.key, now)
        if before is None or before.version != record.version:
            return False
        self._records[record.key] = replace(record, version=record.version + 1)
        return True

    async def delete(self, key: RecordKey, version: int | None = None) -> bool:
        """Delete a record; False where there is none, or not of this version."""
        before = self._records.get(key)
        if before is None or version not in (None, before.version):
            return False
        del self._records[key]
        return True

    async def partition(
        self, kind: str, partition: str, now: float, limit: int
    ) -> list[Record]:
        """Return the first records of a partition, in the order of their names."""
        found = [
            record
            for key, record in self._records.items()
            if (key.kind, key.partition) == (kind, partition) and _lives(record, now)
        ]
        return sorted(found, key=lambda record: record.key.name)[:limit]

    async def indexed(
        self, kind: str, index: str, now: float, limit: int
    ) -> list[Record]:
        """Return records by their index."""
        everything = await self.everything(kind, now)
        found = [record for record in everything if index and record.index == index]
        return found[:limit]

    async def everything(self, kind: str, now: float) -> list[Record]:
        """Return all records of a kind."""
        return [
            record
            for key, record in self._records.items()
            if key.kind == kind and _lives(record, now)
        ]

    async def add(
        self, key: RecordKey, amounts: Mapping[str, int], expires_at: float | None
    ) -> Mapping[str, int]:
        """Add to the counters of a record."""
        counters = self._counters.setdefault(key, {})
        for name, amount in amounts.items():
            counters[name] = counters.get(name, 0) + amount
        if expires_at is not None:
            self._ends[key] = expires_at
        return dict(counters)

    async def counters(self, key: RecordKey) -> Mapping[str, int]:
        """Return the counters that `add` moved."""
        return dict(self._counters.get(key, {}))

    async def kinds(self) -> list[str]:
        """Return which kinds of records there are."""
        return sorted({key.kind for key in self._records})

    async def all_counters(self) -> list[Counters]:
        """Return all counters."""
        return [
            Counters(key, dict(counters), self._ends.get(key))
            for key, counters in self._counters.items()
        ]

    async def purge(self, now: float) -> None:
        """Remove what has ended."""
        for key, record in list(self._records.items()):
            if not _lives(record, now):
                del self._records[key]
        for key, end in list(self._ends.items()):
            if end <= now:
                del self._ends[key]
                self._counters.pop(key, None)

    async def check(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._counters.clear()


def _lives(record: Record, now: float) -> bool:
    return record.expires_at is None or record.expires_at > now
