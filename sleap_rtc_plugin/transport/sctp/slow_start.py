"""How fast a window grows at the beginning, and when that ends: HyStart++ (RFC 9406).

Plain slow start ends with the first loss, which is when the queue of the bottleneck has
overflowed: up to half of a window is lost at once. HyStart++ ends it when the round
trips become longer. Pure; asked by `loss_based`.
"""

import math

__all__ = ["SlowStart"]

RTT_RISE_MIN_S = 0.004
RTT_RISE_MAX_S = 0.016
RTT_RISE_DIVISOR = 8
RTT_SAMPLES = 8
RTT_LONG = 1.5
CAUTIOUS_GROWTH = 0.25
CAUTIOUS_ROUNDS = 5


class SlowStart:
    """Doubles the window each round trip, then grows by a quarter of that, then ends.

    The second phase is there because a round trip may become longer for a moment only:
    if it becomes shorter again, the first one goes on.
    """

    __slots__ = (
        "_baseline_s",
        "_cautious_rounds",
        "_floor_s",
        "_last_s",
        "_least_s",
        "_long_samples",
        "_samples",
        "is_over",
    )

    def __init__(self) -> None:
        """Begin."""
        self.is_over = False
        self._last_s = math.inf
        self._least_s = math.inf
        self._floor_s = math.inf
        self._samples = 0
        self._long_samples = 0
        self._baseline_s = math.inf
        self._cautious_rounds = 0

    @property
    def is_cautious(self) -> bool:
        """Whether the round trips have become longer."""
        return self._cautious_rounds > 0

    @property
    def floor_s(self) -> float:
        """The shortest round trip so far; infinite before the first."""
        return self._floor_s

    @property
    def growth(self) -> float:
        """By how much of what is acknowledged the window grows."""
        return CAUTIOUS_GROWTH if self._cautious_rounds else 1.0

    def on_ack(self, rtt_s: float | None, *, is_new_round: bool) -> None:
        """Take a round trip, in seconds; the first of its round where it is."""
        if is_new_round:
            self._last_s, self._least_s = self._least_s, math.inf
            self._samples = 0
            if self._cautious_rounds:
                self._cautious_rounds += 1
                self.is_over = self._cautious_rounds > CAUTIOUS_ROUNDS
        if rtt_s is None:
            return
        self._samples += 1
        self._least_s = min(self._least_s, rtt_s)
        self._floor_s = min(self._floor_s, rtt_s)
        is_long = rtt_s > RTT_LONG * self._floor_s + RTT_RISE_MIN_S
        self._long_samples = self._long_samples + 1 if is_long else 0
        if self._samples < RTT_SAMPLES:
            return
        if self._cautious_rounds:
            if self._least_s < self._baseline_s:
                self._cautious_rounds = 0
        elif self._long_samples >= RTT_SAMPLES:
            # What was short earlier in this round says nothing about now.
            self._baseline_s = rtt_s
            self._least_s = math.inf
            self._samples = 0
            self._cautious_rounds = 1
        elif self._last_s < math.inf:
            rise_s = self._last_s / RTT_RISE_DIVISOR
            rise_s = min(max(rise_s, RTT_RISE_MIN_S), RTT_RISE_MAX_S)
            if self._least_s >= self._last_s + rise_s:
                self._baseline_s = self._least_s
                self._cautious_rounds = 1
