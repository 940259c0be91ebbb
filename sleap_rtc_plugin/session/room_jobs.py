"""The jobs of a room: what all its workers have, and one of them by its name.

The use cases behind `sleap-remote jobs`, over a `SteadyRoom`.
"""

from sleap_rtc_plugin.protocol.errors import (
    JobNotFound,
    NoWorker,
    RtcError,
    WorkerAway,
)
from sleap_rtc_plugin.protocol.limits import MAX_WORKERS_ASKED
from sleap_rtc_plugin.protocol.messages import JobSpec
from sleap_rtc_plugin.protocol.retries import Retries
from sleap_rtc_plugin.session.job_search import FoundJob, RoomJobs, find_job
from sleap_rtc_plugin.session.pending_jobs import PendingJob, PendingJobs
from sleap_rtc_plugin.session.remote_job import describe_job, list_jobs
from sleap_rtc_plugin.session.steady_room import SteadyRoom
from sleap_rtc_plugin.session.worker_info import WorkerInfo, choose_worker

__all__ = ["job_of_room", "jobs_of_room"]


async def jobs_of_room(room: SteadyRoom, wanted: str | None = None) -> RoomJobs:
    """Ask every worker of the room for its jobs, or the one that is `wanted`.

    Raises:
        NoWorker: nobody is online.
        WorkerNotFound: nobody of that name is online.
        RtcError: not a single worker told; this is why the first did not.
    """
    workers = await room.workers()
    if wanted is not None or not workers:
        server = room.session.url
        workers = [choose_worker(workers, wanted=wanted, preferred="", server=server)]
    jobs: list[FoundJob] = []
    asked: list[WorkerInfo] = []
    silent: list[tuple[WorkerInfo, RtcError]] = []
    for worker in workers[:MAX_WORKERS_ASKED]:
        try:
            rows = await list_jobs(await room.link(worker.peer_id))
        except RtcError as error:
            silent.append((worker, error))
            continue
        asked.append(worker)
        jobs.extend(FoundJob(worker, row) for row in rows)
    if not asked:
        raise silent[0][1]
    return RoomJobs(jobs=jobs, asked=asked, silent=silent)


async def job_of_room(
    room: SteadyRoom,
    job: str,
    *,
    worker: str | None = None,
    reconnect_for_s: float = 0.0,
    pending: PendingJobs | None = None,
) -> tuple[FoundJob, JobSpec]:
    """Find the job that a person means, and what it is.

    A job that this computer submitted is waited for where its worker is away.

    Raises:
        JobNotFound: no worker has it.
        JobAmbiguous: it may be one of several.
        WorkerAway: its worker did not come back in time.
        RtcError: nobody could be asked.
    """
    try:
        found = find_job(job, await jobs_of_room(room, worker))
    except (JobNotFound, NoWorker):
        sent = (pending or PendingJobs()).of_job(job)
        if sent is None or worker is not None:
            raise
        found = await _when_back(room, sent, reconnect_for_s)
    link = await room.link(found.worker.peer_id)
    summary, spec = await describe_job(link, found.job.job_id)
    return FoundJob(found.worker, summary), spec


async def _when_back(
    room: SteadyRoom, sent: PendingJob, reconnect_for_s: float
) -> FoundJob:
    there = await room.wait_for(sent.worker_id, Retries(reconnect_for_s))
    if there is None:
        raise WorkerAway(
            worker=sent.worker, job_id=sent.job_id, seconds=f"{reconnect_for_s:.0f}"
        )
    rows = await list_jobs(await room.link(there.peer_id))
    jobs = [FoundJob(there, row) for row in rows]
    return find_job(sent.job_id, RoomJobs(jobs=jobs, asked=[there], silent=[]))
