"""PURE: what the room may see of the worker's jobs, in a few hundred bytes each.

No name, file, label or person is in it: the signaling server reads it, and everybody in
the room. `--hide-jobs` leaves it out. Called by the job coordinator.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.messages import Step, TrainStep
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import (
    BOARD_ENDED_S,
    BOARD_INTERVAL_S,
    MAX_BOARD_BYTES,
    MAX_BOARD_JOBS,
)

__all__ = ["JobBoard", "board"]

_RUNNING: Final = frozenset(
    {
        JobState.STARTING,
        JobState.RUNNING,
        JobState.STOPPING,
        JobState.CANCELLING,
        JobState.COLLECTING,
    }
)
# A client chooses the word; these are sleap-nn's, and tell nothing of the data.
_HEADS: Final = frozenset(
    {
        "bottomup",
        "centered_instance",
        "centroid",
        "multi_class_bottomup",
        "multi_class_topdown",
        "single_instance",
    }
)
_ID_CHARS: Final = 8
_LOSS_DIGITS: Final = 4


def board(records: Iterable[JobRecord], now: float) -> list[dict[str, Any]]:
    """Return what is shown: what runs, what waits, what ended a short time ago.

    Args:
        records: all jobs.
        now: Unix time in seconds.
    """
    shown = sorted(
        (record for record in records if _is_shown(record, now)), key=_order
    )[:MAX_BOARD_JOBS]
    rows = [_row(record) for record in shown]
    while rows and len(msgspec.json.encode(rows)) > MAX_BOARD_BYTES:
        rows.pop()
    return rows


class JobBoard:
    """Decides when the room is told anew: on a change, and not too often."""

    def __init__(self) -> None:
        """Begin with nothing told."""
        self._told: Sequence[dict[str, Any]] = []
        self._next_at = 0.0

    def due(
        self, records: Iterable[JobRecord], now: float
    ) -> list[dict[str, Any]] | None:
        """Return what is to be told now, or None where there is nothing to tell.

        Args:
            records: all jobs.
            now: Unix time in seconds.
        """
        # A clock that was set back must not silence the worker.
        if now < self._next_at <= now + BOARD_INTERVAL_S:
            return None
        rows = board(records, now)
        if rows == self._told:
            return None
        self._told, self._next_at = rows, now + BOARD_INTERVAL_S
        return rows


def _is_shown(record: JobRecord, now: float) -> bool:
    if record.state in ENDED:
        return record.ended_at is not None and now - record.ended_at < BOARD_ENDED_S
    return record.state in _RUNNING or record.state is JobState.QUEUED


def _order(record: JobRecord) -> tuple[int, float]:
    """What runs first, then what waits; each in its turn; then the newest ends."""
    if record.state in _RUNNING:
        return 0, record.turn
    if record.state is JobState.QUEUED:
        return 1, record.ticket
    return 2, -(record.ended_at or 0.0)


def _row(record: JobRecord) -> dict[str, Any]:
    steps = record.spec.steps
    index = record.step if record.step is not None else 0
    step = steps[index] if index < len(steps) else steps[-1]
    row: dict[str, Any] = {
        "id": record.job_id.removeprefix("job-")[:_ID_CHARS],
        "state": record.state.value,
        "kind": _kind(step),
        "head": _head(step),
        "step": index,
        "steps": len(steps),
        "since": _since(record),
    }
    if isinstance(step, TrainStep):
        row |= _training(record, index)
    elif record.total:
        row |= {"done": record.done, "total": record.total}
    return {name: value for name, value in row.items() if value is not None}


def _training(record: JobRecord, index: int) -> dict[str, Any]:
    epochs = record.epochs[index] if index < len(record.epochs) else 0
    trail = record.trail
    row: dict[str, Any] = {
        "epoch": record.epoch if record.state is not JobState.QUEUED else None,
        "epochs": epochs or None,
    }
    if trail.step == index and trail.points:
        losses = [float(f"{loss:.{_LOSS_DIGITS}g}") for _, loss in trail.points]
        row |= {"loss": losses[-1], "loss_of": trail.of, "curve": losses}
    return row


def _kind(step: Step) -> str:
    return "train" if isinstance(step, TrainStep) else "predict"


def _head(step: Step) -> str | None:
    is_known = isinstance(step, TrainStep) and step.head in _HEADS
    return step.head if isinstance(step, TrainStep) and is_known else None


def _since(record: JobRecord) -> int:
    """Return when its state began to be what it is, as far as that is known."""
    if record.state in ENDED and record.ended_at is not None:
        return int(record.ended_at)
    if record.state in _RUNNING and record.started_at is not None:
        return int(record.started_at)
    return int(record.created_at)
