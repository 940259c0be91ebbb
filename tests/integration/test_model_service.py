"""A client asks a worker for the room's models: the frames MODEL_* on a real link."""

import asyncio
import contextlib
import pickle
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.linked_workers import linked_worker
from support.trained_models import write_model
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
    BadRequest,
    DiskFull,
    ModelHasAlias,
    ModelNotFound,
    NoStore,
    RtcError,
    StoreUnreachable,
    TooMany,
    UnsafeCheckpoint,
    UnsafeMember,
    from_wire,
)
from sleap_rtc_plugin.protocol.limits import MAX_MODEL_BYTES
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    CommandFailed,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobAccepted,
    JobRejected,
    JobSpec,
    JobSubmit,
    PredictStep,
    TrainStep,
)
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    DeleteModel,
    ModelChange,
    ModelChanged,
    ModelCommit,
    ModelDescribe,
    ModelDescribed,
    ModelFetch,
    ModelList,
    ModelListed,
    ModelOffer,
    ModelPush,
    PutAlias,
    SetNotes,
)
from sleap_rtc_plugin.protocol.model_records import ModelFilter, Publication
from sleap_rtc_plugin.registry.model_files import LocalModel, read_model
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump
from sleap_rtc_worker import model_registry, model_service
from sleap_rtc_worker.limits import MAX_MODEL_COMMANDS_WAITING, MAX_MODEL_PUSHES
from sleap_rtc_worker.model_pushes import ModelPushes
from sleap_rtc_worker.model_registry import WorkerModels

pytestmark = pytest.mark.timeout(60)
PATIENCE_S = 15
JOB = "job-" + "0a" * 10
NOBODY = "model-" + "0" * 20
R = TypeVar("R", bound=ControlMessage)


class Client:
    """The other end of a worker's link: asks, and hands over what comes."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.pump = TransferPump(link)
        self.answers: asyncio.Queue[ControlMessage] = asyncio.Queue()
        link.on_control = self._on_control

    def _on_control(self, message: ControlMessage) -> None:
        if isinstance(message, FileNeed | FileDone):
            self.pump.handle(message)
        else:
            self.answers.put_nowait(message)

    async def ask(self, command: ControlMessage, kind: type[R]) -> R:
        self.link.send(command)
        return await self.answer(kind)

    async def answer(self, kind: type[R]) -> R:
        async with asyncio.timeout(PATIENCE_S):
            answer = await self.answers.get()
        assert isinstance(answer, kind), answer
        return answer

    async def fails(self, command: ControlMessage) -> RtcError:
        return from_wire((await self.ask(command, CommandFailed)).error)

    async def push(self, model: LocalModel, folder: Path, **offer: Any) -> None:
        """Announce a model and send what lies in `folder`."""
        source = source_of(folder)
        await self.ask(
            push_of(model, source.manifest.total_bytes, **offer), Acknowledged
        )
        await self.pump.send(source, job_id=offer.get("id", model.id), purpose="model")


def source_of(folder: Path) -> FileSource:
    paths = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return FileSource.scan(folder, [path.as_posix() for path in paths])


def push_of(model: LocalModel, total_bytes: int, **offer: Any) -> ModelPush:
    values: dict[str, Any] = {
        "id": model.id,
        "name": model.name,
        "folders": [part.folder for part in model.parts],
        "training": model.training,
        "trained_at": model.trained_at,
        "publication": Publication(alias="flies"),
        **offer,
    }
    return ModelPush(
        command_id="c-1", offer=ModelOffer(**values), total_bytes=total_bytes
    )


def commit(model_id: str) -> ModelCommit:
    return ModelCommit(command_id="c-2", model=model_id, by="ann@laptop")


@dataclass
class Service:
    """A client's link, the worker at its other end, and the store behind that."""

    client: Client
    worker: Link
    models: WorkerModels
    store: FickleStore
    folder: Path
    pushes: ModelPushes

    def reader(self) -> ModelRegistry:
        return ModelRegistry(self.store, ROOM)


@contextlib.asynccontextmanager
async def services(
    folder: Path, *, space_fault: DiskFull | None = None
) -> AsyncIterator[Service]:
    store = fickle_store()
    models = await open_models(folder, store)
    pushes = ModelPushes(
        folder / "pushes", models, space_fault=lambda size_bytes: space_fault
    )
    async with linked_worker(
        folder / "worker", room_models=models, models=models, pushes=pushes
    ) as ends:
        yield Service(Client(ends.client), ends.worker, models, store, folder, pushes)
    await models.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with services(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "MODEL_FRESH_S", -1.0)
    monkeypatch.setattr(model_service, "MODEL_FRESH_S", -1.0)


# -- asking ------------------------------------------------------------------------


async def test_models_are_listed_and_described(
    service: Service, tmp_path: Path
) -> None:
    ask, store = service.client.ask, service.store
    empty = await ask(ModelList(command_id="c-1"), ModelListed)
    assert (empty.models, empty.more) == ([], False)
    pair = await publish_pair(store, tmp_path / "pair", "flies")
    other = await publish_one(store, tmp_path / "other", seed=5)
    listed = await ask(ModelList(command_id="c-1"), ModelListed)
    assert {row.id for row in listed.models} == {pair.id, other.id}
    wanted = ModelFilter(alias="fl", type="topdown")
    listed = await ask(ModelList(command_id="c-2", filter=wanted), ModelListed)
    assert [row.id for row in listed.models] == [pair.id]
    assert listed.models[0].aliases == ["flies"]
    described = await ask(
        ModelDescribe(command_id="c-3", model="flies"), ModelDescribed
    )
    assert described.record == pair
    assert described.aliases["flies"].moves[0].by == "ann@laptop"
    assert [len(curve) for curve in described.curves] == [3, 3]
    assert not described.held
    await service.models.fetch(pair)
    described = await ask(
        ModelDescribe(command_id="c-4", model=pair.id), ModelDescribed
    )
    assert described.held
    error = await service.client.fails(ModelDescribe(command_id="c-5", model="mice"))
    assert isinstance(error, ModelNotFound)


async def test_a_store_that_is_away_or_silent_is_told_in_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.store.is_away = True
    error = await service.client.fails(ModelList(command_id="c-1"))
    assert isinstance(error, StoreUnreachable)
    monkeypatch.setattr(model_service, "MODEL_COMMAND_S", 0.05)

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    service.store.read = hang  # type: ignore[method-assign]
    for command in (
        ModelList(command_id="c-2"),
        ModelDescribe(command_id="c-3", model="flies"),
        ModelFetch(command_id="c-4", model=NOBODY),
    ):
        error = await service.client.fails(command)
        assert isinstance(error, StoreUnreachable)
    # What nobody answers does not pile up.
    monkeypatch.setattr(model_service, "MODEL_COMMAND_S", 60.0)
    for number in range(MAX_MODEL_COMMANDS_WAITING):
        service.client.link.send(ModelList(command_id=f"c-{number}"))
    error = await service.client.fails(ModelList(command_id="c-99"))
    assert isinstance(error, TooMany)


async def test_a_worker_without_a_store_says_so(tmp_path: Path) -> None:
    async with linked_worker(tmp_path) as ends:
        error = await Client(ends.client).fails(ModelList(command_id="c-1"))
        assert isinstance(error, NoStore)


# -- changing ----------------------------------------------------------------------


async def test_changes_are_made_for_who_asks(service: Service, tmp_path: Path) -> None:
    client = service.client
    record = await publish_one(service.store, tmp_path / "one", "flies")
    other = await publish_one(service.store, tmp_path / "two", seed=2)

    def change(edit: Any, by: str = "ben@lab") -> ModelChange:
        return ModelChange(command_id="c-1", edit=edit, by=by)

    put = PutAlias(alias="flies", model=other.id)
    assert isinstance(await client.fails(change(put)), AliasTaken)
    put = PutAlias(alias="flies", model=other.id, moves=True, expected=record.id)
    changed = await client.ask(change(put), ModelChanged)
    assert (changed.aliases, changed.record) == (["flies"], other)
    details = await service.reader().describe("flies")
    assert details.aliases["flies"].moves[0].by == "ben@lab"
    # A name that nobody can read is written down as the peer's.
    note = SetNotes(model="flies", notes="Good.")
    await client.ask(change(note, by="\x1b\x00"), ModelChanged)
    error = await client.fails(change(DeleteModel(model="flies")))
    assert isinstance(error, ModelHasAlias)
    gone = await client.ask(
        change(DeleteModel(model="flies", force=True)), ModelChanged
    )
    assert gone.record is None
    collected = await client.ask(change(CollectModels()), ModelChanged)
    # What was written a moment ago may belong to somebody who is publishing.
    assert collected.files == 0


# -- fetching ----------------------------------------------------------------------


async def test_a_model_is_fetched_through_the_worker(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    record = await publish_pair(service.store, tmp_path / "pair")
    for _ in range(2):
        await client.ask(ModelFetch(command_id="c-1", model=record.id), Acknowledged)
        meta = await client.answer(FileMeta)
        assert (meta.job_id, meta.purpose) == (record.id, "model")
        area = StagingArea(tmp_path / "home")
        await client.pump.receive(meta, area)
        folders = [area.files / part.folder for part in record.parts]
        assert read_model(folders).id == record.id
    error = await client.fails(ModelFetch(command_id="c-2", model=NOBODY))
    assert isinstance(error, ModelNotFound)


# -- pushing -----------------------------------------------------------------------


async def test_a_model_is_published_through_the_worker(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    model = read_model([write_model(tmp_path / "home" / "fly", wandb_key="secret")])
    clean = tmp_path / "clean" / "fly"
    clean.mkdir(parents=True)
    for file in model.files:
        data = file.content or file.source.read_bytes()
        (clean.parent / file.path).write_bytes(data)
    await client.push(model, clean.parent, trained_by="ann", name="Flies")
    changed = await client.ask(commit(model.id), ModelChanged)
    assert changed.aliases == ["flies"]
    assert changed.record is not None
    assert (changed.record.id, changed.record.name) == (model.id, "Flies")
    assert changed.record.trained_by == "ann"
    assert changed.record.published_by == "ann@laptop"
    assert not list((tmp_path / "pushes").iterdir())
    assert (await service.reader().describe("flies")).record == changed.record
    error = await client.fails(commit(model.id))
    assert isinstance(error, BadRequest)


async def test_a_push_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    model = read_model([write_model(folder / "fly", size_bytes=4_000_000)])
    async with services(tmp_path) as first:
        total = source_of(folder).manifest.total_bytes
        await first.client.ask(push_of(model, total), Acknowledged)
        sending = asyncio.ensure_future(
            first.client.pump.send(source_of(folder), job_id=model.id, purpose="model")
        )
        parts = tmp_path / "pushes" / model.id / "parts"
        async with asyncio.timeout(PATIENCE_S):
            while not any(  # noqa: ASYNC110 - files of the worker, no event
                p.stat().st_size for p in parts.glob("*")
            ):
                await asyncio.sleep(0.01)
        first.client.link.close("cut off")
        await asyncio.gather(sending, return_exceptions=True)
    async with services(tmp_path) as again:
        await again.client.push(model, folder)
        changed = await again.client.ask(commit(model.id), ModelChanged)
        assert changed.record is not None
        assert changed.record.id == model.id


async def test_files_of_another_model_are_not_published(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    model = read_model([write_model(tmp_path / "a" / "fly", seed=1)])
    write_model(tmp_path / "b" / "fly", seed=2)
    await client.push(model, tmp_path / "b")
    error = await client.fails(commit(model.id))
    assert isinstance(error, BadRequest)
    assert model.id in str(error)
    assert not (await service.reader().manifest()).models
    # The right files make it good.
    await client.push(model, tmp_path / "a")
    await client.ask(commit(model.id), ModelChanged)


async def test_a_checkpoint_that_would_run_code_is_not_published(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    model = read_model([write_model(tmp_path / "a" / "fly")])
    with zipfile.ZipFile(tmp_path / "a" / "fly" / "best.ckpt", "w") as archive:
        archive.writestr("best/data.pkl", pickle.dumps(print, protocol=2))
        archive.writestr("best/data/0", b"x")
    await client.push(model, tmp_path / "a")
    error = await client.fails(commit(model.id))
    assert isinstance(error, UnsafeCheckpoint)
    assert not [key for what, key in service.store.asked if what == "write"]


async def test_what_cannot_be_pushed_is_refused_before_it_is_sent(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    model = read_model([write_model(tmp_path / "home" / "fly")])
    for kind, total, offer in (
        (UnsafeMember, 1, {"folders": ["../x"]}),
        (UnsafeMember, 1, {"folders": ["a/b"]}),
        (UnsafeMember, 1, {"folders": [""]}),
        (BadRequest, 1, {"folders": ["a", "A"]}),
        (BadRequest, 1, {"trained_at": 1e300}),
        (BadRequest, 1, {"trained_at": -1.0}),
        (BadRequest, MAX_MODEL_BYTES + 1, {}),
    ):
        error = await client.fails(push_of(model, total, **offer))
        assert isinstance(error, kind), error
    assert not list((tmp_path / "pushes").iterdir())
    for number in range(MAX_MODEL_PUSHES):
        await client.ask(push_of(model, 1, id=f"model-{number:020x}"), Acknowledged)
    error = await client.fails(push_of(model, 1))
    assert isinstance(error, TooMany)


async def test_a_full_disk_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    fault = DiskFull(place="the disk of the worker w", needed="2 MiB", free="1 MiB")
    model = read_model([write_model(tmp_path / "home" / "fly")])
    async with services(tmp_path, space_fault=fault) as service:
        error = await service.client.fails(push_of(model, 1))
        assert isinstance(error, DiskFull)


async def test_other_files_than_were_announced_are_refused(
    service: Service, tmp_path: Path
) -> None:
    model = read_model([write_model(tmp_path / "home" / "fly")])
    source = source_of(tmp_path / "home")
    total = source.manifest.total_bytes + 1
    await service.client.ask(push_of(model, total), Acknowledged)
    with pytest.raises(BadRequest, match="announced"):
        await service.client.pump.send(source, job_id=model.id, purpose="model")


async def test_files_that_were_not_announced_end_the_link(
    service: Service, tmp_path: Path
) -> None:
    model = read_model([write_model(tmp_path / "home" / "fly")])
    source = source_of(tmp_path / "home")
    sending = asyncio.ensure_future(
        service.client.pump.send(source, job_id=model.id, purpose="model")
    )
    async with asyncio.timeout(PATIENCE_S):
        await service.client.link.closed.wait()
    await asyncio.gather(sending, return_exceptions=True)
    assert "nobody waits for" in service.worker.close_reason


# -- jobs --------------------------------------------------------------------------


def submit(spec: JobSpec) -> JobSubmit:
    return JobSubmit(
        command_id="c-1",
        job_id=JOB,
        spec=spec,
        package_digest="00" * 32,
        package_bytes=1,
    )


def predicting(model_id: str) -> JobSpec:
    step = PredictStep(data="f.mp4", published=model_id, output="p.slp")
    return JobSpec(name="flies", steps=[step])


async def test_a_job_is_refused_before_its_package_where_its_model_is_not_to_be_had(
    service: Service, tmp_path: Path
) -> None:
    client = service.client
    rejected = await client.ask(submit(predicting(NOBODY)), JobRejected)
    assert isinstance(from_wire(rejected.error), ModelNotFound)
    record = await publish_one(service.store, tmp_path / "one", "flies")
    accepted = await client.ask(submit(predicting(record.id)), JobAccepted)
    assert accepted.state == "staging"
    assert service.models.holds(record)
    # The same job again is the same job, whatever has become of the store.
    service.store.is_away = True
    again = await client.ask(submit(predicting(record.id)), JobAccepted)
    assert again.state == "staging"


async def test_a_job_whose_alias_is_taken_is_refused_before_its_package(
    service: Service, tmp_path: Path
) -> None:
    record = await publish_one(service.store, tmp_path / "one", "flies")
    train = TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")

    def spec(**publication: Any) -> JobSpec:
        values = {"alias": "flies", **publication}
        return JobSpec(name="flies", steps=[train], publish=Publication(**values))

    rejected = await service.client.ask(submit(spec()), JobRejected)
    error = from_wire(rejected.error)
    assert isinstance(error, AliasTaken)
    assert error.model == record.id
    await service.client.ask(submit(spec(moves_alias=True)), JobAccepted)


async def test_a_worker_without_a_store_takes_no_job_with_models(
    tmp_path: Path,
) -> None:
    async with linked_worker(tmp_path) as ends:
        client = Client(ends.client)
        rejected = await client.ask(submit(predicting(NOBODY)), JobRejected)
        assert isinstance(from_wire(rejected.error), NoStore)
