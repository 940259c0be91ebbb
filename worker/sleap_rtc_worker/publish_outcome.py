"""What became of a model that a job was to publish, and how the job tells it.

Pure; made by `model_publishing`, told by `job_run`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.messages import ModelPublished, StepEvent, TrainLog
from sleap_rtc_worker.journal import JobRecord
from sleap_rtc_worker.log_lines import clean_line

__all__ = ["Outcome", "for_older_client", "told"]


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        model: its id, or None where it is not in the registry.
        alias: the one that it got.
        error: why it is not there, or has not the alias that it was to have.
    """

    model: str | None = None
    alias: str | None = None
    error: RtcError | None = None

    @property
    def line(self) -> str:
        """Say it in a line of the job's log."""
        if self.model is None:
            return f"The model was not published. {self.error}"
        if self.alias is not None:
            return f"Published as {self.alias} ({self.model})."
        said = f"Published as {self.model}, without an alias."
        return f"{said} {self.error}" if self.error is not None else said


def for_older_client(event: StepEvent) -> StepEvent:
    """Return an event as a client knows it that has not heard of models.

    The numbers of a job's events have no gaps, so it gets lines that say nothing; the
    line of the log before it says the same in words.
    """
    if not isinstance(event, ModelPublished):
        return event
    return TrainLog(job_id=event.job_id, seq=event.seq, at=event.at, step=0, lines=[])


def told(
    record: JobRecord, outcomes: Sequence[Outcome], seq: int, now: float
) -> tuple[JobRecord, list[StepEvent]]:
    """Return a job's record and the events that tell what was published of it.

    Args:
        record: the job.
        outcomes: of each of its models; the last one is the one that it is known by.
        seq: the number of its newest event.
        now: Unix seconds.
    """
    events: list[StepEvent] = []
    for outcome in outcomes:
        if outcome.model is not None:
            record = msgspec.structs.replace(
                record, model=outcome.model, alias=outcome.alias
            )
        error = outcome.error.to_wire() if outcome.error is not None else None
        log = TrainLog(
            job_id=record.job_id,
            seq=seq + len(events) + 1,
            at=now,
            step=record.step or 0,
            lines=[clean_line(outcome.line)],
        )
        published = ModelPublished(
            job_id=record.job_id,
            seq=log.seq + 1,
            at=now,
            model=outcome.model,
            alias=outcome.alias,
            error=error,
        )
        events += [log, published]
    return record, events
