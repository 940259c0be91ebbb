"""How often SLEAP's side is told of what changes all the time.

Pure pieces with time as an argument, and one that owns a timer of the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from sleap_rtc_plugin.transport.effects import monotonic

__all__ = ["Coalescer", "RateMeter", "Ticker"]

RATE_WINDOW_S: Final = 4.0
MIN_RATE_SPAN_S: Final = 0.3
MAX_SAMPLES: Final = 200


class Ticker:
    """Says whether enough time has passed; from any one thread."""

    def __init__(self, interval_s: float) -> None:
        """Let one pass every `interval_s`."""
        self._interval_s = interval_s
        self._last: float | None = None

    def is_due(self, now: float) -> bool:
        """Whether the next one may pass at `now`, which counts as its passing."""
        if self._last is not None and now - self._last < self._interval_s:
            return False
        self._last = now
        return True


class RateMeter:
    """Bytes per second over the last few seconds."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._samples: deque[tuple[float, int]] = deque(maxlen=MAX_SAMPLES)

    def add(self, now: float, moved_bytes: int) -> None:
        """So many bytes have moved in all at `now`."""
        self._samples.append((now, moved_bytes))
        while now - self._samples[0][0] > RATE_WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """The rate, or 0 while it cannot be told."""
        if len(self._samples) < 2:
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        span = now - began
        return max(0, last - first) / span if span >= MIN_RATE_SPAN_S else 0.0


class Coalescer:
    """Calls a function at most every so often, and never forgets the last time."""

    def __init__(self, interval_s: float, function: Callable[[], None]) -> None:
        """Call `function` on the running event loop."""
        self._interval_s = interval_s
        self._function = function
        self._last = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Call it now, or once the interval is over."""
        wait = self._last + self._interval_s - monotonic()
        if wait <= 0:
            self.now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self.now)

    def now(self) -> None:
        """Call it now."""
        self.cancel()
        self._last = monotonic()
        self._function()

    def cancel(self) -> None:
        """Forget what was to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
