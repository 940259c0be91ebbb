"""What is offered is what lies on the disk, hashed once, and known the next time."""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    SourceChanged,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import ChunkInfo
from sleap_rtc_plugin.transport import file_source
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.plan_cache import SETTLED_NS, Archive, PlanCache

NAME = "labels.pkg.slp"
NOISE = np.random.default_rng(0).bytes(5 * MIB)


def chunks_of(source: FileSource) -> list[ChunkInfo]:
    return list(map(source.manifest.chunk, range(source.manifest.chunk_count)))


def rebuilt(source: FileSource) -> bytes:
    """Return all files' bytes as a receiver puts them together."""
    return b"".join(
        bytes(chunk.size_bytes) if chunk.is_hole else source.read_chunk(chunk)
        for chunk in chunks_of(source)
    )


def save(path: Path, images: list[bytes]) -> None:
    """Write a package with these images, as SLEAP does."""
    with h5py.File(path, "w") as file:
        shape = (len(images), max(map(len, images)))
        rows = file.create_dataset("video0/video", shape, "int8")
        for number, image in enumerate(images):
            rows[number, : len(image)] = np.frombuffer(image, np.int8)
        file["frame_numbers"] = np.arange(len(images))


@pytest.fixture
def images() -> list[bytes]:
    return [NOISE[n * 10_000 : n * 10_000 + 9_000 + n] + b"\x01" for n in range(40)]


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    # The files here are younger than any that is remembered.
    return PlanCache(tmp_path / "plans", lambda: time.time_ns() + SETTLED_NS)


def test_files_are_rebuilt_from_chunks_and_holes(
    tmp_path: Path, images: list[bytes]
) -> None:
    save(tmp_path / NAME, images)
    contents = {"noise": NOISE, "empty": b"", "zeros": bytes(3_000_000)}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    seen: list[int] = []
    source = FileSource.scan(tmp_path, [NAME, *contents], seen.append)
    package = (tmp_path / NAME).read_bytes()
    whole = package + b"".join(contents.values())
    assert rebuilt(source) == whole
    assert sum(seen) == source.manifest.total_bytes == len(whole)
    assert [entry.digest for entry in source.manifest.files] == [
        blake3(data).digest() for data in (package, *contents.values())
    ]


def test_only_new_images_are_new(tmp_path: Path, images: list[bytes]) -> None:
    save(tmp_path / NAME, images[:38])
    before = {chunk.digest for chunk in chunks_of(FileSource.scan(tmp_path, [NAME]))}
    longest = images[38] + b"longer than all before"
    save(tmp_path / NAME, [images[39], *images[:20], longest, *images[20:38]])
    after = FileSource.scan(tmp_path, [NAME])
    assert rebuilt(after) == (tmp_path / NAME).read_bytes()
    new = [chunk for chunk in chunks_of(after) if chunk.digest not in before]
    assert {blake3(data).digest() for data in (longest, images[39])} <= {
        chunk.digest for chunk in new
    }
    # The rest is HDF5's own: before the images, and behind them.
    assert len(new) <= 4
    assert sum(chunk.size_bytes for chunk in new) < 40_000


def test_a_fixed_size_is_kept_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(2_500))
    source = FileSource.scan(tmp_path, ["file"], chunk_bytes=1000)
    assert [chunk.size_bytes for chunk in chunks_of(source)] == [1000, 1000, 500]
    assert rebuilt(source) == bytes(2_500)


def test_a_hole_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(MIB))
    source = FileSource.scan(tmp_path, ["zeros"])
    [hole] = chunks_of(source)
    assert (hole.is_hole, hole.size_bytes) == (True, MIB)
    with pytest.raises(RemoteProtocolError):
        source.read_chunk(hole)


def test_a_known_file_is_not_read_again(
    tmp_path: Path, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(NOISE)
    first = FileSource.scan(tmp_path, ["file"], cache=cache)
    monkeypatch.setattr(file_source, "cut_by_content", None)
    seen: list[int] = []
    second = FileSource.scan(tmp_path, ["file"], seen.append, cache=cache)
    assert second.manifest == first.manifest
    assert seen == [len(NOISE)]


def test_a_known_file_may_be_offered_under_another_path(
    tmp_path: Path, cache: PlanCache
) -> None:
    place = tmp_path / "folder" / "file"
    place.parent.mkdir()
    place.write_bytes(NOISE)
    [a] = FileSource.scan(tmp_path, ["folder/file"], cache=cache).manifest.files
    [b] = FileSource.scan(place.parent, ["file"], cache=cache).manifest.files
    assert (a.path, b.path) == ("folder/file", "file")
    assert a.digest == b.digest


def test_a_changed_file_is_read_again(tmp_path: Path, cache: PlanCache) -> None:
    path = tmp_path / "file"
    path.write_bytes(NOISE)
    FileSource.scan(tmp_path, ["file"], cache=cache)
    path.write_bytes(NOISE[::-1])
    source = FileSource.scan(tmp_path, ["file"], cache=cache)
    assert rebuilt(source) == NOISE[::-1]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, cache: PlanCache
) -> None:
    path = tmp_path / "file"
    path.write_bytes(NOISE)

    def grow(size_bytes: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    torn = FileSource.scan(tmp_path, ["file"], grow, cache=cache)
    path.write_bytes(NOISE[::-1])
    with pytest.raises(SourceChanged):
        rebuilt(torn)
    assert rebuilt(FileSource.scan(tmp_path, ["file"], cache=cache)) == NOISE[::-1]


@pytest.mark.parametrize("chunk_bytes", [None, 1000])
def test_what_cannot_be_read(tmp_path: Path, chunk_bytes: int | None) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("missing", "folder", "folder/missing"):
        with pytest.raises(StorageFailed):
            FileSource.scan(tmp_path, [name], chunk_bytes=chunk_bytes)


# -- archives that are extracted anew each time ----------------------------------------


def extracted(folder: Path, data: bytes = NOISE) -> Path:
    folder.mkdir()
    (folder / NAME).write_bytes(data)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "package.zip"
    path.write_bytes(b"stands for a zip; nobody reads it here")
    return path


def test_what_was_extracted_is_known_by_its_archive(
    tmp_path: Path, archive: Path, cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = Archive.of(archive)
    first = FileSource.scan(
        extracted(tmp_path / "1"), [NAME], cache=cache, archive=stamp
    )

    def not_again(*args: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(file_source, "cut_by_content", not_again)
    again = extracted(tmp_path / "2")
    second = FileSource.scan(again, [NAME], cache=cache, archive=Archive.of(archive))
    assert second.manifest == first.manifest
    assert rebuilt(second) == NOISE
    # Another name in it is another file, and so is the same one elsewhere.
    (again / "other").write_bytes(NOISE)
    for name, more in (("other", {"archive": stamp}), (NAME, {})):
        with pytest.raises(AssertionError, match="read again"):
            FileSource.scan(again, [name], cache=cache, **more)


@pytest.mark.parametrize("moment", ["before", "meanwhile", "after"])
def test_an_archive_that_changed_vouches_for_nothing(
    tmp_path: Path,
    archive: Path,
    cache: PlanCache,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    cut = file_source.cut_by_content

    def replace() -> None:
        archive.write_bytes(
            b"another zip, and longer than the one that was there before"
        )

    def replace_and_cut(*args: Any) -> Any:
        replace()
        return cut(*args)

    stamp = Archive.of(archive)
    if moment == "before":
        replace()
    if moment == "meanwhile":
        monkeypatch.setattr(file_source, "cut_by_content", replace_and_cut)
    FileSource.scan(extracted(tmp_path / "1"), [NAME], cache=cache, archive=stamp)
    if moment == "after":
        replace()
    other = bytes(reversed(NOISE))
    for number, known in enumerate((stamp, Archive.of(archive)), 2):
        folder = extracted(tmp_path / str(number), other)
        source = FileSource.scan(folder, [NAME], cache=cache, archive=known)
        assert rebuilt(source) == other


def test_an_archive_that_is_gone_vouches_for_nothing(archive: Path) -> None:
    stamp = Archive.of(archive)
    assert stamp.is_unchanged
    archive.unlink()
    assert not stamp.is_unchanged
