"""A store's records and counters as one file of JSON lines, and back again.

The file holds no token and no key, but hashes of secrets and the names of people: it
is for the administrator alone. What changes while it is made is in it as before or as
after. Called by the server now and then, and by the command.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.errors import RtcError, StorageFailed
from sleap_rtc_plugin.registry.object_store import ObjectMissing, ObjectStore
from sleap_rtc_signaling.limits import (
    BACKUP_CHECK_S,
    BACKUPS_KEPT,
    DAY_S,
    MAX_BACKUP_BYTES,
    MAX_BACKUP_LINE_BYTES,
    MAX_STORE_TRIES,
)
from sleap_rtc_signaling.stores.records import (
    AT_ANY_TIME,
    Counters,
    Record,
    RecordKey,
    Records,
)

__all__ = [
    "Backup",
    "Restored",
    "keep_backups",
    "read_backup",
    "restore",
    "write_backup",
]

_log = logging.getLogger(__name__)

_FORMAT: Final = "sleap-signaling-backup"
_VERSION: Final = 1
_FOLDER: Final = "signaling-backup"
_PIECE_BYTES: Final = 1024 * 1024
_LAST: Final = RecordKey("time", "backed-up-at")
# Times belong to the servers that run. Pairings and sign-ins are secrets of a moment,
# and one that was ended since would come back: after a restore, people sign in anew.
_NOT_KEPT: Final = frozenset(
    {"time", "pairing", "sign-in", "sign-in-flow", "dashboard"}
)


class _Line(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line: the head, a record, the counters of a key, or the end."""

    format: str = ""
    version: int = 0
    made_at: float = 0.0
    key: tuple[str, str, str] | None = None
    value: str | None = None
    index: str = ""
    expires_at: float | None = None
    counters: dict[str, int] | None = None
    lines: int | None = None


class Backup(Struct, frozen=True, kw_only=True):
    """A backup that was written.

    Attributes:
        key: under which it lies in the object store.
        size_bytes: how large it is.
        records: how many records it holds.
        counters: how many counters' keys it holds.
    """

    key: str
    size_bytes: int
    records: int
    counters: int


class Restored(Struct, frozen=True, kw_only=True):
    """What became of a backup's lines.

    Attributes:
        made_at: when it was made, as Unix time.
        written: records and counters that are in the store now.
        kept: those of which the store has its own, which stayed.
        ended: records whose time was over.
    """

    made_at: float
    written: int = 0
    kept: int = 0
    ended: int = 0


async def write_backup(records: Records, store: ObjectStore, now: float) -> Backup:
    """Write everything into an object store; the backups of a week are kept.

    Raises:
        StorageFailed: the records cannot be read, or are too many for a backup.
        RtcError: the object store cannot be written (`StoreUnreachable` and others).
    """
    found = [
        record
        for kind in await records.kinds()
        if kind not in _NOT_KEPT
        for record in await records.everything(kind, now)
    ]
    counters = await records.all_counters()
    data = await asyncio.to_thread(_encoded, found, counters, now)
    if len(data) > MAX_BACKUP_BYTES:
        raise StorageFailed(place="the backup", reason="it would be too large")
    key = f"{_FOLDER}/day-{int(now // DAY_S) % BACKUPS_KEPT}.jsonl"
    await store.write(key, len(data), _pieces(data))
    return Backup(
        key=key, size_bytes=len(data), records=len(found), counters=len(counters)
    )


async def read_backup(store: ObjectStore, key: str = "") -> bytes:
    """Return a backup from an object store: the one under a key, or the newest.

    Raises:
        StorageFailed: there is none, or it is too large.
        RtcError: the object store cannot be read.
    """
    if not key:
        entries = [entry async for entry in store.entries(_FOLDER)]
        entries = [entry for entry in entries if entry.key.endswith(".jsonl")]
        if not entries:
            raise StorageFailed(place=store.name, reason="it holds no backup")
        key = max(entries, key=lambda entry: entry.modified_at).key
    found = await store.look(key)
    if found is None:
        raise StorageFailed(place=store.name, reason="it holds no such backup")
    if found.size_bytes > MAX_BACKUP_BYTES:
        raise StorageFailed(place=store.name, reason="its backup is too large")
    try:
        pieces = [piece async for piece in store.pieces(key, found.size_bytes)]
    except ObjectMissing:
        raise StorageFailed(place=store.name, reason="its backup is gone") from None
    return b"".join(pieces)


async def restore(
    records: Records, data: bytes, now: float, *, overwrite: bool = False
) -> Restored:
    """Put a backup's records and counters into a store.

    What the store has is newer than any backup of it, so it stays, unless `overwrite`
    asks for the backup's. Whole lines only: a file that is cut off or spoiled changes
    nothing.

    Raises:
        StorageFailed: the backup cannot be read, or the store cannot be used.
    """
    head, *rest = list(_read(data))
    counted = Restored(made_at=head.made_at)
    for line in rest:
        assert line.key is not None  # noqa: S101 -- `_read` looked
        key = RecordKey(*line.key)
        if line.counters is not None:
            is_written = await _restore_counters(records, key, line, overwrite)
        elif line.expires_at is not None and line.expires_at <= now:
            counted = replace(counted, ended=counted.ended + 1)
            continue
        else:
            is_written = await _restore_record(records, key, line, now, overwrite)
        if is_written:
            counted = replace(counted, written=counted.written + 1)
        else:
            counted = replace(counted, kept=counted.kept + 1)
    return counted


async def keep_backups(
    records: Records,
    store: ObjectStore,
    every_s: float,
    clock: Callable[[], float],
) -> None:
    """Write a backup now and then, for ever; of several servers one does so."""
    while True:
        now = clock()
        turn = Record(_LAST, b"{}", now + every_s)
        try:
            if await records.create(turn, now):
                try:
                    await write_backup(records, store, now)
                except BaseException:
                    # So that it is tried again soon, by this server or another.
                    await records.delete(_LAST)
                    raise
        except RtcError as error:
            _log.error("could not write a backup: %s", error)
        await asyncio.sleep(min(every_s, BACKUP_CHECK_S))


# -- lines ----------------------------------------------------------------------------


def _encoded(
    records: Sequence[Record], counters: Sequence[Counters], now: float
) -> bytes:
    lines = [_Line(format=_FORMAT, version=_VERSION, made_at=now)]
    lines += map(_record_line, records)
    lines += map(_counters_line, counters)
    lines.append(_Line(lines=len(lines) - 1))
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _record_line(record: Record) -> _Line:
    key = record.key
    return _Line(
        key=(key.kind, key.partition, key.name),
        value=base64.b64encode(record.value).decode(),
        index=record.index,
        expires_at=record.expires_at,
    )


def _counters_line(counters: Counters) -> _Line:
    key = counters.key
    return _Line(
        key=(key.kind, key.partition, key.name),
        counters=dict(counters.counters),
        expires_at=counters.expires_at,
    )


def _read(data: bytes) -> Iterator[_Line]:
    """Yield the head and the lines, once all of them are known to be good."""
    lines = data.splitlines()
    decoder = msgspec.json.Decoder(_Line)
    try:
        if any(len(line) > MAX_BACKUP_LINE_BYTES for line in lines):
            raise ValueError
        decoded = [decoder.decode(line) for line in lines]
        for line in decoded:
            base64.b64decode(line.value or "", validate=True)
    except (msgspec.MsgspecError, ValueError):
        raise _spoiled("it is not a backup") from None
    if not decoded or decoded[0].format != _FORMAT:
        raise _spoiled("it is not a backup")
    if decoded[0].version > _VERSION:
        raise _spoiled("a newer version made it")
    if len(decoded) < 2 or decoded[-1].lines != len(decoded) - 2:
        raise _spoiled("its end is missing")
    for line in decoded[1:-1]:
        if line.key is None or (line.value is None) == (line.counters is None):
            raise _spoiled("it is not a backup")
        if line.key[0] in _NOT_KEPT and line.counters is None:
            raise _spoiled("it holds what no backup holds")
    yield from decoded[:-1]


async def _restore_record(
    records: Records, key: RecordKey, line: _Line, now: float, overwrite: bool
) -> bool:
    value = base64.b64decode(line.value or "")
    record = Record(key, value, line.expires_at, line.index)
    for _ in range(MAX_STORE_TRIES):
        if await records.create(record, now):
            return True
        if not overwrite:
            return False
        found = await records.get(key, AT_ANY_TIME)
        if found is None:
            continue
        swapped = Record(key, value, line.expires_at, line.index, found.version)
        if await records.replace(swapped, AT_ANY_TIME):
            return True
    return False


async def _restore_counters(
    records: Records, key: RecordKey, line: _Line, overwrite: bool
) -> bool:
    wanted = line.counters or {}
    present = await records.counters(key)
    if present and not overwrite:
        return False
    amounts = {name: n - present.get(name, 0) for name, n in wanted.items()}
    await records.add(key, amounts, line.expires_at)
    return True


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]


def _spoiled(reason: str) -> StorageFailed:
    return StorageFailed(place="the backup", reason=reason)
