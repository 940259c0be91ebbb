"""What a worker's owner allows jobs to take, and whose files go when it is too much.

Pure: time is an argument; the `ResultKeeper` measures and removes.

    may go        when
    fetched       the promised time is over, or room is needed
    not fetched   the promised time is over and room is needed
    held          never: somebody reads them now
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sleap_rtc_plugin.protocol.limits import MAX_JOBS_QUEUED
from sleap_rtc_worker.limits import KEEP_RESULTS_S

__all__ = ["JobLimits", "Kept", "due", "room_makers"]


@dataclass(frozen=True)
class JobLimits:
    """What the worker's owner allows.

    Attributes:
        max_waiting: jobs that may wait.
        max_runtime_s: for how long a job may run, or None.
        disk_quota_bytes: what the files of all jobs may take, or None.
        keep_results_s: for how long results that nobody fetched are kept at least.
    """

    max_waiting: int = MAX_JOBS_QUEUED
    max_runtime_s: float | None = None
    disk_quota_bytes: int | None = None
    keep_results_s: float = KEEP_RESULTS_S


@dataclass(frozen=True)
class Kept:
    """The files of a job that has ended.

    Attributes:
        size_bytes: what they take.
        ended_at: Unix seconds.
        expires_at: until when they were promised to be kept.
        is_fetched: a client has all there is to fetch.
        is_held: somebody reads them now.
    """

    job_id: str
    size_bytes: int
    ended_at: float
    expires_at: float
    is_fetched: bool
    is_held: bool = False


def due(kept: Sequence[Kept], now: float) -> list[str]:
    """Return the jobs whose files go although no room is needed.

    Args:
        kept: the files of every job that has ended.
        now: Unix seconds.
    """
    return [
        job.job_id
        for job in kept
        if job.is_fetched and not job.is_held and now >= job.expires_at
    ]


def room_makers(
    kept: Sequence[Kept], now: float, missing_bytes: int
) -> list[str] | None:
    """Return the fewest oldest jobs whose files make so much room, fetched ones first.

    Args:
        kept: the files of every job that has ended.
        now: Unix seconds.
        missing_bytes: how much room is needed.

    Returns:
        The jobs, or None where all that may go is not enough: then nothing goes.
    """
    may_go = [
        job
        for job in kept
        if not job.is_held and (job.is_fetched or now >= job.expires_at)
    ]
    may_go.sort(key=lambda job: (not job.is_fetched, job.ended_at, job.job_id))
    chosen: list[str] = []
    for job in may_go:
        if missing_bytes <= 0:
            break
        if job.size_bytes > 0:
            chosen.append(job.job_id)
            missing_bytes -= job.size_bytes
    return chosen if missing_bytes <= 0 else None
