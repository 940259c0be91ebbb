"""What became of a live session's frames, counted, and how long answers took.

Pure: told what happened, it says the figures. Used by `session.live` and shown by the
command `live`.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.protocol.live_messages import LiveInstances, LiveReport

__all__ = ["LatencySamples", "LiveFigures", "Spread", "quantile"]

# Beyond this every other sample is left out, again and again: hours take 2 MiB.
MAX_SAMPLES: Final = 262_144


@dataclass(frozen=True)
class Spread:
    """How values are spread, in milliseconds."""

    min: float
    median: float
    p95: float
    p99: float
    max: float

    def as_json(self) -> dict[str, float]:
        """Return it for a line of JSON."""
        names = ("min", "median", "p95", "p99", "max")
        return {name: round(getattr(self, name), 2) for name in names}


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which `part` of sorted values lie (the nearest rank)."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class LatencySamples:
    """Times in milliseconds: of a long session evenly thinned ones."""

    def __init__(self, most: int = MAX_SAMPLES) -> None:
        """Keep `most` of them."""
        self._most = most
        self._values = array("d")
        self._stride = 1
        self._seen = 0
        self._min = float("inf")
        self._max = 0.0

    def add(self, value_ms: float) -> None:
        """Note one."""
        self._min, self._max = min(self._min, value_ms), max(self._max, value_ms)
        if self._seen % self._stride == 0:
            self._values.append(value_ms)
        self._seen += 1
        if len(self._values) > self._most:
            self._values = self._values[::2]
            self._stride *= 2

    @property
    def values_ms(self) -> list[float]:
        """Return what was kept."""
        return list(self._values)

    def spread(self) -> Spread | None:
        """Return how they are spread; None where there are none."""
        if not self._seen:
            return None
        ordered = sorted(self._values)
        return Spread(
            min=self._min,
            median=quantile(ordered, 0.5),
            p95=quantile(ordered, 0.95),
            p99=quantile(ordered, 0.99),
            max=self._max,
        )


class LiveFigures:
    """The figures of one live session.

    Attributes:
        taken: frames that the camera or video gave.
        missed: frames whose time passed while the one before was read.
        dropped: frames that a newer one replaced before they were sent.
        sent: frames that were sent.
        answered: frames whose instances came back.
        report: what the worker counted, once it said so.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.taken = 0
        self.missed = 0
        self.dropped = 0
        self.sent = 0
        self.answered = 0
        self.sent_bytes = 0
        self.report: LiveReport | None = None
        self.latency = LatencySamples()
        self.waited = LatencySamples()
        self.predicted = LatencySamples()
        self._first_at: float | None = None
        self._last_at = 0.0

    def answer(self, found: LiveInstances, now: float) -> float:
        """Count an answer that came at `now`, seconds of the clock of `taken_us`.

        Returns:
            How long it took since the frame was taken, in milliseconds.
        """
        latency_ms = max(0.0, now * 1_000 - found.taken_us / 1_000)
        self.answered += 1
        self.latency.add(latency_ms)
        self.waited.add(found.waited_us / 1_000)
        self.predicted.add(found.predicted_us / 1_000)
        if self._first_at is None:
            self._first_at = now
        self._last_at = now
        return latency_ms

    @property
    def answered_per_s(self) -> float:
        """Answers a second, from the first to the last."""
        if self._first_at is None or self._last_at <= self._first_at:
            return 0.0
        return (self.answered - 1) / (self._last_at - self._first_at)

    @property
    def superseded(self) -> int | None:
        """Frames that a newer one replaced at the worker; None while unknown."""
        return self.report.superseded if self.report is not None else None

    @property
    def lost(self) -> int | None:
        """Frames and answers that were lost on the way; None while unknown."""
        report = self.report
        if report is None:
            return None
        there = max(0, self.sent - report.received)
        return there + max(0, report.predicted - self.answered)

    @property
    def drop_rate(self) -> float:
        """The part of all frames that have no answer."""
        every = self.taken + self.missed
        return 1 - self.answered / every if every else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a line of JSON."""
        spreads = {
            "latency_ms": self.latency.spread(),
            "waited_ms": self.waited.spread(),
            "predicted_ms": self.predicted.spread(),
        }
        return {
            "taken": self.taken,
            "missed": self.missed,
            "dropped": self.dropped,
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "lost": self.lost,
            "superseded": self.superseded,
            "answered": self.answered,
            "drop_rate": round(self.drop_rate, 4),
            "answered_per_s": round(self.answered_per_s, 2),
            **{name: it.as_json() if it else None for name, it in spreads.items()},
        }
