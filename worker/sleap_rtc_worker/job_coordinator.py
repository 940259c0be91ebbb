"""Which jobs this worker has, which runs next, and whether a new one is taken.

Fair turns over a number of slots (`job_queue`), within what the worker's owner allows
(`retention`). Called by each client's link service and by the worker's root; the jobs
themselves are `JobRun`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from sleap_rtc_plugin.protocol.errors import (
    JobConflict,
    JobUnknown,
    QueueShareUsed,
    RemoteProtocolError,
    RtcError,
    TrainerMissing,
    TransferTakenOver,
    WorkerBusy,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_JOB_PAGE_BYTES,
    MAX_JOBS_PER_PAGE,
    STAGING_IDLE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.messages import FileMeta, JobSubmit, JobSummary
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.gpu_slots import Slot
from sleap_rtc_worker.job_queue import has_share
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.job_turns import WAITING, JobTurns, user_of
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import JOBS_WATCH_S, KEEPING_INTERVAL_S, PLACES_REFRESH_S
from sleap_rtc_worker.package_check import check_package, check_spec
from sleap_rtc_worker.result_keeper import ResultKeeper
from sleap_rtc_worker.retention import JobLimits
from sleap_rtc_worker.state_manager import StateManager

__all__ = ["JobCoordinator"]

logger = logging.getLogger(__name__)


class JobCoordinator:
    """Every job of one worker."""

    def __init__(
        self,
        *,
        tools: StepTools,
        state: StateManager,
        can_train: bool,
        slots: Sequence[Slot] = (Slot(),),
        limits: JobLimits | None = None,
        mounts: Sequence[Path] = (),
        on_ended: Callable[[JobRun], None] = lambda run: None,
    ) -> None:
        """Take up the journal's jobs; nothing runs before `resume`.

        Args:
            tools: what jobs are run with.
            state: told how much there is to do.
            can_train: whether sleap-nn is there at all.
            slots: room for so many jobs at once.
            limits: what the worker's owner allows.
            mounts: folders in which videos of labels may lie.
            on_ended: told of every job that reaches an end.
        """
        self._tools = tools
        self._state = state
        self._can_train = can_train
        self._limits = limits or JobLimits()
        self._mounts = mounts
        self._on_ended = on_ended
        self._jobs: dict[str, JobRun] = {}
        self._staging: dict[str, asyncio.Task[None]] = {}
        for record in tools.journal.jobs():
            self._jobs[record.job_id] = JobRun(record, tools, self._changed)
        self._turns = JobTurns(self._jobs, slots, self._limits)
        self._keeper = ResultKeeper(self._jobs, tools, self._limits)
        self._watch: asyncio.Task[None] | None = None
        for run in self._jobs.values():
            run.expires_at = self._keeper.expires_at(run)

    @property
    def has_jobs(self) -> bool:
        """Whether there is work or its results, whoever may reach us just now."""
        return bool(self._jobs)

    async def resume(self) -> None:
        """Go on with what a worker before us left behind."""
        for run in list(self._jobs.values()):
            if not run.has_ended:
                self._turns.follow(run)
                await run.resume()
        self._grant_slots()
        self._watch = asyncio.get_running_loop().create_task(self._watch_jobs())

    async def close(self) -> None:
        """Let go of every job; runners go on and can be adopted later."""
        tasks = list(self._staging.values())
        if self._watch is not None:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._turns.close()
        await self._keeper.settle()
        for run in self._jobs.values():
            await run.close()

    # -- looking up ------------------------------------------------------------------

    def find(self, job_id: str) -> JobRun:
        """Return a job.

        Raises:
            JobUnknown: there is none of that id.
        """
        run = self._jobs.get(job_id)
        if run is None:
            raise JobUnknown(job_id=job_id)
        return run

    def page(self, after: str | None) -> tuple[list[JobSummary], bool]:
        """Return a page of the jobs, the newest first, and whether more follow.

        Args:
            after: the last job of the page before, or None for the first page.

        Raises:
            JobUnknown: there is no job `after`.
        """
        runs = sorted(
            self._jobs.values(),
            key=lambda run: (run.record.created_at, run.job_id),
            reverse=True,
        )
        if after is not None:
            runs = runs[runs.index(self.find(after)) + 1 :]
        page: list[JobSummary] = []
        size_bytes = 0
        for run in runs[:MAX_JOBS_PER_PAGE]:
            summary = run.summary()
            size_bytes += len(msgspec.json.encode(summary))
            if page and size_bytes > MAX_JOB_PAGE_BYTES:
                break
            page.append(summary)
        return page, len(page) < len(runs)

    @property
    def queue_length(self) -> int:
        """How many jobs wait for a slot."""
        return sum(run.state is JobState.QUEUED for run in self._jobs.values())

    def refusal(self, package_bytes: int, user: str | None = None) -> RtcError | None:
        """Say why a new job would not be taken now, or None where it would.

        Args:
            package_bytes: the size of its package.
            user: whose job it is (`job_turns.user_of`), or None where nobody said.
        """
        if not self._can_train:
            return TrainerMissing(worker=self._state.name)
        if not self._state.takes_jobs:
            return WorkerBusy(worker=self._state.name, reason="it is closing")
        queue = [run.record for run in self._jobs.values() if run.state in WAITING]
        waiting, most = len(queue), self._limits.max_waiting
        if waiting >= most:
            jobs = "1 job waits" if waiting == 1 else f"{waiting} jobs wait"
            reason = f"its queue is full: {jobs}"
            return WorkerBusy(worker=self._state.name, reason=reason)
        own = sum(user_of(record) == user for record in queue)
        if not has_share(own, waiting, most):
            return QueueShareUsed(
                worker=self._state.name, own=str(own), free=str(most - waiting)
            )
        return self._keeper.refusal(package_bytes)

    # -- submitting ------------------------------------------------------------------

    def submit(self, message: JobSubmit, submitter: str) -> JobRun:
        """Take a job, or return it where it is known already.

        Raises:
            JobConflict: the id is known with other contents.
            RtcError: the job is not acceptable, or none is taken now.
        """
        known = self._jobs.get(message.job_id)
        if known is not None:
            if known.record.spec != message.spec:
                raise JobConflict(job_id=message.job_id)
            if known.record.package_digest != message.package_digest:
                # A file changed on its way; only who sends it may say so.
                if known.state is not JobState.STAGING or (
                    known.record.submitter != submitter
                ):
                    raise JobConflict(job_id=message.job_id)
                known.expect(message.package_digest, message.package_bytes)
            return known
        self._expire_abandoned()
        record = JobRecord(
            job_id=message.job_id,
            spec=message.spec,
            package_digest=message.package_digest,
            package_bytes=message.package_bytes,
            submitter=submitter,
            created_at=time.time(),
        )
        refusal = self.refusal(message.package_bytes, user_of(record))
        if refusal is not None:
            raise refusal
        check_spec(message.spec)
        self._keeper.make_room(message.package_bytes)
        run = JobRun(record, self._tools, self._changed)
        self._jobs[message.job_id] = run
        self._turns.follow(run)
        run.begin_staging()
        return run

    async def stage(
        self, meta: FileMeta, pump: TransferPump, sources: Sequence[ChunkSource] = ()
    ) -> None:
        """Receive a job's package over a link, check it, and queue the job.

        A newer link takes over from an older one: the client that was cut off came
        back before we noticed that it was gone. What `sources` have need not be sent.

        Raises:
            RtcError: the package did not arrive or is not acceptable.
            LinkClosed: the link ended; what arrived is kept for a resume.
        """
        run = self.find(meta.job_id)
        if meta.purpose != "package" or run.state is not JobState.STAGING:
            raise RemoteProtocolError(detail="files that no job waits for")
        record = run.record
        # The size was compared with the disk when the job was submitted.
        if (meta.manifest_digest, meta.total_bytes) != (
            record.package_digest,
            record.package_bytes,
        ):
            raise JobConflict(job_id=meta.job_id)
        older = self._staging.pop(meta.job_id, None)
        if older is not None:
            older.cancel()
            await asyncio.gather(older, return_exceptions=True)
        arrived = asyncio.Event()
        task = asyncio.get_running_loop().create_task(
            self._stage(run, meta, pump, sources, arrived)
        )
        self._staging[meta.job_id] = task
        try:
            await task
        except asyncio.CancelledError:
            # Where the link did not end, its sender must hear of it, unless it heard
            # that all arrived: a transfer ends once.
            error = run.error if run.has_ended else None
            if self._staging.get(meta.job_id) is not task:
                error = error or TransferTakenOver(job_id=meta.job_id)
            if error is None:
                raise
            if not arrived.is_set():
                raise error from None
        finally:
            if self._staging.get(meta.job_id) is task:
                del self._staging[meta.job_id]

    async def _stage(
        self,
        run: JobRun,
        meta: FileMeta,
        pump: TransferPump,
        sources: Sequence[ChunkSource],
        arrived: asyncio.Event,
    ) -> None:
        # What had to go for this package may still be going.
        await self._keeper.settle()
        area = self._tools.files.staging_area(run.job_id)
        area.sources = sources
        await pump.receive(meta, area)
        arrived.set()
        if run.state is not JobState.STAGING:
            return
        try:
            epochs = await self._check_package(run)
        except RtcError as error:
            run.package_refused(error)
        else:
            if run.state is JobState.STAGING:
                run.note(epochs=epochs, ticket=self._turns.next_number())
                run.package_staged()

    async def _check_package(self, run: JobRun) -> list[int]:
        return await check_package(
            run.job_id,
            run.record.spec,
            self._tools.files,
            mounts=self._mounts,
            worker=self._state.name,
        )

    def _expire_abandoned(self) -> None:
        """Drop jobs whose package never came."""
        oldest = time.time() - STAGING_IDLE_TIMEOUT_S
        for run in list(self._jobs.values()):
            idle = run.job_id not in self._staging and run.record.created_at < oldest
            if run.state is JobState.STAGING and idle:
                run.cancel()

    # -- running -----------------------------------------------------------------------

    def _changed(self, run: JobRun) -> None:
        if run.has_ended:
            staging = self._staging.get(run.job_id)
            if staging is not None:
                staging.cancel()
            run.expires_at = self._keeper.expires_at(run)
            self._turns.ended(run)
            self._on_ended(run)
        # A state may change while slots are being granted; the loop there sees it.
        asyncio.get_running_loop().call_soon(self._grant_slots)

    def _grant_slots(self) -> None:
        try:
            running = self._turns.grant()
        except RtcError as error:
            # What could not be journaled did not happen; the watch tries it again.
            logger.warning("%s", error)
            return
        self._state.set_load(running_jobs=running, queue_length=self.queue_length)
        self._turns.tell_soon()

    async def _watch_jobs(self) -> None:
        """Hold running jobs to their limit, keep places and files as they should be."""
        loop = asyncio.get_running_loop()
        tend_at = tell_at = loop.time()
        while True:
            try:
                self._turns.tick()
                if loop.time() >= tell_at:
                    self._grant_slots()
                    tell_at = loop.time() + PLACES_REFRESH_S
                if loop.time() >= tend_at:
                    await self._keeper.tend()
                    tend_at = loop.time() + KEEPING_INTERVAL_S
            except RtcError as error:
                # The disk may be full; what could not be written now is tried again.
                logger.warning("%s", error)
            await asyncio.sleep(JOBS_WATCH_S)
