"""Accounts, rooms, and what was relayed: their meaning, over any back end's records.

Bounds hold for all servers on the same records together: a change is a compare-and-swap
that is tried again, or a counter. Who may do what in a room is not said here but in
`people`. Called by the server's parts, at any time and at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from sleap_rtc_plugin.protocol.account_messages import Access
from sleap_rtc_plugin.protocol.errors import StorageFailed, TooMany
from sleap_rtc_plugin.protocol.limits import MAX_ROOMS_PER_ACCOUNT
from sleap_rtc_signaling.instructions import DropPeerId, KeepPeerId
from sleap_rtc_signaling.limits import (
    MAX_ACCOUNTS,
    MAX_STORE_CALLS_AT_ONCE,
    MAX_STORE_TRIES,
    ROOM_MAKING_S,
    SWEEP_INTERVAL_S,
)
from sleap_rtc_signaling.relay_book import RelayUsage
from sleap_rtc_signaling.stores import layout
from sleap_rtc_signaling.stores.layout import Awake, Made, Room
from sleap_rtc_signaling.stores.records import (
    AT_ANY_TIME,
    Record,
    RecordKey,
    Records,
)

__all__ = ["Store", "contended"]

_SWEPT: Final = RecordKey("time", "swept-at")


def contended() -> StorageFailed:
    """Return the error of a change that others came before too often."""
    return StorageFailed(
        place="the server's store", reason="too many change it at once"
    )


class Store:
    """What the server remembers.

    Args:
        records: where it is kept; closed with the store.
    """

    def __init__(self, records: Records) -> None:
        self.records: Final = records

    async def put(self, record: Record, now: float) -> bool:
        """Create a record that was not there, or replace the one that was."""
        if record.version:
            return await self.records.replace(record, now)
        return await self.records.create(record, now)

    # -- accounts -----------------------------------------------------------------

    async def add_account(
        self, account_id: str, created_at: float, expires_at: float
    ) -> None:
        """Remember an account.

        Raises:
            TooMany: the store holds as many accounts as it may.
        """
        # Counted first and taken back where it was one too many, so that those who
        # come at once never pass the bound together.
        key, counter, ends = layout.account_counter(expires_at)
        counted = layout.living_accounts(
            await self.records.add(key, {counter: 1}, ends), created_at
        )
        for other in layout.account_counters(created_at, expires_at):
            if other != key:
                more = await self.records.counters(other)
                counted += layout.living_accounts(more, created_at)
        record = layout.account_record(account_id, created_at, expires_at)
        if counted > MAX_ACCOUNTS or not await self.records.create(record, created_at):
            await self.records.add(key, {counter: -1}, ends)
            raise TooMany(what="accounts on this server", limit=str(MAX_ACCOUNTS))

    async def has_account(self, account_id: str, now: float) -> bool:
        """Tell whether the account exists and has not expired."""
        return await self.records.get(layout.account_key(account_id), now) is not None

    # -- rooms --------------------------------------------------------------------

    async def add_room(self, room: Room) -> None:
        """Remember a room.

        Raises:
            TooMany: its owner has as many living rooms as an account may have.
        """
        now = room.created_at
        key = layout.made_key(room.owner)
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(key, now)
            made = layout.made_of(record)
            if len(made) >= MAX_ROOMS_PER_ACCOUNT:
                made = await self._living(made, now)
            if len(made) >= MAX_ROOMS_PER_ACCOUNT:
                limit = str(MAX_ROOMS_PER_ACCOUNT)
                raise TooMany(what="rooms of this account", limit=limit)
            made.append(Made(room.room_id, now))
            version = 0 if record is None else record.version
            changed = layout.made_record(room.owner, made, version)
            if await self.put(changed, now):
                break
        else:
            raise contended()
        if not await self.records.create(layout.room_record(room), now):
            raise StorageFailed(place="the server's store", reason="the room exists")

    async def find_room(self, room_id: str, now: float) -> Room | None:
        """Return a room that has not expired."""
        record = await self.records.get(layout.room_key(room_id), now)
        return None if record is None else layout.room_of(record)[0]

    async def made_rooms(self, account_id: str, now: float) -> list[str]:
        """Return the rooms that an account has made; some may be gone."""
        record = await self.records.get(layout.made_key(account_id), now)
        return [made.room_id for made in layout.made_of(record)]

    async def renew_room(self, room_id: str, expires_at: float) -> bool:
        """Let a room live longer; False if it was deleted.

        Another server may have given it more already, and it may have ended while the
        machine slept.
        """

        def renew(room: Room) -> Room:
            return replace(room, expires_at=max(room.expires_at, expires_at))

        return await self._change_room(room_id, renew, AT_ANY_TIME) is not None

    async def use_room(self, room: Room, now: float) -> None:
        """Take note that a member uses a room that lives on by that."""
        if room.lifetime_s and room.expires_at < now + room.lifetime_s / 2:
            await self.renew_room(room.room_id, now + room.lifetime_s)

    async def change_room(
        self, room_id: str, name: str | None, access: Access | None, now: float
    ) -> Room | None:
        """Give a room another name or access; what is None stays.

        Returns:
            The room as it is now; None where there is none any more.
        """

        def change(room: Room) -> Room:
            return replace(
                room,
                name=room.name if name is None else name,
                access=room.access if access is None else access,
            )

        return await self._change_room(room_id, change, now)

    async def delete_room(self, room_id: str, owner: str) -> bool:
        """Delete a room; False if `owner` has no such room."""
        room = await self.find_room(room_id, AT_ANY_TIME)
        if room is None or room.owner != owner:
            return False
        return await self.remove_room(room)

    async def remove_room(self, room: Room) -> bool:
        """Delete a room with all that belongs to it; False if it is gone already."""
        if not await self.records.delete(layout.room_key(room.room_id)):
            return False
        await self.records.delete(RecordKey(layout.ROSTER, room.room_id))
        key = layout.made_key(room.owner)
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(key, AT_ANY_TIME)
            if record is None:
                break
            left = [m for m in layout.made_of(record) if m.room_id != room.room_id]
            changed = layout.made_record(room.owner, left, record.version)
            if await self.put(changed, AT_ANY_TIME):
                break
        return True

    async def _living(self, made: Iterable[Made], now: float) -> list[Made]:
        """Leave out the rooms that are gone, but not one that is being made."""
        candidates = list(made)
        # One look at each: between two, a room may come into being.
        found = await asyncio.gather(
            *(self.find_room(each.room_id, AT_ANY_TIME) for each in candidates)
        )
        return [
            each
            for each, room in zip(candidates, found, strict=True)
            if (
                each.at > now - ROOM_MAKING_S if room is None else room.expires_at > now
            )
        ]

    async def _change_room(
        self, room_id: str, change: Callable[[Room], Room], now: float
    ) -> Room | None:
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(layout.room_key(room_id), now)
            if record is None:
                return None
            room, woken_at = layout.room_of(record)
            changed = change(room)
            if changed == room or await self.records.replace(
                layout.room_record(changed, record.version, woken_at), now
            ):
                return changed
        raise contended()

    # -- down for a while ---------------------------------------------------------

    async def wake_up(self, now: float) -> None:
        """Let time stand still for the rooms since `stay_awake` was last called.

        A server that was down for a night would otherwise come back to rooms that
        have ended, although their workers never left. Of several that start at once,
        or one that is killed while it does this, each room is given its time once.
        """
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(layout.awake_key(), now)
            if record is None:
                if await self.put(layout.awake_record(Awake(now)), now):
                    return
                continue
            awake = layout.awake_of(record)
            if awake.waking_to is not None:
                await self._give_back(awake.at, awake.waking_to)
                after = Awake(awake.waking_to)
            elif awake.at < now:
                after = Awake(awake.at, waking_to=now)
            else:
                after = Awake(now)
            swapped = await self.put(layout.awake_record(after, record.version), now)
            if swapped and after.waking_to is None and after.at >= now:
                return
        raise contended()

    async def stay_awake(self, now: float) -> None:
        """Write down that a server is there."""
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(layout.awake_key(), now)
            version = 0 if record is None else record.version
            if await self.put(layout.awake_record(Awake(now), version), now):
                return
        raise contended()

    async def _give_back(self, since: float, until: float) -> None:
        """Give every room that lived at `since` the time until `until`."""

        async def shift(record: Record) -> None:
            for _ in range(MAX_STORE_TRIES):
                room, woken_at = layout.room_of(record)
                # One that another server made or woke in the meantime has its time.
                if woken_at == until or room.created_at > since:
                    return
                longer = replace(room, expires_at=room.expires_at + until - since)
                changed = layout.room_record(longer, record.version, until)
                if await self.records.replace(changed, since):
                    return
                found = await self.records.get(record.key, since)
                if found is None:
                    return
                record = found
            raise contended()

        await _a_few_at_once(shift, await self.records.everything(layout.ROOM, since))

    # -- who holds an id ----------------------------------------------------------

    async def keep_peer_id(self, kept: KeepPeerId) -> None:
        """Write down who holds an id."""
        key = layout.kept_key(kept.room_id, kept.peer_id)
        for _ in range(MAX_STORE_TRIES):
            record = await self.records.get(key, AT_ANY_TIME)
            version = 0 if record is None else record.version
            changed = layout.kept_record(
                kept.room_id, kept.peer_id, kept.resume_digest, version
            )
            if await self.put(changed, AT_ANY_TIME):
                return
        raise contended()

    async def drop_peer_id(self, dropped: DropPeerId) -> None:
        """Forget who held an id."""
        await self.records.delete(layout.kept_key(dropped.room_id, dropped.peer_id))

    async def kept_peer_ids(self, now: float) -> list[tuple[KeepPeerId, float]]:
        """Return who holds an id in a room, and when that room ends."""
        kept = await self.records.everything(layout.KEPT, now)
        if not kept:
            return []
        rooms = await self.records.everything(layout.ROOM, now)
        ends = {room.key.partition: room.expires_at or 0.0 for room in rooms}
        return [
            (layout.kept_of(record), ends[record.key.partition])
            for record in sorted(kept, key=lambda r: (r.key.partition, r.key.name))
            if record.key.partition in ends
        ]

    # -- what was relayed ---------------------------------------------------------

    async def add_relayed(
        self, rows: Mapping[tuple[int, str], tuple[str, int]]
    ) -> None:
        """Add what was relayed: day and room -> account and bytes.

        Where the store fails in the middle, some of it is counted twice later: too
        much rather than too little.
        """
        for key, size_bytes in layout.relayed_amounts(rows).items():
            ends = layout.relayed_ends(int(key.partition))
            await self.records.add(key, {layout.BYTES: size_bytes}, ends)

    async def relayed(self, day: int, room_id: str, account_id: str) -> RelayUsage:
        """Return what was relayed on a day, by all servers on this store."""
        keys = layout.relayed_keys(day, room_id, account_id)
        counted = await asyncio.gather(*(self.records.counters(key) for key in keys))
        room, account, total = (each.get(layout.BYTES, 0) for each in counted)
        return RelayUsage(room=room, account=account, total=total)

    # -- housekeeping -------------------------------------------------------------

    async def purge(self, now: float) -> None:
        """Remove what has expired, and now and then what rooms left behind."""
        await self.records.purge(now)
        if not await self._is_sweep_due(now):
            return
        # The rooms last: one that was made in between is among them.
        left = [
            record
            for kind in layout.LEFT_BEHIND
            for record in await self.records.everything(kind, AT_ANY_TIME)
        ]
        rooms = await self.records.everything(layout.ROOM, AT_ANY_TIME)
        living = {room.key.partition for room in rooms}

        for record in left:
            behind = layout.rooms_behind(record, now)
            if behind is not None and living.isdisjoint(behind):
                await self.records.delete(record.key, record.version)

    async def _is_sweep_due(self, now: float) -> bool:
        """Tell whether it is this server's turn to look for what is left behind."""
        if await self.records.get(_SWEPT, now) is not None:
            return False
        swept = Record(_SWEPT, b"{}", now + SWEEP_INTERVAL_S)
        return await self.records.create(swept, now)

    async def check(self) -> None:
        """Raise `StorageFailed` if the store cannot be used."""
        await self.records.check()

    async def close(self) -> None:
        """Let go of everything; nothing may be called after this."""
        await self.records.close()


async def _a_few_at_once(
    work: Callable[[Record], Awaitable[None]], records: Sequence[Record]
) -> None:
    places = asyncio.Semaphore(MAX_STORE_CALLS_AT_ONCE)

    async def one(record: Record) -> None:
        async with places:
            await work(record)

    tasks = [asyncio.create_task(one(record)) for record in records]
    try:
        await asyncio.gather(*tasks)
    finally:
        # Nothing goes on behind the back of whoever is told that it failed.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
