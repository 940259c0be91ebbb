"""What a worker said of itself, and what the link to it gave, mean.

Pure: facts in, findings out. `worker_check` gathers them.
"""

from collections.abc import Sequence

from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    ErrorInfo,
    RtcError,
    WorkerBusy,
    WorkerTooOld,
    from_wire,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.session.doctor.finding import (
    Finding,
    Status,
    failed,
    from_error,
    note,
    ok,
    warning,
)
from sleap_rtc_plugin.session.doctor.limits import (
    RECENT_ERROR_S,
    SLOW_LINK_BYTES_PER_S,
    USUAL_PACKAGE_BYTES,
)
from sleap_rtc_plugin.session.doctor.server import span_text
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.transport.link_test import Moved

__all__ = [
    "judge_gpu",
    "judge_jobs",
    "judge_last_error",
    "judge_link",
    "judge_round_trip",
    "judge_storage",
    "judge_throughput",
    "judge_trainer",
    "judge_worker",
    "judge_worker_disk",
]

_MIB_PER_GIB = GIB // MIB
_HOW = {
    "direct": "directly",
    "turn-udp": "over a TURN server (UDP)",
    "turn-tcp": "over a TURN server (TCP)",
    "turn-tls": "over a TURN server (TLS)",
    "relay": "over the signaling server's relay",
}


def judge_worker(chosen: WorkerInfo, online: int) -> Finding:
    """Say which worker of the room is looked at."""
    if online == 1:
        return ok("worker", f"{chosen.name} is online ({chosen.status}).")
    return ok(
        "worker",
        f"{chosen.name} is online ({chosen.status}), one of {online}; --worker names "
        "another.",
    )


def judge_trainer(worker: WorkerInfo) -> Finding:
    """Judge whether it can train."""
    if worker.sleap_nn_version is None:
        return failed(
            "trainer",
            f"{worker.name} has no sleap-nn, so it can run nothing.",
            "Install it there: python -m pip install 'sleap-rtc-plugin[worker]', and "
            "start the worker again.",
        )
    return ok("trainer", f"{worker.name} has sleap-nn {worker.sleap_nn_version}.")


def judge_gpu(worker: WorkerInfo) -> Finding:
    """Judge what it trains on."""
    if worker.device == "cpu":
        return warning(
            "gpu",
            f"{worker.name} has no GPU that its torch can use; training will be slow.",
            "If it has an NVIDIA card, install a torch built for CUDA there and start "
            "the worker again; its first line says what it found.",
        )
    found = worker.gpu_model or worker.device
    if worker.gpu_memory_mb:
        found += f" with {worker.gpu_memory_mb / _MIB_PER_GIB:.1f} GiB"
    if worker.gpu_free_mb is not None:
        found += f", of which {worker.gpu_free_mb / _MIB_PER_GIB:.1f} are free"
    return ok("gpu", f"{found}.")


def judge_jobs(worker: WorkerInfo, round_trip_s: float, refusal: str) -> Finding:
    """Judge whether it would take a job now."""
    if refusal:
        found, separator, remedy = refusal.rpartition("; ")
        if not separator:
            found, remedy = refusal, "try again later."
        return failed("jobs", f"{found}.", remedy[:1].upper() + remedy[1:])
    ahead = worker.queue_length + worker.running_jobs
    jobs = f"{ahead or 'no'} job{'' if ahead == 1 else 's'} would be before yours"
    return ok(
        "jobs",
        f"It takes jobs; {jobs}. It answered through the room in "
        f"{_milliseconds(round_trip_s)}.",
    )


def judge_worker_disk(refusal: RtcError | None) -> Finding | None:
    """Judge whether a usual package fits there; None where it was not told."""
    size = f"{USUAL_PACKAGE_BYTES / GIB:g} GiB"
    if refusal is None:
        return ok("worker-disk", f"It has room for a package of {size}.")
    if not isinstance(refusal, DiskFull):
        return None
    return failed(
        "worker-disk",
        f"A package of {size} does not fit on {refusal.place}: {refusal.free} are "
        "free.",
        "Make room there; the folders of ended jobs are in jobs/ below its --data.",
    )


def judge_link(
    *, kind: str, engine: str, peer_engine: str, software: str, ours: str, took_s: float
) -> Finding:
    """Judge how the link came about.

    Args:
        kind: how packets travel, as `Link` says it.
        engine: what moves our data channels.
        peer_engine: what moves the worker's, as it says.
        software: what the worker runs, as it says.
        ours: what this program is.
        took_s: how long it took.
    """
    how = _HOW.get(kind, f"in the way {clean_text(kind, 40)}")
    found = f"It came about {how} in {took_s:.1f} s"
    if kind == "relay":
        return warning(
            "link",
            f"{found}: nothing else got through. Files go slowly.",
            "List a TURN server in the signaling server's configuration, or allow UDP "
            "between the machines.",
        )
    if engine != "fast" or peer_engine != "fast":
        slow = "here" if engine != "fast" else "at the worker"
        return warning(
            "link",
            f"{found}, but files go the slow way {slow}.",
            "Install aiortc 1.16 and aioice 0.13 there, and leave --data-channels as "
            "it is.",
        )
    theirs = clean_text(software, 60)
    if theirs != ours:
        return warning(
            "link",
            f"{found}; the worker runs {theirs}, this is {ours}.",
            "Update the older one: python -m pip install -U sleap-rtc-plugin",
        )
    return ok("link", f"{found}, and both ends use the fast data path.")


def judge_round_trip(seconds: float) -> Finding:
    """Say how long a question and its answer take on the link."""
    return ok("round-trip", f"A question and its answer take {_milliseconds(seconds)}.")


def judge_throughput(
    there: Moved | RtcError, back: Moved | RtcError, limit_bytes_per_s: int | None
) -> Finding:
    """Judge how fast files would go.

    Args:
        there: what was moved to the worker, or why nothing was.
        back: what came from it, or why nothing did.
        limit_bytes_per_s: what the user allows at most, or None.
    """
    for result in (there, back):
        if isinstance(result, WorkerBusy | WorkerTooOld):
            return _not_measured(result)
        if isinstance(result, RtcError):
            return from_error("throughput", result)
    assert isinstance(there, Moved)  # noqa: S101 - errors were returned above
    assert isinstance(back, Moved)  # noqa: S101 - the same
    found = (
        f"{_speed(there.bytes_per_s)} to the worker, {_speed(back.bytes_per_s)} back"
    )
    if limit_bytes_per_s is not None:
        found += f"; {_speed(limit_bytes_per_s)} are allowed here"
    slowest = min(there.bytes_per_s, back.bytes_per_s)
    if slowest < SLOW_LINK_BYTES_PER_S:
        return warning(
            "throughput",
            f"{found}.",
            "A cable in place of Wi-Fi may help; where packets get lost, try "
            "--congestion rate at both ends.",
        )
    return ok("throughput", f"{found}.")


def _not_measured(error: RtcError) -> Finding:
    if isinstance(error, WorkerBusy):
        return note(
            "throughput",
            f"Not measured: {error.reason}.",
            "Run this again in a while.",
        )
    found = from_error("throughput", error, Status.NOTE)
    return note("throughput", f"Not measured. {found.found}", found.remedy)


def judge_last_error(jobs: Sequence[JobSummary], newest_at: float | None) -> Finding:
    """Say how long ago a job last went wrong there.

    Args:
        jobs: the worker's newest.
        newest_at: the worker's clock, as far as it can be told, in Unix seconds.
    """
    wrong = [job for job in jobs if job.error is not None and job.ended_at is not None]
    if not jobs:
        return ok("last-error", "The worker has no jobs yet.")
    if not wrong:
        return ok("last-error", "None of its newest jobs went wrong.")
    last = max(wrong, key=lambda job: job.ended_at or 0.0)
    ago_s = max(0.0, (newest_at or 0.0) - (last.ended_at or 0.0))
    reason = _first_sentence(last.error)
    found = (
        f"{clean_text(last.name, 60)} went wrong {span_text(ago_s)} ago ({reason})."
        if newest_at is not None
        else f"{clean_text(last.name, 60)} went wrong ({reason})."
    )
    if newest_at is not None and ago_s > RECENT_ERROR_S:
        return note("last-error", found)
    if any((job.ended_at or 0.0) > (last.ended_at or 0.0) for job in jobs):
        return note("last-error", f"{found} A later one went well.")
    return warning(
        "last-error",
        found,
        "See what sleap-nn said: Remote Jobs > Logs in SLEAP, or `sleap-remote "
        "jobs logs`.",
    )


def _first_sentence(error: ErrorInfo | None) -> str:
    if error is None:
        return "no reason"
    text = str(from_wire(error)).splitlines()[0]
    return clean_text(text.partition("; ")[0].rstrip(".:"), 160)


def judge_storage(root: str | None, refusal: RtcError | None) -> Finding:
    """Judge whether both sides see the same shared storage."""
    if root is None:
        return note(
            "worker-storage", "None is named here, so the worker was not asked for any."
        )
    if refusal is None:
        return ok("worker-storage", f"The worker reads what is written to {root}.")
    if isinstance(refusal, WorkerTooOld):
        return from_error("worker-storage", refusal, Status.NOTE)
    reason = clean_text(str(refusal).partition("; ")[0], 200)
    return warning(
        "worker-storage",
        f"{reason}.",
        "Start the worker with --shared-storage-root and its own path of the same "
        "folder, and let it read there. Until then files go over the connection.",
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def _speed(bytes_per_s: float) -> str:
    return (
        f"{8 * bytes_per_s / 1e6:.3g} Mbit/s"
        if bytes_per_s < 125e6
        else (f"{8 * bytes_per_s / 1e9:.2g} Gbit/s")
    )
