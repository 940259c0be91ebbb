"""A job as the companion follows it: told to SLEAP's side, its monitors, its images.

Turns the job's events into the notices that windows live on, feeds the loss monitors
that are open, and fetches validation images while somebody looks. Made by the service
for every job that is followed; knows nothing of packages.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.companion.messages import (
    Event,
    ImagesArrived,
    JobChanged,
    JobRow,
    LinkBack,
    LinkLost,
    StepBegan,
    StepEnded,
    TransferProgress,
)
from sleap_rtc_plugin.companion.throttle import Coalescer, RateMeter, Ticker
from sleap_rtc_plugin.protocol.errors import JobUnknown, RtcError
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    ProgressReport,
    StopScope,
    TrainStep,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.job_images import fetch_images
from sleap_rtc_plugin.session.monitor_bridge import MonitorBridge
from sleap_rtc_plugin.session.monitor_messages import MonitorHistory
from sleap_rtc_plugin.session.result_import import ImportedResults
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

__all__ = ["FollowedJob", "FollowedWorker", "StepFacts"]

logger = logging.getLogger(__name__)

CHANGED_INTERVAL_S: Final = 0.25
TRANSFER_INTERVAL_S: Final = 0.12


@dataclass(frozen=True)
class StepFacts:
    """What the configuration of a training says to its monitor."""

    patience: int | None = None
    min_delta: float | None = None
    shows_images: bool = True


@dataclass
class _Training:
    """One step that trains: its curve so far, its open monitor, its images."""

    step: TrainStep
    history: MonitorHistory
    bridge: MonitorBridge | None = None
    is_announced: bool = False
    images: asyncio.Task[None] | None = None
    wants_images: bool = False


@dataclass
class _Times:
    """When things happened to the job, Unix seconds by the worker's clock."""

    created: float | None = None
    started: float | None = None
    ended: float | None = None


@dataclass(frozen=True)
class FollowedWorker:
    """Who runs the job."""

    worker_id: str
    name: str


@dataclass
class _Transfer:
    """What is known of the bytes under way."""

    purpose: str = ""
    meter: RateMeter = field(default_factory=RateMeter)
    ticker: Ticker = field(default_factory=lambda: Ticker(TRANSFER_INTERVAL_S))


class FollowedJob:
    """One job, from the first event that is known to the last.

    Args:
        job_id: the job.
        spec: what it is.
        worker: who runs it.
        connect: returns an open link to the worker.
        emit: takes the events for SLEAP's side.
        images_folder: where validation images go, one folder below it per step.
        facts: what the configurations say, by step.
        replayed: events up to this number are old news; steps are announced once
            they have all arrived.
        shows_ended: announce trainings that had ended by then as well.
        created_at: when it was submitted, Unix seconds.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        *,
        worker: FollowedWorker,
        connect: Callable[[], Awaitable[WorkerLink]],
        emit: Callable[[Event], None],
        images_folder: Path,
        facts: dict[int, StepFacts] | None = None,
        replayed: int = 0,
        shows_ended: bool = False,
        created_at: float | None = None,
    ) -> None:
        self.worker = worker
        self.course = JobCourse(JobMirror(job_id, spec), connect, self)
        self._emit = emit
        self._images_folder = images_folder
        self._facts = facts or {}
        self._replayed = replayed
        self._shows_ended = shows_ended
        self._times = _Times(created=created_at)
        self._trainings = {
            index: _Training(step, MonitorHistory())
            for index, step in enumerate(spec.steps)
            if isinstance(step, TrainStep)
        }
        self._error: RtcError | None = None
        self._changed = Coalescer(CHANGED_INTERVAL_S, self._tell_change)
        self._transfer = _Transfer()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def mirror(self) -> JobMirror:
        """The job as its events tell it."""
        return self.course.mirror

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.mirror.job_id

    # -- the way of the job --------------------------------------------------------

    async def submit(self, source: FileSource, home: Path | None = None) -> None:
        """Submit the job and send its package; as `JobCourse.submit`."""
        self._transfer = _Transfer(purpose="package")
        await self.course.submit(source, self._transferred, home)

    async def follow(self) -> None:
        """Follow it until it has ended; raises as `JobCourse.follow`."""
        await self.course.follow()
        self._changed.now()

    async def bring_home(
        self,
        output: Path,
        folder: str = "",
        video_names: Mapping[str, str] | None = None,
    ) -> ImportedResults:
        """Fetch its results; raises as `JobCourse.bring_home`."""
        self._transfer = _Transfer(purpose="results")
        return await self.course.bring_home(
            output, self._transferred, folder, video_names
        )

    def stop(self, scope: StopScope) -> None:
        """End the training soon and keep its model, however long the telling takes."""
        self._spawn(self.course.stop(scope))

    def cancel(self) -> None:
        """End the job now and discard it, however long the telling takes."""
        self._spawn(self.course.cancel())

    async def close(self) -> None:
        """Let go of it: monitors, images, and what was to be told."""
        self._changed.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for index in self._trainings:
            await self.close_monitor(index)

    def failed(self, error: RtcError) -> None:
        """It cannot go on from here, whatever the worker does; `error` says why."""
        self._error = error
        self._changed.now()

    # -- what SLEAP's side sees ----------------------------------------------------

    def row(self) -> JobRow:
        """Return the job as the jobs window shows it."""
        mirror = self.mirror
        step = mirror.steps[mirror.step] if mirror.step is not None else None
        error = self._error or mirror.error
        published = mirror.published
        return JobRow(
            job_id=mirror.job_id,
            worker_id=self.worker.worker_id,
            worker=self.worker.name,
            name=mirror.spec.name,
            owner=mirror.spec.owner,
            state=mirror.state.value,
            step=mirror.step,
            steps=len(mirror.spec.steps),
            epoch=step.epoch if step is not None else None,
            done=step.done if step is not None else 0,
            total=step.total if step is not None else 0,
            created_at=self._times.created,
            started_at=self._times.started,
            ended_at=self._times.ended,
            is_followed=True,
            error=str(error) if error is not None else "",
            position=mirror.place.position if mirror.place is not None else None,
            starts_in_s=mirror.place.starts_in_s if mirror.place is not None else None,
            model=(published.model or "") if published is not None else "",
            alias=(published.alias or "") if published is not None else "",
        )

    def is_behind(self, last_seq: int) -> bool:
        """Whether events up to `last_seq` are known to exist and not known here."""
        return self.mirror.last_seq < last_seq

    def announce_steps(self, *, with_ended: bool = True) -> None:
        """Say `StepBegan` for every training that has begun, so monitors open."""
        for index, training in self._trainings.items():
            seen = self.mirror.steps[index]
            has_ended = seen.has_ended or self._is_over
            if seen.has_begun and (with_ended or not has_ended):
                training.is_announced = True
                self._say_step_began(index, is_replay=has_ended)
                if has_ended:
                    self._emit(StepEnded(job_id=self.job_id, step=index))

    def _tell_change(self) -> None:
        mirror = self.mirror
        step = mirror.steps[mirror.step] if mirror.step is not None else None
        error = self._error or mirror.error
        self._emit(
            JobChanged(
                job=self.row(),
                losses=dict(step.losses) if step is not None else {},
                rate=step.rate if step is not None else 0.0,
                error=error.to_wire() if error is not None else None,
                publish_error=mirror.published.error if mirror.published else None,
            )
        )

    @property
    def _is_over(self) -> bool:
        return self.mirror.state in ENDED or self.mirror.state is JobState.COLLECTING

    def _transferred(self, totals: TransferTotals) -> None:
        now = monotonic()
        self._transfer.meter.add(now, totals.moved_bytes)
        done = totals.reused_bytes + totals.moved_bytes
        is_last = done >= totals.total_bytes
        if not self._transfer.ticker.is_due(now) and not is_last:
            return
        rate = self._transfer.meter.bytes_per_s
        left = max(0, totals.total_bytes - done)
        self._emit(
            TransferProgress(
                job_id=self.job_id,
                purpose="results" if self._transfer.purpose == "results" else "package",
                done=min(done, totals.total_bytes),
                total=totals.total_bytes,
                reused=totals.reused_bytes,
                rate=rate,
                seconds_left=left / rate if rate > 0 else None,
            )
        )

    # -- CourseObserver ------------------------------------------------------------

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        """Something happened to the job."""
        if isinstance(event, JobQueue):
            self._changed.soon()
            return
        is_old = event.seq <= self._replayed
        match event:
            case JobEvent():
                self._job_changed(event, is_old=is_old)
            case ProgressReport():
                training = self._trainings.get(event.step)
                if training is not None:
                    self._progressed(training, event, is_old=is_old)
        if event.seq == self._replayed:
            self.announce_steps(with_ended=self._shows_ended)
        if event.seq >= self._replayed:
            self._changed.soon()

    def link_lost(self, error: RtcError) -> None:
        """The worker cannot be reached; it is tried again."""
        self._emit(LinkLost(job_id=self.job_id, reason=str(error)))

    def link_back(self) -> None:
        """The worker is there again."""
        self._emit(LinkBack(job_id=self.job_id))

    def _job_changed(self, event: JobEvent, *, is_old: bool) -> None:
        state = self.mirror.state
        if self._times.created is None:
            self._times.created = event.at
        if state is JobState.STARTING and self._times.started is None:
            self._times.started = event.at
        if state in ENDED:
            self._times.ended = event.at
        if not is_old:
            self._changed.now()

    def _progressed(
        self, training: _Training, report: ProgressReport, *, is_old: bool
    ) -> None:
        training.history.add(report)
        if training.bridge is not None:
            training.bridge.feed(report)
        if is_old:
            return
        if not training.is_announced:
            training.is_announced = True
            self._say_step_began(report.step, is_replay=False)
        if report.kind == "train_end":
            self._emit(StepEnded(job_id=self.job_id, step=report.step))
        if report.kind in ("epoch_end", "train_end"):
            self._want_images(report.step)

    def _say_step_began(self, index: int, *, is_replay: bool) -> None:
        step = self._trainings[index].step
        facts = self._facts.get(index, StepFacts())
        self._emit(
            StepBegan(
                job_id=self.job_id,
                worker=self.worker.name,
                step=index,
                head=step.head,
                run_name=step.run_name,
                patience=facts.patience,
                min_delta=facts.min_delta,
                shows_images=facts.shows_images,
                is_replay=is_replay,
            )
        )

    # -- monitors ------------------------------------------------------------------

    async def open_monitor(
        self, index: int, publish_port: int, controller_port: int, what: str
    ) -> None:
        """Feed a LossViewer from the step's first event on.

        Raises:
            JobUnknown: the job has no training at this step.
        """
        training = self._trainings.get(index)
        if training is None:
            raise JobUnknown(job_id=f"{self.job_id}, step {index}")
        await self.close_monitor(index)
        bridge = MonitorBridge(
            publish_port, controller_port, what, on_stop=lambda: self.stop("step")
        )
        training.bridge = bridge
        bridge.start()
        bridge.replay(training.history)
        self._want_images(index)

    async def close_monitor(self, index: int) -> None:
        """Stop feeding a LossViewer; nothing happens where none is fed."""
        training = self._trainings.get(index)
        if training is None or training.bridge is None:
            return
        bridge, training.bridge = training.bridge, None
        if bridge.dropped:
            logger.info(
                "%s, step %d: %d messages were not drawn",
                self.job_id,
                index,
                bridge.dropped,
            )
        await bridge.close()

    # -- images --------------------------------------------------------------------

    def _want_images(self, index: int) -> None:
        training = self._trainings[index]
        facts = self._facts.get(index, StepFacts())
        if training.bridge is None or not facts.shows_images:
            return
        training.wants_images = True
        if training.images is None or training.images.done():
            training.images = self._spawn(self._fetch_images(index, training))

    async def _fetch_images(self, index: int, training: _Training) -> None:
        """Fetch what is new, and again where more was wanted meanwhile."""
        folder = self._images_folder / str(index)
        while training.wants_images:
            training.wants_images = False
            images = await self.course.with_job(
                lambda job: fetch_images(job, index, folder)
            )
            if images:
                self._emit(
                    ImagesArrived(job_id=self.job_id, step=index, folder=str(folder))
                )

    # -- tasks ---------------------------------------------------------------------

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            match task.exception():
                case None:
                    return
                case RtcError() as error:
                    logger.warning("Job %s: %s", self.job_id, error)
                case error:
                    logger.error("Following %s failed", self.job_id, exc_info=error)
