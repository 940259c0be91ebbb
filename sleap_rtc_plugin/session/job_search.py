"""Which job a person means: by its id, by the beginning of its id, or by its name.

Pure: decides over what the room's workers listed. Used by `session.room_jobs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors import JobAmbiguous, JobNotFound, RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_CANDIDATES_NAMED
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.session.worker_info import WorkerInfo

__all__ = ["FoundJob", "RoomJobs", "find_job"]

ID_PREFIX = "job-"


@dataclass(frozen=True)
class FoundJob:
    """A job, and the worker that has it."""

    worker: WorkerInfo
    job: JobSummary


@dataclass(frozen=True)
class RoomJobs:
    """What the workers of a room listed.

    Attributes:
        jobs: of every worker that told, the newest first per worker.
        asked: the workers that told.
        silent: those that did not, each with the reason.
    """

    jobs: Sequence[FoundJob]
    asked: Sequence[WorkerInfo]
    silent: Sequence[tuple[WorkerInfo, RtcError]]


def find_job(wanted: str, room: RoomJobs) -> FoundJob:
    """Return the one job that is meant.

    A whole id goes before the beginning of one, that before a name; with or without
    the `job-` in front.

    Raises:
        JobNotFound: nobody who was asked has such a job.
        JobAmbiguous: there are several.
    """
    shown = clean_text(wanted)
    bare = wanted.removeprefix(ID_PREFIX)
    job_id = ID_PREFIX + bare
    kinds = [
        [one for one in room.jobs if one.job.job_id == job_id],
        # `job-` alone begins every id and names none.
        [one for one in room.jobs if bare and one.job.job_id.startswith(job_id)],
        [one for one in room.jobs if shown and one.job.name == shown],
    ]
    for found in kinds:
        if len(found) == 1:
            return found[0]
        if found:
            named = [_candidate(one) for one in found[:MAX_CANDIDATES_NAMED]]
            if len(found) > MAX_CANDIDATES_NAMED:
                named.append(f"{len(found) - MAX_CANDIDATES_NAMED} more")
            raise JobAmbiguous(job=shown, candidates=", ".join(named))
    asked = ", ".join(worker.name for worker in room.asked) or "no worker"
    if room.silent:
        names = ", ".join(worker.name for worker, _ in room.silent)
        asked += f" ({names} could not be asked)"
    raise JobNotFound(job=shown, asked=asked)


def _candidate(found: FoundJob) -> str:
    job = found.job
    return f"{job.job_id} {job.name} of {found.worker.name}, {job.state}"
