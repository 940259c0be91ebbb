"""The data path of an established association: packets in, messages out, and back.

Pure: time is an argument, nothing here reads a clock or a socket. It puts together what
`receiver`, `sender` and `path_mtu` decide. Chunks that set up, reset and end the
association are not its business: it hands them back. Driven by
`transport.sctp.fast_transport`.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.transport.sctp.ack_delay import AckDelay
from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.packet import (
    COMMON_HEADER_BYTES,
    DATA,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    FORWARD_TSN,
    HEARTBEAT_ACK,
    SACK,
    TSN_MODULO,
    BadPacket,
    forward_tsn_chunk,
    heartbeat_chunks,
    heartbeat_info,
    iter_chunks,
    read_ack,
    read_forward_tsn,
    sack_chunk,
    seal,
)
from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    Oversized,
    PathMtu,
)
from sleap_rtc_plugin.transport.sctp.receiver import DataChunk, Message, Receiver
from sleap_rtc_plugin.transport.sctp.sender import Sender
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

__all__ = ["Association", "ControlChunk", "DataPath"]

# A SACK of at most so many gap blocks and duplicates fits every path.
MAX_ACK_BLOCKS: Final = 280
MAX_FORWARD_STREAMS: Final = 250
# How much is sent in one go before somebody else has a turn.
MAX_BURST_CHUNKS: Final = 64
MAX_BURST_BYTES: Final = 512 * 1024
# So many large packets lost in a row, and none arrived: the path does not carry them.
BLACK_HOLE_LOSSES: Final = 12
BLACK_HOLE_TIMEOUTS: Final = 2
# How long packets may be cut where nothing came through for a while.
NARROW_PATH_S: Final = 30.0
_PADDING: Final = (b"", bytes(3), bytes(2), bytes(1))
_OVERHEAD_BYTES: Final = COMMON_HEADER_BYTES + DATA_HEADER_BYTES
_PROBE_MARK: Final = b"size"


@dataclass(frozen=True)
class Association:
    """What both sides agreed on when the association was set up.

    Attributes:
        local_port: our SCTP port.
        remote_port: the peer's.
        local_tag: what the peer's packets carry.
        remote_tag: what our packets carry.
        peer_takes_forward_tsn: the peer knows RFC 3758.
    """

    local_port: int
    remote_port: int
    local_tag: int
    remote_tag: int
    peer_takes_forward_tsn: bool


@dataclass(frozen=True)
class ControlChunk:
    """A chunk that is not the data path's: its type, flags and body."""

    kind: int
    flags: int
    body: bytes


class DataPath:
    """Both halves of an association, and the size of its packets."""

    def __init__(
        self,
        association: Association,
        *,
        receiver: Receiver,
        first_tsn: int,
        peer_window_bytes: int,
        congestion: CongestionControl,
        stream_seqs: dict[int, int] | None = None,
        path_mtu: PathMtu | None = None,
    ) -> None:
        """Go on with an association.

        Args:
            association: what was agreed.
            receiver: what has arrived.
            first_tsn: the next TSN to send.
            peer_window_bytes: what the peer can hold.
            congestion: how much may be in flight.
            stream_seqs: the next sequence number by stream; kept and changed here.
            path_mtu: how large packets may be.
        """
        self.association = association
        self.receiver = receiver
        self.path_mtu = path_mtu or PathMtu()
        self.sender = Sender(
            first_tsn,
            congestion,
            payload_bytes=self.path_mtu.packet_bytes - _OVERHEAD_BYTES,
            peer_window_bytes=peer_window_bytes,
            stream_seqs=stream_seqs,
        )
        # Packets may be cut into smaller ones on their way: some have to be.
        self.may_fragment = False
        self._oversized = Oversized()
        self._ack_delay = AckDelay()
        # Not even the smallest packets came through lately.
        self._narrow_until = 0.0
        self._header = b"".join(
            (
                association.local_port.to_bytes(2, "big"),
                association.remote_port.to_bytes(2, "big"),
                association.remote_tag.to_bytes(4, "big"),
                bytes(4),
            )
        )

    @property
    def messages(self) -> "deque[Message]":
        """What has arrived and the application has not been given yet."""
        return self.receiver.messages

    # -- in ----------------------------------------------------------------------------

    def receive_packet(self, packet: bytes, now: float) -> list[ControlChunk]:
        """Take a packet that DTLS decrypted; return what is not for the data path.

        Raises:
            MessageTooLarge: the peer sends a larger message than agreed.
        """
        others: list[ControlChunk] = []
        receiver = self.receiver
        try:
            for kind, flags, begin, end in iter_chunks(
                packet, self.association.local_tag
            ):
                if kind == DATA:
                    # Without user data it is a violation (RFC 9260 section 3.3.1).
                    if end - begin <= DATA_HEADER_BYTES:
                        raise BadPacket("DATA without data")
                    _, _, _, tsn, stream_id, seq, protocol = DATA_HEADER.unpack_from(
                        packet, begin
                    )
                    data = packet[begin + DATA_HEADER_BYTES : end]
                    self._ack_delay.on_packet()
                    receiver.on_data(
                        tsn, DataChunk(flags, stream_id, seq, protocol, data)
                    )
                elif kind == SACK:
                    self.sender.on_sack(*read_ack(packet, begin, end), now)
                elif kind == FORWARD_TSN:
                    receiver.on_forward_tsn(*read_forward_tsn(packet, begin, end))
                elif kind == HEARTBEAT_ACK:
                    self._take_probe_ack(heartbeat_info(packet, begin, end), now)
                else:
                    others.append(ControlChunk(kind, flags, packet[begin + 4 : end]))
        except BadPacket:
            # What came before in it counts: a later chunk was wrong, not the sum.
            return others
        self.sender.on_heard(now)
        self._oversized.on_heard(now)
        return others

    def _take_probe_ack(self, info: bytes, now: float) -> None:
        if len(info) != len(_PROBE_MARK) + 4 or not info.startswith(_PROBE_MARK):
            return
        probe_id = int.from_bytes(info[len(_PROBE_MARK) :], "big")
        if self.path_mtu.on_probe_acked(probe_id, now):
            self._apply_packet_size()

    def _apply_packet_size(self) -> None:
        self.sender.set_payload(self.path_mtu.packet_bytes - _OVERHEAD_BYTES)

    # -- out ---------------------------------------------------------------------------

    def send(self, message: OutboundMessage) -> None:
        """Queue a message; `packets` sends it."""
        self.sender.streams.push(message)

    def packets(self, now: float) -> list[bytes]:
        """Return packets to send now; call again until there are none."""
        if self.sender.large_losses >= BLACK_HOLE_LOSSES:
            self._shrink(self.path_mtu.on_black_hole(now), now)
        self.may_fragment = (
            self._oversized.is_outstanding(self.sender.acked)
            or now < self._narrow_until
        )
        if self.receiver.has_gaps:
            self.sender.copies.on_loss(now)
        packets: list[bytes] = []
        # First, since what it gives up the peer is told of in the same packet.
        chunks = self.sender.poll(now, MAX_BURST_CHUNKS, MAX_BURST_BYTES)
        room_bytes = self.path_mtu.packet_bytes - COMMON_HEADER_BYTES
        parts: list[bytes] = []
        used_bytes = 0
        for part in self._control(now):
            parts.append(part)
            used_bytes += len(part)
        header, pack = self._header, DATA_HEADER.pack
        for chunk in chunks:
            length = chunk.size + DATA_HEADER_BYTES
            head = pack(
                DATA,
                chunk.flags,
                length,
                chunk.serial % TSN_MODULO,
                chunk.stream_id,
                chunk.stream_seq,
                chunk.protocol,
            )
            padded = length + (-length & 3)
            if parts and used_bytes + padded > room_bytes:
                packets.append(seal(header, b"".join(parts)))
                parts = []
                used_bytes = 0
            parts += (head, chunk.data)
            if padded != length:
                parts.append(_PADDING[length & 3])
            used_bytes += padded
        if parts:
            packets.append(seal(header, b"".join(parts)))
        # One that is cut on its way would tell nothing.
        probe = None if self.may_fragment else self.path_mtu.next_probe(now)
        if probe is not None:
            packets.append(self._probe_packet(*probe))
        return packets

    def _control(self, now: float) -> list[bytes]:
        """Return the chunks that go before data (section 6.10)."""
        parts = []
        receiver = self.receiver
        if receiver.is_ack_due and not self._ack_delay.must_wait(
            is_urgent=receiver.is_ack_urgent, now=now
        ):
            self._ack_delay.acknowledged()
            parts.append(sack_chunk(*self.receiver.take_ack(MAX_ACK_BLOCKS)))
        if self.sender.is_forward_due:
            target, streams = self.sender.take_forward(MAX_FORWARD_STREAMS)
            forward = forward_tsn_chunk(target, streams)
            if sum(map(len, parts)) + len(forward) > BASE_PACKET_BYTES - 12:
                # It goes with the next ones.
                self.sender.is_forward_due = True
            else:
                parts.append(forward)
        return parts

    def _probe_packet(self, probe_id: int, packet_bytes: int) -> bytes:
        info = _PROBE_MARK + (probe_id % TSN_MODULO).to_bytes(4, "big")
        size = packet_bytes - COMMON_HEADER_BYTES
        return seal(self._header, heartbeat_chunks(info, size))

    def control_packet(self, chunk: bytes) -> bytes:
        """Return the packet of a chunk that is not the data path's."""
        return seal(self._header, chunk)

    # -- time and the path -------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when `handle_timeout` wants to be called; None for never."""
        probe_at = None if self.may_fragment else self.path_mtu.deadline()
        times = (self.sender.deadline(), probe_at, self._ack_delay.due_at)
        return min((at for at in times if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Time has passed; `packets` afterwards."""
        self.sender.on_deadline(now)
        if self.sender.round_trip.backoff >= BLACK_HOLE_TIMEOUTS:
            self._shrink(self.path_mtu.on_black_hole(now), now)
            # An outage, or a path that carries less than every path has to.
            self._narrow_until = now + NARROW_PATH_S

    def on_too_large(self, packet_bytes: int, now: float) -> None:
        """This machine refused to send a packet of that size."""
        if packet_bytes <= BASE_PACKET_BYTES:
            self._narrow_until = float("inf")
        self._shrink(self.path_mtu.on_too_large(packet_bytes, now), now)

    def is_stuck(self, now: float) -> bool:
        """Whether what is on its way is too large for the path, and cannot be cut."""
        return self._oversized.is_stuck(self.sender.acked, now)

    def _shrink(self, has_shrunk: bool, now: float) -> None:
        if has_shrunk:
            self._oversized.begin(self.sender.next_serial, now)
            self._apply_packet_size()
        self.sender.large_losses = 0

    def on_new_path(self, now: float) -> None:
        """Packets take another path from now on."""
        self._narrow_until = 0.0
        has_shrunk = self.path_mtu.packet_bytes > BASE_PACKET_BYTES
        self.path_mtu.on_new_path(now)
        self.sender.on_new_path(now)
        self._shrink(has_shrunk, now)
