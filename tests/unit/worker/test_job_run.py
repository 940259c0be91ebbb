"""A job at work, with an executor that runs nothing and a journal that is real."""

import asyncio
import pickle
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.protocol.errors import (
    BadRequest,
    JobLost,
    RunnerNotStarted,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.job_mirror import EventApplied, JobMirror
from sleap_rtc_plugin.protocol.limits import MAX_ERROR_TEXT_CHARS
from sleap_rtc_plugin.protocol.messages import (
    JobSpec,
    JobSummary,
    ProgressReport,
    StepEvent,
    TrainLog,
    TrainStep,
)
from sleap_rtc_worker import job_run, step_restart
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.limits import MAX_STEP_RESTARTS
from sleap_rtc_worker.sleap_nn_command import expected_files
from sleap_rtc_worker.step_records import (
    RunnerEvent,
    StepOrder,
    StepOutcome,
    StepProgress,
)

JOB = "job-" + "0" * 20
STEPS = [
    TrainStep(config="a.yaml", labels="l.slp", run_name="first", head="centroid"),
    TrainStep(config="b.yaml", labels="l.slp", run_name="second", head="bottomup"),
]
DONE: dict[str, Any] = {"exit_code": 0, "train_begin": True, "train_end": True}
GOOD = StepOutcome(**DONE)


def training(first: int, last: int) -> list[RunnerEvent]:
    """Return what a training of these epochs says."""
    said: list[RunnerEvent] = [StepProgress(event="train_begin", at=1.0)]
    for epoch in range(first, last + 1):
        said.append(StepProgress(event="epoch_begin", epoch=epoch, at=2.0))
        said.append(StepProgress(event="batch_end", epoch=epoch, batch=0, at=2.0))
        said.append(StepProgress(event="epoch_end", epoch=epoch, at=2.0))
    return [*said, StepProgress(event="train_end", at=3.0)]


def lines_of(event: StepEvent) -> list[str]:
    return event.lines if isinstance(event, TrainLog) else []


def write_checkpoint(path: Path, epoch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"epoch": epoch}, protocol=2))


class FakeStep:
    """A running step that the test ends."""

    def __init__(self, events: list[RunnerEvent]) -> None:
        self.asked: list[str] = []
        self.ended: asyncio.Future[StepOutcome] = asyncio.Future()
        self.all_events = self._events = events

    async def events(
        self, since_offset: int = 0
    ) -> AsyncIterator[tuple[int, RunnerEvent]]:
        for offset, event in enumerate(self._events, start=1):
            if offset > since_offset:
                yield offset, event
        await asyncio.shield(self.ended)

    async def outcome(self) -> StepOutcome:
        return await self.ended

    def stop(self) -> None:
        self.asked.append("stop")

    def cancel(self) -> None:
        self.asked.append("cancel")


class FakeExecutor:
    """Hands out fake steps, in order."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[FakeStep] = asyncio.Queue()
        self.events: list[RunnerEvent] = [StepProgress(event="train_begin", at=1.0)]
        self.error: Exception | None = None
        self.adopted: FakeStep | None = None
        self.orders: list[StepOrder] = []
        self.folders: list[Path] = []
        self.adopted_from: list[Path] = []

    async def start(self, order: StepOrder, step_dir: Path) -> FakeStep:
        self.orders.append(order)
        self.folders.append(step_dir)
        if self.error is not None:
            raise self.error
        step = FakeStep(self.events)
        self.started.put_nowait(step)
        return step

    async def adopt(self, step_dir: Path) -> FakeStep | None:
        self.adopted_from.append(step_dir)
        return self.adopted


class Bench:
    """One job with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        self.files = FileManager(folder)
        self.executor = FakeExecutor()
        self.changed = asyncio.Event()
        self.run = self.take_up(
            JobRecord(
                job_id=JOB,
                spec=JobSpec(name="job", steps=list(STEPS)),
                package_digest="0" * 64,
                package_bytes=1,
                submitter="client",
                created_at=1.0,
            )
        )

    def take_up(self, record: JobRecord) -> JobRun:
        tools = StepTools(
            journal=self.journal,
            files=self.files,
            executor=self.executor,  # type: ignore[arg-type]
            trainer=["sleap-nn"],
            worker_name="w",
        )
        return JobRun(record, tools, lambda run: self.changed.set())

    def write_results(self, step: int) -> None:
        root = self.files.package_dir(JOB)
        for path in expected_files(STEPS[step]):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)

    async def until(self, *states: JobState) -> None:
        async with asyncio.timeout(5):
            while self.run.state not in states:
                self.changed.clear()
                await self.changed.wait()

    async def until_read(self, offset: int) -> None:
        news = asyncio.Event()
        self.run.watch(news.set)
        async with asyncio.timeout(5):
            while self.run.record.events_offset < offset:
                news.clear()
                await news.wait()

    def start(self) -> None:
        self.run.begin_staging()
        self.run.package_staged()
        self.run.grant_slot()


@pytest.fixture
async def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setattr(step_restart, "RESTART_PAUSE_FIRST_S", 0.0)
    made = Bench(tmp_path)
    yield made
    await made.run.close()
    made.journal.close()


async def test_steps_run_in_order_and_every_change_is_journaled(bench: Bench) -> None:
    bench.start()
    for index in range(2):
        step = await bench.executor.started.get()
        await bench.until(JobState.RUNNING)
        bench.write_results(index)
        step.ended.set_result(GOOD)
        await bench.until(JobState.STARTING, JobState.SUCCEEDED)
    await bench.until(JobState.SUCCEEDED)
    states = [e.state for e in bench.journal.events(JOB, 0) if hasattr(e, "state")]
    assert states == [
        *("staging", "queued"),
        *("starting", "running") * 2,
        *("collecting", "succeeded"),
    ]
    seqs = [event.seq for event in bench.journal.events(JOB, 0)]
    assert seqs == list(range(1, len(seqs) + 1))
    results = await bench.run.results()
    assert len(results.manifest.files) == len(expected_files(STEPS[0])) * 2


async def test_a_row_says_how_far_the_job_is(bench: Bench) -> None:
    assert bench.run.summary() == JobSummary(
        job_id=JOB, name="job", state="submitted", steps=2, created_at=1.0
    )
    bench.executor.events = [
        StepProgress(event="epoch_begin", epoch=2, at=1.0),
        StepProgress(event="batch_end", epoch=2, batch=5, at=2.0),
        StepProgress(event="predict", done=3, total=9, at=3.0),
    ]
    began = time.time()
    bench.start()
    first = await bench.executor.started.get()
    bench.executor.events = []
    await bench.until(JobState.RUNNING)
    await bench.until_read(3)
    row = bench.run.summary()
    assert (row.step, row.epoch, row.done, row.total) == (0, 2, 3, 9)
    assert row.last_seq == bench.journal.last_seq(JOB)
    assert row.started_at is not None
    assert began <= row.started_at <= time.time()
    assert row.ended_at is None
    # A worker that takes the job up again knows as much.
    assert bench.take_up(bench.journal.jobs()[0]).summary() == row

    bench.write_results(0)
    first.ended.set_result(GOOD)
    second = await bench.executor.started.get()
    later = bench.run.summary()
    assert (later.step, later.epoch, later.done, later.total) == (1, None, 0, 0)
    assert later.started_at == row.started_at
    last_lines = ["x" * 500] * 20
    second.ended.set_result(StepOutcome(exit_code=1, last_lines=last_lines))
    await bench.until(JobState.FAILED)
    ended = bench.run.summary()
    assert ended.ended_at is not None
    assert row.started_at <= ended.ended_at <= time.time()
    assert ended.error is not None
    assert max(map(len, ended.error.fields.values())) == MAX_ERROR_TEXT_CHARS


async def test_only_a_training_has_images(bench: Bench) -> None:
    for step in (None, 2, 10**9):
        with pytest.raises(BadRequest, match="no training"):
            await bench.run.images(step)
    source = await bench.run.images(1)
    assert source.manifest.files == ()


async def test_a_stop_before_the_runner_is_up_reaches_it(bench: Bench) -> None:
    bench.executor.events = []
    bench.start()
    bench.run.stop("job")
    step = await bench.executor.started.get()
    await asyncio.sleep(0)
    bench.write_results(0)
    step.ended.set_result(GOOD)
    await bench.until(JobState.SUCCEEDED)
    assert step.asked == ["stop"]
    assert bench.executor.started.empty()


async def test_a_cancelled_job_leaves_no_file(bench: Bench) -> None:
    bench.start()
    step = await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    bench.write_results(0)
    bench.run.cancel()
    step.ended.set_result(StepOutcome(exit_code=1, cancelled=True))
    await bench.until(JobState.CANCELLED)
    assert step.asked == ["cancel"]
    async with asyncio.timeout(5):
        while bench.files.job_dir(JOB).exists():  # noqa: ASYNC110 - a folder tells nobody
            await asyncio.sleep(0)


async def test_a_failed_step_keeps_the_models_before_it(bench: Bench) -> None:
    bench.start()
    first = await bench.executor.started.get()
    bench.write_results(0)
    first.ended.set_result(GOOD)
    second = await bench.executor.started.get()
    second.ended.set_result(StepOutcome(exit_code=1, last_lines=["boom"]))
    await bench.until(JobState.FAILED)
    assert "boom" in str(bench.run.error)
    results = await bench.run.results()
    assert {entry.path.split("/")[1] for entry in results.manifest.files} == {"first"}


async def test_a_step_that_is_cut_off_too_often_ends_the_job_as_lost(
    bench: Bench,
) -> None:
    bench.start()
    for _ in range(MAX_STEP_RESTARTS + 1):
        assert bench.run.state is not JobState.LOST
        step = await bench.executor.started.get()
        step.ended.set_result(StepOutcome(lost=True))
    await bench.until(JobState.LOST)
    assert isinstance(bench.run.error, JobLost)
    assert "disappeared" in str(bench.run.error)
    said = [line for e in bench.journal.events(JOB, 0) for line in lines_of(e)]
    assert len(said) == MAX_STEP_RESTARTS
    assert "restart 5 of 5" in said[-1]
    orders, folders = bench.executor.orders, bench.executor.folders
    assert len(set(folders)) == len(folders) == MAX_STEP_RESTARTS + 1
    assert {order.argv[-1] for order in orders} == {orders[0].argv[-1]}


async def test_a_training_goes_on_from_its_checkpoint_and_tells_nothing_twice(
    bench: Bench,
) -> None:
    bench.executor.events = training(0, 1)[:-2]
    bench.start()
    first = await bench.executor.started.get()
    await bench.until_read(len(first.all_events))
    run_dir = bench.files.package_dir(JOB) / "models" / "first"
    write_checkpoint(run_dir / "last.ckpt", epoch=0)
    write_checkpoint(run_dir / "best.ckpt", epoch=0)
    bench.executor.events = training(1, 2)
    first.ended.set_result(StepOutcome(signal=9, train_begin=True))
    second = await bench.executor.started.get()
    assert not list(run_dir.iterdir())
    order = bench.executor.orders[1]
    assert order.argv[-1].endswith('resume_ckpt_path="../../kept/0/last.ckpt"')
    assert Path(order.cwd, "../../kept/0/last.ckpt").resolve().is_file()
    assert order.kept_dir == str(bench.files.kept_dir(JOB, 0))
    await bench.until_read(len(second.all_events))
    found = bench.journal.events(JOB, 0)
    [line] = [line for e in found for line in lines_of(e)]
    assert "SIGKILL" in line
    assert "after epoch 1 (restart 1 of 5)" in line
    reports = [(e.kind, e.epoch) for e in found if isinstance(e, ProgressReport)]
    assert reports == [(e.event, e.epoch) for e in training(0, 2)]
    assert bench.run.record.restarts == 1
    bench.write_results(0)
    second.ended.set_result(GOOD)
    await bench.until(JobState.STARTING)
    assert (bench.run.record.step, bench.run.record.restarts) == (1, 0)
    assert not bench.files.kept_dir(JOB, 0).exists()


async def test_a_curve_without_its_checkpoint_begins_anew(bench: Bench) -> None:
    bench.executor.events = training(0, 1)[:-2]
    bench.start()
    first = await bench.executor.started.get()
    await bench.until_read(len(first.all_events))
    bench.executor.events = training(0, 1)
    first.ended.set_result(StepOutcome(lost=True))
    second = await bench.executor.started.get()
    await bench.until_read(len(second.all_events))
    found = bench.journal.events(JOB, 0)
    kinds = [e.kind for e in found if isinstance(e, ProgressReport)]
    assert kinds.count("train_begin") == 2
    # A client makes one curve of it, as of any job.
    mirror = JobMirror(JOB, bench.run.record.spec)
    for event in found:
        assert isinstance(mirror.handle(event), EventApplied)


async def test_a_runner_that_does_not_start_is_tried_again(bench: Bench) -> None:
    bench.executor.error = RunnerNotStarted(reason="no module zmq")
    bench.start()
    await bench.until(JobState.LOST)
    assert "no module zmq" in str(bench.run.error)


async def test_a_job_that_is_cancelled_between_two_tries_ends_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_restart, "RESTART_PAUSE_FIRST_S", 600.0)
    monkeypatch.setattr(step_restart, "RESTART_PAUSE_MAX_S", 600.0)
    bench.executor.events = []
    bench.start()
    step = await bench.executor.started.get()
    step.ended.set_result(StepOutcome(lost=True))
    async with asyncio.timeout(5):
        while bench.run.record.restarts == 0:
            bench.changed.clear()
            await bench.changed.wait()
    bench.run.cancel()
    await bench.until(JobState.CANCELLED)
    assert bench.executor.started.empty()


async def test_a_stop_is_not_forgotten_when_the_trainer_dies(bench: Bench) -> None:
    bench.start()
    step = await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    bench.run.stop("job")
    step.ended.set_result(StepOutcome(signal=9, stopped=True))
    again = await bench.executor.started.get()
    bench.write_results(0)
    again.ended.set_result(StepOutcome(**DONE, stopped=True))
    await bench.until(JobState.SUCCEEDED)
    assert again.asked == ["stop"]
    assert bench.run.record.finished_steps == [0]


async def test_a_worker_that_dies_between_two_tries_goes_on(bench: Bench) -> None:
    bench.start()
    step = await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    step.ended.set_result(StepOutcome(lost=True))
    await bench.executor.started.get()
    await bench.run.close()
    bench.run = bench.take_up(bench.journal.jobs()[0])
    assert bench.run.record.restarts == 1
    await bench.run.resume()
    third = await bench.executor.started.get()
    assert bench.executor.folders[1] == bench.executor.folders[2]
    assert bench.executor.adopted_from == [bench.executor.folders[1]]
    bench.write_results(0)
    third.ended.set_result(GOOD)
    await bench.until(JobState.STARTING)


@pytest.mark.parametrize(
    "error", [StorageFailed(place="x", reason="y"), RuntimeError("a bug of ours")]
)
async def test_a_step_that_cannot_start_ends_the_job(
    bench: Bench, error: Exception
) -> None:
    bench.executor.error = error
    bench.start()
    await bench.until(JobState.FAILED)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, -1e9])
async def test_a_clock_that_jumps_ends_and_hangs_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    now = 2e9
    monkeypatch.setattr(job_run.time, "time", lambda: now)
    bench.start()
    step = await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    now += jump_s
    # The pause before a restart is not the wall clock's either.
    step.ended.set_result(StepOutcome(lost=True))
    again = await bench.executor.started.get()
    now -= jump_s / 2
    bench.write_results(0)
    again.ended.set_result(GOOD)
    last = await bench.executor.started.get()
    now += jump_s
    bench.write_results(1)
    last.ended.set_result(GOOD)
    await bench.until(JobState.SUCCEEDED)
    row = bench.run.summary()
    assert row.started_at is not None
    assert row.ended_at is not None
    assert row.started_at <= row.ended_at
    mirror = JobMirror(JOB, bench.run.record.spec)
    for event in bench.journal.events(JOB, 0):
        assert isinstance(mirror.handle(event), EventApplied)


async def test_a_restarted_worker_goes_on_where_the_journal_ends(
    bench: Bench,
) -> None:
    bench.executor.events = [
        StepProgress(event="train_begin", at=1.0),
        StepProgress(event="epoch_begin", epoch=0, at=2.0),
    ]
    bench.start()
    await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    await bench.until_read(2)
    await bench.run.close()
    known = bench.run.last_seq

    bench.run = bench.take_up(bench.journal.jobs()[0])
    assert (bench.run.state, bench.run.last_seq) == (JobState.RUNNING, known)
    adopted = FakeStep(
        [*bench.executor.events, StepProgress(event="epoch_end", epoch=0, at=3.0)]
    )
    bench.executor.adopted = adopted
    await bench.run.resume()
    bench.write_results(0)
    adopted.ended.set_result(GOOD)
    await bench.until(JobState.STARTING)
    new = bench.journal.events(JOB, known)
    kinds = [event.kind for event in new if isinstance(event, ProgressReport)]
    assert kinds == ["epoch_end"]


async def test_a_step_that_was_never_started_is_started_after_a_restart(
    bench: Bench,
) -> None:
    bench.start()
    await bench.executor.started.get()
    await bench.until(JobState.RUNNING)
    await bench.run.close()
    bench.run = bench.take_up(bench.journal.jobs()[0])
    await bench.run.resume()
    second = await bench.executor.started.get()
    bench.write_results(0)
    second.ended.set_result(GOOD)
    await bench.until(JobState.STARTING)
    assert bench.run.record.finished_steps == [0]
