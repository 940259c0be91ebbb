"""A client asks a worker for its jobs and images over a real link."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.linked_workers import linked_worker
from support.peers import linked
from support.pictures import bomb, png

from sleap_rtc_plugin.protocol import limits
from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    ImagesRefused,
    JobConflict,
    JobUnknown,
    NoReply,
    RemoteProtocolError,
    ResultsRemoved,
    StorageFailed,
    WorkerTooOld,
    WorkerVanished,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobDescribe,
    JobDescribed,
    JobFetch,
    JobList,
    JobListed,
    JobSpec,
    JobSubmit,
    JobSummary,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.session import job_images, worker_link
from sleap_rtc_plugin.session.job_images import fetch_images
from sleap_rtc_plugin.session.remote_job import RemoteJob, describe_job, list_jobs
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_coordinator import JobCoordinator

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 15
STEPS = [
    TrainStep(config="c.yaml", labels="l.slp", run_name="run=1", head="centroid"),
    PredictStep(data="l.slp", models=["models/run=1"], output="p.slp"),
]


def job_id(number: int) -> str:
    return f"job-{number:020x}"


@dataclasses.dataclass
class Service:
    """A client's link, and the worker at its other end."""

    link: WorkerLink
    served: Link
    coordinator: JobCoordinator
    files: FileManager
    folder: Path

    def submit(
        self, number: int = 1, name: str = "flies", owner: str = "ann"
    ) -> RemoteJob:
        spec = JobSpec(name=name, owner=owner, steps=list(STEPS))
        self.coordinator.submit(
            JobSubmit(
                command_id="c-1",
                job_id=job_id(number),
                spec=spec,
                package_digest="00" * 32,
                package_bytes=1,
            ),
            "client-1",
        )
        return RemoteJob(self.link, job_id(number), spec)

    def draw(self, name: str, data: bytes) -> None:
        folder = self.files.package_dir(job_id(1)) / "models" / "run=1" / "viz"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@contextlib.asynccontextmanager
async def services(folder: Path) -> AsyncIterator[Service]:
    async with linked_worker(folder / "worker") as ends:
        yield Service(
            WorkerLink(ends.client, "w"),
            ends.worker,
            ends.coordinator,
            ends.files,
            folder / "client",
        )


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with services(tmp_path) as made:
        yield made


# -- a package that changed on its way -----------------------------------------------


def resubmitted(digest: str) -> JobSubmit:
    return JobSubmit(
        command_id="c-2",
        job_id=job_id(1),
        spec=JobSpec(name="flies", owner="ann", steps=list(STEPS)),
        package_digest=digest,
        package_bytes=2,
    )


async def test_who_submitted_a_job_may_announce_another_package(
    service: Service,
) -> None:
    service.submit()
    run = service.coordinator.submit(resubmitted("11" * 32), "client-1")
    assert (run.record.package_digest, run.record.package_bytes) == ("11" * 32, 2)
    assert run.state.value == "staging"
    with pytest.raises(JobConflict):
        service.coordinator.submit(resubmitted("22" * 32), "client-2")
    run.cancel()
    with pytest.raises(JobConflict):
        service.coordinator.submit(resubmitted("22" * 32), "client-1")
    assert run.record.package_digest == "11" * 32


# -- lists and descriptions --------------------------------------------------------


async def test_jobs_are_listed_over_several_pages(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await list_jobs(service.link) == []
    for number in range(limits.MAX_JOBS_QUEUED):
        service.submit(number, name="a\u202eb\x1b[31m", owner=f"ann{number}")
    monkeypatch.setattr("sleap_rtc_worker.job_coordinator.MAX_JOBS_PER_PAGE", 7)
    rows = await list_jobs(service.link)
    assert len({row.job_id for row in rows}) == len(rows) == limits.MAX_JOBS_QUEUED
    assert rows[0].created_at >= rows[-1].created_at
    assert rows[0].state == "staging"
    assert rows[0].steps == 2
    assert len({row.owner for row in rows}) == len(rows)
    assert {"\u202e", "\x1b"}.isdisjoint(rows[0].name)


async def test_a_client_that_did_not_submit_a_job_follows_it(service: Service) -> None:
    service.submit()
    with pytest.raises(JobUnknown):
        await describe_job(service.link, job_id(2))
    row, spec = await describe_job(service.link, job_id(1))
    assert (row.job_id, row.state, spec.steps) == (job_id(1), "staging", STEPS)
    job = RemoteJob(service.link, job_id(1), spec)
    await job.attach(lambda event, mirror: None)
    await job.wait_until(lambda mirror: mirror.state.value == "staging")

    # Later, over another link, it goes on where it was.
    later = RemoteJob.resume(service.link, job.mirror)
    await later.attach(lambda event, mirror: None)
    await later.cancel()
    await later.wait_until(lambda mirror: mirror.has_ended)
    assert later.mirror is job.mirror
    row, _ = await describe_job(service.link, job_id(1))
    assert row.state == "cancelled"
    assert row.ended_at is not None
    assert row.error is not None


async def test_an_older_worker_is_told_apart_before_anything_is_sent(
    service: Service,
) -> None:
    job = service.submit()
    service.link.link.features = frozenset()
    for asked in (
        list_jobs(service.link),
        describe_job(service.link, job_id(1)),
        fetch_images(job, 0, service.folder),
    ):
        with pytest.raises(WorkerTooOld, match="The worker w runs a version"):
            await asked
    await job.attach(lambda event, mirror: None)
    assert not service.link.link.closed.is_set()


async def test_a_description_larger_than_a_frame_is_refused(service: Service) -> None:
    service.submit()
    run = service.coordinator.find(job_id(1))
    options = {f"o{i}": "x" * 4000 for i in range(40)}
    step = msgspec.structs.replace(STEPS[1], options=options)
    spec = msgspec.structs.replace(run.record.spec, steps=[step])
    run.record = msgspec.structs.replace(run.record, spec=spec)
    with pytest.raises(Exception, match="a JOB_DESCRIBED frame of"):
        await describe_job(service.link, job_id(1))
    assert not service.link.link.closed.is_set()


# -- places in the queue -------------------------------------------------------------


async def queued(service: Service, number: int) -> tuple[RemoteJob, list[JobQueue]]:
    """Have a job wait whose client has attached to it."""
    job = service.submit(number)
    heard: list[JobQueue] = []

    def listen(news: JobNews, mirror: JobMirror) -> None:
        if isinstance(news, JobQueue):
            heard.append(news)

    await job.attach(listen)
    run = service.coordinator.find(job.job_id)
    run.package_staged()
    await job.wait_until(lambda mirror: mirror.state.value == "queued")
    return job, heard


async def until_heard(heard: list[JobQueue], position: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        # The observer has no event to wait for; the link's turns bring it.
        while not heard or heard[-1].position != position:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def full_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing begin."""
    monkeypatch.setattr("sleap_rtc_worker.job_turns.free_slots", lambda slots, held: [])
    monkeypatch.setattr("sleap_rtc_worker.job_turns.PLACES_INTERVAL_S", 0.01)


@pytest.mark.usefixtures("full_slots")
async def test_who_waits_hears_of_each_new_place(service: Service) -> None:
    first, _ = await queued(service, 1)
    second, heard = await queued(service, 2)
    await until_heard(heard, 2)
    assert second.mirror.place == heard[-1]
    await first.cancel()
    await until_heard(heard, 1)
    assert heard[-1] == JobQueue(
        job_id=second.job_id, position=1, waiting=1, starts_in_s=0.0
    )
    assert [place.position for place in heard] == sorted(
        (place.position for place in heard), reverse=True
    )
    row, _ = await describe_job(service.link, second.job_id)
    assert (row.position, row.starts_in_s) == (1, 0.0)
    await second.cancel()
    await second.wait_until(lambda mirror: mirror.has_ended)
    assert second.mirror.place is None


@pytest.mark.usefixtures("full_slots")
async def test_an_older_client_is_sent_no_place(service: Service) -> None:
    service.served.features = frozenset()
    job, heard = await queued(service, 1)
    run = service.coordinator.find(job.job_id)
    async with asyncio.timeout(PATIENCE_S):
        while run.place is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await list_jobs(service.link)
    assert heard == []


@pytest.mark.usefixtures("full_slots")
async def test_a_place_of_a_job_that_nobody_follows_is_ignored(
    service: Service,
) -> None:
    service.served.send(JobQueue(job_id=job_id(9), position=1, waiting=1))
    assert await list_jobs(service.link) == []
    assert not service.link.link.closed.is_set()


async def test_removed_results_are_refused_with_the_date(service: Service) -> None:
    job = service.submit()
    run = service.coordinator.find(job.job_id)
    run.note(removed_at=1_800_000_000.0, state=JobState.SUCCEEDED, finished_steps=[0])
    with pytest.raises(ResultsRemoved, match="were removed on 2027-01-1"):
        await job.fetch(service.folder, lambda totals: None)
    row, _ = await describe_job(service.link, job.job_id)
    assert (row.results_removed, row.expires_at) == (True, 1_800_000_000.0)


# -- images --------------------------------------------------------------------------


async def test_images_come_as_they_are_drawn(service: Service) -> None:
    job = service.submit()
    viz = service.folder / "viz"
    assert await fetch_images(job, 0, service.folder) == []
    service.draw("validation.0000.png", png(0))
    service.draw("train.0000.png", png(1))
    service.draw("train.0001.png", png(2)[:-5])
    first = await fetch_images(job, 0, service.folder)
    assert first == [viz / "train.0000.png", viz / "validation.0000.png"]
    assert [path.read_bytes() for path in first] == [png(1), png(0)]
    assert await fetch_images(job, 0, service.folder) == []

    service.draw("train.0001.png", png(2))
    service.draw("validation.0000.png", png(7))
    news = await fetch_images(job, 0, service.folder)
    assert news == [viz / "train.0001.png", viz / "validation.0000.png"]
    assert (viz / "validation.0000.png").read_bytes() == png(7)
    assert [path.name for path in service.folder.iterdir()] == ["viz"]


async def test_what_is_there_is_not_sent_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.submit()
    service.draw("train.0000.png", png(0))
    await fetch_images(job, 0, service.folder)
    service.draw("train.0001.png", png(1))
    totals: list[Any] = []
    monkeypatch.setattr(job_images, "_no_progress", totals.append)
    await fetch_images(job, 0, service.folder)
    assert totals[-1].reused_bytes == len(png(0))
    assert totals[-1].moved_bytes == len(png(1))


async def test_without_hard_links_it_works_as_well(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", no_links)
    job = service.submit()
    for number in range(3):
        service.draw(f"train.{number:04d}.png", png(number))
        assert len(await fetch_images(job, 0, service.folder)) == 1


async def test_only_a_training_has_images(service: Service) -> None:
    job = service.submit()
    for step in (1, 2):
        with pytest.raises(BadRequest, match="no training"):
            await fetch_images(job, step, service.folder)
    with pytest.raises(BadRequest, match="not ended"):
        await job.fetch(service.folder, lambda totals: None)


async def test_an_image_that_vanishes_on_its_way_is_no_fault(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.submit()
    for number in range(3):
        service.draw(f"train.{number:04d}.png", png(number))
    reading = FileSource.reading

    def delete_first(self: FileSource) -> Any:
        (self.root / "train.0000.png").unlink(missing_ok=True)
        return reading(self)

    monkeypatch.setattr(FileSource, "reading", delete_first)
    await fetch_images(job, 0, service.folder)
    news = await fetch_images(job, 0, service.folder)
    there = [path.name for path in (service.folder / "viz").iterdir()]
    assert sorted(there) == ["train.0001.png", "train.0002.png"]
    assert len(news) <= 2


async def test_a_folder_that_cannot_be_written_leaves_the_link_alone(
    service: Service,
) -> None:
    job = service.submit()
    service.draw("train.0000.png", png())
    service.folder.write_text("a file where the folder belongs")
    for _ in range(limits.MAX_TRANSFERS_PER_LINK + 1):
        with pytest.raises(StorageFailed):
            await fetch_images(job, 0, service.folder)
    assert len(await list_jobs(service.link)) == 1


async def test_a_fetch_that_is_given_up_leaves_no_transfer_behind(
    service: Service,
) -> None:
    """At every moment of it: asked, offered, on its way."""
    job = service.submit()
    service.draw("train.0000.png", png())
    turns = 0
    while True:
        fetching = asyncio.ensure_future(fetch_images(job, 0, service.folder))
        for _ in range(turns):
            await asyncio.sleep(0)
        if fetching.done():
            await fetching
            break
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        turns += 1
        assert not service.link.link.closed.is_set(), service.link.link.close_reason
    assert turns > limits.MAX_TRANSFERS_PER_LINK
    assert [p.name for p in service.folder.rglob("*.png")] == ["train.0000.png"]


# -- workers that do not keep to the rules -----------------------------------------


class Rogue:
    """The other end of a link, in the hands of a test."""

    def __init__(self, link: Link, folder: Path) -> None:
        self.link = link
        self.pump = TransferPump(link)
        self.answers: Callable[[ControlMessage], ControlMessage | None] = lambda m: None
        self.folder = folder
        self.offer: FileSource | None = None
        self.change: dict[str, Any] = {}
        self.ended: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        link.on_control = self._on_control

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case FileNeed() | FileDone():
                self.pump.handle(message)
            case JobFetch() if self.offer is not None:
                self.link.send(Acknowledged(command_id=message.command_id))
                task = asyncio.get_running_loop().create_task(self._send(self.offer))
                self._tasks.add(task)
            case _:
                answer = self.answers(message)
                if answer is not None:
                    self.link.send(answer)

    async def _send(self, source: FileSource) -> None:
        real = self.link.send

        def send(message: ControlMessage) -> None:
            if isinstance(message, FileMeta):
                message = msgspec.structs.replace(message, **self.change)
            real(message)

        self.link.send = send  # type: ignore[method-assign]
        try:
            await self.pump.send(source, job_id=job_id(1), purpose="images")
        except Exception as error:
            self.ended.put_nowait(error)
        else:
            self.ended.put_nowait(None)

    def offer_files(self, contents: dict[str, bytes]) -> None:
        for name, data in contents.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.offer = FileSource.scan(self.folder, list(contents))


@pytest.fixture
async def rogue(tmp_path: Path) -> AsyncIterator[tuple[WorkerLink, Rogue]]:
    async with linked() as (client, worker):
        yield WorkerLink(client, "w"), Rogue(worker, tmp_path / "rogue")


REFUSED = {
    "another name": ({"payload.exe": png()}, "payload.exe is not the name"),
    "another folder": ({"sub/train.0000.png": png()}, "is not the name"),
    "no image": ({"train.0000.png": b"MZ" * 100}, "is not a whole PNG image"),
    "a bomb": ({"train.0000.png": bomb()}, "has 100000 x 100000 pixels"),
    "one bad of two": (
        {"train.0000.png": png(), "train.0001.png": png()[:-1]},
        "train.0001.png is not a whole",
    ),
    "too large": (
        {"train.0000.png": bytes(limits.MAX_IMAGE_BYTES + 1)},
        "has more than",
    ),
}


@pytest.mark.parametrize(("contents", "words"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_image_is_refused_and_removed(
    rogue: tuple[WorkerLink, Rogue],
    tmp_path: Path,
    contents: dict[str, bytes],
    words: str,
) -> None:
    link, worker = rogue
    worker.offer_files(contents)
    job = RemoteJob(link, job_id(1), JobSpec(name="x", steps=list(STEPS)))
    with pytest.raises(ImagesRefused, match=words):
        await fetch_images(job, 0, tmp_path / "home")
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert left == []
    assert not (tmp_path / "home" / ".sleap-remote").exists()
    assert not link.link.closed.is_set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file_count": 10_000}, "10000 at once"),
        ({"total_bytes": 2**40}, "1099511627776 bytes at once"),
        ({"manifest_bytes": limits.MAX_MANIFEST_BYTES}, "a list longer"),
    ],
)
async def test_an_offer_without_measure_is_declined_unread(
    rogue: tuple[WorkerLink, Rogue],
    tmp_path: Path,
    change: dict[str, Any],
    words: str,
) -> None:
    link, worker = rogue
    worker.offer_files({"train.0000.png": png()})
    worker.change = change
    job = RemoteJob(link, job_id(1), JobSpec(name="x", steps=list(STEPS)))
    with pytest.raises(ImagesRefused, match=words):
        await fetch_images(job, 0, tmp_path / "home")
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await worker.ended.get(), BadRequest)
    assert not (tmp_path / "home").exists()


def row(number: int) -> JobSummary:
    return JobSummary(
        job_id=job_id(number), name="x", state="queued", steps=1, created_at=0.0
    )


async def test_lists_that_never_end_or_make_no_sense(
    rogue: tuple[WorkerLink, Rogue],
) -> None:
    link, worker = rogue
    asked = 0

    def endless(message: ControlMessage) -> ControlMessage:
        nonlocal asked
        assert isinstance(message, JobList)
        asked += 1
        rows = [row(asked * 1000 + n) for n in range(limits.MAX_JOBS_PER_PAGE)]
        return JobListed(command_id=message.command_id, jobs=rows, more=True)

    worker.answers = endless
    assert len(await list_jobs(link)) == limits.MAX_JOBS_LISTED
    assert asked == limits.MAX_JOBS_LISTED // limits.MAX_JOBS_PER_PAGE

    for rows in ([row(1)], []):
        worker.answers = lambda message, rows=rows: JobListed(
            command_id=message.command_id, jobs=rows, more=True
        )
        with pytest.raises(RemoteProtocolError):
            await list_jobs(link)
    worker.answers = lambda message: Acknowledged(command_id=message.command_id)
    with pytest.raises(RemoteProtocolError):
        await list_jobs(link)

    spec = JobSpec(name="x", steps=list(STEPS))

    def another(message: ControlMessage) -> ControlMessage:
        assert isinstance(message, JobDescribe)
        return JobDescribed(command_id=message.command_id, job=row(2), spec=spec)

    worker.answers = another
    with pytest.raises(RemoteProtocolError, match="another thing"):
        await describe_job(link, job_id(1))


async def test_files_that_nobody_asked_for_end_the_link(
    rogue: tuple[WorkerLink, Rogue],
) -> None:
    link, worker = rogue
    worker.link.send(meta("images"))
    async with asyncio.timeout(PATIENCE_S):
        await link.link.closed.wait()
    assert link.link.close_reason == "files that were not asked for"


async def test_an_offer_that_comes_too_late_is_declined(
    rogue: tuple[WorkerLink, Rogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    link, worker = rogue
    monkeypatch.setattr(worker_link, "COMMAND_REPLY_TIMEOUT_S", 0.05)
    declined: asyncio.Queue[ControlMessage] = asyncio.Queue()

    def answers(message: ControlMessage) -> ControlMessage | None:
        if isinstance(message, JobFetch):
            return Acknowledged(command_id=message.command_id)
        declined.put_nowait(message)
        return None

    worker.answers = answers
    worker.pump.handle = declined.put_nowait  # type: ignore[method-assign]
    fetch = JobFetch(command_id="c-1", job_id=job_id(1), part="images", step=0)
    with pytest.raises(NoReply):
        async with link.offered_files(fetch):
            pass
    worker.link.send(meta("images"))
    async with asyncio.timeout(PATIENCE_S):
        done = await declined.get()
    assert isinstance(done, FileDone)
    assert done.error is not None
    assert not link.link.closed.is_set()
    # Once: whoever offers again was not asked.
    worker.link.send(meta("images"))
    async with asyncio.timeout(PATIENCE_S):
        await link.link.closed.wait()


async def test_a_link_that_ends_while_images_are_on_their_way(
    rogue: tuple[WorkerLink, Rogue], tmp_path: Path
) -> None:
    link, worker = rogue
    area = StagingArea(tmp_path / "staging")
    receiving = asyncio.ensure_future(
        link.receive(meta("images"), area, lambda totals: None)
    )
    await asyncio.sleep(0)
    worker.link.close("gone")
    with pytest.raises(WorkerVanished, match="the images were on their way"):
        await receiving


def meta(purpose: Any) -> FileMeta:
    return FileMeta(
        transfer_id="transfer-" + "0" * 20,
        stream=1,
        job_id=job_id(1),
        purpose=purpose,
        manifest_bytes=10,
        manifest_digest="00" * 32,
        total_bytes=1,
        file_count=1,
    )
