"""A manifest adds up or is refused, whatever a peer claims."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol import manifest as module
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, UnsafeMember
from sleap_rtc_plugin.protocol.limits import (
    MAX_CHUNK_BYTES,
    MAX_HOLE_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
)
from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, Manifest, pack_chunks


def entry(path: str, sizes: list[int], **changes: object) -> FileEntry:
    digests = [bytes([i % 255 + 1]) * 32 for i in range(len(sizes))]
    packed, joined = pack_chunks(sizes, digests)
    made = FileEntry(path, sum(sizes), b"d" * 32, packed, joined)
    return msgspec.structs.replace(made, **changes)


def test_look_ups() -> None:
    manifest = Manifest([entry("a", [3, 2]), entry("empty", []), entry("b", [5])])
    assert manifest.chunk_count == 3
    assert manifest.total_bytes == 10
    assert [list(manifest.chunks_of(file)) for file in range(3)] == [[0, 1], [], [2]]
    places = [(c.file, c.offset, c.size_bytes) for c in map(manifest.chunk, range(3))]
    assert places == [(0, 0, 3), (0, 3, 2), (2, 0, 5)]
    assert manifest.chunk(1).digest == b"\x02" * 32
    for number in (-1, 3):
        with pytest.raises(IndexError):
            manifest.chunk(number)


def test_a_manifest_of_nothing() -> None:
    manifest = Manifest([])
    assert (manifest.chunk_count, manifest.total_bytes) == (0, 0)
    assert Manifest.decode(manifest.encode()) == manifest


def test_there_and_back() -> None:
    manifest = Manifest([entry("a/b", [3, 2]), entry("é", [])])
    assert Manifest.decode(manifest.encode()) == manifest
    assert hash(Manifest.decode(manifest.encode())) == hash(manifest)
    assert manifest != "a manifest"


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": 6},
        {"size_bytes": -5},
        {"digest": b""},
        {"digest": b"d" * 31},
        {"chunk_sizes": b"\x00\x00\x00\x05\x00"},
        {"chunk_sizes": b""},
        {"chunk_digests": b"d" * 33},
        {"chunk_digests": b""},
        {"size_bytes": 0, "chunk_sizes": b"\x00" * 4},
        {
            "size_bytes": MAX_CHUNK_BYTES + 1,
            "chunk_sizes": (MAX_CHUNK_BYTES + 1).to_bytes(4, "big"),
        },
    ],
    ids=str,
)
def test_an_entry_that_does_not_add_up(changes: dict[str, object]) -> None:
    wrong = entry("a", [5], **changes)
    with pytest.raises(RemoteProtocolError):
        Manifest([wrong])


@pytest.mark.parametrize("size", [1, MAX_CHUNK_BYTES + 1, MAX_HOLE_BYTES])
def test_holes_may_be_as_large_as_a_size_can_say(size: int) -> None:
    chunk = entry("a", [5])
    holed = entry(
        "b",
        [5, size],
        chunk_digests=chunk.chunk_digests + HOLE,
    )
    manifest = Manifest.decode(Manifest([chunk, holed]).encode())
    assert [manifest.chunk(n).is_hole for n in range(3)] == [False, False, True]
    assert manifest.chunk(2).size_bytes == size
    assert manifest.total_bytes == 10 + size


def test_a_hole_needs_the_whole_digest_to_be_zero() -> None:
    digest = bytes(31) + b"\x01"
    with pytest.raises(RemoteProtocolError):
        Manifest([entry("a", [MAX_CHUNK_BYTES + 1], chunk_digests=digest)])
    assert not Manifest([entry("a", [1], chunk_digests=digest)]).chunk(0).is_hole


def test_holes_count_as_bytes_of_the_package() -> None:
    holes = [MAX_HOLE_BYTES] * (MAX_PACKAGE_BYTES // MAX_HOLE_BYTES + 1)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        Manifest([entry("a", holes, chunk_digests=HOLE * len(holes))])


def test_a_hole_of_nothing_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Manifest([entry("a", [0], chunk_digests=HOLE)])


@pytest.mark.parametrize("path", ["", "../x", "/x", "C:x", "a\\b", "con", "a."])
def test_paths_are_checked(path: str) -> None:
    with pytest.raises(UnsafeMember):
        Manifest([entry(path, [1])])
    data = msgspec.msgpack.encode([[msgspec.structs.astuple(entry(path, [1]))]])
    with pytest.raises(UnsafeMember):
        Manifest.decode(data)


def test_colliding_paths_are_refused() -> None:
    with pytest.raises(UnsafeMember):
        Manifest([entry("a", [1]), entry("A", [1])])


def test_too_many_files() -> None:
    files = [entry(f"f{i}", []) for i in range(MAX_PACKAGE_FILES + 1)]
    with pytest.raises(RemoteProtocolError, match="files"):
        Manifest(files)
    assert len(Manifest(files[:-1]).files) == MAX_PACKAGE_FILES


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PACKAGE_BYTES", 9)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        Manifest([entry("a", [5]), entry("b", [5])])


def test_too_long_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Manifest([entry("a", [5])]).encode()
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", len(data) - 1)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        Manifest.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        b"\x91",
        b"\xc0",
        b"\x91\x91\x90",
        b"\x91" * 100_000,
        msgspec.msgpack.encode([[["a", 1.5, b"", b"", b""]]]),
        msgspec.msgpack.encode([[["a", 2**63, b"d" * 32, b"", b""]]]),
        msgspec.msgpack.encode([{"files": []}]),
        Manifest([]).encode() + b"\x00",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Manifest.decode(data)


@given(st.lists(st.lists(st.integers(1, MAX_CHUNK_BYTES), max_size=5), max_size=5))
def test_chunks_cover_every_file_once(sizes: list[list[int]]) -> None:
    manifest = Manifest([entry(f"f{i}", each) for i, each in enumerate(sizes)])
    for file, each in enumerate(manifest.files):
        chunks = [manifest.chunk(number) for number in manifest.chunks_of(file)]
        assert {chunk.file for chunk in chunks} <= {file}
        assert sum(chunk.size_bytes for chunk in chunks) == each.size_bytes
        assert all(a.offset + a.size_bytes == b.offset for a, b in pairwise(chunks))
    assert Manifest.decode(manifest.encode()) == manifest
