"""The rows that SLEAP's side shows, made of what workers and the keyring say.

Pure; texts are a peer's and are cleaned here. Called by the service.
"""

from sleap_rtc_plugin.companion.followed_job import FollowedWorker
from sleap_rtc_plugin.companion.messages import JobRow, RoomRow, WorkerRow
from sleap_rtc_plugin.protocol.errors import from_wire
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.session.lab import WorkerSeen
from sleap_rtc_plugin.session.settings import RememberedRoom

__all__ = ["job_row", "room_row", "worker_row"]


def room_row(room: RememberedRoom) -> RoomRow:
    """Make a row of a remembered room."""
    return RoomRow(room_id=room.room_id, server=room.server, last_used=room.last_used)


def worker_row(seen: WorkerSeen) -> WorkerRow:
    """Make a row of a worker and the newest probe of it."""
    info, probe = seen.info, seen.probe
    return WorkerRow(
        worker_id=info.peer_id,
        name=info.name,
        status=info.status,
        device=info.device,
        gpu_model=info.gpu_model,
        gpu_memory_mb=info.gpu_memory_mb,
        gpu_free_mb=info.gpu_free_mb,
        queue_length=info.queue_length,
        running_jobs=info.running_jobs,
        round_trip_ms=round(probe.seconds * 1000, 1) if probe is not None else None,
        sleap_nn_version=info.sleap_nn_version,
        refusal=probe.refusal if probe is not None else "",
        link_kind=info.link_kind,
    )


def job_row(
    summary: JobSummary, worker: FollowedWorker, *, is_followed: bool
) -> JobRow:
    """Make a row of what a worker said of a job; its texts are a peer's."""
    return JobRow(
        job_id=summary.job_id,
        worker_id=worker.worker_id,
        worker=worker.name,
        name=clean_text(summary.name),
        owner=clean_text(summary.owner),
        state=clean_text(summary.state),
        step=summary.step,
        steps=summary.steps,
        epoch=summary.epoch,
        done=summary.done,
        total=summary.total,
        created_at=summary.created_at,
        started_at=summary.started_at,
        ended_at=summary.ended_at,
        is_followed=is_followed,
        error=str(from_wire(summary.error)) if summary.error is not None else "",
        position=summary.position,
        starts_in_s=summary.starts_in_s,
        restarts=summary.restarts,
        expires_at=summary.expires_at,
        are_results_removed=summary.results_removed,
        model=summary.model or "",
    )
