"""However a file is made of images, zeros and noise, its chunks are the file."""

import io
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.limits import KIB
from sleap_rtc_plugin.transport.chunking import ChunkSizes, cut_by_content
from sleap_rtc_plugin.transport.frame_rows import FrameRows

Chunk = bytes | int

seeds = st.integers(0, 2**32)
sizes = st.integers(0, 20 * KIB)
images = st.lists(st.tuples(seeds, sizes), min_size=1, max_size=8)
gaps = st.lists(st.tuples(seeds, st.integers(0, 400 * KIB), st.booleans()), max_size=4)


def image(seed: int, size: int) -> bytes:
    """Return random bytes that do not end in zero, as no PNG or JPEG does."""
    return np.random.default_rng(seed).bytes(size) + b"\x82"


def gap(seed: int, size: int, is_noise: bool) -> bytes:
    return np.random.default_rng(seed).bytes(size) if is_noise else bytes(size)


def layout(images: list[bytes], padding: int) -> tuple[bytes, int]:
    row_bytes = max(map(len, images)) + padding
    return b"".join(each.ljust(row_bytes, b"\0") for each in images), row_bytes


def cut(data: bytes, *rows: FrameRows) -> list[Chunk]:
    pieces = cut_by_content(io.BytesIO(data), rows, ChunkSizes())
    return [size if part is None else bytes(part) for size, part in pieces]


def sent(chunks: list[Chunk]) -> set[bytes]:
    return {chunk for chunk in chunks if isinstance(chunk, bytes)}


@settings(max_examples=60)
@given(st.lists(st.tuples(gaps, images, sizes), max_size=3), gaps)
def test_all_chunks_together_are_the_file(
    videos: list[tuple[list[tuple[int, int, bool]], list[tuple[int, int]], int]],
    rest: list[tuple[int, int, bool]],
) -> None:
    data = b""
    rows: list[FrameRows] = []
    for before, drawn, padding in videos:
        data += b"".join(gap(*each) for each in before)
        block, row_bytes = layout([image(*each) for each in drawn], padding)
        rows.append(FrameRows(len(data), row_bytes, len(drawn)))
        data += block
    data += b"".join(gap(*each) for each in rest)
    chunks = cut(data, *rows)
    assert b"".join(bytes(c) if isinstance(c, int) else c for c in chunks) == data
    # Nothing that is all zeros is sent, and no two holes lie side by side.
    assert all(any(chunk) for chunk in sent(chunks))
    assert not any(
        isinstance(a, int) and isinstance(b, int) for a, b in pairwise(chunks)
    )
    assert all(chunk for chunk in chunks)


@settings(max_examples=60)
@given(images, images, sizes, sizes, seeds)
def test_old_images_stay_the_chunks_they_were(
    old: list[tuple[int, int]],
    new: list[tuple[int, int]],
    padding: int,
    new_padding: int,
    seed: int,
) -> None:
    before = [image(*each) for each in old]
    added = [image(*each) for each in new]
    after = list(before)
    chance = np.random.default_rng(seed)
    for each in added:
        after.insert(chance.integers(len(after) + 1), each)
    head = gap(seed, 30 * KIB, True)
    block, pitch = layout(before, padding)
    new_block, new_pitch = layout(after, new_padding)
    first = cut(head + block, FrameRows(len(head), pitch, len(before)))
    second = cut(head + new_block, FrameRows(len(head), new_pitch, len(after)))
    assert sent(second) - sent(first) <= set(added)
