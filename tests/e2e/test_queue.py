"""Several people at one worker: turns, places, limits; only the trainer is scripted.

The short series of clients runs with the other tests; fifty jobs of five clients, and
a real training that reaches its limit, are started by hand, with `-m slow -s`.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
import pytest
from support.packages import CENTROID, Members, edit_config, rewrite
from support.programs import POSIX, Program, Programs, Worker, wait_for

from sleap_rtc_plugin.protocol.errors import (
    QueueShareUsed,
    QuotaExceeded,
    ResultsRemoved,
    RuntimeExceeded,
)
from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import JobMirror, JobNews
from sleap_rtc_plugin.protocol.queue_messages import JobQueue
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.package_scan import scan_package
from sleap_rtc_plugin.session.remote_job import RemoteJob, describe_job
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.training_package import TrainingPackage, open_package
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker.journal import JobRecord, Journal

OWNERS = ("ann", "bob", "cleo", "dan", "eve")
SHORT_JOBS_EACH = 2
LONG_JOBS_EACH = 10
PATIENCE_S = 120.0
LONG_PATIENCE_S = 1200.0


@dataclass
class Client:
    """A person with a link to the worker."""

    owner: str
    link: WorkerLink
    package: TrainingPackage
    source: FileSource
    jobs: list[RemoteJob] = field(default_factory=list)
    places: dict[str, list[JobQueue]] = field(default_factory=dict)

    async def queue(self) -> RemoteJob:
        """Submit a job and send its package, until it waits or runs."""
        spec = msgspec.structs.replace(self.package.spec, owner=self.owner)
        job = RemoteJob(self.link, new_job_id(), spec)
        heard = self.places[job.job_id] = []

        def listen(news: JobNews, mirror: JobMirror) -> None:
            if isinstance(news, JobQueue):
                heard.append(news)

        await job.submit(self.source)
        await job.attach(listen)
        await job.send_package(self.source, lambda totals: None)
        await job.wait_until(
            lambda m: m.state not in (JobState.SUBMITTED, JobState.STAGING)
        )
        self.jobs.append(job)
        return job


@contextlib.asynccontextmanager
async def clients(
    worker: Worker, package: Path, folder: Path, *owners: str
) -> AsyncIterator[list[Client]]:
    """Let people enter the worker's room, in this process."""
    opened = await asyncio.to_thread(open_package, package, folder)
    source = await asyncio.to_thread(scan_package, opened, lambda done, total: None)
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for owner in owners:
            room = RemoteSession(Session.parse(worker.session), owner=owner)
            await stack.enter_async_context(room)
            link = await room.connect(await room.choose())
            found.append(Client(owner, link, opened, source))
        yield found


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "opened"
    folder.mkdir()
    return folder


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def records(data: Path) -> dict[str, JobRecord]:
    """Read the journal of a worker that has ended."""
    with contextlib.closing(Journal(data)) as journal:
        return {record.job_id: record for record in journal.jobs()}


def in_turns(jobs_each: int) -> Iterator[str]:
    """Say in which order the owners' jobs begin where each has as many."""
    return itertools.islice(itertools.cycle(OWNERS), jobs_each * len(OWNERS))


async def take_turns(
    programs: Programs, package: Path, workdir: Path, gate: Path, jobs_each: int
) -> None:
    data = programs.folder / "data"
    worker = programs.scripted_worker(f"gated,gate={gate}", "--data", data)
    worker.wait_ready()
    began = time.monotonic()
    async with clients(worker, package, workdir, *OWNERS) as people:
        for person in people:
            for _ in range(jobs_each):
                await person.queue()
        waiting = [job for person in people for job in person.jobs][1:]
        last = people[-1].jobs[-1]
        await until_placed(people[-1], last, len(waiting))
        gate.touch()
        for person in people:
            for number, job in enumerate(person.jobs):
                await job.wait_until(lambda mirror: mirror.has_ended)
                assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
                home = workdir / person.owner / str(number)
                imported, _ = await job.fetch(home, lambda totals: None)
                [model] = imported.models
                assert (model / "best.ckpt").stat().st_size > 0
        print(  # noqa: T201 - the long series is read by who started it
            f"{len(waiting) + 1} jobs of {len(people)} clients in "
            f"{time.monotonic() - began:.0f} s"
        )
        # Once nobody comes any more, places only get better.
        for person in people:
            for job in person.jobs:
                heard = person.places[job.job_id]
                full = [place.waiting == len(waiting) for place in heard]
                begin = full.index(True) if True in full else len(heard)
                positions = [place.position for place in heard[begin:]]
                assert positions == sorted(positions, reverse=True)
    worker.terminate()
    await asyncio.to_thread(worker.wait)
    found = sorted(records(data).values(), key=lambda record: record.turn)
    assert [record.spec.owner for record in found] == list(in_turns(jobs_each))
    for owner in OWNERS:
        tickets = [r.ticket for r in found if r.spec.owner == owner]
        assert tickets == sorted(tickets)
    assert {record.state for record in found} == {JobState.SUCCEEDED}
    assert all(record.fetched_at is not None for record in found)


async def until_placed(person: Client, job: RemoteJob, position: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            place = job.mirror.place
            if place is not None and place.position == position:
                return
            # Another process tells it; there is nothing here to wait for.
            await asyncio.sleep(0.02)


async def test_clients_take_turns(
    programs: Programs, small_package: Path, workdir: Path, gate: Path
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await take_turns(programs, small_package, workdir, gate, SHORT_JOBS_EACH)


@pytest.mark.slow
@pytest.mark.timeout(LONG_PATIENCE_S)
async def test_fifty_jobs_of_five_clients_take_turns(
    programs: Programs, small_package: Path, workdir: Path, gate: Path
) -> None:
    async with asyncio.timeout(LONG_PATIENCE_S):
        await take_turns(programs, small_package, workdir, gate, LONG_JOBS_EACH)


# -- one person at the command line ---------------------------------------------------


def queued(programs: Programs, worker: Worker, package: Path, where: Path) -> Program:
    """Start a `train` and wait until its job is queued."""
    train = programs.train(package, worker.session, where)
    train.wait_event(event="state", state="queued")
    return train


def test_train_says_where_its_job_stands(
    programs: Programs, small_package: Path, output: Path, gate: Path
) -> None:
    worker = programs.scripted_worker(f"gated,gate={gate}", "--name", "gpu-box")
    worker.wait_ready()
    first = queued(programs, worker, small_package, output / "1")
    first.wait_event(event="state", state="running")
    second = queued(programs, worker, small_package, output / "2")
    place = second.wait_event(event="queue")
    assert place == {"event": "queue", "position": 1, "waiting": 1}
    second.wait_line(
        lambda line: line == "First in the queue of gpu-box.", stream="err"
    )
    gate.touch()
    assert (first.wait(), second.wait()) == (0, 0)


def test_a_full_queue_is_said(
    programs: Programs, small_package: Path, output: Path, gate: Path
) -> None:
    worker = programs.scripted_worker(f"gated,gate={gate}", "--max-jobs", "1")
    worker.wait_ready()
    first = queued(programs, worker, small_package, output / "1")
    first.wait_event(event="state", state="running")
    second = queued(programs, worker, small_package, output / "2")
    third = programs.train(small_package, worker.session, output / "3")
    assert third.wait() == 4
    third.wait_line(lambda line: "its queue is full: 1 job waits" in line, stream="err")
    gate.touch()
    assert (first.wait(), second.wait()) == (0, 0)


def test_the_places_that_are_left_are_kept_for_others(
    programs: Programs, small_package: Path, output: Path, gate: Path
) -> None:
    worker = programs.scripted_worker(
        f"gated,gate={gate}", "--name", "gpu-box", "--max-jobs", "2"
    )
    worker.wait_ready()
    first = queued(programs, worker, small_package, output / "1")
    first.wait_event(event="state", state="running")
    second = queued(programs, worker, small_package, output / "2")
    third = programs.train(small_package, worker.session, output / "3")
    assert third.wait() == 4
    assert third.report["error"]["code"] == QueueShareUsed.code
    third.wait_line(
        lambda line: (
            "gpu-box keeps the rest of its queue for other people" in line
            and "wait there: 1, places left: 1" in line
        ),
        stream="err",
    )
    where = ("--session", worker.session, "--output", output / "4", "--json")
    fourth = programs.client("train", small_package, *where, LOGNAME="somebody-else")
    fourth.wait_event(event="state", state="queued")
    gate.touch()
    assert [train.wait() for train in (first, second, fourth)] == [0, 0, 0]


def test_a_job_that_runs_too_long_brings_its_model_home(
    programs: Programs, small_package: Path, output: Path, gate: Path
) -> None:
    worker = programs.scripted_worker(f"gated,gate={gate}", "--max-runtime", "2s")
    worker.wait_ready()
    train = programs.train(small_package, worker.session, output)
    assert train.wait() == 1
    report = train.report
    assert report["state"] == "failed"
    assert report["error"]["code"] == RuntimeExceeded.code
    assert "was stopped after 2 s" in report["error"]["message"]
    [model] = report["models"]
    assert (Path(model) / "best.ckpt").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.needs_sleap_nn
@pytest.mark.timeout(600)
def test_a_real_training_that_runs_too_long_brings_its_model_home(
    programs: Programs, small_package: Path, tmp_path: Path, output: Path
) -> None:
    """sleap-nn itself is asked to stop, and keeps the best weights so far."""

    def train_for_ever(members: Members) -> None:
        values = {
            "trainer_config.max_epochs": 100_000,
            "trainer_config.early_stopping.stop_training_on_plateau": False,
        }
        edit_config(members, CENTROID, values)

    package = rewrite(small_package, tmp_path / "long.zip", train_for_ever)
    worker = programs.worker("--max-runtime", "100s").wait_ready()
    train = programs.train(package, worker.session, output)
    assert train.wait(500.0) == 1
    assert train.report["error"]["code"] == RuntimeExceeded.code
    [model] = train.report["models"]
    assert (Path(model) / "best.ckpt").stat().st_size > 0
    assert any(e.get("kind") == "train_end" for e in train.events)


def test_two_workers_on_one_folder(programs: Programs) -> None:
    data = programs.folder / "data"
    programs.scripted_worker("train", "--data", data).wait_ready()
    second = programs.scripted_worker("train", "--data", data)
    assert second.wait() == 3
    second.wait_line(
        lambda line: f"{data} is in use by another worker" in line, stream="err"
    )


# -- limits that people meet over a link ---------------------------------------------


async def test_a_quota_refuses_until_room_may_be_made(
    programs: Programs, small_package: Path, workdir: Path
) -> None:
    """A promise is kept against a new job; when it is over, the new job is taken."""
    data = programs.folder / "data"
    size = small_package.stat().st_size
    limits = ["--data", data, "--store-limit", "0"]
    server = programs.signaling()
    worker = programs.scripted_worker("train", *limits, "--signaling", server)
    session = worker.wait_ready().session
    left = programs.train(small_package, session, workdir / "out", "--detach")
    assert await asyncio.to_thread(left.wait) == 0
    async with (
        asyncio.timeout(PATIENCE_S),
        clients(worker, small_package, workdir, "ann") as [ann],
    ):
        _, spec = await describe_job(ann.link, left.report["job_id"])
        first = RemoteJob(ann.link, left.report["job_id"], spec)
        await first.attach(lambda news, mirror: None)
        await first.wait_until(lambda mirror: mirror.has_ended)
    worker.terminate()
    await asyncio.to_thread(worker.wait)

    # Room for one and a half jobs.
    limits += ["--session", session, "--disk-quota", f"{size * 2}B"]
    worker = programs.scripted_worker("train", *limits).wait_ready()
    async with (
        asyncio.timeout(PATIENCE_S),
        clients(worker, small_package, workdir, "ann") as [ann],
    ):
        row, _ = await describe_job(ann.link, first.job_id)
        assert row.expires_at is not None
        assert row.ended_at is not None
        assert row.expires_at - row.ended_at == pytest.approx(30 * 24 * 3600)
        with pytest.raises(QuotaExceeded, match="may not take more of its disk"):
            await ann.queue()
        assert (data / "jobs" / first.job_id).exists()
    worker.terminate()
    await asyncio.to_thread(worker.wait)

    worker = programs.scripted_worker("train", *limits, "--keep-results", "0")
    worker.wait_ready()
    async with (
        asyncio.timeout(PATIENCE_S),
        clients(worker, small_package, workdir, "ann") as [ann],
    ):
        second = await ann.queue()
        await second.wait_until(lambda mirror: mirror.has_ended)
        assert second.mirror.state is JobState.SUCCEEDED
        assert not (data / "jobs" / first.job_id).exists()
        row, spec = await describe_job(ann.link, first.job_id)
        assert (row.state, row.results_removed) == ("succeeded", True)
        with pytest.raises(ResultsRemoved, match="were removed on 2"):
            await RemoteJob(ann.link, first.job_id, spec).fetch(
                workdir / "home", lambda totals: None
            )
        imported, _ = await second.fetch(workdir / "home", lambda totals: None)
        assert len(imported.models) == 1
    # The command that left says so, too; once more, it trains again.
    again = programs.train(small_package, session, workdir / "out")
    assert await asyncio.to_thread(again.wait) == 1
    assert again.report["error"]["code"] == ResultsRemoved.code
    worker.terminate()
    await asyncio.to_thread(worker.wait)
    worker = programs.scripted_worker("train", "--session", session, "--data", data)
    worker.wait_ready()
    again = programs.train(small_package, session, workdir / "out")
    assert await asyncio.to_thread(again.wait) == 0
    assert again.report["job_id"] != first.job_id


async def test_a_job_that_waits_is_cancelled_and_submitted_twice(
    programs: Programs, small_package: Path, workdir: Path, gate: Path
) -> None:
    data = programs.folder / "data"
    worker = programs.scripted_worker(f"gated,gate={gate}", "--data", data)
    worker.wait_ready()
    async with (
        asyncio.timeout(PATIENCE_S),
        clients(worker, small_package, workdir, "ann", "bob") as [ann, bob],
    ):
        first = await ann.queue()
        second, third = await bob.queue(), await bob.queue()
        # The same job again is the same job, and keeps its place.
        assert await third.submit(bob.source) is JobState.QUEUED
        await until_placed(bob, third, 2)
        await second.cancel()
        await until_placed(bob, third, 1)
        gate.touch()
        for job, state in (
            (first, JobState.SUCCEEDED),
            (second, JobState.CANCELLED),
            (third, JobState.SUCCEEDED),
        ):
            await job.wait_until(lambda mirror: mirror.has_ended)
            assert job.mirror.state is state
        assert not (data / "jobs" / second.job_id).exists()


# -- several GPUs ----------------------------------------------------------------------


def shown_gpu(programs: Programs, pid: int) -> str:
    assert pid in {process.pid for process in programs.processes()}
    return psutil.Process(pid).environ().get("CUDA_VISIBLE_DEVICES", "")


@POSIX
def test_every_gpu_runs_a_job_and_a_killed_worker_finds_them_again(
    programs: Programs, small_package: Path, output: Path, gate: Path
) -> None:
    data, log = programs.folder / "data", programs.folder / "pids"
    server = programs.signaling()
    start = f"gated,gate={gate},log={log}"
    where = ("--data", data)
    worker = programs.scripted_worker(
        start, *where, "--signaling", server, E2E_GPUS="2"
    )
    worker.wait_ready()
    worker.wait_line(lambda line: line.endswith("2 jobs run at once."), stream="err")
    trains = []
    for number in range(3):
        train = queued(programs, worker, small_package, output / str(number))
        if number < 2:
            train.wait_event(event="state", state="running")
        trains.append(train)
    trains[2].wait_event(event="queue", position=1)
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert [shown_gpu(programs, pid) for pid in pids] == ["0", "1"]

    for train in trains:
        train.kill()
    worker.kill()
    session = worker.session
    again = programs.scripted_worker(start, *where, "--session", session, E2E_GPUS="2")
    again.wait_ready()
    trains = [
        programs.train(small_package, session, output / str(number))
        for number in range(3)
    ]
    trains[2].wait_event(event="queue", position=1)
    assert len(log.read_text().splitlines()) == 2
    gate.touch()
    assert [train.wait() for train in trains] == [0, 0, 0]
    wait_for(lambda: len(log.read_text().splitlines()) == 3, "three trainings")
    again.terminate()
    again.wait()
    found = sorted(records(data).values(), key=lambda record: record.turn)
    assert [record.gpu for record in found][:2] == ["0", "1"]
