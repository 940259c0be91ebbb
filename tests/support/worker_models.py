"""A worker's models over a store in memory, which a test can take away."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.trained_models import write_model

from sleap_rtc_plugin.protocol.errors import StoreUnreachable
from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.protocol.model_records import ModelRecord, Publication
from sleap_rtc_plugin.registry.model_files import read_model
from sleap_rtc_plugin.registry.model_registry import ModelRegistry, Published
from sleap_rtc_plugin.registry.object_store import memory_store
from sleap_rtc_plugin.registry.remote_store import RemoteStore
from sleap_rtc_worker.model_registry import WorkerModels

ROOM = "room-1"
VERSION = "0.3.5"


class FickleStore:
    """A store that is away while `is_away`, and counts what it is asked."""

    def __init__(self, store: RemoteStore) -> None:
        self._store = store
        self.is_away = False
        self.asked: list[tuple[str, str]] = []
        # How many more calls there may be before it goes away.
        self.calls_left: int | None = None

    @property
    def name(self) -> str:
        return self._store.name

    def _ask(self, what: str, key: str) -> None:
        self.asked.append((what, key))
        if self.calls_left is not None:
            self.is_away = self.is_away or self.calls_left <= 0
            self.calls_left -= 1
        if self.is_away:
            raise StoreUnreachable(store=self.name, reason="it is away")

    async def read(self, key: str, *more: Any) -> Any:
        self._ask("read", key)
        return await self._store.read(key, *more)

    async def replace(self, key: str, *more: Any) -> Any:
        self._ask("replace", key)
        return await self._store.replace(key, *more)

    async def write(self, key: str, *more: Any) -> None:
        self._ask("write", key)
        await self._store.write(key, *more)

    async def look(self, key: str) -> Any:
        self._ask("look", key)
        return await self._store.look(key)

    async def pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        self._ask("pieces", key)
        async for piece in self._store.pieces(key, size_bytes):
            yield piece

    async def entries(self, folder: str) -> AsyncIterator[Any]:
        self._ask("list", folder)
        async for entry in self._store.entries(folder):
            yield entry

    async def remove_old(self, key: str, before: float) -> bool:
        self._ask("remove", key)
        return await self._store.remove_old(key, before)

    async def damage(self, digest: str) -> None:
        """Put other bytes where a file lies."""

        async def other() -> AsyncIterator[bytes]:
            yield b"other"

        await self._store.write(f"{ROOM}/blobs/{digest}", 5, other())


def fickle_store() -> FickleStore:
    return FickleStore(memory_store())


async def open_models(
    folder: Path, store: FickleStore, *, name: str = "w", **more: Any
) -> WorkerModels:
    values: dict[str, Any] = {
        "cache_dir": folder / f"{name}-cache",
        "cache_limit_bytes": GIB,
        "sleap_nn_version": VERSION,
        **more,
    }
    models = WorkerModels(store=store, worker_name=name, **values)
    await models.open(ROOM)
    return models


async def publish_one(
    store: FickleStore, folder: Path, alias: str | None = None, **model: Any
) -> ModelRecord:
    """Publish a model as somebody else would."""
    return (await publish(store, folder, alias, **model)).details.record


async def publish(
    store: FickleStore, folder: Path, alias: str | None = None, **model: Any
) -> Published:
    local = read_model([write_model(folder, **model)])
    registry = ModelRegistry(store, ROOM)
    return await registry.publish(
        local, publication=Publication(alias=alias), by="ann@laptop"
    )


async def publish_pair(
    store: FickleStore, folder: Path, alias: str | None = None
) -> ModelRecord:
    """Publish a top-down pair."""
    folders = [
        write_model(folder / "flies.instance", seed=2, head="centered_instance"),
        write_model(folder / "flies.centroid", seed=1, head="centroid"),
    ]
    registry = ModelRegistry(store, ROOM)
    published = await registry.publish(
        read_model(folders), publication=Publication(alias=alias), by="ann@laptop"
    )
    return published.details.record
