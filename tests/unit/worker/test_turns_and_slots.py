"""Slots, turns and limits of a coordinator whose steps run nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sleap_rtc_plugin.protocol.errors import (
    JobCancelled,
    QueueShareUsed,
    RuntimeExceeded,
    WorkerBusy,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import JobSpec, JobSubmit, TrainStep
from sleap_rtc_worker import job_turns
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.gpu_slots import Slot, variables_of
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.job_turns import duration_words
from sleap_rtc_worker.journal import Journal
from sleap_rtc_worker.retention import JobLimits
from sleap_rtc_worker.sleap_nn_command import expected_files
from sleap_rtc_worker.state_manager import StateManager, WorkerStatus
from sleap_rtc_worker.step_records import StepOrder, StepOutcome, StepProgress

GOOD = StepOutcome(exit_code=0, train_begin=True, train_end=True)
FAILED = StepOutcome(exit_code=1)
TWO_GPUS = (
    Slot("0", {"CUDA_VISIBLE_DEVICES": "0"}),
    Slot("GPU-b", {"CUDA_VISIBLE_DEVICES": "GPU-b"}),
)


class FakeStep:
    """A running step that the test ends."""

    def __init__(self, order: StepOrder | None = None) -> None:
        self.order = order
        self.asked: list[str] = []
        self.ended: asyncio.Future[StepOutcome] = asyncio.Future()

    async def events(
        self, since_offset: int = 0
    ) -> AsyncIterator[tuple[int, StepProgress]]:
        if since_offset < 1:
            yield 1, StepProgress(event="train_begin", at=1.0)
        await asyncio.shield(self.ended)

    async def outcome(self) -> StepOutcome:
        return await self.ended

    def stop(self) -> None:
        self.asked.append("stop")

    def cancel(self) -> None:
        self.asked.append("cancel")
        self.ended.set_result(StepOutcome(exit_code=1, cancelled=True))


class FakeExecutor:
    """Keeps the steps by the job they are of."""

    def __init__(self) -> None:
        self.steps: dict[str, FakeStep] = {}

    async def start(self, order: StepOrder, step_dir: Path) -> FakeStep:
        step = self.steps[step_dir.parents[1].name] = FakeStep(order)
        return step

    async def adopt(self, step_dir: Path) -> FakeStep | None:
        return self.steps.get(step_dir.parents[1].name)


def submission_of(run: JobRun) -> JobSubmit:
    return JobSubmit(
        command_id="c-2",
        job_id=run.job_id,
        spec=run.record.spec,
        package_digest=run.record.package_digest,
        package_bytes=run.record.package_bytes,
    )


class Yard:
    """A worker without links: jobs are queued as if their package had come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.executor = FakeExecutor()
        self.journal = Journal(folder)
        self.count = 0
        self.ended: list[JobRun] = []
        self.changed = asyncio.Event()
        self.jobs = self.start()

    def start(
        self, slots: tuple[Slot, ...] = (Slot(),), limits: JobLimits | None = None
    ) -> JobCoordinator:
        state = StateManager(
            name="w", capabilities={}, tags=[], on_change=lambda m: None
        )
        state.set_status(WorkerStatus.AVAILABLE)
        self.state = state
        tools = StepTools(
            journal=self.journal,
            files=FileManager(self.folder),
            executor=self.executor,  # type: ignore[arg-type]
            trainer=["sleap-nn"],
            worker_name="w",
            gpu_variables=variables_of(slots),
        )
        self.tools = tools
        self.jobs = JobCoordinator(
            tools=tools,
            state=state,
            can_train=True,
            slots=slots,
            limits=limits,
            on_ended=self.ended.append,
        )
        return self.jobs

    async def restart(
        self, slots: tuple[Slot, ...] = (Slot(),), limits: JobLimits | None = None
    ) -> None:
        await self.jobs.close()
        self.start(slots, limits)
        await self.jobs.resume()

    def submit(self, owner: str) -> JobRun:
        self.count += 1
        step = TrainStep(
            config="c.yaml", labels="l.slp", run_name="r", head="single_instance"
        )
        message = JobSubmit(
            command_id="c-1",
            job_id=f"job-{self.count:020x}",
            spec=JobSpec(name="x", owner=owner, steps=[step]),
            package_digest="0" * 64,
            package_bytes=1,
        )
        return self.jobs.submit(message, f"client-{self.count}")

    def queue(self, owner: str) -> JobRun:
        run = self.submit(owner)
        run.note(ticket=self.jobs._turns.next_number())
        run.package_staged()
        return run

    async def until(self, run: JobRun, *states: JobState) -> None:
        news = asyncio.Event()
        run.watch(news.set)
        async with asyncio.timeout(10):
            while run.state not in states:
                news.clear()
                await news.wait()
        run.unwatch(news.set)

    async def until_placed(self, run: JobRun, position: int) -> None:
        news = asyncio.Event()
        run.watch(news.set)
        async with asyncio.timeout(10):
            while run.place is None or run.place.position != position:
                news.clear()
                await news.wait()
        run.unwatch(news.set)

    async def finish(self, run: JobRun) -> None:
        root = self.tools.files.package_dir(run.job_id)
        for path in expected_files(run.record.spec.steps[0]):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(path)
        self.executor.steps[run.job_id].ended.set_result(GOOD)
        await self.until(run, JobState.SUCCEEDED)


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    monkeypatch.setattr(job_turns, "PLACES_INTERVAL_S", 0.01)
    made = Yard(tmp_path)
    yield made
    await made.jobs.close()
    made.journal.close()


async def test_people_take_turns_and_a_restart_changes_nothing(yard: Yard) -> None:
    runs = [yard.queue(owner) for owner in ("ann", "ann", "ann", "bob", "cleo")]
    first = runs[0]
    await yard.until(first, JobState.RUNNING)
    await yard.until_placed(runs[1], 3)
    assert first.place is None
    assert [run.place.position for run in runs[1:] if run.place] == [3, 4, 1, 2]
    assert runs[3].summary().position == 1
    assert yard.state.queue_length == 4

    await yard.restart()
    runs = [yard.jobs.find(run.job_id) for run in runs]
    begun = [runs[0]]
    while len(begun) < len(runs):
        await yard.until(begun[-1], JobState.RUNNING)
        await yard.finish(begun[-1])
        waiting = [run for run in runs if run not in begun]
        tasks = [
            asyncio.ensure_future(yard.until(run, JobState.RUNNING)) for run in waiting
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        [started] = [run for run in waiting if run.state is JobState.RUNNING]
        begun.append(started)
        for task in tasks:
            task.cancel()
    assert [run.record.spec.owner for run in begun] == [
        *("ann", "bob", "cleo", "ann", "ann")
    ]
    turns = [run.record.turn for run in begun]
    assert turns == sorted(turns)


async def test_nameless_people_are_told_apart_by_their_peer(yard: Yard) -> None:
    runs = [yard.queue("") for _ in range(3)]
    await yard.until(runs[0], JobState.RUNNING)
    await yard.until_placed(runs[1], 1)


async def test_each_gpu_runs_a_job_and_keeps_it_over_a_restart(yard: Yard) -> None:
    await yard.restart(TWO_GPUS)
    runs = [yard.queue("ann") for _ in range(3)]
    for run, gpu in zip(runs, ("0", "GPU-b"), strict=False):
        await yard.until(run, JobState.RUNNING)
        assert run.record.gpu == gpu
        order = yard.executor.steps[run.job_id].order
        assert order is not None
        assert order.environment == {"CUDA_VISIBLE_DEVICES": gpu}
    assert runs[2].state is JobState.QUEUED
    await yard.finish(runs[0])
    await yard.until(runs[2], JobState.RUNNING)
    assert runs[2].record.gpu == "0"

    # Only the second GPU is left: both still run, and nothing more begins.
    await yard.restart(TWO_GPUS[1:])
    late = yard.queue("bob")
    await yard.finish(yard.jobs.find(runs[2].job_id))
    await yard.until_placed(late, 1)
    assert late.state is JobState.QUEUED
    await yard.finish(yard.jobs.find(runs[1].job_id))
    await yard.until(late, JobState.RUNNING)
    assert late.record.gpu == "GPU-b"


async def test_a_job_that_waits_can_be_cancelled(yard: Yard) -> None:
    first, second, third = (yard.queue("ann") for _ in range(3))
    await yard.until(first, JobState.RUNNING)
    await yard.until_placed(third, 2)
    second.cancel()
    assert second.state is JobState.CANCELLED
    assert isinstance(second.error, JobCancelled)
    assert second.summary().position is None
    await yard.until_placed(third, 1)
    await yard.finish(first)
    await yard.until(third, JobState.RUNNING)
    assert second.job_id not in yard.executor.steps


async def test_a_queue_that_is_full_refuses(yard: Yard) -> None:
    await yard.restart(limits=JobLimits(max_waiting=1))
    first = yard.queue("ann")
    await yard.until(first, JobState.RUNNING)
    second = yard.queue("ann")
    with pytest.raises(WorkerBusy, match="its queue is full: 1 job waits"):
        yard.submit("bob")
    second.cancel()
    assert yard.submit("bob").state is JobState.STAGING


async def test_one_user_leaves_places_for_the_others(yard: Yard) -> None:
    await yard.restart(limits=JobLimits(max_waiting=4))
    running = yard.queue("ann")
    await yard.until(running, JobState.RUNNING)
    first, second = yard.queue("ann"), yard.submit("Ann")
    with pytest.raises(QueueShareUsed) as refused:
        yard.submit("ann")
    assert (refused.value.own, refused.value.free) == ("2", "2")
    # Nobody said whose job it would be; and what is known is never refused.
    assert yard.jobs.refusal(1) is None
    assert yard.jobs.submit(submission_of(second), "client-9") is second
    assert yard.submit("bob").state is JobState.STAGING
    with pytest.raises(QueueShareUsed):
        yard.submit("bob")
    # Those that run take no place: the next one is hers.
    await yard.finish(running)
    await yard.until(first, JobState.RUNNING)
    assert yard.submit("ann").state is JobState.STAGING


async def test_jobs_without_an_owner_are_of_whoever_submitted_them(yard: Yard) -> None:
    await yard.restart(limits=JobLimits(max_waiting=2))
    message = submission_of(yard.submit(""))
    again = msgspec.structs.replace(message, job_id=f"job-{99:020x}")
    with pytest.raises(QueueShareUsed):
        yard.jobs.submit(again, "client-1")
    assert yard.jobs.submit(again, "client-2").state is JobState.STAGING


async def test_a_job_that_runs_too_long_is_stopped_and_keeps_its_model(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await yard.restart(limits=JobLimits(max_runtime_s=3600.0))
    run = yard.queue("ann")
    await yard.until(run, JobState.RUNNING)
    turns = yard.jobs._turns
    now = 0.0
    monkeypatch.setattr(turns, "_clock", lambda: now)
    turns._clocks[run.job_id]._seen_at = 0.0
    for now in (1800.0, 3599.0):
        turns.tick()
        assert run.state is JobState.RUNNING
        assert run.record.ran_s == now
    now = 3600.0
    turns.tick()
    turns.tick()
    step = yard.executor.steps[run.job_id]
    assert run.state is JobState.STOPPING
    assert step.asked == ["stop"]
    root = yard.tools.files.package_dir(run.job_id)
    for path in expected_files(run.record.spec.steps[0]):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    step.ended.set_result(GOOD)
    await yard.until(run, JobState.FAILED)
    assert isinstance(run.error, RuntimeExceeded)
    assert "was stopped after 1 h, the longest" in str(run.error)
    assert len((await run.results()).manifest.files) == len(
        expected_files(run.record.spec.steps[0])
    )


async def test_time_counts_over_a_restart(yard: Yard) -> None:
    limits = JobLimits(max_runtime_s=3600.0)
    await yard.restart(limits=limits)
    run = yard.queue("ann")
    await yard.until(run, JobState.RUNNING)
    run.note(ran_s=3599.9999)
    await yard.restart(limits=limits)
    run = yard.jobs.find(run.job_id)
    # The watch of the running worker sees it.
    await yard.until(run, JobState.STOPPING)
    yard.executor.steps[run.job_id].ended.set_result(FAILED)
    await yard.until(run, JobState.FAILED)
    # What the training says of its own end is not why it ended.
    assert isinstance(run.error, RuntimeExceeded)


async def test_an_estimate_comes_from_jobs_alike(yard: Yard) -> None:
    first = yard.queue("ann")
    await yard.until(first, JobState.RUNNING)
    second = yard.queue("bob")
    await yard.until_placed(second, 1)
    assert second.place is not None
    assert second.place.starts_in_s is None
    first.note(started_at=(first.record.started_at or 0.0) - 100.0)
    await yard.finish(first)
    await yard.until(second, JobState.RUNNING)
    third = yard.queue("ann")
    await yard.until_placed(third, 1)
    assert third.place is not None
    assert third.place.starts_in_s is not None
    assert 80 < third.place.starts_in_s < 130
    row, _ = yard.jobs.page(None)
    assert row[0].starts_in_s == third.place.starts_in_s


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (43_200, "12 h"), (5_400, "1 h 30 min"), (129_600, "1 d 12 h")],
)
def test_a_limit_is_said_as_it_was_written(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words
