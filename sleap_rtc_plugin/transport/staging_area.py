"""Where files arrive: parts first, the final name only after the digest matched.

A part is named by its file's digest and checked chunk by chunk when a transfer
begins, so what survived a crash is reused and a torn write is not. Blocking calls,
made in one thread at a time by the transfer pump.
"""

import contextlib
import os
import shutil
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import DiskFull
from sleap_rtc_plugin.protocol.limits import CHUNK_BYTES, FREE_SPACE_FACTOR, MIB
from sleap_rtc_plugin.protocol.manifest import FileEntry, Manifest
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_plugin.transport.file_source import digest_of

__all__ = ["StagingArea", "sync_folder"]

_PARTS: Final = "parts"
_FILES: Final = "files"
MAX_OPEN_PARTS: Final = 16


class StagingArea:
    """A private folder that one transfer fills; a later transfer may go on with it."""

    def __init__(self, root: Path, place: str | None = None) -> None:
        """Use `root`, which no one else may write to; it is made when needed.

        `place` is what errors call it; a worker does not tell clients its paths.
        """
        self.root = root
        self._place = place or str(root)
        self._parts = root / _PARTS
        self.files = root / _FILES
        self._manifest: Manifest | None = None
        self._open: OrderedDict[int, int] = OrderedDict()
        self._uses: Counter[bytes] = Counter()

    def inventory(self, manifest: Manifest) -> tuple[frozenset[int], frozenset[int]]:
        """Find out what is here: verified chunks, and files already in place.

        Raises:
            DiskFull: what is missing does not fit.
            StorageFailed: the folder cannot be used.
        """
        try:
            for folder in (self.root, self._parts, self.files):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._manifest = manifest
            self._remove_stale_parts(manifest)
            files = frozenset(
                index
                for index, entry in enumerate(manifest.files)
                if self._is_in_place(entry)
            )
            chunks = frozenset(
                number
                for index in range(len(manifest.files))
                if index not in files
                for number in self._chunks_present(index)
            )
            self._uses = Counter(
                entry.digest
                for index, entry in enumerate(manifest.files)
                if index not in files
            )
            self._check_space(manifest, chunks, files)
        except OSError as error:
            raise storage_error(
                error, self.root, manifest.total_bytes, self._place
            ) from None
        return chunks, files

    def store(self, number: int, data: bytes) -> bool:
        """Write a chunk to its part; False where its digest does not match.

        Raises:
            DiskFull: there is no room for it.
            StorageFailed: it cannot be written.
        """
        manifest = self._known_manifest()
        chunk = manifest.chunk(number)
        if digest_of(data) != chunk.digest:
            return False
        try:
            _write_at(self._part_descriptor(chunk.file), data, chunk.offset)
        except OSError as error:
            raise storage_error(error, self.root, len(data), self._place) from None
        return True

    def finish(self, file: int) -> bool:
        """Give a file its final name; False where its whole digest does not match.

        Raises:
            StorageFailed: the disk failed.
        """
        entry = self._known_manifest().files[file]
        part = self._part(entry)
        try:
            descriptor = self._part_descriptor(file)
            os.ftruncate(descriptor, entry.size_bytes)
            os.fsync(descriptor)
            self._close_part(file)
            if _digest_of_file(part) != entry.digest:
                part.unlink()
                return False
            target = self.files / entry.path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._uses[entry.digest] -= 1
            if self._uses[entry.digest] > 0:
                # Another file of the same contents still needs the part.
                part = Path(shutil.copyfile(part, part.with_suffix(".copy")))
                _sync_file(part)
            part.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise storage_error(
                error, self.root, entry.size_bytes, self._place
            ) from None
        return True

    def close(self) -> None:
        """Close open parts; they stay on the disk for a resume."""
        for file in list(self._open):
            self._close_part(file)

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

    def _close_part(self, file: int) -> None:
        descriptor = self._open.pop(file, None)
        if descriptor is not None:
            os.close(descriptor)

    def _remove_stale_parts(self, manifest: Manifest) -> None:
        wanted = {self._part(entry).name for entry in manifest.files}
        for part in self._parts.iterdir():
            if part.name not in wanted:
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()

    # -- taking stock ----------------------------------------------------------------

    def _is_in_place(self, entry: FileEntry) -> bool:
        target = self.files / entry.path
        return (
            target.is_file()
            and not target.is_symlink()
            and target.stat().st_size == entry.size_bytes
            and _digest_of_file(target) == entry.digest
        )

    def _chunks_present(self, file: int) -> list[int]:
        manifest = self._known_manifest()
        part = self._part(manifest.files[file])
        if not part.exists():
            return []
        present: list[int] = []
        with part.open("rb") as data:
            for number in manifest.chunks_of(file):
                chunk = manifest.chunk(number)
                if digest_of(data.read(chunk.size_bytes)) == chunk.digest:
                    present.append(number)
        return present

    def _check_space(
        self, manifest: Manifest, chunks: frozenset[int], files: frozenset[int]
    ) -> None:
        wanted = sum(
            entry.size_bytes
            for index, entry in enumerate(manifest.files)
            if index not in files
        )
        present = sum(manifest.chunk(number).size_bytes for number in chunks)
        needed = int((wanted - present) * FREE_SPACE_FACTOR)
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


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    os.lseek(descriptor, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _digest_of_file(path: Path) -> bytes:
    whole = blake3()
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            whole.update(data)
    return whole.digest()
