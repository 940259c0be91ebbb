"""aiortc's SCTP transport with a data path of our own, and its old one to fall back to.

Setting an association up, resetting its streams and opening channels stay aiortc's
(RFC 8832, RFC 6525); packets of user data and their acknowledgements are ours from the
moment the association is established. Where the way of the packets is unknown, or on
any fault of ours, aiortc goes on by itself and nothing is lost. Made by
`transport.data_channels`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final, TypeVar

from aiortc import RTCDataChannel
from aiortc.rtcsctptransport import (
    CHUNK_TYPES,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    Chunk,
    InitChunk,
    RTCSctpTransport,
)
from aiortc.rtcsctptransport import DataChunk as StockDataChunk

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.data_path import ControlChunk, DataPath
from sleap_rtc_plugin.transport.sctp.datagrams import Datagrams
from sleap_rtc_plugin.transport.sctp.handover import (
    CannotTakeOver,
    give_back,
    take_over,
)
from sleap_rtc_plugin.transport.sctp.leg import UnknownPath
from sleap_rtc_plugin.transport.sctp.packet import TSN_MODULO
from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    FAST_PEER_PACKET_BYTES,
    PathMtu,
)
from sleap_rtc_plugin.transport.sctp.receiver import (
    RECEIVE_WINDOW_BYTES,
    DataChunk,
    Message,
    MessageTooLarge,
)
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

__all__ = ["FastSctpTransport"]

logger = logging.getLogger(__name__)

# RFC 9260 section 16; aiortc waits the three seconds of the RFC before it.
RTO_INITIAL_S: Final = 1.0

T = TypeVar("T")
MakeCongestion = Callable[[], CongestionControl]
MakeDatagrams = Callable[["FastSctpTransport"], Datagrams]
"""How packets travel; tests put an emulated link here."""


class FastSctpTransport(RTCSctpTransport):
    """An SCTP transport that moves user data itself where it can.

    aiortc makes the object, of its own class; `adopt` gives it this one.
    """

    _make_congestion: MakeCongestion
    _max_bytes_per_s: int | None
    _make_datagrams: MakeDatagrams
    _path: DataPath | None
    _datagrams: Datagrams | None
    _event_loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None
    _timer_at: float
    _urgent: set[RTCDataChannel]
    _was_tried: bool
    _pump_is_due: bool

    @classmethod
    def adopt(
        cls,
        transport: RTCSctpTransport,
        make_congestion: MakeCongestion,
        *,
        max_bytes_per_s: int | None = None,
        make_datagrams: MakeDatagrams | None = None,
    ) -> "FastSctpTransport":
        """Turn a transport that has not been started into one of this class.

        Args:
            transport: made by aiortc.
            make_congestion: called when the association is established.
            max_bytes_per_s: the most to send; None for what the path carries.
            make_datagrams: how packets travel.
        """
        transport.__class__ = cls
        assert isinstance(transport, cls)  # noqa: S101 - for the type checker
        transport._make_congestion = make_congestion
        transport._max_bytes_per_s = max_bytes_per_s
        transport._make_datagrams = make_datagrams or _over_ice
        transport._path = None
        transport._datagrams = None
        transport._event_loop = asyncio.get_running_loop()
        transport._timer = None
        transport._timer_at = 0.0
        transport._urgent = set()
        transport._was_tried = False
        transport._pump_is_due = False
        transport._rto = RTO_INITIAL_S
        # aiortc never gets over a gap in which TSNs wrap, should it be the peer. From
        # the lower half, that is terabytes away.
        tsn = transport._local_tsn // 2 + 1
        transport._local_tsn = transport._reconfig_request_seq = tsn
        transport._last_sacked_tsn = transport._advanced_peer_ack_tsn = tsn - 1
        # The peer may send this much before it hears of it again.
        transport._advertised_rwnd = RECEIVE_WINDOW_BYTES
        return transport

    # -- what its owner asks and says --------------------------------------------------

    @property
    def is_fast(self) -> bool:
        """Whether user data goes our way, and not aiortc's."""
        return self._path is not None

    def set_urgent(self, channel: RTCDataChannel) -> None:
        """Let a channel's messages go before those of others."""
        self._urgent.add(channel)
        self.run(self._tell_urgent)

    def _tell_urgent(self) -> None:
        path = self._path
        for channel in self._urgent:
            if path is not None and channel.id is not None:
                path.sender.streams.set_urgent(channel.id)

    def allow_large_packets(self) -> None:
        """The peer reads packets larger than aiortc does: try how large they may be."""
        self.run(self._probe_larger)

    def _probe_larger(self) -> None:
        if self._path is not None:
            now = self._event_loop.time()
            self._path.path_mtu.raise_limit(FAST_PEER_PACKET_BYTES, now)
            self._pump()

    # -- taking over and giving back ---------------------------------------------------

    def _set_state(self, state: "RTCSctpTransport.State") -> None:
        super()._set_state(state)
        if state == self.State.ESTABLISHED and not self._was_tried:
            self._was_tried = True
            self._try_to_take_over()
        elif state == self.State.CLOSED:
            self._release()

    def _try_to_take_over(self) -> None:
        try:
            datagrams = self._datagrams = self._make_datagrams(self)
            mtu = PathMtu() if datagrams.can_probe else PathMtu(BASE_PACKET_BYTES)
            path = take_over(self, self._make_congestion(), mtu)
            path.sender.max_bytes_per_s = self._max_bytes_per_s
            datagrams.attach()
        except (UnknownPath, CannotTakeOver) as reason:
            logger.info("Data channels go the slow way: %s.", reason)
            self._release()
        except Exception:
            logger.warning("Data channels go the slow way.", exc_info=True)
            self._release()
        else:
            self._path = path
            self.run(self._tell_urgent)
            self._soon()

    def _release(self) -> None:
        """Let the sockets and the timer go."""
        self._path = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        datagrams, self._datagrams = self._datagrams, None
        if datagrams is not None:
            datagrams.detach()

    def run(self, work: Callable[..., T], *args: Any) -> T | None:
        """Do some work of the data path; a fault in it ends the fast way, once.

        Returns:
            What the work returns; None after a fault, and where aiortc goes on alone.
        """
        path = self._path
        if path is None:
            return None
        try:
            return work(*args)
        except Exception as fault:
            if self._path is path:
                self._give_back(path, fault)
            return None

    def _give_back(self, path: DataPath, fault: Exception) -> None:
        if isinstance(fault, UnknownPath):
            logger.info("Data channels go the slow way from now on: %s.", fault)
        else:
            logger.warning(
                "The fast way of data channels failed here; this connection goes on "
                "the slow way. Please report it.",
                exc_info=fault,
            )
        try:
            self._release()
            now = self._event_loop.time()
            give_back(self, path, now=now, wall_clock=time.time())
            self._settle(path)
            while path.messages and self._association_state != self.State.CLOSED:
                self._deliver(path.messages)
            if self._sent_queue and self._t3_handle is None:
                self._t3_start()
        except Exception:
            logger.warning(
                "The slow way failed as well; the connection is closed.", exc_info=True
            )
            self._step(self._abort())
            self._set_state(self.State.CLOSED)
            return
        self._step(self._reset_deferred_streams())
        self._step(self._send_sack())
        self._step(self._transmit())
        self._step(self._data_channel_flush())

    def _step(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.ensure_future(work)  # noqa: RUF006 - as aiortc does it

    # -- in ----------------------------------------------------------------------------

    async def _handle_data(self, data: bytes) -> None:
        if self._path is None:
            await super()._handle_data(data)
        else:
            self.receive_packets([data])

    def receive_packets(self, packets: Iterable[bytes]) -> None:
        """Take what DTLS has decrypted."""
        self.run(self._receive_packets, packets)

    def _receive_packets(self, packets: Iterable[bytes]) -> None:
        path = self._path
        if path is None:
            return
        now = self._event_loop.time()
        for packet in packets:
            try:
                others = path.receive_packet(packet, now)
            except MessageTooLarge:
                self._deliver_messages(path)
                self._refuse("a message larger than was agreed")
                return
            if others:
                # The messages before it come first: it may end their channels.
                self._deliver_messages(path)
                for chunk in others:
                    self._take_control(chunk)
            if self._path is not path:
                return
        self._deliver_messages(path)
        if self._reconfig_deferred is not None and self._path is path:
            self._drive(self._reset_deferred_streams())
        self._pump()

    async def _receive_chunk(self, chunk: Chunk) -> None:
        received, answered = self._last_received_tsn, self._reconfig_response_seq
        is_known = (
            isinstance(chunk, InitChunk)
            and received is not None
            and chunk.initiate_tag == self._remote_verification_tag
        )
        await super()._receive_chunk(chunk)
        if is_known:
            # Both sides send INIT (RFC 8841 section 9.3). Over one that comes late,
            # aiortc forgets what has arrived since, and waits for it for ever.
            self._last_received_tsn, self._reconfig_response_seq = received, answered

    async def _receive_data_chunk(self, chunk: StockDataChunk) -> None:
        path = self._path
        if path is None:
            await super()._receive_data_chunk(chunk)
            return
        # It came behind COOKIE ECHO or COOKIE ACK (RFC 9260 section 5.1), which made
        # the path: aiortc is still reading that packet.
        content = DataChunk(
            chunk.flags,
            chunk.stream_id,
            chunk.stream_seq,
            chunk.protocol,
            chunk.user_data,
        )
        self.run(self._receive_early, path, chunk.tsn, content)

    def _receive_early(self, path: DataPath, tsn: int, chunk: DataChunk) -> None:
        path.receiver.on_data(tsn, chunk)
        self._deliver_messages(path)

    def _deliver_messages(self, path: DataPath) -> None:
        while path.messages and self._path is path:
            self._deliver(path.messages)

    def _take_control(self, chunk: ControlChunk) -> None:
        """Let aiortc take a chunk that is not for the data path."""
        kind = CHUNK_TYPES.get(chunk.kind)
        if kind is None:
            return
        self.run(self._share)
        try:
            own: Chunk = kind(flags=chunk.flags, body=chunk.body)
            self._drive(self._receive_chunk(own))
        except Exception as error:  # a stranger's bytes, which aiortc does not check
            logger.debug("A chunk that cannot be used: %r", error)

    def _drive(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of aiortc's that never waits, since our sending does not.

        Raises:
            RuntimeError: it does wait.
        """
        try:
            work.send(None)
        except StopIteration:
            return
        work.close()
        raise RuntimeError("aiortc waits where it did not")

    def _deliver(self, messages: deque[Message]) -> None:
        """Hand the first message to its channel (RFC 8831 section 6.6)."""
        stream_id, protocol, data = messages[0]
        channel = self._data_channels.get(stream_id)
        content: bytes | str | None = None
        if protocol == WEBRTC_BINARY:
            content = data
        elif protocol == WEBRTC_STRING:
            try:
                content = data.decode()
            except UnicodeDecodeError:
                self._refuse("text that is not UTF-8")
                return
        elif protocol == WEBRTC_STRING_EMPTY:
            content = ""
        elif protocol == WEBRTC_BINARY_EMPTY:
            content = b""
        # Not before: what fails above has not been delivered.
        messages.popleft()
        if protocol == WEBRTC_DCEP:
            try:
                self._drive(self._data_channel_receive(stream_id, protocol, data))
            except Exception as error:  # asserts, and text that is none
                self._refuse(f"a channel opened wrongly ({error!r})")
        elif channel is not None and content is not None:
            self._tell(channel, lambda: channel.emit("message", content))

    def _tell(self, channel: RTCDataChannel, event: Callable[[], object]) -> None:
        """Let the application hear of something; its faults are not ours."""
        try:
            event()
        except Exception as error:
            self._event_loop.call_exception_handler(
                {
                    "message": f"The channel {channel.label!r} has a listener that "
                    "failed",
                    "exception": error,
                }
            )

    def _refuse(self, reason: str) -> None:
        """The peer breaks the protocol: end the association, as aiortc would."""
        logger.info("Data channels are closed, since the peer sent %s.", reason)
        self._end_association()

    def _end_association(self) -> None:
        if self._association_state != self.State.CLOSED:
            self._drive(self._abort())
        self._set_state(self.State.CLOSED)

    async def _reset_deferred_streams(self) -> None:
        request = self._reconfig_deferred
        self.run(self._share)
        await super()._reset_deferred_streams()
        if request is None or self._reconfig_deferred is not None:
            return
        for stream_id in request.streams:
            self.run(self._reset_received, stream_id)
            # For aiortc too, if it goes on alone since a moment ago.
            self._inbound_streams.pop(stream_id, None)

    def _reset_received(self, stream_id: int) -> None:
        if self._path is not None:
            self._path.receiver.reset_stream(stream_id)

    # -- out ---------------------------------------------------------------------------

    async def _send_chunk(self, chunk: Chunk) -> None:
        if not self.run(self._send_control, chunk):
            await super()._send_chunk(chunk)

    def _send_control(self, chunk: Chunk) -> bool:
        if self._path is None or self._datagrams is None:
            return False
        self._datagrams.send([self._path.control_packet(bytes(chunk))])
        return True

    async def _data_channel_flush(self) -> None:
        if self._path is None:
            await super()._data_channel_flush()
        else:
            self.run(self._flush)
            await self._transmit_reconfig()

    def _flush(self) -> None:
        """Move what applications have sent to the data path, and send what may go."""
        path = self._path
        queue = self._data_channel_queue
        while queue and path is not None:
            path.send(self._outbound(path, *queue[0]))
            # Not before: what fails above has not been taken.
            queue.popleft()
        self._pump()

    def _outbound(
        self, path: DataPath, channel: RTCDataChannel, protocol: int, data: bytes
    ) -> OutboundMessage:
        is_setup = protocol == WEBRTC_DCEP
        lifetime_ms = None if is_setup else channel.maxPacketLifeTime
        reliable = is_setup or not path.association.peer_takes_forward_tsn
        return OutboundMessage(
            stream_id=self._stream_of(channel),
            protocol=protocol,
            data=data,
            is_unordered=not (is_setup or channel.ordered),
            expires_at=(
                None
                if reliable or not lifetime_ms
                else self._event_loop.time() + lifetime_ms / 1000
            ),
            max_retransmits=None if reliable else channel.maxRetransmits,
            is_counted=not is_setup,
        )

    def _stream_of(self, channel: RTCDataChannel) -> int:
        """Return a channel's stream; it gets one with its first message (RFC 8832)."""
        stream_id = channel.id
        if stream_id is None:
            stream_id = self._data_channel_id or 0
            while stream_id in self._data_channels:
                stream_id += 2
            self._data_channels[stream_id] = channel
            channel._setId(stream_id)
        if channel in self._urgent and self._path is not None:
            self._path.sender.streams.set_urgent(stream_id)
        return stream_id

    async def _transmit(self) -> None:
        if self._path is None:
            await super()._transmit()
        else:
            self.run(self._pump)

    def _pump(self) -> None:
        """Send what may be sent now."""
        path, datagrams = self._path, self._datagrams
        if path is None or datagrams is None or datagrams.is_blocked:
            return
        now = self._event_loop.time()
        packets = path.packets(now)
        if packets:
            datagrams.set_fragments(path.may_fragment)
            datagrams.send(packets)
        self._settle(path)
        if self._path is path:
            if packets and path.sender.has_unsent:
                # There may be more; whatever else waits has its turn first.
                self._soon()
            self._set_timer(path)

    def _soon(self) -> None:
        if not self._pump_is_due:
            self._pump_is_due = True
            self._event_loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._pump_is_due = False
        self.run(self._pump)

    def _settle(self, path: DataPath) -> None:
        """Tell channels what no longer waits in them."""
        taken = path.sender.taken
        if taken and self._reconfig_queue:
            self._step(self._transmit_reconfig())
        while taken:
            message = taken.pop()
            channel = self._data_channels.get(message.stream_id)
            if message.is_counted and channel is not None:
                change = partial(channel._addBufferedAmount, -len(message.data))
                self._tell(channel, change)

    async def _send_sack(self) -> None:
        if self._path is None:
            await super()._send_sack()

    # -- what aiortc needs to know -----------------------------------------------------

    def _share(self) -> None:
        """Let aiortc's own fields say where the data path stands."""
        path = self._path
        if path is not None:
            self._local_tsn = path.sender.wire_tsn()
            self._last_received_tsn = path.receiver.cumulative % TSN_MODULO

    async def _transmit_reconfig(self) -> None:
        if not self.run(self._must_reset_wait):
            await super()._transmit_reconfig()

    def _must_reset_wait(self) -> bool:
        """Streams are reset after their messages (W3C WebRTC section 6.2.4)."""
        path = self._path
        if path is None:
            return False
        self._share()
        return any(map(path.sender.has_queued, self._reconfig_queue))

    # -- time --------------------------------------------------------------------------

    def _set_timer(self, path: DataPath) -> None:
        """Wake up at the path's deadline, or earlier and look again."""
        deadline = path.deadline()
        if self._timer is not None:
            if deadline is not None and self._timer_at <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is None:
            return
        self._timer_at = deadline
        self._timer = self._event_loop.call_at(deadline, self._timer_expired)

    def _timer_expired(self) -> None:
        self._timer = None
        self.run(self._on_timer)

    def _on_timer(self) -> None:
        path = self._path
        if path is None:
            return
        now = self._event_loop.time()
        path.handle_timeout(now)
        if path.is_stuck(now):
            logger.warning(
                "Data channels are closed: the network does not carry packets as large "
                "as before, and what is on its way cannot be sent in smaller ones. "
                "Connect again."
            )
            self._end_association()
            return
        # Where the socket is blocked, the timer is set again when there is room.
        self._pump()

    # -- what the datagrams report -----------------------------------------------------

    def path_has_room(self) -> None:
        """The socket takes packets again."""
        self.run(self._pump)

    def path_has_changed(self) -> None:
        """Packets take another path from now on."""
        if self._path is not None:
            self.run(self._path.on_new_path, self._event_loop.time())

    def packet_was_too_large(self, packet_bytes: int) -> None:
        """This machine refused to send a packet of that size."""
        if self._path is not None:
            now = self._event_loop.time()
            self.run(self._path.on_too_large, packet_bytes, now)


def _over_ice(transport: FastSctpTransport) -> Datagrams:
    return Datagrams(
        transport.transport,
        on_packets=transport.receive_packets,
        on_room=transport.path_has_room,
        on_new_path=transport.path_has_changed,
        on_too_large=transport.packet_was_too_large,
        run=transport.run,
    )
