"""The life of a job on its worker, as a machine: what may happen when, and what next.

Pure: the job coordinator feeds it what users ask and what runners report, performs
the instructions, and writes every change to the journal before anyone hears of it.

    SUBMITTED -> STAGING -> QUEUED -> STARTING -> RUNNING -> COLLECTING -> SUCCEEDED

From RUNNING a next step leads back to STARTING, and so does a step that was cut off and
begins again; a stop goes by STOPPING, a cancel by CANCELLING to CANCELLED. FAILED and
LOST (cut off too often) also pass through COLLECTING, so that what earlier steps made
is kept. REJECTED could not begin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from sleap_rtc_plugin.protocol.errors import JobCancelled, JobLost, RtcError
from sleap_rtc_plugin.protocol.machine import Machine
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, StopScope

__all__ = ["ENDED", "Job", "JobState"]


class JobState(StrEnum):
    """Where a job stands; the values cross the wire."""

    SUBMITTED = "submitted"
    STAGING = "staging"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    CANCELLING = "cancelling"
    COLLECTING = "collecting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    LOST = "lost"


ENDED: Final = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.REJECTED,
        JobState.LOST,
    }
)

# -- events --------------------------------------------------------------------


@dataclass(frozen=True)
class StagingBegan:
    """The job is known; its package may arrive."""


@dataclass(frozen=True)
class PackageStaged:
    """Every file of the package is verified, in place and acceptable."""


@dataclass(frozen=True)
class PackageRefused:
    """The package is not one that this worker runs."""

    error: RtcError


@dataclass(frozen=True)
class SlotGranted:
    """The worker has room to run this job now."""


@dataclass(frozen=True)
class StepRunning:
    """The step's trainer or predictor said its first word."""


@dataclass(frozen=True)
class StepEnded:
    """The step ended; `error` is None where it ended well."""

    error: RtcError | None


@dataclass(frozen=True)
class StepInterrupted:
    """The step was cut off by no fault of its own, and may begin again."""


@dataclass(frozen=True)
class RunnerLost:
    """The step was cut off once more than it may be."""

    error: JobLost


@dataclass(frozen=True)
class StopRequested:
    """The user wants the training ended and its model kept."""

    scope: StopScope


@dataclass(frozen=True)
class LimitReached:
    """The job has run for as long as one may; what it has trained is kept."""

    error: RtcError


@dataclass(frozen=True)
class CancelRequested:
    """The user wants the job ended and discarded."""


@dataclass(frozen=True)
class ResultsCollected:
    """The results are verified and ready to be fetched."""


@dataclass(frozen=True)
class CollectingFailed:
    """The results could not be gathered."""

    error: RtcError


Event = (
    StagingBegan
    | PackageStaged
    | PackageRefused
    | SlotGranted
    | StepRunning
    | StepEnded
    | StepInterrupted
    | RunnerLost
    | StopRequested
    | LimitReached
    | CancelRequested
    | ResultsCollected
    | CollectingFailed
)

# -- instructions ----------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """Write this change to the journal, then tell whoever watches."""

    state: JobState
    step: int | None
    error: RtcError | None = None


@dataclass(frozen=True)
class StartStep:
    """Start the step of this index."""

    step: int


@dataclass(frozen=True)
class StopStep:
    """Tell the running step to end soon and keep what it has."""

    step: int


@dataclass(frozen=True)
class CancelStep:
    """End the running step now."""

    step: int


@dataclass(frozen=True)
class CollectResults:
    """Gather what the steps wrote; `steps` ended well."""

    steps: tuple[int, ...]


@dataclass(frozen=True)
class Discard:
    """Delete what the job left behind."""


Instruction = Record | StartStep | StopStep | CancelStep | CollectResults | Discard


class Job(Machine[JobState, Event, Instruction]):
    """One job, from its submission to one of the ends."""

    _ENDED: ClassVar[Mapping[type, str]] = {
        StopRequested: "_nothing",
        LimitReached: "_nothing",
        CancelRequested: "_nothing",
        StepEnded: "_nothing",
        StepInterrupted: "_nothing",
        RunnerLost: "_nothing",
        StepRunning: "_nothing",
        ResultsCollected: "_nothing",
        CollectingFailed: "_nothing",
        PackageStaged: "_nothing",
        PackageRefused: "_nothing",
    }
    TABLE: ClassVar = {
        JobState.SUBMITTED: {
            StagingBegan: "_staging",
            PackageRefused: "_rejected",
            StopRequested: "_cancelled",
            CancelRequested: "_cancelled",
        },
        JobState.STAGING: {
            StagingBegan: "_nothing",
            PackageStaged: "_queued",
            PackageRefused: "_rejected",
            StopRequested: "_cancelled",
            CancelRequested: "_cancelled",
        },
        JobState.QUEUED: {
            SlotGranted: "_start",
            StopRequested: "_cancelled",
            CancelRequested: "_cancelled",
        },
        JobState.STARTING: {
            StepRunning: "_running",
            StepEnded: "_step_ended",
            StepInterrupted: "_restart",
            RunnerLost: "_lost",
            StopRequested: "_stop",
            LimitReached: "_limit",
            CancelRequested: "_cancel",
        },
        JobState.RUNNING: {
            StepRunning: "_nothing",
            StepEnded: "_step_ended",
            StepInterrupted: "_restart",
            RunnerLost: "_lost",
            StopRequested: "_stop",
            LimitReached: "_limit",
            CancelRequested: "_cancel",
        },
        JobState.STOPPING: {
            StepRunning: "_nothing",
            StepEnded: "_step_ended",
            StepInterrupted: "_restart",
            RunnerLost: "_lost",
            StopRequested: "_widen_stop",
            LimitReached: "_limit",
            CancelRequested: "_cancel",
        },
        JobState.CANCELLING: {
            StepRunning: "_nothing",
            StepEnded: "_cancelled",
            StepInterrupted: "_cancelled",
            RunnerLost: "_cancelled",
            StopRequested: "_nothing",
            LimitReached: "_nothing",
            CancelRequested: "_nothing",
        },
        JobState.COLLECTING: {
            ResultsCollected: "_ended",
            CollectingFailed: "_collecting_failed",
            StopRequested: "_nothing",
            LimitReached: "_nothing",
            CancelRequested: "_cancelled",
        },
        JobState.SUCCEEDED: _ENDED,
        JobState.FAILED: _ENDED,
        JobState.CANCELLED: _ENDED,
        JobState.REJECTED: _ENDED,
        JobState.LOST: _ENDED,
    }

    def __init__(self, job_id: str, spec: JobSpec) -> None:
        """Begin a job that was just submitted."""
        super().__init__(JobState.SUBMITTED)
        self.job_id = job_id
        self.spec = spec
        self.step: int | None = None
        self.error: RtcError | None = None
        self.finished_steps: list[int] = []
        self.stop_scope: StopScope | None = None

    @classmethod
    def restore(
        cls,
        job_id: str,
        spec: JobSpec,
        *,
        state: JobState,
        step: int | None,
        error: RtcError | None,
        finished_steps: list[int],
        stop_scope: StopScope | None,
    ) -> "Job":
        """Take a job up again as a journal remembers it."""
        job = cls(job_id, spec)
        job.state = state
        job.step = step
        job.error = error
        job.finished_steps = list(finished_steps)
        job.stop_scope = stop_scope
        return job

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to this job any more."""
        return self.state in ENDED

    # -- transitions -----------------------------------------------------------

    def _nothing(self, event: Event, now: float) -> list[Instruction]:
        return []

    def _staging(self, event: Event, now: float) -> list[Instruction]:
        return self._to(JobState.STAGING)

    def _queued(self, event: Event, now: float) -> list[Instruction]:
        return self._to(JobState.QUEUED)

    def _rejected(self, event: PackageRefused, now: float) -> list[Instruction]:
        self.error = event.error
        return [*self._to(JobState.REJECTED), Discard()]

    def _start(self, event: Event, now: float) -> list[Instruction]:
        return self._begin_step(0)

    def _running(self, event: Event, now: float) -> list[Instruction]:
        return self._to(JobState.RUNNING)

    def _stop(self, event: StopRequested, now: float) -> list[Instruction]:
        self.stop_scope = event.scope
        return [*self._to(JobState.STOPPING), StopStep(self._current_step())]

    def _widen_stop(self, event: StopRequested, now: float) -> list[Instruction]:
        if event.scope == self.stop_scope or event.scope == "step":
            return []
        # Recorded, or a restarted worker would go on with the next step.
        self.stop_scope = event.scope
        return self._to(JobState.STOPPING)

    def _limit(self, event: LimitReached, now: float) -> list[Instruction]:
        if self.error is not None:
            return []
        is_told = self.state is JobState.STOPPING
        # With the error it fails in the end, and with the model it still has.
        self.error, self.stop_scope = event.error, "job"
        stopping = self._to(JobState.STOPPING)
        return stopping if is_told else [*stopping, StopStep(self._current_step())]

    def _cancel(self, event: Event, now: float) -> list[Instruction]:
        return [*self._to(JobState.CANCELLING), CancelStep(self._current_step())]

    def _cancelled(self, event: Event, now: float) -> list[Instruction]:
        self.error = JobCancelled(job_id=self.job_id)
        return [*self._to(JobState.CANCELLED), Discard()]

    def _step_ended(self, event: StepEnded, now: float) -> list[Instruction]:
        step = self._current_step()
        stopped_inference = self.state is JobState.STOPPING and isinstance(
            self.spec.steps[step], PredictStep
        )
        if event.error is not None and not stopped_inference:
            self.error = self.error or event.error
            return self._collect()
        if event.error is None and not stopped_inference:
            self.finished_steps.append(step)
        is_last = step + 1 == len(self.spec.steps)
        if is_last or self.stop_scope == "job":
            return self._collect()
        self.stop_scope = None
        return self._begin_step(step + 1)

    def _restart(self, event: Event, now: float) -> list[Instruction]:
        step = self._current_step()
        if self.state is JobState.STOPPING:
            if isinstance(self.spec.steps[step], PredictStep):
                return self._step_ended(StepEnded(None), now)
            # The step is told again; it ends after one batch, with its model.
            return [*self._to(JobState.STOPPING), StartStep(step)]
        return self._begin_step(step)

    def _lost(self, event: RunnerLost, now: float) -> list[Instruction]:
        self.error = self.error or event.error
        return self._collect()

    def _ended(self, event: Event, now: float) -> list[Instruction]:
        if self.error is None:
            return self._to(JobState.SUCCEEDED)
        lost = isinstance(self.error, JobLost)
        return self._to(JobState.LOST if lost else JobState.FAILED)

    def _collecting_failed(
        self, event: CollectingFailed, now: float
    ) -> list[Instruction]:
        # What went wrong first is what the user must know.
        self.error = self.error or event.error
        return self._ended(event, now)

    # -- parts of transitions ----------------------------------------------------

    def _to(self, state: JobState) -> list[Instruction]:
        self.state = state
        return [Record(state, self.step, self.error)]

    def _begin_step(self, step: int) -> list[Instruction]:
        self.step = step
        return [*self._to(JobState.STARTING), StartStep(step)]

    def _collect(self) -> list[Instruction]:
        steps = tuple(self.finished_steps)
        return [*self._to(JobState.COLLECTING), CollectResults(steps)]

    def _current_step(self) -> int:
        return 0 if self.step is None else self.step
