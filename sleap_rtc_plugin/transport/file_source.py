"""Files on this side that are offered to a peer: the manifest and the chunks.

Blocking calls, made in threads by the transfer pump. Every chunk read is compared
with the manifest, so a file that changes while it is sent is noticed here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import SourceChanged
from sleap_rtc_plugin.protocol.limits import CHUNK_BYTES
from sleap_rtc_plugin.protocol.manifest import (
    ChunkInfo,
    FileEntry,
    Manifest,
    pack_chunks,
)
from sleap_rtc_plugin.protocol.paths import check_paths
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["FileSource", "digest_of"]


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
        chunk_bytes: int = CHUNK_BYTES,
    ) -> "FileSource":
        """Read every file once and make the manifest.

        Args:
            root: the folder.
            paths: the files' paths below it, with `/`.
            on_progress: told how many more bytes were read.
            chunk_bytes: how large a chunk is, at most `MAX_CHUNK_BYTES`.

        Raises:
            UnsafeMember: a path that may not cross the wire.
            StorageFailed: a file cannot be read.
        """
        check_paths(paths)
        entries = [_scan_file(root, path, on_progress, chunk_bytes) for path in paths]
        return cls(root, Manifest(entries))

    def read_chunk(self, chunk: ChunkInfo) -> bytes:
        """Read one chunk.

        Raises:
            SourceChanged: the file is no longer what the manifest says.
            StorageFailed: it cannot be read.
        """
        path = self.manifest.files[chunk.file].path
        try:
            with (self.root / path).open("rb") as file:
                file.seek(chunk.offset)
                data = file.read(chunk.size_bytes)
        except FileNotFoundError:
            raise SourceChanged(path=path) from None
        except OSError as error:
            raise storage_error(error, self.root / path) from None
        if digest_of(data) != chunk.digest:
            raise SourceChanged(path=path)
        return data


def _scan_file(
    root: Path, path: str, on_progress: Callable[[int], None], chunk_bytes: int
) -> FileEntry:
    whole = blake3()
    sizes: list[int] = []
    digests: list[bytes] = []
    try:
        with (root / path).open("rb") as file:
            while data := file.read(chunk_bytes):
                whole.update(data)
                sizes.append(len(data))
                digests.append(digest_of(data))
                on_progress(len(data))
    except OSError as error:
        raise storage_error(error, root / path) from None
    chunk_sizes, chunk_digests = pack_chunks(sizes, digests)
    return FileEntry(path, sum(sizes), whole.digest(), chunk_sizes, chunk_digests)
