"""Where files arrive: parts first, the final name only after the digest matched.

A part is named by its file's digest and checked chunk by chunk when a transfer
begins, so what survived a crash is reused and a torn write is not. What a chunk store,
another source or an earlier version of the package has is copied then, and holes are
left out. Blocking calls, made in one thread at a time by the transfer pump.
"""

import os
import shutil
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import DiskFull
from sleap_rtc_plugin.protocol.limits import FREE_SPACE_FACTOR, MIB
from sleap_rtc_plugin.protocol.manifest import ChunkInfo, FileEntry, Manifest
from sleap_rtc_plugin.transport.chunk_reader import ChunkSource, ReadChunk
from sleap_rtc_plugin.transport.chunk_store import ChunkStore, Place
from sleap_rtc_plugin.transport.earlier_parts import (
    EarlierParts,
    read_manifest,
    remove_others,
)
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_plugin.transport.file_source import digest_of
from sleap_rtc_plugin.transport.sparse_files import (
    clear,
    copy_data,
    digest_of_file,
    is_empty,
    sync_file,
    sync_folder,
    write_at,
)

__all__ = ["StagingArea", "StagingInterrupted"]

_PARTS: Final = "parts"
_FILES: Final = "files"
# What the parts belong to; here until every file has its name.
_MANIFEST: Final = "manifest"
MAX_OPEN_PARTS: Final = 16
# How many chunks are looked up in the store at a time.
REUSE_BATCH: Final = 500


class StagingInterrupted(Exception):
    """Nobody waits for the work any more; what was written so far stays."""


class StagingArea:
    """A private folder that one transfer fills; a later transfer may go on with it.

    `taken_bytes` came from `sources` instead of over the link.
    """

    def __init__(
        self,
        root: Path,
        place: str | None = None,
        store: ChunkStore | None = None,
        sources: Sequence[ChunkSource] = (),
    ) -> None:
        """Use `root`, which no one else may write to; it is made when needed.

        Args:
            root: the folder.
            place: what errors call it; a worker does not tell clients its paths.
            store: files of earlier packages, and where the arrived ones are kept.
            sources: where else the files may be, the likeliest first.
        """
        self.root = root
        self.sources = sources
        self.taken_bytes = 0
        self._store = store
        self._place = place or str(root)
        self._parts = root / _PARTS
        self.files = root / _FILES
        self._manifest: Manifest | None = None
        self._open: OrderedDict[int, int] = OrderedDict()
        self._uses: Counter[bytes] = Counter()
        self._interrupted = threading.Event()

    def begin(self) -> None:
        """A transfer begins; callable on the event loop."""
        self._interrupted.clear()

    def interrupt(self) -> None:
        """The transfer has ended: let what still runs stop; callable on the loop.

        Hashing what was announced may take minutes, and someone else may want the
        folder.
        """
        self._interrupted.set()

    def known_manifest(self, digest: str) -> bytes:
        """Return a manifest that came before, by its digest in hex, or nothing."""
        if self._store is None:
            return b""
        return self._store.manifest(bytes.fromhex(digest), time.time()) or b""

    def remember_manifest(self, data: bytes) -> None:
        """Keep a manifest, so that it need not be sent again."""
        if self._store is not None:
            self._store.keep_manifest(data, time.time())

    def inventory(self, manifest: Manifest) -> tuple[frozenset[int], frozenset[int]]:
        """Find out what is here: verified chunks, and files already in place.

        What the store or another source has is brought here first. Holes count as
        here.

        Raises:
            DiskFull: what is missing does not fit.
            StorageFailed: the folder cannot be used.
        """
        try:
            for folder in (self.root, self._parts, self.files):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._manifest = manifest
            files = frozenset(
                index
                for index, entry in enumerate(manifest.files)
                if self._is_in_place(entry)
            )
            missing = [i for i in range(len(manifest.files)) if i not in files]
            self._uses = Counter(manifest.files[index].digest for index in missing)
            chunks = {n for index in missing for n in self._chunks_present(index)}
            self._replace_earlier(manifest, missing, chunks)
            self._check_space(manifest, chunks, missing)
            if self._store is not None:
                self._keep(self._store, [manifest.files[index] for index in files])
                for index in missing:
                    if not self._reuse_whole(self._store, index, chunks):
                        self._reuse(self._store, index, chunks)
            for source in self.sources:
                with source.reading() as read:
                    for index in missing:
                        self._take(read, index, chunks)
        except OSError as error:
            raise storage_error(
                error, self.root, manifest.total_bytes, self._place
            ) from None
        return frozenset(chunks), files

    def store(self, number: int, data: bytes, *copies: int) -> bool:
        """Write a chunk to its part; False where its digest does not match.

        `copies` are other chunks of the same digest and size, to be written as well.

        Raises:
            DiskFull: there is no room for it.
            StorageFailed: it cannot be written.
        """
        manifest = self._known_manifest()
        chunk = manifest.chunk(number)
        if digest_of(data) != chunk.digest:
            return False
        try:
            self._write(chunk, data)
            for copy in copies:
                self._go_on()
                self._write(manifest.chunk(copy), data)
        except OSError as error:
            raise storage_error(error, self.root, len(data), self._place) from None
        return True

    def finish(self, *files: int) -> frozenset[int]:
        """Give files their final names, and return those whose digests match.

        Raises:
            StorageFailed: the disk failed.
        """
        manifest = self._known_manifest()
        try:
            done = [file for file in files if self._put_in_place(file)]
            entries = [manifest.files[file] for file in done]
            for folder in {(self.files / entry.path).parent for entry in entries}:
                sync_folder(folder)
            if not self._uses.total():
                self._manifest_path.unlink(missing_ok=True)
            if self._store is not None:
                self._keep(self._store, entries)
        except OSError as error:
            needed_bytes = sum(manifest.files[file].size_bytes for file in files)
            raise storage_error(error, self.root, needed_bytes, self._place) from None
        return frozenset(done)

    def _put_in_place(self, file: int) -> bool:
        entry = self._known_manifest().files[file]
        part = self._part(entry)
        descriptor = self._part_descriptor(file)
        os.ftruncate(descriptor, entry.size_bytes)
        os.fsync(descriptor)
        self._close_part(file)
        if digest_of_file(part, self._go_on) != entry.digest:
            part.unlink()
            return False
        target = self.files / entry.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._uses[entry.digest] -= 1
        if self._uses[entry.digest] > 0:
            # Another file of the same contents still needs the part.
            part = Path(shutil.copyfile(part, part.with_suffix(".copy")))
            sync_file(part)
        part.replace(target)
        return True

    def close(self) -> None:
        """Close open parts; they stay on the disk for a resume."""
        for file in list(self._open):
            self._close_part(file)
        if self._store is not None:
            self._store.trim(time.time())

    def disown(self) -> None:
        """Let the store forget the files, which turned out not to be wanted."""
        if self._store is not None:
            for entry in self._known_manifest().files:
                self._store.drop(entry.digest)

    # -- parts ---------------------------------------------------------------------

    def _part(self, entry: FileEntry) -> Path:
        return self._parts / f"{entry.digest.hex()}.part"

    def _part_descriptor(self, file: int) -> int:
        descriptor = self._open.get(file)
        if descriptor is None:
            if len(self._open) >= MAX_OPEN_PARTS:
                self._close_part(next(iter(self._open)))
            part = self._part(self._known_manifest().files[file])
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            flags |= getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(part, flags, 0o600)
            self._open[file] = descriptor
        return descriptor

    def _write(self, chunk: ChunkInfo, data: bytes) -> None:
        write_at(self._part_descriptor(chunk.file), data, chunk.offset)

    def _close_part(self, file: int) -> None:
        descriptor = self._open.pop(file, None)
        if descriptor is not None:
            os.close(descriptor)

    def _go_on(self) -> None:
        if self._interrupted.is_set():
            raise StagingInterrupted

    # -- an earlier version of the package ---------------------------------------------

    @property
    def _manifest_path(self) -> Path:
        return self.root / _MANIFEST

    def _replace_earlier(
        self, manifest: Manifest, missing: Sequence[int], present: set[int]
    ) -> None:
        """Take over what an earlier manifest left here, then remove the rest of it."""
        earlier = read_manifest(self._manifest_path)
        if earlier is not None and earlier != manifest:
            self._salvage(earlier, missing, present)
        if not missing:
            self._manifest_path.unlink(missing_ok=True)
        elif earlier != manifest:
            # From here on the parts belong to this one. If a crash tears it, then
            # only what a later version could have taken over is lost.
            self._manifest_path.write_bytes(manifest.encode())
        remove_others(self._parts, [self._part(manifest.files[i]) for i in missing])
        remove_others(self.files, [self.files / entry.path for entry in manifest.files])

    def _salvage(
        self, earlier: Manifest, missing: Sequence[int], present: set[int]
    ) -> None:
        """Copy chunks out of an earlier version's parts and files, each one checked."""
        manifest = self._known_manifest()
        lacking = [
            number
            for index in missing
            for number in manifest.chunks_of(index)
            if number not in present
        ]
        needed = sum(manifest.chunk(number).size_bytes for number in lacking)
        if needed * FREE_SPACE_FACTOR > shutil.disk_usage(self.root).free:
            # Both versions do not fit; the earlier one gives way.
            return

        def places_of(entry: FileEntry) -> tuple[Path, Path]:
            return self._part(entry), self.files / entry.path

        for number, data in EarlierParts(
            earlier, places_of, manifest, lacking
        ).chunks():
            self._go_on()
            chunk = manifest.chunk(number)
            if number not in present and digest_of(data) == chunk.digest:
                self._write(chunk, data)
                present.add(number)

    # -- taking stock ----------------------------------------------------------------

    def _is_in_place(self, entry: FileEntry) -> bool:
        target = self.files / entry.path
        return (
            target.is_file()
            and not target.is_symlink()
            and target.stat().st_size == entry.size_bytes
            and digest_of_file(target, self._go_on) == entry.digest
        )

    def _chunks_present(self, file: int) -> list[int]:
        manifest = self._known_manifest()
        part = self._part(manifest.files[file])
        chunks = map(manifest.chunk, manifest.chunks_of(file))
        if not part.exists():
            return [chunk.number for chunk in chunks if chunk.is_hole]
        present: list[int] = []
        with part.open("rb", buffering=0) as data:
            for chunk in chunks:
                self._go_on()
                data.seek(chunk.offset)
                if chunk.is_hole:
                    if not is_empty(data.fileno(), chunk.offset, chunk.size_bytes):
                        part_descriptor = self._part_descriptor(file)
                        clear(part_descriptor, chunk.offset, chunk.size_bytes)
                elif digest_of(data.read(chunk.size_bytes)) != chunk.digest:
                    continue
                present.append(chunk.number)
        return present

    def _reuse_whole(self, store: ChunkStore, file: int, present: set[int]) -> bool:
        """Copy a file that the store has as a whole; False where that is not so.

        The system copies, at once where the disk can share blocks, and one pass
        checks. A part that has something in it already is left alone.
        """
        entry = self._known_manifest().files[file]
        source, part = store.path_of(entry), self._part(entry)
        if source is None or part.exists():
            return False
        with store.lease({entry.digest}, time.time()):
            is_copied = copy_data(source, self._part_descriptor(file), self._go_on)
        if not is_copied or digest_of_file(part, self._go_on) != entry.digest:
            # Chunk by chunk, a file that was damaged still gives what is whole of it.
            os.ftruncate(self._part_descriptor(file), 0)
            return False
        present.update(self._known_manifest().chunks_of(file))
        return True

    def _reuse(self, store: ChunkStore, file: int, present: set[int]) -> None:
        """Copy what the store has of a file into its part, each chunk checked."""
        manifest = self._known_manifest()
        missing = [n for n in manifest.chunks_of(file) if n not in present]
        whole = store.file(manifest.files[file].digest)
        for start in range(0, len(missing), REUSE_BATCH):
            chunks = [manifest.chunk(n) for n in missing[start : start + REUSE_BATCH]]
            found = store.find([chunk.digest for chunk in chunks])
            places = {c.number: list(_places(c, found, whole)) for c in chunks}
            used = {place.file for some in places.values() for place in some[:1]}
            with store.lease(used, time.time()):
                for chunk in chunks:
                    self._go_on()
                    data = _first_whole(store, places[chunk.number])
                    if data is not None:
                        self._write(chunk, data)
                        present.add(chunk.number)

    def _take(self, read: ReadChunk, file: int, present: set[int]) -> None:
        """Copy what a source has of a file into its part, each chunk checked."""
        manifest = self._known_manifest()
        for number in manifest.chunks_of(file):
            if number not in present:
                self._go_on()
                chunk = manifest.chunk(number)
                data = read(manifest.files[file], chunk)
                if data is not None and digest_of(data) == chunk.digest:
                    self._write(chunk, data)
                    present.add(number)
                    self.taken_bytes += len(data)

    def _keep(self, store: ChunkStore, entries: Iterable[FileEntry]) -> None:
        now = time.time()
        store.keep([(self.files / entry.path, entry) for entry in entries], now)

    def _check_space(
        self, manifest: Manifest, chunks: set[int], files: Sequence[int]
    ) -> None:
        wanted = sum(manifest.files[index].size_bytes for index in files)
        # A hole may be filled by whoever copies the file: it needs its space, too.
        here = (chunk for chunk in map(manifest.chunk, chunks) if not chunk.is_hole)
        present = sum(chunk.size_bytes for chunk in here)
        needed = int((wanted - present) * FREE_SPACE_FACTOR)
        free = shutil.disk_usage(self.root).free
        if needed > free and self._store is not None:
            self._store.make_room(needed - free, time.time())
            free = shutil.disk_usage(self.root).free
        if needed > free:
            raise DiskFull(
                place=self._place,
                needed=f"{needed / MIB:.1f} MiB",
                free=f"{free / MIB:.1f} MiB",
            )

    def _known_manifest(self) -> Manifest:
        if self._manifest is None:
            raise RuntimeError("inventory() comes first")
        return self._manifest


def _places(
    chunk: ChunkInfo, found: dict[bytes, list[Place]], whole: Place | None
) -> Iterator[Place]:
    """Yield where a chunk may be: in the same file as it was, then anywhere."""
    if whole is not None:
        yield Place(whole.file, chunk.offset, chunk.size_bytes, chunk.digest)
    for place in found.get(chunk.digest, ()):
        if place.size_bytes == chunk.size_bytes:
            yield place


def _first_whole(store: ChunkStore, places: list[Place]) -> bytes | None:
    for place in places:
        data = store.read(place)
        if data is not None:
            return data
    return None
