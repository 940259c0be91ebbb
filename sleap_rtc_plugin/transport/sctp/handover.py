"""The state of an association, taken over from aiortc's transport and given back to it.

Taken when the association is established, given back when the fast path finds a fault
in itself, at any later time and with nothing lost: what was not acknowledged is sent
again by aiortc, what had arrived stays. Called by `transport.sctp.fast_transport`.
"""

from typing import Final

from aiortc import rtcsctptransport as stock
from aiortc.rtcsctptransport import RTCSctpTransport

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.data_path import Association, DataPath
from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    unwrap,
)
from sleap_rtc_plugin.transport.sctp.path_mtu import PathMtu
from sleap_rtc_plugin.transport.sctp.receiver import (
    RECEIVE_WINDOW_BYTES,
    DataChunk,
    Message,
    Receiver,
)
from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk

__all__ = ["CannotTakeOver", "give_back", "take_over"]

# Unwrapped TSNs begin here, so that a TSN just before is not negative.
_ERA: Final = TSN_MODULO


class CannotTakeOver(Exception):
    """The association is in a state that only aiortc knows; it says which."""


def take_over(
    transport: RTCSctpTransport, congestion: CongestionControl, path_mtu: PathMtu
) -> DataPath:
    """Return a data path that goes on where aiortc stands.

    Raises:
        CannotTakeOver: aiortc has sent something already.
    """
    if transport._sent_queue or transport._outbound_queue:
        raise CannotTakeOver("data was sent already")
    if transport._last_received_tsn is None or transport._remote_port is None:
        raise CannotTakeOver("the peer's first TSN is unknown")
    receiver = Receiver(_ERA + transport._last_received_tsn)
    for stream_id, stream in transport._inbound_streams.items():
        receiver.next_seq[stream_id] = stream.sequence_number
        for chunk in stream.reassembly:
            receiver.hold(
                unwrap(chunk.tsn, receiver.cumulative),
                DataChunk(
                    chunk.flags,
                    chunk.stream_id,
                    chunk.stream_seq,
                    chunk.protocol,
                    chunk.user_data,
                ),
            )
    for tsn in transport._sack_misordered:
        receiver.note_delivered(unwrap(tsn, receiver.cumulative))
    return DataPath(
        Association(
            local_port=transport._local_port,
            remote_port=transport._remote_port,
            local_tag=transport._local_verification_tag,
            remote_tag=transport._remote_verification_tag,
            peer_takes_forward_tsn=transport._remote_partial_reliability,
        ),
        receiver=receiver,
        first_tsn=_ERA + transport._local_tsn,
        # The window that the peer named in its INIT.
        peer_window_bytes=transport._ssthresh,
        congestion=congestion,
        stream_seqs=transport._outbound_stream_seq,
        path_mtu=path_mtu,
    )


def give_back(
    transport: RTCSctpTransport, path: DataPath, *, now: float, wall_clock: float
) -> None:
    """Let aiortc go on where the data path stands; it sends nothing by itself yet.

    What turns out to be complete is among the path's messages afterwards.

    Args:
        transport: goes on.
        path: is not used afterwards, but for its messages.
        now: on the clock of the data path, in seconds.
        wall_clock: the same moment by the clock of aiortc.
    """
    _give_back_received(transport, path.receiver)
    clock_offset_s = wall_clock - now
    sender = path.sender
    transport._outbound_queue.clear()
    transport._sent_queue.clear()
    for chunk in sender.outstanding_chunks():
        own = _stock_chunk(chunk, clock_offset_s)
        own._retransmit = not (chunk.is_acked or chunk.is_abandoned)
        transport._sent_queue.append(own)
    for chunk in sender.cut_rest(now):
        transport._outbound_queue.append(_stock_chunk(chunk, clock_offset_s))
    transport._flight_size = 0
    transport._local_tsn = sender.wire_tsn()
    transport._last_sacked_tsn = sender.acked % TSN_MODULO
    transport._advanced_peer_ack_tsn = transport._last_sacked_tsn
    transport._outbound_stream_seq = sender.stream_seqs
    transport._cwnd = 4 * stock.USERDATA_MAX_LENGTH
    transport._fast_recovery_exit = None
    transport._fast_recovery_transmit = False
    transport._partial_bytes_acked = 0
    transport._update_advanced_peer_ack_point()


def _give_back_received(transport: RTCSctpTransport, receiver: Receiver) -> None:
    cumulative, beyond = receiver.arrived()
    transport._last_received_tsn = cumulative % TSN_MODULO
    transport._sack_misordered = {serial % TSN_MODULO for serial in beyond}
    transport._sack_duplicates = []
    transport._sack_needed = True
    streams: dict[int, stock.InboundStream] = {}
    for stream_id, seq in receiver.next_seq.items():
        streams[stream_id] = stock.InboundStream()
        streams[stream_id].sequence_number = seq
    chunks = receiver.held_chunks()
    for first, seq, (stream_id, protocol, data) in receiver.waiting_messages():
        flags = FIRST_FRAGMENT | LAST_FRAGMENT
        chunks.append((first, DataChunk(flags, stream_id, seq, protocol, data)))
    for serial, chunk in sorted(chunks):
        stream = streams.setdefault(chunk.stream_id, stock.InboundStream())
        received = stock.DataChunk(flags=chunk.flags)
        received.tsn = serial % TSN_MODULO
        received.stream_id = chunk.stream_id
        received.stream_seq = chunk.stream_seq
        received.protocol = chunk.protocol
        received.user_data = chunk.data
        stream.reassembly.append(received)
    held_bytes = 0
    for stream in streams.values():
        # aiortc looks only when something of the stream arrives.
        receiver.messages.extend(Message(*message) for message in stream.pop_messages())
        held_bytes += sum(len(chunk.user_data) for chunk in stream.reassembly)
    transport._inbound_streams = streams
    transport._advertised_rwnd = RECEIVE_WINDOW_BYTES - held_bytes


def _stock_chunk(chunk: SentChunk, clock_offset_s: float) -> stock.DataChunk:
    message = chunk.message
    expires_at = None if message is None else message.expires_at
    own = stock.DataChunk(flags=chunk.flags)
    own.tsn = chunk.serial % TSN_MODULO
    own.stream_id = chunk.stream_id
    own.stream_seq = chunk.stream_seq
    own.protocol = chunk.protocol
    own.user_data = chunk.data
    own._abandoned = chunk.is_abandoned
    own._acked = chunk.is_acked
    own._book_size = chunk.size
    own._expiry = None if expires_at is None else expires_at + clock_offset_s
    own._in_flight = False
    own._max_retransmits = None if message is None else message.max_retransmits
    own._misses = 0
    own._retransmit = False
    own._sent_count = chunk.sent_count
    own._sent_time = chunk.sent_at + clock_offset_s
    return own
