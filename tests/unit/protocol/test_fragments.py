"""The transfer channel's frames, bit by bit."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.fragments import (
    FLAG_MANIFEST,
    FLAG_PACKED,
    HEADER_BYTES,
    PACKED_HEADER_BYTES,
    Fragment,
    Pack,
    decode_frame,
    encode_fragment,
    encode_pack,
    fragments_of,
)
from sleap_rtc_plugin.protocol.limits import (
    FRAGMENT_BYTES,
    MAX_PACKED_CHUNK_BYTES,
    MAX_PACKED_CHUNKS,
    MAX_TRANSFER_FRAME_BYTES,
)

numbers = st.integers(0, 2**32 - 1)


def test_the_header_is_as_written() -> None:
    frame = encode_fragment(Fragment(1, 2, 3, b"data", is_manifest=True))
    assert frame == bytes.fromhex("01 01 0000 00000001 00000002 00000003") + b"data"
    assert HEADER_BYTES == 16


@given(numbers, numbers, numbers, st.binary(min_size=1, max_size=100), st.booleans())
def test_there_and_back(
    stream: int, chunk: int, offset: int, data: bytes, is_manifest: bool
) -> None:
    fragment = Fragment(stream, chunk, offset, data, is_manifest)
    assert decode_frame(encode_fragment(fragment)) == fragment


def frame(version: int = 1, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("!BBHIII", version, flags, reserved, 1, 2, 3) + b"x"


def packed(
    *chunks: tuple[int, int, bytes],
    flags: int = FLAG_PACKED,
    chunk: int = 0,
    offset: int = 0,
) -> bytes:
    """Return a packed frame; the sizes may lie."""
    header = struct.pack("!BBHIII", 1, flags, 0, 7, chunk, offset)
    pieces = (struct.pack("!II", n, size) + data for n, size, data in chunks)
    return header + b"".join(pieces)


def test_a_packed_frame_is_as_written() -> None:
    frame = encode_pack(Pack(7, ((3, b"ab"), (1, b"c"))))
    assert frame == packed((3, 2, b"ab"), (1, 1, b"c"))
    assert PACKED_HEADER_BYTES == 8


@given(
    numbers,
    st.lists(
        st.tuples(numbers, st.binary(min_size=1, max_size=100)),
        min_size=1,
        max_size=100,
    ).map(tuple),
)
def test_small_chunks_there_and_back(
    stream: int, chunks: tuple[tuple[int, bytes], ...]
) -> None:
    pack = Pack(stream, chunks)
    assert decode_frame(encode_pack(pack)) == pack


def test_the_fullest_packed_frames() -> None:
    for pack in (
        Pack(1, ((1, b"x" * MAX_PACKED_CHUNK_BYTES),) * 7),
        Pack(1, ((1, b"x"),) * MAX_PACKED_CHUNKS),
    ):
        assert decode_frame(encode_pack(pack)) == pack


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        frame()[:HEADER_BYTES],
        frame()[:7],
        frame(version=0),
        frame(version=2),
        frame(flags=4),
        packed((0, 1, b"x"), offset=1),
        packed((0, 1, b"x"), chunk=1),
        packed((0, 1, b"x"), flags=FLAG_PACKED | FLAG_MANIFEST),
        packed((0, 2, b"x")),
        packed((0, 0, b"")),
        packed((0, 1, b"x"), (1, 0, b"")),
        packed((0, 1, b"x")) + bytes(PACKED_HEADER_BYTES - 1),
        packed((0, 1, b"x")) + b"x",
        packed((0, 2**32 - 1, b"x" * 100)),
        packed((0, MAX_PACKED_CHUNK_BYTES + 1, b"x" * (MAX_PACKED_CHUNK_BYTES + 1))),
        packed(*[(0, 1, b"x")] * (MAX_PACKED_CHUNKS + 1)),
        frame(flags=0x81),
        frame(reserved=1),
        frame() + b"x" * MAX_TRANSFER_FRAME_BYTES,
        "text",
        "",
    ],
    ids=lambda wrong: repr(wrong[:20]),
)
def test_what_is_no_fragment(wrong: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_frame(wrong)


@pytest.mark.parametrize(
    "size", [1, FRAGMENT_BYTES - 1, FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 200_000]
)
def test_a_chunk_is_cut_and_joined(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    pieces = [decode_frame(piece) for piece in fragments_of(7, 9, data)]
    assert b"".join(piece.data for piece in pieces) == data
    assert [p.offset for p in pieces] == list(range(0, size, FRAGMENT_BYTES))
    assert {(p.stream, p.chunk, p.is_manifest) for p in pieces} == {(7, 9, False)}


def test_nothing_is_no_fragment_at_all() -> None:
    assert list(fragments_of(1, 1, b"")) == []


def test_the_size_of_a_piece_is_asked_for_each_time() -> None:
    sizes = iter([3, 1, 4])
    frames = fragments_of(1, 1, b"abcdefg", fragment_bytes=lambda: next(sizes))
    assert [decode_frame(f).data for f in frames] == [b"abc", b"d", b"efg"]
