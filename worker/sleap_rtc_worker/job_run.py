"""One job at work: its machine, its journal entry, the tasks that carry it out.

The machine decides, this class performs: it writes every change to the journal, then
wakes whoever watches. Made and asked by the job coordinator; knows no link.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from sleap_rtc_plugin.protocol import job as machine
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    JobLost,
    RtcError,
    RunnerNotStarted,
    StepFailed,
    from_wire,
)
from sleap_rtc_plugin.protocol.job import ENDED, Job, JobState
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSummary,
    ProgressReport,
    StepEvent,
    StopScope,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.transport.effects import in_thread, monotonic, storage_error
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker.job_executor import RunningStep
from sleap_rtc_worker.job_queue import Place
from sleap_rtc_worker.job_summary import Holders, summary_of
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.progress_reporter import ProgressReporter, UnnumberedEvent
from sleap_rtc_worker.publish_outcome import told
from sleap_rtc_worker.sleap_nn_command import (
    judge,
    order_for,
    step_name,
)
from sleap_rtc_worker.step_checkpoint import Kept, named_from
from sleap_rtc_worker.step_records import RunnerEvent, StepProgress
from sleap_rtc_worker.step_restart import (
    GiveUp,
    Reached,
    Restart,
    Verdict,
    is_repeat,
    reached_by,
    restart_line,
    verdict,
    verdict_on_start,
)
from sleap_rtc_worker.step_tools import StepTools
from sleap_rtc_worker.step_tries import StepTries

__all__ = ["JobRun", "StepTools"]

logger = logging.getLogger(__name__)

_PLACE: Final = "the worker's data folder"
# The states in which a step may be begun again.
_BEGINNING: Final = (JobState.STARTING, JobState.STOPPING)


@dataclass(frozen=True)
class _Again:
    """What is journaled with the step's next beginning."""

    line: str
    reached: Reached


class _Watcher(Protocol):
    def __call__(self) -> None:
        """There is something new in the journal."""


class JobRun:
    """A job from its submission, or from the journal after a restart, to its end."""

    def __init__(
        self,
        record: JobRecord,
        tools: StepTools,
        on_change: Callable[["JobRun"], None],
    ) -> None:
        """Take up the job of `record`; `on_change` hears of every new state."""
        self.record = record
        self._tools = tools
        self._on_change = on_change
        self._machine = Job.restore(
            record.job_id,
            record.spec,
            state=record.state,
            step=record.step,
            error=from_wire(record.error) if record.error else None,
            finished_steps=record.finished_steps,
            stop_scope=record.stop_scope,
        )
        self._seq = tools.journal.last_seq(record.job_id)
        self._watchers: set[_Watcher] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: RunningStep | None = None
        self._read_to = record.events_offset
        self._again: _Again | None = None
        self._pause_s = 0.0
        self._asked = asyncio.Event()
        self._results: FileSource | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._holders = Holders()
        self._place: Place | None = None
        self.expires_at: float | None = None

    # -- what others read ------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id

    @property
    def state(self) -> JobState:
        """Where the job stands."""
        return self._machine.state

    @property
    def has_ended(self) -> bool:
        """Whether it reached one of its ends."""
        return self._machine.has_ended

    @property
    def error(self) -> RtcError | None:
        """Why it did not end well."""
        return self._machine.error

    @property
    def last_seq(self) -> int:
        """The number of its newest event."""
        return self._seq

    def summary(self) -> JobSummary:
        """Return the job in one row; nothing is read from the disk."""
        return summary_of(
            self.record,
            last_seq=self._seq,
            place=self.place,
            expires_at=self.expires_at,
        )

    @property
    def has_results(self) -> bool:
        """Whether there is anything to fetch, or was."""
        return bool(self.record.finished_steps)

    @property
    def place(self) -> Place | None:
        """Where in the queue it stands, while it waits there."""
        return self._place if self.state is JobState.QUEUED else None

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to hear of it."""
        return bool(self._watchers)

    @property
    def is_held(self) -> bool:
        """Whether somebody reads its files now."""
        return self._holders.count > 0

    def held(self) -> AbstractContextManager[None]:
        """Keep its files from being removed meanwhile.

        Raises:
            ResultsRemoved: they were removed before; raised on entering.
        """
        return self._holders.one_more(self.record)

    def stands_at(self, place: Place | None) -> None:
        """Tell whoever watches where in the queue it stands."""
        if place != self._place:
            self._place = place
            self._wake()

    def watch(self, watcher: _Watcher) -> None:
        """Call `watcher` after each addition to the journal."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: _Watcher) -> None:
        """Stop calling `watcher`."""
        self._watchers.discard(watcher)

    # -- what may be asked of a job ------------------------------------------------

    def begin_staging(self) -> None:
        """The package may arrive."""
        self.feed(machine.StagingBegan())

    def expect(self, package_digest: str, package_bytes: int) -> None:
        """Wait for a package of other bytes than were announced."""
        self.note(
            package_digest=package_digest,
            package_bytes=package_bytes,
            has_package=False,
        )

    def note(self, **changes: Any) -> None:
        """Write fields of the record to the journal; no event tells of them."""
        self._write(msgspec.structs.replace(self.record, **changes), [])

    def package_staged(self) -> None:
        """The package is here and acceptable."""
        self.feed(machine.PackageStaged())

    def package_refused(self, error: RtcError) -> None:
        """The package is not acceptable."""
        self.feed(machine.PackageRefused(error))

    def grant_slot(self, turn: int = 0, gpu: str | None = None) -> None:
        """There is room to run, on this GPU."""
        self.note(turn=turn, gpu=gpu)
        self.feed(machine.SlotGranted())

    def stop(self, scope: StopScope) -> None:
        """End the training soon and keep the model."""
        self.feed(machine.StopRequested(scope))

    def limit_reached(self, error: RtcError) -> None:
        """It ran for as long as it may: end it soon, keep the model, and say why."""
        self.feed(machine.LimitReached(error))

    def cancel(self) -> None:
        """End the job now and discard it."""
        self.feed(machine.CancelRequested())

    async def results(self) -> FileSource:
        """Return what the job left behind, ready to be sent.

        Raises:
            RtcError: it cannot be read.
        """
        if self._results is None:
            self._results = await in_thread(
                None,
                self._tools.files.results,
                self.job_id,
                self.record.spec,
                self._machine.finished_steps,
            )
        return self._results

    async def images(self, index: int | None) -> FileSource:
        """Return the images that a training step has drawn so far, ready to be sent.

        Raises:
            BadRequest: the job has no such training.
        """
        steps = self.record.spec.steps
        step = steps[index] if index is not None and index < len(steps) else None
        if not isinstance(step, TrainStep):
            raise BadRequest(reason=f"the job has no training as its step {index}")
        return await in_thread(None, self._tools.files.images, self.job_id, step)

    async def resume(self) -> None:
        """Go on after a restart of the worker."""
        step = self._machine.step
        if self.state is JobState.COLLECTING:
            self._spawn(self._collect())
        elif (
            step is not None
            and not self.has_ended
            and self.state
            not in (
                JobState.QUEUED,
                JobState.STAGING,
            )
        ):
            restarts = self.record.restarts
            folder = self._tools.files.step_dir(self.job_id, step, restarts)
            adopted = await self._tools.executor.adopt(folder)
            if adopted is None:
                # We were stopped between the decision and the deed.
                self._spawn(self._run(step))
            else:
                self._running = adopted
                self._spawn(self._follow(step, adopted))
                self._repeat_request()

    async def close(self) -> None:
        """Let go of the job; its runner goes on and can be adopted later."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the driver --------------------------------------------------------------------

    def feed(self, event: machine.Event) -> None:
        """Take an event and perform what the machine decides."""
        for instruction in self._machine.handle(event, monotonic()):
            self._perform(instruction)

    def _perform(self, instruction: machine.Instruction) -> None:
        match instruction:
            case machine.Record(state, step, error):
                self._record(state, step, error)
            case machine.StartStep(step):
                self._spawn(self._run(step))
            case machine.StopStep():
                if self._running is not None:
                    self._running.stop()
            case machine.CancelStep():
                self._asked.set()
                if self._running is not None:
                    self._running.cancel()
            case machine.CollectResults():
                self._spawn(self._collect())
            case machine.Discard():
                self._spawn(self._discard())

    def _record(
        self, state: JobState, step: int | None, error: RtcError | None
    ) -> None:
        wire = error.to_wire() if error is not None else None
        now = time.time()
        event = JobEvent(
            job_id=self.job_id,
            seq=self._seq + 1,
            at=now,
            state=state.value,
            step=step,
            error=wire,
        )
        before = self.record
        if step != before.step:
            before = msgspec.structs.replace(
                before,
                events_offset=0,
                epoch=None,
                done=0,
                total=0,
                restarts=0,
                reached=Reached(),
            )
        if state is JobState.STARTING and before.started_at is None:
            before = msgspec.structs.replace(before, started_at=now)
        events: list[StepEvent] = [event]
        again, self._again = self._again, None
        is_same = step is not None and step == self.record.step
        if again is not None and is_same and state in _BEGINNING:
            before = msgspec.structs.replace(
                before,
                events_offset=0,
                restarts=before.restarts + 1,
                reached=again.reached,
            )
            line = TrainLog(
                job_id=self.job_id,
                seq=event.seq + 1,
                at=now,
                step=self._machine.step or 0,
                lines=[again.line],
            )
            events.append(line)
        record = msgspec.structs.replace(
            before,
            state=state,
            step=step,
            error=wire,
            finished_steps=list(self._machine.finished_steps),
            stop_scope=self._machine.stop_scope,
            # A clock that was set back has no job end before it began.
            ended_at=max(now, before.started_at or 0.0) if state in ENDED else None,
        )
        is_vital = state not in (JobState.SUBMITTED, JobState.STAGING)
        self._write(record, events, is_vital=is_vital)
        self._on_change(self)

    def _write(
        self, record: JobRecord, events: list[StepEvent], *, is_vital: bool = False
    ) -> None:
        self._tools.journal.write(record, events, is_vital=is_vital)
        self.record = record
        self._seq += len(events)
        self._wake()

    def _wake(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let no failure of our own leave a job that never ends."""
        try:
            await coroutine
        except RtcError as error:
            self._break(error)
        # Whatever it is, the user must see an end and the log must have the reason.
        except Exception:
            logger.exception("The job %s failed inside the worker", self.job_id)
            reason = "the worker itself failed; its log says why"
            name = self.record.spec.name
            self._break(StepFailed(step=name, reason=reason, last_lines=""))

    def _break(self, error: RtcError) -> None:
        logger.warning("The job %s broke: %s", self.job_id, error)
        if self._running is not None:
            with contextlib.suppress(RtcError):
                self._running.cancel()
        if self.state is JobState.COLLECTING:
            self.feed(machine.CollectingFailed(error))
        elif not self.has_ended and self._machine.step is not None:
            self.feed(machine.StepEnded(error))

    # -- steps -------------------------------------------------------------------------

    async def _run(self, step: int) -> None:
        """Start a step and follow it to its end."""
        files, spec = self._tools.files, self.record.spec
        restarts = self.record.restarts
        try:
            wanted = spec.steps[step]
            kept = Kept()
            if restarts:
                await self._pause()
                kept = await in_thread(None, self._tries(step).rescue)
            if self.state is JobState.CANCELLING:
                self.feed(machine.StepEnded(None))
                return
            package = files.package_dir(self.job_id)
            order = order_for(
                wanted,
                trainer=self._tools.trainer,
                package_dir=str(package),
                config_dir=str(files.config_dir(self.job_id, step)),
                config_name=files.config_name(wanted),
                allow_wandb=spec.allow_wandb,
                resume=named_from(package, kept.checkpoint),
                kept_dir=str(files.kept_dir(self.job_id, step)) if restarts else None,
                published=self.record.published_for(wanted),
            )
            if self.record.gpu is not None:
                # The slot's, or of an earlier worker's slot that the job still holds.
                shown = {"CUDA_VISIBLE_DEVICES": self.record.gpu}
                shown = {**self._tools.gpu_variables.get(self.record.gpu, shown)}
                order = msgspec.structs.replace(
                    order, environment={**shown, **order.environment}
                )
            folder = files.step_dir(self.job_id, step, restarts)
            running = await self._tools.executor.start(order, folder)
        except RunnerNotStarted as error:
            await self._end(step, verdict_on_start(error.reason, restarts), None)
            return
        except RtcError as error:
            self.feed(machine.StepEnded(error))
            return
        except OSError as error:
            reason = f"the worker could not start it ({error.strerror})"
            name = step_name(spec.steps[step])
            failed = StepFailed(step=name, reason=reason, last_lines="")
            self.feed(machine.StepEnded(failed))
            return
        self._running = running
        self._repeat_request()
        await self._follow(step, running)

    async def _pause(self) -> None:
        """Wait before a restart, unless the job is cancelled meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s):
                await self._asked.wait()

    def _tries(self, step: int) -> StepTries:
        return StepTries(self._tools.files, self.job_id, self.record.spec, step)

    def _repeat_request(self) -> None:
        """Pass on what the user asked for while nothing was running yet."""
        if self._running is None:
            return
        if self.state is JobState.STOPPING:
            self._running.stop()
        elif self.state is JobState.CANCELLING:
            self._running.cancel()

    async def _follow(self, step: int, running: RunningStep) -> None:
        """Journal a step's events as they come, then judge its outcome."""
        reporter = ProgressReporter(step, self._publish)
        async for offset, event in running.events(self.record.events_offset):
            self._read_to = offset
            if not self._was_told(event):
                reporter.report(event)
            if isinstance(event, StepProgress) and self.state is JobState.STARTING:
                self.feed(machine.StepRunning())
        outcome = await running.outcome()
        self._running = None
        wanted, worker = self.record.spec.steps[step], self._tools.worker_name
        decided = verdict(wanted, outcome, self.record.restarts)
        await self._end(step, decided, judge(wanted, outcome, worker=worker))

    def _was_told(self, event: RunnerEvent) -> bool:
        return (
            self.record.restarts > 0
            and isinstance(event, StepProgress)
            and is_repeat(self.record.reached, event)
        )

    async def _end(self, step: int, decided: Verdict, error: RtcError | None) -> None:
        """Begin a step again that was cut off, or say how it ended."""
        match decided:
            case None:
                if error is None and self.record.restarts:
                    await in_thread(None, self._tries(step).forget)
                self.feed(machine.StepEnded(error))
            case GiveUp(reason):
                lost = JobLost(job_id=self.job_id, reason=reason)
                self.feed(machine.RunnerLost(lost))
            case Restart(reason, pause_s):
                logger.warning("The job %s was cut off: %s", self.job_id, reason)
                try:
                    kept = await in_thread(None, self._tries(step).rescue)
                except OSError as failed:
                    place = self._tools.files.job_dir(self.job_id)
                    raise storage_error(failed, place, place=_PLACE) from None
                wanted, reached = self.record.spec.steps[step], self.record.reached
                if kept.checkpoint is None and reached.ended_epoch is not None:
                    # What was told is not true any more: the curve begins anew.
                    reached = Reached()
                restarts = self.record.restarts + 1
                epochs = kept.epochs or 0 if kept.checkpoint is not None else None
                line = restart_line(wanted, reason, restarts, epochs)
                self._again = _Again(line, reached)
                self._pause_s = pause_s
                self.feed(machine.StepInterrupted())

    def _publish(self, event: UnnumberedEvent) -> None:
        message = event.numbered(self.job_id, self._seq + 1)
        record = msgspec.structs.replace(self.record, events_offset=self._read_to)
        if isinstance(event.event, StepProgress):
            reached = reached_by(record.reached, event.event)
            record = msgspec.structs.replace(record, reached=reached)
        if isinstance(message, ProgressReport):
            record = msgspec.structs.replace(
                record,
                epoch=record.epoch if message.epoch is None else message.epoch,
                done=record.done if message.done is None else message.done,
                total=record.total if message.total is None else message.total,
                trail=record.trail.after(message),
            )
        self._write(record, [message])

    # -- the end -------------------------------------------------------------------

    async def _collect(self) -> None:
        try:
            await self.results()
        except RtcError as error:
            self.feed(machine.CollectingFailed(error))
        else:
            # It may have been cancelled in the meantime.
            if self.state is JobState.COLLECTING:
                self._publishing = asyncio.ensure_future(self._publish_models())
                await asyncio.gather(self._publishing, return_exceptions=True)
            self.feed(machine.ResultsCollected())

    async def _publish_models(self) -> None:
        """Publish what was trained, if that was asked for; it never fails the job."""
        publisher = self._tools.publisher
        if publisher is None or self.record.model is not None:
            return
        try:
            outcomes = await publisher.publish(self.record)
            if self.state is JobState.COLLECTING:
                self._write(*told(self.record, outcomes, self._seq, time.time()))
        # Whatever it is, what the job has made is there.
        except Exception:
            logger.exception("The models of %s were not published", self.job_id)

    async def _discard(self) -> None:
        if self._publishing is not None:
            # Nobody wants it any more, and its files go.
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        try:
            await in_thread(None, self._tools.files.discard, self.job_id)
        except RtcError as error:
            logger.warning("%s", error)
