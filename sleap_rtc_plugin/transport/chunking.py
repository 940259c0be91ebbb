"""Where a file is cut into chunks, so that the next version of it shares most of them.

An embedded image is one chunk and the padding behind it a hole; everything else is
cut where its contents say (FastCDC), whatever was inserted before. Blocking; reads a
file once, holding one chunk. The receiver knows none of this: it takes any chunks.
"""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyfastcdc import FastCDC

from sleap_rtc_plugin.protocol.limits import KIB, MAX_CHUNK_BYTES, MAX_HOLE_BYTES, MIB
from sleap_rtc_plugin.transport.frame_rows import FrameRows
from sleap_rtc_plugin.transport.sparse_files import next_data, next_hole

__all__ = ["ChunkSizes", "Piece", "cut_by_content", "cut_evenly"]

_AVERAGE_BYTES: Final = 64 * KIB
_MAX_AVERAGE_BYTES: Final = 2 * MIB
_MIN_ROW_BYTES: Final = 4 * KIB
# FastCDC's smallest and largest chunk, in terms of its average.
_SPREAD: Final = 4
# Bounds the manifest: at the very worst four times as many chunks, or a chunk and a
# hole for each of so many rows, which takes 18 MiB of the 32 that it may have.
_MAX_AVERAGE_CHUNKS: Final = 2**17
_MAX_ROWS: Final = 2**18
_ZEROS: Final = bytes(16 * KIB)
# Shorter ones are read like anything else: where they begin says nothing of the data.
MIN_SKIPPED_HOLE_BYTES: Final = 16 * MIB


class Piece(NamedTuple):
    """A chunk of a file; `data` is valid until the next one, and None for a hole."""

    size_bytes: int
    data: memoryview | None


@dataclass(frozen=True)
class ChunkSizes:
    """How finely the files of a package are cut.

    Attributes:
        average_bytes: what FastCDC aims at.
        min_row_bytes: shorter rows of images are no chunks of their own.
    """

    average_bytes: int = _AVERAGE_BYTES
    min_row_bytes: int = _MIN_ROW_BYTES

    @classmethod
    def for_package(cls, total_bytes: int) -> "ChunkSizes":
        """Return sizes with which the manifest stays within its bound.

        Up to 8 GiB they are the same, so that a growing package keeps its chunks.
        """
        average_bytes = _AVERAGE_BYTES
        while (
            average_bytes < _MAX_AVERAGE_BYTES
            and total_bytes > average_bytes * _MAX_AVERAGE_CHUNKS
        ):
            average_bytes *= 2
        return cls(average_bytes, max(_MIN_ROW_BYTES, total_bytes // _MAX_ROWS))


def cut_evenly(file: io.RawIOBase, chunk_bytes: int) -> Iterator[Piece]:
    """Cut a file into chunks of the same size, from where it stands to its end."""
    buffer = memoryview(bytearray(chunk_bytes))
    while size := _fill(file, buffer):
        yield Piece(size, buffer[:size])


def cut_by_content(
    file: io.RawIOBase, rows: Sequence[FrameRows], sizes: ChunkSizes
) -> Iterator[Piece]:
    """Cut a file by what it holds, from its beginning to its end.

    Args:
        file: open, unbuffered, at its beginning.
        rows: where its images are, in order, without overlaps.
        sizes: how finely to cut.

    Raises:
        OSError: the file cannot be read.
    """
    return _join_holes(_Cutter(file, sizes).cut(rows))


def _join_holes(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Make one hole of those that lie side by side, as large as a size can say."""
    hole_bytes = 0
    for piece in pieces:
        if piece.data is None:
            hole_bytes += piece.size_bytes
            continue
        yield from _holes(hole_bytes)
        hole_bytes = 0
        yield piece
    yield from _holes(hole_bytes)


def _holes(size_bytes: int) -> Iterator[Piece]:
    while size_bytes:
        size = min(size_bytes, MAX_HOLE_BYTES)
        yield Piece(size, None)
        size_bytes -= size


class _Cutter:
    """Cuts one file; `_ended` once it turned out shorter than its layout."""

    def __init__(self, file: io.RawIOBase, sizes: ChunkSizes) -> None:
        self._file = file
        average = sizes.average_bytes
        self._fastcdc = FastCDC(
            average,
            min_size=average // _SPREAD,
            max_size=min(average * _SPREAD, MAX_CHUNK_BYTES),
        )
        self._ended = False

    def cut(self, rows: Sequence[FrameRows]) -> Iterator[Piece]:
        at = 0
        longest = max((each.row_bytes for each in rows), default=0)
        buffer = memoryview(bytearray(min(longest, MAX_CHUNK_BYTES)))
        for each in rows:
            yield from self._cut_plain(each.offset - at)
            for _ in range(each.row_count):
                if self._ended:
                    return
                yield from self._cut_row(each.row_bytes, buffer)
            at = each.end
        # To its end, and not to the size it had before: a file may grow.
        if not self._ended:
            yield from self._cut_plain(None)

    def _cut_plain(self, size_bytes: int | None) -> Iterator[Piece]:
        """Cut so many bytes, or all to the end of the file, but for its long holes."""
        for hole_bytes, data_bytes in self._stretches(size_bytes):
            yield from _holes(hole_bytes)
            span = _Span(self._file, data_bytes)
            for chunk in self._fastcdc.cut_stream(span):
                is_hole = not _unpadded_bytes(chunk.data)
                yield Piece(chunk.length, None if is_hole else chunk.data)
            if span.left_bytes:
                self._ended = True
                return

    def _stretches(self, size_bytes: int | None) -> Iterator[tuple[int, int | None]]:
        """Yield how long the hole is where the file stands, and the data behind it.

        The file stands at the data then. Its last data may go on to wherever it ends.
        """
        try:
            descriptor, at = self._file.fileno(), self._file.tell()
        except io.UnsupportedOperation:
            # What is no file of the system has no holes.
            yield 0, size_bytes
            return
        end = os.fstat(descriptor).st_size
        if size_bytes is not None:
            end = min(end, at + size_bytes)
        left_bytes, skipped_bytes = size_bytes, 0
        while at < end:
            hole_at, data_at = _long_hole(descriptor, at, end)
            if hole_at == end:
                break
            self._file.seek(at)
            yield skipped_bytes, hole_at - at
            skipped_bytes = data_at - hole_at
            if left_bytes is not None:
                left_bytes -= data_at - at
            at = data_at
        self._file.seek(at)
        yield skipped_bytes, left_bytes

    def _cut_row(self, row_bytes: int, buffer: memoryview) -> Iterator[Piece]:
        if row_bytes > len(buffer):
            yield from self._cut_long_row(row_bytes, buffer)
            return
        row = buffer[: _fill(self._file, buffer[:row_bytes])]
        self._ended = len(row) < row_bytes
        image = row[: _unpadded_bytes(row)]
        if image:
            yield Piece(len(image), image)
        yield from _holes(len(row) - len(image))

    def _cut_long_row(self, row_bytes: int, buffer: memoryview) -> Iterator[Piece]:
        """Cut a row that may be too long for one chunk, without holding it.

        One long image makes all rows long; the others shall stay the chunks they were.
        """
        begin = self._file.tell()
        image_bytes = _image_bytes(self._file, begin, row_bytes, buffer)
        self._file.seek(begin)
        if image_bytes > len(buffer):
            yield from self._cut_plain(image_bytes)
        elif image_bytes:
            size = _fill(self._file, buffer[:image_bytes])
            self._ended = size < image_bytes
            yield Piece(size, buffer[:size])
        if not self._ended:
            yield from _holes(row_bytes - image_bytes)
            self._file.seek(begin + row_bytes)


def _long_hole(descriptor: int, at: int, end: int) -> tuple[int, int]:
    """Return where the next hole that is worth skipping begins and ends, or `end`."""
    while (hole_at := next_hole(descriptor, at, end)) < end:
        at = next_data(descriptor, hole_at, end)
        if at - hole_at >= MIN_SKIPPED_HOLE_BYTES:
            return hole_at, at
    return end, end


class _Span:
    """So many bytes of a file, or all of its rest, as FastCDC reads them."""

    def __init__(self, file: io.RawIOBase, size_bytes: int | None) -> None:
        self._file = file
        self.left_bytes = size_bytes

    def readinto(self, view: memoryview) -> int:
        size = _fill(self._file, view[: self.left_bytes])
        if self.left_bytes is not None:
            self.left_bytes -= size
        return size


def _fill(file: io.RawIOBase, view: memoryview) -> int:
    """Read as much as `view` holds; less only where the file ends."""
    filled = 0
    while filled < len(view):
        size = file.readinto(view[filled:])
        if not size:
            break
        filled += size
    return filled


def _unpadded_bytes(data: memoryview) -> int:
    """Return how many bytes are left without the zeros at the end."""
    end = len(data)
    while end:
        block = bytes(data[max(0, end - len(_ZEROS)) : end])
        if block != _ZEROS[: len(block)]:
            return end - len(block) + len(block.rstrip(b"\0"))
        end -= len(block)
    return 0


def _image_bytes(
    file: io.RawIOBase, begin: int, row_bytes: int, buffer: memoryview
) -> int:
    """Return how long the image in a row is, looking from the row's end."""
    end = row_bytes
    while end:
        window = buffer[: min(end, len(buffer))]
        file.seek(begin + end - len(window))
        if _fill(file, window) < len(window):
            return end
        if unpadded := _unpadded_bytes(window):
            return end - len(window) + unpadded
        end -= len(window)
    return 0
