"""What one instance of several does with the bus.

It writes down who is here, finds those who are elsewhere, passes on what is said to
them and delivers what others pass on. Two peers hear each other in the order in which
they speak. Where Redis is gone, those of one instance go on talking; what is said to
the others waits for it, for as long as the hub lets it wait. Called by the switchboard.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from sleap_rtc_plugin.protocol.errors import RtcError, StorageFailed
from sleap_rtc_plugin.protocol.limits import MAX_PEERS_PER_ROOM
from sleap_rtc_plugin.protocol.signaling_messages import (
    Delivered,
    PeerInfo,
    PeerMetadata,
)
from sleap_rtc_signaling.bus.protocol import Bus
from sleap_rtc_signaling.bus.records import (
    Answered,
    ClaimLimits,
    Event,
    Forwarded,
    Message,
    Owner,
    PeerCame,
    Revoked,
    RoomClosed,
)
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.instructions import Held, Instruction, Reply
from sleap_rtc_signaling.limits import (
    BUS_REPLY_TIMEOUT_S,
    BUS_RETRY_S,
    HELD_AFTER_LOSS_S,
    HELD_CHECK_S,
    INSTANCE_BEAT_S,
    MAX_PENDING_FORWARDS,
    MAX_RESERVED_IDS_PER_ROOM,
    MAX_UNSAID_EVENTS,
    OWNER_RENEW_S,
    Rate,
)

__all__ = ["Exchange"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LIMITS: Final = ClaimLimits(peers=MAX_PEERS_PER_ROOM, ids=MAX_RESERVED_IDS_PER_ROOM)


class Peers(Protocol):
    """What the exchange wants of the switchboard."""

    def perform(self, instructions: Iterable[Instruction]) -> None:
        """Carry out what the hub wants."""

    def room_closed(self, room_id: str) -> None:
        """Send everybody here out of a room."""

    def revoked(self, room_id: str, credential_id: str, account_id: str) -> None:
        """Send those here out whom a credential or an account let in."""


@dataclass
class _Pending:
    """A message that another instance has, and the end of waiting for its answer."""

    held: Held
    timer: asyncio.TimerHandle


class Exchange:
    """One instance among others.

    Args:
        bus: what all instances share.
        hub: knows who is here.
        clock: Unix time in seconds.
        reserved_s: how long the id of a peer that left is kept for it.
    """

    def __init__(
        self, bus: Bus, hub: Hub, clock: Callable[[], float], reserved_s: float
    ) -> None:
        self._bus = bus
        self._hub = hub
        self._clock = clock
        self._reserved_s = reserved_s
        self._here: Peers | None = None
        # Who is written down as registered here, by the number of its socket.
        self._owners: dict[int, Owner] = {}
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        # One at a time for each target, or what is said to it would change order.
        self._lanes: dict[tuple[str, str], asyncio.Lock] = {}
        self._was_ready = asyncio.Event()
        self._addresses: Counter[str] = Counter()
        self._unsaid: deque[Event] = deque(maxlen=MAX_UNSAID_EVENTS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether the other instances can be reached."""
        return self._bus.is_ready

    def connect(self, here: Peers) -> None:
        """Say who carries out what other instances want."""
        self._here = here

    async def start(self) -> None:
        """Begin to listen, and wait a moment until others can be heard."""
        for work in (
            self._keep_there(),
            self._keep_owners(),
            self._keep_held(),
            self._read(self._bus.inbox(), self._said),
            self._read(self._bus.events(), self._happened),
        ):
            self._spawn(work)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BUS_REPLY_TIMEOUT_S):
                await self._was_ready.wait()

    async def stop(self) -> None:
        """Let go of everything; what is still unanswered stays so."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in self._pending.values():
            pending.timer.cancel()
        self._pending.clear()
        await self._bus.close()

    # -- who is here ---------------------------------------------

    async def claim(self, owner: Owner) -> None:
        """Ask whether a peer may register here, and write it down.

        Raises:
            PeerIdTaken: somebody else holds its id, at whichever instance.
            TooMany: the room is full.
            StorageFailed: the bus cannot be reached.
        """
        await self._bus.claim(owner, _LIMITS)
        self._owners[owner.connection] = owner

    def came(self, connection: int) -> None:
        """Tell the others that the peer is here, now that it hears what they say."""
        owner = self._owners[connection]
        self._announce(
            PeerCame(
                instance=self._bus.instance,
                room_id=owner.room_id,
                peer_id=owner.peer_id,
            )
        )
        if self._hub.waits(owner.room_id, owner.peer_id):
            self._spawn(self._pass_on(owner.room_id, owner.peer_id))

    def leave(self, connection: int, *, is_lost: bool) -> None:
        """Let go of the peer of a socket that is gone, without waiting for the bus."""
        if connection in self._owners:
            self._spawn(self.left(connection, is_lost=is_lost))

    async def left(self, connection: int, *, is_lost: bool) -> None:
        """Let go of the peer of a socket, if it was written down."""
        owner = self._owners.pop(connection, None)
        if owner is None:
            return
        held_s = HELD_AFTER_LOSS_S if is_lost else 0.0
        # Where the bus is gone, what is written there ends by itself.
        with contextlib.suppress(StorageFailed):
            await self._bus.release(owner, self._reserved_s, held_s)

    async def show(self, connection: int, metadata: PeerMetadata) -> None:
        """Let the other instances see a peer's new metadata."""
        owner = self._owners.get(connection)
        if owner is None:
            return
        info = msgspec.structs.replace(owner.info, metadata=metadata)
        owner = msgspec.structs.replace(owner, info=info)
        self._owners[connection] = owner
        # It is written with everything else once the bus is back.
        with contextlib.suppress(StorageFailed):
            await self._bus.show(owner)

    async def peers(self, room_id: str) -> list[PeerInfo]:
        """Return who is registered in a room; those here where the bus is gone."""
        try:
            return await self._bus.peers(room_id)
        except StorageFailed:
            return self._hub.peers(room_id)

    async def knows(self, room_id: str, peer_id: str) -> bool:
        """Tell whether a peer is registered, or its id reserved, at any instance.

        Raises:
            StorageFailed: the bus cannot be reached.
        """
        return await self._bus.find(room_id, peer_id) is not None

    async def is_here(self, room_id: str, peer_id: str) -> bool:
        """Tell whether a peer is registered at any instance.

        Raises:
            StorageFailed: the bus cannot be reached.
        """
        found = await self._bus.find(room_id, peer_id)
        return found is not None and found.presence == "here"

    # -- sockets of one address ---------------------------------------------

    async def enter(self, address: str, limit: int) -> bool:
        """Count a socket; False where its address has `limit` at all instances.

        Where the bus is gone, each instance counts for itself.
        """
        try:
            is_in = await self._bus.enter(address, limit)
        except StorageFailed:
            is_in = True
        if is_in:
            self._addresses[address] += 1
        return is_in

    async def take(self, kind: str, key: str, rate: Rate) -> float:
        """Take one token from a bucket of all instances.

        Returns:
            0.0, or after how many seconds there is one. Where the bus is gone, each
            instance counts for itself.
        """
        try:
            return await self._bus.take(kind, key, rate, 1.0)
        except StorageFailed:
            return 0.0

    def leave_address(self, address: str) -> None:
        """Count a socket that was let in no more."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        self._spawn(self._count({address: self._addresses[address]}))

    async def _count(self, addresses: Mapping[str, int]) -> None:
        # Where the bus is gone, all of it is written again once it is back.
        with contextlib.suppress(StorageFailed):
            await self._bus.count(addresses)

    # -- messages ---------------------------------------------

    async def forward(self, held: Held) -> None:
        """Pass on what a peer here says to one that is not here."""
        room_id, to = held.room_id, held.to
        async with self._lane(room_id, to):
            if self._hub.waits(room_id, to):
                # Behind what was said before, or they would change order.
                self._perform(self._hub.hold(held, self._clock()))
                await self._pass_held(room_id, to)
                return
            await self._pass(held)

    async def _pass(self, held: Held) -> None:
        now = self._clock()
        # It may have registered here while this was on its way.
        if self._hub.presence(held.room_id, held.to, now) == "here":
            self._deliver(held)
            return
        if len(self._pending) >= MAX_PENDING_FORWARDS:
            self._perform(self._hub.not_found(held))
            return
        try:
            found = await self._bus.find(held.room_id, held.to)
        except StorageFailed:
            self._perform(self._hub.hold(held, now))
            return
        if found is None:
            # Written down nowhere: it may have been here before a restart.
            is_coming = self._hub.presence(held.room_id, held.to, now) == "away"
        else:
            is_coming = found.presence != "gone"
        if not is_coming:
            self._perform(self._hub.not_found(held))
            return
        is_here = found is not None and found.presence == "here"
        if found is None or not is_here or not await self._send(found.instance, held):
            self._perform(self._hub.hold(held, now))

    async def _send(self, instance: str, held: Held) -> bool:
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(BUS_REPLY_TIMEOUT_S, self._unanswered, number)
        self._pending[number] = _Pending(held, timer)
        message = Forwarded(
            instance=self._bus.instance,
            number=number,
            room_id=held.room_id,
            to=held.to,
            message=held.message,
        )
        try:
            is_sent = await self._bus.send(instance, message)
        except StorageFailed:
            is_sent = False
        if not is_sent:
            self._take_pending(number)
        return is_sent

    def _deliver(self, held: Held) -> None:
        delivered = self._hub.arrived(held.room_id, held.to, held.message)
        reply = Reply(held.sender, Delivered(id=held.command_id))
        self._perform([*delivered, reply])

    def _unanswered(self, number: int) -> None:
        pending = self._take_pending(number)
        if pending is not None:
            self._perform(self._hub.not_found(pending.held))

    def _take_pending(self, number: int) -> _Pending | None:
        pending = self._pending.pop(number, None)
        if pending is not None:
            pending.timer.cancel()
        return pending

    async def _pass_held(self, room_id: str, peer_id: str) -> None:
        """Pass on what waits for a peer, if it is anywhere by now."""
        if self._hub.presence(room_id, peer_id, self._clock()) != "here":
            try:
                found = await self._bus.find(room_id, peer_id)
            except StorageFailed:
                return
            if found is None or found.presence != "here":
                return
        for held in self._hub.take_held(room_id, peer_id):
            await self._pass(held)

    @contextlib.asynccontextmanager
    async def _lane(self, room_id: str, peer_id: str) -> AsyncIterator[None]:
        key = room_id, peer_id
        lock = self._lanes.setdefault(key, asyncio.Lock())
        async with lock:
            yield
        # The last one out takes the lock away; whoever waits still has it.
        if not lock.locked() and self._lanes.get(key) is lock:
            del self._lanes[key]

    # -- what others say ---------------------------------------------

    async def _said(self, message: Message) -> None:
        match message:
            case Forwarded():
                delivered = self._hub.arrived(
                    message.room_id, message.to, message.message
                )
                self._perform(delivered)
                answer = Answered(number=message.number, is_delivered=bool(delivered))
                # Without an answer, the other one stops waiting by itself.
                with contextlib.suppress(StorageFailed):
                    await self._bus.send(message.instance, answer)
            case Answered():
                pending = self._take_pending(message.number)
                if pending is None:
                    return
                held = pending.held
                if message.is_delivered:
                    reply = Reply(held.sender, Delivered(id=held.command_id))
                    self._perform([reply])
                else:
                    # It was there a moment ago, or is about to be.
                    self._perform(self._hub.hold(held, self._clock()))

    async def _happened(self, event: Event) -> None:
        assert self._here is not None  # noqa: S101 -- connected before it is started
        match event:
            case PeerCame(instance=instance, room_id=room_id, peer_id=peer_id):
                if instance != self._bus.instance:
                    if not await self._is_ours(room_id, peer_id):
                        self._perform(self._hub.moved(room_id, peer_id))
                    if self._hub.waits(room_id, peer_id):
                        self._spawn(self._pass_on(room_id, peer_id))
            case RoomClosed(room_id=room_id):
                self._here.room_closed(room_id)
            case Revoked():
                self._here.revoked(event.room_id, event.credential_id, event.account_id)

    async def _is_ours(self, room_id: str, peer_id: str) -> bool:
        """Tell whether a peer has come here since it came elsewhere.

        What happened is read in its order, but later than it happened.
        """
        if self._hub.presence(room_id, peer_id, self._clock()) != "here":
            return False
        try:
            found = await self._bus.find(room_id, peer_id)
        except StorageFailed:
            return True  # whose it is will be seen once the bus is back
        return found is not None and found.instance == self._bus.instance

    async def _pass_on(self, room_id: str, peer_id: str) -> None:
        async with self._lane(room_id, peer_id):
            await self._pass_held(room_id, peer_id)

    async def _read(
        self, source: AsyncIterator[T], use: Callable[[T], Awaitable[None]]
    ) -> None:
        async for said in source:
            try:
                await use(said)
            except RtcError:
                _log.exception("what another instance said was not carried out")

    # -- what is said to all ---------------------------------------------

    def close_room(self, room_id: str) -> None:
        """Tell the others that a room was deleted."""
        self._announce(RoomClosed(room_id=room_id))

    def revoke(self, room_id: str, credential_id: str, account_id: str) -> None:
        """Tell the others that somebody was sent out of a room."""
        self._announce(
            Revoked(room_id=room_id, credential_id=credential_id, account_id=account_id)
        )

    def _announce(self, event: Event) -> None:
        self._unsaid.append(event)
        self._spawn(self._say())

    async def _say(self) -> None:
        """Say what is still unsaid, in its order."""
        while self._unsaid:
            event = self._unsaid.popleft()
            try:
                await self._bus.announce(event)
            except StorageFailed:
                self._unsaid.appendleft(event)
                return

    # -- tasks ---------------------------------------------

    async def _keep_there(self) -> None:
        """Say again and again that this instance is there, and see when it is not."""
        was_ready = False
        while True:
            with contextlib.suppress(StorageFailed):
                await self._bus.beat()
            if self.is_ready and not was_ready:
                _log.info("the other instances can be reached")
                was_ready = await self._renew()
                await self._say()
                self._was_ready.set()
            elif was_ready and not self.is_ready:
                was_ready = False
                _log.error(
                    "the other instances cannot be reached: Redis does not answer. "
                    "Peers of this instance go on."
                )
            await asyncio.sleep(INSTANCE_BEAT_S if was_ready else BUS_RETRY_S)

    async def _keep_owners(self) -> None:
        """Write down again and again who is here, or it would end."""
        while True:
            await asyncio.sleep(OWNER_RENEW_S)
            await self._renew()

    async def _renew(self) -> bool:
        owners = list(self._owners.values())
        try:
            moved = await self._bus.renew(owners)
            await self._bus.count(dict(self._addresses))
        except StorageFailed:
            return False
        for owner in moved:
            # It registered elsewhere, and the word of it was lost.
            if self._owners.get(owner.connection) is owner:
                del self._owners[owner.connection]
                self._perform(self._hub.moved(owner.room_id, owner.peer_id))
        return True

    async def _keep_held(self) -> None:
        """Look after those who wait, should the word of a return have been missed."""
        while True:
            await asyncio.sleep(HELD_CHECK_S)
            for room_id, peer_id in self._hub.waiting():
                await self._pass_on(room_id, peer_id)

    # -- helpers ---------------------------------------------

    def _perform(self, instructions: Iterable[Instruction]) -> None:
        assert self._here is not None  # noqa: S101 -- connected before it is started
        self._here.perform(instructions)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
