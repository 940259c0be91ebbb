"""The room's models as this worker uses them: what there is, what it holds, what loads.

The registry in the store says what there is, the cache what is at hand; models come
from the store only, are verified, and are scanned before anything loads them. Made by
the worker's root; asked by jobs, by links and by whoever asks through the room.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.errors import (
    AliasTaken,
    ModelDamaged,
    ModelError,
    ModelTooNew,
    NoStore,
    RtcError,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import REGISTRY_REFRESH_S
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep
from sleap_rtc_plugin.protocol.model_records import ModelRecord
from sleap_rtc_plugin.protocol.model_versions import can_load
from sleap_rtc_plugin.protocol.signaling_messages import (
    RegistryQuery,
    RegistryResponse,
)
from sleap_rtc_plugin.registry.changes import find
from sleap_rtc_plugin.registry.model_registry import ModelRegistry
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.room_manifest import record_fault
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_worker.limits import (
    MAX_MODEL_FETCHES,
    MAX_MODEL_QUERIES,
    MODEL_ADMISSION_S,
    MODEL_FETCH_TIMEOUT_S,
    MODEL_FRESH_S,
)
from sleap_rtc_worker.model_cache import ModelCache

__all__ = ["WorkerModels"]

logger = logging.getLogger(__name__)

_NOT_OPEN: Final = "the worker has not entered its room yet"


class WorkerModels:
    """The models of one worker's room."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        cache_dir: Path,
        cache_limit_bytes: int,
        worker_name: str,
        sleap_nn_version: str = "",
        room: str = "",
    ) -> None:
        """Prepare; nothing is asked before `open`.

        Args:
            store: where the room's models are.
            cache_dir: where copies of them are kept.
            cache_limit_bytes: how much of them is kept.
            worker_name: what users call this worker.
            sleap_nn_version: the installed sleap-nn's, or nothing.
            room: the name that the registry is filed under; by default the room's id.
        """
        self._store = store
        self._cache_dir = cache_dir
        self._cache_limit_bytes = cache_limit_bytes
        self._worker_name = worker_name
        self._sleap_nn_version = sleap_nn_version
        self._room = room
        self._registry: ModelRegistry | None = None
        self._cache: ModelCache | None = None
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._fetching = asyncio.Semaphore(MAX_MODEL_FETCHES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._queries = 0

    async def open(self, room_id: str) -> None:
        """Serve the models of a room from now on.

        Raises:
            RtcError: the folder of the cache cannot be used.
        """
        name = self._room or room_id
        self._registry = ModelRegistry(self._store, name)
        self._cache = await in_thread(
            None,
            ModelCache,
            # What one room's store gave is for that room alone.
            self._cache_dir / name,
            self._cache_limit_bytes,
            place=f"the disk of the worker {self._worker_name}",
        )

    async def close(self) -> None:
        """Let go of everything that is still under way."""
        tasks = [*self._tasks, *self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def registry(self) -> ModelRegistry:
        """The registry of the room.

        Raises:
            NoStore: no room was entered yet.
        """
        if self._registry is None:
            raise NoStore(reason=_NOT_OPEN)
        return self._registry

    @property
    def cache(self) -> ModelCache:
        """The models at hand.

        Raises:
            NoStore: no room was entered yet.
        """
        if self._cache is None:
            raise NoStore(reason=_NOT_OPEN)
        return self._cache

    # -- keeping up to date ----------------------------------------------------------

    async def watch(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                await self.refresh()
            except RtcError as error:
                # The store may be away for a while; what is held can be used.
                logger.warning("%s", error)
            await asyncio.sleep(REGISTRY_REFRESH_S)

    async def refresh(self) -> None:
        """Let go of models that were deleted, and say truly which ones are held.

        Raises:
            ModelError: the registry cannot be read.
        """
        manifest = await self.registry.manifest()
        await in_thread(None, self.cache.keep_only, set(manifest.models))
        for record in manifest.models.values():
            holds = self.cache.holds(record)
            if holds != (self._worker_name in record.workers):
                await self.registry.note_holder(record.id, self._worker_name, holds)

    # -- asking ----------------------------------------------------------------------

    async def find(self, ref: str) -> ModelRecord:
        """Return the model with this alias or id.

        What is held is found by its id also where the store is away.

        Raises:
            ModelNotFound: there is none.
            ModelError: the registry cannot be read.
        """
        try:
            manifest = await self.registry.manifest(MODEL_FRESH_S)
        except ModelError as error:
            held = self.cache.records.get(ref) if error.retryable else None
            if held is None:
                raise
            return held
        return find(manifest, ref)

    def holds(self, record: ModelRecord) -> bool:
        """Tell whether a model is at hand."""
        return self.cache.holds(record)

    def check_version(self, record: ModelRecord) -> None:
        """Check that this worker's sleap-nn can load a model.

        Raises:
            ModelTooNew: it cannot.
        """
        needed = record.training.sleap_nn_version
        if not can_load(needed, self._sleap_nn_version):
            raise ModelTooNew(
                model=record.id,
                needed=needed,
                worker=self._worker_name,
                found=self._sleap_nn_version,
            )

    async def answer(self, query: RegistryQuery) -> RegistryResponse | None:
        """Say whether a model is at hand; None where too many ask at once."""
        if self._queries >= MAX_MODEL_QUERIES:
            return None
        self._queries += 1
        try:
            record = await self.find(query.model)
        except RtcError as error:
            logger.info("A question for the model %s: %s", query.model, error)
            return RegistryResponse(request_id=query.request_id, held=False)
        finally:
            self._queries -= 1
        return RegistryResponse(
            request_id=query.request_id,
            held=self.holds(record),
            model=record.id,
            loads=can_load(record.training.sleap_nn_version, self._sleap_nn_version),
            sleap_nn_version=record.training.sleap_nn_version,
        )

    # -- jobs ------------------------------------------------------------------------

    async def admit(self, spec: JobSpec) -> None:
        """Check what a job wants of the room's models, before its package is sent.

        What it uses is fetched already; a fetch that takes long goes on meanwhile.

        Raises:
            AliasTaken: what it publishes shall have an alias that belongs to a model.
            ModelError: a model that it uses is not to be had, or not to be loaded.
            UnsafeCheckpoint: loading a model would run code.
        """
        wanted = {
            step.published
            for step in spec.steps
            if isinstance(step, PredictStep) and step.published is not None
        }
        loop = asyncio.get_running_loop()
        until = loop.time() + MODEL_ADMISSION_S
        for model_id in sorted(wanted):
            try:
                async with asyncio.timeout_at(until):
                    record = await self.find(model_id)
            except TimeoutError:
                raise self._too_slow() from None
            self.check_version(record)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self.fetch(record)
        if spec.publish is not None and spec.publish.alias is not None:
            await self._check_alias(spec.publish.alias, spec.publish.moves_alias, until)

    async def _check_alias(self, alias: str, moves: bool, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                manifest = await self.registry.manifest(REGISTRY_REFRESH_S)
        except (TimeoutError, ModelError) as error:
            # The training may take long enough for the store to come back.
            logger.warning("The alias %s could not be looked up: %s", alias, error)
            return
        known = manifest.aliases.get(alias)
        if known is not None and not moves:
            raise AliasTaken(alias=alias, model=known.model)

    async def lay(self, model_id: str, folder: Path) -> list[str]:
        """Put a verified copy of a model below a folder.

        Returns:
            The folders of its parts, relative to `folder`, in the order of their use.

        Raises:
            ModelError: it is not to be had, or not to be loaded.
            RtcError: the disk failed, or loading the model would run code.
        """
        record = await self.find(model_id)
        self.check_version(record)
        with self.cache.using(record.id):
            for is_last in (False, True):
                await self.fetch(record)
                try:
                    target = folder / record.id
                    await in_thread(None, self.cache.copy, record.id, target)
                    break
                except ModelDamaged:
                    # It was our copy, and the store still has the model.
                    if is_last:
                        raise
        await in_thread(None, self.cache.trim)
        return [f"{record.id}/{part.folder}" for part in record.parts]

    @asynccontextmanager
    async def using(self, ref: str) -> AsyncIterator[list[Path]]:
        """Fetch a model if need be, verify it, and keep it while the body runs.

        Yields:
            The folders of its parts, in the order in which they are used.

        Raises:
            ModelError: it is not to be had, or not to be loaded.
            RtcError: the disk failed, or loading the model would run code.
        """
        record = await self.find(ref)
        self.check_version(record)
        with self.cache.using(record.id):
            await self.fetch(record)
            try:
                await in_thread(None, self.cache.verify, record.id)
            except ModelDamaged:
                await self.fetch(record)
            root = self.cache.files_of(record.id)
            yield [root / part.folder for part in record.parts]
        await in_thread(None, self.cache.trim)

    def warm(self, record: ModelRecord) -> None:
        """Fetch a model that will be wanted here, such as one that was trained here."""

        async def fetch() -> None:
            with suppress(RtcError):
                await self.fetch(record)

        self._spawn(fetch())

    # -- fetching --------------------------------------------------------------------

    async def fetch(self, record: ModelRecord) -> None:
        """Bring a model into the cache; whoever wants the same one waits for one fetch.

        Raises:
            RtcError: it is not to be had.
        """
        if self.holds(record):
            return
        task = self._fetches.get(record.id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(record))
            self._fetches[record.id] = task
            task.add_done_callback(lambda done: self._fetched(record.id, done))
        await asyncio.shield(task)

    def _fetched(self, model_id: str, task: asyncio.Task[None]) -> None:
        self._fetches.pop(model_id, None)
        # Whoever waited for it has gone in the meantime, perhaps.
        if not task.cancelled() and task.exception() is not None:
            logger.warning("The model %s: %s", model_id, task.exception())

    async def _pull(self, record: ModelRecord) -> None:
        fault = record_fault(record)
        if fault is not None:
            raise ModelDamaged(
                model=record.id, file="the list of its files", reason=fault
            )
        cache = self.cache
        async with self._fetching:
            with cache.using(record.id):
                try:
                    async with asyncio.timeout(MODEL_FETCH_TIMEOUT_S):
                        folder = await in_thread(None, cache.incoming, record)
                        # Checked there: the id, every digest, and what it would run.
                        await self.registry.pull(record, folder)
                        await in_thread(None, cache.keep, record)
                except TimeoutError:
                    raise self._too_slow() from None
                finally:
                    await in_thread(None, cache.forget_incoming, record.id)
        logger.info("The model %s is here now", record.id)
        self._spawn(self._note_held(record.id))

    async def _note_held(self, model_id: str) -> None:
        # Where it cannot be written down now, the next refresh does it.
        with suppress(RtcError):
            await self.registry.note_holder(model_id, self._worker_name, True)

    def _too_slow(self) -> StoreUnreachable:
        reason = "it did not answer in time"
        return StoreUnreachable(store=self.registry.store_name, reason=reason)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
