"""What a page shows of the peers of a room: values in, values out.

A peer wrote its metadata, so every value is checked for its type, bounded and cleaned,
and what does not fit is left out. No template decides anything. Called by the pages.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from markupsafe import Markup
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.signaling_messages import PeerInfo
from sleap_rtc_signaling.dashboard.drawings import number_words, sparkline
from sleap_rtc_signaling.limits import (
    MAX_CURVE_POINTS_SHOWN,
    MAX_ENDED_JOBS_SHOWN,
    MAX_JOBS_READ_PER_WORKER,
    MAX_JOBS_SHOWN,
)

__all__ = [
    "JobView",
    "MemoryView",
    "RoomView",
    "State",
    "WorkerView",
    "duration_words",
    "left_words",
    "moment",
    "room_view",
    "size_words",
]

_MAX_COUNT: Final = 2**53 - 1
_MIB_PER_GIB: Final = 1024
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400

Count = Annotated[int, Meta(ge=0, le=_MAX_COUNT)]


@dataclass(frozen=True)
class State:
    """A state in a word and a shape.

    Attributes:
        word: what it is called.
        shape: the symbol of the page that stands before it.
        tone: which colour it has beside that: `good`, `busy`, `bad` or `quiet`.
    """

    word: str
    shape: str
    tone: str


_WORKER_STATES: Final[Mapping[str, State]] = {
    "available": State("Available", "disc", "good"),
    "busy": State("Busy", "half", "busy"),
    "starting": State("Starting", "ring", "quiet"),
    "closing": State("Closing", "cross", "quiet"),
}
_UNKNOWN: Final = State("Unknown", "ring", "quiet")

_JOB_STATES: Final[Mapping[JobState, State]] = {
    JobState.SUBMITTED: State("Submitted", "ring", "quiet"),
    JobState.STAGING: State("Receiving files", "ring", "quiet"),
    JobState.QUEUED: State("Waiting", "bars", "quiet"),
    JobState.STARTING: State("Starting", "ring", "busy"),
    JobState.RUNNING: State("Running", "play", "good"),
    JobState.STOPPING: State("Stopping", "half", "busy"),
    JobState.CANCELLING: State("Cancelling", "half", "busy"),
    JobState.COLLECTING: State("Collecting results", "half", "busy"),
    JobState.SUCCEEDED: State("Succeeded", "tick", "good"),
    JobState.FAILED: State("Failed", "cross", "bad"),
    JobState.CANCELLED: State("Cancelled", "dash", "quiet"),
    JobState.REJECTED: State("Refused", "cross", "bad"),
    JobState.LOST: State("Lost", "cross", "bad"),
}

_HEADS: Final = {
    "bottomup": "bottom-up",
    "centered_instance": "centered instance",
    "centroid": "centroid",
    "multi_class_bottomup": "bottom-up with classes",
    "multi_class_topdown": "top-down with classes",
    "single_instance": "single instance",
}


class _JobRow(Struct, frozen=True):
    """A job as a worker's metadata has it (PROTOCOL.md, "Metadata and filters")."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{1,20}\Z")]
    state: JobState
    kind: Literal["train", "predict"]
    since: Annotated[float, Meta(ge=0, le=_MAX_COUNT)]
    head: Annotated[str, Meta(max_length=64)] = ""
    step: Count = 0
    steps: Count = 1
    epoch: Count | None = None
    epochs: Count | None = None
    loss: float | None = None
    loss_of: Literal["val", "train"] = "train"
    curve: Annotated[list[float], Meta(max_length=MAX_CURVE_POINTS_SHOWN)] = []
    done: Count = 0
    total: Count = 0


@dataclass(frozen=True)
class MemoryView:
    """A GPU's memory: `used_percent` is drawn where it is known, `words` are said."""

    used_percent: float | None
    words: str


@dataclass(frozen=True)
class WorkerView:
    """A worker in one row."""

    peer_id: str
    name: str
    state: State
    gpu: str
    memory: MemoryView | None
    running: str
    waiting: str
    version: str


@dataclass(frozen=True)
class JobView:
    """A job in one row.

    Attributes:
        percent: how far the step is, or None where that is not known.
        at: when it began or ended, for the machine; `ago` says it.
    """

    id: str
    worker: str
    title: str
    step: str
    state: State
    progress: str
    percent: float | None
    loss: str
    loss_of: str
    spark: Markup
    at: str
    ago: str


@dataclass(frozen=True)
class RoomView:
    """What a room's page shows live; `left_out` jobs did not fit."""

    workers: Sequence[WorkerView]
    jobs: Sequence[JobView]
    ended: Sequence[JobView]
    clients: int
    left_out: int


def room_view(peers: Iterable[PeerInfo], now: float) -> RoomView:
    """Return what there is to see of a room.

    Args:
        peers: who is in it.
        now: Unix time in seconds.
    """
    workers: list[WorkerView] = []
    live: list[tuple[float, JobView]] = []
    ended: list[tuple[float, JobView]] = []
    clients = 0
    for peer in peers:
        if peer.role != "worker":
            clients += 1
            continue
        worker = _worker(peer)
        workers.append(worker)
        for row in _rows(peer.metadata.properties.get("jobs")):
            found = ended if row.state in ENDED else live
            found.append((row.since, _job(row, worker.name, now)))
    workers.sort(key=lambda worker: (worker.name.casefold(), worker.peer_id))
    # What runs keeps its place in the list while it runs.
    live.sort(key=lambda pair: (pair[1].state.word == "Waiting", pair[0], pair[1].id))
    ended.sort(key=lambda pair: (-pair[0], pair[1].id))
    return RoomView(
        workers=workers,
        jobs=[job for _, job in live[:MAX_JOBS_SHOWN]],
        ended=[job for _, job in ended[:MAX_ENDED_JOBS_SHOWN]],
        clients=clients,
        left_out=max(0, len(live) - MAX_JOBS_SHOWN),
    )


def duration_words(seconds: float) -> str:
    """Say how long something takes; by the minute, so that a page stays calm."""
    if seconds < _MINUTE_S:
        return "under a minute"
    if seconds < _HOUR_S:
        return f"{int(seconds // _MINUTE_S)} min"
    if seconds < _DAY_S:
        hours, rest = divmod(int(seconds), _HOUR_S)
        return f"{hours} h {rest // _MINUTE_S:02d} min"
    days = int(seconds // _DAY_S)
    return "1 day" if days == 1 else f"{days} days"


def left_words(seconds: float) -> str:
    """Say how much time is left; what was a week a moment ago is still one."""
    return duration_words(seconds + _MINUTE_S - 1)


def moment(at: float) -> str:
    """Return a time for the machine (RFC 3339, UTC)."""
    return datetime.fromtimestamp(min(at, 253_402_300_799), UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def size_words(size_bytes: float) -> str:
    """Say a size in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < _MIB_PER_GIB:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _MIB_PER_GIB
    return f"{size_bytes:.1f} TiB"


# -- workers ---------------------------------------------------------------------


def _worker(peer: PeerInfo) -> WorkerView:
    values = peer.metadata.properties
    state = values.get("status")
    running = _count(values, "running_jobs") or 0
    slots = _count(values, "slots") or 1
    return WorkerView(
        peer_id=peer.peer_id,
        name=_text(values, "name") or peer.peer_id,
        state=_WORKER_STATES.get(state, _UNKNOWN)
        if isinstance(state, str)
        else _UNKNOWN,
        gpu=_gpu(values),
        memory=_memory(values),
        running=f"{running:,} of {slots:,}",
        waiting=f"{_count(values, 'queue_length') or 0:,}",
        version=_text(values, "sleap_nn_version") or "not installed",
    )


def _gpu(values: Mapping[str, Any]) -> str:
    model = _text(values, "gpu_model")
    count = _count(values, "gpu_count") or 0
    if model:
        return f"{model}, {count} of them" if count > 1 else model
    return "none (CPU)" if values.get("device") == "cpu" else "not known"


def _memory(values: Mapping[str, Any]) -> MemoryView | None:
    total = _count(values, "gpu_memory_mb")
    if not total:
        return None
    free = _count(values, "gpu_memory_free_mb")
    total_gib = total / _MIB_PER_GIB
    if free is None:
        return MemoryView(None, f"{total_gib:.1f} GiB")
    free = min(free, total)
    words = f"{free / _MIB_PER_GIB:.1f} of {total_gib:.1f} GiB free"
    return MemoryView(100 * (total - free) / total, words)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return clean_text(value) if isinstance(value, str) else ""


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MAX_COUNT else None


# -- jobs ------------------------------------------------------------------------


def _rows(value: object) -> list[_JobRow]:
    if not isinstance(value, list):
        return []
    rows: list[_JobRow] = []
    for item in value[:MAX_JOBS_READ_PER_WORKER]:
        try:
            rows.append(msgspec.convert(item, _JobRow))
        except msgspec.ValidationError:
            continue
    return rows


def _job(row: _JobRow, worker: str, now: float) -> JobView:
    is_training = row.kind == "train"
    head = _HEADS.get(row.head, "")
    progress, percent = _training(row) if is_training else _predicting(row)
    is_over = row.state in ENDED
    ago = duration_words(max(0.0, now - row.since))
    return JobView(
        id=row.id,
        worker=worker,
        title=(f"Training, {head}" if head else "Training")
        if is_training
        else "Prediction",
        step=f"step {min(row.step + 1, row.steps):,} of {row.steps:,}"
        if row.steps > 1
        else "",
        state=_JOB_STATES[row.state],
        progress=progress,
        percent=None if is_over else percent,
        loss=number_words(row.loss)
        if row.loss is not None and math.isfinite(row.loss)
        else "",
        loss_of="validation" if row.loss_of == "val" else "training",
        spark=sparkline([loss for loss in row.curve if math.isfinite(loss)]),
        at=moment(row.since),
        ago=f"{ago} ago" if is_over else f"for {ago}",
    )


def _training(row: _JobRow) -> tuple[str, float | None]:
    if row.epoch is None:
        return "", None
    done = row.epoch + 1
    if not row.epochs:
        return f"epoch {done:,}", None
    return f"epoch {done:,} of {row.epochs:,}", min(100.0, 100 * done / row.epochs)


def _predicting(row: _JobRow) -> tuple[str, float | None]:
    if not row.total:
        return "", None
    percent = min(100.0, 100 * row.done / row.total)
    return f"{row.done:,} of {row.total:,} frames", percent
