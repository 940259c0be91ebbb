"""Keeps the files of jobs within what the worker's owner allows.

Measures them, says whether a new job fits, and removes what `retention` lets go. A
removal is journaled before the first file goes, so that nobody is offered half of the
results; what a crash left over of one is removed later. Made by the job coordinator.
"""

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping

from sleap_rtc_plugin.protocol.errors import QuotaExceeded, RtcError, StorageFailed
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import FREE_SPACE_FACTOR, GIB
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.limits import FETCHED_GRACE_S, FORGET_AFTER_S
from sleap_rtc_worker.retention import JobLimits, Kept, due, room_makers

__all__ = ["ResultKeeper"]

logger = logging.getLogger(__name__)

# Their files go at once when they end; what is left of them is a crash's.
_WITHOUT_FILES = (JobState.CANCELLED, JobState.REJECTED)


class ResultKeeper:
    """The files of one worker's jobs, all together.

    Args:
        jobs: every job by its id; those that are forgotten leave it.
        tools: what jobs are run with.
        limits: what the owner allows.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        jobs: MutableMapping[str, JobRun],
        tools: StepTools,
        limits: JobLimits,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._tools = tools
        self._limits = limits
        self._wall_clock = wall_clock
        self._active_bytes: dict[str, int] = {}
        self._clean: set[str] = set()
        self._removing: set[asyncio.Task[None]] = set()

    # -- room for a new job ------------------------------------------------------------

    def refusal(self, package_bytes: int) -> RtcError | None:
        """Say why a package of so many bytes does not fit, or None where it does."""
        if self._room_makers(package_bytes) is not None:
            return None
        quota = self._limits.disk_quota_bytes
        if quota is None or self._over_quota(package_bytes) <= 0:
            return self._tools.files.space_fault(package_bytes)
        return QuotaExceeded(
            worker=self._tools.worker_name,
            needed=_gib(int(package_bytes * FREE_SPACE_FACTOR)),
            free=_gib(max(0, quota - self.used_bytes)),
        )

    def make_room(self, package_bytes: int) -> None:
        """Let go of what has to go for a package that was not refused."""
        for job_id in self._room_makers(package_bytes) or ():
            self._remove(self._jobs[job_id])

    async def settle(self) -> None:
        """Wait until what was let go is gone."""
        await asyncio.gather(*self._removing, return_exceptions=True)

    @property
    def used_bytes(self) -> int:
        """What the files of all jobs take, and those of running ones will at least."""
        return sum(self._taken(run) for run in self._jobs.values())

    def expires_at(self, run: JobRun) -> float | None:
        """Return until when a job's results are kept, Unix seconds, or None."""
        if not run.has_ended or not run.has_results:
            return None
        return self._kept_until(run)

    def _kept_until(self, run: JobRun) -> float:
        """Return until when a job's files are kept where no room is needed.

        Those of a job that made no results too: its checkpoints may be hours of work,
        which whoever runs the worker can still rescue.
        """
        return (run.record.ended_at or 0.0) + self._limits.keep_results_s

    # -- from time to time -------------------------------------------------------------

    async def tend(self) -> None:
        """Measure what is new, remove what is due, and forget what is long gone."""
        for run in list(self._jobs.values()):
            await self._measure(run)
        now = self._wall_clock()
        for job_id in due(self._kept(), now):
            self._remove(self._jobs[job_id])
        await self.settle()
        for run in list(self._jobs.values()):
            self._forget(run, now)

    async def _measure(self, run: JobRun) -> None:
        files, job_id = self._tools.files, run.job_id
        if run.has_ended:
            self._active_bytes.pop(job_id, None)
            if run.record.removed_at is not None or run.state in _WITHOUT_FILES:
                await self._clean_up(run)
            elif run.record.size_bytes == 0:
                run.note(size_bytes=await in_thread(None, files.size_bytes, job_id))
        else:
            size_bytes = await in_thread(None, files.size_bytes, job_id)
            self._active_bytes[job_id] = size_bytes

    async def _clean_up(self, run: JobRun) -> None:
        """Remove what a crash left of a job whose files are gone."""
        if run.job_id in self._clean:
            return
        await self._discard(run)
        if not await in_thread(None, self._tools.files.has_files, run.job_id):
            self._clean.add(run.job_id)

    def _forget(self, run: JobRun, now: float) -> None:
        """Take a job off the lists that ended long ago and has left nothing."""
        record = run.record
        gone_at = record.removed_at
        if run.state in _WITHOUT_FILES:
            gone_at = record.ended_at
        if (
            gone_at is None
            or not run.has_ended
            or now - gone_at < FORGET_AFTER_S
            or run.is_watched
            or run.job_id not in self._clean
        ):
            return
        try:
            self._tools.journal.forget(run.job_id)
        except StorageFailed as error:
            logger.warning("%s", error)
        else:
            del self._jobs[run.job_id]
            self._clean.discard(run.job_id)

    # -- removing ----------------------------------------------------------------------

    def _remove(self, run: JobRun) -> None:
        logger.info("The files of the job %s are removed", run.job_id)
        run.note(removed_at=self._wall_clock())
        task = asyncio.get_running_loop().create_task(self._discard(run))
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _discard(self, run: JobRun) -> None:
        try:
            await in_thread(None, self._tools.files.discard, run.job_id)
        except StorageFailed as error:
            # Tried again the next time.
            logger.warning("%s", error)

    # -- sums --------------------------------------------------------------------------

    def _room_makers(self, package_bytes: int) -> list[str] | None:
        missing = max(
            self._over_quota(package_bytes),
            self._tools.files.missing_bytes(package_bytes),
        )
        if missing <= 0:
            return []
        return room_makers(self._kept(), self._wall_clock(), missing)

    def _over_quota(self, package_bytes: int) -> int:
        quota = self._limits.disk_quota_bytes
        if quota is None:
            return 0
        return self.used_bytes + int(package_bytes * FREE_SPACE_FACTOR) - quota

    def _taken(self, run: JobRun) -> int:
        record = run.record
        if run.state in _WITHOUT_FILES or record.removed_at is not None:
            return 0
        measured = max(record.size_bytes, self._active_bytes.get(run.job_id, 0))
        if run.has_ended and record.size_bytes > 0:
            return record.size_bytes
        return max(measured, int(record.package_bytes * FREE_SPACE_FACTOR))

    def _kept(self) -> list[Kept]:
        now = self._wall_clock()
        return [
            Kept(
                job_id=run.job_id,
                size_bytes=self._taken(run),
                ended_at=run.record.ended_at or 0.0,
                expires_at=self._kept_until(run),
                is_fetched=_is_fetched(run, now),
                is_held=run.is_held,
            )
            for run in self._jobs.values()
            if run.has_ended
            and run.state not in _WITHOUT_FILES
            and run.record.removed_at is None
        ]


def _is_fetched(run: JobRun, now: float) -> bool:
    fetched_at = run.record.fetched_at
    if fetched_at is None:
        return not run.has_results
    return now - fetched_at >= FETCHED_GRACE_S


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
