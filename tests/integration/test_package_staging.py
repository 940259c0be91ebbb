"""A package that is here needs no client: links and workers end while it is checked."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from support.linked_workers import LinkedWorker, linked_worker

from sleap_rtc_plugin.protocol.errors import ConfigRefused, RtcError
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_plugin.session.job_course import JobCourse
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_run import JobRun
from sleap_rtc_worker.package_check import CheckedPackage

pytestmark = pytest.mark.timeout(60)

JOB = "job-00112233445566778899"
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")],
)


class Check:
    """What looks at packages: it waits until it is let go, and may refuse them."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.times = 0
        self.error: RtcError | None = None

    async def __call__(self, run: JobRun) -> CheckedPackage:
        self.times += 1
        self.began.set()
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return CheckedPackage(epochs=[7])

    def put_into(self, coordinator: JobCoordinator) -> None:
        coordinator._check_package = self  # type: ignore[method-assign,assignment]
        # Nothing is to run: the queue is where these stories end.
        coordinator._turns.grant = lambda: 0  # type: ignore[method-assign]


class Silence:
    """An observer that keeps nothing but whether links went and came."""

    def __init__(self) -> None:
        self.story: list[str] = []

    def event(self, event: JobNews, mirror: JobMirror) -> None: ...

    def link_lost(self, error: RtcError) -> None:
        self.story.append("lost")

    def link_back(self) -> None:
        self.story.append("back")


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    folder = tmp_path / "package"
    folder.mkdir()
    for name in ("c.yaml", "l.slp"):
        (folder / name).write_bytes(name.encode() * 1000)
    return FileSource.scan(folder, ["c.yaml", "l.slp"])


async def leaves_staging(run: JobRun) -> None:
    changed = asyncio.Event()
    run.watch(changed.set)
    async with asyncio.timeout(15):
        while run.state in (JobState.SUBMITTED, JobState.STAGING):
            await changed.wait()
            changed.clear()


async def submitted(ends: LinkedWorker, source: FileSource) -> RemoteJob:
    job = RemoteJob(WorkerLink(ends.client, "w"), JOB, SPEC)
    await job.submit(source)
    await job.send_package(source, lambda totals: None)
    return job


async def test_the_check_goes_on_when_the_client_leaves(
    tmp_path: Path, source: FileSource
) -> None:
    check = Check()
    async with linked_worker(tmp_path / "worker") as ends:
        check.put_into(ends.coordinator)
        await submitted(ends, source)
        await check.began.wait()
        ends.client.close("the lid was closed")
        await ends.worker.closed.wait()
        check.goes_on.set()
        run = ends.coordinator.find(JOB)
        await leaves_staging(run)
        assert run.state is JobState.QUEUED
        assert run.record.epochs == [7]


async def test_a_worker_that_was_killed_checks_again(
    tmp_path: Path, source: FileSource
) -> None:
    first, second = Check(), Check()
    async with linked_worker(tmp_path / "worker") as ends:
        first.put_into(ends.coordinator)
        await submitted(ends, source)
        await first.began.wait()
    async with linked_worker(tmp_path / "worker") as ends:
        second.put_into(ends.coordinator)
        second.error = ConfigRefused(config="c.yaml", reason="it is none")
        await ends.coordinator.resume()
        second.goes_on.set()
        run = ends.coordinator.find(JOB)
        await leaves_staging(run)
        assert run.state is JobState.REJECTED
        assert isinstance(run.error, ConfigRefused)
    assert (first.times, second.times) == (1, 1)


async def test_a_check_that_breaks_ends_the_job(
    tmp_path: Path, source: FileSource
) -> None:
    async with linked_worker(tmp_path / "worker") as ends:
        check = Check()
        check.put_into(ends.coordinator)
        check.error = ZeroDivisionError()  # type: ignore[assignment]
        check.goes_on.set()
        await submitted(ends, source)
        run = ends.coordinator.find(JOB)
        await leaves_staging(run)
        assert run.has_ended
        assert "the worker itself failed" in str(run.error)


async def test_what_is_here_is_not_received_again(
    tmp_path: Path, source: FileSource
) -> None:
    async with linked_worker(tmp_path / "worker") as ends:
        check = Check()
        check.put_into(ends.coordinator)
        job = await submitted(ends, source)
        await check.began.wait()
        ends.fragments.clear()
        await job.send_package(source, lambda totals: None)
        check.goes_on.set()
        await leaves_staging(ends.coordinator.find(JOB))
        await job.send_package(source, lambda totals: None)
        assert ends.fragments == []
        assert check.times == 1


async def test_a_package_of_a_job_that_was_refused_is_no_breach(
    tmp_path: Path, source: FileSource
) -> None:
    async with linked_worker(tmp_path / "worker") as ends:
        check = Check()
        check.put_into(ends.coordinator)
        check.error = ConfigRefused(config="c.yaml", reason="it is none")
        check.goes_on.set()
        job = await submitted(ends, source)
        await leaves_staging(ends.coordinator.find(JOB))
        with pytest.raises(ConfigRefused):
            await job.send_package(source, lambda totals: None)
        assert not ends.client.closed.is_set()


async def test_a_package_whose_arrival_was_not_written_down_is_offered_again(
    tmp_path: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies between its last word to the client and its journal."""
    observer = Silence()
    links: list[WorkerLink] = []

    async def connect() -> WorkerLink:
        return links[-1]

    course = JobCourse(JobMirror(JOB, SPEC), connect, observer)
    async with contextlib.AsyncExitStack() as workers:
        async with linked_worker(tmp_path / "worker") as ends:
            first = Check()
            first.put_into(ends.coordinator)
            links.append(WorkerLink(ends.client, "w"))
            with monkeypatch.context() as patched:
                patched.setattr(JobRun, "note", lambda run, **changes: None)
                await course.submit(source, lambda totals: None)
                await first.began.wait()
        ends = await workers.enter_async_context(linked_worker(tmp_path / "worker"))
        second = Check()
        second.put_into(ends.coordinator)
        second.goes_on.set()
        await ends.coordinator.resume()
        run = ends.coordinator.find(JOB)
        assert run.state is JobState.STAGING
        links.append(WorkerLink(ends.client, "w"))
        async with asyncio.timeout(15):
            await course.reach(lambda mirror: mirror.state is JobState.QUEUED)
        assert second.times == 1
        assert max(ends.fragments, default=0) < 1000  # the manifest alone
