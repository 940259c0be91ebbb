"""A job whose results are collected publishes its models, and ends well either way."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.trained_models import write_model
from support.worker_models import ROOM, VERSION, FickleStore, fickle_store, open_models

from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    BadRequest,
    StepFailed,
    StoreUnreachable,
    UnsafeCheckpoint,
    from_wire,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    ModelPublished,
    PredictStep,
    TrainLog,
    TrainStep,
)
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_worker import model_publishing
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.model_publishing import JobPublisher
from sleap_rtc_worker.model_registry import WorkerModels
from sleap_rtc_worker.publish_outcome import Outcome
from sleap_rtc_worker.step_tools import Publisher

JOB = "job-" + "0" * 20
HEADS = ("centroid", "centered_instance")
TRAININGS = [
    TrainStep(config=f"{head}.yaml", labels="l.slp", run_name=f"run.{head}", head=head)
    for head in HEADS
]
PREDICT = PredictStep(
    data="l.slp", models=[f"models/run.{head}" for head in HEADS], output="p.slp"
)
MODEL = "model-" + "1" * 20


class Bench:
    """One job that is being collected, with everything around it."""

    def __init__(self, folder: Path, models: WorkerModels, store: FickleStore) -> None:
        self.folder = folder
        self.models = models
        self.store = store
        self.journal = Journal(folder)
        self.files = FileManager(folder)
        self.publisher: Publisher = JobPublisher(
            models, self.files, worker_name="w", sleap_nn_version=VERSION
        )
        self.ended = asyncio.Event()
        root = self.files.package_dir(JOB)
        for seed, step in enumerate(TRAININGS):
            write_model(root / "models" / step.run_name, seed=seed, head=step.head)
        (root / "l.slp").write_bytes(b"labels")
        (root / "p.slp").write_bytes(b"predictions")
        self.run = self.take_up(self.record())

    def record(self, **more: Any) -> JobRecord:
        publish = more.pop("publish", Publication(alias="flies", notes="Good."))
        values = {
            "job_id": JOB,
            "spec": JobSpec(
                name="flies", owner="ann", steps=[*TRAININGS, PREDICT], publish=publish
            ),
            "package_digest": "0" * 64,
            "package_bytes": 1,
            "submitter": "client",
            "created_at": 1.0,
            "state": JobState.COLLECTING,
            "step": 2,
            "finished_steps": [0, 1, 2],
            **more,
        }
        return JobRecord(**values)

    def take_up(self, record: JobRecord) -> JobRun:
        tools = StepTools(
            journal=self.journal,
            files=self.files,
            executor=JobExecutor(),
            trainer=["sleap-nn"],
            worker_name="w",
            publisher=self.publisher,
        )

        def changed(run: JobRun) -> None:
            if run.has_ended:
                self.ended.set()

        return JobRun(record, tools, changed)

    async def until_ended(self, run: JobRun | None = None) -> list[ModelPublished]:
        run = run or self.run
        await run.resume()
        async with asyncio.timeout(10):
            await self.ended.wait()
        await asyncio.gather(*run._tasks)
        events = self.journal.events(JOB, 0)
        assert isinstance(events[-1], JobEvent)
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        return [e for e in events if isinstance(e, ModelPublished)]

    def lines(self) -> list[str]:
        events = self.journal.events(JOB, 0)
        return [line for e in events if isinstance(e, TrainLog) for line in e.lines]

    def reader(self) -> ModelRegistry:
        return ModelRegistry(self.store, ROOM)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = fickle_store()
    models = await open_models(tmp_path, store)
    made = Bench(tmp_path / "data", models, store)
    yield made
    await made.run.close()
    await models.close()
    made.journal.close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_publishing, "MODEL_PUBLISH_PAUSE_S", 0.0)


async def test_a_pair_is_published_as_one_model(bench: Bench) -> None:
    (event,) = await bench.until_ended()
    assert bench.run.state is JobState.SUCCEEDED
    assert event.alias == "flies"
    assert event.error is None
    row = bench.run.summary()
    assert row.model == event.model
    assert bench.lines() == [f"Published as flies ({event.model})."]
    details = await bench.reader().describe("flies")
    record = details.record
    assert record.id == event.model
    assert record.type == "topdown"
    assert [part.head for part in record.parts] == list(HEADS)
    assert (record.trained_by, record.trained_on) == ("ann", "w")
    assert (record.notes, record.published_by) == ("Good.", "ann")
    assert record.training.sleap_nn_version == VERSION
    assert record.training.dataset_digest is not None
    assert details.aliases["flies"].moves[0].by == "ann"
    # What was trained here is at hand here.
    await asyncio.gather(*bench.models._tasks)
    assert bench.models.holds(record)


async def test_it_is_done_once_however_often_the_worker_is_killed(
    bench: Bench,
) -> None:
    real = bench.store.replace
    began = asyncio.Event()

    async def hang(*_: object) -> None:
        began.set()
        await asyncio.Event().wait()

    bench.store.replace = hang  # type: ignore[method-assign]
    await bench.run.resume()
    await began.wait()
    # The files are there and the manifest is not: nobody sees anything.
    assert not (await bench.reader().manifest()).models
    await bench.run.close()
    bench.store.replace = real  # type: ignore[method-assign]
    again = bench.take_up(bench.record())
    (event,) = await bench.until_ended(again)
    assert event.model is not None
    assert set((await bench.reader().manifest()).models) == {event.model}
    # Killed after that was written down and before the end was: nothing is told twice.
    later = bench.take_up(bench.record(model=event.model, alias="flies"))
    bench.ended.clear()
    assert len(await bench.until_ended(later)) == 1


async def test_a_taken_alias_leaves_the_model_there(bench: Bench) -> None:
    other = bench.models.registry
    folder = write_model(bench.folder / "other", seed=9)
    from sleap_rtc_plugin.registry.model_files import read_model

    await other.publish(
        read_model([folder]), publication=Publication(alias="flies"), by="ben"
    )
    (event,) = await bench.until_ended()
    assert bench.run.state is JobState.SUCCEEDED
    assert event.model in (await bench.reader().manifest()).models
    assert event.alias is None
    assert event.error is not None
    assert isinstance(from_wire(event.error), AliasTaken)
    assert "without an alias" in bench.lines()[0]


async def test_a_store_that_is_away_does_not_fail_the_job(bench: Bench) -> None:
    bench.store.is_away = True
    (event,) = await bench.until_ended()
    assert bench.run.state is JobState.SUCCEEDED
    assert event.model is None
    assert event.error is not None
    assert isinstance(from_wire(event.error), StoreUnreachable)
    assert "not published" in bench.lines()[0]
    # It was tried more than once.
    assert len(bench.store.asked) >= model_publishing.MODEL_PUBLISH_TRIES


async def test_a_store_that_comes_back_is_worth_a_try(bench: Bench) -> None:
    bench.store.is_away = True
    read = bench.store.read

    async def comes_back(*words: Any) -> Any:
        try:
            return await read(*words)
        finally:
            bench.store.is_away = False

    bench.store.read = comes_back  # type: ignore[method-assign]
    (event,) = await bench.until_ended()
    assert event.error is None


async def test_a_store_that_hangs_is_waited_for_only_so_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_publishing, "MODEL_PUBLISH_TIMEOUT_S", 0.1)

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    bench.store.read = hang  # type: ignore[method-assign]
    (event,) = await bench.until_ended()
    assert bench.run.state is JobState.SUCCEEDED
    assert event.error is not None
    assert "longer than" in str(from_wire(event.error))


async def test_a_checkpoint_that_would_run_code_is_not_published(
    bench: Bench,
) -> None:
    import pickle
    import zipfile

    path = bench.files.package_dir(JOB) / "models" / "run.centroid" / "best.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", pickle.dumps(print, protocol=2))
        archive.writestr("best/data/0", b"x")
    (event,) = await bench.until_ended()
    assert bench.run.state is JobState.SUCCEEDED
    assert event.error is not None
    assert isinstance(from_wire(event.error), UnsafeCheckpoint)
    assert not (await bench.reader().manifest()).models
    assert not [what for what, _ in bench.store.asked if what == "write"]


async def test_no_path_of_the_worker_is_told(bench: Bench) -> None:
    folder = bench.files.package_dir(JOB) / "models" / "run.centroid"
    (folder / "training_config.yaml").write_text("nothing: 1\n")
    (event,) = await bench.until_ended()
    assert event.error is not None
    words = str(from_wire(event.error))
    assert "run.centroid" in words
    assert str(bench.folder) not in words


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # Stopped before the second training: said, and nothing is published.
        ({"finished_steps": [0], "step": 0}, True),
        # Failed: the job says itself what is missing.
        (
            {
                "finished_steps": [0],
                "step": 1,
                "error": StepFailed("x", "y", "").to_wire(),
            },
            False,
        ),
        ({"publish": None}, False),
    ],
)
async def test_what_was_not_trained_is_not_published(
    bench: Bench, changes: dict[str, Any], told: bool
) -> None:
    run = bench.take_up(bench.record(**changes))
    events = await bench.until_ended(run)
    assert bool(events) is told
    if told:
        assert events[0].error is not None
        assert isinstance(from_wire(events[0].error), BadRequest)
    assert not (await bench.reader().manifest()).models


async def test_an_inference_that_failed_takes_no_model_away(bench: Bench) -> None:
    error = StepFailed("x", "y", "").to_wire()
    run = bench.take_up(bench.record(finished_steps=[0, 1], error=error))
    (event,) = await bench.until_ended(run)
    assert event.error is None
    assert run.state is JobState.FAILED
    assert run.summary().model == event.model


class StubbornPublisher:
    """Does what a test says."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    async def publish(self, record: JobRecord) -> Sequence[Outcome]:
        result: Sequence[Outcome] = await self.act()
        return result


async def test_a_bug_of_ours_does_not_fail_the_job(bench: Bench) -> None:
    async def fail() -> list[Outcome]:
        raise RuntimeError("a bug")

    bench.publisher = StubbornPublisher(fail)
    run = bench.take_up(bench.record())
    assert await bench.until_ended(run) == []
    assert run.state is JobState.SUCCEEDED


async def test_a_cancel_ends_the_publishing_before_the_files_go(
    bench: Bench,
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang() -> list[Outcome]:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert bench.files.package_dir(JOB).exists()
            ended.set()
        return [Outcome(model=MODEL)]

    bench.publisher = StubbornPublisher(hang)
    run = bench.take_up(bench.record())
    await run.resume()
    await began.wait()
    run.cancel()
    await ended.wait()
    await asyncio.gather(*run._tasks)
    assert run.state is JobState.CANCELLED
    assert not bench.files.has_files(JOB)
    events = bench.journal.events(JOB, 0)
    assert [type(event) for event in events] == [JobEvent]


async def test_what_is_late_is_not_told_after_the_end(bench: Bench) -> None:
    began = asyncio.Event()

    async def late() -> list[Outcome]:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return [Outcome(model=MODEL)]

    bench.publisher = StubbornPublisher(late)
    run = bench.take_up(bench.record())
    await run.resume()
    await began.wait()
    run.cancel()
    await asyncio.gather(*run._tasks)
    assert [type(e) for e in bench.journal.events(JOB, 0)] == [JobEvent]
    assert run.record.model is None


async def test_nothing_is_published_of_a_job_that_was_cancelled_before(
    bench: Bench,
) -> None:
    asked: list[bool] = []

    async def note() -> list[Outcome]:
        asked.append(True)
        return []

    bench.publisher = StubbornPublisher(note)
    run = bench.take_up(bench.record())
    await run.resume()
    run.cancel()
    await asyncio.gather(*run._tasks)
    assert run.state is JobState.CANCELLED
    assert not asked


async def test_labels_that_are_gone_are_told_as_the_disk(bench: Bench) -> None:
    (bench.files.package_dir(JOB) / "l.slp").unlink()
    (event,) = await bench.until_ended()
    assert event.error is not None
    assert str(bench.folder) not in str(from_wire(event.error))
    shutil.rmtree(bench.folder / "jobs")


async def test_two_workers_that_publish_at_once_lose_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    others = await open_models(tmp_path, bench.store, name="v")
    files = FileManager(tmp_path / "other")
    root = files.package_dir(JOB)
    for seed, step in enumerate(TRAININGS, start=10):
        write_model(root / "models" / step.run_name, seed=seed, head=step.head)
    (root / "l.slp").write_bytes(b"labels")
    other = JobPublisher(others, files, worker_name="v")
    same = JobPublisher(others, bench.files, worker_name="v")
    record = bench.record()
    outcomes = [
        outcome
        for some in await asyncio.gather(
            *(p.publish(record) for p in (bench.publisher, other, same))
        )
        for outcome in some
    ]
    manifest = await bench.reader().manifest()
    assert {o.model for o in outcomes} == set(manifest.models)
    assert len(manifest.models) == 2
    owner = manifest.aliases["flies"].model
    for outcome in outcomes:
        if outcome.model == owner:
            assert (outcome.alias, outcome.error) == ("flies", None)
        else:
            assert outcome.alias is None
            assert isinstance(outcome.error, AliasTaken)
    await others.close()
