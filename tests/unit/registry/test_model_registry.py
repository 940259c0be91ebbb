"""The registry over a store in memory: no socket, no process."""

import dataclasses
import hashlib
import pickle
from pathlib import Path

import pytest
from blake3 import blake3
from msgspec import structs
from support.trained_models import local_model, write_model

from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    LocalProtocolError,
    ModelDamaged,
    ModelHasAlias,
    ModelNotFound,
    RegistryDamaged,
    SourceChanged,
    StoreUnreachable,
    UnsafeCheckpoint,
)
from sleap_rtc_plugin.protocol.model_messages import (
    DeleteModel,
    PutAlias,
    RemoveAlias,
    SetNotes,
    SetTags,
)
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_identity import model_id_of
from sleap_rtc_plugin.registry.model_registry import Collected, ModelRegistry
from sleap_rtc_plugin.registry.object_store import memory_store
from sleap_rtc_plugin.registry.remote_store import RemoteStore

ROOM = "room-1"


@pytest.fixture
def store() -> RemoteStore:
    return memory_store()


@pytest.fixture
def registry(store: RemoteStore) -> ModelRegistry:
    return ModelRegistry(store, ROOM, now=lambda: 1_700_000_000.0)


def plain(alias: str | None = None, **more: object) -> Publication:
    return Publication(alias=alias, **more)  # type: ignore[arg-type]


async def test_a_published_model_is_listed_described_and_pulled(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    model = local_model(tmp_path / "flies.n=24")
    seen: list[tuple[int, int]] = []
    published = await registry.publish(
        model,
        publication=plain("flies-v1", notes="Good.", tags=["fly"]),
        by="ann@laptop",
        worker="gpu-1",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert published.alias_error is None
    assert seen[0] == (0, model.size_bytes)
    assert seen[-1] == (model.size_bytes, model.size_bytes)
    rows, more = await registry.rows()
    assert [(row.id, row.aliases, more) for row in rows] == [
        (model.id, ["flies-v1"], False)
    ]
    details = await registry.describe("flies-v1")
    assert details.record.published_by == "ann@laptop"
    assert details.record.workers == ["gpu-1"]
    assert details.aliases["flies-v1"].moves[0].by == "ann@laptop"
    assert [point.val for point in details.curves[0]] == [0.5, 0.125, 0.25]
    assert details.record.training.best_loss == 0.125
    pulled = await registry.pull(details.record, tmp_path / "home")
    assert pulled == [tmp_path / "home" / "flies.n=24"]
    for name in ("best.ckpt", "training_config.yaml", "training_log.csv"):
        ours, theirs = tmp_path / "flies.n=24" / name, pulled[0] / name
        assert ours.read_bytes() == theirs.read_bytes()
    assert not (pulled[0] / "labels_gt.train.0.slp").exists()
    assert await registry.pull(details.record, tmp_path / "home") == pulled


async def test_publishing_twice_is_publishing_once(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    model = local_model(tmp_path / "m")
    first = await registry.publish(model, publication=plain(), by="ann")
    again = await registry.publish(model, publication=plain(tags=["x"]), by="bob")
    assert again.details.record.published_by == "ann"
    assert again.details.record.tags == ["x"]
    assert first.details.record.id == again.details.record.id
    assert len((await registry.manifest()).models) == 1


async def test_a_taken_alias_does_not_keep_a_model_out(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    first, second = (local_model(tmp_path / f"m{n}", seed=n) for n in (1, 2))
    await registry.publish(first, publication=plain("best"), by="ann")
    published = await registry.publish(second, publication=plain("best"), by="bob")
    assert isinstance(published.alias_error, AliasTaken)
    assert published.alias_error.model == first.id
    assert published.details.aliases == {}
    moved = await registry.publish(
        second, publication=plain("best", moves_alias=True), by="bob"
    )
    assert moved.alias_error is None
    assert [move.by for move in moved.details.aliases["best"].moves] == ["bob", "ann"]


async def test_changes(registry: ModelRegistry, tmp_path: Path) -> None:
    model = local_model(tmp_path / "m")
    await registry.publish(model, publication=plain(), by="ann")
    await registry.change(PutAlias(alias="a1", model=model.id), "bob")
    await registry.change(SetTags(model="a1", add=["b", "a"]), "bob")
    details = await registry.change(SetNotes(model="a1", notes="Two\nlines."), "bob")
    assert details is not None
    assert details.record.notes == "Two\nlines."
    assert details.record.tags == ["a", "b"]
    with pytest.raises(ModelHasAlias):
        await registry.change(DeleteModel(model="a1"), "bob")
    assert await registry.change(RemoveAlias(alias="a1"), "bob") is None
    assert await registry.change(DeleteModel(model=model.id), "bob") is None
    with pytest.raises(ModelNotFound):
        await registry.change(DeleteModel(model=model.id), "bob")
    collected = await registry.collect(age_s=-3600.0)
    assert collected.files == len({file.digest for file in model.files})


async def test_two_registries_at_one_store_lose_nothing(
    store: RemoteStore, tmp_path: Path
) -> None:
    one, two = ModelRegistry(store, ROOM), ModelRegistry(store, ROOM)
    for seed in range(6):
        registry = two if seed % 2 else one
        model = local_model(tmp_path / f"m{seed}", seed=seed)
        await registry.publish(model, publication=plain(), by="ann")
    assert len((await one.manifest()).models) == 6


async def test_a_manifest_that_is_gone_is_not_an_empty_one(
    registry: ModelRegistry, store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    model = local_model(tmp_path / "m")
    await registry.publish(model, publication=plain(), by="ann")
    obstore.delete(store._backend, f"{ROOM}/manifest.json")
    with pytest.raises(StoreUnreachable, match="its list of models is gone"):
        await registry.manifest()
    with pytest.raises(StoreUnreachable):
        await registry.publish(model, publication=plain(), by="ann")


async def test_nothing_writes_over_a_damaged_manifest(
    registry: ModelRegistry, store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    obstore.put(store._backend, f"{ROOM}/manifest.json", b'{"version": 1')
    with pytest.raises(RegistryDamaged):
        await registry.publish(
            local_model(tmp_path / "m"), publication=plain(), by="ann"
        )
    found = await store.read(f"{ROOM}/manifest.json", 100)
    assert found is not None
    assert found.data == b'{"version": 1'


async def test_a_damaged_file_leaves_nothing_behind(
    registry: ModelRegistry, store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    model = local_model(tmp_path / "m")
    published = await registry.publish(model, publication=plain(), by="ann")
    weights = next(f for f in model.files if f.path.endswith("best.ckpt"))
    key = f"{ROOM}/blobs/{weights.digest}"
    other = hashlib.sha256(b"").digest() * (weights.size_bytes // 32 + 1)
    obstore.put(store._backend, key, other[: weights.size_bytes])
    with pytest.raises(ModelDamaged, match="its digest is another"):
        await registry.pull(published.details.record, tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []
    obstore.delete(store._backend, key)
    with pytest.raises(ModelDamaged, match="it is missing"):
        await registry.pull(published.details.record, tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


async def test_publishing_again_mends_a_damaged_model(
    registry: ModelRegistry, store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    model = local_model(tmp_path / "m")
    published = await registry.publish(model, publication=plain(), by="ann")
    for file in model.files:
        key = f"{ROOM}/blobs/{file.digest}"
        if file.path.endswith("metrics.val.0.json"):
            obstore.delete(store._backend, key)
        else:
            obstore.put(store._backend, key, b"0" * file.size_bytes)
    with pytest.raises(ModelDamaged):
        await registry.pull(published.details.record, tmp_path / "home")
    (tmp_path / "m" / "metrics.val.0.json").unlink()
    again = await registry.publish(
        local_model(tmp_path / "m"), publication=plain(), by="bob"
    )
    (pulled,) = await registry.pull(again.details.record, tmp_path / "home")
    assert not (pulled / "metrics.val.0.json").exists()
    assert (pulled / "best.ckpt").read_bytes() == (
        tmp_path / "m" / "best.ckpt"
    ).read_bytes()


@pytest.mark.parametrize("size_bytes", [2_000, 20_000_000])
async def test_a_file_that_changes_meanwhile_is_not_published(
    registry: ModelRegistry, store: RemoteStore, tmp_path: Path, size_bytes: int
) -> None:
    model = local_model(tmp_path / "m", size_bytes=size_bytes)
    with (tmp_path / "m" / "best.ckpt").open("r+b") as file:
        file.seek(size_bytes - 100)
        file.write(b"changed")
    with pytest.raises(SourceChanged):
        await registry.publish(model, publication=plain(), by="ann")
    assert (await registry.manifest()).models == {}
    weights = next(f for f in model.files if f.path.endswith("best.ckpt"))
    assert await store.look(f"{ROOM}/blobs/{weights.digest}") is None


async def test_a_place_that_is_taken_is_left_alone(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    published = await registry.publish(
        local_model(tmp_path / "m"), publication=plain(), by="ann"
    )
    (tmp_path / "home" / "m").mkdir(parents=True)
    (tmp_path / "home" / "m" / "best.ckpt").write_text("mine")
    record = published.details.record
    for _ in range(2):
        (pulled,) = await registry.pull(record, tmp_path / "home")
        assert pulled == tmp_path / "home" / "m (2)"
    assert (tmp_path / "home" / "m" / "best.ckpt").read_text() == "mine"
    newest = max(pulled.iterdir(), key=lambda path: path.stat().st_mtime)
    assert newest.name == "training_config.yaml"


async def test_a_list_that_was_edited_pulls_nothing_else(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    first, second = (local_model(tmp_path / f"m{n}", seed=n) for n in (1, 2))
    published = await registry.publish(first, publication=plain(), by="ann")
    await registry.publish(second, publication=plain(), by="ann")
    digests = {file.path.partition("/")[2]: file.digest for file in second.files}
    record = published.details.record
    files = [
        structs.replace(file, digest=digests[file.path.partition("/")[2]])
        for file in record.files
    ]
    with pytest.raises(ModelDamaged, match="its id belongs to other files"):
        await registry.pull(structs.replace(record, files=files), tmp_path / "home")


async def test_a_hostile_checkpoint_in_the_store_is_not_kept(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "m")
    model = local_model(folder)
    attack = pickle.dumps(print)
    (folder / "best.ckpt").write_bytes(attack)
    files = tuple(
        dataclasses.replace(
            f, size_bytes=len(attack), digest=blake3(attack).hexdigest()
        )
        if f.path.endswith("best.ckpt")
        else f
        for f in model.files
    )
    listed = dataclasses.replace(model, files=files)
    listed = dataclasses.replace(
        listed, id=model_id_of(listed.parts, listed.model_files())
    )
    published = await registry.publish(listed, publication=plain(), by="eve")
    with pytest.raises(UnsafeCheckpoint):
        await registry.pull(published.details.record, tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


async def test_garbage_is_removed_only_when_it_is_old(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    kept, gone = (local_model(tmp_path / f"m{n}", seed=n) for n in (1, 2))
    await registry.publish(kept, publication=plain("best"), by="ann")
    await registry.publish(gone, publication=plain(), by="ann")
    await registry.change(DeleteModel(model=gone.id), "ann")
    assert await registry.collect() == Collected(files=0, bytes=0)
    collected = await registry.collect(age_s=-3600.0)
    ours = {file.digest for file in kept.files}
    theirs = {f.digest: f.size_bytes for f in gone.files if f.digest not in ours}
    assert collected == Collected(files=len(theirs), bytes=sum(theirs.values()))
    details = await registry.describe("best")
    assert await registry.pull(details.record, tmp_path / "home")


async def test_without_a_list_nothing_is_removed(
    store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    registry = ModelRegistry(store, ROOM)
    await registry.publish(local_model(tmp_path / "m"), publication=plain(), by="ann")
    obstore.delete(store._backend, f"{ROOM}/manifest.json")
    collected = await ModelRegistry(store, ROOM).collect(age_s=-3600.0)
    assert collected == Collected(files=0, bytes=0)


async def test_a_model_that_is_deleted_while_it_is_pulled(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    model = local_model(tmp_path / "m")
    published = await registry.publish(model, publication=plain(), by="ann")
    await registry.change(DeleteModel(model=model.id), "ann")
    await registry.collect(age_s=-3600.0)
    with pytest.raises(ModelNotFound):
        await registry.pull(published.details.record, tmp_path / "home")


async def test_what_is_known_lately_is_not_asked_again(
    store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, other = ModelRegistry(store, ROOM), ModelRegistry(store, ROOM)
    model = local_model(tmp_path / "m")
    await registry.publish(model, publication=plain(), by="ann")
    await other.change(PutAlias(alias="best", model=model.id), "bob")
    assert (await registry.manifest(max_age_s=60.0)).aliases == {}
    assert set((await registry.manifest()).aliases) == {"best"}


async def test_the_list_of_another_room_is_not_taken(
    store: RemoteStore, tmp_path: Path
) -> None:
    import obstore

    registry = ModelRegistry(store, ROOM)
    await registry.publish(local_model(tmp_path / "m"), publication=plain(), by="ann")
    obstore.copy(store._backend, f"{ROOM}/manifest.json", "room-2/manifest.json")
    with pytest.raises(RegistryDamaged, match="another room"):
        await ModelRegistry(store, "room-2").manifest()
    for odd in ("", "../x", "Room"):
        with pytest.raises(LocalProtocolError):
            ModelRegistry(store, odd)
