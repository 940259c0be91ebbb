"""Whether a peer can still be at the other end, judged from two clocks.

A computer that sleeps stops the monotonic clock on most systems, so silence alone
shows nothing when it wakes up. The wall clock went on: where it ran ahead by as much
as a peer waits for a sign of life, every peer has let go of us. Pure; asked by links
and by the signaling client every few seconds.
"""

from sleap_rtc_plugin.protocol.limits import KEEP_ALIVE_TIMEOUT_S

__all__ = ["Liveness", "Sleep"]


class Sleep:
    """Notices that this computer slept.

    A wall clock that is set forward looks the same; that costs a reconnection.
    """

    def __init__(self, *, wall: float, now: float) -> None:
        """Begin at `wall` (Unix seconds) and `now` (monotonic seconds)."""
        self._wall, self._now = wall, now

    def was(self, *, wall: float, now: float) -> bool:
        """Tell whether it slept since the last look, longer than peers wait."""
        ahead_s = (wall - self._wall) - (now - self._now)
        self._wall, self._now = wall, now
        return ahead_s >= KEEP_ALIVE_TIMEOUT_S


class Liveness:
    """What is known of one peer's being there."""

    def __init__(self, *, wall: float, now: float) -> None:
        """It was there at `wall` (Unix seconds) and `now` (monotonic seconds)."""
        self._sleep = Sleep(wall=wall, now=now)
        self._heard_at = now

    def heard(self, now: float) -> None:
        """Something came from it."""
        self._heard_at = now

    def loss(self, *, wall: float, now: float) -> str | None:
        """Return why it must be taken for lost, in words for a log, or None."""
        if self._sleep.was(wall=wall, now=now):
            return "this computer slept"
        if now - self._heard_at > KEEP_ALIVE_TIMEOUT_S:
            return "it stopped answering"
        return None
