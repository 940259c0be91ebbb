"""Files on this side that are offered to a peer: the manifest and the chunks.

Blocking calls, made in threads by the transfer pump. Every chunk read is compared
with the manifest, so a file that changes while it is sent is noticed here.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, SourceChanged
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import (
    HOLE,
    ChunkInfo,
    FileEntry,
    Manifest,
    pack_chunks,
)
from sleap_rtc_plugin.protocol.paths import check_paths
from sleap_rtc_plugin.transport.chunking import (
    ChunkSizes,
    Piece,
    cut_by_content,
    cut_evenly,
)
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_plugin.transport.frame_rows import find_frame_rows
from sleap_rtc_plugin.transport.plan_cache import Archive, PlanCache, PlanKey

__all__ = ["FileSource", "digest_of"]

_ZEROS: Final = bytes(1 * MIB)


def digest_of(data: bytes) -> bytes:
    """Return the BLAKE3 digest of some bytes, 32 bytes."""
    return blake3(data).digest()


class FileSource:
    """A folder's files, in a fixed order, with their manifest."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        """Serve the files of `manifest`, which was made from `root`."""
        self.root = root
        self.manifest = manifest
        self.encoded_manifest = manifest.encode()
        self.manifest_digest = digest_of(self.encoded_manifest)

    @classmethod
    def scan(
        cls,
        root: Path,
        paths: Sequence[str],
        on_progress: Callable[[int], None] = lambda size_bytes: None,
        chunk_bytes: int | None = None,
        cache: PlanCache | None = None,
        archive: Archive | None = None,
    ) -> "FileSource":
        """Read every file once and make the manifest.

        Args:
            root: the folder.
            paths: the files' paths below it, with `/`.
            on_progress: told how many more bytes are known.
            chunk_bytes: cuts every file evenly, into chunks of at most
                `MAX_CHUNK_BYTES`; without it they are cut by content.
            cache: spares files that were read before. Without it after
                `SourceChanged`: such a file may look the same.
            archive: what the files were extracted from a moment ago, each time into
                another folder; large ones are then known by it.

        Raises:
            UnsafeMember: a path that may not cross the wire.
            StorageFailed: a file cannot be read.
        """
        check_paths(paths)
        if chunk_bytes is not None:
            entries = [
                _scan_evenly(root, path, on_progress, chunk_bytes) for path in paths
            ]
        else:
            sizes = ChunkSizes.for_package(sum(_size_of(root, p) for p in paths))
            if cache is not None and archive is not None and not archive.is_unchanged:
                cache = None
            entries = [
                _scan(root, path, on_progress, sizes, cache, archive) for path in paths
            ]
        return cls(root, Manifest(entries))

    def read_chunk(self, chunk: ChunkInfo) -> bytes:
        """Read one chunk; raises as what `reading` gives."""
        with self.reading() as read:
            return read(chunk)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Callable[[ChunkInfo], bytes]]:
        """Give a function that reads a chunk, and opens a file once for many in a row.

        It raises:
            RemoteProtocolError: it is a hole, which nobody has reason to ask for.
            SourceChanged: the file is no longer what the manifest says.
            StorageFailed: it cannot be read.
        """
        opened: BinaryIO | None = None
        opened_file = -1

        def read(chunk: ChunkInfo) -> bytes:
            nonlocal opened, opened_file
            if chunk.is_hole:
                raise RemoteProtocolError(detail="a request for a chunk of zeros")
            path = self.manifest.files[chunk.file].path
            try:
                if opened is None or opened_file != chunk.file:
                    if opened is not None:
                        opened.close()
                    opened = (self.root / path).open("rb", buffering=0)
                    opened_file = chunk.file
                opened.seek(chunk.offset)
                data = opened.read(chunk.size_bytes)
            except FileNotFoundError:
                raise SourceChanged(path=path) from None
            except OSError as error:
                raise storage_error(error, self.root / path) from None
            if digest_of(data) != chunk.digest:
                raise SourceChanged(path=path)
            return data

        try:
            yield read
        finally:
            if opened is not None:
                opened.close()


def _size_of(root: Path, path: str) -> int:
    try:
        return (root / path).stat().st_size
    except OSError as error:
        raise storage_error(error, root / path) from None


def _scan_evenly(
    root: Path, path: str, on_progress: Callable[[int], None], chunk_bytes: int
) -> FileEntry:
    try:
        with (root / path).open("rb", buffering=0) as file:
            return _entry_of(path, cut_evenly(file, chunk_bytes), on_progress)
    except OSError as error:
        raise storage_error(error, root / path) from None


def _scan(
    root: Path,
    path: str,
    on_progress: Callable[[int], None],
    sizes: ChunkSizes,
    cache: PlanCache | None,
    archive: Archive | None,
) -> FileEntry:
    place = root / path
    try:
        with place.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            own_key = PlanKey.of(place, status, sizes)
            key = archive.key_of(path, status.st_size, sizes) if archive else own_key
            known = cache.find(key) if cache else None
            if known is not None:
                on_progress(known.size_bytes)
                return msgspec.structs.replace(known, path=path)
            rows = find_frame_rows(place, sizes.min_row_bytes)
            pieces = cut_by_content(file, rows, sizes)
            entry = _entry_of(path, pieces, on_progress)
            is_same = own_key == PlanKey.of(place, os.fstat(file.fileno()), sizes)
            if cache and is_same and (archive is None or archive.is_unchanged):
                cache.keep(key, entry)
            return entry
    except OSError as error:
        raise storage_error(error, place) from None


def _entry_of(
    path: str, pieces: Iterable[Piece], on_progress: Callable[[int], None]
) -> FileEntry:
    """Hash a file as it is cut, each byte once for the chunk and once for the whole."""
    whole = blake3()
    sizes: list[int] = []
    digests: list[bytes] = []
    for size_bytes, data in pieces:
        if data is None:
            _update_with_zeros(whole, size_bytes)
            digests.append(HOLE)
        else:
            whole.update(data)
            digests.append(blake3(data).digest())
        sizes.append(size_bytes)
        on_progress(size_bytes)
    chunk_sizes, chunk_digests = pack_chunks(sizes, digests)
    return FileEntry(path, sum(sizes), whole.digest(), chunk_sizes, chunk_digests)


def _update_with_zeros(whole: blake3, size_bytes: int) -> None:
    for begin in range(0, size_bytes, len(_ZEROS)):
        whole.update(_ZEROS[: size_bytes - begin])
