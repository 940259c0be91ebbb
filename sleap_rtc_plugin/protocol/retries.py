"""When to try again after something could not be reached, and when to stop.

Pure: time and chance are arguments. Used by whoever keeps on by itself: a job's
course, a submission that waits for its worker, a room that is entered again.
"""

from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    CompanionGone,
    ConnectionFailure,
    FolderInUse,
    PeerIdTaken,
    PeerNotFound,
    PortInUse,
    RateLimited,
    RtcError,
    TransferStalled,
    WorkerAway,
)
from sleap_rtc_plugin.protocol.limits import (
    RETRY_FIRST_S,
    RETRY_MAX_S,
    STEADY_LINK_S,
)

__all__ = ["Retries", "is_passing", "may_enter_again"]

_PASSING: Final = (ConnectionFailure, PeerNotFound, RateLimited, TransferStalled)
# Nothing that waiting mends, or a verdict over attempts that were made already.
_FINAL: Final = (CompanionGone, FolderInUse, PortInUse, WorkerAway)
_MAX_DOUBLINGS: Final = 16


def is_passing(error: RtcError) -> bool:
    """Tell whether another attempt may mend it; all else is the last word."""
    return isinstance(error, _PASSING) and not isinstance(error, _FINAL)


def may_enter_again(error: RtcError) -> bool:
    """Tell whether a client whose stay in a room ended so may come in anew.

    Under a new peer id, so that the old one may still be held for somebody.
    """
    return error.retryable or isinstance(error, PeerIdTaken)


class Retries:
    """The attempts to reach one peer: doubling waits, half of each by chance.

    An outage lasts until a link has held for `STEADY_LINK_S`: one that comes about
    and is lost at once neither resets the waits nor the time that is left.
    """

    def __init__(self, budget_s: float | None = None) -> None:
        """Give up after `budget_s` seconds of one outage, or never."""
        self.budget_s = budget_s
        self._tries = 0
        self._lost_at: float | None = None
        self._linked_at: float | None = None

    def linked(self, now: float) -> None:
        """A link is there, opened just now or still."""
        if self._linked_at is None:
            self._linked_at = now

    def failed(self, now: float, jitter: float) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        Args:
            now: monotonic seconds.
            jitter: a number in [0, 1), by chance.
        """
        if self._linked_at is not None:
            if now - self._linked_at >= STEADY_LINK_S:
                self._tries, self._lost_at = 0, None
            self._linked_at = None
        if self._lost_at is None:
            self._lost_at = now
        ceiling: float = min(RETRY_FIRST_S * 2**self._tries, RETRY_MAX_S)
        delay_s = ceiling * (0.5 + jitter / 2)
        self._tries = min(self._tries + 1, _MAX_DOUBLINGS)
        if self.budget_s is None:
            return delay_s
        left_s = self.budget_s - (now - self._lost_at)
        return min(delay_s, left_s) if left_s > 0 else None
