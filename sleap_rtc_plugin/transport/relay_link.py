"""A link through the signaling server's relay, where no packets get through.

Two peers meet on a WebSocket each; the server passes binary frames on and can read none
of them. Everything above sees a `Link` like any other. Made by `transport.climb` for a
client and by the worker's door.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Final

import websockets
from aiortc.exceptions import InvalidStateError
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol.close_codes import RelayCloseCode
from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    RelayRefused,
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.limits import (
    CLOSE_DRAIN_TIMEOUT_S,
    CONTROL_BUFFER_HIGH_BYTES,
    LINK_CONNECT_TIMEOUT_S,
    MAX_RELAY_FRAME_BYTES,
    SIGNALING_CONNECT_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.relay_messages import (
    RelayJoin,
    RelayTerms,
    decode_relay_joined,
    encode_relay,
)
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.link_opening import LinkOpening, Role
from sleap_rtc_plugin.transport.relay_cipher import (
    KEY_BYTES,
    Record,
    RecordKind,
    RelayCipher,
)
from sleap_rtc_plugin.transport.relay_queues import RelayInbox, RelayOutbox
from sleap_rtc_plugin.transport.signaling_client import socket_fault
from sleap_rtc_plugin.transport.transport_options import TransportOptions, bytes_per_s

__all__ = ["RelayConnection"]

logger = logging.getLogger(__name__)

ENGINE: Final = "websocket"
_WORDS: Final[dict[int, str]] = {
    RelayCloseCode.NOT_OFFERED: "it is not offered",
    RelayCloseCode.REFUSED: "it did not let us in",
    RelayCloseCode.PARTNER_ABSENT: "the other side did not come",
    RelayCloseCode.PARTNER_LEFT: "the other side left",
    RelayCloseCode.LIMIT: "a limit of the server was reached",
}


class _Channel:
    """One of the two channels, as a link wants it."""

    def __init__(self, buffered: Callable[[], int], put: Callable[[bytes], None]):
        self.bufferedAmountLowThreshold = 0
        self.on_low: Callable[[], None] = lambda: None
        self._buffered = buffered
        self._put = put

    @property
    def bufferedAmount(self) -> int:
        """Bytes that were not sent yet."""
        return self._buffered()

    def send(self, data: bytes | str) -> None:
        """Queue one message."""
        self._put(data.encode() if isinstance(data, str) else data)

    def drained(self) -> None:
        """Something was sent."""
        if self.bufferedAmount <= self.bufferedAmountLowThreshold:
            self.on_low()


class RelayConnection:
    """One meeting with one peer on a relay. Used once; `close` it whatever happens."""

    def __init__(
        self,
        *,
        role: Role,
        peer_id: str,
        own_peer_id: str,
        secret: bytes,
        server: str,
        terms: RelayTerms,
        token: str,
        relay_id: str,
        options: TransportOptions | None = None,
        room_id: str = "",
    ) -> None:
        """Prepare to meet `peer_id`; nothing is contacted yet.

        Args:
            role: our own.
            peer_id: who is to come.
            own_peer_id: as whom we are registered in the room.
            secret: the session's.
            server: the signaling server.
            terms: where its relay is, and how fast.
            token: the room's, or that of a member's account.
            relay_id: what both name to meet.
            options: how fast to send.
            room_id: the room, which an account's token does not say.
        """
        self._peer_id = peer_id
        self._own_peer_id = own_peer_id
        self._server = server
        self._url = "ws" + server.removeprefix("http") + terms.path
        if room_id:
            self._url += f"?room_id={room_id}"
        self._token = token
        self._relay_id = relay_id
        options = options or TransportOptions.from_environment()
        rates = [options.max_bytes_per_s, bytes_per_s(terms.max_mbit)]
        self._max_bytes_per_s = min((rate for rate in rates if rate), default=None)
        self._cipher = RelayCipher(
            role=role,
            secret=secret,
            relay_id=relay_id,
            private_key=secrets.token_bytes(KEY_BYTES),
        )
        self._outbox = RelayOutbox()
        self._inbox = RelayInbox()
        self._opening = LinkOpening(
            role=role, peer_id=peer_id, secret=secret, close=self._close_soon
        )
        lanes = (self._outbox.control, self._outbox.transfer)
        self._control, self._transfer = (
            _Channel(lambda lane=lane: lane.buffered_bytes, self._putter(lane.put))  # type: ignore[misc]
            for lane in lanes
        )
        self._control.bufferedAmountLowThreshold = CONTROL_BUFFER_HIGH_BYTES // 2
        self._socket: ClientConnection | None = None
        self._news = asyncio.Event()
        self._acknowledgements: list[Record] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None

    def _putter(self, put: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def queue(message: bytes) -> None:
            if self._closing is not None:
                raise InvalidStateError
            put(message)
            self._news.set()

        return queue

    # -- meeting ---------------------------------------------------------------------

    async def join(self) -> None:
        """Go to the relay, and return once it knows of us.

        Raises:
            RelayRefused: the server cannot be reached or does not let us in.
        """
        try:
            self._socket = await connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                open_timeout=SIGNALING_CONNECT_TIMEOUT_S,
                close_timeout=CLOSE_DRAIN_TIMEOUT_S,
                max_size=MAX_RELAY_FRAME_BYTES,
                compression=None,
                ping_interval=None,
                proxy=None,
            )
            join = RelayJoin(relay_id=self._relay_id, peer_id=self._own_peer_id)
            await self._socket.send(encode_relay(join))
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise RelayRefused(server=self._server, reason=_fault(error)) from None

    async def authenticate(self) -> Link:
        """Wait for the peer, and until both have proved themselves.

        Raises:
            RelayRefused: the peer did not come, or the server ended it.
            PeerNotAuthenticated: the peer does not know the secret, or somebody is
                in between.
            RemoteProtocolError: the peer or the server broke the protocol.
        """
        try:
            async with asyncio.timeout(LINK_CONNECT_TIMEOUT_S):
                await self._meet()
                authenticated = await self._opening.authenticated()
        except TimeoutError:
            reason = f"no answer within {LINK_CONNECT_TIMEOUT_S:.0f} s"
            raise LinkFailed(worker=self._peer_id, reason=reason) from None
        link = Link(
            peer_id=self._peer_id,
            control=self._control,
            transfer=self._transfer,
            authenticated=authenticated,
            kind="relay",
            engine=ENGINE,
            close=self._close_soon,
            max_bytes_per_s=self._max_bytes_per_s,
        )
        self._control.on_low = link.control_drained
        self._transfer.on_low = link.transfer_drained
        self._opening.become(link)
        return link

    async def _meet(self) -> None:
        """Wait until the peer is there, and exchange the first frames."""
        if self._socket is None:
            raise RemoteProtocolError(detail="a relay that was not joined")
        try:
            joined = await self._socket.recv()
            if not isinstance(joined, str):
                raise RemoteProtocolError(detail="an unreadable answer of the relay")
            decode_relay_joined(joined)
            await self._socket.send(self._cipher.hello)
            hello = await self._socket.recv()
            if isinstance(hello, str):
                raise RemoteProtocolError(detail="text on the relay")
            await self._socket.send(self._cipher.take_hello(hello))
        except websockets.WebSocketException as error:
            raise RelayRefused(server=self._server, reason=_fault(error)) from None
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._receive(self._socket)),
            loop.create_task(self._send(self._socket)),
        ]

    # -- frames ----------------------------------------------------------------------

    async def _receive(self, socket: ClientConnection) -> None:
        reason = "the connection to the relay was cut off"
        try:
            async for frame in socket:
                if isinstance(frame, str):
                    raise RemoteProtocolError(detail="text on the relay")
                if not self._take(self._cipher.open(frame)):
                    reason = "the peer closed the connection"
                    break
        except websockets.ConnectionClosed as error:
            reason = _fault(error)
        except RtcError as error:
            self._opening.fail(error)
            return
        self._opening.lost(reason)
        self._close_soon()

    def _take(self, record: Record) -> bool:
        """Take one record; return whether more may come."""
        match record.kind:
            case RecordKind.END:
                return False
            case RecordKind.CONFIRM:
                self._opening.transfer_opened()
                self._opening.begin(
                    self._control.send,
                    local_fingerprint=self._cipher.local_fingerprint,
                    remote_fingerprint=self._cipher.remote_fingerprint,
                    engine=ENGINE,
                )
            case RecordKind.TAKEN:
                self._outbox.taken(record.payload)
                self._news.set()
            case _:
                self._take_piece(record)
        return True

    def _take_piece(self, record: Record) -> None:
        message = self._inbox.take(record)
        acknowledgement = self._inbox.acknowledgement()
        if acknowledgement is not None:
            self._acknowledgements.append(acknowledgement)
            self._news.set()
        if isinstance(message, str):
            self._opening.control_received(message)
        elif message is not None:
            self._opening.transfer_received(message)

    async def _send(self, socket: ClientConnection) -> None:
        # A failed send shows as a closed socket to the receiving task.
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                record = self._next_record()
                if record is None:
                    self._news.clear()
                    await self._news.wait()
                    continue
                await socket.send(self._cipher.seal(record))
                self._control.drained()
                self._transfer.drained()

    def _next_record(self) -> Record | None:
        if self._acknowledgements:
            # Only the newest says anything.
            record = self._acknowledgements.pop()
            self._acknowledgements.clear()
            return record
        return self._outbox.next()

    # -- ending ------------------------------------------------------------------------

    def _close_soon(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _close(self) -> None:
        self._opening.stop_waiting()
        socket = self._socket
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if socket is None:
            return
        with contextlib.suppress(TimeoutError, websockets.WebSocketException):
            async with asyncio.timeout(CLOSE_DRAIN_TIMEOUT_S):
                if tasks:
                    await self._say_the_last(socket)
        await socket.close()

    async def _say_the_last(self, socket: ClientConnection) -> None:
        """Send what control still holds, and that this is the end."""
        while self._outbox.control.has_next():
            await socket.send(self._cipher.seal(self._outbox.control.take()))
        await socket.send(self._cipher.seal(Record(RecordKind.END)))

    async def close(self) -> None:
        """Close the connection and wait for it."""
        self._opening.end_link()
        self._close_soon()
        if self._closing is not None:
            await asyncio.shield(self._closing)
        self._opening.forget()


def _fault(error: BaseException) -> str:
    """Say in a few words why the relay ended or was never reached."""
    if isinstance(error, websockets.ConnectionClosed) and error.rcvd is not None:
        words = _WORDS.get(error.rcvd.code)
        if words is not None:
            return words
    return socket_fault(error)
