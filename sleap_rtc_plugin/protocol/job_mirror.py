"""A client's picture of a job, built from its numbered events.

Events may come again after a reconnection, never out of order without a gap being
seen; the mirror says from which number to ask again. Pure; read by the command line
and by the companion.
"""

from dataclasses import dataclass, field
from typing import Final

from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RtcError,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_LOG_LINE_CHARS,
    MAX_LOSSES_PER_STEP,
)
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    ModelPublished,
    ProgressReport,
    StepEvent,
    TrainLog,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue

__all__ = [
    "EventApplied",
    "EventRepeated",
    "EventsMissing",
    "JobMirror",
    "JobNews",
    "StepMirror",
]

# What a client hears of a job: its numbered events, and its place while it waits.
JobNews = StepEvent | JobQueue

_STATES: Final = {state.value: state for state in JobState}
# Where a client may be shown a job going; the worker's own table is `protocol.job`.
_RANK: Final = {
    JobState.SUBMITTED: 0,
    JobState.STAGING: 1,
    JobState.QUEUED: 2,
    JobState.STARTING: 3,
    JobState.RUNNING: 3,
    JobState.STOPPING: 3,
    JobState.CANCELLING: 4,
    JobState.COLLECTING: 5,
}
_LAST_LINES: Final = 20


@dataclass(frozen=True)
class EventApplied:
    """The event was new and next; show it."""

    event: StepEvent


@dataclass(frozen=True)
class EventRepeated:
    """The event was known already."""


@dataclass(frozen=True)
class EventsMissing:
    """Events are missing before this one; attach again from `since`."""

    since: int


Outcome = EventApplied | EventRepeated | EventsMissing


@dataclass
class StepMirror:
    """What is known of one step. Losses are the newest of their names."""

    epoch: int | None = None
    batch: int | None = None
    losses: dict[str, float] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    rate: float = 0.0
    has_begun: bool = False
    has_ended: bool = False


class JobMirror:
    """One job as its client sees it."""

    def __init__(self, job_id: str, spec: JobSpec) -> None:
        """Begin with what was submitted."""
        self.job_id = job_id
        self.spec = spec
        self.state = JobState.SUBMITTED
        self.step: int | None = None
        self.error: RtcError | None = None
        self.last_seq = 0
        self.steps = [StepMirror() for _ in spec.steps]
        self.last_lines: list[str] = []
        self.was_stopped = False
        self.place: JobQueue | None = None
        self.published: ModelPublished | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the job reached one of its ends."""
        return self.state in ENDED

    def take_place(self, place: JobQueue) -> bool:
        """Take where the job stands in its queue; false where it waits no more.

        Raises:
            RemoteProtocolError: the place of another job.
        """
        if place.job_id != self.job_id:
            raise RemoteProtocolError(detail="the place of another job")
        if self.state is not JobState.QUEUED:
            return False
        self.place = place
        return True

    def handle(self, event: StepEvent) -> Outcome:
        """Take an event of this job.

        Raises:
            RemoteProtocolError: an event of another job, an impossible state or step.
        """
        if event.job_id != self.job_id:
            raise RemoteProtocolError(detail="an event of another job")
        if event.seq <= self.last_seq:
            return EventRepeated()
        if event.seq > self.last_seq + 1:
            return EventsMissing(since=self.last_seq)
        if isinstance(event, JobEvent):
            self._apply_state(event)
        elif isinstance(event, ProgressReport):
            self._apply_progress(event, self._step(event.step))
        elif isinstance(event, ModelPublished):
            self.published = event
        else:
            self._apply_log(event)
        self.last_seq = event.seq
        return EventApplied(event)

    def _apply_state(self, event: JobEvent) -> None:
        state = _STATES.get(event.state)
        if state is None:
            raise RemoteProtocolError(detail=f"a job state {clean_text(event.state)}")
        goes_back = state not in ENDED and _RANK[state] < _RANK.get(self.state, 0)
        if self.has_ended or goes_back:
            raise RemoteProtocolError(
                detail=f"a job going from {self.state.value} to {state.value}"
            )
        if event.step is not None:
            self._step(event.step)
            self.step = event.step
        self.state = state
        self.place = None
        self.was_stopped = self.was_stopped or state is JobState.STOPPING
        self.error = from_wire(event.error) if event.error else None

    def _apply_progress(self, event: ProgressReport, step: StepMirror) -> None:
        step.has_begun = True
        if event.kind == "predict":
            step.done, step.total = event.done or 0, event.total or 0
            step.rate = event.rate or 0.0
            return
        if event.kind == "train_begin":
            # A training that begins once more has lost what it told before.
            step.epoch, step.has_ended = None, False
            step.losses.clear()
        if event.kind == "train_end":
            step.has_ended = True
        if event.epoch is not None:
            step.epoch = event.epoch
        step.batch = event.batch
        for name, loss in event.losses.items():
            if name in step.losses or len(step.losses) < MAX_LOSSES_PER_STEP:
                step.losses[name] = loss

    def _apply_log(self, event: TrainLog) -> None:
        self._step(event.step)
        lines = (clean_text(line, MAX_LOG_LINE_CHARS) for line in event.lines)
        self.last_lines = [*self.last_lines, *lines]
        del self.last_lines[:-_LAST_LINES]

    def _step(self, index: int) -> StepMirror:
        if index >= len(self.steps):
            raise RemoteProtocolError(detail=f"an event of step {index}")
        return self.steps[index]
