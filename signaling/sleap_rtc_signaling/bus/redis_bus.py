"""The bus over Redis: one owner key for each peer, one inbox for each instance.

What must not come apart is a Lua script of its own, in `scripts/`. The scripts name
keys that are made from others, so it is one Redis, or one with replicas, and not a
Redis Cluster. Reservations end by the clocks of the instances, which are to agree as
well as NTP has them; that everything ends at all is Redis's own business.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final, TypeVar

import redis.asyncio as redis
from redis.exceptions import RedisError, ResponseError

from sleap_rtc_plugin.protocol.errors import PeerIdTaken, StorageFailed, TooMany
from sleap_rtc_plugin.protocol.limits import PEER_ID_RESERVED_S
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.bus.records import (
    BusMessageInvalid,
    ClaimLimits,
    Event,
    Found,
    Message,
    Owner,
    decode_event,
    decode_info,
    decode_message,
    encode,
)
from sleap_rtc_signaling.instructions import Presence
from sleap_rtc_signaling.limits import (
    BUS_RETRY_S,
    BUS_TIMEOUT_S,
    EVENTS_AT_ONCE,
    EVENTS_WAIT_S,
    HELD_AFTER_LOSS_S,
    INSTANCE_LEASE_S,
    MAX_EVENTS_KEPT,
    OWNER_RENEW_S,
    OWNERS_AT_ONCE,
    Rate,
)

__all__ = ["RedisBus"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
_SCRIPTS: Final = (
    "claim",
    "renew",
    "show",
    "release",
    "find",
    "peers",
    "take",
    "enter",
)
_FAULTS: Final = (RedisError, OSError, TimeoutError)
_PRESENCES: Final[dict[bytes, Presence]] = {
    b"here": "here",
    b"away": "away",
    b"gone": "gone",
}


class RedisBus:
    """One instance's connections to Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with a password where there is one.
        prefix: how every key and channel begins.
        clock: Unix time in seconds.
    """

    def __init__(
        self, url: str, prefix: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._instance = secrets.token_hex(8)
        self._prefix = prefix
        self._is_there = False
        self._is_listening = False
        # The newest event that this instance has read, or came after.
        self._seen = b""
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=BUS_TIMEOUT_S,
            socket_connect_timeout=BUS_TIMEOUT_S,
            health_check_interval=0,
            retry=None,
        )
        # Readers wait for longer than an answer may take.
        self._reader = redis.Redis.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=BUS_TIMEOUT_S,
            socket_keepalive=True,
            retry=None,
        )
        self._scripts = {
            name: self._redis.register_script(_script(name)) for name in _SCRIPTS
        }
        self._closed = False

    @property
    def instance(self) -> str:
        """The id of this instance, new with each start."""
        return self._instance

    @property
    def is_ready(self) -> bool:
        """Whether Redis could be reached a moment ago."""
        return self._is_there and self._is_listening

    async def beat(self) -> None:
        """Say that this instance is there."""
        lease_ms = _ms(INSTANCE_LEASE_S)
        key = self._key("instance", self._instance)
        await self._reach(self._redis.set(key, b"1", px=lease_ms))
        if not self._seen:
            newest: Any = await self._reach(
                self._redis.xrevrange(self._key("events"), count=1)
            )
            self._seen = newest[0][0] if newest else b"0-0"
        self._is_there = True

    async def close(self) -> None:
        """Say good-bye, and let go of the connections."""
        self._closed = True
        with contextlib.suppress(StorageFailed):
            if self._is_there:
                key = self._key("instance", self._instance)
                await self._reach(self._redis.delete(key))
        for client in (self._redis, self._reader):
            with contextlib.suppress(*_FAULTS):
                await client.aclose()

    # -- who is where ---------------------------------------------

    async def claim(self, owner: Owner, limits: ClaimLimits) -> None:
        """Write a peer down as registered here; again does no harm.

        Raises:
            PeerIdTaken: somebody else holds its id.
            TooMany: the room is full.
            StorageFailed: Redis cannot be reached.
        """
        keys, written = self._owner(owner)
        prefix = self._peer(owner.room_id, "")
        arguments = [*written, limits.peers, limits.ids, prefix, self._now_ms()]
        keys = [*keys, self._key("instance", "")]
        match await self._run("claim", keys, arguments):
            case b"taken":
                raise PeerIdTaken(peer_id=owner.peer_id)
            case b"peers":
                raise TooMany(what="peers in this room", limit=str(limits.peers))
            case b"ids":
                what = "peer ids in use in this room"
                raise TooMany(what=what, limit=str(limits.ids))

    async def renew(self, owners: Sequence[Owner]) -> list[Owner]:
        """Write down again who is here; return those who are elsewhere by now.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        moved: list[Owner] = []
        if not self.is_ready:
            raise StorageFailed(place="Redis", reason="it does not answer")
        script = self._scripts["renew"]
        for first in range(0, len(owners), OWNERS_AT_ONCE):
            some = owners[first : first + OWNERS_AT_ONCE]
            pipeline = self._redis.pipeline(transaction=False)
            for owner in some:
                keys, written = self._owner(owner)
                await script(keys, [*written, self._now_ms()], client=pipeline)
            results = await self._reach(pipeline.execute())
            moved += [
                owner
                for owner, is_ours in zip(some, results, strict=True)
                if not is_ours
            ]
        return moved

    async def show(self, owner: Owner) -> None:
        """Write down the peer's new metadata, if it is still here.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        key = self._peer(owner.room_id, owner.peer_id)
        arguments = [self._instance, owner.connection, encode(owner.info)]
        await self._run("show", [key], arguments)

    async def release(self, owner: Owner, reserved_s: float, held_s: float) -> None:
        """Let go of a peer, if it is still here: its id is reserved for a while.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        key = self._peer(owner.room_id, owner.peer_id)
        now_ms, reserved_ms = self._now_ms(), _ms(reserved_s)
        times = [reserved_ms, now_ms + reserved_ms, now_ms + _ms(held_s)]
        await self._run("release", [key], [self._instance, owner.connection, *times])

    async def find(self, room_id: str, peer_id: str) -> Found | None:
        """Return where a peer is; None where nobody knows its id.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        keys = [self._peer(room_id, peer_id), self._key("instance", "")]
        unseen_ms = _ms(OWNER_RENEW_S + HELD_AFTER_LOSS_S)
        known = await self._run("find", keys, [unseen_ms, self._now_ms()])
        if not isinstance(known, list):
            return None
        instance, presence = known
        return Found(instance.decode("ascii", "replace"), _PRESENCES[presence])

    async def peers(self, room_id: str) -> list[PeerInfo]:
        """Return who is registered in a room, at all instances.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        keys = [self._key("room", room_id), self._key("instance", "")]
        rows = await self._run("peers", keys, [self._peer(room_id, "")])
        infos = []
        for row in rows:
            try:
                infos.append(decode_info(row))
            except BusMessageInvalid as error:
                _log.warning("a peer in Redis is left out: %s", error)
        return sorted(infos, key=lambda info: (info.connected_at, info.peer_id))

    # -- saying something ---------------------------------------------

    async def send(self, instance: str, message: Message) -> bool:
        """Say something to one instance; False where it is gone.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        channel = self._key("inbox", instance)
        return bool(await self._reach(self._redis.publish(channel, encode(message))))

    async def announce(self, event: Event) -> None:
        """Say something to all instances, this one included.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        fields: dict[Any, Any] = {b"event": encode(event)}
        key = self._key("events")
        await self._reach(self._redis.xadd(key, fields, maxlen=MAX_EVENTS_KEPT))

    async def inbox(self) -> AsyncIterator[Message]:
        """What is said to this instance, for ever."""
        while not self._closed:
            try:
                async with self._reader.pubsub() as channel:
                    await channel.subscribe(self._key("inbox", self._instance))
                    async for said in channel.listen():
                        self._is_listening = True
                        if said["type"] != "message":
                            continue
                        try:
                            message = decode_message(said["data"])
                        except BusMessageInvalid as error:
                            _log.warning("a message over Redis is left out: %s", error)
                            continue
                        yield message
            except _FAULTS as error:
                _log.debug("the inbox is closed: %s", error)
            finally:
                self._is_listening = False
            await asyncio.sleep(BUS_RETRY_S)

    async def events(self) -> AsyncIterator[Event]:
        """What is said to all since the start of this instance, for ever."""
        while not self._closed:
            if not self._seen:
                await asyncio.sleep(BUS_RETRY_S)
                continue
            try:
                streams = await self._next_events()
            except _FAULTS:
                await asyncio.sleep(BUS_RETRY_S)
                continue
            for _, entries in streams:
                for entry, fields in entries:
                    self._seen = entry
                    try:
                        event = decode_event(fields.get(b"event", b""))
                    except BusMessageInvalid as error:
                        _log.warning("an event in Redis is left out: %s", error)
                        continue
                    yield event

    async def _next_events(self) -> list[Any]:
        async with asyncio.timeout(EVENTS_WAIT_S + BUS_TIMEOUT_S):
            streams: Any = await self._reader.xread(
                {self._key("events"): self._seen},
                count=EVENTS_AT_ONCE,
                block=_ms(EVENTS_WAIT_S),
            )
        return streams or []

    # -- counting ---------------------------------------------

    async def take(self, kind: str, key: str, rate: Rate, cost: float) -> float:
        """Take tokens from a bucket of all instances, as `RateLimiter.take` does.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        arguments = [rate.burst, rate.per_s, cost]
        wait_ms = await self._run("take", [self._key("rate", kind, key)], arguments)
        return float(wait_ms) / 1000

    async def enter(self, address: str, limit: int) -> bool:
        """Count a socket of an address; False where all instances have `limit`.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        keys = [self._key("address", address), self._key("instance", "")]
        arguments = [self._instance, limit, _ms(PEER_ID_RESERVED_S)]
        return bool(await self._run("enter", keys, arguments))

    async def count(self, addresses: Mapping[str, int]) -> None:
        """Write down how many sockets of each address are here.

        Raises:
            StorageFailed: Redis cannot be reached.
        """
        if not addresses:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for address, count in addresses.items():
            key = self._key("address", address)
            if count:
                pipeline.hset(key, self._instance, str(count))
                pipeline.pexpire(key, _ms(PEER_ID_RESERVED_S))
            else:
                pipeline.hdel(key, self._instance)
        await self._reach(pipeline.execute())

    # -- Redis ---------------------------------------------

    def _now_ms(self) -> int:
        return _ms(self._clock())

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def _peer(self, room_id: str, peer_id: str) -> str:
        return self._key("peer", room_id, peer_id)

    def _owner(self, owner: Owner) -> tuple[list[str], list[Any]]:
        keys = [
            self._peer(owner.room_id, owner.peer_id),
            self._key("room", owner.room_id),
        ]
        return keys, [
            self._instance,
            owner.connection,
            owner.resume_digest,
            encode(owner.info),
            owner.peer_id,
            _ms(PEER_ID_RESERVED_S),
        ]

    async def _run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any]
    ) -> Any:
        if not self.is_ready:
            raise StorageFailed(place="Redis", reason="it does not answer")
        return await self._reach(self._scripts[name](list(keys), list(arguments)))

    async def _reach(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(BUS_TIMEOUT_S):
                return await work
        except _FAULTS as error:
            if not isinstance(error, ResponseError):
                self._is_there = False
            reason = str(error) or "it does not answer in time"
            raise StorageFailed(place="Redis", reason=reason) from error


def _script(name: str) -> str:
    folder = resources.files("sleap_rtc_signaling.bus") / "scripts"
    return (folder / f"{name}.lua").read_text()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
