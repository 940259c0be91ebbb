"""How long a round trip takes, and how long to wait before sending again.

Pure (RFC 9260 section 6.3.1; RFC 8985 section 7.2 for the probe of a lost tail). Asked
by `transport.sctp.sender`.
"""

from typing import Final

__all__ = ["RoundTrip"]

RTO_INITIAL_S: Final = 1.0
# RFC 9260 recommends 1 s and 60 s. What is lost is found by later packets and by a
# probe, long before this timer; it is left to outages, and after one the wait must be
# short.
RTO_MIN_S: Final = 0.4
RTO_MAX_S: Final = 2.0
# What a path whose round trips are longer than that may still be waited for.
RTO_SLOW_PATH_S: Final = 60.0
MAX_BACKOFF: Final = 8
_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
# A timer of an event loop is late by that much.
CLOCK_GRAIN_S: Final = 0.005
PROBE_MIN_S: Final = 0.02
# The peer may talk on and not hear us: each attempt costs a look at all that is sent.
RETRY_MIN_S: Final = 0.05
# Reordering that is taken for loss only after an eighth of a round trip (RFC 9002,
# section 6.1.2).
_REORDERING: Final = 9 / 8


class RoundTrip:
    """The estimates of one path.

    Attributes:
        smoothed_s: the smoothed round trip; None before the first measurement.
        minimum_s: the shortest one.
        backoff: how often T3-rtx expired since something new was acknowledged.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.smoothed_s: float | None = None
        self.minimum_s = float("inf")
        self._latest_s = 0.0
        self._variation_s = 0.0
        self.backoff = 0

    def measured(self, seconds: float) -> None:
        """Take a measurement of a chunk that was sent once (Karn's rule)."""
        self._latest_s = seconds
        self.minimum_s = min(self.minimum_s, seconds)
        if self.smoothed_s is None:
            self.smoothed_s = seconds
            self._variation_s = seconds / 2
        else:
            deviation = abs(self.smoothed_s - seconds)
            self._variation_s += _BETA * (deviation - self._variation_s)
            self.smoothed_s += _ALPHA * (seconds - self.smoothed_s)

    def heard(self) -> None:
        """Something new was acknowledged: the path works."""
        self.backoff = 0

    def timed_out(self) -> None:
        """T3-rtx expired: wait twice as long (section 6.3.3 E2)."""
        self.backoff += 1

    def has_timed_out(self) -> bool:
        """Whether nothing new was acknowledged since T3-rtx expired."""
        return self.backoff > 0

    @property
    def timeout_s(self) -> float:
        """RTO."""
        if self.smoothed_s is None:
            seconds = RTO_INITIAL_S
        else:
            spread = max(4 * self._variation_s, CLOCK_GRAIN_S)
            seconds = max(RTO_MIN_S, self.smoothed_s + spread)
        longest_s = max(RTO_MAX_S, min(seconds, RTO_SLOW_PATH_S))
        return min(longest_s, seconds * (1 << min(self.backoff, MAX_BACKOFF)))

    @property
    def retry_s(self) -> float:
        """How long after a sign of life to send again what had timed out."""
        return max(RETRY_MIN_S, self._expected_s)

    @property
    def probe_s(self) -> float | None:
        """How long after the last packet to ask for an answer; None if unknown."""
        if self.smoothed_s is None:
            return None
        spread = max(4 * self._variation_s, CLOCK_GRAIN_S)
        return max(PROBE_MIN_S, 2 * self.smoothed_s, self.smoothed_s + spread)

    @property
    def loss_delay_s(self) -> float:
        """How much later than another one a packet may arrive, and not be lost."""
        recent = max(self._expected_s, self._latest_s)
        return max(_REORDERING * recent, CLOCK_GRAIN_S)

    @property
    def _expected_s(self) -> float:
        return RTO_INITIAL_S if self.smoothed_s is None else self.smoothed_s
