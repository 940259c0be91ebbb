"""The congestion control for lossy paths: a model of the bottleneck, not its losses.

What is in flight follows from the rate at which the path delivered lately and from its
shortest round trip, as in BBR (draft-ietf-ccwg-bbr). Single lost packets are repaired
and not punished, so that half a percent of loss at 80 ms does not make a fast path
slow. It may take more than its share beside other flows, which is why it is a choice of
the user's. Pure; asked by the sender.
"""

import math
from collections import deque
from enum import Enum, auto

from sleap_rtc_plugin.transport.sctp.congestion import MAX_WINDOW_BYTES, AckSample
from sleap_rtc_plugin.transport.sctp.rounds import RoundClock

__all__ = ["MAX_LOSS_SHARE", "RateBased"]

INITIAL_WINDOW_PACKETS = 32
MIN_WINDOW_PACKETS = 4
TIMEOUT_WINDOW_PACKETS = 1
MIN_PACE_PACKETS_PER_S = 4

RATE_MEMORY_ROUNDS = 10
RECENT_ROUNDS = 3
RTT_MEMORY_S = 10.0
FORGET_AFTER_IDLE_S = 60.0

STARTUP_GAIN = 2.885
"""2 / ln 2: the least with which the rate doubles in each round trip."""

STARTUP_GROWTH = 1.25
STARTUP_FLAT_ROUNDS = 3
"""The rate of the path is found where it has grown by less for so many rounds, or for
one in which all round trips were long: then a queue stands there."""

UP_GAIN = 1.25
UP_GROWTH = 1.15
DOWN_GAIN = 0.75
DOWN_ROUNDS = 4
CYCLE_ROUNDS = 8
STARTUP_CYCLES = 3
"""Each cycle begins with a round that sends more, to see whether the path has become
faster, and ends at once where it has; after so many of these it starts up again. The
queue which that made is drained then."""

STARTUP_WINDOW_GAIN = 2.0
WINDOW_GAIN = 1.5
HEADROOM_S = 0.006
"""SACKs come in batches, and timers late: so much more than the model is in flight."""

RTT_PROBE_S = 0.2
RTT_PROBE_GAIN = 0.5
RTT_PROBE_EVERY_S = 2.0
"""So long less is in flight to measure the round trip, and at most so often."""

LONG_RTT_GAIN = 1.5
LONG_RTT_S = 0.010
STALE_RATE_ROUNDS = 4
STALE_RTT_ROUNDS = 6
"""Round trips that are all longer than so much of the shortest, and so much more, say
that the model is out of date: after the first number of them the rate is the latest
one, after the second the shortest round trip is measured."""

MAX_LOSS_SHARE = 0.15
LOSS_PACKETS = 64
"""More than this share of at least so many packets: the path is overloaded."""

MADE_UP_LOSS_SHARE = 0.03
"""What is lost by chance is sent on top of the rate that arrives, up to so much."""

BACK_OFF = 0.7
BACK_OFF_LEAST = 0.25
BACK_OFF_RECOVERY = 1.25


class _Phase(Enum):
    STARTUP = auto()
    DRAIN = auto()
    UP = auto()
    DOWN = auto()
    CRUISE = auto()


_PACE_GAINS = {
    _Phase.STARTUP: STARTUP_GAIN,
    _Phase.DRAIN: 1 / STARTUP_GAIN,
    _Phase.UP: UP_GAIN,
    _Phase.DOWN: DOWN_GAIN,
    _Phase.CRUISE: 1.0,
}


class RateBased:
    """A window and a pace from the delivery rate and the shortest round trip."""

    def __init__(self, packet_bytes: int, max_bytes_per_s: float | None = None) -> None:
        """Know nothing of the path.

        Args:
            packet_bytes: user data in a full packet.
            max_bytes_per_s: what the user allows at most; None for no bound.
        """
        self._packet_bytes = packet_bytes
        self._cap = math.inf if max_bytes_per_s is None else max_bytes_per_s
        self._begin()

    def _begin(self) -> None:
        self._phase = _Phase.STARTUP
        self._window = float(INITIAL_WINDOW_PACKETS * self._packet_bytes)
        self._rounds = RoundClock()
        # The rate: the largest of each of the last rounds, this one included.
        self._rates = deque([0.0], RATE_MEMORY_ROUNDS)
        self._rate = 0.0
        self._round_has_rate = False
        self._round_is_app_limited = False
        self._flat_rounds = 0
        self._grown_cycles = 0
        self._cycle_rate = 0.0
        self._cycle_rounds = 0
        # The round trip.
        self._least_rtt_s = math.inf
        self._least_rtt_at = -math.inf
        self._round_rtt_s = math.inf
        self._long_rounds = 0
        self._probe_ends_at: float | None = None
        self._probe_rounds = 0
        self._probe_window = 0.0
        self._probe_rtt_s = math.inf
        self._probed_at = -math.inf
        # The losses.
        self._lost_bytes = 0
        self._acked_bytes = 0
        self._loss_share = 0.0
        self._back_off = 1.0

    @property
    def window_bytes(self) -> int:
        """How much may be in flight."""
        if self._probe_ends_at is not None:
            return int(min(self._window, self._probe_window))
        return int(self._window)

    @property
    def pace_bytes_per_s(self) -> float | None:
        """How fast to send; no bound of its own before the first round trip."""
        if not self._rate:
            return self._cap if self._cap < math.inf else None
        pace = self._rate * self._back_off * _PACE_GAINS[self._phase]
        pace *= 1.0 + min(self._loss_share, MADE_UP_LOSS_SHARE)
        return min(max(pace, MIN_PACE_PACKETS_PER_S * self._packet_bytes), self._cap)

    def on_ack(self, sample: AckSample) -> None:
        """Take what a SACK told."""
        self._lost_bytes += sample.lost_bytes
        if not sample.acked_bytes:
            return
        self._acked_bytes += sample.acked_bytes
        if sample.rtt_s is not None:
            self._take_rtt(sample.now, sample.rtt_s)
        self._take_rate(sample)
        if self._rounds.has_passed(sample):
            self._end_round()
        if self._probe_ends_at is not None:
            if sample.now >= self._probe_ends_at and self._probe_rounds > 1:
                self._end_probe(sample.now)
        elif self._phase is _Phase.DRAIN or self._phase is _Phase.DOWN:
            gone_bytes = sample.acked_bytes + sample.lost_bytes
            if sample.in_flight_bytes - gone_bytes <= self._held_bytes(1.0, 0.0):
                self._phase = _Phase.CRUISE
        is_startup = self._phase is _Phase.STARTUP
        gain = STARTUP_WINDOW_GAIN if is_startup else WINDOW_GAIN
        self._window = min(
            self._window + sample.acked_bytes, self._held_bytes(gain, HEADROOM_S)
        )

    def on_timeout(self, now: float) -> None:
        """Send one packet, and double from there to what the model says."""
        self._window = float(TIMEOUT_WINDOW_PACKETS * self._packet_bytes)

    def on_idle(self, idle_s: float, rto_s: float) -> None:
        """Begin anew after a long time: what was learned is old."""
        if idle_s > FORGET_AFTER_IDLE_S:
            self._begin()

    def on_packet_size(self, payload_bytes: int) -> None:
        """A full packet carries this much user data from now on."""
        self._packet_bytes = payload_bytes
        self._window = max(self._window, float(payload_bytes))

    def on_new_path(self, now: float) -> None:
        """Begin anew."""
        self._begin()

    def _held_bytes(self, gain: float, headroom_s: float) -> float:
        """Return a multiple of what the path holds, and some more, within bounds."""
        if not self._rate or self._least_rtt_s == math.inf:
            return float(INITIAL_WINDOW_PACKETS * self._packet_bytes)
        rate = min(self._rate * self._back_off, self._cap)
        held_bytes = rate * (gain * self._least_rtt_s + headroom_s)
        least_bytes = float(MIN_WINDOW_PACKETS * self._packet_bytes)
        return min(max(held_bytes, least_bytes), float(MAX_WINDOW_BYTES))

    def _take_rtt(self, now: float, rtt_s: float) -> None:
        self._round_rtt_s = min(self._round_rtt_s, rtt_s)
        if rtt_s <= self._least_rtt_s:
            self._least_rtt_s = rtt_s
            self._least_rtt_at = now
        if self._probe_ends_at is not None:
            if self._probe_rounds:
                self._probe_rtt_s = min(self._probe_rtt_s, rtt_s)
        elif now - self._least_rtt_at > RTT_MEMORY_S or (
            self._long_rounds >= STALE_RTT_ROUNDS
            and now - self._probed_at > RTT_PROBE_EVERY_S
        ):
            self._begin_probe(now)

    def _begin_probe(self, now: float) -> None:
        """Let the queue run empty, to measure the round trip without it."""
        self._probe_ends_at = now + RTT_PROBE_S
        self._probe_rounds = 0
        self._probe_rtt_s = math.inf
        # Of the latest rate: the path may have become slower, not longer.
        rate = max(list(self._rates)[-RECENT_ROUNDS:])
        self._probe_window = max(
            RTT_PROBE_GAIN * rate * self._least_rtt_s,
            float(MIN_WINDOW_PACKETS * self._packet_bytes),
        )

    def _end_probe(self, now: float) -> None:
        self._probe_ends_at = None
        self._probed_at = self._least_rtt_at = now
        self._long_rounds = 0
        if self._probe_rtt_s < math.inf:
            self._least_rtt_s = self._probe_rtt_s
        if self._phase is not _Phase.STARTUP:
            self._begin_cycle(_Phase.UP)

    def _take_rate(self, sample: AckSample) -> None:
        rate = sample.rate_bytes_per_s
        self._round_is_app_limited |= sample.is_app_limited
        if rate is None or (sample.is_app_limited and rate <= self._rate):
            return
        self._round_has_rate = True
        self._rates[-1] = max(self._rates[-1], rate)
        self._rate = max(self._rate, rate)

    def _end_round(self) -> None:
        is_overloaded = self._is_overloaded()
        limit_s = self._least_rtt_s * LONG_RTT_GAIN + LONG_RTT_S
        is_long = self._round_rtt_s > limit_s
        self._long_rounds = self._long_rounds + 1 if is_long else 0
        if is_overloaded or self._long_rounds >= STALE_RATE_ROUNDS:
            while len(self._rates) > RECENT_ROUNDS:
                self._rates.popleft()
        # A round in which little was to be sent tells nothing, and ages nothing.
        if self._round_has_rate:
            self._rate = max(self._rates)
            self._rates.append(0.0)
        if self._probe_ends_at is None:
            self._advance(is_overloaded=is_overloaded, is_long=is_long)
        else:
            self._probe_rounds += 1
        self._round_has_rate = self._round_is_app_limited = False
        self._round_rtt_s = math.inf

    def _is_overloaded(self) -> bool:
        """Tell whether too much was lost, and back off if so."""
        acked_bytes, lost_bytes = self._acked_bytes, self._lost_bytes
        if acked_bytes + lost_bytes < LOSS_PACKETS * self._packet_bytes:
            return False
        self._acked_bytes = self._lost_bytes = 0
        share = lost_bytes / (acked_bytes + lost_bytes)
        self._loss_share += (share - self._loss_share) / 8
        if share <= MAX_LOSS_SHARE:
            self._back_off = min(self._back_off * BACK_OFF_RECOVERY, 1.0)
            return False
        self._back_off = max(self._back_off * BACK_OFF, BACK_OFF_LEAST)
        return True

    def _advance(self, *, is_overloaded: bool, is_long: bool) -> None:
        """Go on to the next phase, where a round trip decides that."""
        if self._phase is _Phase.STARTUP:
            self._advance_startup(is_overloaded=is_overloaded, is_long=is_long)
            return
        self._cycle_rounds += 1
        if self._phase is _Phase.UP:
            # What the faster pace brings is seen in the next round.
            self._phase = _Phase.DOWN
        elif self._rate >= self._cycle_rate * UP_GROWTH and not is_overloaded:
            self._grown_cycles += 1
            is_far = self._grown_cycles >= STARTUP_CYCLES
            self._begin_cycle(_Phase.STARTUP if is_far else _Phase.UP)
        elif self._phase is _Phase.CRUISE:
            if self._cycle_rounds >= CYCLE_ROUNDS:
                self._grown_cycles = 0
                self._begin_cycle(_Phase.UP)
        elif self._cycle_rounds >= DOWN_ROUNDS:
            self._phase = _Phase.CRUISE

    def _advance_startup(self, *, is_overloaded: bool, is_long: bool) -> None:
        if self._rate >= self._cycle_rate * STARTUP_GROWTH:
            self._begin_cycle(_Phase.STARTUP)
        elif is_long:
            self._flat_rounds = STARTUP_FLAT_ROUNDS
        elif not self._round_is_app_limited:
            self._flat_rounds += 1
        if is_overloaded or self._flat_rounds >= STARTUP_FLAT_ROUNDS:
            self._grown_cycles = 0
            self._begin_cycle(_Phase.DRAIN)

    def _begin_cycle(self, phase: _Phase) -> None:
        self._phase = phase
        self._cycle_rounds = self._flat_rounds = 0
        self._cycle_rate = self._rate
