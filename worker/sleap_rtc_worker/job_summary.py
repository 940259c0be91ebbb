"""A job in one row of a list, and who keeps its files from being removed.

Pure; used by `job_run`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sleap_rtc_plugin.protocol.errors import ErrorInfo, ResultsRemoved
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_worker.job_queue import Place
from sleap_rtc_worker.journal import JobRecord

__all__ = ["Holders", "summary_of"]


def summary_of(
    record: JobRecord,
    *,
    last_seq: int,
    place: Place | None,
    expires_at: float | None,
) -> JobSummary:
    """Return a job in one row.

    Args:
        record: the job.
        last_seq: the number of its newest event.
        place: where in the queue it stands, if it waits there.
        expires_at: until when its results are kept, Unix seconds, or None.
    """
    return JobSummary(
        job_id=record.job_id,
        name=record.spec.name,
        owner=record.spec.owner,
        state=record.state.value,
        steps=len(record.spec.steps),
        step=record.step,
        epoch=record.epoch,
        done=record.done,
        total=record.total,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        last_seq=last_seq,
        error=_shortened(record.error),
        position=place.position if place is not None else None,
        starts_in_s=place.starts_in_s if place is not None else None,
        restarts=record.restarts,
        expires_at=record.removed_at if were_removed(record) else expires_at,
        results_removed=were_removed(record),
        model=record.model,
    )


def were_removed(record: JobRecord) -> bool:
    """Tell whether results were removed; a job that made none has none to miss."""
    return record.removed_at is not None and bool(record.finished_steps)


class Holders:
    """Who reads a job's files now."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.count = 0

    @contextmanager
    def one_more(self, record: JobRecord) -> Iterator[None]:
        """Keep the files of `record` from being removed meanwhile.

        Raises:
            ResultsRemoved: they were removed before.
        """
        if record.removed_at is not None and were_removed(record):
            date = time.strftime("%Y-%m-%d", time.localtime(record.removed_at))
            raise ResultsRemoved(job_id=record.job_id, date=date)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def _shortened(error: ErrorInfo | None) -> ErrorInfo | None:
    """Cut an error to what a client reads of one, so that a row stays a row."""
    if error is None:
        return None
    fields = {name: text[:MAX_ERROR_TEXT_CHARS] for name, text in error.fields.items()}
    return ErrorInfo(code=error.code, fields=fields)
