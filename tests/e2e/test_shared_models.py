"""Two workers, one store: one trains and publishes, the other predicts with the model.

Real programs; the trainers are scripts.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.packages import CENTROID, INSTANCE, LABELS, extract
from support.programs import Programs, Worker, wait_for

from sleap_rtc_plugin.protocol.codec import decode_peer_payload, encode_peer_payload
from sleap_rtc_plugin.protocol.errors import AliasTaken, ModelNotFound
from sleap_rtc_plugin.protocol.ids import new_command_id, new_job_id, new_peer_id
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.protocol.model_records import Publication
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.protocol.signaling_messages import (
    JobComplete,
    PeerMessage,
    PeerPayload,
    RegistryQuery,
    RegistryResponse,
    RelayedMessage,
    RelayedPeerMessage,
)
from sleap_rtc_plugin.registry.model_files import read_model
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.store_address import open_store
from sleap_rtc_plugin.session.remote_job import RemoteJob
from sleap_rtc_plugin.session.remote_session import RemoteSession
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.signaling_client import SignalingClient

pytestmark = pytest.mark.timeout(240)
WAIT_S = 60.0
ROOM = "the-lab"
ALIAS = "fish-v1"
TRAININGS = [
    TrainStep(config=CENTROID, labels=LABELS, run_name="r.centroid", head="centroid"),
    TrainStep(
        config=INSTANCE,
        labels=LABELS,
        run_name="r.instance",
        head="centered_instance",
    ),
]
NOBODY = "model-" + "0" * 20


class Listener:
    """A client in the room that asks, and hears what is said to it."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[PeerPayload] = asyncio.Queue()
        self.signaling: SignalingClient | None = None

    def on_relayed(self, message: RelayedMessage) -> None:
        if isinstance(message, RelayedPeerMessage):
            self.heard.put_nowait(decode_peer_payload(message.payload))

    async def hear(self) -> PeerPayload:
        async with asyncio.timeout(WAIT_S):
            return await self.heard.get()

    async def ask(self, worker: str, model: str) -> tuple[bool, str, bool]:
        """Ask a worker, without a link, whether it holds a model."""
        assert self.signaling is not None
        peers = await self.signaling.discover("worker")
        named = {peer.metadata.properties["name"]: peer.peer_id for peer in peers}
        query = RegistryQuery(request_id="q-1", model=model)
        payload = encode_peer_payload(query)
        await self.signaling.ask(
            PeerMessage(id=new_command_id(), to=named[worker], payload=payload)
        )
        response = await self.hear()
        assert isinstance(response, RegistryResponse)
        return response.held, response.model, response.loads


@contextlib.asynccontextmanager
async def listener(session: Session) -> AsyncIterator[Listener]:
    made = Listener()
    async with SignalingClient(
        server=session.url,
        room_id=session.room_id,
        token=session.token,
        peer_id=new_peer_id("client"),
        role="client",
        on_relayed=made.on_relayed,
    ) as signaling:
        made.signaling = signaling
        yield made


@contextlib.asynccontextmanager
async def member(session: Session, worker: str) -> AsyncIterator[WorkerLink]:
    async with RemoteSession(session) as room:
        yield await room.connect(await room.choose(worker))


def package(demo: Path, folder: Path, *names: str) -> FileSource:
    extract(demo, folder)
    return FileSource.scan(folder, list(names))


async def carry_out(link: WorkerLink, source: FileSource, spec: JobSpec) -> RemoteJob:
    job = RemoteJob(link, new_job_id(), spec)
    await job.submit(source)
    await job.attach(lambda event, mirror: None)
    await job.send_package(source, lambda totals: None)
    async with asyncio.timeout(WAIT_S):
        await job.wait_until(lambda mirror: mirror.has_ended)
    return job


def training(*, moves: bool = False) -> JobSpec:
    publication = Publication(alias=ALIAS, moves_alias=moves, tags=["fish"])
    return JobSpec(name="fish", owner="ann", steps=list(TRAININGS), publish=publication)


def predicting(model_id: str) -> JobSpec:
    step = PredictStep(data=LABELS, published=model_id, output="p.slp")
    return JobSpec(name="fish", owner="ben", steps=[step])


def workers(programs: Programs, folder: Path, store: Path) -> tuple[Worker, Worker]:
    where = ("--model-store", store, "--model-room", ROOM)
    first = programs.scripted_worker(
        "train", "--name", "first", "--data", folder / "first", *where
    ).wait_ready()
    second = programs.scripted_worker(
        "train",
        *("--name", "second", "--data", folder / "second"),
        *("--session", first.session, *where),
    ).wait_ready()
    return first, second


async def test_one_trains_and_publishes_and_the_other_predicts(
    programs: Programs, demo_package: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    first, _ = workers(programs, tmp_path, store)
    session = Session.parse(first.session)
    registry = ModelRegistry(open_store(str(store)), ROOM)
    source = package(demo_package, tmp_path / "p", LABELS, CENTROID, INSTANCE)
    async with listener(session) as ear, member(session, "first") as link:
        assert await ear.ask("second", ALIAS) == (False, "", True)
        job = await carry_out(link, source, training())
        assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
        told = job.mirror.published
        assert told is not None
        assert (told.alias, told.error) == (ALIAS, None)
        model_id = told.model
        assert model_id is not None
        # Whoever is in the room hears of it, who submitted it or not.
        complete = await ear.hear()
        assert isinstance(complete, JobComplete)
        assert (complete.model, complete.alias) == (model_id, ALIAS)

        # What came home is what was published.
        imported, _ = await job.fetch(tmp_path / "home", lambda totals: None)
        details = await registry.describe(ALIAS)
        assert read_model(imported.models).id == model_id == details.record.id
        assert details.record.type == "topdown"
        assert details.record.tags == ["fish"]
        assert details.record.training.dataset_digest is not None
        assert await ear.ask("second", ALIAS) == (False, model_id, True)

        # The alias is taken now; that is said before the package is sent.
        again = RemoteJob(link, new_job_id(), training())
        with pytest.raises(AliasTaken):
            await again.submit(source)

    labels = package(demo_package, tmp_path / "q", LABELS)
    async with listener(session) as ear, member(session, "second") as link:
        unknown = RemoteJob(link, new_job_id(), predicting(NOBODY))
        with pytest.raises(ModelNotFound):
            await unknown.submit(labels)
        job = await carry_out(link, labels, predicting(model_id))
        assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
        imported, _ = await job.fetch(tmp_path / "predicted", lambda totals: None)
        assert [path.name for path in imported.predictions] == ["p.slp"]
        assert await ear.ask("second", ALIAS) == (True, model_id, True)
        wait_for(
            lambda: "second" in (store / ROOM / "manifest.json").read_text(),
            "the second worker among those that hold the model",
        )

        # With the model at hand it needs no store.
        shutil.move(store, tmp_path / "away")
        job = await carry_out(link, labels, predicting(model_id))
        assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error


async def test_a_store_that_is_away_when_a_job_ends_fails_nothing(
    programs: Programs, demo_package: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    gate = tmp_path / "gate"
    worker = programs.scripted_worker(
        f"gated,gate={gate}", "--model-store", store
    ).wait_ready()
    session = Session.parse(worker.session)
    source = package(demo_package, tmp_path / "p", LABELS, CENTROID, INSTANCE)
    async with RemoteSession(session) as room:
        link = await room.connect(await room.choose())
        job = RemoteJob(link, new_job_id(), training())
        await job.submit(source)
        await job.attach(lambda event, mirror: None)
        await job.send_package(source, lambda totals: None)
        async with asyncio.timeout(WAIT_S):
            await job.wait_until(lambda mirror: mirror.state is JobState.RUNNING)
        shutil.move(store, tmp_path / "away")
        gate.touch()
        async with asyncio.timeout(WAIT_S):
            await job.wait_until(lambda mirror: mirror.has_ended)
        assert job.mirror.state is JobState.SUCCEEDED, job.mirror.error
        told = job.mirror.published
        assert told is not None
        assert told.error is not None
        assert told.error.code == "store_unreachable"
        imported, _ = await job.fetch(tmp_path / "home", lambda totals: None)
        assert len(imported.models) == 2
