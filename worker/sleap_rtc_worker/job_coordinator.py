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
    NoStore,
    QueueShareUsed,
    RtcError,
    TrainerMissing,
    WorkerBusy,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_JOB_PAGE_BYTES,
    MAX_JOBS_PER_PAGE,
    STAGING_IDLE_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.messages import (
    FileMeta,
    JobSpec,
    JobSubmit,
    JobSummary,
    PredictStep,
)
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.gpu_slots import Slot
from sleap_rtc_worker.job_board import JobBoard
from sleap_rtc_worker.job_queue import has_share
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.job_turns import WAITING, JobTurns, user_of
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.limits import JOBS_WATCH_S, KEEPING_INTERVAL_S, PLACES_REFRESH_S
from sleap_rtc_worker.model_registry import WorkerModels
from sleap_rtc_worker.package_check import CheckedPackage, check_package, check_spec
from sleap_rtc_worker.package_staging import PackageStaging
from sleap_rtc_worker.result_keeper import ResultKeeper
from sleap_rtc_worker.retention import JobLimits
from sleap_rtc_worker.state_manager import StateManager

__all__ = ["JobCoordinator", "uses_models"]

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
        models: WorkerModels | None = None,
        on_ended: Callable[[JobRun], None] = lambda run: None,
        shows_jobs: bool = True,
    ) -> None:
        """Take up the journal's jobs; nothing runs before `resume`.

        Args:
            tools: what jobs are run with.
            state: told how much there is to do.
            can_train: whether sleap-nn is there at all.
            slots: room for so many jobs at once.
            limits: what the worker's owner allows.
            mounts: folders in which videos of labels may lie.
            models: those of the room; without them jobs use and publish none.
            on_ended: told of every job that reaches an end.
            shows_jobs: whether the room sees how far they are.
        """
        self._tools = tools
        self._state = state
        self._can_train = can_train
        self._limits = limits or JobLimits()
        self._mounts = mounts
        self._models = models
        self._on_ended = on_ended
        self._board = JobBoard() if shows_jobs else None
        self._jobs: dict[str, JobRun] = {}
        self._staging = PackageStaging(
            tools.files,
            make_room=lambda: self._keeper.settle(),
            check=lambda run: self._check_package(run),
            on_staged=self._staged,
        )
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
                if run.state is JobState.STAGING and run.record.has_package:
                    self._staging.begin_check(run)
        self._grant_slots()
        self._watch = asyncio.get_running_loop().create_task(self._watch_jobs())

    async def close(self) -> None:
        """Let go of every job; runners go on and can be adopted later."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._staging.close()
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

    async def admit(self, message: JobSubmit) -> None:
        """Check what a new job wants of the room's models; `submit` it right after.

        Raises:
            RtcError: it is not to be had, or no job is taken now.
        """
        if message.job_id in self._jobs or not uses_models(message.spec):
            return
        refusal = self.refusal(message.package_bytes)
        if refusal is not None:
            raise refusal
        check_spec(message.spec)
        if self._models is None:
            raise NoStore(reason=f"the worker {self._state.name} has no model store")
        await self._models.admit(message.spec)

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
                self._staging.drop(message.job_id)
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

    def has_package(self, meta: FileMeta) -> bool:
        """Tell whether a package that a client offers is here already."""
        run = self._jobs.get(meta.job_id)
        return run is not None and self._staging.has(run, meta)

    async def stage(
        self, meta: FileMeta, pump: TransferPump, sources: Sequence[ChunkSource] = ()
    ) -> None:
        """Receive a job's package over a link, as `PackageStaging.receive`.

        Raises:
            RtcError: the package did not arrive.
            LinkClosed: the link ended; what arrived is kept for a resume.
        """
        await self._staging.receive(self.find(meta.job_id), meta, pump, sources)

    def _staged(self, run: JobRun, checked: CheckedPackage) -> None:
        run.note(
            epochs=checked.epochs,
            published=checked.published,
            ticket=self._turns.next_number(),
        )
        run.package_staged()

    async def _check_package(self, run: JobRun) -> CheckedPackage:
        return await check_package(
            run.job_id,
            run.record.spec,
            self._tools.files,
            mounts=self._mounts,
            worker=self._state.name,
            lay_model=self._lay_model,
        )

    async def _lay_model(self, model_id: str, folder: Path) -> list[str]:
        if self._models is None:
            raise NoStore(reason=f"the worker {self._state.name} has no model store")
        return await self._models.lay(model_id, folder)

    def _expire_abandoned(self) -> None:
        """Drop jobs whose package never came."""
        oldest = time.time() - STAGING_IDLE_TIMEOUT_S
        for run in list(self._jobs.values()):
            is_idle = not self._staging.is_busy(run.job_id)
            is_old = run.record.created_at < oldest
            if run.state is JobState.STAGING and is_idle and is_old:
                run.cancel()

    # -- running -----------------------------------------------------------------------

    def _changed(self, run: JobRun) -> None:
        if run.has_ended:
            self._staging.drop(run.job_id)
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
            self._show_jobs()
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

    def _show_jobs(self) -> None:
        if self._board is None:
            return
        records = (run.record for run in self._jobs.values())
        rows = self._board.due(records, time.time())
        if rows is not None:
            self._state.set_jobs(rows)


def uses_models(spec: JobSpec) -> bool:
    """Tell whether a job has to do with the room's models."""
    return spec.publish is not None or any(
        isinstance(step, PredictStep) and step.published is not None
        for step in spec.steps
    )
