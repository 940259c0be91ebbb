"""Which job a person means."""

import pytest

from sleap_rtc_plugin.protocol.errors import JobAmbiguous, JobNotFound, NoReply
from sleap_rtc_plugin.protocol.messages import JobSummary
from sleap_rtc_plugin.session.job_search import FoundJob, RoomJobs, find_job
from sleap_rtc_plugin.session.worker_info import WorkerInfo

A, B, C = ("job-" + start + "0" * 17 for start in ("aa1", "aa2", "bb0"))


def worker(name: str) -> WorkerInfo:
    return WorkerInfo(
        peer_id=f"worker-{name}",
        name=name,
        status="available",
        device="cpu",
        gpu_model=None,
        gpu_memory_mb=None,
        gpu_free_mb=None,
        queue_length=0,
        running_jobs=0,
        sleap_nn_version=None,
    )


def job(job_id: str, name: str) -> JobSummary:
    return JobSummary(job_id=job_id, name=name, state="running", steps=1, created_at=0)


ONE, OTHER = worker("gpu-box"), worker("gpu-2")
ROOM = RoomJobs(
    jobs=[
        FoundJob(ONE, job(A, "flies")),
        FoundJob(ONE, job(B, "mice")),
        FoundJob(OTHER, job(C, "mice")),
    ],
    asked=[ONE, OTHER],
    silent=[],
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (A, A),
        (A.removeprefix("job-"), A),
        ("job-b", C),
        ("b", C),
        ("aa1", A),
        ("flies", A),
    ],
)
def test_a_job_that_is_meant(wanted: str, found: str) -> None:
    assert find_job(wanted, ROOM).job.job_id == found


def test_several_may_be_meant() -> None:
    with pytest.raises(JobAmbiguous) as caught:
        find_job("aa", ROOM)
    assert A in str(caught.value)
    assert B in str(caught.value)
    with pytest.raises(JobAmbiguous, match="gpu-2"):
        find_job("mice", ROOM)


@pytest.mark.parametrize("wanted", ["nobody", "job-", "", "fl", "a.1"])
def test_none_is_meant(wanted: str) -> None:
    with pytest.raises(JobNotFound, match="gpu-box, gpu-2"):
        find_job(wanted, ROOM)


def test_who_could_not_be_asked_is_named() -> None:
    silent = [(OTHER, NoReply(peer="x", command="y"))]
    room = RoomJobs(jobs=[], asked=[ONE], silent=silent)
    with pytest.raises(JobNotFound, match=r"gpu-box \(gpu-2 could not be asked\)"):
        find_job("x", room)


def test_a_long_list_of_candidates_is_cut() -> None:
    jobs = [FoundJob(ONE, job(f"job-{n:020x}", "same")) for n in range(100)]
    with pytest.raises(JobAmbiguous, match="92 more"):
        find_job("same", RoomJobs(jobs=jobs, asked=[ONE], silent=[]))
