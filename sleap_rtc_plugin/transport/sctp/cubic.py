"""How a window grows and shrinks once the rate of the path is known: CUBIC (RFC 9438).

The growth depends on the time since the last loss and not on the round trip: slow near
the window at which it was lost, fast far from it. Halving and one packet more in a
round trip, as in RFC 9260, needs minutes to get back to 400 Mbit/s at 80 ms. Pure, time
is an argument; asked by `loss_based`.
"""

__all__ = ["Cubic"]

BETA = 0.7
"""What is left of the window after a loss."""

SCALE_PACKETS_PER_S3 = 0.4
RENO_GROWTH = 3 * (1 - BETA) / (1 + BETA)
MAX_GROWTH_PER_ROUND = 1.5


class Cubic:
    """The window as a function of time, in bytes; it begins again with each loss."""

    __slots__ = (
        "_began_at",
        "_peak_bytes",
        "_plateau_bytes",
        "_plateau_s",
        "_reno_bytes",
        "packet_bytes",
    )

    def __init__(self, packet_bytes: int) -> None:
        """Know no loss yet; `packet_bytes` of user data are in a full packet."""
        self.packet_bytes = packet_bytes
        self._began_at: float | None = None
        self._peak_bytes = 0.0
        self._plateau_bytes = 0.0
        self._plateau_s = 0.0
        self._reno_bytes = 0.0

    def reduce(self, window_bytes: float) -> float:
        """Return what is left of a window after a loss (sections 4.6 and 4.7).

        A flow that is not back yet where it was gives room to others (fast
        convergence).
        """
        peak_bytes = window_bytes
        if window_bytes < self._peak_bytes:
            peak_bytes *= (1 + BETA) / 2
        self.aim(peak_bytes)
        return window_bytes * BETA

    def aim(self, peak_bytes: float) -> None:
        """Grow towards a window, and slowly there; beyond it only after a while."""
        self._peak_bytes = peak_bytes
        self._began_at = None

    def pause(self, seconds: float) -> None:
        """Let a time not count in which the window was not the limit (section 5.8)."""
        if self._began_at is not None:
            self._began_at += seconds

    def grow(
        self, now: float, window_bytes: float, acked_bytes: int, rtt_s: float
    ) -> float:
        """Return the window after an acknowledgement (sections 4.2 to 4.5)."""
        scale = SCALE_PACKETS_PER_S3 * self.packet_bytes
        if self._began_at is None:
            self._began_at = now
            self._plateau_bytes = max(self._peak_bytes, window_bytes)
            missing_bytes = self._plateau_bytes - window_bytes
            self._plateau_s = (missing_bytes / scale) ** (1 / 3)
            self._reno_bytes = window_bytes
        share = min(1.0, acked_bytes / window_bytes)
        since_s = now - self._began_at + rtt_s - self._plateau_s
        aim_bytes = self._plateau_bytes + scale * since_s * since_s * since_s
        aim_bytes = min(aim_bytes, window_bytes * MAX_GROWTH_PER_ROUND)
        growth = RENO_GROWTH if self._reno_bytes < self._peak_bytes else 1.0
        self._reno_bytes += growth * self.packet_bytes * share
        if aim_bytes > window_bytes:
            window_bytes += (aim_bytes - window_bytes) * share
        return max(window_bytes, self._reno_bytes)
