"""Files with holes: writing, clearing and hashing them without reading the holes.

Where the system does not tell where its files have holes, these are read like
anything else. Blocking calls, made by `StagingArea` in its thread; what may take
minutes calls back in between, so that it can be ended.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc_plugin.protocol.limits import CHUNK_BYTES, MIB

__all__ = [
    "clear",
    "copy_data",
    "digest_of_file",
    "is_empty",
    "next_data",
    "next_hole",
    "sync_file",
    "sync_folder",
    "write_at",
]

_ZEROS: Final = bytes(CHUNK_BYTES)
_BINARY: Final = getattr(os, "O_BINARY", 0)
_COPY_BYTES: Final = 16 * MIB
# Two file systems, or one that does not know the call.
_CANNOT_COPY: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
)


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data`, `offset` bytes into a file."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def is_empty(descriptor: int, offset: int, size_bytes: int) -> bool:
    """Tell whether a stretch of a file is all zeros; past the file's end it is."""
    end = offset + size_bytes
    while offset < end:
        offset = next_data(descriptor, offset, end)
        if offset == end:
            return True
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, min(CHUNK_BYTES, end - offset))
        if not data:
            return True
        if data != _ZEROS[: len(data)]:
            return False
        offset += len(data)
    return True


def clear(descriptor: int, offset: int, size_bytes: int) -> None:
    """Write zeros where something else came to be."""
    for begin in range(0, size_bytes, CHUNK_BYTES):
        write_at(descriptor, _ZEROS[: size_bytes - begin], offset + begin)


def copy_data(source: Path, target: int, go_on: Callable[[], None]) -> bool:
    """Have the system copy a file into an empty one, but for its holes.

    Args:
        source: the file; no link.
        target: a descriptor to write to.
        go_on: called every few megabytes; what it raises ends the work.

    Returns:
        Whether all of it was copied. Where the system cannot, or there is no such
        file, the caller has to read and write.
    """
    if not hasattr(os, "copy_file_range"):
        return False
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        offset, end = 0, os.fstat(descriptor).st_size
        os.ftruncate(target, end)
        while (offset := next_data(descriptor, offset, end)) < end:
            go_on()
            size = min(_COPY_BYTES, next_hole(descriptor, offset, end) - offset)
            copied = os.copy_file_range(descriptor, target, size, offset, offset)
            if not copied:
                return False
            offset += copied
    except OSError as error:
        if error.errno in _CANNOT_COPY:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def digest_of_file(path: Path, go_on: Callable[[], None]) -> bytes:
    """Return the BLAKE3 digest of a file, 32 bytes.

    Args:
        path: the file.
        go_on: called for every `CHUNK_BYTES`; what it raises ends the work.

    Raises:
        OSError: it cannot be read.
    """
    whole = blake3()
    descriptor = os.open(path, os.O_RDONLY | _BINARY)
    try:
        offset, end = 0, os.fstat(descriptor).st_size
        while offset < end:
            data_at = next_data(descriptor, offset, end)
            while offset < data_at:
                go_on()
                zeros = _ZEROS[: data_at - offset]
                whole.update(zeros)
                offset += len(zeros)
            go_on()
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, min(CHUNK_BYTES, end - offset))
            if not data:
                break
            whole.update(data)
            offset += len(data)
    finally:
        os.close(descriptor)
    return whole.digest()


def sync_file(path: Path) -> None:
    """Make what was written to a file survive a power cut."""
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def next_data(descriptor: int, offset: int, end: int) -> int:
    """Return where the next data may be, at most `end`; a hole is skipped unread."""
    if hasattr(os, "SEEK_DATA"):
        try:
            return min(end, os.lseek(descriptor, offset, os.SEEK_DATA))
        except OSError as error:
            # Nothing but a hole follows. Other errors are told by reading.
            if error.errno == errno.ENXIO:
                return end
    return offset


def next_hole(descriptor: int, offset: int, end: int) -> int:
    """Return where the next hole is known to be, at most `end`."""
    if hasattr(os, "SEEK_HOLE"):
        try:
            return min(end, os.lseek(descriptor, offset, os.SEEK_HOLE))
        except OSError:
            return end
    return end
