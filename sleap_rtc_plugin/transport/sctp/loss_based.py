"""The congestion control for every path: a loss means that too much was sent.

RFC 9260 section 7.2 with the growth of today's TCP: the window starts with ten packets
(RFC 6928), doubles until the round trips become longer (HyStart++, RFC 9406), and grows
as CUBIC (RFC 9438) from then on, because halving and one packet more in a round trip
needs minutes to get back to 400 Mbit/s at 80 ms. Where the queue is its own, it is kept
short, so that control messages pass (`standing_queue`). Pure; asked by the sender.
"""

import math

from sleap_rtc_plugin.transport.sctp.congestion import MAX_WINDOW_BYTES, AckSample
from sleap_rtc_plugin.transport.sctp.cubic import Cubic
from sleap_rtc_plugin.transport.sctp.rounds import RoundClock
from sleap_rtc_plugin.transport.sctp.slow_start import SlowStart
from sleap_rtc_plugin.transport.sctp.standing_queue import QueueStep, StandingQueue

__all__ = ["LossBased"]

INITIAL_WINDOW_PACKETS = 10
MIN_WINDOW_PACKETS = 2
TIMEOUT_WINDOW_PACKETS = 1
MAX_IDLE_HALVINGS = 32

PACED_RTT_S = 0.005
START_PACE_GAIN = 2.0
PACE_GAIN = 1.25
"""From such a round trip on, the window is spread over it, sent only so many times as
fast as would just fill it (RFC 9002 section 7.7). One SACK that was late would let all
of it go at once, over and over, and what is urgent would wait for the whole of it.
Where the round trip is shorter, timers are too late.
"""

UNSURE_GROWTH = 0.05
"""Beside others and before anything was lost, the window grows by this part of what is
acknowledged at least, as Linux lets it: whoever is slower now stays behind for minutes.
"""

UNUSED_S = 1.0
"""After so long, a part of the window that is not used is given up."""


class LossBased:
    """A window, spread over the round trip where that is long.

    It grows by the bytes that are acknowledged, for one SACK covers up to a whole batch
    of packets, and only when it was what held the sender back.
    """

    def __init__(self, packet_bytes: int) -> None:
        """Know nothing of the path; a full packet carries `packet_bytes` of data."""
        self._packet_bytes = packet_bytes
        self._begin()

    def _begin(self) -> None:
        self._window = float(INITIAL_WINDOW_PACKETS * self._packet_bytes)
        self._threshold = math.inf
        self._slow_start = SlowStart()
        self._cubic = Cubic(self._packet_bytes)
        self._queue = StandingQueue()
        self._rounds = RoundClock()
        self._untried_window = 0.0
        self._tried_at = 0.0
        self._reduced_at = -math.inf
        self._recovered_bytes = 0
        self._acked_at: float | None = None
        self._limited_at: float | None = None
        self._was_limited = False
        self._has_lost = False
        self._rtt_s = 0.0
        self._least_rtt_s = math.inf
        self._best_rate = 0.0

    @property
    def window_bytes(self) -> int:
        """How much may be in flight."""
        return int(self._window)

    @property
    def pace_bytes_per_s(self) -> float | None:
        """How fast to send; no bound of its own on a short way."""
        if not PACED_RTT_S <= self._least_rtt_s < math.inf:
            return None
        is_start = self._window < self._threshold
        gain = START_PACE_GAIN if is_start else PACE_GAIN
        return gain * self._window / self._rtt_s

    def on_ack(self, sample: AckSample) -> None:
        """Take what a SACK told."""
        lost_sent_at = sample.lost_sent_at
        if lost_sent_at is not None and lost_sent_at >= self._reduced_at:
            self._reduce(sample, lost_sent_at)
        if not sample.acked_bytes:
            return
        self._was_limited = sample.is_window_limited
        is_new_round = self._rounds.has_passed(sample)
        now, rtt_s = sample.now, sample.rtt_s
        if rtt_s is not None:
            self._rtt_s += (rtt_s - self._rtt_s) / 8 if self._rtt_s else rtt_s
            self._least_rtt_s = min(self._least_rtt_s, rtt_s)
        waited_s = 0.0 if self._acked_at is None else now - self._acked_at
        self._acked_at = now
        if self._threshold == math.inf:
            self._start(sample, is_new_round=is_new_round)
        is_recovering = sample.delivered_at_send_bytes < self._recovered_bytes
        if is_recovering and not self._queue.is_trying:
            return
        step = self._queue.on_ack(sample, self._window)
        if step is not None:
            self._take(step, now)
        elif self._queue.is_trying or is_recovering:
            return
        elif sample.is_window_limited:
            self._limited_at = now
            self._grow(now, sample.acked_bytes)
        else:
            self._cubic.pause(waited_s)
            self._shed_unused(sample)

    def on_timeout(self, now: float) -> None:
        """Send one packet, and double from there to where CUBIC goes on."""
        least = float(TIMEOUT_WINDOW_PACKETS * self._packet_bytes)
        # A second timeout says no more about the path than the first one did.
        if self._window > least:
            self._shrink(is_window_limited=self._was_limited)
        self._queue.call_off(now)
        self._window = least
        self._reduced_at = now
        self._recovered_bytes = 0

    def on_idle(self, idle_s: float, rto_s: float) -> None:
        """Halve for each timeout's time without traffic (RFC 9260 section 7.2.1).

        The path may be another by now. Slow start leads back to where it was.
        """
        least = float(INITIAL_WINDOW_PACKETS * self._packet_bytes)
        if idle_s < rto_s or self._window <= least:
            return
        self._window = self._leave_try()
        self._queue.call_off(-math.inf)
        self._threshold = max(self._threshold, self._window)
        halvings = int(min(idle_s / rto_s, MAX_IDLE_HALVINGS))
        self._window = max(self._window * 0.5**halvings, least)

    def on_packet_size(self, payload_bytes: int) -> None:
        """A full packet carries this much user data from now on."""
        self._packet_bytes = self._cubic.packet_bytes = payload_bytes
        self._window = max(self._window, float(payload_bytes))

    def on_new_path(self, now: float) -> None:
        """Begin anew; what is lost of what was sent on the old path tells nothing."""
        self._begin()
        self._reduced_at = now

    def _start(self, sample: AckSample, *, is_new_round: bool) -> None:
        """Go on with slow start."""
        start = self._slow_start
        self._best_rate = max(self._best_rate, sample.rate_bytes_per_s or 0.0)
        was_cautious = start.is_cautious
        start.on_ack(sample.rtt_s, is_new_round=is_new_round)
        if start.is_cautious and not was_cautious and self._best_rate:
            # The queue is what was sent too much of in the round trip since.
            least = float(MIN_WINDOW_PACKETS * self._packet_bytes)
            held = self._best_rate * (start.floor_s + self._queue.limit_s)
            self._window = max(least, min(self._window, held))
        if start.is_over:
            self._threshold = self._window

    def _grow(self, now: float, acked_bytes: int) -> None:
        if self._window < self._threshold:
            growth = 1.0
            if self._threshold == math.inf:
                growth = self._slow_start.growth
            window = min(self._window + growth * acked_bytes, self._threshold)
        else:
            window = self._cubic.grow(now, self._window, acked_bytes, self._rtt_s)
            if self._queue.is_shared and not self._has_lost:
                window = max(window, self._window + UNSURE_GROWTH * acked_bytes)
        self._window = min(window, float(MAX_WINDOW_BYTES))

    def _reduce(self, sample: AckSample, lost_sent_at: float) -> None:
        """Shrink once for all that is lost of one round trip."""
        is_window_limited = sample.is_window_limited or self._was_limited
        self._untried_window = self._shrink(is_window_limited=is_window_limited)
        self._reduced_at = sample.now
        self._recovered_bytes = sample.delivered_bytes
        if self._queue.is_trying and lost_sent_at < self._tried_at:
            # It was sent before less was sent, which is still worth the try.
            self._window = min(self._window, self._untried_window)
        else:
            self._window = self._untried_window
            self._queue.call_off(sample.now)

    def _shrink(self, *, is_window_limited: bool) -> float:
        """Return what a loss leaves of the window, and begin to grow from there.

        What is lost while little is sent says nothing about how much the path takes:
        slow start is not over then.
        """
        self._has_lost = True
        left = self._cubic.reduce(self._leave_try())
        left = max(left, float(MIN_WINDOW_PACKETS * self._packet_bytes))
        if is_window_limited or self._threshold < math.inf:
            self._threshold = left
        return left

    def _shed_unused(self, sample: AckSample) -> None:
        """Give up half of what has not been used for a while (RFC 2861).

        It would be sent in one burst. Slow start leads back.
        """
        if self._limited_at is None:
            self._limited_at = sample.now
        if sample.now - self._limited_at < UNUSED_S:
            return
        self._limited_at = sample.now
        used = max(sample.in_flight_bytes, INITIAL_WINDOW_PACKETS * self._packet_bytes)
        if used < self._window:
            self._threshold = max(self._threshold, self._window)
            self._window = (self._window + used) / 2

    def _leave_try(self) -> float:
        return self._untried_window if self._queue.is_trying else self._window

    def _take(self, step: QueueStep, now: float) -> None:
        queue = self._queue
        least = float(MIN_WINDOW_PACKETS * self._packet_bytes)
        if step is QueueStep.TRY:
            self._untried_window = self._window
            self._tried_at = now
            self._window = max(queue.try_bytes, least)
        elif step is QueueStep.ALONE:
            self._threshold = max(queue.restart_bytes, least)
            self._window = min(self._window, self._threshold)
            self._cubic.aim(max(queue.full_bytes, least))
        else:
            self._threshold = self._untried_window
