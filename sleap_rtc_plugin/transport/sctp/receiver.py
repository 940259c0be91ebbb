"""The receiving half of an association: DATA in, messages and acknowledgements out.

Pure (RFC 9260 sections 6.2, 6.5, 6.6, 6.9; RFC 3758 section 3.6). A complete message is
delivered as soon as its own stream allows, even where packets of other streams are
missing before it. What is held is bounded. Called by `transport.sctp.data_path`.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    UNORDERED,
)
from sleap_rtc_plugin.transport.sctp.tsn_ranges import TsnRanges

__all__ = [
    "MAX_HELD_CHUNKS",
    "MAX_MESSAGE_BYTES",
    "RECEIVE_WINDOW_BYTES",
    "DataChunk",
    "Message",
    "MessageTooLarge",
    "Receiver",
]

# What may be held out of order. The peer sends no more before it hears from us: a path
# of 400 Mbit/s and 200 ms holds 10 MB.
RECEIVE_WINDOW_BYTES: Final = 16 * 1024 * 1024
# aiortc advertises it in the description (`LOCAL_MAX_MESSAGE_SIZE`).
MAX_MESSAGE_BYTES: Final = 262_144
# Small chunks cost more than their bytes.
MAX_HELD_CHUNKS: Final = 32_768
# A gap block counts from the cumulative TSN in 16 bits (section 3.3.4).
MAX_TSN_OFFSET: Final = 0xFFFF
MAX_DUPLICATES_TOLD: Final = 32
# How far to look for the rest of a message beyond a gap, in fragments. A message of
# more is delivered when the gap is closed.
MAX_EARLY_FRAGMENTS: Final = 1024
_HALF: Final = TSN_MODULO // 2
_SSN_MODULO: Final = 1 << 16


class DataChunk(NamedTuple):
    """A fragment of a message (section 3.3.1)."""

    flags: int
    stream_id: int
    stream_seq: int
    protocol: int
    data: bytes


class Message(NamedTuple):
    """A whole message of a stream."""

    stream_id: int
    protocol: int
    data: bytes


class MessageTooLarge(ValueError):
    """The peer sends a message larger than what was agreed."""


class Receiver:
    """What has arrived of an association.

    Attributes:
        cumulative: the last TSN before the first gap, unwrapped.
        messages: complete ones, in the order of delivery; the caller takes them.
        is_ack_due: something came that has not been acknowledged.
    """

    def __init__(
        self, cumulative: int, window_bytes: int = RECEIVE_WINDOW_BYTES
    ) -> None:
        """Expect the chunk after `cumulative` next."""
        self.cumulative = cumulative
        self.messages: deque[Message] = deque()
        self.is_ack_due = False
        self.next_seq: dict[int, int] = {}
        self._window_bytes = window_bytes
        self._beyond = TsnRanges()
        # By TSN, beyond the cumulative one; None where the message was delivered.
        self._held: dict[int, DataChunk | None] = {}
        self._held_bytes = 0
        # The fragments of the one message that is incomplete at the cumulative TSN.
        self._partial: list[DataChunk] = []
        self._partial_bytes = 0
        # Whole messages that wait for earlier ones of their stream, by stream and
        # sequence number, each with its first TSN.
        self._waiting: dict[tuple[int, int], tuple[int, Message]] = {}
        self._waiting_at: dict[int, tuple[int, int]] = {}
        self._duplicates: list[int] = []

    @property
    def held_bytes(self) -> int:
        """What is held and cannot be delivered yet."""
        return self._held_bytes + self._partial_bytes

    @property
    def has_gaps(self) -> bool:
        """Whether some are missing before what has arrived."""
        return bool(self._beyond)

    @property
    def is_ack_urgent(self) -> bool:
        """Whether the sender should hear at once: some are missing, or came twice."""
        return self.has_gaps or bool(self._duplicates)

    # -- DATA (section 6.2) ------------------------------------------------------------

    def on_data(self, tsn: int, chunk: DataChunk) -> None:
        """Take a chunk; `tsn` as on the wire.

        Raises:
            MessageTooLarge: its message is larger than agreed.
        """
        self.is_ack_due = True
        offset = (tsn - self.cumulative) % TSN_MODULO
        if offset == 1:
            self._feed(chunk)
            if self._held:
                self._advance()
            return
        serial = self.cumulative + offset
        if offset == 0 or offset >= _HALF or serial in self._held:
            if len(self._duplicates) < MAX_DUPLICATES_TOLD:
                self._duplicates.append(tsn)
            return
        # The sender sends again what there is no room for.
        if (
            offset > MAX_TSN_OFFSET
            or len(self._held) >= MAX_HELD_CHUNKS
            or self._held_bytes + len(chunk.data) > self._window_bytes
        ):
            return
        self._held[serial] = chunk
        self._held_bytes += len(chunk.data)
        self._beyond.add(serial, serial)
        self._deliver_early(serial, chunk)

    def _advance(self) -> None:
        """The gap before the first range is closed: go on to its end."""
        end = self._beyond.advance(self.cumulative)
        while self.cumulative < end:
            self._reach(self.cumulative + 1)

    def _reach(self, serial: int) -> None:
        """Take what is held of the TSN after the cumulative one."""
        chunk = self._held[serial]
        if chunk is None:
            if self._waiting_at:
                self._stop_waiting(serial)
            self.cumulative = serial
        else:
            self._feed(chunk)
            self._held_bytes -= len(chunk.data)
        del self._held[serial]

    def _feed(self, chunk: DataChunk) -> None:
        """Take the chunk after the cumulative TSN: fragments follow one another (6.9).

        It is counted at the same time: where this fails, it has not arrived.
        """
        flags, stream_id, _, _, data = chunk
        partial = self._partial
        if flags & FIRST_FRAGMENT:
            # If another one has not ended, its end was given up.
            partial = []
        elif not partial or partial[0].stream_id != stream_id:
            # The rest of a message whose beginning was given up.
            self._drop_partial()
            self.cumulative += 1
            return
        if not flags & LAST_FRAGMENT:
            size = len(data) + (self._partial_bytes if partial else 0)
            if size > MAX_MESSAGE_BYTES:
                raise MessageTooLarge
            partial.append(chunk)
            self._partial, self._partial_bytes = partial, size
            self.cumulative += 1
            return
        first = chunk
        if partial:
            first = partial[0]
            data = b"".join([*[part.data for part in partial], data])
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge
        message = Message(stream_id, first.protocol, data)
        following = self._number_after(stream_id, first.stream_seq)
        # Nothing can fail from here on.
        self._partial, self._partial_bytes = [], 0
        self.cumulative += 1
        self.messages.append(message)
        if not first.flags & UNORDERED:
            self.next_seq[stream_id] = following
            if self._waiting:
                self._deliver_waiting(stream_id)

    def _drop_partial(self) -> None:
        self._partial, self._partial_bytes = [], 0

    def _number_after(self, stream_id: int, seq: int) -> int:
        """Return what a stream expects after a message: it never goes back."""
        expected = self.next_seq.get(stream_id, 0)
        is_ahead = (seq - expected) % _SSN_MODULO < _SSN_MODULO // 2
        return (seq + 1) % _SSN_MODULO if is_ahead else expected

    # -- beyond a gap ------------------------------------------------------------------

    def _deliver_early(self, serial: int, chunk: DataChunk) -> None:
        """Deliver the message of a chunk beyond a gap, if it is whole by now."""
        held = self._held
        last = serial
        if not chunk.flags & LAST_FRAGMENT:
            # Only a chunk that closes a gap can make a message whole, unless it is
            # the last one.
            part = held.get(last + 1)
            while part is not None and last - serial < MAX_EARLY_FRAGMENTS:
                last += 1
                if part.flags & (LAST_FRAGMENT | FIRST_FRAGMENT):
                    break
                part = held.get(last + 1)
            if part is None or part.flags & FIRST_FRAGMENT:
                return
            if not part.flags & LAST_FRAGMENT:
                return
        first = serial
        part = chunk
        while not part.flags & FIRST_FRAGMENT:
            first -= 1
            before = held.get(first)
            if before is None or last - first > MAX_EARLY_FRAGMENTS:
                return
            part = before
        parts = [held[number] for number in range(first, last + 1)]
        data = b"".join([each.data for each in parts if each is not None])
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge
        message = Message(part.stream_id, part.protocol, data)
        key = (part.stream_id, part.stream_seq)
        is_next = part.stream_seq == self.next_seq.get(part.stream_id, 0)
        following = self._number_after(*key)
        # Nothing can fail from here on.
        for number in range(first, last + 1):
            held[number] = None
        if part.flags & UNORDERED:
            self._held_bytes -= len(data)
            self.messages.append(message)
        elif is_next:
            self._held_bytes -= len(data)
            self.next_seq[part.stream_id] = following
            self.messages.append(message)
            self._deliver_waiting(part.stream_id)
        elif key in self._waiting:
            # Two messages of one number: the peer is confused. One of them is enough.
            self._held_bytes -= len(data)
        else:
            self._waiting[key] = (first, message)
            self._waiting_at[first] = key

    def _deliver_waiting(self, stream_id: int) -> None:
        """Deliver the messages whose turn has come."""
        key = (stream_id, self.next_seq.get(stream_id, 0))
        while key in self._waiting:
            self._release(key)
            key = (stream_id, self.next_seq[stream_id])

    def _stop_waiting(self, serial: int) -> None:
        """Deliver a message that waits though no gap is left before it.

        Its stream left out a number, which only a peer does that is out of step.
        """
        key = self._waiting_at.get(serial)
        if key is not None:
            self._release(key)
            self._deliver_waiting(key[0])

    def _release(self, key: tuple[int, int]) -> None:
        """Deliver a message that waits."""
        first, message = self._waiting[key]
        following = self._number_after(*key)
        # Nothing can fail from here on.
        del self._waiting[key], self._waiting_at[first]
        self._held_bytes -= len(message.data)
        self.next_seq[key[0]] = following
        self.messages.append(message)

    # -- FORWARD-TSN (RFC 3758 section 3.6) --------------------------------------------

    def on_forward_tsn(self, tsn: int, streams: Sequence[tuple[int, int]]) -> None:
        """Skip to `tsn`, as on the wire: the sender has given up what is missing.

        Raises:
            MessageTooLarge: a message that is complete now is larger than agreed.
        """
        self.is_ack_due = True
        offset = (tsn - self.cumulative) % TSN_MODULO
        if offset == 0 or offset > MAX_TSN_OFFSET:
            return
        target = self.cumulative + offset
        # The streams first: the sender repeats them until the TSN is acknowledged.
        for stream_id, seq in streams:
            self._skip(stream_id, seq)
        for serial in sorted(serial for serial in self._held if serial <= target):
            if serial != self.cumulative + 1:
                self._drop_partial()
                self.cumulative = serial - 1
            self._reach(serial)
        if self.cumulative != target:
            self._drop_partial()
            self.cumulative = target
        self._advance()

    def _skip(self, stream_id: int, seq: int) -> None:
        """Deliver what is whole up to a sequence number, and go on after it."""
        expected = self.next_seq.get(stream_id, 0)
        ahead = (seq - expected) % _SSN_MODULO
        if ahead >= _SSN_MODULO // 2:
            return
        if self._waiting:
            numbers = sorted(
                (number - expected) % _SSN_MODULO
                for stream, number in self._waiting
                if stream == stream_id
            )
            for number in numbers:
                if number > ahead:
                    break
                key = (stream_id, (expected + number) % _SSN_MODULO)
                self._release(key)
        self.next_seq[stream_id] = (seq + 1) % _SSN_MODULO
        self._deliver_waiting(stream_id)

    def reset_stream(self, stream_id: int) -> None:
        """Count from zero again (RFC 6525 section 5.2.2)."""
        self.next_seq.pop(stream_id, None)
        for key in [key for key in self._waiting if key[0] == stream_id]:
            first, message = self._waiting.pop(key)
            del self._waiting_at[first]
            self._held_bytes -= len(message.data)

    # -- acknowledging (sections 6.2 and 3.3.4) ----------------------------------------

    def take_ack(
        self, max_blocks: int
    ) -> tuple[int, int, list[tuple[int, int]], list[int]]:
        """Return what a SACK tells, with at most so many gap blocks and duplicates.

        Gap blocks that do not fit are left out from the end; the sender only takes them
        for not acknowledged yet.
        """
        self.is_ack_due = False
        base = self.cumulative
        gaps: list[tuple[int, int]] = []
        for first, last in self._beyond:
            if len(gaps) >= max_blocks:
                break
            gaps.append((first - base, last - base))
        duplicates = self._duplicates[: max_blocks - len(gaps)]
        self._duplicates = []
        window_bytes = max(0, self._window_bytes - self.held_bytes)
        return base, window_bytes, gaps, duplicates

    # -- moving in and out -------------------------------------------------------------

    def hold(self, serial: int, chunk: DataChunk) -> None:
        """Take a chunk that another implementation has acknowledged already."""
        if serial <= self.cumulative:
            self._partial.append(chunk)
            self._partial_bytes += len(chunk.data)
        elif serial not in self._held:
            self._held[serial] = chunk
            self._held_bytes += len(chunk.data)
            self._beyond.add(serial, serial)

    def note_delivered(self, serial: int) -> None:
        """Take note of a chunk beyond the gap whose message was delivered."""
        if serial > self.cumulative and serial not in self._held:
            self._held[serial] = None
            self._beyond.add(serial, serial)

    def arrived(self) -> tuple[int, list[int]]:
        """Return the last TSN before the first gap, and those that arrived beyond it.

        By what is held, which is right after a fault of ours as well.
        """
        cumulative = self.cumulative
        while cumulative + 1 in self._held:
            cumulative += 1
        return cumulative, sorted(tsn for tsn in self._held if tsn > cumulative)

    def held_chunks(self) -> list[tuple[int, DataChunk]]:
        """Return what is held, by unwrapped TSN in order, and not yet delivered."""
        begin = self.cumulative + 1 - len(self._partial)
        chunks = [(begin + at, chunk) for at, chunk in enumerate(self._partial)]
        for serial in sorted(tsn for tsn in self._held if tsn > self.cumulative):
            chunk = self._held[serial]
            if chunk is not None:
                chunks.append((serial, chunk))
        return chunks

    def waiting_messages(self) -> list[tuple[int, int, Message]]:
        """Return first TSN and sequence number of whole messages that wait."""
        return [
            (first, seq, message)
            for (_, seq), (first, message) in self._waiting.items()
        ]
