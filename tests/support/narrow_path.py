"""A path with one bottleneck, and flows across it, in virtual time.

Packets are simulated one by one, acknowledgements as a receiver that reads batches
sends them. No socket, no clock: a seed and the same calls give the same run. Driven by
the tests of the congestion controls.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

from sleap_rtc_plugin.transport.sctp.congestion import AckSample, CongestionControl

__all__ = [
    "MBIT",
    "PACKET_BYTES",
    "Bottleneck",
    "Flow",
    "Path",
    "jain",
    "percentile",
]

MBIT = 125_000.0
"""Bytes per second of 1 Mbit/s."""

PACKET_BYTES = 1_200
PACKET_THRESHOLD = 3
RTO_MIN_S = 0.3
PACING_QUANTUM_S = 0.001
PACING_BACKLOG_S = 0.004


@dataclass(slots=True)
class Path:
    """What lies between the ends.

    Attributes:
        rate_bytes_per_s: of the bottleneck.
        rtt_s: round trip while nothing waits.
        queue_s: what the bottleneck queues at most, in time at the first rate.
        loss: share of the packets that is lost by chance.
        jitter_s: a packet comes up to this much earlier or later.
        is_reordering: jitter lets packets overtake each other.
        timer_late_s: the sender's timers are late by up to this much.
        seed: of all chance.
    """

    rate_bytes_per_s: float
    rtt_s: float
    queue_s: float = 0.2
    loss: float = 0.0
    jitter_s: float = 0.0
    is_reordering: bool = False
    timer_late_s: float = 0.002
    seed: int = 1


class _Packet:
    __slots__ = (
        "delivered_at",
        "delivered_bytes",
        "first_sent_at",
        "is_acked",
        "is_app_limited",
        "number",
        "sent_at",
    )

    def __init__(self, number: int, sent_at: float) -> None:
        self.number = number
        self.sent_at = sent_at
        self.is_acked = False
        self.delivered_bytes = 0
        self.delivered_at = 0.0
        self.first_sent_at = 0.0
        self.is_app_limited = False

    def __lt__(self, other: "_Packet") -> bool:
        return self.number < other.number


class Bottleneck:
    """The path, its clock, and what happens when."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.rate = path.rate_bytes_per_s
        self.rtt_s = path.rtt_s
        self.queue_bytes = path.queue_s * path.rate_bytes_per_s
        self.chance = random.Random(path.seed)  # noqa: S311 - chance, no secret
        self.flows: list[Flow] = []
        self.drops = 0
        self._free_at = 0.0
        self._late_at = 0.0
        self._ties = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (time, next(self._ties), action))

    def run(self, until: float) -> None:
        """Let time pass."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action = heapq.heappop(events)
            action()
        self.now = until

    def set_rate(self, rate_bytes_per_s: float) -> None:
        """Change the rate, for what waits in the queue too."""
        stretch = self.rate / rate_bytes_per_s
        self._free_at = self.now + max(0.0, self._free_at - self.now) * stretch
        self.rate = rate_bytes_per_s
        for flow in self.flows:
            flow.stretch_arrivals(self.now + self.rtt_s / 2, stretch)

    def carry(self, size: int) -> float | None:
        """Take a packet into the queue: when it arrives, or None where it is lost."""
        waiting_s = max(0.0, self._free_at - self.now)
        if waiting_s * self.rate > self.queue_bytes:
            self.drops += 1
            return None
        self._free_at = self.now + waiting_s + size / self.rate
        path = self.path
        if path.loss and self.chance.random() < path.loss:
            return None
        arrives_at = self._free_at + self.rtt_s / 2
        if path.jitter_s:
            arrives_at += self.chance.uniform(-path.jitter_s, path.jitter_s)
            if not path.is_reordering:
                arrives_at = self._late_at = max(arrives_at, self._late_at)
        return arrives_at


class Flow:
    """One sender with its congestion control, and its receiver.

    Args:
        net: the path.
        control: what decides how much is sent, and how fast.
        total_bytes: what there is to send; None for no end.
        starts_at: when it begins, in seconds.
        batch_s: how long the receiver reads before it acknowledges.
        batch_packets: how many packets it reads at most.
        reordering_s: how much later than its successors a packet may come before it
            counts as lost.
    """

    def __init__(
        self,
        net: Bottleneck,
        control: CongestionControl,
        *,
        total_bytes: int | None = None,
        starts_at: float = 0.0,
        batch_s: float = 0.001,
        batch_packets: int = 64,
        reordering_s: float = 0.0,
    ) -> None:
        self.net = net
        self.control = control
        self.waiting_bytes = float("inf") if total_bytes is None else total_bytes
        self.batch_s = batch_s
        self.batch_packets = batch_packets
        self.reordering_s = reordering_s
        self.in_flight_bytes = 0
        self.delivered_bytes = 0
        self.sent_packets = 0
        self.lost_packets = 0
        self.timeouts = 0
        self.finished_at: float | None = None
        self.history: list[tuple[float, int]] = [(starts_at, 0)]
        self.rtts: list[tuple[float, float]] = []
        self._packets: deque[_Packet] = deque()
        self._arrivals: list[tuple[float, _Packet]] = []
        self._reads_at: float | None = None
        self._newest = -1
        self._delivered_at = starts_at
        self._first_sent_at = starts_at
        self._app_limited_until = 0
        self._is_window_limited = False
        self._sends_at = 0.0
        self._wakes_at: float | None = None
        self._srtt = 0.0
        self._rttvar = 0.0
        self._active_at = starts_at
        self._watch_at: float | None = None
        net.flows.append(self)
        net.at(starts_at, self._start)

    def rate_between(self, start: float, end: float) -> float:
        """Return what was acknowledged in a time, in bytes per second."""
        done = [0, 0]
        for time, delivered in self.history:
            if time <= start:
                done[0] = delivered
            if time <= end:
                done[1] = delivered
        return (done[1] - done[0]) / (end - start)

    def rtts_between(self, start: float, end: float) -> list[float]:
        """Return the round trips measured in a time, in seconds."""
        return [rtt for time, rtt in self.rtts if start <= time <= end]

    def offer(self, size: int) -> None:
        """Give the sender something to send, now."""
        self._leave_idle()
        self.waiting_bytes += size
        self._send()

    def stretch_arrivals(self, start: float, stretch: float) -> None:
        """What arrives after `start` arrives earlier or later."""
        self._arrivals = [
            (start + (time - start) * stretch if time > start else time, packet)
            for time, packet in self._arrivals
        ]
        heapq.heapify(self._arrivals)
        if self._arrivals:
            self._read_at(self._arrivals[0][0] + self.batch_s)

    def _start(self) -> None:
        self._first_sent_at = self._delivered_at = self._active_at = self.net.now
        self._send()

    def _leave_idle(self) -> None:
        if not self._packets and self.sent_packets:
            idle_s = self.net.now - self._active_at
            self.control.on_idle(idle_s, self._rto_s)

    def _send(self) -> None:
        net, control = self.net, self.control
        now = net.now
        pace = control.pace_bytes_per_s
        self._is_window_limited = False
        if pace is not None:
            self._sends_at = max(self._sends_at, now - PACING_BACKLOG_S)
        while True:
            if self.waiting_bytes <= 0:
                self._app_limited_until = self.delivered_bytes + self.in_flight_bytes
                break
            if self.in_flight_bytes >= control.window_bytes:
                self._is_window_limited = True
                break
            if pace is not None:
                if self._sends_at > now:
                    in_flight_bytes = self.in_flight_bytes
                    self._is_window_limited = (
                        2 * in_flight_bytes >= control.window_bytes
                    )
                    self._wake_at(self._sends_at + PACING_QUANTUM_S)
                    break
                self._sends_at += PACKET_BYTES / pace
            self._send_packet(now)
        if self._packets:
            self._watch(self._active_at + self._rto_s)

    def _send_packet(self, now: float) -> None:
        packet = _Packet(self.sent_packets, now)
        self.sent_packets += 1
        if not self.in_flight_bytes:
            self._first_sent_at = self._delivered_at = self._active_at = now
        packet.delivered_bytes = self.delivered_bytes
        packet.delivered_at = self._delivered_at
        packet.first_sent_at = self._first_sent_at
        packet.is_app_limited = self._app_limited_until >= self.delivered_bytes
        self._packets.append(packet)
        self.waiting_bytes -= PACKET_BYTES
        self.in_flight_bytes += PACKET_BYTES
        arrives_at = self.net.carry(PACKET_BYTES)
        if arrives_at is not None:
            heapq.heappush(self._arrivals, (arrives_at, packet))
            if self._reads_at is None:
                self._read_at(arrives_at + self.batch_s)

    def _wake_at(self, time: float) -> None:
        if self._wakes_at is None:
            late_s = self.net.chance.uniform(0.0, self.net.path.timer_late_s)
            self._wakes_at = time + late_s
            self.net.at(self._wakes_at, self._wake)

    def _wake(self) -> None:
        self._wakes_at = None
        self._send()

    def _read_at(self, time: float) -> None:
        self._reads_at = time
        self.net.at(time, self._read)

    def _read(self) -> None:
        now, arrivals = self.net.now, self._arrivals
        if now != self._reads_at:
            return
        batch: list[_Packet] = []
        while arrivals and arrivals[0][0] <= now:
            batch.append(heapq.heappop(arrivals)[1])
            if len(batch) == self.batch_packets:
                # The rest is read at once, and acknowledged on its own.
                self._acknowledge(batch)
                batch = []
        if batch:
            self._acknowledge(batch)
        self._reads_at = None
        if arrivals:
            self._read_at(arrivals[0][0] + self.batch_s)

    def _acknowledge(self, batch: list[_Packet]) -> None:
        self.net.at(self.net.now + self.net.rtt_s / 2, partial(self._take_ack, batch))

    def _take_ack(self, batch: list[_Packet]) -> None:
        now = self.net.now
        in_flight_bytes = self.in_flight_bytes
        acked_bytes, last = 0, None
        for packet in batch:
            if packet.is_acked:
                continue
            packet.is_acked = True
            acked_bytes += PACKET_BYTES
            if last is None or packet.number > last.number:
                last = packet
        if last is None:
            return
        self._active_at = now
        self.delivered_bytes += acked_bytes
        self._delivered_at = now
        self.history.append((now, self.delivered_bytes))
        self.in_flight_bytes -= acked_bytes
        self._newest = max(self._newest, last.number)
        rtt_s = now - last.sent_at
        self._learn(rtt_s)
        took_s = max(last.sent_at - last.first_sent_at, now - last.delivered_at)
        self._first_sent_at = last.sent_at
        rate = None
        if took_s > 0:
            rate = (self.delivered_bytes - last.delivered_bytes) / took_s
        lost_bytes, lost_sent_at = self._find_lost(last.sent_at)
        sample = AckSample(
            now=now,
            acked_bytes=acked_bytes,
            lost_bytes=lost_bytes,
            lost_sent_at=lost_sent_at,
            in_flight_bytes=in_flight_bytes,
            is_window_limited=self._is_window_limited,
            rtt_s=rtt_s,
            delivered_bytes=self.delivered_bytes,
            delivered_at_send_bytes=last.delivered_bytes,
            rate_bytes_per_s=rate,
            is_app_limited=last.is_app_limited,
        )
        self.control.on_ack(sample)
        if not self._packets and self.waiting_bytes <= 0:
            self.finished_at = now
        self._send()

    def _find_lost(self, newest_sent_at: float) -> tuple[int, float | None]:
        packets = self._packets
        lost_bytes, lost_sent_at = 0, None
        kept: list[_Packet] = []
        while packets and packets[0].number <= self._newest:
            packet = packets.popleft()
            if packet.is_acked:
                continue
            if (
                packet.number + PACKET_THRESHOLD > self._newest
                or newest_sent_at - packet.sent_at < self.reordering_s
            ):
                kept.append(packet)
                if self._newest - packet.number < PACKET_THRESHOLD:
                    break
                continue
            lost_bytes += PACKET_BYTES
            lost_sent_at = packet.sent_at
            packet.is_acked = True  # what comes of it later tells nothing
        packets.extendleft(reversed(kept))
        self._lose(lost_bytes)
        return lost_bytes, lost_sent_at

    def _lose(self, lost_bytes: int) -> None:
        self.lost_packets += lost_bytes // PACKET_BYTES
        self.in_flight_bytes -= lost_bytes
        self.waiting_bytes += lost_bytes

    def _learn(self, rtt_s: float) -> None:
        self.rtts.append((self.net.now, rtt_s))
        if not self._srtt:
            self._srtt, self._rttvar = rtt_s, rtt_s / 2
        self._rttvar += (abs(rtt_s - self._srtt) - self._rttvar) / 4
        self._srtt += (rtt_s - self._srtt) / 8

    @property
    def _rto_s(self) -> float:
        return max(RTO_MIN_S, self._srtt + 4 * self._rttvar) if self._srtt else 1.0

    def _watch(self, time: float) -> None:
        if self._watch_at is None:
            self._watch_at = time
            self.net.at(time, self._watched)

    def _watched(self) -> None:
        self._watch_at = None
        if not self._packets:
            return
        due_at = self._active_at + self._rto_s
        if self.net.now < due_at - 1e-9:
            self._watch(due_at)
            return
        self.timeouts += 1
        self._active_at = self.net.now
        for packet in self._packets:
            packet.is_acked = True
        self._packets.clear()
        self._lose(self.in_flight_bytes)
        self.control.on_timeout(self.net.now)
        self._send()


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not go beyond."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def jain(rates: list[float]) -> float:
    """Return how fair a division is: 1 where all have the same (Jain's index)."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))
