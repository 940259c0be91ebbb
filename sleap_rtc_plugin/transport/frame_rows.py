"""Where the embedded images of a SLEAP package lie inside its file.

Only offsets are taken from HDF5, never contents; whatever is not laid out as SLEAP
does it has no rows here, which costs nothing but a larger transfer. Blocking; called
by `transport.file_source` before it cuts a file.
"""

import io
import logging
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from sleap_rtc_plugin.protocol.limits import MAX_PACKAGE_FILES, MIB

__all__ = ["MAX_LAYOUT_BYTES", "FrameRows", "find_frame_rows"]

logger = logging.getLogger(__name__)

# What may be read to learn the layout; a file that leads in circles ends here.
MAX_LAYOUT_BYTES: Final = 64 * MIB
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_GROUP: Final = re.compile(r"video\d{0,9}", re.ASCII)
_DATASET: Final = "video"


class FrameRows(NamedTuple):
    """Images of one video, one per row, each padded with zeros to the same length.

    Attributes:
        offset: of the first row in the file, bytes.
        row_bytes: the pitch of the rows.
        row_count: how many rows follow one another.
    """

    offset: int
    row_bytes: int
    row_count: int

    @property
    def end(self) -> int:
        """The offset behind the last row."""
        return self.offset + self.row_bytes * self.row_count


def find_frame_rows(path: Path, min_row_bytes: int) -> list[FrameRows]:
    """Return the rows of images in a `.slp` file, in the order of their offsets.

    Args:
        path: any file.
        min_row_bytes: shorter rows are left out: they would make more chunks than
            they are worth.

    Raises:
        OSError: the file cannot be opened.
    """
    if path.suffix.lower() != ".slp":
        return []
    with path.open("rb", buffering=0) as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return []
        size_bytes = file.seek(0, io.SEEK_END)
        try:
            import h5py

            found = sorted(
                rows for rows in _rows_of(h5py, file) if rows.row_bytes >= min_row_bytes
            )
        except Exception as error:
            # The library is missing, or has no more words for a damaged file than this.
            logger.debug("The layout of %s is not known: %r", path.name, error)
            return []
    if any(a.end > b.offset for a, b in pairwise(found)) or any(
        rows.end > size_bytes for rows in found
    ):
        return []
    return found


def _rows_of(h5py: Any, file: BinaryIO) -> Iterator[FrameRows]:
    with h5py.File(_Metered(file), "r") as root:
        for name in islice(root, MAX_PACKAGE_FILES):
            if _GROUP.fullmatch(name) and _is_here(h5py, root, name):
                group = root[name]
                if isinstance(group, h5py.Group) and _is_here(h5py, group, _DATASET):
                    yield from _rows_in(h5py, group[_DATASET])


def _is_here(h5py: Any, group: Any, name: str) -> bool:
    """Whether a name stands for a thing in this file, and not for a way to another."""
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _rows_in(h5py: Any, dataset: Any) -> Iterator[FrameRows]:
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype.kind not in "iu"
        or dataset.dtype.itemsize != 1
        or dataset.ndim != 2
    ):
        return
    layout = dataset.id.get_create_plist()
    if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_external_count():
        return
    offset = dataset.id.get_offset()
    row_count, row_bytes = map(int, dataset.shape)
    if offset is not None and row_count and row_bytes:
        yield FrameRows(int(offset), row_bytes, row_count)


class _Metered(io.RawIOBase):
    """The file as HDF5 reads it: no longer than a layout takes, and nothing written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_LAYOUT_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        self._left -= len(buffer)
        if self._left < 0:
            raise OSError("the layout takes more reading than any does")
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
