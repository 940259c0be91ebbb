"""The relay of last resort: carries out what the relay book decides.

One task reads each partner's socket and writes to the other's, frame by frame: it reads
only as fast as the other side takes and the pace allows, so a relay holds a few frames
and never more. What the frames mean is the partners' secret. Called by the server for
every WebSocket on `/relay`.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RoomGone,
    RtcError,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.limits import MAX_RELAY_FRAME_BYTES, RELAY_JOIN_TIMEOUT_S
from sleap_rtc_plugin.protocol.relay_messages import (
    RelayJoin,
    RelayJoined,
    decode_relay_join,
    encode_relay,
)
from sleap_rtc_signaling.admission import Admissions
from sleap_rtc_signaling.bus.exchange import Exchange
from sleap_rtc_signaling.config import RelayConfig
from sleap_rtc_signaling.gate import Gate
from sleap_rtc_signaling.hub import Hub
from sleap_rtc_signaling.limits import (
    BYTES_PER_MBIT,
    CLOSE_DEADLINE_S,
    MIN_RELAY_FRAME_COST_BYTES,
    RELAY_BURST_BYTES,
    RELAY_STALL_TIMEOUT_S,
    RELAY_USAGE_INTERVAL_S,
)
from sleap_rtc_signaling.listener import ABORT_EXTENSION
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.pace import Pace
from sleap_rtc_signaling.rate_limit import address_key
from sleap_rtc_signaling.relay_book import (
    EndRelay,
    Joined,
    Member,
    RelayBook,
    RelayCounts,
    RelayEnd,
    RelayInstruction,
)
from sleap_rtc_signaling.stores import Store

__all__ = ["RelayService"]

_log = logging.getLogger(__name__)

_JOINED: Final = encode_relay(RelayJoined())


class _Refused(Exception):
    """A socket that has no place in the book is to be closed."""

    def __init__(self, end: RelayEnd) -> None:
        super().__init__(end.words)
        self.end = end


class _Socket:
    """One partner's WebSocket."""

    def __init__(self, websocket: WebSocket, pace: Pace) -> None:
        self.websocket = websocket
        self.pace = pace
        self.ended: asyncio.Future[RelayEnd] = asyncio.Future()
        self._abort: Callable[[], None] = websocket.scope["extensions"][ABORT_EXTENSION]

    def end(self, end: RelayEnd) -> None:
        """Let the socket's own task close it; the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(end)

    async def close(self, end: RelayEnd) -> None:
        """Say why, or cut the peer off where it does not even read that."""
        cut = asyncio.get_running_loop().call_later(CLOSE_DEADLINE_S, self._abort)
        try:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self.websocket.close(end.code, end.words)
        finally:
            cut.cancel()


class RelayService:
    """All relays of one server.

    Args:
        config: whether there is a relay, and how fast it is.
        book: decides.
        hub: knows who is registered.
        gate: counts the sockets of the whole server.
        store: knows the rooms, and what was relayed today.
        admissions: who may enter.
        metrics: counts.
        clock: Unix time in seconds.
        exchange: the way to other instances; None where there are none.
    """

    def __init__(
        self,
        config: RelayConfig,
        book: RelayBook,
        hub: Hub,
        gate: Gate,
        store: Store,
        admissions: Admissions,
        metrics: Metrics,
        clock: Callable[[], float],
        exchange: Exchange | None = None,
    ) -> None:
        self._config = config
        self._exchange = exchange
        self._book = book
        self._hub = hub
        self._gate = gate
        self._store = store
        self._admissions = admissions
        self._metrics = metrics
        self._clock = clock
        self._sockets: dict[int, _Socket] = {}
        self._numbers = itertools.count(1)
        self._pace = Pace(config.total_mbit * BYTES_PER_MBIT, RELAY_BURST_BYTES)
        self._woken = asyncio.Event()
        self._writing = asyncio.Lock()

    def counts(self) -> RelayCounts:
        """Return how many relays there are."""
        return self._book.counts()

    def close_room(self, room_id: str) -> None:
        """End the relays of a room that has ended."""
        self._perform(self._book.close_room(room_id))

    def close_peers(self, room_id: str, peer_ids: Collection[str]) -> None:
        """End the relays of peers that were sent out of their room."""
        self._perform(self._book.close_peers(room_id, peer_ids))

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._woken.set()

    async def stop(self) -> None:
        """End every relay, and write down what passed."""
        for connection in list(self._sockets):
            self._perform(self._book.end(connection, RelayEnd.STOPPING))
        for socket in self._sockets.values():
            socket.end(RelayEnd.STOPPING)
        await self._write_usage()

    # -- tasks of the server --------------------------------------------------------

    async def keep_time(self) -> None:
        """Wake the book when it wants to be woken, for ever."""
        while True:
            self._woken.clear()
            self._perform(self._book.expire(self._clock()))
            deadline = self._book.deadline()
            delay = None if deadline is None else max(0.0, deadline - self._clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._woken.wait()

    async def keep_usage(self) -> None:
        """Write down what passed, and look whether the rooms still are, for ever."""
        while True:
            await asyncio.sleep(RELAY_USAGE_INTERVAL_S)
            # Cut off in the middle, the same bytes would be written twice.
            await asyncio.shield(self._write_usage())
            for room_id in self._book.rooms():
                if self._hub.has_room(room_id):
                    continue
                with contextlib.suppress(StorageFailed):
                    if await self._store.find_room(room_id, self._clock()) is None:
                        self.close_room(room_id)

    async def _write_usage(self) -> None:
        async with self._writing:
            rows = self._book.unwritten()
            if not rows:
                return
            try:
                await self._store.add_relayed(rows)
            except StorageFailed as error:
                # They stay in the book, and count, until the store works again.
                _log.error("could not write down what was relayed: %s", error)
            else:
                self._book.written(rows)

    # -- one socket -------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one WebSocket until it closes."""
        address = address_key(websocket.client.host if websocket.client else "")
        refusal = self._gate.enter(address, time.monotonic())
        if refusal is not None:
            self._metrics.refused(refusal.code)
            await websocket.send_denial_response(
                Response(str(refusal), status_code=429, media_type="text/plain")
            )
            return
        connection = next(self._numbers)
        pace = Pace(self._config.max_mbit * BYTES_PER_MBIT, RELAY_BURST_BYTES)
        socket = self._sockets[connection] = _Socket(websocket, pace)
        try:
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.accept()
                await self._hold(connection, socket)
        finally:
            del self._sockets[connection]
            self._gate.leave(address)
            self._perform(self._book.left(connection))

    async def _hold(self, connection: int, socket: _Socket) -> None:
        """Relay until the peer leaves or the book wants an end."""
        reading = asyncio.create_task(self._relay(connection, socket))
        try:
            await asyncio.wait(
                (reading, socket.ended), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
                await reading
        if socket.ended.done():
            end = socket.ended.result()
            self._metrics.relay_ended(end.name.lower())
            await socket.close(end)

    async def _relay(self, connection: int, socket: _Socket) -> None:
        try:
            member, join = await self._meet(socket.websocket)
        except _Refused as refused:
            socket.end(refused.end)
            return
        try:
            now = self._clock()
            day = self._book.day(now)
            usage = await self._store.relayed(day, member.room_id, member.account_id)
        except StorageFailed as error:
            _log.error("what was relayed could not be looked up: %s", error)
            socket.end(RelayEnd.STORE)
            return
        now = self._clock()
        joined = self._book.join(connection, member, join.relay_id, usage, now)
        self.wake()
        self._perform(joined)
        for instruction in joined:
            told = self._sockets.get(instruction.connection)
            if isinstance(instruction, Joined) and told is not None:
                await self._tell_joined(told)
        while True:
            frame = await socket.websocket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            data = frame.get("bytes")
            partner = self._book.partner(connection)
            if data is None or partner is None or len(data) > MAX_RELAY_FRAME_BYTES:
                self._perform(self._book.refuse(connection, RelayEnd.MISPLACED))
                return
            await self._pass(connection, socket, self._sockets[partner], data)

    async def _tell_joined(self, socket: _Socket) -> None:
        # One that has left in the meantime is its own task's business.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.websocket.send_text(_JOINED)

    async def _pass(
        self, connection: int, socket: _Socket, partner: _Socket, data: bytes
    ) -> None:
        """Pass one frame on, when the pace and the partner have room for it."""
        cost = max(len(data), MIN_RELAY_FRAME_COST_BYTES)
        await asyncio.sleep(socket.pace.take(cost, time.monotonic()))
        await asyncio.sleep(self._pace.take(cost, time.monotonic()))
        try:
            async with asyncio.timeout(RELAY_STALL_TIMEOUT_S):
                await partner.websocket.send_bytes(data)
        except TimeoutError:
            self._perform(self._book.end(connection, RelayEnd.NOT_READ))
            return
        except (WebSocketDisconnect, RuntimeError):
            return  # the partner's own task says that it has left
        self._metrics.relay_passed(len(data))
        self._perform(self._book.passed(connection, len(data), self._clock()))

    async def _meet(self, websocket: WebSocket) -> tuple[Member, RelayJoin]:
        """Find out who is there, and where it wants to meet its partner."""
        if not self._config.enabled:
            raise _Refused(RelayEnd.NOT_OFFERED)
        room_id, account_id, token_ends = await self._admit(websocket)
        try:
            async with asyncio.timeout(RELAY_JOIN_TIMEOUT_S):
                frame = await websocket.receive()
            if frame["type"] == "websocket.disconnect":
                raise WebSocketDisconnect
            join = decode_relay_join(frame.get("text") or "")
        except (TimeoutError, RemoteProtocolError):
            raise _Refused(RelayEnd.MALFORMED) from None
        # An id that leaked is of no use to somebody who is not in the room.
        if not await self._is_in_room(room_id, join.peer_id):
            raise _Refused(RelayEnd.NOT_IN_ROOM)
        return Member(room_id, account_id, join.peer_id, token_ends), join

    async def _is_in_room(self, room_id: str, peer_id: str) -> bool:
        """Tell whether a peer is registered, at whichever instance."""
        if self._hub.has_peer(room_id, peer_id):
            return True
        if self._exchange is None:
            return False
        try:
            return await self._exchange.is_here(room_id, peer_id)
        except StorageFailed:
            raise _Refused(RelayEnd.STORE) from None

    async def _admit(self, websocket: WebSocket) -> tuple[str, str, float]:
        """Return the room, its owner, and until when the peer may be there.

        A member without a room token says with `?room_id=` which room it means.
        """
        header = websocket.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise _Refused(RelayEnd.TOKEN)
        room_id = websocket.query_params.get("room_id", "")
        try:
            entry = await self._admissions.enter(token.strip(), room_id, self._clock())
        except StorageFailed as error:
            _log.error("a room could not be looked up: %s", error)
            raise _Refused(RelayEnd.STORE) from None
        except RoomGone:
            raise _Refused(RelayEnd.ROOM_GONE) from None
        except RtcError:
            raise _Refused(RelayEnd.TOKEN) from None
        return entry.room.room_id, entry.room.owner, entry.expires_at

    # -- instructions -----------------------------------------------------------------

    def _perform(self, instructions: Iterable[RelayInstruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, EndRelay):
                socket = self._sockets.get(instruction.connection)
                if socket is not None:
                    socket.end(instruction.end)
