"""A room's models in a store: list, describe, change, publish, pull, tidy up.

Files go first and the manifest last, and the manifest is replaced only where it still
is what was read; so a visible model is whole, and of two changes at once none is lost.
What a change means is decided in `changes`. Used by the worker, and by the client
where it reaches the store.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    AliasMoved,
    AliasTaken,
    LocalProtocolError,
    ModelNotFound,
    RegistryBusy,
    RegistryDamaged,
    RegistryFull,
    RtcError,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.ids import clean_text, is_id
from sleap_rtc_plugin.protocol.limits import (
    MAX_MODELS_PER_PAGE,
    MAX_REGISTRY_BYTES,
    MAX_REGISTRY_RETRIES,
    MODEL_GARBAGE_AGE_S,
    REGISTRY_RETRY_FIRST_S,
    REGISTRY_RETRY_MAX_S,
)
from sleap_rtc_plugin.protocol.model_messages import (
    CollectModels,
    DeleteModel,
    ModelEdit,
    ModelRow,
    PutAlias,
    RemoveAlias,
)
from sleap_rtc_plugin.protocol.model_records import (
    CHECKPOINT,
    AliasRecord,
    CurvePoint,
    ModelFilter,
    ModelRecord,
    Publication,
    TrainingFacts,
)
from sleap_rtc_plugin.registry import changes
from sleap_rtc_plugin.registry.model_blobs import Collected, ModelBlobs, Progress
from sleap_rtc_plugin.registry.model_files import LocalModel
from sleap_rtc_plugin.registry.object_store import ObjectStore
from sleap_rtc_plugin.registry.room_manifest import (
    RoomManifest,
    aliases_of,
    decode_manifest,
    empty_manifest,
    encode_manifest,
)
from sleap_rtc_plugin.transport.effects import in_thread

__all__ = ["Collected", "ModelDetails", "ModelRegistry", "Published"]

Change = Callable[[RoomManifest, float], RoomManifest]


@dataclass(frozen=True)
class ModelDetails:
    """Everything of one model.

    Attributes:
        record: the model.
        aliases: those that point to it, with who put them there and when.
        curves: its loss curves, one a part; empty where there is none.
    """

    record: ModelRecord
    aliases: dict[str, AliasRecord]
    curves: list[list[CurvePoint]] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """A model that is in the registry now.

    Attributes:
        details: the model.
        alias_error: why it is there without the alias that it was to have.
    """

    details: ModelDetails
    alias_error: RtcError | None = None


def _ignore(done: int, total: int) -> None:
    """Tell nobody about progress."""


class ModelRegistry:
    """The models of one room in one store; many of these may use a store at once."""

    def __init__(
        self,
        store: ObjectStore,
        room_id: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Look after `room_id`'s models in `store`; `now` is in Unix seconds.

        Raises:
            LocalProtocolError: the room's id is none.
        """
        if not is_id(room_id):
            raise LocalProtocolError(detail="a registry needs the id of a room")
        self._store = store
        self._room_id = room_id
        self._key = f"{room_id}/manifest.json"
        self._blobs = ModelBlobs(store, room_id)
        self._now = now
        self._read_at = 0.0
        self._known: tuple[str, RoomManifest] | None = None
        self._writing = asyncio.Lock()

    @property
    def store_name(self) -> str:
        """What to call the store before people."""
        return self._store.name

    # -- asking --------------------------------------------------------------------

    async def manifest(self, max_age_s: float = 0.0) -> RoomManifest:
        """Return the room's models and aliases, no older than this.

        Raises:
            RegistryDamaged: the manifest cannot be read.
            RegistryTooNew: a later version of the program wrote it.
            StoreUnreachable: the store does not answer.
        """
        if self._known is not None and time.monotonic() - self._read_at <= max_age_s:
            return self._known[1]
        return (await self._read())[0]

    async def rows(
        self,
        wanted: ModelFilter = ModelFilter(),  # noqa: B008 - frozen
        after: str | None = None,
        limit: int = MAX_MODELS_PER_PAGE,
        max_age_s: float = 0.0,
    ) -> tuple[list[ModelRow], bool]:
        """List models, the newest first; see `changes.rows`."""
        manifest = await self.manifest(max_age_s)
        return changes.rows(manifest, wanted, after, limit)

    async def describe(self, ref: str, max_age_s: float = 0.0) -> ModelDetails:
        """Return everything of the model with this alias or id.

        Raises:
            ModelNotFound: there is none; and what `manifest` raises.
        """
        manifest = await self.manifest(max_age_s)
        record = changes.find(manifest, ref)
        curves = [await self._blobs.curve(record, part.folder) for part in record.parts]
        return _details(manifest, record, curves)

    # -- changing ------------------------------------------------------------------

    async def change(self, edit: ModelEdit, by: str) -> ModelDetails | None:
        """Change the registry.

        Returns:
            The model as it is now; None where it is gone, or none was meant.

        Raises:
            ModelError: the change cannot be made (`changes.apply_edit`), or the store
                does not let us.
        """
        if isinstance(edit, CollectModels):
            await self.collect()
            return None
        tried = False

        def apply(manifest: RoomManifest, now: float) -> RoomManifest:
            nonlocal tried
            again, tried = tried, True
            try:
                return changes.apply_edit(manifest, edit, by, now)
            except ModelNotFound:
                # An answer that was lost on the way may have been "done".
                if again and isinstance(edit, DeleteModel | RemoveAlias):
                    return manifest
                raise

        manifest = await self._commit(apply)
        if isinstance(edit, DeleteModel | RemoveAlias):
            return None
        ref = edit.alias if isinstance(edit, PutAlias) else edit.model
        return _details(manifest, changes.find(manifest, ref), [])

    async def note_holder(self, model_id: str, worker: str, holds: bool) -> None:
        """Note that a worker holds a verified copy of a model, or no more."""
        await self._commit(
            lambda manifest, now: changes.note_holder(
                manifest, model_id, worker, holds, now
            )
        )

    # -- publishing ----------------------------------------------------------------

    async def publish(
        self,
        model: LocalModel,
        *,
        publication: Publication,
        by: str,
        trained_at: float | None = None,
        trained_by: str = "",
        trained_on: str = "",
        worker: str = "",
        training: TrainingFacts | None = None,
        on_progress: Progress = _ignore,
    ) -> Published:
        """Put a model into the registry; publishing it twice is publishing it once.

        Args:
            model: as `read_model` found it.
            publication: its alias, notes and tags.
            by: who publishes it.
            trained_at: when its training ended, if that is known better than from the
                files; in Unix seconds.
            trained_by: who submitted its training.
            trained_on: the worker that trained it.
            worker: that holds a copy, the one that publishes it.
            training: facts beside or instead of those that the files tell.
            on_progress: hears how many bytes of how many are in the store.

        Raises:
            SourceChanged: a file changed meanwhile; nothing is visible.
            ModelError: the store or the registry does not take it.
        """
        record = ModelRecord(
            id=model.id,
            type=model.type,
            name=model.name,
            parts=list(model.parts),
            checkpoint_path=f"{model.parts[0].folder}/{CHECKPOINT}",
            files=model.model_files(),
            size_bytes=model.size_bytes,
            trained_at=model.trained_at if trained_at is None else trained_at,
            trained_by=clean_text(trained_by),
            trained_on=clean_text(trained_on),
            published_at=self._now(),
            workers=[clean_text(worker)] if worker else [],
            training=_joined(training, model.training),
        )
        manifest, _ = await self._read()
        known = manifest.models.get(model.id)
        lost = await self._blobs.lost(known, model)
        # Who publishes a model again may have been told that it is damaged.
        await self._blobs.upload(model, on_progress, anew=known is not None)
        alias_error: RtcError | None = None

        def add(manifest: RoomManifest, now: float) -> RoomManifest:
            nonlocal alias_error
            alias_error = None
            added = changes.add_model(manifest, record, publication, by, now, lost)
            if publication.alias is None:
                return added
            edit = PutAlias(
                alias=publication.alias,
                model=record.id,
                moves=publication.moves_alias,
            )
            try:
                return changes.apply_edit(added, edit, by, now)
            except (AliasTaken, AliasMoved, RegistryFull) as error:
                alias_error = error
                return added

        manifest = await self._commit(add)
        await self._blobs.repair(model)
        listed = changes.find(manifest, record.id)
        return Published(_details(manifest, listed, []), alias_error)

    # -- pulling -------------------------------------------------------------------

    async def pull(
        self, record: ModelRecord, folder: Path, *, on_progress: Progress = _ignore
    ) -> list[Path]:
        """Fetch a model: one folder a part below `folder`, whole and verified.

        What is there already is kept: where it is the same, it is the answer, and
        where it is something else, the part gets a name with a number.

        Args:
            record: the model, from the manifest.
            folder: made where it is missing.
            on_progress: hears how many bytes of how many are here.

        Returns:
            The folders of the parts, in the order in which they are used.

        Raises:
            ModelDamaged: a file in the store is missing or another one.
            ModelNotFound: the model was deleted meanwhile.
            UnsafeCheckpoint: it would run code when loaded.
            DiskFull: there is no room here.
            StorageFailed: the disk here failed.
            ModelError: the store does not answer.
        """
        return await self._blobs.fetch(record, folder, self._is_listed, on_progress)

    async def _is_listed(self, model_id: str) -> bool:
        return model_id in (await self.manifest()).models

    # -- tidying up ----------------------------------------------------------------

    async def collect(self, age_s: float = MODEL_GARBAGE_AGE_S) -> Collected:
        """Remove the files that no model refers to.

        Ages are by the store's own clock, so that no other one can make a file old
        that is just being published. Without a manifest nothing is removed: it may
        have been lost.

        Args:
            age_s: how long ago a file has to be written, in seconds.
        """
        if await self._store.read(self._key, MAX_REGISTRY_BYTES) is None:
            return Collected(files=0, bytes=0)
        before = await self._blobs.store_time() - age_s
        old = await self._blobs.older_than(before)
        # Read after the list: what was named meanwhile must not go.
        manifest = await self.manifest()
        named = {
            file.digest for record in manifest.models.values() for file in record.files
        }
        return await self._blobs.remove(old, named, before)

    # -- the manifest --------------------------------------------------------------

    async def _read(self) -> tuple[RoomManifest, str | None]:
        """Return the manifest as it is now, and its version."""
        known = self._known
        found = await self._store.read(
            self._key, MAX_REGISTRY_BYTES, known[0] if known else None
        )
        if found is None:
            if known is not None:
                # Not empty: lost. A disk that is not mounted looks like this too.
                raise StoreUnreachable(
                    store=self.store_name, reason="its list of models is gone"
                )
            return empty_manifest(self._room_id), None
        if found.data is None and known is not None:
            manifest = known[1]
        else:
            manifest = await in_thread(
                None, decode_manifest, found.data or b"", self.store_name
            )
        if manifest.room_id != self._room_id:
            raise RegistryDamaged(
                store=self.store_name, reason="it is the list of another room"
            )
        self._note(found.version, manifest)
        return manifest, found.version

    def _note(self, version: str, manifest: RoomManifest) -> None:
        self._known = (version, manifest)
        self._read_at = time.monotonic()

    async def _commit(self, change: Change) -> RoomManifest:
        """Make a change to what the manifest is by then, and return what it became."""
        async with self._writing:
            for attempt in range(MAX_REGISTRY_RETRIES):
                manifest, expected = await self._read()
                changed = change(manifest, self._now())
                if changed == manifest:
                    return manifest
                data = await in_thread(None, encode_manifest, changed)
                version = await self._store.replace(self._key, data, expected)
                if version is not None:
                    self._note(version, changed)
                    return changed
                await asyncio.sleep(_delay_s(attempt))
        raise RegistryBusy(store=self.store_name)


def _delay_s(attempt: int) -> float:
    ceiling: float = min(REGISTRY_RETRY_FIRST_S * 2**attempt, REGISTRY_RETRY_MAX_S)
    return ceiling * random.random()  # noqa: S311 - only keeps two from meeting again


def _details(
    manifest: RoomManifest, record: ModelRecord, curves: list[list[CurvePoint]]
) -> ModelDetails:
    names = aliases_of(manifest, record.id)
    return ModelDetails(record, {n: manifest.aliases[n] for n in names}, curves)


def _joined(given: TrainingFacts | None, read: TrainingFacts) -> TrainingFacts:
    """Return facts that the caller knows, and those of the files for the rest."""
    if given is None:
        return read
    facts: dict[str, Any] = {
        name: getattr(given, name) or getattr(read, name)
        for name in TrainingFacts.__struct_fields__
    }
    return structs.replace(read, **facts)
