"""PURE: which records a server keeps, and what is in them.

The kinds of records, their keys and their JSON, for everything but the people of a
room, whom `roster` knows. Called by the store and by the move from older files.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.account_messages import Access
from sleap_rtc_signaling.instructions import KeepPeerId
from sleap_rtc_signaling.limits import DAY_S, ROOM_MAKING_S
from sleap_rtc_signaling.stores.records import Record, RecordKey

__all__ = [
    "ACCOUNT",
    "BYTES",
    "KEPT",
    "LEFT_BEHIND",
    "MADE",
    "MEMBERSHIP",
    "ROOM",
    "ROSTER",
    "Awake",
    "Made",
    "Room",
    "account_counter",
    "account_counters",
    "account_key",
    "account_record",
    "awake_key",
    "awake_of",
    "awake_record",
    "kept_key",
    "kept_of",
    "kept_record",
    "living_accounts",
    "made_key",
    "made_of",
    "made_record",
    "relayed_amounts",
    "relayed_ends",
    "relayed_keys",
    "room_key",
    "room_of",
    "room_record",
    "rooms_behind",
]

ACCOUNT: Final = "account"
ROOM: Final = "room"
KEPT: Final = "kept-id"
MADE: Final = "rooms-made"
ROSTER: Final = "roster"
MEMBERSHIP: Final = "membership"
BYTES: Final = "bytes"

_HOUR_S: Final = 3600.0
# The accounts that end in these hours are counted in one record.
_HOURS_COUNTED_TOGETHER: Final = 240


# -- accounts -----------------------------------------------------------------------


class _Account(Struct, frozen=True):
    created_at: float


def account_key(account_id: str) -> RecordKey:
    """Return where an account is."""
    return RecordKey(ACCOUNT, account_id)


def account_record(account_id: str, created_at: float, expires_at: float) -> Record:
    """Return an account as a record."""
    value = msgspec.json.encode(_Account(created_at))
    return Record(account_key(account_id), value, expires_at)


def account_counter(expires_at: float) -> tuple[RecordKey, str, float]:
    """Return where an account is counted, by the hour in which it ends.

    Returns:
        The counters' key, which of them, and when nobody needs them any more.
    """
    hour = int(expires_at // _HOUR_S)
    era = hour // _HOURS_COUNTED_TOGETHER
    ends = (era + 1) * _HOURS_COUNTED_TOGETHER * _HOUR_S
    return RecordKey("accounts", str(era)), f"h{hour}", ends


def account_counters(now: float, expires_at: float) -> list[RecordKey]:
    """Return where all accounts that end between two times are counted."""
    first, last = (
        int(at // _HOUR_S) // _HOURS_COUNTED_TOGETHER for at in (now, expires_at)
    )
    return [RecordKey("accounts", str(era)) for era in range(first, last + 1)]


def living_accounts(counters: Mapping[str, int], now: float) -> int:
    """Add up the accounts of one record of counters that have not ended."""
    hour = int(now // _HOUR_S)
    return sum(n for name, n in counters.items() if int(name[1:]) >= hour)


# -- rooms --------------------------------------------------------------------------


class Room(Struct, frozen=True, kw_only=True):
    """A room; times are Unix seconds.

    Attributes:
        room_id: which one.
        owner: the account that made it, and to which relayed bytes are counted.
        created_at: since when it is.
        expires_at: when it ends.
        name: what its members call it; may be empty.
        access: who may enter.
        lifetime_s: how long it lives after it was used last, with or without a worker;
            0 where a worker alone keeps it.
    """

    room_id: str
    owner: str
    created_at: float
    expires_at: float
    name: str = ""
    access: Access = "open"
    lifetime_s: float = 0.0


class _RoomValue(Struct, frozen=True):
    owner: str
    created_at: float
    name: str = ""
    access: Access = "open"
    lifetime_s: float = 0.0
    woken_at: float = 0.0


class Made(Struct, frozen=True):
    """A room among those that an account has made."""

    room_id: str
    at: float


def room_key(room_id: str) -> RecordKey:
    """Return where a room is."""
    return RecordKey(ROOM, room_id)


def room_record(room: Room, version: int = 0, woken_at: float = 0.0) -> Record:
    """Return a room as a record."""
    value = _RoomValue(
        owner=room.owner,
        created_at=room.created_at,
        name=room.name,
        access=room.access,
        lifetime_s=room.lifetime_s,
        woken_at=woken_at,
    )
    return Record(
        room_key(room.room_id),
        msgspec.json.encode(value),
        room.expires_at,
        version=version,
    )


def room_of(record: Record) -> tuple[Room, float]:
    """Return the room of a record, and to which time it was woken last."""
    value = msgspec.json.decode(record.value, type=_RoomValue)
    room = Room(
        room_id=record.key.partition,
        owner=value.owner,
        created_at=value.created_at,
        expires_at=record.expires_at or 0.0,
        name=value.name,
        access=value.access,
        lifetime_s=value.lifetime_s,
    )
    return room, value.woken_at


def made_key(owner: str) -> RecordKey:
    """Return where the rooms that an account has made are listed."""
    return RecordKey(MADE, owner)


def made_record(owner: str, made: Sequence[Made], version: int = 0) -> Record:
    """Return the list of an account's rooms as a record."""
    return Record(made_key(owner), msgspec.json.encode(made), version=version)


def made_of(record: Record | None) -> list[Made]:
    """Return the rooms that an account has made; some may be gone."""
    return [] if record is None else msgspec.json.decode(record.value, type=list[Made])


LEFT_BEHIND: Final = (KEPT, ROSTER, MEMBERSHIP, MADE)
"""The kinds of records that a room leaves behind where it ends by itself."""


def rooms_behind(record: Record, now: float) -> list[str] | None:
    """Return the rooms without which a record is of no use.

    Returns:
        None where it must stay in any case, since a room is just being made.
    """
    if record.key.kind == MEMBERSHIP:
        return [record.key.name]
    if record.key.kind != MADE:
        return [record.key.partition]
    made = made_of(record)
    if any(each.at > now - ROOM_MAKING_S for each in made):
        return None
    return [each.room_id for each in made]


# -- times and ids ------------------------------------------------------------------


class Awake(Struct, frozen=True):
    """When a server was there last; `waking_to` while rooms are given time back."""

    at: float
    waking_to: float | None = None


def awake_key() -> RecordKey:
    """Return where it is written down that a server is there."""
    return RecordKey("time", "awake-at")


def awake_record(awake: Awake, version: int = 0) -> Record:
    """Return it as a record."""
    return Record(awake_key(), msgspec.json.encode(awake), version=version)


def awake_of(record: Record) -> Awake:
    """Return when a server was there last."""
    return msgspec.json.decode(record.value, type=Awake)


def kept_key(room_id: str, peer_id: str) -> RecordKey:
    """Return where it is written down who holds an id."""
    return RecordKey(KEPT, room_id, peer_id)


def kept_record(
    room_id: str, peer_id: str, resume_digest: bytes, version: int = 0
) -> Record:
    """Return who holds an id as a record."""
    value = base64.b64encode(resume_digest)
    return Record(
        kept_key(room_id, peer_id), msgspec.json.encode(value.decode()), version=version
    )


def kept_of(record: Record) -> KeepPeerId:
    """Return who holds an id."""
    digest = base64.b64decode(msgspec.json.decode(record.value, type=str))
    return KeepPeerId(record.key.partition, record.key.name, digest)


# -- what was relayed ---------------------------------------------------------------


def relayed_keys(day: int, room_id: str, account_id: str) -> tuple[RecordKey, ...]:
    """Return where the bytes of a room, of an account, and all bytes are counted."""
    return (
        RecordKey("relayed-room", str(day), room_id),
        RecordKey("relayed-account", str(day), account_id),
        RecordKey("relayed-total", str(day)),
    )


def relayed_amounts(
    rows: Mapping[tuple[int, str], tuple[str, int]],
) -> dict[RecordKey, int]:
    """Return what is to be added where: day and room -> account and bytes."""
    amounts: dict[RecordKey, int] = {}
    for (day, room_id), (account_id, size_bytes) in rows.items():
        for key in relayed_keys(day, room_id, account_id):
            amounts[key] = amounts.get(key, 0) + size_bytes
    return amounts


def relayed_ends(day: int) -> float:
    """Return when nobody asks any more what was relayed on a day."""
    return (day + 2) * DAY_S
