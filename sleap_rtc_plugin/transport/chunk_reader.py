"""Files that may be somewhere already, as a source of a transfer's chunks.

Nothing that is read here is believed: `StagingArea` compares every chunk with the
manifest. What cannot be read comes over the link. Used by `shared_storage` and by the
worker for its mounts.
"""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from sleap_rtc_plugin.protocol.manifest import ChunkInfo, FileEntry
from sleap_rtc_plugin.transport.mount_calls import MountCaller

__all__ = ["ChunkReader", "ChunkSource", "ReadChunk"]

logger = logging.getLogger(__name__)

ReadChunk = Callable[[FileEntry, ChunkInfo], bytes | None]


class ChunkSource(Protocol):
    """Where chunks of some files may be found."""

    def reading(self) -> AbstractContextManager[ReadChunk]:
        """Return what reads a chunk's bytes, or None where it cannot."""
        ...


class ChunkReader:
    """Reads chunk after chunk; what cannot be read is None, and is not tried again."""

    def __init__(
        self, caller: MountCaller, open_file: Callable[[str], int], place: str
    ) -> None:
        """Read in the thread of `caller`.

        Args:
            caller: makes the calls, each with a deadline.
            open_file: opens a file of the manifest by its path there.
            place: what the log calls where they are.
        """
        self._caller = caller
        self._open_file = open_file
        self._place = place
        self._name = ""
        self._file: int | None = None
        self._is_gone = False

    def read(self, entry: FileEntry, chunk: ChunkInfo) -> bytes | None:
        """Return the bytes that should be the chunk's."""
        if self._is_gone:
            return None
        try:
            if entry.path != self._name:
                self._open(entry.path)
            if self._file is None:
                return None
            return self._caller.call(
                _read_at, self._file, chunk.size_bytes, chunk.offset
            )
        except OSError as error:
            self._is_gone = True
            logger.warning("%s is not used any more: %s", self._place, error)
            return None

    def _open(self, name: str) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            self._caller.close(file)
        self._name = name
        try:
            self._file = self._caller.open(self._open_file, name)
        except TimeoutError:
            raise
        except OSError as error:
            # One file that is missing, or is not ours to read, says nothing of others.
            logger.info("%s on %s: %s", name, self._place, error)


def _read_at(file: int, size_bytes: int, offset: int) -> bytes:
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, size_bytes)
