"""The list of files that a transfer offers, chunk by chunk, and its binary form.

A chunk is named by its number, counted through all files in order. Sizes and
digests are packed as bytes, so that a manifest of a million chunks stays small.
A chunk of zeros may be a hole, which is neither asked for nor sent. Made by the
sender, checked here in full before the receiver asks for anything.
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    MAX_CHUNK_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
)
from sleap_rtc_plugin.protocol.paths import check_paths

__all__ = [
    "DIGEST_BYTES",
    "HOLE",
    "ChunkInfo",
    "FileEntry",
    "Manifest",
    "pack_chunks",
]

DIGEST_BYTES: Final = 32
# Stands for as many zero bytes as the chunk has; BLAKE3 of nothing known is this.
HOLE: Final = bytes(DIGEST_BYTES)
_SIZE: Final = struct.Struct("!I")


class FileEntry(Struct, frozen=True, array_like=True):
    """One file of a manifest.

    Attributes:
        path: relative, checked by `protocol.paths`.
        size_bytes: the whole file.
        digest: BLAKE3 of the whole file, 32 bytes.
        chunk_sizes: unsigned 32-bit big-endian numbers, one per chunk.
        chunk_digests: BLAKE3 of each chunk, 32 bytes each; `HOLE` for a hole.
    """

    path: str
    size_bytes: int
    digest: bytes
    chunk_sizes: bytes
    chunk_digests: bytes


@dataclass(frozen=True)
class ChunkInfo:
    """Where one chunk belongs."""

    number: int
    file: int
    offset: int
    size_bytes: int
    digest: bytes

    @property
    def is_hole(self) -> bool:
        """Whether the chunk is so many zero bytes, which nobody sends."""
        return self.digest == HOLE


class _Wire(Struct, frozen=True, array_like=True):
    files: list[FileEntry]


class Manifest:
    """A checked manifest with look-ups by chunk number."""

    def __init__(self, files: list[FileEntry]) -> None:
        """Check `files` and index their chunks.

        Raises:
            RemoteProtocolError: sizes, digests or counts that do not fit together.
            UnsafeMember: a path that is not safe, or two that collide.
        """
        if len(files) > MAX_PACKAGE_FILES:
            raise RemoteProtocolError(
                detail=f"a manifest of more than {MAX_PACKAGE_FILES} files"
            )
        check_paths(entry.path for entry in files)
        self.files = tuple(files)
        self._sizes = [_check_entry(entry) for entry in files]
        self._first = list(accumulate((len(s) for s in self._sizes), initial=0))
        self.total_bytes = sum(entry.size_bytes for entry in files)
        if self.total_bytes > MAX_PACKAGE_BYTES:
            raise RemoteProtocolError(
                detail=f"a manifest of more than {MAX_PACKAGE_BYTES} bytes"
            )

    @property
    def chunk_count(self) -> int:
        """How many chunks all files have."""
        return self._first[-1]

    @cached_property
    def _offsets(self) -> list[list[int]]:
        return [list(accumulate(sizes, initial=0)) for sizes in self._sizes]

    def chunk(self, number: int) -> ChunkInfo:
        """Return where chunk `number` belongs (0 to `chunk_count - 1`)."""
        if not 0 <= number < self.chunk_count:
            raise IndexError(number)
        file = bisect_right(self._first, number) - 1
        local = number - self._first[file]
        digests = self.files[file].chunk_digests
        return ChunkInfo(
            number=number,
            file=file,
            offset=self._offsets[file][local],
            size_bytes=self._sizes[file][local],
            digest=digests[local * DIGEST_BYTES : (local + 1) * DIGEST_BYTES],
        )

    def chunks_of(self, file: int) -> range:
        """Return the numbers of a file's chunks."""
        return range(self._first[file], self._first[file + 1])

    def encode(self) -> bytes:
        """Return the manifest's bytes (MessagePack), the same for the same files."""
        return msgspec.msgpack.encode(_Wire(files=list(self.files)))

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Read and check a manifest.

        Raises:
            RemoteProtocolError: not a manifest, or one that does not add up.
            UnsafeMember: a path that is not safe.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise RemoteProtocolError(
                detail=f"a manifest of more than {MAX_MANIFEST_BYTES} bytes"
            )
        try:
            wire = msgspec.msgpack.decode(data, type=_Wire)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise RemoteProtocolError(detail="a manifest that cannot be read") from None
        return cls(wire.files)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.files == other.files

    def __hash__(self) -> int:
        return hash(self.files)


def pack_chunks(sizes: list[int], digests: list[bytes]) -> tuple[bytes, bytes]:
    """Return `chunk_sizes` and `chunk_digests` as `FileEntry` holds them."""
    return b"".join(map(_SIZE.pack, sizes)), b"".join(digests)


def _check_entry(entry: FileEntry) -> list[int]:
    """Return the chunk sizes of an entry that adds up."""
    count, rest = divmod(len(entry.chunk_sizes), _SIZE.size)
    sizes = (
        [size for (size,) in _SIZE.iter_unpack(entry.chunk_sizes)] if not rest else []
    )
    if (
        rest
        or len(entry.digest) != DIGEST_BYTES
        or len(entry.chunk_digests) != count * DIGEST_BYTES
        or entry.size_bytes != sum(sizes)
        or 0 in sizes
        or any(
            size > MAX_CHUNK_BYTES and not _is_hole(entry, local)
            for local, size in enumerate(sizes)
        )
    ):
        raise RemoteProtocolError(detail="a manifest entry that does not add up")
    return sizes


def _is_hole(entry: FileEntry, local: int) -> bool:
    """Whether the entry's chunk `local` is a hole, which may be of any size."""
    return entry.chunk_digests.startswith(HOLE, local * DIGEST_BYTES)
