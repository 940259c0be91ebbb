"""The WebSockets of the server: carries out what the hub decides.

One task reads each socket and one writes it, from a bounded outbox; a peer that does
not read is closed rather than waited for. What is decided here is only who gets in
at all: verifying tokens, looking rooms up, and rates.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

from starlette.responses import Response
from starlette.websockets import WebSocket

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.errors import (
    RateLimited,
    RemoteProtocolError,
    RtcError,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.signaling_messages import (
    ClientMessage,
    PeerInfo,
    Register,
    ServerError,
)
from sleap_rtc_signaling.admission import Admissions
from sleap_rtc_signaling.bus.exchange import Exchange
from sleap_rtc_signaling.bus.records import Owner
from sleap_rtc_signaling.config import LimitsConfig
from sleap_rtc_signaling.event_log import note
from sleap_rtc_signaling.gate import Gate
from sleap_rtc_signaling.hub import Hub, resume_digest
from sleap_rtc_signaling.instructions import (
    Admission,
    CheckRoom,
    Deliver,
    Disconnect,
    DropPeerId,
    Elsewhere,
    FindPeers,
    ForStore,
    Forward,
    Instruction,
    KeepPeerId,
    RenewRoom,
    Reply,
    RoomEnded,
    ShowMetadata,
)
from sleap_rtc_signaling.limits import (
    ADDRESS_MESSAGE_RATE,
    AWAKE_INTERVAL_S,
    CLOCK_CHECK_S,
    PEER_MESSAGE_RATE,
    PURGE_INTERVAL_S,
    REFUSAL_RATE,
)
from sleap_rtc_signaling.metrics import Metrics
from sleap_rtc_signaling.peer_socket import SERVICE_RESTART, PeerSocket
from sleap_rtc_signaling.rate_limit import RateLimiter, address_key
from sleap_rtc_signaling.relay_service import RelayService
from sleap_rtc_signaling.stores import Store

__all__ = ["Switchboard"]

_log = logging.getLogger(__name__)

# RFC 6455 section 7.4.1: done, and going away.
_GOOD_BYE: Final = (1000, 1001)


_DRAINING: Final = "this server is about to stop; connect again to reach another one"


class Switchboard:
    """All sockets of one server.

    Args:
        hub: decides.
        gate: counts the sockets of the whole server.
        relays: end with their room.
        store: knows the rooms.
        admissions: who may enter.
        metrics: counts.
        server: how the server is named in errors.
        clock: Unix time in seconds.
        limits: how much peers may say.
        exchange: the way to other instances; None where there are none.
    """

    def __init__(
        self,
        hub: Hub,
        gate: Gate,
        relays: RelayService,
        store: Store,
        admissions: Admissions,
        metrics: Metrics,
        server: str,
        clock: Callable[[], float],
        limits: LimitsConfig,
        exchange: Exchange | None = None,
    ) -> None:
        self._hub = hub
        self._gate = gate
        self._relays = relays
        self._store = store
        self._admissions = admissions
        self._metrics = metrics
        self._server = server
        self._clock = clock
        self._exchange = exchange
        self._sockets: dict[int, PeerSocket] = {}
        self._numbers = itertools.count(1)
        self._revocations = 0
        self._is_draining = False
        self._writes: asyncio.Queue[ForStore] = asyncio.Queue()
        self._woken = asyncio.Event()
        self._messages = RateLimiter(PEER_MESSAGE_RATE.scaled(limits.messages_per_s))
        self._address_messages = RateLimiter(
            ADDRESS_MESSAGE_RATE.scaled(limits.address_messages_per_s)
        )
        self._refusals = RateLimiter(REFUSAL_RATE)

    def render_metrics(self) -> bytes:
        """Return the metrics as Prometheus text."""
        return self._metrics.render(
            self._hub.counts(), len(self._sockets), self._relays.counts()
        )

    def close_room(self, room_id: str) -> None:
        """Send everybody out of a room that was deleted."""
        self.room_closed(room_id)
        if self._exchange is not None:
            self._exchange.close_room(room_id)

    def room_closed(self, room_id: str) -> None:
        """Send everybody here out of a room that was deleted at some instance."""
        self.perform(self._hub.close_room(room_id, self._clock()))

    def revoke(
        self, room_id: str, *, credential_id: str = "", account_id: str = ""
    ) -> None:
        """Send those out whom a credential or an account let in."""
        self.revoked(room_id, credential_id, account_id)
        if self._exchange is not None:
            self._exchange.revoke(room_id, credential_id, account_id)

    def revoked(self, room_id: str, credential_id: str, account_id: str) -> None:
        """Send those here out who were sent out at some instance."""
        self._revocations += 1
        before = {peer.peer_id for peer in self._hub.peers(room_id)}
        self.perform(
            self._hub.revoke(
                room_id,
                self._clock(),
                credential_id=credential_id,
                account_id=account_id,
            )
        )
        left = {peer.peer_id for peer in self._hub.peers(room_id)}
        self._relays.close_peers(room_id, before - left)

    async def peers(self, room_id: str) -> list[PeerInfo]:
        """Return who is in a room, at all instances."""
        if self._exchange is not None:
            return await self._exchange.peers(room_id)
        return self._hub.peers(room_id)

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._woken.set()

    def refuse_new(self) -> None:
        """Let in no more sockets; those that are here go on."""
        self._is_draining = True

    async def send_away(self, spread_s: float) -> None:
        """Send the peers to other instances, one after the other.

        They are expected back, so what is said to them meanwhile waits.
        """
        sockets = list(self._sockets.values())
        for socket in sockets:
            socket.close(SERVICE_RESTART)
            await asyncio.sleep(spread_s / len(sockets))

    # -- tasks of the server --------------------------------------------------------

    async def keep_time(self) -> None:
        """Wake the hub when it wants to be woken, for ever."""
        while True:
            self._woken.clear()
            self.perform(self._hub.expire(self._clock()))
            deadline = self._hub.deadline()
            delay = CLOCK_CHECK_S
            if deadline is not None:
                delay = min(delay, max(0.0, deadline - self._clock()))
            # Now and then in any case: while a machine sleeps, or when its clock is
            # set, the deadline comes nearer and the delay does not.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._woken.wait()

    async def keep_store(self) -> None:
        """Write down what the hub wants kept and remove what has expired, for ever."""
        purge_at = awake_at = time.monotonic()
        while True:
            now = time.monotonic()
            if awake_at <= now:
                awake_at = now + AWAKE_INTERVAL_S
                with self._logged("write down that it is there"):
                    await self._store.stay_awake(self._clock())
            if purge_at <= now:
                purge_at = now + PURGE_INTERVAL_S
                await self._purge()
            try:
                async with asyncio.timeout(max(0.0, awake_at - time.monotonic())):
                    wanted = await self._writes.get()
            except TimeoutError:
                continue
            await self._write(wanted)

    async def stop(self) -> None:
        """Write down what is left, once nobody is connected any more."""
        while not self._writes.empty():
            await self._write(self._writes.get_nowait())
        with self._logged("write down that it was there"):
            await self._store.stay_awake(self._clock())

    async def _purge(self) -> None:
        # What rooms with workers are due comes first: after the machine slept, they
        # have expired in the store although nobody left them.
        self.perform(self._hub.expire(self._clock()))
        while not self._writes.empty():
            await self._write(self._writes.get_nowait())
        with self._logged("remove what has expired"):
            await self._store.purge(self._clock())

    async def _write(self, wanted: ForStore) -> None:
        match wanted:
            case RenewRoom(room_id, expires_at):
                with self._logged("renew a room"):
                    if not await self._store.renew_room(room_id, expires_at):
                        # Another server on this store deleted it.
                        self.close_room(room_id)
            case KeepPeerId():
                with self._logged("keep a worker's id"):
                    await self._store.keep_peer_id(wanted)
            case DropPeerId(room_id, peer_id):
                with self._logged("free a worker's id"):
                    # It may have gone on at another instance.
                    if self._exchange is None or not await self._exchange.knows(
                        room_id, peer_id
                    ):
                        await self._store.drop_peer_id(wanted)
            case CheckRoom(room_id):
                with self._logged("look whether a room was renewed"):
                    await self._check_room(room_id)

    async def _check_room(self, room_id: str) -> None:
        now = self._clock()
        room = await self._store.find_room(room_id, now)
        if room is not None and room.expires_at > now:
            self._hub.extend(room_id, room.expires_at)
        else:
            self.perform(self._hub.end_room(room_id))
        self.wake()

    @contextlib.contextmanager
    def _logged(self, action: str) -> Iterator[None]:
        try:
            yield
        except StorageFailed as error:
            _log.error("could not %s: %s", action, error)

    # -- one socket -------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one WebSocket until it closes."""
        if self._is_draining:
            await websocket.send_denial_response(
                Response(_DRAINING, status_code=503, media_type="text/plain")
            )
            return
        host = websocket.client.host if websocket.client else ""
        address = address_key(host)
        refusal = self._gate.enter(address, time.monotonic())
        if refusal is None and self._exchange is not None:
            refusal = await self._enter_all(self._exchange, address)
        if refusal is not None:
            self._metrics.refused(refusal.code)
            await websocket.send_denial_response(
                Response(str(refusal), status_code=429, media_type="text/plain")
            )
            return
        connection = next(self._numbers)
        socket = PeerSocket(websocket, address)
        is_lost = True
        self._sockets[connection] = socket
        try:
            await websocket.accept()
            writer = asyncio.create_task(socket.write())
            try:
                self._hub.connected(connection, self._clock())
                self.wake()
                code = await self._read(connection, socket, websocket)
                is_lost = code not in _GOOD_BYE
            finally:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer
        finally:
            socket.gone()
            note(_log, logging.INFO, "socket closed", connection=connection)
            del self._sockets[connection]
            self._gate.leave(address)
            if self._exchange is not None:
                self._exchange.leave_address(address)
            self._hub.disconnected(connection, self._clock(), is_lost=is_lost)
            if self._exchange is not None:
                self._exchange.leave(connection, is_lost=is_lost)
            for limiter in (self._messages, self._refusals):
                limiter.forget(str(connection))
            self.wake()

    async def _enter_all(self, exchange: Exchange, address: str) -> RtcError | None:
        """Count a socket that the gate let in at all instances, or say why not."""
        gate = self._gate
        refusal: RtcError | None = None
        wait_s = await exchange.take("connects", address, gate.connect_rate)
        if wait_s:
            refusal = RateLimited(retry_after_s=f"{wait_s:.1f}")
        elif not await exchange.enter(address, gate.max_per_address):
            refusal = gate.too_many_of_address()
        if refusal is not None:
            gate.leave(address)
        return refusal

    async def _read(
        self, connection: int, socket: PeerSocket, websocket: WebSocket
    ) -> int:
        """Read until the socket closes, and return the close code."""
        while True:
            frame = await websocket.receive()
            if frame["type"] == "websocket.disconnect":
                return int(frame.get("code") or 0)
            if not socket.is_closing():
                work = self._received(connection, socket, frame.get("text"))
                if work is not None:
                    await work
            # Many frames may have come at once. The writer gets its turn between
            # them, or the replies would fill the outbox of a peer that does read.
            await asyncio.sleep(0)

    def _received(
        self, connection: int, socket: PeerSocket, text: str | bytes | None
    ) -> Coroutine[Any, Any, None] | None:
        """Carry out one message; None for `text` is a binary frame.

        Returns:
            None once it is done, which is the rule; or what is to be awaited before
            the next message of this socket is carried out.
        """
        wait_s = self._take(connection, socket)
        try:
            if text is None:
                raise RemoteProtocolError(detail="a binary frame")
            message = codec.decode_client_message(text)
        except RemoteProtocolError as error:
            self.perform(self._hub.malformed(connection, error, self._clock()))
            return None
        if wait_s:
            self._refuse(connection, message, wait_s)
            return None
        if isinstance(message, Register) and not self._hub.is_registered(connection):
            return self._register(connection, message)
        instructions = self._hub.handle(connection, message, self._clock())
        if self._exchange is not None and len(instructions) == 1:
            (wanted,) = instructions
            if isinstance(wanted, Forward | FindPeers | ShowMetadata):
                return self._elsewhere(self._exchange, wanted)
        self.perform(instructions)
        if not instructions:
            self.wake()  # it is held, and until when is for the hub to say
        return None

    async def _elsewhere(self, exchange: Exchange, wanted: Elsewhere) -> None:
        """Do what only other instances can answer."""
        match wanted:
            case Forward(held):
                await exchange.forward(held)
                self.wake()  # it may be held
            case FindPeers(_, room_id, _):
                peers = await exchange.peers(room_id)
                self.perform(self._hub.found(wanted, peers))
            case ShowMetadata(connection, metadata, reply):
                await exchange.show(connection, metadata)
                self.perform([reply])

    async def _register(self, connection: int, message: Register) -> None:
        while True:
            revocations = self._revocations
            admission = await self._admit(message)
            if self._exchange is not None:
                admission = await self._claim(
                    self._exchange, connection, message, admission
                )
            # What was looked up may have been taken back in the meantime.
            if revocations == self._revocations:
                break
        now = self._clock()
        self.perform(self._hub.handle(connection, message, now, admission))
        is_in = self._hub.is_registered(connection)
        if self._exchange is not None:
            if is_in:
                self._exchange.came(connection)
            else:
                await self._exchange.left(connection, is_lost=False)
        note(
            _log,
            logging.INFO,
            "peer registered" if is_in else "registration refused",
            connection=connection,
            room=message.room_id,
            peer=message.peer_id,
            role=message.role,
            code=admission.code if isinstance(admission, RtcError) else None,
        )
        if is_in:
            self._metrics.registered(message.role)
            self.wake()

    async def _claim(
        self,
        exchange: Exchange,
        connection: int,
        message: Register,
        admission: Admission | RtcError,
    ) -> Admission | RtcError:
        """Find out whether other instances leave the peer its id."""
        now = self._clock()
        try:
            admitted = self._hub.check(message, now, admission)
            await exchange.claim(
                Owner(
                    connection=connection,
                    room_id=message.room_id,
                    resume_digest=resume_digest(message),
                    info=PeerInfo(
                        peer_id=message.peer_id,
                        role=message.role,
                        metadata=message.metadata,
                        connected_at=now,
                    ),
                )
            )
        except StorageFailed as error:
            _log.error("a peer could not be written down: %s", error)
            return StorageFailed(place="the server's store", reason="see its log")
        except RtcError as error:
            return error
        return admitted

    def _take(self, connection: int, socket: PeerSocket) -> float:
        now = time.monotonic()
        return self._messages.take(str(connection), now) or self._address_messages.take(
            socket.address, now
        )

    def _refuse(self, connection: int, message: ClientMessage, wait_s: float) -> None:
        error = RateLimited(retry_after_s=f"{wait_s:.1f}")
        self.perform(self._hub.refuse(connection, message.id, error))
        if self._refusals.take(str(connection), time.monotonic()):
            code = CloseCode.RATE_LIMITED
            self.perform(self._hub.drop(connection, code, self._clock()))

    async def _admit(self, message: Register) -> Admission | RtcError:
        """Find out what a registration is worth."""
        try:
            return await self._admissions.admit(message, self._clock(), self._revive)
        except StorageFailed as error:
            _log.error("a room could not be looked up: %s", error)
            return StorageFailed(place="the server's store", reason="see its log")
        except RtcError as error:
            return error

    async def _revive(self, room_id: str) -> float | None:
        """Renew a room with a worker whose renewal the machine slept through."""
        now = self._clock()
        self.perform(self._hub.expire(now))
        ends = self._hub.room_ends(room_id)
        if ends is None or ends <= now:
            return None
        # Unless it was deleted by another server on this store.
        return ends if await self._store.renew_room(room_id, ends) else None

    # -- instructions -----------------------------------------------------------------

    def perform(self, instructions: Iterable[Instruction]) -> None:
        """Carry out what the hub wants."""
        for instruction in instructions:
            match instruction:
                case RenewRoom() | KeepPeerId() | DropPeerId() | CheckRoom():
                    self._writes.put_nowait(instruction)
                case RoomEnded(room_id):
                    self._relays.close_room(room_id)
                case Disconnect(connection, code):
                    self._close(connection, code)
                case Reply(connection, message) | Deliver(connection, message):
                    self._count(instruction)
                    socket = self._sockets.get(connection)
                    if socket is not None and not socket.send(message):
                        self._close(connection, CloseCode.TOO_SLOW)
                        self._hub.drop(connection, CloseCode.TOO_SLOW, self._clock())

    def _close(self, connection: int, code: CloseCode) -> None:
        if self._exchange is not None:
            self._exchange.leave(connection, is_lost=False)
        self._metrics.closed(code.name.lower())
        socket = self._sockets.get(connection)
        if socket is not None:
            socket.close(code)

    def _count(self, instruction: Reply | Deliver) -> None:
        message = instruction.message
        if isinstance(instruction, Deliver):
            self._metrics.relayed(str(message.__struct_config__.tag))
        elif isinstance(message, ServerError):
            self._metrics.refused(message.code)
