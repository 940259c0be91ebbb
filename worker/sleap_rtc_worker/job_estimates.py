"""How long jobs probably take, from those that ended here and from running epochs.

Pure: time is an argument, and what is not known is None, never a guess. Called by the
job coordinator for the places in its queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep

__all__ = ["Ended", "EpochPace", "Shape", "shape_of", "time_left", "typical_duration"]

# Which kinds of step a job has, in their order; jobs of the same shape are alike.
Shape = tuple[bool, ...]
MAX_COMPARED: Final = 20


@dataclass(frozen=True)
class Ended:
    """A job that ended well here, and how long it ran."""

    shape: Shape
    ran_s: float


def shape_of(spec: JobSpec) -> Shape:
    """Return a job's shape."""
    return tuple(isinstance(step, TrainStep) for step in spec.steps)


def typical_duration(shape: Shape, history: Sequence[Ended]) -> float | None:
    """Return how long a job of this shape typically runs, or None.

    Args:
        shape: the job's.
        history: the jobs that ended, the newest first.
    """
    durations = _alike(shape, history)
    return median(durations) if durations else None


class EpochPace:
    """How fast a training goes, from when its epochs were first heard of."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def note(self, epoch: int | None, now: float) -> None:
        """The training is at this epoch; None, or an earlier one, is another training.

        Args:
            epoch: counted from 0.
            now: seconds of a clock that does not jump.
        """
        if epoch is None:
            self._first = self._last = None
        elif self._last is None or epoch < self._last[0]:
            self._first = self._last = (epoch, now)
        elif epoch > self._last[0]:
            self._last = (epoch, now)

    def left_s(self, epochs: int, now: float) -> float | None:
        """Return how long it takes at most until `epochs` are done, or None."""
        if self._first is None or self._last is None or epochs <= 0:
            return None
        done = self._last[0] - self._first[0]
        if done <= 0:
            return None
        pace = (self._last[1] - self._first[1]) / done
        return max(0.0, pace * (epochs - self._last[0]) - (now - self._last[1]))


def time_left(
    shape: Shape,
    history: Sequence[Ended],
    *,
    ran_s: float,
    is_last_step: bool,
    epochs_left_s: float | None,
    limit_s: float | None,
) -> float | None:
    """Return how long a running job probably still runs, or None.

    Args:
        shape: the job's.
        history: the jobs that ended, the newest first.
        ran_s: for how long it has run.
        is_last_step: whether no step follows the one that runs.
        epochs_left_s: how long that step takes at most, by its epochs.
        limit_s: how long a job may run, or None.
    """
    known: list[float] = []
    longer = [d - ran_s for d in _alike(shape, history) if d > ran_s]
    if longer:
        known.append(median(longer))
    if is_last_step and epochs_left_s is not None:
        # The most, since a training may end early.
        known.append(epochs_left_s)
    if limit_s is not None and known:
        known.append(max(0.0, limit_s - ran_s))
    return min(known, default=None)


def _alike(shape: Shape, history: Sequence[Ended]) -> list[float]:
    """Return the durations of the newest jobs of this shape."""
    same = [ended.ran_s for ended in history if ended.shape == shape]
    return same[:MAX_COMPARED]
