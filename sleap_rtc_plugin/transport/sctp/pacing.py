"""How much may be sent at once so that a pace is kept, and when to go on.

Pure: a bucket of credit that fills with time. Asked by `transport.sctp.sender`.
"""

from typing import Final

__all__ = ["Pacer"]

# Timers are this late anyhow: what is paced goes out in portions of that time.
PORTION_S: Final = 0.001
MAX_CREDIT_S: Final = 0.004
MIN_CREDIT_CHUNKS: Final = 4
UNPACED_BYTES: Final = 1 << 62


class Pacer:
    """Credit in bytes.

    Attributes:
        next_at: when there is credit again; None where nothing waits for it.
    """

    def __init__(self) -> None:
        """Begin without credit."""
        self.next_at: float | None = None
        self._credit_bytes = 0.0
        self._filled_at = 0.0

    def credit(self, pace: float | None, chunk_bytes: int, now: float) -> int:
        """Return how many bytes may be sent now.

        Args:
            pace: bytes per second; None for no bound.
            chunk_bytes: what a full packet carries.
            now: in seconds.
        """
        if pace is None:
            return UNPACED_BYTES
        most = max(pace * MAX_CREDIT_S, MIN_CREDIT_CHUNKS * chunk_bytes)
        gained = pace * max(0.0, now - self._filled_at)
        self._credit_bytes = min(most, self._credit_bytes + gained)
        self._filled_at = now
        return int(self._credit_bytes)

    def spend(
        self, pace: float | None, sent_bytes: int, *, has_more: bool, now: float
    ) -> None:
        """Take what was sent off the credit, and note when to go on with the rest."""
        self.next_at = None
        if pace is None:
            return
        self._credit_bytes -= sent_bytes
        if self._credit_bytes < 1 and has_more:
            wait_s = (1 - self._credit_bytes) / pace
            self.next_at = now + max(PORTION_S, wait_s)
