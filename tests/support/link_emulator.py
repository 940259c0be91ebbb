"""A link between two ends as networks are: late, lossy, narrow and out of order.

What becomes of a datagram is decided without a loop or a clock (`Direction`), from the
conditions, the time and a seed; `EmulatedLink` delivers on a loop what was decided.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

__all__ = [
    "Conditions",
    "Delivery",
    "Direction",
    "EmulatedLink",
    "Fate",
    "Fault",
    "Passage",
    "Tally",
    "blackout",
    "bursts",
    "corruption",
    "duplication",
    "each",
    "first",
    "losing",
    "random_loss",
    "reordering",
    "scripted",
]


@dataclass(frozen=True, slots=True)
class Passage:
    """One datagram on its way.

    Attributes:
        datagram: its bytes.
        index: how many went this way before it.
        now: when it is sent, in seconds.
        rng: the direction's own source of chance.
    """

    datagram: bytes
    index: int
    now: float
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one datagram, beside the latency and the queue.

    Attributes:
        lost: it never arrives.
        copies: how often it arrives.
        delay_s: later by so much than those around it, which may overtake it.
        flipped_bit: which of its bits is inverted, modulo its length; None for none.
    """

    lost: bool = False
    copies: int = 1
    delay_s: float = 0.0
    flipped_bit: int | None = None

    def __or__(self, other: "Fate") -> "Fate":
        """Both of them at once."""
        return Fate(
            lost=self.lost or other.lost,
            copies=self.copies + other.copies - 1,
            delay_s=self.delay_s + other.delay_s,
            flipped_bit=self.flipped_bit
            if other.flipped_bit is None
            else other.flipped_bit,
        )


UNHARMED = Fate()
LOST = Fate(lost=True)
Fault = Callable[[Passage], Fate]
"""Decides what happens to a datagram; may remember what went before."""


def losing(is_lost: Callable[[Passage], bool]) -> Fault:
    """Lose what a predicate names."""
    return lambda passage: LOST if is_lost(passage) else UNHARMED


def random_loss(rate: float) -> Fault:
    """Lose each datagram with this probability."""
    return losing(lambda passage: passage.rng.random() < rate)


def bursts(rate: float, mean_datagrams: float) -> Fault:
    """Lose several in a row, as often as `rate` says (Gilbert's model).

    Args:
        rate: the share that is lost in the long run.
        mean_datagrams: how long a burst is.
    """
    end = 1 / mean_datagrams
    begin = end * rate / (1 - rate)
    is_bad = False

    def is_lost(passage: Passage) -> bool:
        nonlocal is_bad
        is_bad = passage.rng.random() < (1 - end if is_bad else begin)
        return is_bad

    return losing(is_lost)


def each(period: int) -> Fault:
    """Lose every so manieth."""
    return losing(lambda passage: passage.index % period == period - 1)


def first(count: int) -> Fault:
    """Lose the first ones."""
    return losing(lambda passage: passage.index < count)


def blackout(from_s: float, until_s: float) -> Fault:
    """Lose everything between two times of the loop's clock."""
    return losing(lambda passage: from_s <= passage.now < until_s)


def reordering(rate: float, delay_s: float) -> Fault:
    """Hold some back by up to `delay_s`, so that later ones overtake them."""

    def fault(passage: Passage) -> Fate:
        if passage.rng.random() >= rate:
            return UNHARMED
        return Fate(delay_s=passage.rng.uniform(0, delay_s))

    return fault


def duplication(rate: float, copies: int = 2) -> Fault:
    """Deliver some more than once."""
    return lambda passage: (
        Fate(copies=copies) if passage.rng.random() < rate else UNHARMED
    )


def corruption(rate: float) -> Fault:
    """Invert a bit of some."""

    def fault(passage: Passage) -> Fate:
        if passage.rng.random() >= rate:
            return UNHARMED
        return Fate(flipped_bit=passage.rng.getrandbits(20))

    return fault


def scripted(fates: Iterable[Fate]) -> Fault:
    """Do to the datagrams what a list says, one after the other; then leave them be."""
    left = iter(fates)
    return lambda passage: next(left, UNHARMED)


@dataclass(frozen=True)
class Conditions:
    """What one direction of a link is like.

    Attributes:
        latency_s: from the end of the queue to the other end.
        jitter_s: up to so much more, without overtaking.
        rate_bytes_per_s: how fast the queue empties; None for no bound.
        queue_bytes: what the queue holds; more is dropped. None for no bound.
        queue_s: the longest that a datagram may wait in the queue before it is dropped.
        mtu_bytes: the largest datagram that passes; None for no bound.
        faults: what else happens, on the wire behind the queue.
    """

    latency_s: float = 0.01
    jitter_s: float = 0.0
    rate_bytes_per_s: float | None = None
    queue_bytes: int | None = None
    queue_s: float | None = None
    mtu_bytes: int | None = None
    faults: Sequence[Fault] = ()


@dataclass
class Tally:
    """What became of the datagrams of one direction.

    Attributes:
        sent: given to the link, and `sent_bytes` of them.
        delivered: arrived, copies included, and `delivered_bytes` of them.
        lost: by a fault.
        harmed: by a fault, and not lost.
        dropped: for want of room in the queue.
        oversized: for the MTU.
        longest_queue_s: the longest wait in the queue.
    """

    sent: int = 0
    sent_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    lost: int = 0
    harmed: int = 0
    dropped: int = 0
    oversized: int = 0
    longest_queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A datagram, and when it arrives."""

    at: float
    datagram: bytes


class Direction:
    """Decides what becomes of the datagrams that go one way.

    Args:
        conditions: what the way is like; may be set anew at any time.
        seed: the same seed and datagrams have the same fates.
    """

    def __init__(self, conditions: Conditions, seed: int = 0) -> None:
        self.conditions = conditions
        self.tally = Tally()
        self._rng = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self._free_at = 0.0
        self._last_arrival = 0.0
        self._queued: deque[tuple[float, int]] = deque()
        self._queued_bytes = 0

    def send(
        self, datagram: bytes, now: float, *, may_fragment: bool = False
    ) -> list[Delivery]:
        """Say when a datagram arrives, and as what: none, one or several times.

        What may be fragmented passes any MTU; the fragments share one fate.
        """
        conditions, tally = self.conditions, self.tally
        index = tally.sent
        tally.sent += 1
        tally.sent_bytes += len(datagram)
        mtu_bytes = None if may_fragment else conditions.mtu_bytes
        if mtu_bytes is not None and len(datagram) > mtu_bytes:
            tally.oversized += 1
            return []
        left_at = self._pass_queue(len(datagram), now)
        if left_at is None:
            tally.dropped += 1
            return []
        fate = UNHARMED
        passage = Passage(datagram, index, now, self._rng)
        for fault in conditions.faults:
            fate |= fault(passage)
        if fate.lost:
            tally.lost += 1
            return []
        tally.harmed += fate != UNHARMED
        arrival = left_at + conditions.latency_s
        if conditions.jitter_s:
            arrival += self._rng.uniform(0, conditions.jitter_s)
            # Queues keep the order: only a fault lets a datagram overtake.
            arrival = self._last_arrival = max(arrival, self._last_arrival)
        if fate.flipped_bit is not None and datagram:
            spoilt = bytearray(datagram)
            bit = fate.flipped_bit % (8 * len(spoilt))
            spoilt[bit // 8] ^= 1 << bit % 8
            datagram = bytes(spoilt)
        tally.delivered += fate.copies
        tally.delivered_bytes += fate.copies * len(datagram)
        return [Delivery(arrival + fate.delay_s, datagram)] * fate.copies

    def _pass_queue(self, size: int, now: float) -> float | None:
        """When a datagram has left the queue; None where it is dropped."""
        conditions = self.conditions
        if conditions.rate_bytes_per_s is None:
            return now
        while self._queued and self._queued[0][0] <= now:
            self._queued_bytes -= self._queued.popleft()[1]
        wait_s = max(0.0, self._free_at - now)
        if conditions.queue_s is not None and wait_s > conditions.queue_s:
            return None
        if (
            conditions.queue_bytes is not None
            and self._queued_bytes + size > conditions.queue_bytes
        ):
            return None
        self.tally.longest_queue_s = max(self.tally.longest_queue_s, wait_s)
        self._free_at = now + wait_s + size / conditions.rate_bytes_per_s
        self._queued.append((self._free_at, size))
        self._queued_bytes += size
        return self._free_at


Receiver = Callable[[list[bytes]], None]


@dataclass
class _Way:
    direction: Direction
    receiver: Receiver | None = None
    arriving: list[tuple[float, int, bytes]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class EmulatedLink:
    """Two directions on a loop: end 0 and end 1.

    Args:
        loop: whose clock and timers deliver.
        conditions: both directions' at first.
        seed: of all chance.
        backward: those from end 1 to end 0, where they differ.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        conditions: Conditions,
        seed: int = 0,
        *,
        backward: Conditions | None = None,
    ) -> None:
        self._loop = loop
        self._count = itertools.count()
        self._ways = (
            _Way(Direction(conditions, 2 * seed)),
            _Way(Direction(backward or conditions, 2 * seed + 1)),
        )

    def direction(self, from_end: int) -> Direction:
        """What goes from this end to the other."""
        return self._ways[from_end].direction

    def tallies(self) -> tuple[Tally, Tally]:
        """What became of the datagrams from end 0, and of those from end 1."""
        return self._ways[0].direction.tally, self._ways[1].direction.tally

    def change(self, **changes: object) -> None:
        """Give both directions other conditions from now on; the fields named.

        A fault that remembers, as bursts and scripts do, then sees both directions.
        """
        for way in self._ways:
            way.direction.conditions = replace(way.direction.conditions, **changes)

    def on_arrival(self, end: int, receiver: Receiver) -> None:
        """Call `receiver` with what arrives at an end at one time, in order."""
        self._ways[1 - end].receiver = receiver

    def send(
        self, from_end: int, datagram: bytes, *, may_fragment: bool = False
    ) -> None:
        """Send a datagram to the other end."""
        way = self._ways[from_end]
        for delivery in way.direction.send(
            datagram, self._loop.time(), may_fragment=may_fragment
        ):
            # Counted, so that those of one time arrive in the order they were sent.
            entry = (delivery.at, next(self._count), delivery.datagram)
            heapq.heappush(way.arriving, entry)
        self._set_timer(way)

    def _set_timer(self, way: _Way) -> None:
        due = way.arriving[0][0] if way.arriving else None
        if way.timer is not None:
            if way.timer.when() == due:
                return
            way.timer.cancel()
        way.timer = None if due is None else self._loop.call_at(due, self._deliver, way)

    def _deliver(self, way: _Way) -> None:
        way.timer = None
        now = self._loop.time()
        arrived = []
        while way.arriving and way.arriving[0][0] <= now:
            arrived.append(heapq.heappop(way.arriving)[2])
        self._set_timer(way)
        if arrived and way.receiver is not None:
            way.receiver(arrived)
