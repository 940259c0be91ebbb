"""Whether the queue of the bottleneck is this flow's own, and how much of it is enough.

A flow that grows until something is lost fills the queue of a router, 200 ms of it at
times, and every control message waits there. A flow that gives way to every queue
starves beside one that does not. So this one tries: it sends less for a round trip, and
if that makes the round trips shorter as it would for a flow that is alone, it keeps the
queue short from then on. If not, the queue is another's, and it competes.

Pure, time is an argument; asked by `loss_based`.
"""

import math
from enum import Enum, auto

from sleap_rtc_plugin.transport.sctp.congestion import AckSample

__all__ = ["QueueStep", "StandingQueue"]

QUEUE_MIN_S = 0.007
QUEUE_SHARE = 0.8
QUEUE_MAX_S = 0.080
"""How long the queue may be when alone: a part of a round trip and a bit, at most so
long."""

LOOK_S = 0.030
LOOK_SAMPLES = 8
"""The shortest round trip of so long counts: a busy program is late now and then."""

DRAIN = 0.7
"""What of the window a try leaves."""

ALONE_SHARE = 0.8
"""The part of the expected change from which on the queue counts as this flow's."""

RETRY_FIRST_S = 1.0
RETRY_S = 5.0
"""After how long a queue that seems shared is looked at again, first and later."""

ROUNDS_ALONE = 2
UNCHANGED = 0.93
"""Where the queue is our own and was emptied this few rounds ago, and now the round
trips are long again, and sending less leaves them as they are: that is the path, which
has become longer."""


class QueueStep(Enum):
    """What is to be done about the queue."""

    TRY = auto()
    """Send as if the window were `try_bytes`, until one of the others comes."""

    ALONE = auto()
    """The queue is our own: go on from `restart_bytes`, to `full_bytes` at most."""

    SHARED = auto()
    """It is not, or we cannot tell: go on as before."""


class StandingQueue:
    """Watches the queue, and says when to send less.

    Attributes:
        try_bytes: the window while it is tried what the queue does.
        restart_bytes: the window that leaves half of the queue that may stand.
        full_bytes: the window that leaves all of it.
    """

    __slots__ = (
        "_baseline_s",
        "_is_shared",
        "_is_window_limited",
        "_least_before_s",
        "_least_s",
        "_look_at",
        "_look_least_s",
        "_rate",
        "_rate_alone",
        "_retry_at",
        "_retry_s",
        "_round_at",
        "_round_bytes",
        "_rounds_alone",
        "_samples",
        "_try_ends_bytes",
        "_try_least_s",
        "_try_rate",
        "_try_sent_bytes",
        "_try_window",
        "_window_alone",
        "full_bytes",
        "restart_bytes",
        "try_bytes",
    )

    def __init__(self) -> None:
        """Know nothing of the path."""
        self.try_bytes = 0.0
        self.restart_bytes = 0.0
        self.full_bytes = 0.0
        self._least_s = math.inf
        self._least_before_s = math.inf
        self._is_shared = False
        self._retry_at = -math.inf
        self._retry_s = RETRY_FIRST_S
        # This round trip, and the rate in the last one.
        self._round_at: float | None = None
        self._round_bytes = 0
        self._rate = 0.0
        self._is_window_limited = False
        # This look at the queue.
        self._look_at = 0.0
        self._look_least_s = math.inf
        self._samples = 0
        # This try.
        self._try_sent_bytes: int | None = None
        self._try_ends_bytes: int | None = None
        self._try_least_s = math.inf
        self._try_rate = 0.0
        self._try_window = 0.0
        self._baseline_s = 0.0
        # When the queue was our own: what we sent, and how many round trips ago.
        self._rate_alone = 0.0
        self._window_alone = 0.0
        self._rounds_alone = math.inf

    @property
    def is_trying(self) -> bool:
        """Whether less is sent, to see what the queue does."""
        return self._try_sent_bytes is not None

    @property
    def is_shared(self) -> bool:
        """Whether others fill the queue too, or it cannot be told."""
        return self._is_shared

    @property
    def limit_s(self) -> float:
        """How long the queue may be."""
        return min(QUEUE_MIN_S + QUEUE_SHARE * self._least_s, QUEUE_MAX_S)

    def on_ack(self, sample: AckSample, window_bytes: float) -> QueueStep | None:
        """Take an acknowledgement, with the window, and say what is to be done."""
        if not sample.acked_bytes:
            return None
        if self._try_sent_bytes is not None:
            return self._compare(sample, self._try_sent_bytes)
        if sample.rtt_s is not None:
            self._least_s = min(self._least_s, sample.rtt_s)
        if self._round_at is None:
            self._begin_round(sample)
            self._begin_look(sample.now)
            return None
        if sample.rtt_s is not None:
            self._look_least_s = min(self._look_least_s, sample.rtt_s)
            self._samples += 1
        self._is_window_limited |= sample.is_window_limited
        took_s = sample.now - self._round_at
        step = None
        if self._samples >= LOOK_SAMPLES and sample.now - self._look_at >= LOOK_S:
            step = self._look(sample, took_s, window_bytes)
        if (
            step is None
            and took_s >= LOOK_S
            and sample.delivered_at_send_bytes >= self._round_bytes
        ):
            self._rate = (sample.delivered_bytes - self._round_bytes) / took_s
            self._rounds_alone += 1
            self._begin_round(sample)
        return step

    def call_off(self, now: float) -> None:
        """Something was lost, or nothing came back: begin to look anew."""
        if self._least_before_s < self._least_s:
            # Short queues lose nothing: the path is not longer, others queue there.
            self._least_s = self._least_before_s
            self._share(now)
        elif self.is_trying:
            self._share(now)
        self._rate = 0.0
        self._round_at = None

    def _begin_round(self, sample: AckSample) -> None:
        self._round_at = sample.now
        self._round_bytes = sample.delivered_bytes
        self._is_window_limited = False

    def _begin_look(self, now: float) -> None:
        self._look_at = now
        self._look_least_s = math.inf
        self._samples = 0

    def _look(
        self, sample: AckSample, took_s: float, window_bytes: float
    ) -> QueueStep | None:
        """See how long the queue was in the last moment."""
        round_trip_s = self._look_least_s
        self._begin_look(sample.now)
        if round_trip_s - self._least_s <= self.limit_s:
            if sample.now >= self._retry_at:
                self._is_shared = False
            return None
        if not self._is_window_limited or self._rounds_alone < 1 or not self._rate:
            # We did not make it, or it was there before it was emptied, or the rate is
            # not known yet: in the round trip after a loss little comes for a while.
            return None
        if self._is_shared and sample.now < self._retry_at:
            return None
        self._try_rate = self._rate
        if took_s > 0:
            # Several SACKs may come at once, and a round begin with the one before.
            rate = (sample.delivered_bytes - self._round_bytes) / took_s
            self._try_rate = max(rate, self._rate)
        self._baseline_s = round_trip_s
        self._try_window = window_bytes
        self.try_bytes = DRAIN * min(window_bytes, self._try_rate * round_trip_s)
        self._try_sent_bytes = sample.delivered_bytes
        self._try_ends_bytes = None
        self._try_least_s = math.inf
        return QueueStep.TRY

    def _compare(self, sample: AckSample, sent_bytes: int) -> QueueStep | None:
        """See what the queue does now that less is sent."""
        if sample.delivered_at_send_bytes < sent_bytes:
            return None
        if self._try_ends_bytes is None:
            self._try_ends_bytes = sample.delivered_bytes
        if sample.rtt_s is not None:
            self._least_s = min(self._least_s, sample.rtt_s)
            self._try_least_s = min(self._try_least_s, sample.rtt_s)
            expected_s = max(self._least_s, DRAIN * self._baseline_s)
            change_s = self._baseline_s - sample.rtt_s
            if change_s >= ALONE_SHARE * (self._baseline_s - expected_s):
                return self._end(sample, is_shared=False)
        if sample.delivered_at_send_bytes >= self._try_ends_bytes:
            return self._end(sample, is_shared=True)
        return None

    def _end(self, sample: AckSample, *, is_shared: bool) -> QueueStep:
        self._try_sent_bytes = None
        self._begin_round(sample)
        self._begin_look(sample.now)
        if not is_shared:
            self._rate_alone = self._try_rate
            self._window_alone = self._try_window
        elif self._is_path_longer:
            # Of the rate before, which the window was still large enough for.
            self._least_before_s = min(self._least_before_s, self._least_s)
            self._least_s = self._try_least_s
        else:
            self._share(sample.now)
            return QueueStep.SHARED
        self._rounds_alone = 0
        self._is_shared = False
        self._retry_s = RETRY_FIRST_S
        restart_bytes = self._rate_alone * (self._least_s + self.limit_s / 2)
        self.restart_bytes = min(restart_bytes, self._window_alone)
        self.full_bytes = self._rate_alone * (self._least_s + self.limit_s)
        return QueueStep.ALONE

    def _share(self, now: float) -> None:
        self._try_sent_bytes = None
        self._rounds_alone = math.inf
        self._is_shared = True
        self._retry_at = now + self._retry_s
        self._retry_s = RETRY_S

    @property
    def _is_path_longer(self) -> bool:
        return (
            self._rounds_alone <= ROUNDS_ALONE
            and UNCHANGED < self._try_least_s / self._baseline_s < 1 / UNCHANGED
        )
