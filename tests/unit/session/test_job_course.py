"""A course keeps on with what may pass, for as long as it is told, and says which."""

import pytest

from sleap_rtc_plugin.protocol.errors import (
    LinkFailed,
    RemoteProtocolError,
    RtcError,
    WorkerAway,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_plugin.session import job_course as module
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.worker_link import WorkerLink

JOB = "job-" + "a" * 20
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")],
)


class Observer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def event(self, event: JobNews, mirror: JobMirror) -> None:
        self.told.append("event")

    def link_lost(self, error: RtcError) -> None:
        self.told.append("lost")

    def link_back(self) -> None:
        self.told.append("back")


class Unreachable:
    """A worker that cannot be reached, in one way after another."""

    def __init__(self, *errors: RtcError) -> None:
        self.errors = list(errors)
        self.tries = 0

    async def __call__(self) -> WorkerLink:
        self.tries += 1
        raise self.errors.pop(0)


def course(
    state: JobState, connect: Unreachable, observer: Observer, budget_s: float
) -> JobCourse:
    mirror = JobMirror(JOB, SPEC)
    mirror.state = state
    return JobCourse(
        mirror, connect, observer, worker="gpu-box", reconnect_for_s=budget_s
    )


def failed(reason: str) -> LinkFailed:
    return LinkFailed(worker="gpu-box", reason=reason)


async def test_a_worker_that_stays_away() -> None:
    observer, connect = Observer(), Unreachable(failed("one"))
    with pytest.raises(WorkerAway) as caught:
        await course(JobState.RUNNING, connect, observer, 0.0).follow()
    assert (caught.value.worker, caught.value.job_id) == ("gpu-box", JOB)
    assert caught.value.exit_code == 3
    assert observer.told == ["lost"]


async def test_a_package_that_did_not_arrive_says_what_was_lost_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    monkeypatch.setattr(module, "monotonic", lambda: now)
    observer = Observer()
    connect = Unreachable(*(failed(str(number)) for number in range(100)))
    with pytest.raises(LinkFailed, match=r"\(0\)"):
        await course(JobState.STAGING, connect, observer, 90.0).follow()
    # It was told once, and tried until the time was over.
    assert observer.told == ["lost"]
    assert 6 <= connect.tries <= 20
    assert now == pytest.approx(90.0)


async def test_what_does_not_pass_is_not_tried_again() -> None:
    observer = Observer()
    connect = Unreachable(RemoteProtocolError(detail="x"))
    with pytest.raises(RemoteProtocolError):
        await course(JobState.RUNNING, connect, observer, 90.0).follow()
    assert connect.tries == 1
    assert observer.told == []


async def test_an_announcement_that_fails_is_said_at_once() -> None:
    observer, connect = Observer(), Unreachable(failed("one"))
    followed = course(JobState.SUBMITTED, connect, observer, 90.0)
    with pytest.raises(LinkFailed):
        await followed.announce(None)  # type: ignore[arg-type]
    assert connect.tries == 1
