"""A room's models for whoever asks: from a store, through a worker, through several."""

import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.room_of_workers import RoomOfWorkers, room_of_workers, worker_info
from support.trained_models import write_model
from support.worker_models import ROOM, publish_one, publish_pair

from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    BadRequest,
    LinkFailed,
    ModelAmbiguous,
    ModelDamaged,
    ModelHasAlias,
    ModelNotFound,
    NoStore,
    NotAModel,
    RtcError,
    StoreUnreachable,
    UnsafeCheckpoint,
    WorkerNotFound,
)
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    DeleteModel,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import ModelFilter, Publication
from sleap_rtc_plugin.registry import model_blobs, model_files
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.session.linked_models import LinkedModels
from sleap_rtc_plugin.session.model_requests import person_name
from sleap_rtc_plugin.session.room_models import (
    RoomModels,
    StoreModels,
    open_room_models,
)
from sleap_rtc_worker import model_registry, model_service

pytestmark = pytest.mark.timeout(60)
PLAIN = Publication()


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "MODEL_FRESH_S", -1.0)
    monkeypatch.setattr(model_service, "MODEL_FRESH_S", -1.0)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[RoomOfWorkers]:
    async with room_of_workers(tmp_path, ["gpu-1"]) as room:
        yield room


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[RoomOfWorkers]:
    """Two workers with a store each."""
    async with room_of_workers(tmp_path, ["gpu-1"], ["gpu-2"]) as room:
        yield room


def linked(room: RoomOfWorkers, worker: str | None = None) -> LinkedModels:
    return LinkedModels(room, worker, reconnect_for_s=0.0)


@pytest.fixture(params=["store", "worker"])
async def models(
    request: pytest.FixtureRequest, one: RoomOfWorkers
) -> AsyncIterator[RoomModels]:
    """The same models, reached in both ways."""
    if request.param == "store":
        yield StoreModels(ModelRegistry(one.stores["gpu-1"], ROOM))
    else:
        yield linked(one)


async def push(
    models: RoomModels, folder: Path, publication: Publication = PLAIN, **model: int
) -> str:
    """Publish a model and return its id."""
    write_model(folder, **model)
    published = await models.publish([folder], publication)
    assert published.alias_error is None
    return published.details.record.id


# -- either way ----------------------------------------------------------------------


async def test_a_model_goes_out_and_comes_home(
    models: RoomModels, tmp_path: Path
) -> None:
    folders = [
        write_model(tmp_path / "models" / "fly.i", seed=1, head="centered_instance"),
        write_model(tmp_path / "models" / "fly.c", seed=2, head="centroid"),
    ]
    told: list[tuple[int, int]] = []
    publication = Publication(alias="flies", notes="Good.", tags=["fly"])
    published = await models.publish(
        folders, publication, on_progress=lambda *bytes_: told.append(bytes_)
    )
    record = published.details.record
    assert published.alias_error is None
    assert (record.type, record.name) == ("topdown", "fly")
    assert [part.folder for part in record.parts] == ["fly.c", "fly.i"]
    assert (record.notes, record.tags) == ("Good.", ["fly"])
    assert record.published_by == person_name()
    assert told[-1] == (record.size_bytes, record.size_bytes)
    [row] = await models.rows()
    assert (row.id, row.aliases) == (record.id, ["flies"])
    details = await models.describe("flies")
    assert details.record == record
    assert [len(curve) for curve in details.curves] == [3, 3]

    home = tmp_path / "home" / "models"
    told.clear()
    paths = await models.pull("flies", home, lambda *bytes_: told.append(bytes_))
    assert paths == [home / "fly.c", home / "fly.i"]
    assert told[-1] == (record.size_bytes, record.size_bytes)
    for folder in folders:
        pulled = home / folder.name
        assert not (pulled / "labels_gt.train.0.slp").exists()
        for path in pulled.iterdir():
            assert path.read_bytes() == (folder / path.name).read_bytes()
        newest = max(pulled.iterdir(), key=lambda path: path.stat().st_mtime)
        assert newest.name == "training_config.yaml"
    assert {path.name for path in home.iterdir()} == {"fly.c", "fly.i"}
    # Again it is there already; where something else is, it stays.
    assert await models.pull("flies", home) == paths
    (home / "fly.c" / "training_log.csv").write_text("mine")
    assert await models.pull("flies", home) == [home / "fly.c (2)", home / "fly.i"]
    assert (home / "fly.c" / "training_log.csv").read_text() == "mine"


async def test_what_others_said_of_it_is_changed(
    models: RoomModels, tmp_path: Path
) -> None:
    model = await push(models, tmp_path / "a", Publication(tags=["old"]))
    details = await models.change(SetTags(model=model, add=["new"], remove=["old"]))
    assert details is not None
    assert details.record.tags == ["new"]
    short = model.removeprefix("model-")[:6]
    details = await models.change(SetNotes(model=short, notes="Good.\nVery."))
    assert details is not None
    assert details.record.notes == "Good.\nVery."


async def test_an_alias_moves_when_it_is_told_to(
    models: RoomModels, tmp_path: Path
) -> None:
    first = await push(models, tmp_path / "a", Publication(alias="flies"), seed=1)
    second = await push(models, tmp_path / "b", seed=2)
    with pytest.raises(AliasTaken) as caught:
        await models.change(PutAlias(alias="flies", model=second))
    assert caught.value.model == first
    details = await models.change(PutAlias(alias="flies", model=second, moves=True))
    assert details is not None
    moves = details.aliases["flies"].moves
    assert [(move.model, move.by) for move in moves] == [
        (second, person_name()),
        (first, person_name()),
    ]
    assert moves[0].at >= moves[1].at
    assert await models.change(RemoveAlias(alias="flies")) is None
    with pytest.raises(ModelNotFound):
        await models.describe("flies")
    with pytest.raises(ModelNotFound):
        await models.change(RemoveAlias(alias="flies"))


async def test_an_alias_that_is_taken_does_not_keep_a_model_out(
    models: RoomModels, tmp_path: Path
) -> None:
    first = await push(models, tmp_path / "a", Publication(alias="flies"), seed=1)
    folder = write_model(tmp_path / "b", seed=2)
    published = await models.publish([folder], Publication(alias="flies"))
    assert isinstance(published.alias_error, AliasTaken)
    assert published.alias_error.model == first
    second = published.details.record.id
    assert published.details.aliases == {}
    published = await models.publish(
        [folder], Publication(alias="flies", moves_alias=True)
    )
    assert published.alias_error is None
    assert (await models.describe("flies")).record.id == second


async def test_deleting_what_has_an_alias_takes_force(
    models: RoomModels, tmp_path: Path
) -> None:
    model = await push(models, tmp_path / "a", Publication(alias="flies"))
    with pytest.raises(ModelHasAlias):
        await models.change(DeleteModel(model="flies"))
    assert await models.change(DeleteModel(model="flies", force=True)) is None
    assert await models.rows() == []
    with pytest.raises(ModelNotFound):
        await models.change(DeleteModel(model=model))
    # What was just written is nobody's garbage yet.
    assert (await models.collect()).files == 0
    assert await models.change(CollectModels()) is None


async def test_filters(models: RoomModels, tmp_path: Path) -> None:
    one_ = await push(models, tmp_path / "a", Publication(tags=["fly"]), seed=1)
    two_ = await push(models, tmp_path / "b", Publication(alias="mice"), seed=2)
    for wanted, ids in (
        (ModelFilter(), [two_, one_]),
        (ModelFilter(tag="fly"), [one_]),
        (ModelFilter(alias="mi"), [two_]),
        (ModelFilter(type="topdown"), []),
        (ModelFilter(text="MICE"), [two_]),
    ):
        assert [row.id for row in await models.rows(wanted)] == ids


async def test_more_models_than_a_page(models: RoomModels, one: RoomOfWorkers) -> None:
    from support.model_samples import RECORD

    from sleap_rtc_plugin.registry import changes, room_manifest

    manifest = room_manifest.empty_manifest(ROOM)
    for number in range(120):
        record = RECORD.__class__(
            **{name: getattr(RECORD, name) for name in RECORD.__struct_fields__}
            | {"id": f"model-{number:020x}"}
        )
        manifest = changes.add_model(manifest, record, PLAIN, "ann", float(number))
    data = room_manifest.encode_manifest(manifest)
    await one.stores["gpu-1"].replace(f"{ROOM}/manifest.json", data, None)
    rows = await models.rows()
    assert [row.id for row in rows] == [f"model-{n:020x}" for n in range(119, -1, -1)]


@pytest.mark.parametrize(
    "ref", ["nope", "", "../x", "x" * 200, "model-" + "0" * 20, "a\x1b[31m", "flies\n"]
)
async def test_names_of_no_model(models: RoomModels, ref: str, tmp_path: Path) -> None:
    await push(models, tmp_path / "a", Publication(alias="flies"))
    with pytest.raises(ModelNotFound):
        await models.describe(ref)
    with pytest.raises(ModelNotFound):
        await models.pull(ref, tmp_path / "home")
    assert not (tmp_path / "home").exists()


async def test_what_may_not_be_published(models: RoomModels, tmp_path: Path) -> None:
    with pytest.raises(NotAModel):
        await models.publish([tmp_path / "none"], PLAIN)
    folder = write_model(tmp_path / "a")
    (folder / "best.ckpt").write_bytes(pickle.dumps(os.system))
    with pytest.raises(UnsafeCheckpoint):
        await models.publish([folder], PLAIN)
    assert await models.rows() == []


async def test_a_key_of_a_service_stays_here(
    models: RoomModels, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "a", wandb_key="my-secret-key")
    await models.publish([folder], Publication(alias="flies"))
    [pulled] = await models.pull("flies", tmp_path / "home")
    assert all(b"my-secret" not in path.read_bytes() for path in pulled.iterdir())
    assert "my-secret-key" in (folder / "training_config.yaml").read_text()


async def test_a_store_that_is_away(models: RoomModels, one: RoomOfWorkers) -> None:
    one.stores["gpu-1"].is_away = True
    for asking in (
        models.rows(),
        models.describe("flies"),
        models.change(RemoveAlias(alias="flies")),
        models.collect(),
    ):
        with pytest.raises(StoreUnreachable):
            await asking


async def test_a_model_that_is_damaged_in_the_store(
    models: RoomModels, one: RoomOfWorkers, tmp_path: Path
) -> None:
    model = await push(models, tmp_path / "a")
    record = (await models.describe(model)).record
    [checkpoint] = [file for file in record.files if file.path.endswith(".ckpt")]
    await one.stores["gpu-1"].damage(checkpoint.digest)
    home = tmp_path / "home"
    with pytest.raises(ModelDamaged):
        await models.pull(model, home)
    assert not home.exists() or not [p for p in home.rglob("*") if p.is_file()]


# -- through workers -----------------------------------------------------------------


async def test_two_registries_are_one_list(two: RoomOfWorkers, tmp_path: Path) -> None:
    here = await publish_one(two.stores["gpu-1"], tmp_path / "a", "a", seed=1)
    there = await publish_pair(two.stores["gpu-2"], tmp_path / "b", "b")
    models = linked(two)
    rows = {row.id: row.workers for row in await models.rows()}
    assert rows == {here.id: ["gpu-1"], there.id: ["gpu-2"]}
    assert models.place == "the registries of gpu-1 and gpu-2"
    assert (await models.describe("b")).record == there
    assert len(await models.pull("b", tmp_path / "home")) == 2
    [row] = await models.rows(ModelFilter(worker="gpu-2"))
    assert row.id == there.id
    [row] = await linked(two, "gpu-1").rows()
    assert row.id == here.id


async def test_an_alias_of_two_models_is_not_guessed(
    two: RoomOfWorkers, tmp_path: Path
) -> None:
    here = await publish_one(two.stores["gpu-1"], tmp_path / "a", "flies", seed=1)
    there = await publish_one(two.stores["gpu-2"], tmp_path / "b", "flies", seed=2)
    models = linked(two)
    for asking in (
        models.describe("flies"),
        models.pull("flies", tmp_path / "home"),
        models.change(RemoveAlias(alias="flies")),
        models.change(DeleteModel(model="flies", force=True)),
    ):
        with pytest.raises(ModelAmbiguous) as caught:
            await asking
        assert here.id in caught.value.candidates
    assert (await models.describe(there.id)).record == there
    assert (await linked(two, "gpu-2").describe("flies")).record == there
    # Moving it settles what it means.
    with pytest.raises(AliasTaken):
        await models.change(PutAlias(alias="flies", model=there.id))
    await models.change(PutAlias(alias="flies", model=there.id, moves=True))
    assert (await models.describe("flies")).record == there
    assert (await models.describe(here.id)).aliases == {}


async def test_an_alias_is_not_given_twice_by_publishing(
    two: RoomOfWorkers, tmp_path: Path
) -> None:
    there = await publish_one(two.stores["gpu-2"], tmp_path / "b", "flies", seed=2)
    models = linked(two)
    folder = write_model(tmp_path / "a", seed=1)
    published = await models.publish([folder], Publication(alias="flies"))
    assert isinstance(published.alias_error, AliasTaken)
    assert published.alias_error.model == there.id
    assert models.place == "the registry of gpu-1"
    assert (await models.describe("flies")).record == there
    moving = Publication(alias="flies", moves_alias=True)
    published = await models.publish([folder], moving)
    assert published.alias_error is None
    assert (await models.describe("flies")).record == published.details.record


async def test_a_model_of_two_registries_is_changed_in_both(
    two: RoomOfWorkers, tmp_path: Path
) -> None:
    for name in ("gpu-1", "gpu-2"):
        record = await publish_one(two.stores[name], tmp_path / name / "a", seed=1)
    models = linked(two)
    assert len(await models.rows()) == 1
    await models.change(SetTags(model=record.id, add=["fly"]))
    for name in ("gpu-1", "gpu-2"):
        assert (await linked(two, name).describe(record.id)).record.tags == ["fly"]
    await models.change(DeleteModel(model=record.id))
    assert await models.rows() == []


async def test_a_registry_that_does_not_answer_is_named(
    two: RoomOfWorkers, tmp_path: Path
) -> None:
    here = await publish_one(two.stores["gpu-1"], tmp_path / "a", "a", seed=1)
    two.unreachable.add("gpu-2")
    models = linked(two)
    assert [row.id for row in await models.rows()] == [here.id]
    [(name, error)] = models.silent
    assert (name, type(error)) == ("gpu-2", LinkFailed)
    assert (await models.describe("a")).record == here
    # It may have what was not found.
    with pytest.raises(LinkFailed):
        await models.describe("b")
    two.unreachable.add("gpu-1")
    with pytest.raises(LinkFailed):
        await models.rows()


async def test_workers_of_one_store_stand_in_for_each_other(tmp_path: Path) -> None:
    async with room_of_workers(tmp_path, ["gpu-1", "gpu-2"]) as room:
        record = await publish_one(room.stores["gpu-1"], tmp_path / "a", "a")
        models = linked(room)
        assert [row.id for row in await models.rows()] == [record.id]
        assert room.asked == ["gpu-1"]
        assert models.place == "the registry of gpu-1, gpu-2"
        room.unreachable.add("gpu-1")
        assert (await models.describe("a")).record == record
        assert models.silent == []


async def test_nobody_shares_models(one: RoomOfWorkers) -> None:
    one.online[:] = [worker_info("old")]
    with pytest.raises(NoStore, match="no worker of this room shares models"):
        await linked(one).rows()
    with pytest.raises(WorkerNotFound):
        await linked(one, "gpu-9").rows()
    one.online.clear()
    with pytest.raises(NoStore, match="no worker is online"):
        await linked(one).rows()


async def test_a_checkpoint_that_runs_code_does_not_come_home(
    models: RoomModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the store or the worker, and whatever they let through."""
    folder = write_model(tmp_path / "a")
    (folder / "best.ckpt").write_bytes(pickle.dumps(os.system))
    with monkeypatch.context() as careless:
        careless.setattr(model_files, "scan_result", lambda path, name: None)
        published = await models.publish([folder], PLAIN)
    model = published.details.record.id
    if isinstance(models, LinkedModels):
        monkeypatch.setattr(model_blobs, "scan_result", lambda path, name: None)
    home = tmp_path / "home"
    with pytest.raises(UnsafeCheckpoint):
        await models.pull(model, home)
    assert not [path for path in home.rglob("*") if path.is_file()]


# -- which models --------------------------------------------------------------------


async def test_a_store_needs_no_session(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    write_model(tmp_path / "a")
    async with open_room_models(None, store=str(store), room="lab") as models:
        assert models.place == f"the store {store}"
        await models.publish([tmp_path / "a"], Publication(alias="flies"))
    assert (store / "lab" / "manifest.json").is_file()


async def refusal(store: str | None, room: str | None = None) -> RtcError:
    with pytest.raises(RtcError) as caught:
        async with open_room_models(None, store=store, room=room) as models:
            await models.rows()
    return caught.value


async def test_which_models_are_meant_has_to_be_said(tmp_path: Path) -> None:
    assert isinstance(await refusal(None), NoStore)
    assert isinstance(await refusal(str(tmp_path)), BadRequest)
    assert isinstance(await refusal(str(tmp_path), "../other"), BadRequest)
    missing = await refusal(str(tmp_path / "none"), "lab")
    assert isinstance(missing, StoreUnreachable)
    assert missing.exit_code == 3


async def test_an_odd_alias_is_refused_before_anything_is_read(
    models: RoomModels, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest):
        await models.publish([tmp_path], Publication(alias="Flies !"))
