"""Turns what a step runner wrote into the job's events for its clients.

Copies fields and nothing else; numbers, times and storage are the caller's, who
owns the job's journal.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from sleap_rtc_plugin.protocol.messages import ProgressReport, TrainLog
from sleap_rtc_worker.step_records import (
    RunnerEvent,
    StepLog,
    StepProgress,
    StepSignal,
)

__all__ = ["ProgressReporter", "UnnumberedEvent", "to_message"]

_SIGNAL_WORDS: Final = {
    "stop": "[worker] asking sleap-nn to stop after this batch",
    "interrupt": "[worker] interrupting sleap-nn",
    "terminate": "[worker] sleap-nn did not react, terminating it",
    "kill": "[worker] sleap-nn did not react, killing it",
}


class UnnumberedEvent(Struct, frozen=True, kw_only=True):
    """A step's event on its way to the journal, which gives it its number.

    Attributes:
        step: the step's index in the job.
        at: Unix seconds, by the runner's clock.
        event: what the runner wrote.
    """

    step: int
    at: float
    event: RunnerEvent

    def numbered(self, job_id: str, seq: int) -> ProgressReport | TrainLog:
        """Return the message with its job and number."""
        message = to_message(job_id, self.step, seq, self.event)
        if message is None:
            raise ValueError("an event without a message was published")
        return message


def to_message(
    job_id: str, step: int, seq: int, event: RunnerEvent
) -> ProgressReport | TrainLog | None:
    """Make the message of a runner's event, or None where clients get none.

    Args:
        job_id: the job.
        step: the step's index in the job.
        seq: the event's number in the job, from 1.
        event: what the runner wrote.
    """
    match event:
        case StepProgress():
            return ProgressReport(
                job_id=job_id,
                seq=seq,
                at=event.at,
                step=step,
                kind=event.event,
                epoch=event.epoch,
                batch=event.batch,
                losses=event.losses,
                done=event.done,
                total=event.total,
                rate=event.rate,
            )
        case StepLog():
            return TrainLog(
                job_id=job_id,
                seq=seq,
                at=event.at,
                step=step,
                lines=event.lines,
                dropped=event.dropped,
            )
        case StepSignal():
            return TrainLog(
                job_id=job_id,
                seq=seq,
                at=event.at,
                step=step,
                lines=[_SIGNAL_WORDS[event.how]],
            )
        case _:
            return None


class ProgressReporter:
    """Publishes one step's events.

    Args:
        step: the step's index in the job.
        publish: takes each event that clients get; the caller numbers and stores it.
    """

    def __init__(self, step: int, publish: Callable[[UnnumberedEvent], None]) -> None:
        self._step = step
        self._publish = publish

    def report(self, event: RunnerEvent) -> bool:
        """Publish an event; return whether it was one that clients get."""
        if not isinstance(event, StepProgress | StepLog | StepSignal):
            return False
        self._publish(UnnumberedEvent(step=self._step, at=event.at, event=event))
        return True
