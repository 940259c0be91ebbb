"""The files of a room's models in a store, each under the digest of its bytes.

A file under a digest never changes, so whoever reads one needs no lock. What is
written is checked against its digest on the way, and what is read before anybody uses
it. Called by `model_registry`, which says what belongs to a model.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3
from msgspec import structs

from sleap_rtc_plugin.protocol.errors import (
    ModelDamaged,
    ModelNotFound,
    SourceChanged,
    StorageFailed,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_LOSS_LOG_BYTES,
    MAX_PUBLISH_REPAIRS,
    MODEL_GARBAGE_AGE_S,
    STORE_PIECE_BYTES,
)
from sleap_rtc_plugin.protocol.model_records import CurvePoint, ModelFile, ModelRecord
from sleap_rtc_plugin.registry.loss_log import LOSS_LOG, curve_of
from sleap_rtc_plugin.registry.model_files import LocalFile, LocalModel
from sleap_rtc_plugin.registry.model_identity import model_id_of
from sleap_rtc_plugin.registry.object_store import Entry, ObjectMissing, ObjectStore
from sleap_rtc_plugin.registry.pulled_models import ArrivingPart, find_part
from sleap_rtc_plugin.transport.checkpoint_scan import scan_result
from sleap_rtc_plugin.transport.effects import in_thread

__all__ = ["Collected", "ModelBlobs", "Progress"]

Progress = Callable[[int, int], None]
IsListed = Callable[[str], Awaitable[bool]]

_BLOB: Final = re.compile(r"[0-9a-f]{64}\Z")
# Names that a store gives to what is not whole yet.
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{16}\.part\Z")


@dataclass(frozen=True)
class Collected:
    """What was removed from a store: how many files, of how many bytes together."""

    files: int
    bytes: int


class ModelBlobs:
    """The files of one room."""

    def __init__(self, store: ObjectStore, room_id: str) -> None:
        """Keep the files of `room_id` in `store`; the id was checked."""
        self._store = store
        self._folder = f"{room_id}/blobs"
        self._clock = f"{room_id}/clock"

    def _key(self, digest: str) -> str:
        return f"{self._folder}/{digest}"

    # -- writing -------------------------------------------------------------------

    async def upload(
        self, model: LocalModel, on_progress: Progress, *, anew: bool = False
    ) -> None:
        """Put every file into the store that is not there yet, or there for long.

        What is old might be taken away as garbage before the manifest names it.

        Args:
            model: whose files.
            on_progress: hears how many bytes of how many are there.
            anew: write what is there too, since it may be damaged.
        """
        total, done = model.size_bytes, 0
        store_now: float | None = None
        on_progress(0, total)
        written: set[str] = set()
        for file in model.files:
            key = self._key(file.digest)
            entry = None if anew else await self._store.look(key)
            if entry is not None and store_now is None:
                store_now = await self.store_time()
            is_there = file.digest in written or (
                entry is not None
                and store_now is not None
                and entry.size_bytes == file.size_bytes
                and store_now - entry.modified_at < MODEL_GARBAGE_AGE_S / 2
            )
            if not is_there:

                def tell(sent: int, before: int = done) -> None:
                    on_progress(before + sent, total)

                await self._write(file, tell)
                written.add(file.digest)
            done += file.size_bytes
            on_progress(done, total)

    async def lost(
        self, known: ModelRecord | None, model: LocalModel
    ) -> frozenset[str]:
        """Return the digests of listed files that neither store nor model has."""
        ours = {file.digest for file in model.files}
        others = [f for f in known.files if f.digest not in ours] if known else []
        return frozenset(
            [
                file.digest
                for file in others
                if await self._store.look(self._key(file.digest)) is None
            ]
        )

    async def repair(self, model: LocalModel) -> None:
        """See that every file is there, now that the manifest names it."""
        for _ in range(MAX_PUBLISH_REPAIRS + 1):
            missing = [
                file
                for file in model.files
                if await self._store.look(self._key(file.digest)) is None
            ]
            if not missing:
                return
            for file in missing:
                await self._write(file, lambda sent: None)
        raise StoreUnreachable(
            store=self._store.name, reason="files that were written to it vanish"
        )

    async def _write(self, file: LocalFile, tell: Callable[[int], None]) -> None:
        await self._store.write(
            self._key(file.digest), file.size_bytes, _verified(file, tell)
        )

    # -- reading -------------------------------------------------------------------

    async def curve(self, record: ModelRecord, folder: str) -> list[CurvePoint]:
        """Return the loss curve of a part; empty where its log is gone or damaged."""
        for file in record.files:
            if file.path == f"{folder}/{LOSS_LOG}":
                break
        else:
            return []
        if file.size_bytes > MAX_LOSS_LOG_BYTES:
            return []
        found = await self._store.read(self._key(file.digest), file.size_bytes)
        if found is None or found.data is None:
            return []
        if blake3(found.data).hexdigest() != file.digest:
            return []
        return await in_thread(None, curve_of, found.data)

    async def fetch(
        self,
        record: ModelRecord,
        folder: Path,
        is_listed: IsListed,
        on_progress: Progress,
    ) -> list[Path]:
        """Fetch a model; see `ModelRegistry.pull`.

        Args:
            record: the model.
            folder: where its parts are to lie.
            is_listed: whether the registry still has a model of this id.
            on_progress: hears how many bytes of how many are here.
        """
        if model_id_of(record.parts, record.files) != record.id:
            raise ModelDamaged(
                model=record.id, file="The list", reason="its id belongs to other files"
            )
        total, done = record.size_bytes, 0
        on_progress(0, total)
        places: list[Path | ArrivingPart] = []
        try:
            for part in record.parts:
                files = _files_of(record, part.folder)
                there = await in_thread(None, find_part, folder, part.folder, files)
                if there is not None:
                    places.append(there)
                    done += sum(file.size_bytes for file in files)
                    on_progress(done, total)
                    continue
                arriving = await in_thread(None, ArrivingPart, folder, part.folder)
                places.append(arriving)
                for file in files:

                    def tell(got: int, before: int = done) -> None:
                        on_progress(before + got, total)

                    await self._fetch(record, file, arriving, is_listed, tell)
                    done += file.size_bytes
            return [
                await in_thread(None, place.place)
                if isinstance(place, ArrivingPart)
                else place
                for place in places
            ]
        finally:
            for place in places:
                if isinstance(place, ArrivingPart):
                    await asyncio.shield(in_thread(None, place.discard))

    async def _fetch(
        self,
        record: ModelRecord,
        file: ModelFile,
        arriving: ArrivingPart,
        is_listed: IsListed,
        tell: Callable[[int], None],
    ) -> None:
        hasher, size = blake3(), 0
        try:
            pieces = self._store.pieces(self._key(file.digest), file.size_bytes)
            if not file.size_bytes:
                await in_thread(None, arriving.write, file.path, b"")
            async for piece in pieces:
                hasher.update(piece)
                size += len(piece)
                await in_thread(None, arriving.write, file.path, piece)
                tell(size)
        except ObjectMissing:
            if not await is_listed(record.id):
                raise ModelNotFound(model=record.id) from None
            raise ModelDamaged(
                model=record.id, file=file.path, reason="it is missing"
            ) from None
        if hasher.hexdigest() != file.digest:
            raise ModelDamaged(
                model=record.id, file=file.path, reason="its digest is another"
            )
        path = arriving.path.joinpath(*file.path.split("/"))
        await in_thread(None, scan_result, path, file.path)

    # -- tidying up ----------------------------------------------------------------

    async def older_than(self, before: float) -> list[Entry]:
        """Return what was last written before a time by the store's clock."""
        return [
            entry
            async for entry in self._store.entries(self._folder)
            if entry.modified_at < before and _is_ours(entry.key)
        ]

    async def remove(
        self, old: Sequence[Entry], named: Collection[str], before: float
    ) -> Collected:
        """Remove what is old, still, and whose digest nobody names."""
        files = size = 0
        for entry in old:
            if entry.key.rpartition("/")[2] in named:
                continue
            if await self._store.remove_old(entry.key, before):
                files += 1
                size += entry.size_bytes
        return Collected(files=files, bytes=size)

    async def store_time(self) -> float:
        """Return the time by the store's clock, in Unix seconds."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"1"

        await self._store.write(self._clock, 1, pieces())
        entry = await self._store.look(self._clock)
        if entry is None:
            raise StoreUnreachable(
                store=self._store.name, reason="it forgets what was written to it"
            )
        return entry.modified_at


def _files_of(record: ModelRecord, folder: str) -> list[ModelFile]:
    """Return the files of a part by their paths in it, its configuration last."""
    files = [
        structs.replace(file, path=file.path.partition("/")[2])
        for file in record.files
        if file.path.startswith(f"{folder}/")
    ]
    return sorted(files, key=lambda file: file.path.endswith(".yaml"))


def _is_ours(key: str) -> bool:
    """Tell whether a key is of a kind that a registry writes."""
    name = key.rpartition("/")[2]
    return bool(_BLOB.match(name) or _UNFINISHED.match(name))


async def _verified(
    file: LocalFile, tell: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """Yield a file in pieces; the last one only if all of it is what was digested.

    Raises:
        SourceChanged: it is another file by now.
        StorageFailed: it cannot be read.
    """
    if file.content is not None:
        yield file.content
        tell(len(file.content))
        return
    try:
        opened = await in_thread(None, file.source.open, "rb")
        try:
            hasher, size, held = blake3(), 0, b""
            while piece := await in_thread(None, opened.read, STORE_PIECE_BYTES):
                hasher.update(piece)
                if held:
                    yield held
                    tell(size)
                held = piece
                size += len(piece)
            if size != file.size_bytes or hasher.hexdigest() != file.digest:
                raise SourceChanged(path=str(file.source))
            yield held
            tell(size)
        finally:
            opened.close()
    except OSError as error:
        raise StorageFailed(
            place=str(file.source), reason=error.strerror or "cannot be read"
        ) from error
