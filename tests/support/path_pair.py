"""Two data paths joined by an emulated link; time goes from event to event, loopless.

Drives the pure core as the transport does: what arrives at one time is taken in one
batch, then everything is sent that may be. Looks at the books of both after each step.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from support.link_emulator import Conditions, Direction
from support.sctp_invariants import check_data_path

from sleap_rtc_plugin.transport.sctp.congestion import AckSample, CongestionControl
from sleap_rtc_plugin.transport.sctp.data_path import (
    Association,
    ControlChunk,
    DataPath,
)
from sleap_rtc_plugin.transport.sctp.receiver import (
    RECEIVE_WINDOW_BYTES,
    Message,
    Receiver,
)
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

__all__ = ["TAGS", "FixedWindow", "PathPair", "PathStuck", "SentMessage"]

TAGS = (0x11111111, 0x22222222)
PORT = 5000
MOST_PACKETS_AT_ONCE = 50_000


class PathStuck(AssertionError):
    """The paths do not come to an end."""


class FixedWindow(CongestionControl):
    """A congestion control that learns nothing: one window for ever."""

    def __init__(self, window_bytes: int, pace: float | None = None) -> None:
        self._window_bytes = window_bytes
        self._pace = pace
        self.timeouts = 0

    @property
    def window_bytes(self) -> int:
        return self._window_bytes

    @property
    def pace_bytes_per_s(self) -> float | None:
        return self._pace

    def on_ack(self, sample: AckSample) -> None:
        assert sample.acked_bytes >= 0
        assert sample.lost_bytes >= 0
        assert sample.rtt_s is None or sample.rtt_s >= 0

    def on_timeout(self, now: float) -> None:
        self.timeouts += 1

    def on_idle(self, idle_s: float, rto_s: float) -> None:
        pass

    def on_packet_size(self, payload_bytes: int) -> None:
        pass

    def on_new_path(self, now: float) -> None:
        pass


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message: who sends it, on which stream, and which one it is."""

    end: int
    stream_id: int
    number: int
    size: int
    is_unordered: bool = False
    max_retransmits: int | None = None
    lifetime_s: float | None = None

    @property
    def data(self) -> bytes:
        """Bytes that say which message they are of, and where in it."""
        pattern = bytes([self.number % 256, *range(250)])
        return (pattern * (self.size // len(pattern) + 1))[: self.size]


class PathPair:
    """Two ends, a clock, and what both have delivered.

    Attributes:
        now: the clock.
        delivered: the messages that either end has received.
        others: the chunks that either end has handed back.
        on_put: called with each packet that an end sends.
        most_in_flight_bytes: the most that either end had in flight.
        most_held_bytes: the most that either end held and could not deliver.

    Args:
        conditions: of both directions.
        seed: of the link's chance.
        congestion: makes the congestion control of an end.
        first_tsns: of either end.
        first_seq: the first sequence number of every stream in `streams`.
        urgent: the streams that go before others, at either end.
        window_bytes: what either receiver holds.
        is_checked: whether the books are looked at after each step.
    """

    def __init__(
        self,
        conditions: Conditions,
        *,
        seed: int = 0,
        congestion: Callable[[], CongestionControl] = lambda: FixedWindow(1 << 20),
        first_tsns: tuple[int, int] = (1, 1),
        first_seq: int = 0,
        streams: Sequence[int] = (),
        urgent: Sequence[int] = (),
        window_bytes: int = RECEIVE_WINDOW_BYTES,
        is_checked: bool = True,
    ) -> None:
        self.now = 100.0
        self.started_at = self.now
        self.directions = tuple(Direction(conditions, 2 * seed + end) for end in (0, 1))
        self.paths: list[DataPath] = []
        self.delivered: tuple[list[Message], list[Message]] = ([], [])
        self.others: tuple[list[ControlChunk], list[ControlChunk]] = ([], [])
        self.on_put: Callable[[int, bytes], None] = lambda end, packet: None
        self.most_in_flight_bytes = [0, 0]
        self.most_held_bytes = [0, 0]
        self._count = itertools.count()
        self._arriving: list[tuple[float, int, int, bytes]] = []
        self._is_checked = is_checked
        for end in (0, 1):
            receiver = Receiver((first_tsns[1 - end] - 1), window_bytes)
            receiver.next_seq.update(dict.fromkeys(streams, first_seq))
            self.paths.append(
                DataPath(
                    Association(PORT, PORT, TAGS[end], TAGS[1 - end], True),
                    receiver=receiver,
                    first_tsn=first_tsns[end],
                    peer_window_bytes=window_bytes,
                    congestion=congestion(),
                    stream_seqs=dict.fromkeys(streams, first_seq),
                )
            )
            for stream in urgent:
                self.paths[end].sender.streams.set_urgent(stream)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.now - self.started_at

    def send(self, *messages: SentMessage) -> None:
        """Queue messages at their ends, and send what may be sent."""
        for message in messages:
            lifetime_s = message.lifetime_s
            self.paths[message.end].send(
                OutboundMessage(
                    message.stream_id,
                    53,
                    message.data,
                    is_unordered=message.is_unordered,
                    max_retransmits=message.max_retransmits,
                    expires_at=None if lifetime_s is None else self.now + lifetime_s,
                )
            )
        for end in {message.end for message in messages}:
            self.flush(end)

    def flush(self, end: int) -> None:
        """Put everything on the link that an end may send now."""
        count = 0
        while packets := self.paths[end].packets(self.now):
            for packet in packets:
                self.put(end, packet)
            count += len(packets)
            if count > MOST_PACKETS_AT_ONCE:
                raise PathStuck(f"end {end} sends for ever at {self.elapsed_s:.3f} s")
        path = self.paths[end]
        self.most_in_flight_bytes[end] = max(
            self.most_in_flight_bytes[end], path.sender.in_flight_bytes
        )
        self.most_held_bytes[end] = max(
            self.most_held_bytes[end], path.receiver.held_bytes
        )
        if self._is_checked:
            check_data_path(path)

    def put(self, from_end: int, packet: bytes) -> None:
        """Put a packet on the link."""
        self.on_put(from_end, packet)
        for delivery in self.directions[from_end].send(packet, self.now):
            entry = (delivery.at, next(self._count), 1 - from_end, delivery.datagram)
            heapq.heappush(self._arriving, entry)

    def receive(self, end: int, packets: Sequence[bytes]) -> None:
        """Let packets arrive at an end, in one batch."""
        path = self.paths[end]
        for packet in packets:
            self.others[end].extend(path.receive_packet(packet, self.now))
            while path.messages:
                self.delivered[end].append(path.messages.popleft())
        self.flush(end)

    def step(self) -> None:
        """Go to the next event, and do what is due then.

        Raises:
            PathStuck: nothing can happen any more, or time would stand still.
        """
        deadlines = [path.deadline() for path in self.paths]
        times = [at for at in deadlines if at is not None]
        if self._arriving:
            times.append(self._arriving[0][0])
        if not times:
            raise PathStuck(f"nothing can happen after {self.elapsed_s:.3f} s")
        self.now = max(self.now, min(times))
        batches: dict[int, list[bytes]] = defaultdict(list)
        while self._arriving and self._arriving[0][0] <= self.now:
            _, _, end, packet = heapq.heappop(self._arriving)
            batches[end].append(packet)
        for end, packets in batches.items():
            self.receive(end, packets)
        for end, at in enumerate(deadlines):
            if at is not None and at <= self.now:
                self.paths[end].handle_timeout(self.now)
                self.flush(end)
                again_at = self.paths[end].deadline()
                if again_at is not None and again_at <= self.now:
                    raise PathStuck(f"a deadline stays at {self.elapsed_s:.3f} s")

    def run_until(self, is_over: Callable[[], bool], limit_s: float) -> None:
        """Go from event to event until something holds.

        Raises:
            PathStuck: it does not, before so many seconds of the clock have passed.
        """
        end = self.now + limit_s
        while not is_over():
            self.step()
            if self.now > end:
                raise PathStuck(f"not done after {self.elapsed_s:.3f} s")

    def is_quiet(self) -> bool:
        """Whether everything is sent and acknowledged."""
        return not any(
            path.sender.outstanding_chunks() or path.sender.has_unsent
            for path in self.paths
        )
