"""What a store is made of: small records with a version and an end.

Rooms, members, invitations, pairings and the rest are records of different kinds;
what they mean is said elsewhere, once, over the few calls below. So a back end is a
file of a page or two, and every back end behaves the same. A record that has ended is
never handed out, whatever its back end has removed so far.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sleap_rtc_plugin.protocol.errors import LocalProtocolError
from sleap_rtc_signaling.limits import MAX_RECORD_BYTES

__all__ = [
    "AT_ANY_TIME",
    "Counters",
    "Record",
    "RecordKey",
    "Records",
    "first_version",
]

AT_ANY_TIME: Final = 0.0
"""As `now`: every record that is still there, also one that has ended."""

_VERSION_BITS: Final = 48


def first_version() -> int:
    """Return the version of a new record.

    It is random, so that who read a record that was deleted and made anew in the
    meantime cannot replace the new one.
    """
    return secrets.randbits(_VERSION_BITS) + 1


@dataclass(frozen=True)
class RecordKey:
    """Which record: its kind, what it belongs to, and its name therein.

    Attributes:
        kind: such as `room` or `member`; a fixed word of this program.
        partition: such as the room of a member; ids alone, checked by the caller.
        name: such as the member's account; empty where a partition has one record.
    """

    kind: str
    partition: str
    name: str = ""


@dataclass(frozen=True)
class Record:
    """One record.

    Attributes:
        key: which one.
        value: JSON, at most `MAX_RECORD_BYTES`.
        expires_at: when it ends, as Unix time; None where it does not.
        index: a second way to find it with others of its kind, such as the account of
            a member; empty where nobody asks that way.
        version: 0 for one that was never stored; a store begins anywhere, and counts.
    """

    key: RecordKey
    value: bytes
    expires_at: float | None = None
    index: str = ""
    version: int = 0

    def __post_init__(self) -> None:
        """Refuse what not every back end could hold."""
        if len(self.value) > MAX_RECORD_BYTES:
            raise LocalProtocolError(detail=f"a {self.key.kind} record is too large")


@dataclass(frozen=True)
class Counters:
    """The counters of one key, for a backup."""

    key: RecordKey
    counters: Mapping[str, int]
    expires_at: float | None


class Records(Protocol):
    """Where records are kept. All methods may be called at any time, and at once.

    Raises (every method):
        StorageFailed: the back end cannot be used at the moment.
    """

    async def get(self, key: RecordKey, now: float) -> Record | None:
        """Return a record that has not ended."""

    async def create(self, record: Record, now: float) -> bool:
        """Store a new record; False where a living one has its key."""

    async def replace(self, record: Record, now: float) -> bool:
        """Store a record in place of the one with its version (compare and swap).

        False where there is none any more, or another has come in between. A record
        that has ended is none.
        """

    async def delete(self, key: RecordKey, version: int | None = None) -> bool:
        """Delete a record; False where there is none, or not of this version."""

    async def partition(
        self, kind: str, partition: str, now: float, limit: int
    ) -> list[Record]:
        """Return the first records of a partition, in the order of their names."""

    async def indexed(
        self, kind: str, index: str, now: float, limit: int
    ) -> list[Record]:
        """Return records by their index, in no promised order.

        A back end may be some moments late here, and here alone.
        """

    async def everything(self, kind: str, now: float) -> list[Record]:
        """Return all records of a kind: for a start and for a backup, not for use."""

    async def add(
        self, key: RecordKey, amounts: Mapping[str, int], expires_at: float | None
    ) -> Mapping[str, int]:
        """Add to the counters of a record, made where it is missing; atomic.

        Returns:
            All its counters after that. `counters` reads them.
        """

    async def counters(self, key: RecordKey) -> Mapping[str, int]:
        """Return the counters that `add` moved; empty where there are none."""

    async def kinds(self) -> list[str]:
        """Return which kinds of records there are: for a backup, not for use."""

    async def all_counters(self) -> list[Counters]:
        """Return all counters: for a backup, not for use."""

    async def purge(self, now: float) -> None:
        """Remove what has ended, where the back end does not do so by itself."""

    async def check(self) -> None:
        """Raise `StorageFailed` if the back end cannot be used."""

    async def close(self) -> None:
        """Let go of everything; nothing may be called after this."""
