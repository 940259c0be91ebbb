"""The companion's commands about models, over a registry in memory."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.trained_models import write_model

from sleap_rtc_plugin.companion.messages import Done, Event
from sleap_rtc_plugin.companion.model_messages import (
    ChangeModel,
    DescribeModel,
    ListLocalModels,
    ListModels,
    LocalModels,
    ModelDescription,
    ModelProgress,
    Models,
    ModelSaved,
    PublishModel,
    Pulled,
    PullModel,
)
from sleap_rtc_plugin.companion.models_service import ModelsService
from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    ModelNotFound,
    StoreUnreachable,
    from_wire,
)
from sleap_rtc_plugin.protocol.model_messages import DeleteModel, PutAlias
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import memory_store
from sleap_rtc_plugin.session.room_models import RoomModels, StoreModels


class World:
    """The service, its events, and how often the way to the models was opened."""

    def __init__(self) -> None:
        self.models: RoomModels = StoreModels(ModelRegistry(memory_store(), "room-1"))
        self.events: list[Event] = []
        self.opened = 0
        self.closed = 0
        self.service = ModelsService(self._open, self.events.append)

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[RoomModels]:
        self.opened += 1
        yield self.models
        self.closed += 1

    async def publish(self, folder: Path, alias: str = "flies") -> ModelSaved:
        command = PublishModel(
            operation="op-1",
            folders=[str(folder)],
            publication=Publication(alias=alias),
            name="flies",
        )
        result = await self.service.carry_out(command)
        assert isinstance(result, ModelSaved)
        return result


@pytest.fixture
def world() -> World:
    return World()


async def test_a_model_is_published_listed_pulled_and_deleted(
    world: World, tmp_path: Path
) -> None:
    saved = await world.publish(write_model(tmp_path / "mine" / "flies"))
    assert saved.alias_error is None
    model = saved.model.record.id
    progress = [event for event in world.events if isinstance(event, ModelProgress)]
    assert progress and progress[-1].done == progress[-1].total > 0
    assert {event.operation for event in progress} == {"op-1"}

    listed = await world.service.carry_out(ListModels(skeletons=True))
    assert isinstance(listed, Models)
    assert [(row.id, row.aliases) for row in listed.models] == [(model, ["flies"])]
    assert listed.skeletons == {model: ["head", "thorax"]}

    described = await world.service.carry_out(DescribeModel(model="flies"))
    assert isinstance(described, ModelDescription)
    assert described.aliases["flies"].model == model
    assert [point.val for point in described.curves[0]] == [0.5, 0.125, 0.25]

    home = tmp_path / "theirs" / "models"
    pulled = await world.service.carry_out(
        PullModel(operation="op-2", model=model, folder=str(home))
    )
    assert isinstance(pulled, Pulled)
    (folder,) = map(Path, pulled.folders)
    assert folder.parent == home
    assert (folder / "best.ckpt").read_bytes() == (
        tmp_path / "mine" / "flies" / "best.ckpt"
    ).read_bytes()

    deleted = await world.service.carry_out(
        ChangeModel(edit=DeleteModel(model=model, force=True))
    )
    assert deleted == Done()
    assert world.opened == 1, "the way stays open"
    await world.service.close()
    assert world.closed == 1


async def test_an_alias_that_is_taken_does_not_keep_a_model_out(
    world: World, tmp_path: Path
) -> None:
    first = await world.publish(write_model(tmp_path / "a"))
    second = await world.publish(write_model(tmp_path / "b", seed=1))
    assert second.alias_error is not None
    error = from_wire(second.alias_error)
    assert isinstance(error, AliasTaken)
    assert error.model == first.model.record.id
    edit = PutAlias(
        alias="flies",
        model=second.model.record.id,
        moves=True,
        expected=first.model.record.id,
    )
    moved = await world.service.carry_out(ChangeModel(edit=edit))
    assert isinstance(moved, ModelDescription)
    assert len(moved.aliases["flies"].moves) == 2


async def test_a_way_that_failed_is_opened_anew(world: World) -> None:
    sound = world.models

    class Away:
        def __getattr__(self, name: str) -> Callable[..., object]:
            async def fail(*args: object, **kwargs: object) -> None:
                raise StoreUnreachable(store="/lab", reason="timeout")

            return fail

    world.models = Away()  # type: ignore[assignment]
    with pytest.raises(StoreUnreachable):
        await world.service.carry_out(ListModels())
    assert world.closed == 1
    world.models = sound
    assert await world.service.carry_out(ListModels()) == Models(models=[])
    assert world.opened == 2


async def test_an_error_about_a_model_keeps_the_way_open(world: World) -> None:
    with pytest.raises(ModelNotFound):
        await world.service.carry_out(DescribeModel(model="nothing"))
    assert (world.opened, world.closed) == (1, 0)


async def test_local_models_need_no_way_at_all(world: World, tmp_path: Path) -> None:
    write_model(tmp_path / "a.centroid", head="centroid")
    write_model(tmp_path / "a.centered_instance", head="centered_instance")
    command = ListLocalModels(folder=str(tmp_path))
    result = await world.service.carry_out(command)
    assert isinstance(result, LocalModels)
    (found,) = result.models
    assert (found.name, found.type) == ("a", "topdown")
    names = [Path(folder).name for folder in found.folders]
    assert names == ["a.centroid", "a.centered_instance"]
    assert world.opened == 0
