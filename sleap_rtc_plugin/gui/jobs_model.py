"""What the jobs window shows: words for each row, what may be done with a job.

Pure functions that make `TableRow`s. Called by the jobs window.
"""

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from qtpy.QtCore import QDateTime, QLocale

from sleap_rtc_plugin.companion.messages import JobRow
from sleap_rtc_plugin.gui.home_coming import Waiting
from sleap_rtc_plugin.gui.messages import job_words
from sleap_rtc_plugin.gui.quantities import UNKNOWN, format_duration
from sleap_rtc_plugin.gui.tables import TableRow
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState

__all__ = [
    "JOB_COLUMNS",
    "WAITING_COLUMNS",
    "allowed_actions",
    "job_table_row",
    "merge_log",
    "shown_error",
    "waiting_table_row",
]

JOB_COLUMNS: Final = ("Name", "State", "Owner", "Worker", "Submitted", "Duration")
WAITING_COLUMNS: Final = ("Project", "From", "Why they wait")
MAX_HEAD_CHARS: Final = 40
MAX_ERROR_CHARS: Final = 600
_LATEST_S: Final = 253_370_764_800.0  # the year 9999
_STOPPABLE: Final = frozenset({JobState.STARTING, JobState.RUNNING})
_WITHOUT_LOG: Final = frozenset(
    {JobState.SUBMITTED, JobState.STAGING, JobState.QUEUED, JobState.REJECTED}
)
_WITH_RESULTS: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.LOST})


# -- jobs ------------------------------------------------------------------------------


def job_table_row(row: JobRow, now: float, *, head: str | None = None) -> TableRow:
    """Return a job as the table shows it.

    Args:
        row: the job, with names that a peer chose.
        now: the time, in Unix seconds.
        head: which model its step trains, where that is known.
    """
    cells = (
        clean_text(row.name) or row.job_id,
        _state(row, head),
        clean_text(row.owner) or UNKNOWN,
        clean_text(row.worker) or UNKNOWN,
        _submitted(row.created_at, now),
        _duration(row, now),
    )
    return TableRow(
        key=row.job_id,
        cells=cells,
        tip=_tip(row),
        is_dim=row.state in (JobState.CANCELLED, JobState.REJECTED),
    )


def _tip(row: JobRow) -> str:
    """Return what there is to know of a job besides its cells."""
    parts = [shown_error(row)]
    if row.restarts:
        times = "once" if row.restarts == 1 else f"{row.restarts} times"
        parts.append(f"It was begun again {times} after a fault of the machine.")
    if row.are_results_removed:
        parts.append("Its results were removed from the worker.")
    elif row.state in _WITH_RESULTS and _is_time(row.expires_at):
        moment = QDateTime.fromSecsSinceEpoch(int(row.expires_at or 0)).date()
        date = QLocale().toString(moment, QLocale.FormatType.ShortFormat)
        parts.append(f"The worker keeps its results at least until {date}.")
    return "\n".join(part for part in parts if part)


def shown_error(row: JobRow) -> str:
    """Return why a job went wrong, fit to show, or nothing."""
    return clean_text(row.error, MAX_ERROR_CHARS)


def _state(row: JobRow, head: str | None) -> str:
    words = job_words(row)
    if row.state == JobState.RUNNING and head and row.total <= 0:
        words = f"Training {clean_text(head, MAX_HEAD_CHARS)}"
        if row.epoch is not None:
            words += f", epoch {row.epoch + 1}"
    return words


def _submitted(seconds: float | None, now: float) -> str:
    """Say a time on this computer's clock: the hour today, the day as well before."""
    if not _is_time(seconds) or not _is_time(now):
        return UNKNOWN
    moment = QDateTime.fromSecsSinceEpoch(int(seconds or 0))
    locale, short = QLocale(), QLocale.FormatType.ShortFormat
    time = locale.toString(moment.time(), short)
    if moment.date() == QDateTime.fromSecsSinceEpoch(int(now)).date():
        return time
    return f"{locale.toString(moment.date(), short)} {time}"


def _is_time(seconds: float | None) -> bool:
    return seconds is not None and math.isfinite(seconds) and 0 < seconds < _LATEST_S


def _duration(row: JobRow, now: float) -> str:
    """Say how long it has been running, or ran."""
    if row.started_at is None:
        return UNKNOWN
    until = row.ended_at
    if until is None:
        if row.state in ENDED:
            return UNKNOWN
        # The worker's clock may be a little ahead of ours.
        until = max(now, row.started_at)
    return format_duration(until - row.started_at)


def allowed_actions(row: JobRow | None, *, has_folder: bool = False) -> frozenset[str]:
    """Return what may be done with a job now, as names of the window's buttons.

    Args:
        row: the chosen job.
        has_folder: its results are on this computer.
    """
    if row is None:
        return frozenset()
    allowed = set()
    if row.state != JobState.REJECTED:
        allowed.add("attach")
    if row.state not in _WITHOUT_LOG:
        allowed.add("logs")
    if row.state in _STOPPABLE:
        allowed.add("stop")
    if row.state not in ENDED and row.state != JobState.CANCELLING:
        allowed.add("cancel")
    if row.state in _WITH_RESULTS and not row.are_results_removed:
        allowed.add("fetch")
    if has_folder:
        allowed.add("openFolder")
    return frozenset(allowed)


# -- results that wait -----------------------------------------------------------------


def waiting_table_row(waiting: Waiting) -> TableRow:
    """Return results that wait as the table shows them."""
    project = clean_text(PurePath(waiting.project).name) or UNKNOWN
    files = "\n".join(clean_text(path, MAX_ERROR_CHARS) for path in waiting.predictions)
    cells = (project, waiting.worker or UNKNOWN, waiting.reason)
    return TableRow(waiting.job_id, cells, tip=f"{waiting.reason}\n{files}")


# -- logs ------------------------------------------------------------------------------


def merge_log(shown: Sequence[str], latest: Sequence[str]) -> list[str]:
    """Return the lines of `latest` that come after those already shown.

    The companion always tells the last few lines; those that were told before are
    found where the end of the one meets the beginning of the other.
    """
    for overlap in range(min(len(shown), len(latest)), 0, -1):
        if list(shown[-overlap:]) == list(latest[:overlap]):
            return list(latest[overlap:])
    return list(latest)
