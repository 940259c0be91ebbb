"""The congestion control for lossy paths: a model of the bottleneck, not its losses.

What is in flight follows from the rate at which the path delivered lately and from its
shortest round trip, as in BBR (draft-ietf-ccwg-bbr). Single lost packets are repaired and
not punished, so that half a percent of loss at 80 ms does not make a fast path slow. It
may take more than its share beside other flows, which is why it is a choice of the
user's. Pure; asked by the sender.
"""

import math
from collections import deque
from enum import Enum, auto

from sleap_rtc_plugin.transport.sctp.congestion import AckSample
from sleap_rtc_plugin.transport.sctp.rounds import RoundClock

__all__ = ["MAX_LOSS_SHARE", "RateBased"]

INITIAL_WINDOW_PACKETS = 32
MIN_WINDOW_PACKETS = 4
MAX_WINDOW_BYTES = 32 * 1024 * 1024
MIN_PACE_BYTES_PER_S = 4_800.0

RATE_MEMORY_ROUNDS = 10
RECENT_ROUNDS = 3
RTT_MEMORY_S = 10.0
FORGET_AFTER_IDLE_S = 60.0

STARTUP_GAIN = 2.885
"""2 / ln 2: the least with which the rate doubles in each round trip."""

STARTUP_GROWTH = 1.25
STARTUP_FLAT_ROUNDS = 3
UP_GAIN = 1.25
UP_GROWTH = 1.15
DOWN_GAIN = 0.75
DOWN_ROUNDS = 4
CRUISE_ROUNDS = 6

WINDOW_GAIN = 2.0
HEADROOM_S = 0.006
"""SACKs come in batches, and timers late: so much more than the model is in flight."""

RTT_PROBE_S = 0.2
RTT_PROBE_GAIN = 0.5
RTT_PROBE_EVERY_S = 2.0
LONG_RTT_GAIN = 1.5
LONG_RTT_S = 0.010
LONG_RTT_ROUNDS = 6
STALE_RATE_ROUNDS = 4
"""After so many round trips that are all so much longer than the shortest known one, it
is measured anew before the ten seconds are over: the path may have become longer."""

MAX_LOSS_SHARE = 0.15
"""Of a round trip; beyond it the path is overloaded, whatever the rate says."""

LOSS_PACKETS = 64
"""The share of less says nothing."""

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

    def __init__(
        self, packet_bytes: int, max_bytes_per_s: float | None = None
    ) -> None:
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
        self._rates = deque([0.0], RATE_MEMORY_ROUNDS)
        self._rate = 0.0
        self._rounds = RoundClock()
        self._rounds_in_phase = 0
        self._round_has_sample = False
        self._round_is_app_limited = False
        self._round_lost_bytes = 0
        self._round_acked_bytes = 0
        self._round_least_rtt_s = math.inf
        self._long_rounds = 0
        self._rate_before = 0.0
        self._flat_rounds = 0
        self._back_off = 1.0
        self._loss_share = 0.0
        self._least_rtt_s = math.inf
        self._least_rtt_at = -math.inf
        self._probe_ends_at: float | None = None
        self._probe_rounds = 0
        self._probe_window = 0.0
        self._probe_least_s = math.inf
        self._probed_at = -math.inf

    @property
    def window_bytes(self) -> int:
        """How much may be in flight."""
        if self._probe_ends_at is not None:
            return int(min(self._window, self._probe_window))
        return int(self._window)

    @property
    def pace_bytes_per_s(self) -> float | None:
        """How fast to send; no bound before the first round trip."""
        if not self._rate:
            return self._cap if self._cap < math.inf else None
        pace = self._rate * self._back_off * _PACE_GAINS[self._phase]
        pace *= 1.0 + min(self._loss_share, MADE_UP_LOSS_SHARE)
        return min(max(pace, MIN_PACE_BYTES_PER_S), self._cap)

    def on_ack(self, sample: AckSample) -> None:
        """Take what a SACK told."""
        self._round_lost_bytes += sample.lost_bytes
        if not sample.acked_bytes:
            return
        self._round_acked_bytes += sample.acked_bytes
        if sample.rtt_s is not None:
            self._take_rtt(sample.now, sample.rtt_s)
        self._take_rate(sample)
        if self._rounds.has_passed(sample):
            self._end_round(sample.now)
        in_flight_bytes = sample.in_flight_bytes - sample.acked_bytes
        in_flight_bytes -= sample.lost_bytes
        if self._probe_ends_at is None:
            self._drain(in_flight_bytes)
        elif sample.now >= self._probe_ends_at and self._probe_rounds >= 2:
            self._end_probe(sample.now)
        gain = STARTUP_GAIN if self._phase is _Phase.STARTUP else WINDOW_GAIN
        grown = self._window + sample.acked_bytes
        self._window = min(grown, self._target(gain, HEADROOM_S))

    def on_timeout(self, now: float) -> None:
        """Send one packet, and grow from there to what the model says."""
        self._window = float(self._packet_bytes)

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

    def _target(self, gain: float, headroom_s: float) -> float:
        """What may be in flight, in bytes: a multiple of what the path holds."""
        least = float(MIN_WINDOW_PACKETS * self._packet_bytes)
        if not self._rate or self._least_rtt_s == math.inf:
            return max(least, float(INITIAL_WINDOW_PACKETS * self._packet_bytes))
        rate = min(self._rate * self._back_off, self._cap)
        held = rate * (gain * self._least_rtt_s + headroom_s)
        return min(max(held, least), float(MAX_WINDOW_BYTES))

    def _take_rtt(self, now: float, rtt_s: float) -> None:
        self._round_least_rtt_s = min(self._round_least_rtt_s, rtt_s)
        if rtt_s <= self._least_rtt_s:
            self._least_rtt_s = rtt_s
            self._least_rtt_at = now
        if self._probe_ends_at is not None:
            if self._probe_rounds:
                self._probe_least_s = min(self._probe_least_s, rtt_s)
        elif now - self._least_rtt_at > RTT_MEMORY_S or (
            self._long_rounds >= LONG_RTT_ROUNDS
            and now - self._probed_at > RTT_PROBE_EVERY_S
        ):
            self._probe_ends_at = now + RTT_PROBE_S
            rate = max(list(self._rates)[-RECENT_ROUNDS:])
            held = RTT_PROBE_GAIN * rate * self._least_rtt_s
            self._probe_window = max(held, MIN_WINDOW_PACKETS * self._packet_bytes)
            self._probe_rounds = 0
            self._probe_least_s = math.inf

    def _end_probe(self, now: float) -> None:
        """Take what a round trip with little in flight measured."""
        self._probe_ends_at = None
        self._probed_at = now
        self._long_rounds = 0
        if self._probe_least_s < math.inf:
            self._least_rtt_s = self._probe_least_s
            self._least_rtt_at = now
        if self._phase is not _Phase.STARTUP:
            self._enter(_Phase.UP)

    def _take_rate(self, sample: AckSample) -> None:
        rate = sample.rate_bytes_per_s
        self._round_is_app_limited |= sample.is_app_limited
        if rate is None or (sample.is_app_limited and rate <= self._rate):
            return
        self._round_has_sample = True
        self._rates[-1] = max(self._rates[-1], rate)
        self._rate = max(self._rate, rate)

    def _end_round(self, now: float) -> None:
        is_overloaded = self._is_overloaded()
        limit_s = self._least_rtt_s * LONG_RTT_GAIN + LONG_RTT_S
        is_long = self._round_least_rtt_s > limit_s
        self._long_rounds = self._long_rounds + 1 if is_long else 0
        if self._long_rounds >= STALE_RATE_ROUNDS:
            self._forget()
        if self._round_has_sample:
            self._rate = max(self._rates)
            self._rates.append(0.0)
        if self._probe_ends_at is not None:
            self._probe_rounds += 1
        else:
            self._advance(is_overloaded)
        self._round_has_sample = self._round_is_app_limited = False
        self._round_least_rtt_s = math.inf

    def _advance(self, is_overloaded: bool) -> None:
        """Go on in the cycle, after a round trip."""
        phase = self._phase
        self._rounds_in_phase += 1
        if phase is _Phase.STARTUP:
            if is_overloaded:
                self._enter(_Phase.DRAIN)
            elif self._rate >= self._rate_before * STARTUP_GROWTH:
                self._rate_before = self._rate
                self._flat_rounds = 0
            elif not self._round_is_app_limited:
                self._flat_rounds += 1
                if self._flat_rounds >= STARTUP_FLAT_ROUNDS:
                    self._enter(_Phase.DRAIN)
        elif phase is _Phase.UP:
            self._phase = _Phase.DOWN
        elif self._rate >= self._rate_before * UP_GROWTH and not is_overloaded:
            # What a faster pace brought is seen in the round trip after it.
            self._enter(_Phase.UP)
        elif phase is _Phase.DOWN or phase is _Phase.DRAIN:
            if self._rounds_in_phase >= DOWN_ROUNDS:
                self._enter(_Phase.CRUISE)
        elif self._rounds_in_phase >= CRUISE_ROUNDS:
            self._enter(_Phase.UP)

    def _is_overloaded(self) -> bool:
        """Tell whether too much was lost, and back off if so."""
        acked, lost = self._round_acked_bytes, self._round_lost_bytes
        if acked + lost < LOSS_PACKETS * self._packet_bytes:
            return False
        self._round_acked_bytes = self._round_lost_bytes = 0
        self._loss_share += (lost / (acked + lost) - self._loss_share) / 8
        if lost <= MAX_LOSS_SHARE * (acked + lost):
            self._back_off = min(self._back_off * BACK_OFF_RECOVERY, 1.0)
            return False
        self._back_off = max(self._back_off * BACK_OFF, BACK_OFF_LEAST)
        self._forget()
        return True

    def _forget(self) -> None:
        while len(self._rates) > RECENT_ROUNDS:
            self._rates.popleft()

    def _drain(self, in_flight_bytes: int) -> None:
        """Go on as soon as the queue that was made is gone."""
        if self._phase in (_Phase.DRAIN, _Phase.DOWN):
            if in_flight_bytes <= self._target(1.0, 0.0):
                self._phase = _Phase.CRUISE

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._rounds_in_phase = 0
        self._rate_before = self._rate
