"""How much of a training's batches and log lines is told, however long it runs.

What is told is journaled, replayed to every client that comes back, and drawn. So it
thins out at its source: numbers stay without gaps, and nothing that a client has seen
is taken away later. Epochs are always told. Pure; asked by the step machine.
"""

from collections import deque
from collections.abc import Iterable

from sleap_rtc_plugin.protocol.limits import (
    MAX_BATCH_EVENTS_PER_S,
    MAX_LOG_LINES_PER_EVENT,
    MAX_LOG_LINES_PER_S,
)
from sleap_rtc_worker.limits import (
    BATCHES_BEFORE_HALF_RATE,
    LOG_CHARS_AT_ONCE,
    LOG_CHARS_PER_S,
    MAX_BATCH_INTERVAL_S,
)

__all__ = ["BatchPace", "LogBudget"]


class BatchPace:
    """When the next batch may be told: seldomer, the more there were.

    Twenty a second at first; half as many each time that so many were told, as
    monitors thin what they draw anyway, and no fewer than one in some seconds.
    """

    def __init__(self) -> None:
        """Begin with a training that has told nothing."""
        self._told = 0
        self._next_at = float("-inf")

    def is_due(self, now: float) -> bool:
        """Tell whether a batch may be told at `now`, in seconds."""
        return now >= self._next_at

    def told(self, now: float) -> None:
        """Count a batch."""
        halvings = self._told // BATCHES_BEFORE_HALF_RATE
        interval_s = 2.0**halvings / MAX_BATCH_EVENTS_PER_S
        self._next_at = now + min(interval_s, MAX_BATCH_INTERVAL_S)
        self._told += 1


class LogBudget:
    """Which lines are told: the first ones, then a trickle, and at the end the last.

    A line that is not told is counted. The last of them wait: where nothing was told
    after them they are what the program said last, and are told at its end.
    """

    def __init__(self) -> None:
        """Begin with an empty log."""
        self._chars = float(LOG_CHARS_AT_ONCE)
        self._filled_at: float | None = None
        self._window_began = float("-inf")
        self._window_lines = 0
        self._waiting: deque[str] = deque()
        self.dropped = 0

    def takes(self, line: str, now: float, *, is_full: bool = False) -> bool:
        """Tell whether a line is told; where not, it is counted or waits.

        Args:
            line: what the program said.
            now: seconds.
            is_full: nothing more may be told at all.
        """
        if self._filled_at is not None:
            earned = (now - self._filled_at) * LOG_CHARS_PER_S
            self._chars = min(self._chars + earned, LOG_CHARS_AT_ONCE)
        self._filled_at = now
        if now - self._window_began >= 1.0:
            self._window_began, self._window_lines = now, 0
        size = len(line) + 1
        too_many = self._window_lines >= MAX_LOG_LINES_PER_S
        if is_full or too_many or self._chars < size:
            self._waiting.append(line)
            if len(self._waiting) > MAX_LOG_LINES_PER_EVENT:
                self._waiting.popleft()
                self.dropped += 1
            return False
        self._window_lines += 1
        self._chars -= size
        self.dropped += len(self._waiting)
        self._waiting.clear()
        return True

    def taken_dropped(self) -> int:
        """Return how many lines were left out since this was last asked."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def last_lines(self) -> Iterable[str]:
        """Return the lines that wait, at the end of the program."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting
