"""A room whose workers share models, each over a real link, without a server."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.linked_workers import linked_worker
from support.worker_models import FickleStore, fickle_store, open_models

from sleap_rtc_plugin.protocol.errors import LinkFailed
from sleap_rtc_plugin.protocol.session_string import Session
from sleap_rtc_plugin.session.worker_info import WorkerInfo
from sleap_rtc_plugin.session.worker_link import WorkerLink
from sleap_rtc_worker.model_pushes import ModelPushes

SESSION = Session(
    url="http://lab:8080",
    room_id="room-1",
    token="a.b.c",
    peer_id="worker-gpu-1",
    secret=b"s" * 32,
)


def worker_info(name: str, model_store: str = "") -> WorkerInfo:
    return WorkerInfo(
        peer_id=f"worker-{name}",
        name=name,
        status="available",
        device="cpu",
        gpu_model=None,
        gpu_memory_mb=None,
        gpu_free_mb=None,
        queue_length=0,
        running_jobs=0,
        sleap_nn_version="0.3.5",
        model_store=model_store,
    )


@dataclass
class RoomOfWorkers:
    """What `LinkedModels` needs of a `SteadyRoom`, and where faults are injected."""

    session: Session = SESSION
    online: list[WorkerInfo] = field(default_factory=list)
    links: dict[str, WorkerLink] = field(default_factory=dict)
    stores: dict[str, FickleStore] = field(default_factory=dict)
    unreachable: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def workers(self) -> list[WorkerInfo]:
        return list(self.online)

    async def link(self, worker_id: str) -> WorkerLink:
        name = worker_id.removeprefix("worker-")
        self.asked.append(name)
        if name in self.unreachable:
            raise LinkFailed(worker=name, reason="its cable is out")
        return self.links[name]


@contextlib.asynccontextmanager
async def room_of_workers(
    folder: Path, *groups: Sequence[str]
) -> AsyncIterator[RoomOfWorkers]:
    """Open a room; the workers of a group share a store."""
    room = RoomOfWorkers()
    async with contextlib.AsyncExitStack() as stack:
        for number, names in enumerate(groups):
            store = fickle_store()
            for name in names:
                models = await open_models(folder, store, name=name)
                stack.push_async_callback(models.close)
                pushes = ModelPushes(folder / f"{name}-pushes", models)
                ends = await stack.enter_async_context(
                    linked_worker(
                        folder / f"{name}-data",
                        room_models=models,
                        models=models,
                        pushes=pushes,
                    )
                )
                room.online.append(worker_info(name, f"s3:{number}"))
                room.links[name] = WorkerLink(ends.client, name, SESSION.room_id)
                room.stores[name] = store
        yield room
