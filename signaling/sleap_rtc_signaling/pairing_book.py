"""The pairings that wait for their other side, as records that end by themselves.

A number is good for one claim, whatever comes of it: who guesses wrong has spent it.
What the two sides say to each other passes through here and means nothing to the
server. Every step is a compare-and-swap, so several instances may serve one pairing.
Called by the routes of pairing.
"""

import hashlib
import hmac
import secrets
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sleap_rtc_plugin.protocol.account_messages import Pairing, PairingState
from sleap_rtc_plugin.protocol.errors import PairingRefused, TooMany
from sleap_rtc_plugin.protocol.limits import MAX_PAIRING_NUMBER, PAIRING_LIFETIME_S
from sleap_rtc_signaling.limits import (
    MAX_PAIRING_TRIES,
    MAX_PAIRINGS_PER_ROOM,
    SHORT_PAIRING_NUMBERS,
)
from sleap_rtc_signaling.stores.records import Record, RecordKey, Records

__all__ = ["PairingBook"]

_KIND: Final = "pairing"
_KEY_BYTES: Final = 24
_ENDED: Final = "it was used, has expired, or never was"


class _Entry(Struct, frozen=True, kw_only=True):
    """What is kept of a pairing; of the two keys only digests."""

    state: Literal["open", "claimed", "answered", "done", "failed"] = "open"
    owner_digest: str
    claim_digest: str = ""
    worker_message: str
    claimer_message: str = ""
    proof: str = ""
    sealed: str = ""


class PairingBook:
    """All open pairings of the servers on one store.

    Args:
        records: where they are.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def open(self, room_id: str, message: str, now: float) -> Pairing:
        """Open a pairing for a room.

        Args:
            room_id: whose session string it will hand over.
            message: the worker's SPAKE2 message.
            now: Unix time in seconds.

        Raises:
            TooMany: the room or the server has as many as it may.
        """
        room = await self._records.indexed(_KIND, room_id, now, MAX_PAIRINGS_PER_ROOM)
        if len(room) >= MAX_PAIRINGS_PER_ROOM:
            limit = str(MAX_PAIRINGS_PER_ROOM)
            raise TooMany(what="open pairings of this room", limit=limit)
        owner_key = secrets.token_urlsafe(_KEY_BYTES)
        entry = _Entry(owner_digest=_digest(owner_key), worker_message=message)
        expires_at = now + PAIRING_LIFETIME_S
        for attempt in range(MAX_PAIRING_TRIES):
            # Short numbers first: they are read aloud.
            among = SHORT_PAIRING_NUMBERS * 10 ** min(attempt // 4, 2)
            number = secrets.randbelow(min(among, MAX_PAIRING_NUMBER)) + 1
            record = Record(
                _key(number), msgspec.json.encode(entry), expires_at, room_id
            )
            if await self._records.create(record, now):
                return Pairing(
                    number=number, owner_key=owner_key, expires_at=expires_at
                )
        raise TooMany(what="open pairings on this server", limit="its numbers")

    async def claim(self, number: int, now: float) -> PairingState:
        """Take the one try that a number has.

        Raises:
            PairingRefused: somebody had it before, or there is no such number.
        """
        record, entry = await self._find(number, now)
        if entry.state != "open":
            raise PairingRefused(reason=_ENDED)
        claim_key = secrets.token_urlsafe(_KEY_BYTES)
        claimed = replace(entry, state="claimed", claim_digest=_digest(claim_key))
        await self._swap(record, claimed, now)
        return PairingState(
            state="claimed", message=entry.worker_message, claim_key=claim_key
        )

    async def answer(
        self, number: int, key: str, message: str, proof: str, now: float
    ) -> PairingState:
        """Leave the claimer's message and proof for the worker.

        Raises:
            PairingRefused: the key is not the claimer's, or it has answered before.
        """
        record, entry = await self._find(number, now)
        if entry.state != "claimed" or not _fits(key, entry.claim_digest):
            raise PairingRefused(reason=_ENDED)
        answered = replace(
            entry, state="answered", claimer_message=message, proof=proof
        )
        await self._swap(record, answered, now)
        return PairingState(state="answered")

    async def finish(
        self, number: int, key: str, sealed: str, now: float
    ) -> PairingState:
        """Leave what the worker sealed for the claimer; nothing means that it failed.

        Raises:
            PairingRefused: the key is not the worker's, or there is no answer yet.
        """
        record, entry = await self._find(number, now)
        if entry.state != "answered" or not _fits(key, entry.owner_digest):
            raise PairingRefused(reason=_ENDED)
        state: Literal["done", "failed"] = "done" if sealed else "failed"
        await self._swap(record, replace(entry, state=state, sealed=sealed), now)
        return PairingState(state=state)

    async def look(self, number: int, key: str, now: float) -> PairingState:
        """Tell one of the two sides how far it is.

        Raises:
            PairingRefused: the key is of neither side, or the pairing has ended.
        """
        _, entry = await self._find(number, now)
        if _fits(key, entry.owner_digest):
            return PairingState(
                state=entry.state, message=entry.claimer_message, sealed=entry.proof
            )
        if _fits(key, entry.claim_digest):
            return PairingState(state=entry.state, sealed=entry.sealed)
        raise PairingRefused(reason=_ENDED)

    async def close(self, number: int, key: str, now: float) -> None:
        """Take a pairing back; nothing happens where it has ended.

        Raises:
            PairingRefused: the key is not the worker's.
        """
        record, entry = await self._find(number, now)
        if not _fits(key, entry.owner_digest):
            raise PairingRefused(reason=_ENDED)
        await self._records.delete(record.key, record.version)

    async def _find(self, number: int, now: float) -> tuple[Record, _Entry]:
        record = await self._records.get(_key(number), now)
        if record is None:
            raise PairingRefused(reason=_ENDED)
        return record, msgspec.json.decode(record.value, type=_Entry)

    async def _swap(self, record: Record, entry: _Entry, now: float) -> None:
        changed = Record(
            record.key,
            msgspec.json.encode(entry),
            record.expires_at,
            record.index,
            record.version,
        )
        if not await self._records.replace(changed, now):
            raise PairingRefused(reason=_ENDED)


def _key(number: int) -> RecordKey:
    return RecordKey(_KIND, str(number))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _fits(key: str, digest: str) -> bool:
    return bool(digest) and hmac.compare_digest(_digest(key), digest)
