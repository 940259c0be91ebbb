"""Files are cut where their contents say, and every byte stays what it was."""

import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sleap_rtc_plugin.protocol.limits import (
    GIB,
    KIB,
    MAX_CHUNK_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
    MAX_PATH_CHARS,
    MIB,
)
from sleap_rtc_plugin.transport import chunking
from sleap_rtc_plugin.transport.chunking import (
    MIN_SKIPPED_HOLE_BYTES,
    ChunkSizes,
    cut_by_content,
    cut_evenly,
)
from sleap_rtc_plugin.transport.frame_rows import FrameRows

Chunk = bytes | int
CHUNK_ENTRY_BYTES = 4 + 32


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Return bytes of which the last is not zero."""
    return np.random.default_rng(seed).bytes(size_bytes - 1) + b"\x01"


def cut(data: bytes, *rows: FrameRows, file: io.BytesIO | None = None) -> list[Chunk]:
    """Return the chunks of `data`, a hole as its size."""
    pieces = cut_by_content(file or io.BytesIO(data), rows, ChunkSizes())
    return [size if part is None else bytes(part) for size, part in pieces]


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(bytes(c) if isinstance(c, int) else c for c in chunks)


def sent(chunks: list[Chunk]) -> set[bytes]:
    return {chunk for chunk in chunks if isinstance(chunk, bytes)}


def padded(images: list[bytes], row_bytes: int) -> bytes:
    return b"".join(image.ljust(row_bytes, b"\0") for image in images)


class Trickle(io.BytesIO):
    """Gives less than it is asked for, as a pipe or a network drive may."""

    def readinto(self, buffer: memoryview) -> int:
        return super().readinto(buffer[:777])


@pytest.mark.parametrize("size", [0, 1, 16 * KIB, 64 * KIB, 1_000_000])
def test_any_bytes_come_together_again(size: int) -> None:
    data = noise(size) if size else b""
    assert joined(cut(data)) == data


def test_what_is_not_images_is_cut_by_fastcdc() -> None:
    chunks = cut(noise(3_000_000))
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes) <= 256 * KIB
    assert min(sizes[:-1]) >= 16 * KIB
    assert 32 * KIB < sum(sizes) / len(sizes) < 128 * KIB


def test_an_insertion_moves_few_boundaries() -> None:
    data = noise(3_000_000)
    changed = data[:1_500_000] + b"new" + data[1_500_000:]
    new = sent(cut(changed)) - sent(cut(data))
    assert sum(map(len, new)) <= 2 * 256 * KIB


def test_zeros_are_one_hole() -> None:
    data = noise(100_000) + bytes(3_000_000) + noise(100_000)
    chunks = cut(data)
    assert joined(chunks) == data
    [hole] = [chunk for chunk in chunks if isinstance(chunk, int)]
    assert hole > 2_000_000


def test_a_hole_is_no_larger_than_a_size_can_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunking, "MAX_HOLE_BYTES", 1_000_000)
    assert cut(bytes(2_500_000)) == [1_000_000, 1_000_000, 500_000]


def test_an_image_is_a_chunk_and_its_padding_a_hole() -> None:
    images = [noise(5_000, 1), b"", noise(8_000, 2), b"\0\0x", noise(6_000, 3)]
    head, tail = noise(700, 4), noise(900, 5)
    data = head + padded(images, 8_000) + tail
    assert cut(data, FrameRows(len(head), 8_000, 5)) == [
        head,
        images[0],
        3_000 + 8_000,
        images[2],
        images[3],
        8_000 - 3,
        images[4],
        2_000,
        tail,
    ]


def test_several_videos_and_what_is_between_them() -> None:
    a, b = [noise(5_000, 1)], [noise(9_000, 2), noise(4_500, 3)]
    data = padded(a, 5_100) + b"between" + padded(b, 9_000)
    rows = FrameRows(0, 5_100, 1), FrameRows(5_107, 9_000, 2)
    assert cut(data, *rows) == [a[0], 100, b"between", b[0], b[1], 4_500]


@pytest.mark.parametrize("row_bytes", [50_000, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 9])
def test_a_change_of_pitch_changes_no_chunk(row_bytes: int) -> None:
    images = [noise(40_000 + seed, seed) for seed in range(3)]
    before = cut(padded(images, 40_002), FrameRows(0, 40_002, 3))
    after = cut(padded(images, row_bytes), FrameRows(0, row_bytes, 3))
    assert sent(after) == sent(before) == set(images)


def test_an_image_too_long_for_a_chunk_is_cut() -> None:
    long, short = noise(MAX_CHUNK_BYTES + 5_000, 1), noise(20_000, 2)
    row_bytes = 2 * MAX_CHUNK_BYTES + 100
    data = padded([short, long, b"", short], row_bytes) + b"tail"
    chunks = cut(data, FrameRows(0, row_bytes, 4))
    assert joined(chunks) == data
    assert max(map(len, sent(chunks))) <= 256 * KIB
    assert chunks[0] == chunks[-3] == short
    assert sent(chunks) - {short, b"tail"} == sent(cut(long))


def test_reading_little_by_little() -> None:
    row_bytes = MAX_CHUNK_BYTES + 1
    data = noise(300_000) + padded([noise(5_000, 1)], row_bytes) + noise(300_000, 2)
    rows = FrameRows(300_000, row_bytes, 1)
    assert cut(data, rows, file=Trickle(data)) == cut(data, rows)


@pytest.mark.parametrize("row_bytes", [5_000, MAX_CHUNK_BYTES + 1])
@pytest.mark.parametrize("size", [0, 999, 1_000, 1_001, 5_999, 6_000, 6_001, 12_345])
def test_a_file_that_became_shorter_ends_where_it_ends(
    size: int, row_bytes: int
) -> None:
    data = noise(20_000)[:size]
    rows = FrameRows(1_000, row_bytes, 3), FrameRows(90_000_000, row_bytes, 2**60)
    assert joined(cut(data, *rows)) == data


@pytest.mark.parametrize("row_bytes", [4_096, 1_000_003, MAX_CHUNK_BYTES + 1])
def test_a_file_that_ends_in_padding(row_bytes: int) -> None:
    data = noise(4_096) + bytes(row_bytes)
    assert joined(cut(data, FrameRows(0, row_bytes, 2))) == data


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 5_000])
def test_even_chunks(size: int) -> None:
    data = noise(size) if size else b""
    pieces = [(n, bytes(part)) for n, part in cut_evenly(io.BytesIO(data), 1_000)]
    assert b"".join(part for _, part in pieces) == data
    assert all(n == len(part) == 1_000 for n, part in pieces[:-1])


def test_packages_of_usual_size_are_cut_alike() -> None:
    assert {ChunkSizes.for_package(n) for n in (0, MIB, GIB)} == {ChunkSizes()}
    averages = {ChunkSizes.for_package(n * GIB).average_bytes for n in range(9)}
    assert averages == {ChunkSizes().average_bytes}


@pytest.mark.parametrize(
    "total_bytes", [GIB, 8 * GIB, 8 * GIB + 1, 64 * GIB, MAX_PACKAGE_BYTES]
)
def test_the_worst_manifest_fits(total_bytes: int) -> None:
    sizes = ChunkSizes.for_package(total_bytes)
    # Every chunk as small as FastCDC may make it; or all rows, each with a hole.
    worst = max(
        total_bytes / (sizes.average_bytes / 4) * CHUNK_ENTRY_BYTES,
        total_bytes / sizes.min_row_bytes * 2 * CHUNK_ENTRY_BYTES,
    )
    files_bytes = MAX_PACKAGE_FILES * (MAX_PATH_CHARS + 64 + 2 * CHUNK_ENTRY_BYTES)
    assert worst + files_bytes < MAX_MANIFEST_BYTES


def test_sizes_beyond_any_package_are_still_sizes() -> None:
    sizes = [ChunkSizes.for_package(2**n).average_bytes for n in range(30, 63)]
    assert all(a <= b for a, b in pairwise(sizes))
    assert sizes[-1] * 4 <= 16 * MIB
    pieces = cut_by_content(io.BytesIO(b"x"), [], ChunkSizes.for_package(2**62))
    assert [size for size, _ in pieces] == [1]


# -- holes that the file system knows of ----------------------------------------------


def sparse_file(path: Path, *parts: bytes | int) -> Path:
    """Write a file of data and of holes, which are only sizes."""
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
            else:
                file.seek(part, io.SEEK_CUR)
        file.truncate()
    return path


def cut_file(path: Path, *rows: FrameRows) -> list[Chunk]:
    with path.open("rb", buffering=0) as file:
        pieces = cut_by_content(file, rows, ChunkSizes())
        return [size if part is None else bytes(part) for size, part in pieces]


LONG = 2 * MIN_SKIPPED_HOLE_BYTES


@pytest.mark.parametrize(
    "parts",
    [
        (LONG,),
        (LONG, noise(100_000)),
        (noise(100_000), LONG),
        (noise(300_000), LONG, noise(1_000_000, 2), LONG, noise(10, 3)),
        (noise(300_000), 100_000, noise(5, 4), LONG, noise(7, 5), 50_000),
    ],
)
def test_a_sparse_file_is_cut_into_what_it_holds(
    tmp_path: Path, parts: tuple[bytes | int, ...]
) -> None:
    path = sparse_file(tmp_path / "file", *parts)
    chunks = cut_file(path)
    assert joined(chunks) == path.read_bytes()
    # A hole begins and ends where a block of the disk does.
    blocks = 64 * KIB
    holes = [size for size in chunks if isinstance(size, int)]
    assert len([size for size in holes if size > LONG - blocks]) == parts.count(LONG)


@pytest.mark.skipif(not hasattr(os, "SEEK_HOLE"), reason="no word of holes here")
def test_long_holes_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sparse_file(tmp_path / "file", noise(100_000), LONG, noise(100_000, 2))
    if path.stat().st_blocks * 512 > LONG:
        pytest.skip("this disk has no sparse files")
    read_bytes = 0
    fill = chunking._fill

    def counted(file: io.RawIOBase, view: memoryview) -> int:
        nonlocal read_bytes
        size = fill(file, view)
        read_bytes += size
        return size

    monkeypatch.setattr(chunking, "_fill", counted)
    cut_file(path)
    assert 200_000 <= read_bytes < 1_000_000


def test_images_are_found_behind_long_holes(tmp_path: Path) -> None:
    images = [noise(20_000, seed) for seed in range(3)]
    rows = padded(images, 30_000)
    path = sparse_file(tmp_path / "file", noise(9), LONG, rows, LONG, noise(9, 9))
    at = 9 + LONG
    chunks = cut_file(path, FrameRows(offset=at, row_count=3, row_bytes=30_000))
    assert joined(chunks) == path.read_bytes()
    assert set(images) <= sent(chunks)


def test_a_file_that_ends_in_a_hole_before_its_images(tmp_path: Path) -> None:
    path = sparse_file(tmp_path / "file", noise(9), LONG)
    rows = FrameRows(offset=2 * LONG, row_count=3, row_bytes=30_000)
    assert joined(cut_file(path, rows)) == path.read_bytes()
