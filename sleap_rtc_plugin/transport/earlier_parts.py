"""What an earlier manifest's parts and files still hold, when the package has changed.

A file that changed while it was sent gets another digest, and with it another part;
most of its chunks are the same. Nothing here is believed: `StagingArea`, which calls
it in its thread, compares every chunk with its digest.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, UnsafeMember
from sleap_rtc_plugin.protocol.limits import MAX_MANIFEST_BYTES
from sleap_rtc_plugin.protocol.manifest import ChunkInfo, FileEntry, Manifest

__all__ = ["EarlierParts", "read_manifest", "remove_others"]


class EarlierParts:
    """Looks chunks up by their digests in what an earlier transfer left."""

    def __init__(
        self,
        earlier: Manifest,
        places_of: Callable[[FileEntry], Iterable[Path]],
        manifest: Manifest,
        missing: Iterable[int],
    ) -> None:
        """Remember what is `missing`.

        Args:
            earlier: what the earlier transfer was to bring.
            places_of: where a file of it may be, whole or in part.
            manifest: what is to be brought now.
            missing: chunks of `manifest`.
        """
        self._earlier = earlier
        self._places_of = places_of
        self._wanted: dict[bytes, int] = {}
        self._copies: dict[bytes, list[int]] = {}
        for number in missing:
            digest = manifest.chunk(number).digest
            if self._wanted.setdefault(digest, number) != number:
                self._copies.setdefault(digest, []).append(number)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield missing chunks with the bytes that may be theirs, file by file.

        Raises:
            OSError: the disk failed.
        """
        for file, entry in enumerate(self._earlier.files):
            chunks = map(self._earlier.chunk, self._earlier.chunks_of(file))
            known = [chunk for chunk in chunks if chunk.digest in self._wanted]
            for place in self._places_of(entry) if known else ():
                if place.is_file() and not place.is_symlink():
                    yield from self._read(place, known)

    def _read(self, place: Path, known: list[ChunkInfo]) -> Iterator[tuple[int, bytes]]:
        with place.open("rb", buffering=0) as file:
            for chunk in known:
                file.seek(chunk.offset)
                data = file.read(chunk.size_bytes)
                yield self._wanted[chunk.digest], data
                for copy in self._copies.get(chunk.digest, ()):
                    yield copy, data


def read_manifest(path: Path) -> Manifest | None:
    """Read back a manifest that was written here; None where it is not whole."""
    try:
        with path.open("rb") as file:
            return Manifest.decode(file.read(MAX_MANIFEST_BYTES + 1))
    except (OSError, RemoteProtocolError, UnsafeMember):
        return None


def remove_others(folder: Path, wanted: Iterable[Path]) -> None:
    """Remove every file below `folder` that is none of `wanted`, and empty folders.

    Raises:
        OSError: something cannot be removed.
    """
    # By identity: a system that folds case knows one file by several names.
    kept: set[tuple[int, int]] = set()
    for path in wanted:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = path.lstat()
            kept.add((status.st_dev, status.st_ino))
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(place, name)
            status = path.lstat()
            if (status.st_dev, status.st_ino) not in kept:
                path.unlink()
        for name in folders:
            path = Path(place, name)
            if path.is_symlink():
                path.unlink()
                continue
            with contextlib.suppress(OSError):
                # One that still holds something stays.
                path.rmdir()
