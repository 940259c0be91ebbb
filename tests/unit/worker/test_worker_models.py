"""The room's models as a worker uses them; the store is in memory and may be away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from support.worker_models import (
    ROOM,
    FickleStore,
    fickle_store,
    open_models,
    publish_one,
    publish_pair,
)

from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    ModelDamaged,
    ModelNotFound,
    ModelTooNew,
    NoStore,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.protocol.model_messages import DeleteModel, PutAlias
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.protocol.signaling_messages import RegistryQuery
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_worker import model_registry
from sleap_rtc_worker.limits import MAX_MODEL_QUERIES
from sleap_rtc_worker.model_registry import WorkerModels

NOBODY = "model-" + "0" * 20
TRAIN = TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")


@pytest.fixture
def store() -> FickleStore:
    return fickle_store()


@pytest.fixture
async def models(tmp_path: Path, store: FickleStore) -> AsyncIterator[WorkerModels]:
    made = await open_models(tmp_path, store)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "MODEL_FRESH_S", -1.0)


def predicting(*ids: str) -> JobSpec:
    steps = [PredictStep(data="f.mp4", published=i, output="p.slp") for i in ids]
    return JobSpec(name="flies", steps=list(steps))


def publishing(alias: str, *, moves: bool = False) -> JobSpec:
    publication = Publication(alias=alias, moves_alias=moves)
    return JobSpec(name="flies", steps=[TRAIN], publish=publication)


def reads_of_blobs(store: FickleStore) -> int:
    return sum(what == "pieces" for what, _ in store.asked)


# -- laying models beside a package ------------------------------------------------


async def test_a_pair_is_laid_in_the_order_of_its_use(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_pair(store, tmp_path / "home")
    laid = await models.lay(record.id, tmp_path / "job")
    assert [name.rpartition(".")[2] for name in laid] == ["centroid", "instance"]
    for folder, source in zip(laid, ("flies.centroid", "flies.instance"), strict=True):
        there = (tmp_path / "job" / folder / "best.ckpt").read_bytes()
        assert there == (tmp_path / "home" / source / "best.ckpt").read_bytes()
    # A job of its own: what becomes of its copy is nobody else's business.
    (tmp_path / "job" / laid[0] / "best.ckpt").write_bytes(b"changed")
    await models.lay(record.id, tmp_path / "other")


async def test_a_second_job_asks_the_store_for_no_file(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    await asyncio.gather(
        *(models.lay(record.id, tmp_path / f"job-{n}") for n in range(4))
    )
    assert reads_of_blobs(store) == len(record.files)
    store.is_away = True
    # By its id it is found where the store is away, and only then.
    await models.lay(record.id, tmp_path / "later")
    with pytest.raises(StoreUnreachable):
        await models.lay(NOBODY, tmp_path / "none")


async def test_a_copy_that_was_damaged_here_is_fetched_anew(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    await models.lay(record.id, tmp_path / "a")
    held = models.cache.files_of(record.id) / record.checkpoint_path
    held.write_bytes(b"x" * held.stat().st_size)
    [folder] = await models.lay(record.id, tmp_path / "b")
    there = (tmp_path / "b" / folder / "best.ckpt").read_bytes()
    assert there == (tmp_path / "home" / "best.ckpt").read_bytes()


async def test_a_file_that_is_damaged_in_the_store_is_not_used(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    await store.damage(record.files[0].digest)
    with pytest.raises(ModelDamaged):
        await models.lay(record.id, tmp_path / "job")
    assert not models.holds(record)
    assert not (tmp_path / "job").exists()
    assert not list((tmp_path / "w-cache" / ROOM).iterdir())


async def test_a_store_that_goes_away_in_the_middle_leaves_nothing(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    store.calls_left = 3
    with pytest.raises(StoreUnreachable):
        await models.lay(record.id, tmp_path / "job")
    assert not list((tmp_path / "w-cache" / ROOM).iterdir())
    store.calls_left, store.is_away = None, False
    await models.lay(record.id, tmp_path / "job")


async def test_one_in_use_stays_when_it_is_deleted(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home", "flies")
    async with models.using("flies") as folders:
        await models.registry.change(DeleteModel(model="flies", force=True), "ann")
        await models.refresh()
        assert all((folder / "best.ckpt").exists() for folder in folders)
        with pytest.raises(ModelNotFound):
            await models.find(record.id)
    assert not models.holds(record)
    assert not any(folder.exists() for folder in folders)


# -- what a job wants, before its package is sent ----------------------------------


async def test_models_that_are_not_there_are_told_before_the_package(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    with pytest.raises(ModelNotFound):
        await models.admit(predicting(record.id, NOBODY))
    await models.admit(predicting(record.id))
    # It was fetched already.
    assert models.holds(record)
    other = await publish_one(store, tmp_path / "other", seed=1)
    await store.damage(other.files[0].digest)
    with pytest.raises(ModelDamaged):
        await models.admit(predicting(other.id))
    store.is_away = True
    with pytest.raises(StoreUnreachable):
        await models.admit(predicting(other.id))


async def test_a_sleap_nn_that_is_too_old_says_so_before_anything_is_fetched(
    store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    old = await open_models(tmp_path, store, name="old", sleap_nn_version="0.2.9")
    with pytest.raises(ModelTooNew, match=r"0\.3\.5.*old has 0\.2\.9"):
        await old.admit(predicting(record.id))
    with pytest.raises(ModelTooNew):
        await old.lay(record.id, tmp_path / "job")
    assert reads_of_blobs(store) == 0
    await old.close()


async def test_a_fetch_that_takes_long_holds_no_submission_up(
    models: WorkerModels,
    store: FickleStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = await publish_one(store, tmp_path / "home")
    gate = asyncio.Event()
    pull = ModelRegistry.pull

    async def slow(*words: object, **more: object) -> list[Path]:
        await gate.wait()
        return await pull(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelRegistry, "pull", slow)
    monkeypatch.setattr(model_registry, "MODEL_ADMISSION_S", 0.05)
    await models.admit(predicting(record.id))
    assert not models.holds(record)
    gate.set()
    await models.lay(record.id, tmp_path / "job")


async def test_an_alias_of_another_model_is_told_before_the_training(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home", "flies-v1")
    with pytest.raises(AliasTaken, match=record.id):
        await models.admit(publishing("flies-v1"))
    await models.admit(publishing("flies-v1", moves=True))
    await models.admit(publishing("flies-v2"))


async def test_a_store_that_is_away_keeps_nobody_from_training(
    models: WorkerModels, store: FickleStore
) -> None:
    store.is_away = True
    await models.admit(publishing("flies-v1"))


async def test_nothing_is_known_before_the_room_is_entered(
    tmp_path: Path, store: FickleStore
) -> None:
    models = WorkerModels(
        store=store, cache_dir=tmp_path, cache_limit_bytes=1, worker_name="w"
    )
    with pytest.raises(NoStore):
        await models.admit(predicting(NOBODY))
    query = RegistryQuery(request_id="q-1", model=NOBODY)
    answer = await models.answer(query)
    assert answer is not None
    assert (answer.held, answer.model) == (False, "")


# -- who holds what ----------------------------------------------------------------


async def workers_of(store: FickleStore, model_id: str) -> list[str]:
    manifest = await ModelRegistry(store, ROOM).manifest()
    return manifest.models[model_id].workers


async def test_the_registry_knows_who_holds_a_model(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    await models.lay(record.id, tmp_path / "job")
    await models.refresh()
    assert await workers_of(store, record.id) == ["w"]
    models.cache.drop(record.id)
    await models.refresh()
    assert await workers_of(store, record.id) == []


async def test_a_question_is_answered_without_a_link(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home", "flies")

    async def ask(model: str) -> tuple[bool, str, bool]:
        answer = await models.answer(RegistryQuery(request_id="q-1", model=model))
        assert answer is not None
        return answer.held, answer.model, answer.loads

    assert await ask("flies") == (False, record.id, True)
    assert await ask("mice") == (False, "", True)
    assert await ask("../../etc") == (False, "", True)
    await models.lay(record.id, tmp_path / "job")
    assert await ask(record.id) == (True, record.id, True)
    # An alias that moved means the new one at once.
    other = await publish_one(store, tmp_path / "other", seed=1)
    edit = PutAlias(alias="flies", model=other.id, moves=True)
    await ModelRegistry(store, ROOM).change(edit, "ben")
    assert await ask("flies") == (False, other.id, True)
    store.is_away = True
    assert await ask("flies") == (False, "", True)


async def test_however_many_ask_the_store_is_asked_now_and_then(
    models: WorkerModels,
    store: FickleStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_registry, "MODEL_FRESH_S", 60.0)
    await publish_one(store, tmp_path / "home", "flies")
    query = RegistryQuery(request_id="q-1", model="flies")
    await models.answer(query)
    store.asked.clear()
    for _ in range(100):
        await models.answer(query)
    assert store.asked == []
    gate = asyncio.Event()

    async def wait(*_: object) -> object:
        await gate.wait()
        raise ModelNotFound(model="flies")

    models.find = wait  # type: ignore[method-assign, assignment]
    asking = [asyncio.ensure_future(models.answer(query)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert len([a for a in answers if a is not None]) == MAX_MODEL_QUERIES


async def test_a_record_edited_by_hand_leads_nowhere(
    models: WorkerModels, store: FickleStore, tmp_path: Path
) -> None:
    record = await publish_one(store, tmp_path / "home")
    odd = msgspec.structs.replace(
        record,
        files=[
            msgspec.structs.replace(file, path=f"../../{file.path}")
            for file in record.files
        ],
    )
    with pytest.raises(ModelDamaged):
        await models.fetch(odd)
    other = msgspec.structs.replace(record, id=NOBODY)
    with pytest.raises(ModelDamaged):
        await models.fetch(other)
