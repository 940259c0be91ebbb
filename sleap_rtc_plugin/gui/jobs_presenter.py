"""What the jobs window knows and asks for, without any widget.

Keeps the jobs of the chosen worker and those that this SLEAP follows, from lists that
it asks for and from events; turns presses of buttons into commands. The window draws
its `JobsSnapshot`; the plugin hands it the companion's events.
"""

import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sleap_rtc_plugin.companion.messages import (
    AttachJob,
    CancelJob,
    Command,
    Event,
    FetchResults,
    JobChanged,
    JobLog,
    JobRow,
    Jobs,
    ListJobs,
    Log,
    Result,
    ResultsHome,
    RoomChanged,
    StepBegan,
    StopJob,
    TransferProgress,
    WorkerRow,
    WorkersChanged,
)
from sleap_rtc_plugin.gui.messages import error_words
from sleap_rtc_plugin.gui.quantities import format_size
from sleap_rtc_plugin.protocol.errors import RtcError, from_wire
from sleap_rtc_plugin.protocol.ids import clean_text

__all__ = ["FOLLOWED", "JobsPresenter", "JobsSnapshot"]

FOLLOWED: Final = ""
"""In place of a worker's id: the jobs that this SLEAP follows, wherever they are."""
MAX_JOBS: Final = 1000
MAX_STEPS_NAMED: Final = 4000
MAX_LOG_LINE_CHARS: Final = 500
MAX_NOTICE_CHARS: Final = 600


@dataclass(frozen=True)
class JobsSnapshot:
    """Everything that the jobs window shows but for what waits to be merged.

    Attributes:
        is_online: we are in a room.
        workers: who is in the room.
        worker_id: the worker whose jobs are shown, or `FOLLOWED`.
        jobs: the jobs shown, the newest first.
        heads: what trains, by job id and step.
        folders: where results are, by job id.
        is_listed: the worker's jobs were told at least once.
        notice: what happened last, in words, or empty.
    """

    is_online: bool = False
    workers: tuple[WorkerRow, ...] = ()
    worker_id: str = FOLLOWED
    jobs: tuple[JobRow, ...] = ()
    heads: Mapping[tuple[str, int], str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    is_listed: bool = False
    notice: str = ""

    def job(self, job_id: str | None) -> JobRow | None:
        """Return a job that is shown."""
        return next((job for job in self.jobs if job.job_id == job_id), None)

    def head(self, job: JobRow) -> str | None:
        """Return what the current step of a job trains, where that is known."""
        return None if job.step is None else self.heads.get((job.job_id, job.step))

    def folder(self, job_id: str | None) -> str | None:
        """Return where the results of a job are on this computer."""
        return self.folders.get(job_id or "")


class JobsPresenter:
    """The jobs window's memory and hands."""

    def __init__(
        self,
        ask: Callable[[Command], Awaitable[Result]],
        spawn: Callable[[Coroutine[Any, Any, None], str], Any],
        *,
        reopen_monitor: Callable[[str], bool],
    ) -> None:
        """Begin without jobs.

        Args:
            ask: puts a command to the companion.
            spawn: runs a coroutine as a named task.
            reopen_monitor: shows a job's monitor again, from a Qt slot.
        """
        self.on_changed: Callable[[], None] = lambda: None
        """Called when `snapshot` changed."""
        self._ask = ask
        self._spawn = spawn
        self._reopen_monitor = reopen_monitor
        self._jobs: dict[str, JobRow] = {}
        self._heads: dict[tuple[str, int], str] = {}
        self._folders: dict[str, str] = {}
        self._has_chosen = False
        self._is_listing = False
        self._snapshot = JobsSnapshot()

    @property
    def snapshot(self) -> JobsSnapshot:
        """What is to be shown now."""
        return self._snapshot

    # -- events ------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Take an event of the companion."""
        match event:
            case RoomChanged():
                reason = clean_text(event.reason, MAX_NOTICE_CHARS)
                self._show(is_online=event.state == "online", notice=reason)
            case WorkersChanged():
                self._show(is_online=True, workers=tuple(event.workers))
                self._choose_by_default()
            case JobChanged():
                self._keep(event.job)
                if event.error is not None:
                    self._show(notice=error_words(from_wire(event.error)))
                else:
                    self._show()
                self._choose_by_default()
            case StepBegan():
                if len(self._heads) >= MAX_STEPS_NAMED:
                    self._heads.pop(next(iter(self._heads)))
                self._heads[event.job_id, event.step] = event.head
                self._show()
            case TransferProgress(purpose="results"):
                name = self._name(event.job_id)
                done, total = format_size(event.done), format_size(event.total)
                self._show(notice=f"Fetching the results of {name}: {done} of {total}")
            case ResultsHome():
                self._results_home(event)
            case _:
                pass

    def _results_home(self, event: ResultsHome) -> None:
        paths = [*event.models, *event.predictions]
        if not paths:
            return
        if len(self._folders) >= MAX_JOBS:
            self._folders.pop(next(iter(self._folders)))
        folder = str(Path(paths[0]).parent)
        self._folders[event.job_id] = folder
        where = clean_text(folder, MAX_NOTICE_CHARS)
        name = self._name(event.job_id)
        self._show(notice=f"The results of {name} are in {where}.")

    # -- what the user does ------------------------------------------------------------

    def choose_worker(self, worker_id: str) -> None:
        """Show the jobs of a worker, or those that are followed."""
        self._has_chosen = True
        self._choose(worker_id)
        self.refresh()

    def refresh(self) -> None:
        """Ask the chosen worker for its jobs, unless that is under way."""
        worker_id = self._snapshot.worker_id
        if worker_id != FOLLOWED and self._snapshot.is_online and not self._is_listing:
            self._is_listing = True
            self._spawn(self._list(worker_id), f"list the jobs of {worker_id}")

    def attach(self, job: JobRow) -> None:
        """Follow a job and show its monitor; call from a Qt slot."""
        is_shown = self._reopen_monitor(job.job_id)
        name = self._name(job.job_id)
        later = f"The monitor of {name} opens when there is something to draw."
        command = AttachJob(worker_id=job.worker_id, job_id=job.job_id)
        self._do(command, "" if is_shown else later)

    def stop(self, job: JobRow) -> None:
        """End the model that trains, keep it, and go on with the job."""
        command = StopJob(worker_id=job.worker_id, job_id=job.job_id)
        name = self._name(job.job_id)
        self._do(command, f"{name} ends its training early and keeps the model.")

    def cancel(self, job: JobRow) -> None:
        """End a job and discard it."""
        command = CancelJob(worker_id=job.worker_id, job_id=job.job_id)
        self._do(command, f"{self._name(job.job_id)} is being cancelled.")

    def fetch(self, job: JobRow, output: str) -> None:
        """Bring the results of an ended job to a folder."""
        command = FetchResults(
            worker_id=job.worker_id, job_id=job.job_id, output=output
        )
        self._do(command, f"Fetching the results of {self._name(job.job_id)}.")

    def read_log(
        self, job: JobRow, deliver: Callable[[list[str] | None, str], None]
    ) -> None:
        """Ask for the last lines of a job's trainer.

        Args:
            job: the job, which is followed from now on.
            deliver: called once with the lines, or with None and why there are none.
        """
        self._spawn(self._read_log(job, deliver), f"read the log of {job.job_id}")

    # -- commands ----------------------------------------------------------------------

    def _do(self, command: Command, notice: str) -> None:
        self._show(notice=notice)
        self._spawn(self._carry_out(command), type(command).__name__)

    async def _carry_out(self, command: Command) -> None:
        try:
            await self._ask(command)
        except RtcError as error:
            self._show(notice=error_words(error))
        else:
            self.refresh()

    async def _list(self, worker_id: str) -> None:
        try:
            result = await self._ask(ListJobs(worker_id=worker_id))
        except RtcError as error:
            self._show(notice=error_words(error))
            return
        finally:
            self._is_listing = False
        if isinstance(result, Jobs):
            self._listed(worker_id, result.jobs[:MAX_JOBS])

    def _listed(self, worker_id: str, jobs: list[JobRow]) -> None:
        told = {job.job_id for job in jobs}
        for job in list(self._jobs.values()):
            is_theirs = job.worker_id == worker_id and job.job_id not in told
            # What is on its way to the worker is not in its list yet.
            if is_theirs and not job.is_followed:
                del self._jobs[job.job_id]
        # The oldest first, so that what is dropped for room is the oldest.
        for job in reversed(jobs):
            known = self._jobs.get(job.job_id)
            if known is not None and known.is_followed and not job.is_followed:
                job = msgspec.structs.replace(job, is_followed=True)
            self._keep(job)
        if self._snapshot.worker_id == worker_id:
            self._show(is_listed=True)

    async def _read_log(
        self, job: JobRow, deliver: Callable[[list[str] | None, str], None]
    ) -> None:
        known = self._jobs.get(job.job_id, job)
        try:
            if not known.is_followed:
                attach = AttachJob(worker_id=job.worker_id, job_id=job.job_id)
                await self._ask(attach)
            result = await self._ask(JobLog(job_id=job.job_id))
        except RtcError as error:
            deliver(None, error_words(error))
            return
        lines = result.lines if isinstance(result, Log) else []
        deliver([clean_text(line, MAX_LOG_LINE_CHARS) for line in lines], "")

    # -- the rest ----------------------------------------------------------------------

    def _keep(self, job: JobRow) -> None:
        if job.job_id not in self._jobs and len(self._jobs) >= MAX_JOBS:
            self._jobs.pop(next(iter(self._jobs)))
        self._jobs[job.job_id] = job

    def _choose_by_default(self) -> None:
        """Show followed jobs where there are some, else the first worker's."""
        if self._has_chosen or self._snapshot.worker_id != FOLLOWED:
            return
        workers = self._snapshot.workers
        if workers and not any(job.is_followed for job in self._jobs.values()):
            self._choose(workers[0].worker_id)

    def _choose(self, worker_id: str) -> None:
        if worker_id != self._snapshot.worker_id:
            self._show(worker_id=worker_id, is_listed=False, notice="")

    def _name(self, job_id: str) -> str:
        job = self._jobs.get(job_id)
        return (clean_text(job.name) if job is not None else "") or job_id

    def _show(self, **changes: Any) -> None:
        snapshot = replace(self._snapshot, **changes)
        worker_id = snapshot.worker_id
        jobs = [
            job
            for job in self._jobs.values()
            if (
                job.is_followed if worker_id == FOLLOWED else job.worker_id == worker_id
            )
        ]
        jobs.sort(key=_newest_first)
        self._snapshot = replace(
            snapshot,
            jobs=tuple(jobs),
            heads=dict(self._heads),
            folders=dict(self._folders),
        )
        self.on_changed()


def _newest_first(job: JobRow) -> float:
    if job.created_at is None:
        return -math.inf  # on its way to its worker
    return -job.created_at if math.isfinite(job.created_at) else math.inf
