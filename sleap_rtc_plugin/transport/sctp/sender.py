"""The sending half of an association: messages in, DATA chunks and their fate out.

Pure (RFC 9260 sections 6.1, 6.3 and 7.2; RFC 3758 section 3.5). Loss is found by what
was sent later and has arrived, and a lost tail by a probe (RFC 8985), because one SACK
here tells of a whole batch and missing reports cannot be counted. What may be in
flight is the congestion control's to say. Called by `transport.sctp.data_path`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from sleap_rtc_plugin.transport.sctp.congestion import AckSample, CongestionControl
from sleap_rtc_plugin.transport.sctp.copies import Copies
from sleap_rtc_plugin.transport.sctp.delivery_rate import DeliveryRate
from sleap_rtc_plugin.transport.sctp.pacing import Pacer
from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    UNORDERED,
    unwrap,
)
from sleap_rtc_plugin.transport.sctp.reordering import Reordering
from sleap_rtc_plugin.transport.sctp.round_trip import RoundTrip
from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage, StreamScheduler
from sleap_rtc_plugin.transport.sctp.tsn_ranges import TsnRanges

__all__ = ["Sender"]

# Probes for a lost tail before T3-rtx takes over (RFC 8985 section 7.3).
MAX_PROBES: Final = 2
# The peer's window does not name streams and chunks; what it may cost there to hold
# very small ones is bounded by their number.
MAX_OUTSTANDING_CHUNKS: Final = 30_000


class Sender:
    """What was sent and is not acknowledged, and what is sent next.

    Attributes:
        streams: what the application wants sent.
        round_trip: the estimates of the path.
        copies: what is sent twice.
        congestion: how much may be in flight; it may be replaced.
        acked: the last TSN acknowledged cumulatively, unwrapped.
        next_serial: the next TSN, unwrapped.
        in_flight_bytes: user data in flight.
        taken: what was taken from the streams; the caller empties it.
        is_forward_due: a FORWARD-TSN is to be sent.
        max_bytes_per_s: the most to send, whatever the congestion control says.
        large_losses: lost chunks larger than the base payload that were sent after the
            last one of them that arrived. A timeout says nothing of sizes.
    """

    def __init__(
        self,
        first_tsn: int,
        congestion: CongestionControl,
        *,
        payload_bytes: int,
        peer_window_bytes: int,
        stream_seqs: dict[int, int] | None = None,
    ) -> None:
        """Begin with `first_tsn`; nothing is sent yet.

        Args:
            first_tsn: the first TSN to use.
            congestion: how much may be in flight.
            payload_bytes: user data of a full packet.
            peer_window_bytes: what the peer can hold.
            stream_seqs: the next sequence number by stream; kept and changed here.
        """
        self.streams = StreamScheduler()
        self.round_trip = RoundTrip()
        self.copies = Copies()
        self.congestion = congestion
        self.acked = first_tsn - 1
        self.next_serial = first_tsn
        self.in_flight_bytes = 0
        self.taken: list[OutboundMessage] = []
        self.is_forward_due = False
        self.max_bytes_per_s: int | None = None
        self.large_losses = 0
        self.stream_seqs = {} if stream_seqs is None else stream_seqs
        self._base_payload_bytes = payload_bytes
        self._payload_bytes = payload_bytes
        self._peer_window_bytes = peer_window_bytes
        # By TSN, in its order; and by transmission, with entries that are out of date.
        self._outstanding: dict[int, SentChunk] = {}
        self._sent_order: deque[tuple[int, SentChunk]] = deque()
        self._lost: deque[SentChunk] = deque()
        self._gap_acked = TsnRanges()
        # The message that is being cut into chunks.
        self._message: OutboundMessage | None = None
        self._position = 0
        self._stream_seq = 0
        # Loss detection
        self._number = 0
        self._largest_acked = 0
        self._largest_large_acked = 0
        self._reordering = Reordering()
        self._may_resend_one = False
        self._probe: SentChunk | None = None
        self._probes = 0
        self._delivery = DeliveryRate()
        self._pacer = Pacer()
        self._is_window_limited = False
        # Timers
        self._last_sent_at = 0.0
        self._t3_at: float | None = None
        self._probe_at: float | None = None
        self._loss_at: float | None = None
        congestion.on_packet_size(payload_bytes)

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent, or sent again."""
        return bool(self._message or self._lost or self.streams or self._probe)

    def has_queued(self, stream_id: int) -> bool:
        """Whether something of a stream has not been sent in full."""
        message = self._message
        return self.streams.has_queued(stream_id) or (
            message is not None and message.stream_id == stream_id
        )

    def set_payload(self, payload_bytes: int) -> None:
        """Fill packets with that much user data from now on."""
        self._payload_bytes = payload_bytes
        self.large_losses = 0
        self.congestion.on_packet_size(payload_bytes)

    # -- what to send (section 6.1) ------------------------------------------------

    def poll(self, now: float, max_chunks: int, max_bytes: int) -> list[SentChunk]:
        """Return the chunks to send now, which count as sent from here on."""
        if not self.has_unsent:
            self._is_window_limited = False
            self._pacer.next_at = None
            self._delivery.on_nothing_to_send(self.in_flight_bytes)
            return self.copies.take(now)
        chunks = self.copies.take(now)
        pace = self._pace()
        room_bytes = min(max_bytes, self._pacer.credit(pace, self._payload_bytes, now))
        if self._probe is not None:
            probe, self._probe = self._probe, None
            if probe.is_in_flight:
                self._record(probe, now)
                chunks.append(probe)
        if not self.in_flight_bytes and self._last_sent_at:
            idle_s = now - self._last_sent_at
            if idle_s > self.round_trip.timeout_s and self.has_unsent:
                self.congestion.on_idle(idle_s, self.round_trip.timeout_s)
        congestion_bytes = self.congestion.window_bytes
        window_bytes = min(congestion_bytes, self._peer_window_bytes)
        # True until sent anew: several SACKs may come in between, each of which is to
        # let the window grow. The peer's window is no reason to.
        self._is_window_limited = False
        # A chunk may be sent into a closed window where nothing else is in flight.
        window_bytes = max(1, window_bytes)
        while len(chunks) < max_chunks and room_bytes > 0:
            is_full = self.in_flight_bytes >= window_bytes
            chunk = None
            if not is_full or self._may_resend_one:
                chunk = self._next_lost(now)
            if chunk is None:
                if is_full:
                    self._is_window_limited = self.in_flight_bytes >= congestion_bytes
                    break
                if len(self._outstanding) >= MAX_OUTSTANDING_CHUNKS:
                    break
                chunk = self._next_new(now)
                if chunk is None:
                    self._delivery.on_nothing_to_send(self.in_flight_bytes)
                    break
            self._record(chunk, now)
            chunks.append(chunk)
            room_bytes -= chunk.size
        else:
            # The pace follows from the window, most often, and so it may grow. By what
            # it holds, since the user may have set the pace.
            self._is_window_limited = 2 * self.in_flight_bytes >= congestion_bytes
        sent_bytes = sum(chunk.size for chunk in chunks)
        self._pacer.spend(pace, sent_bytes, has_more=self.has_unsent, now=now)
        if chunks:
            self._last_sent_at = now
            if self._t3_at is None:
                self._t3_at = now + self.round_trip.timeout_s
            self._set_probe()
        return chunks

    def _next_lost(self, now: float) -> SentChunk | None:
        while self._lost:
            chunk = self._lost.popleft()
            if not chunk.is_lost or self._give_up(chunk, now):
                continue
            chunk.is_lost = False
            self._may_resend_one = False
            self.in_flight_bytes += chunk.size
            return chunk
        return None

    def _next_new(self, now: float) -> SentChunk | None:
        message = self._message or self._begin(now)
        if message is None:
            return None
        data = message.data
        begin = self._position
        end = begin + self._payload_bytes
        flags = UNORDERED if message.is_unordered else 0
        if begin == 0:
            flags |= FIRST_FRAGMENT
        if end >= len(data):
            flags |= LAST_FRAGMENT
        piece = data[begin:end] if begin or end < len(data) else data
        chunk = SentChunk(self.next_serial, flags, message, self._stream_seq, piece)
        # Nothing can fail from here on.
        self._outstanding[self.next_serial] = chunk
        self.next_serial += 1
        self.in_flight_bytes += chunk.size
        self._position = end
        if flags & LAST_FRAGMENT:
            self._message = None
            if flags & FIRST_FRAGMENT and self.streams.is_urgent(chunk.stream_id):
                self.copies.offer(chunk, now)
        return chunk

    def _begin(self, now: float) -> OutboundMessage | None:
        """Take the next message from the streams; None if there is none."""
        while (message := self.streams.pop()) is not None:
            self.taken.append(message)
            if message.expires_at is not None and now > message.expires_at:
                # It never had a TSN: nobody needs to be told.
                continue
            seq = 0
            if not message.is_unordered:
                seq = self.stream_seqs.get(message.stream_id, 0)
                self.stream_seqs[message.stream_id] = (seq + 1) & 0xFFFF
            self._message, self._position, self._stream_seq = message, 0, seq
            return message
        return None

    def _record(self, chunk: SentChunk, now: float) -> None:
        """Note a transmission."""
        is_alone = self.in_flight_bytes <= chunk.size
        self._delivery.on_sent(chunk, is_alone=is_alone, now=now)
        self._number += 1
        chunk.number = self._number
        chunk.sent_at = now
        chunk.sent_count += 1
        self._sent_order.append((self._number, chunk))

    def _pace(self) -> float | None:
        """Return how fast to send at most, in bytes per second."""
        pace, limit = self.congestion.pace_bytes_per_s, self.max_bytes_per_s
        if pace is None or limit is None:
            return pace if limit is None else limit
        return min(pace, limit)

    def _set_probe(self) -> None:
        probe_s = self.round_trip.probe_s
        if (
            probe_s is None
            or self._probes >= MAX_PROBES
            or not self.in_flight_bytes
            or self.round_trip.has_timed_out()
        ):
            self._probe_at = None
        else:
            self._probe_at = self._last_sent_at + probe_s

    # -- SACK (section 6.2.1) ----------------------------------------------------------

    def on_sack(
        self,
        cumulative: int,
        window_bytes: int,
        gaps: Sequence[tuple[int, int]],
        duplicates: Sequence[int],
        now: float,
    ) -> None:
        """Take a SACK; TSNs as on the wire, gaps counted from the cumulative one.

        One that is out of date, or acknowledges what was never sent, changes nothing.
        """
        serial = unwrap(cumulative, self.acked)
        if serial < self.acked or serial >= self.next_serial:
            return
        self._peer_window_bytes = window_bytes
        in_flight_bytes = self.in_flight_bytes
        acked_bytes = 0
        newest: SentChunk | None = None
        surely_sent_at = now - self._shortest_s()
        for chunk in self._newly_acked(serial, gaps):
            acked_bytes += chunk.size
            # What was sent again a moment ago was acknowledged for the first time.
            if (newest is None or chunk.number > newest.number) and (
                chunk.sent_count == 1 or chunk.sent_at <= surely_sent_at
            ):
                newest = chunk
        if duplicates:
            self._reordering.arrived_twice(
                unwrap(tsn, self.acked) for tsn in duplicates
            )
        rtt_s: float | None = None
        if newest is not None:
            self._largest_acked = max(self._largest_acked, newest.number)
            if newest.sent_count == 1:
                rtt_s = now - newest.sent_at
                self.round_trip.measured(rtt_s)
            if newest.size > self._base_payload_bytes:
                self._largest_large_acked = max(
                    self._largest_large_acked, newest.number
                )
                self.large_losses = 0
        if acked_bytes:
            self._delivery.on_acked(acked_bytes, now)
            self._probes = 0
            self.round_trip.heard()
            self._t3_at = now + self.round_trip.timeout_s
        lost_bytes, lost_sent_at = self._detect_losses(now)
        if acked_bytes or lost_bytes:
            rate = self._delivery.measure(newest, self._shortest_s(), now)
            delivered_bytes = self._delivery.delivered_bytes
            self.congestion.on_ack(
                AckSample(
                    now=now,
                    acked_bytes=acked_bytes,
                    lost_bytes=lost_bytes,
                    lost_sent_at=lost_sent_at,
                    in_flight_bytes=in_flight_bytes,
                    is_window_limited=self._is_window_limited,
                    rtt_s=rtt_s,
                    delivered_bytes=delivered_bytes,
                    delivered_at_send_bytes=(
                        delivered_bytes - acked_bytes
                        if newest is None
                        else newest.delivered_bytes
                    ),
                    rate_bytes_per_s=rate,
                    is_app_limited=newest is not None and newest.is_app_limited,
                )
            )
        self._after_acks()

    def _newly_acked(
        self, cumulative: int, gaps: Sequence[tuple[int, int]]
    ) -> Iterator[SentChunk]:
        outstanding = self._outstanding
        for serial in range(self.acked + 1, cumulative + 1):
            chunk = outstanding.pop(serial)
            if self._acknowledge(chunk):
                yield chunk
        if cumulative > self.acked:
            self.acked = cumulative
            if self._gap_acked:
                self._gap_acked.advance(cumulative)
        for first, last in gaps:
            begin, end = cumulative + first, cumulative + last
            if not cumulative < begin <= end < self.next_serial:
                continue
            for low, high in self._gap_acked.add(begin, end):
                for serial in range(low, high + 1):
                    chunk = outstanding[serial]
                    if self._acknowledge(chunk):
                        yield chunk

    def _acknowledge(self, chunk: SentChunk) -> bool:
        """Note that a chunk arrived; True unless that was known, or it was given up."""
        if chunk.is_acked or chunk.is_abandoned:
            return False
        if chunk.is_lost:
            chunk.is_lost = False
        else:
            self.in_flight_bytes -= chunk.size
        chunk.is_acked = True
        return True

    def _shortest_s(self) -> float:
        shortest_s = self.round_trip.minimum_s
        return 0.0 if shortest_s == float("inf") else shortest_s

    def _after_acks(self) -> None:
        if not self._outstanding:
            self._t3_at = self._probe_at = self._loss_at = None
            self._sent_order.clear()
        else:
            self._set_probe()
        self._check_forward()

    # -- loss (sections 7.2.4 and 6.3.3; RFC 8985) ---------------------------------

    def _detect_losses(self, now: float) -> tuple[int, float | None]:
        """Mark what is lost; return how much it is and when the last was sent."""
        order = self._sent_order
        lost_bytes = 0
        lost_sent_at: float | None = None
        surely_lost = self._largest_acked - self._reordering.chunks
        delay_s = self.round_trip.loss_delay_s
        self._loss_at = None
        while order:
            number, chunk = order[0]
            if number == chunk.number and chunk.is_in_flight:
                if number > self._largest_acked:
                    break
                # By the very sum that the timer is set to, or it would be set again.
                late_at = chunk.sent_at + delay_s
                if number > surely_lost and late_at > now:
                    self._loss_at = late_at
                    break
                lost_bytes += chunk.size
                lost_sent_at = chunk.sent_at
                self._lose(chunk)
                if not chunk.is_copied:
                    self._reordering.resent(chunk.serial)
                if (
                    chunk.size > self._base_payload_bytes
                    and number > self._largest_large_acked
                ):
                    self.large_losses += 1
            order.popleft()
        if lost_bytes:
            self._may_resend_one = True
            self.copies.on_loss(now)
        return lost_bytes, lost_sent_at

    def _lose(self, chunk: SentChunk) -> None:
        chunk.is_lost = True
        self.in_flight_bytes -= chunk.size
        is_urgent = self.streams.is_urgent(chunk.stream_id)
        (self._lost.appendleft if is_urgent else self._lost.append)(chunk)

    def _time_out(self, now: float) -> None:
        """T3-rtx expired: everything in flight counts as lost (section 6.3.3)."""
        if self.round_trip.has_timed_out():
            # What the peer had beyond a gap it may have thrown away (section 6.2).
            self._gap_acked.clear()
            for chunk in self._outstanding.values():
                if chunk.is_acked:
                    chunk.is_acked = False
                    self.in_flight_bytes += chunk.size
        self.round_trip.timed_out()
        self.congestion.on_timeout(now)
        self._lose_everything()
        self._t3_at = now + self.round_trip.timeout_s
        self._check_forward()

    def _lose_everything(self) -> None:
        self._probe = None
        self._probe_at = self._loss_at = None
        self._sent_order.clear()
        for chunk in self._outstanding.values():
            if chunk.is_in_flight:
                self._lose(chunk)
        self._lost = deque(
            chunk for chunk in self._outstanding.values() if chunk.is_lost
        )

    def _ask_for_answer(self) -> None:
        """Send the last chunk once more: its SACK tells what is missing before it."""
        self._probes += 1
        self._probe_at = None
        for number, chunk in reversed(self._sent_order):
            if number == chunk.number and chunk.is_in_flight:
                self._probe = chunk
                return

    # -- giving up (RFC 3758 section 3.5) ----------------------------------------------

    def _give_up(self, chunk: SentChunk, now: float) -> bool:
        """Abandon the message of a lost chunk, if it asks for that."""
        message = chunk.message
        if message is None or not (
            (message.expires_at is not None and now > message.expires_at)
            or (
                message.max_retransmits is not None
                and chunk.sent_count > message.max_retransmits
            )
        ):
            return False
        for step in (-1, 1):
            serial = chunk.serial + (step > 0)
            # Fragments have consecutive TSNs (RFC 9260 section 6.9).
            while (
                part := self._outstanding.get(serial)
            ) is not None and part.message is message:
                self._abandon(part)
                serial += step
        self._abandon(chunk)
        if self._message is message:
            self._abandon_rest(message)
        self._check_forward()
        return True

    def _abandon_rest(self, message: OutboundMessage) -> None:
        """Leave out what has no TSN yet of a message that is given up.

        What has one may all arrive, and then there is nothing for the peer to skip: it
        would wait for the rest, or take the next message for it. So the rest gets a TSN
        of its own, which is skipped.
        """
        end = SentChunk(self.next_serial, LAST_FRAGMENT, message, self._stream_seq, b"")
        if message.is_unordered:
            end.flags |= UNORDERED
        end.is_abandoned = True
        self._outstanding[end.serial] = end
        self.next_serial += 1
        self._message = None

    def _abandon(self, chunk: SentChunk) -> None:
        if chunk.is_in_flight:
            self.in_flight_bytes -= chunk.size
        chunk.is_lost = False
        chunk.is_abandoned = not chunk.is_acked

    def _check_forward(self) -> None:
        """Tell the peer to skip what was given up at the front, if anything was."""
        first = self._outstanding.get(self.acked + 1)
        self.is_forward_due = first is not None and first.is_abandoned

    def take_forward(self, max_streams: int) -> tuple[int, list[tuple[int, int]]]:
        """Return where to skip to, unwrapped, and the streams that skip a message."""
        self.is_forward_due = False
        target = serial = self.acked
        streams: dict[int, int] = {}
        while (chunk := self._outstanding.get(serial + 1)) is not None:
            if chunk.is_abandoned:
                if not chunk.flags & UNORDERED:
                    if len(streams) >= max_streams and chunk.stream_id not in streams:
                        break
                    streams[chunk.stream_id] = chunk.stream_seq
                target = serial + 1
            elif not chunk.is_acked:
                break
            serial += 1
        return target, list(streams.items())

    # -- timers ------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when `on_deadline` wants to be called; None for never."""
        times = (self._t3_at, self._probe_at, self._loss_at, self._pacer.next_at)
        due = (at for at in (*times, self.copies.due_at) if at is not None)
        return min(due, default=None)

    def on_deadline(self, now: float) -> None:
        """A timer expired, or not yet; `poll` afterwards."""
        if self._loss_at is not None and now >= self._loss_at:
            lost_bytes, lost_sent_at = self._detect_losses(now)
            if lost_bytes:
                self.congestion.on_ack(
                    AckSample(
                        now=now,
                        lost_bytes=lost_bytes,
                        lost_sent_at=lost_sent_at,
                        in_flight_bytes=self.in_flight_bytes + lost_bytes,
                        delivered_bytes=self._delivery.delivered_bytes,
                        delivered_at_send_bytes=self._delivery.delivered_bytes,
                    )
                )
        if self._probe_at is not None and now >= self._probe_at:
            self._ask_for_answer()
        if self._t3_at is not None and now >= self._t3_at:
            self._time_out(now)
        if self._pacer.next_at is not None and now >= self._pacer.next_at:
            self._pacer.next_at = None

    def on_heard(self, now: float) -> None:
        """A packet came from the peer after a silence: do not wait out the back-off."""
        if self._t3_at is not None and self.round_trip.has_timed_out():
            self._t3_at = min(self._t3_at, now + self.round_trip.retry_s)

    def on_new_path(self, now: float) -> None:
        """Packets take another path: measure anew, and ask what has arrived.

        ICE changes to a better pair while the old one works: what is on its way there
        most often arrives. Whatever does not, the answer to a probe shows.
        """
        self.round_trip = RoundTrip()
        self.congestion.on_new_path(now)
        self._probes = 0
        if self._outstanding:
            self._ask_for_answer()
            self._t3_at = now + self.round_trip.timeout_s

    # -- moving out --------------------------------------------------------------------

    def outstanding_chunks(self) -> list[SentChunk]:
        """Return what is sent and not acknowledged cumulatively, by TSN."""
        return list(self._outstanding.values())

    def cut_rest(self, now: float) -> Iterator[SentChunk]:
        """Yield the rest of the message that has begun, and everything queued.

        In chunks that every path carries. They count as outstanding.
        """
        self._payload_bytes = self._base_payload_bytes
        while (chunk := self._next_new(now)) is not None:
            yield chunk

    def wire_tsn(self) -> int:
        """Return the next TSN as on the wire."""
        return self.next_serial % TSN_MODULO
