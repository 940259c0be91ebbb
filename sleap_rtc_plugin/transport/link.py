"""An authenticated connection to one peer: typed control messages and fragments.

Made by `transport.peer` once both proofs hold; used by the client's session and by
the worker's job coordinator. It says when the peer went silent and who closed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from aiortc.exceptions import InvalidStateError

from sleap_rtc_plugin.protocol.authentication import Authenticated
from sleap_rtc_plugin.protocol.codec import decode_control, encode_control
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    CONTROL_BUFFER_HIGH_BYTES,
    CONTROL_BUFFER_MAX_BYTES,
    HANDSHAKE_TIMEOUT_S,
    KEEP_ALIVE_INTERVAL_S,
)
from sleap_rtc_plugin.protocol.liveness import Liveness
from sleap_rtc_plugin.protocol.messages import ControlMessage, KeepAlive
from sleap_rtc_plugin.transport.effects import monotonic, wall_clock
from sleap_rtc_plugin.transport.live_channel import LiveChannel
from sleap_rtc_plugin.transport.send_budget import SendBudget

__all__ = ["Channel", "Link", "LinkClosed"]

logger = logging.getLogger(__name__)


class LinkClosed(Exception):
    """The link ended; `reason` says how, for a log."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Channel(Protocol):
    """What a link needs of a data channel (W3C RTCDataChannel)."""

    bufferedAmountLowThreshold: int

    @property
    def bufferedAmount(self) -> int:
        """Bytes given to `send` and not yet handed to the transport."""

    def send(self, data: bytes | str) -> None:
        """Queue one message."""


class Link:
    """One authenticated peer.

    Set `on_control` and `on_fragment` at once, before control returns to the event
    loop; both are called on it, as is `on_live` with what the channel `live` carries.
    `closed` is set when the link has ended.
    """

    def __init__(
        self,
        *,
        peer_id: str,
        control: Channel,
        transfer: Channel,
        authenticated: Authenticated,
        kind: str,
        engine: str,
        close: Callable[[], None],
        max_bytes_per_s: int | None = None,
        open_live: Callable[[], LiveChannel] | None = None,
    ) -> None:
        """Wrap two open channels; `close` begins to close the connection.

        `engine` is what moves our data channels: `fast` or `aiortc`. The transfer
        channel is given `max_bytes_per_s` at most, by what is sent in a second.
        `open_live` opens the channel for live frames, where there can be one.
        """
        self.peer_id = peer_id
        self.version = authenticated.version
        self.features = authenticated.features
        self.software = authenticated.software
        self.kind = kind
        self.engine = engine
        self.peer_engine = authenticated.engine
        self.closed = asyncio.Event()
        self.close_reason = ""
        self.breach: RemoteProtocolError | None = None
        self.on_control: Callable[[ControlMessage], None] | None = None
        self.on_fragment: Callable[[bytes | str], None] | None = None
        self.on_live: Callable[[bytes], None] | None = None
        # The channel for live frames, once it was opened.
        self.live: LiveChannel | None = None
        self._control = control
        self._transfer = transfer
        self._close = close
        self._open_live = open_live
        self._liveness = Liveness(wall=wall_clock(), now=monotonic())
        self._room_in_control = asyncio.Event()
        self._room_in_transfer = asyncio.Event()
        self._budget = SendBudget(max_bytes_per_s)
        self._keep_alive = asyncio.get_running_loop().create_task(self._run())

    # -- sending ---------------------------------------------------------------------

    def send(self, message: ControlMessage) -> None:
        """Queue a control message; a peer that never reads loses the link."""
        if self.closed.is_set():
            return
        if self._control.bufferedAmount > CONTROL_BUFFER_MAX_BYTES:
            self.close("the peer does not read what it is sent")
            return
        try:
            self._control.send(encode_control(message))
        except InvalidStateError:
            self.close("the connection is closing")

    async def send_paced(self, message: ControlMessage) -> None:
        """Send a control message of a long series, as fast as the peer takes it.

        Raises:
            LinkClosed: the link ended.
        """
        while self._control.bufferedAmount > CONTROL_BUFFER_HIGH_BYTES:
            await self._wait(self._room_in_control)
        self._raise_if_closed()
        self.send(message)

    async def send_fragment(self, frame: bytes) -> None:
        """Send a frame of the transfer channel, as fast as the peer takes it.

        What waits in the channel is bounded by time, so that a control message is
        never far behind.

        Raises:
            LinkClosed: the link ended.
        """
        channel, budget = self._transfer, self._budget
        while (wait_s := budget.wait_s(monotonic())) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.closed.wait(), wait_s)
            self._raise_if_closed()
        while channel.bufferedAmount > (room_at := budget.room_at(len(frame))):
            # Several transfers may wait here, each for room of its own; whoever is
            # woken too early waits again.
            channel.bufferedAmountLowThreshold = room_at
            await self._wait(self._room_in_transfer)
        self._raise_if_closed()
        budget.sent(len(frame), channel.bufferedAmount, monotonic())
        try:
            self._transfer.send(frame)
        except InvalidStateError:
            self.close("the connection is closing")
            raise LinkClosed(self.close_reason) from None

    @property
    def fragment_bytes(self) -> int:
        """How much the next frame of the transfer channel should carry."""
        return self._budget.fragment_bytes

    async def open_live(self) -> LiveChannel:
        """Return the channel for live frames, which the client opens when needed.

        Raises:
            LinkClosed: the link ended, or has no such channel.
        """
        self._raise_if_closed()
        gone = self.live is None or self.live.closed.is_set()
        if gone and self._open_live is not None:
            self.adopt_live(self._open_live())
        live = self.live
        if live is None:
            raise LinkClosed("it has no channel for live frames")
        try:
            await asyncio.wait_for(live.until_open(), HANDSHAKE_TIMEOUT_S)
        except TimeoutError:
            raise LinkClosed("the channel for live frames did not open") from None
        self._raise_if_closed()
        if live.closed.is_set():
            raise LinkClosed("the channel for live frames was closed")
        return live

    async def _wait(self, room: asyncio.Event) -> None:
        self._raise_if_closed()
        room.clear()
        await room.wait()
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self.closed.is_set():
            raise LinkClosed(self.close_reason)

    # -- what the connection reports ---------------------------------------------------

    def control_drained(self) -> None:
        """The control channel's buffer is low."""
        self._room_in_control.set()

    def transfer_drained(self) -> None:
        """The transfer channel's buffer is low."""
        self._budget.drained(self._transfer.bufferedAmount, monotonic())
        self._room_in_transfer.set()

    def control_received(self, frame: bytes | str) -> None:
        """A frame came on the control channel."""
        if self.closed.is_set():
            return
        self._liveness.heard(monotonic())
        try:
            message = decode_control(frame)
            if isinstance(message, KeepAlive):
                if message.echo:
                    self.send(KeepAlive())
            elif self.on_control is not None:
                self.on_control(message)
        except RemoteProtocolError as error:
            self._breached(error)

    def fragment_received(self, frame: bytes | str) -> None:
        """A frame came on the transfer channel."""
        if self.closed.is_set():
            return
        self._liveness.heard(monotonic())
        try:
            if self.on_fragment is not None:
                self.on_fragment(frame)
        except RemoteProtocolError as error:
            self._breached(error)

    def adopt_live(self, channel: LiveChannel) -> None:
        """There is a channel for live frames; its messages go to `on_live`."""
        self.live = channel
        channel.on_message = self._live_received

    def _live_received(self, message: bytes) -> None:
        if self.closed.is_set():
            return
        self._liveness.heard(monotonic())
        if self.on_live is not None:
            self.on_live(message)

    def _breached(self, error: RemoteProtocolError) -> None:
        """End the link for good: a new one would come to the same."""
        if not self.closed.is_set():
            self.breach = error
        self.close(error.detail)

    def close(self, reason: str) -> None:
        """End the link and let whoever waits on it know."""
        if self.closed.is_set():
            return
        logger.info("Link to %s closed: %s", self.peer_id, reason)
        self.close_reason = reason
        self.closed.set()
        self._room_in_control.set()
        self._room_in_transfer.set()
        if self.live is not None:
            self.live.ended()
        if self._keep_alive is not asyncio.current_task():
            self._keep_alive.cancel()
        self._close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_INTERVAL_S)
            loss = self._liveness.loss(wall=wall_clock(), now=monotonic())
            if loss is not None:
                self.close(loss)
                return
            self.send(KeepAlive())
