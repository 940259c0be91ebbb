"""What a staging area takes from a store, or from an earlier version of a package."""

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
from support.staging import FILES, contents, fill, source_in, store

from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import FileEntry, Manifest, pack_chunks
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.staging_area import StagingArea


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return source_in(tmp_path / "source")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "staging"


# -- a store of earlier packages ----------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path):
    made = ChunkStore(tmp_path / "store", max_bytes=10**9)
    yield made
    made.close()


def received(root: Path, source: FileSource, kept: ChunkStore) -> StagingArea:
    area = StagingArea(root, store=kept)
    chunks, files = area.inventory(source.manifest)
    for number in set(range(source.manifest.chunk_count)) - chunks:
        assert area.store(number, source.read_chunk(source.manifest.chunk(number)))
    for file in set(range(len(source.manifest.files))) - files:
        assert area.finish(file)
    area.close()
    return area


def test_the_same_package_in_another_folder_is_here_already(
    tmp_path: Path, source: FileSource, kept: ChunkStore
) -> None:
    first = received(tmp_path / "first", source, kept)
    shutil.rmtree(first.root)
    second = StagingArea(tmp_path / "second", store=kept)
    chunks, files = second.inventory(source.manifest)
    assert (len(chunks), files) == (source.manifest.chunk_count, frozenset())
    for file in range(len(FILES)):
        assert second.finish(file)
    assert contents(second) == FILES


def test_what_is_reused_is_a_file_of_its_own(
    tmp_path: Path, source: FileSource, kept: ChunkStore
) -> None:
    first = received(tmp_path / "first", source, kept)
    second = received(tmp_path / "second", source, kept)
    (first.files / "a/two").write_bytes(b"changed by a trainer")
    assert contents(second) == FILES


def test_a_new_version_needs_only_what_is_new(tmp_path: Path, kept: ChunkStore) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    made = random.Random(1)  # noqa: S311 - contents of test files
    data = made.randbytes(10_000)
    (folder / "file").write_bytes(data)
    received(
        tmp_path / "first", FileSource.scan(folder, ["file"], chunk_bytes=1000), kept
    )
    (folder / "file").write_bytes(data + made.randbytes(1500))
    source = FileSource.scan(folder, ["file"], chunk_bytes=1000)
    chunks, _ = StagingArea(tmp_path / "second", store=kept).inventory(source.manifest)
    assert chunks == set(range(10))


def test_a_chunk_of_a_file_that_a_trainer_changed_is_fetched(
    tmp_path: Path, source: FileSource, kept: ChunkStore
) -> None:
    first = received(tmp_path / "first", source, kept)
    (first.files / "a/two").write_bytes(b"z" * 700)
    chunks, _ = StagingArea(tmp_path / "second", store=kept).inventory(source.manifest)
    assert set(range(source.manifest.chunk_count)) - chunks == {3}


def large_source(folder: Path) -> FileSource:
    """Return a file of many chunks with a hole in it."""
    folder.mkdir()
    noise = random.Random(2).randbytes(300_000)  # noqa: S311 - contents of a test file
    (folder / "file").write_bytes(noise + bytes(2 * MIB) + noise[::-1])
    return FileSource.scan(folder, ["file"])


def no_system_copy(monkeypatch: pytest.MonkeyPatch, failure: int | None) -> None:
    """Take the system's copying away, or let it fail as file systems do."""
    if failure is None:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
        return

    def fail(*args: object) -> int:
        raise OSError(failure, "no")

    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="no such call here")
def test_a_file_that_is_known_as_a_whole_is_copied_by_the_system(
    tmp_path: Path, kept: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = large_source(tmp_path / "source")
    received(tmp_path / "first", source, kept)
    monkeypatch.setattr(kept, "read", None)
    area = StagingArea(tmp_path / "second", store=kept)
    chunks, _ = area.inventory(source.manifest)
    assert len(chunks) == source.manifest.chunk_count
    assert area.finish(0)
    copy = area.files / "file"
    assert copy.read_bytes() == (source.root / "file").read_bytes()
    assert copy.stat().st_blocks * 512 < 1.5 * MIB


@pytest.mark.parametrize("failure", [None, errno.EXDEV, errno.ENOSYS, errno.EINVAL])
def test_where_the_system_does_not_copy_chunks_are_read_and_written(
    tmp_path: Path,
    kept: ChunkStore,
    monkeypatch: pytest.MonkeyPatch,
    failure: int | None,
) -> None:
    source = large_source(tmp_path / "source")
    received(tmp_path / "first", source, kept)
    no_system_copy(monkeypatch, failure)
    area = StagingArea(tmp_path / "second", store=kept)
    chunks, _ = area.inventory(source.manifest)
    assert len(chunks) == source.manifest.chunk_count
    assert area.finish(0)
    assert contents(area)["file"] == (source.root / "file").read_bytes()


def test_of_a_known_file_that_was_damaged_the_rest_is_reused(
    tmp_path: Path, kept: ChunkStore
) -> None:
    source = large_source(tmp_path / "source")
    first = received(tmp_path / "first", source, kept)
    with (first.files / "file").open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"damaged")
    area = StagingArea(tmp_path / "second", store=kept)
    chunks, _ = area.inventory(source.manifest)
    assert source.manifest.chunk_count - len(chunks) == 1
    store(area, source, *set(range(source.manifest.chunk_count)) - chunks)
    assert area.finish(0)
    assert contents(area)["file"] == (source.root / "file").read_bytes()


def test_a_known_file_that_is_damaged_after_it_was_copied_gets_no_name(
    tmp_path: Path, kept: ChunkStore
) -> None:
    source = large_source(tmp_path / "source")
    received(tmp_path / "first", source, kept)
    area = StagingArea(tmp_path / "second", store=kept)
    area.inventory(source.manifest)
    [part] = (area.root / "parts").iterdir()
    with part.open("r+b") as file:
        file.write(b"damaged")
    assert not area.finish(0)
    assert contents(area) == {}


def test_a_file_cut_in_another_way_is_reused_as_a_whole(
    tmp_path: Path, source: FileSource, kept: ChunkStore
) -> None:
    received(tmp_path / "first", source, kept)
    other = FileSource.scan(source.root, list(FILES), chunk_bytes=333)
    chunks, _ = StagingArea(tmp_path / "second", store=kept).inventory(other.manifest)
    assert len(chunks) == other.manifest.chunk_count


def test_a_manifest_that_lies_about_a_stored_file_gets_nothing_wrong(
    tmp_path: Path, source: FileSource, kept: ChunkStore
) -> None:
    received(tmp_path / "first", source, kept)
    [honest] = FileSource.scan(source.root, ["a/two"]).manifest.files
    sizes, digests = pack_chunks([700], [digest_of(b"other bytes")])
    lie = FileEntry("a/two", 700, honest.digest, sizes, digests)
    area = StagingArea(tmp_path / "second", store=kept)
    assert area.inventory(Manifest([lie])) == (frozenset(), frozenset())


def test_the_store_gives_way_where_the_disk_is_short(
    tmp_path: Path,
    source: FileSource,
    kept: ChunkStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(received(tmp_path / "first", source, kept).root)
    total = kept.spare_bytes()
    assert total > 0
    used = [10**9 - 1000, 0]

    def usage(path: Path) -> object:
        return shutil._ntuple_diskusage(10**9, 0, 10**9 - used.pop(0))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    StagingArea(tmp_path / "second", store=kept).inventory(source.manifest)
    assert kept.spare_bytes() == 0


def test_manifests_are_remembered_with_a_store_only(
    root: Path, source: FileSource, kept: ChunkStore
) -> None:
    digest = source.manifest_digest.hex()
    for keeper, known in ((None, b""), (kept, source.encoded_manifest)):
        area = StagingArea(root, store=keeper)
        assert area.known_manifest(digest) == b""
        area.remember_manifest(source.encoded_manifest)
        assert area.known_manifest(digest) == known


# -- an earlier version of the package ----------------------------------------------


def planned(folder: Path, files: dict[str, bytes]) -> FileSource:
    """Make `files` all that is in a folder, and plan them."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return FileSource.scan(folder, list(files), chunk_bytes=1000)


def lacking(area: StagingArea, source: FileSource) -> set[int]:
    chunks, files = area.inventory(source.manifest)
    there = {n for file in files for n in source.manifest.chunks_of(file)}
    return set(range(source.manifest.chunk_count)) - chunks - there


def complete(area: StagingArea, source: FileSource) -> None:
    for number in lacking(area, source):
        assert area.store(number, source.read_chunk(source.manifest.chunk(number)))
    _, files = StagingArea(area.root).inventory(source.manifest)
    for file in set(range(len(source.manifest.files))) - files:
        assert area.finish(file)
    area.close()


@pytest.fixture
def blocks() -> list[bytes]:
    made = random.Random(5)  # noqa: S311 - contents of test files
    return [made.randbytes(1000) for _ in range(12)]


def test_of_a_file_that_changed_only_what_is_new_is_missing(
    tmp_path: Path, root: Path, blocks: list[bytes]
) -> None:
    before = planned(tmp_path / "s", {"file": b"".join(blocks[:8])})
    area = StagingArea(root)
    area.inventory(before.manifest)
    store(area, before, 0, 1, 2, 3, 5)
    area.close()
    # One is new, one is there twice, all others have moved.
    now = [blocks[10], blocks[0], blocks[1], blocks[0], *blocks[2:6]]
    after = planned(tmp_path / "s", {"file": b"".join(now)})
    again = StagingArea(root)
    assert lacking(again, after) == {0, 6}
    # The part of the earlier version is gone, and taking stock again finds the same.
    again.close()
    assert len(list((root / "parts").iterdir())) == 1
    again = StagingArea(root)
    assert lacking(again, after) == {0, 6}
    complete(again, after)
    assert contents(again) == {"file": b"".join(now)}
    assert [path.name for path in root.iterdir() if path.name != "files"] == ["parts"]


def test_a_file_that_changed_after_it_was_whole_is_not_sent_again(
    tmp_path: Path, root: Path, blocks: list[bytes]
) -> None:
    before = planned(tmp_path / "s", {"one": b"".join(blocks[:5]), "two": blocks[6]})
    area = StagingArea(root)
    area.inventory(before.manifest)
    store(area, before, *before.manifest.chunks_of(0))
    assert area.finish(0)
    area.close()
    now = {"one": b"".join([*blocks[:4], blocks[9]]), "two": blocks[6]}
    after = planned(tmp_path / "s", now)
    again = StagingArea(root)
    assert lacking(again, after) == {4, 5}
    complete(again, after)
    assert contents(again) == now


def test_what_is_salvaged_is_checked(
    tmp_path: Path, root: Path, blocks: list[bytes]
) -> None:
    before = planned(tmp_path / "s", {"file": b"".join(blocks[:4])})
    area = StagingArea(root)
    area.inventory(before.manifest)
    store(area, before)
    area.close()
    [part] = (root / "parts").iterdir()
    data = bytearray(part.read_bytes())
    data[1500] ^= 1
    part.write_bytes(data)
    after = planned(tmp_path / "s", {"file": b"".join([*blocks[:4], blocks[7]])})
    assert lacking(StagingArea(root), after) == {1, 4}


@pytest.mark.parametrize("torn", [b"", b"\x91", None], ids=["empty", "torn", "gone"])
def test_a_torn_manifest_costs_only_what_was_sent(
    tmp_path: Path, root: Path, blocks: list[bytes], torn: bytes | None
) -> None:
    before = planned(tmp_path / "s", {"file": b"".join(blocks[:4])})
    area = StagingArea(root)
    area.inventory(before.manifest)
    store(area, before)
    area.close()
    if torn is None:
        (root / "manifest").unlink()
    else:
        (root / "manifest").write_bytes(torn)
    assert lacking(StagingArea(root), before) == set()
    (root / "manifest").write_bytes(torn or b"")
    after = planned(tmp_path / "s", {"file": b"".join([*blocks[:4], blocks[7]])})
    again = StagingArea(root)
    assert lacking(again, after) == {0, 1, 2, 3, 4}
    complete(again, after)


def test_where_both_versions_do_not_fit_the_earlier_one_gives_way(
    tmp_path: Path, root: Path, blocks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(tmp_path / "s", {"file": b"".join(blocks[:8])})
    area = StagingArea(root)
    area.inventory(before.manifest)
    store(area, before)
    area.close()
    after = planned(tmp_path / "s", {"file": b"".join([*blocks[:8], blocks[9]])})

    def usage(path: Path) -> object:
        used = sum(part.stat().st_size for part in (root / "parts").iterdir())
        return shutil._ntuple_diskusage(12_000, used, 12_000 - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert lacking(StagingArea(root), after) == set(range(9))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["a", "b"], ["b"]),
        (["a", "d/b"], ["a"]),
        (["d/a", "b"], ["d", "b"]),
        (["d", "b"], ["d/a", "b"]),
    ],
    ids=["file", "folder", "folder to file", "file to folder"],
)
def test_a_file_that_the_package_no_longer_has_is_not_left_behind(
    tmp_path: Path, root: Path, blocks: list[bytes], before: list[str], after: list[str]
) -> None:
    files = dict(zip(before, blocks, strict=False))
    source = planned(tmp_path / "s", files)
    area = StagingArea(root)
    complete(area, source)
    assert contents(area) == files
    files = dict(zip(after, blocks[5:], strict=False))
    source = planned(tmp_path / "s", files)
    complete(area, source)
    assert contents(area) == files
    folders = [path.name for path in area.files.rglob("*") if path.is_dir()]
    assert folders == [
        path.parent.name for path in map(Path, after) if "/" in str(path)
    ]


def test_links_in_the_package_are_removed_and_not_followed(
    tmp_path: Path, root: Path, source: FileSource
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    area = fill(root, source)
    (area.files / "link").symlink_to(outside)
    (area.files / "other").symlink_to(outside / "precious")
    area.close()
    StagingArea(root).inventory(source.manifest)
    assert list(area.files.iterdir()) == []
    assert (outside / "precious").read_bytes() == b"precious"


def test_no_part_stays_of_a_file_that_is_in_place(
    root: Path, source: FileSource
) -> None:
    area = fill(root, source)
    for file in range(len(FILES)):
        assert area.finish(file)
    digest = source.manifest.files[0].digest.hex()
    (root / "parts" / f"{digest}.part").write_bytes(b"x" * 100)
    (root / "parts" / f"{digest}.copy").write_bytes(b"x" * 100)
    StagingArea(root).inventory(source.manifest)
    assert list((root / "parts").iterdir()) == []
