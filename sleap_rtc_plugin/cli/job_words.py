"""Jobs as rows of a table and as JSON lines, and how long ago something was.

Pure: `now` is an argument. Used by `sleap-remote jobs`.
"""

from typing import Any, Final

import msgspec

from sleap_rtc_plugin.protocol.errors import from_wire
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.session.job_search import FoundJob

__all__ = ["COLUMNS", "job_line", "job_row", "span", "state_words"]

COLUMNS: Final = ("Job", "Name", "Owner", "Worker", "State", "Queue", "Age", "Kept for")
_SPANS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def job_line(found: FoundJob) -> dict[str, Any]:
    """Return a job as `--json` prints it; times are Unix seconds of its worker."""
    job = found.job
    line: dict[str, Any] = {"job_id": job.job_id, "worker": found.worker.name}
    line["worker_id"] = found.worker.peer_id
    for name in job.__struct_fields__:
        line.setdefault(name, getattr(job, name))
    if job.error is not None:
        line["error"] = {"code": job.error.code, "message": str(from_wire(job.error))}
    built: dict[str, Any] = msgspec.to_builtins(line)
    return built


def job_row(found: FoundJob, now: float) -> list[str]:
    """Return a job as a row of the table, by `COLUMNS`; `now` in Unix seconds."""
    job = found.job
    queue = "" if job.position is None else f"{job.position}."
    if job.starts_in_s is not None:
        queue += f" in about {span(job.starts_in_s)}"
    kept = "" if job.expires_at is None else span(job.expires_at - now)
    return [
        job.job_id,
        job.name,
        job.owner,
        found.worker.name,
        state_words(found),
        queue,
        # A worker's clock may be ahead of ours.
        span(now - job.created_at),
        "removed" if job.results_removed else kept,
    ]


def state_words(found: FoundJob) -> str:
    """Say where a job stands, such as `running, step 1 of 2, epoch 12`."""
    job = found.job
    parts = [job.state]
    if job.state in (JobState.STARTING, JobState.RUNNING, JobState.STOPPING):
        if job.step is not None and job.steps > 1:
            parts.append(f"step {job.step + 1} of {job.steps}")
        if job.total:
            parts.append(f"{job.done} of {job.total} frames")
        elif job.epoch is not None:
            parts.append(f"epoch {job.epoch + 1}")
    return ", ".join(parts)


def span(seconds: float) -> str:
    """Say a time in its largest unit, such as `3 h`; what is past counts as none."""
    left_s = max(0.0, seconds)
    for unit_s, unit in _SPANS:
        if left_s >= unit_s:
            return f"{left_s / unit_s:.0f} {unit}"
    return "0 s"
