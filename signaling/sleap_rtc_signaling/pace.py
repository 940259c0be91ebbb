"""PURE: how fast bytes may pass, with time as an argument.

A relay has one for each direction, and all of them share one more. A `Pace` never
refuses: it says how long what was read must wait, and whoever waits reads no further.
Called by the relay service.
"""

__all__ = ["Pace"]


class Pace:
    """A rate with a burst.

    Args:
        bytes_per_s: the rate that holds in the long run.
        burst_bytes: how much may pass at once after a pause.
    """

    def __init__(self, bytes_per_s: float, burst_bytes: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst_s = burst_bytes / bytes_per_s
        # When everything taken so far would have passed at the rate alone.
        self._level_at: float | None = None

    def take(self, size_bytes: int, now: float) -> float:
        """Take `size_bytes`, and say how long they must wait.

        Args:
            size_bytes: how much is to pass.
            now: monotonic time, in seconds.

        Returns:
            Seconds; 0.0 where it may pass at once. Whoever takes next waits longer,
            so those who share a pace pass in the order of taking.
        """
        empty_at = now - self._burst_s
        level_at = empty_at if self._level_at is None else self._level_at
        self._level_at = max(level_at, empty_at) + size_bytes / self._bytes_per_s
        return max(0.0, self._level_at - now)
