"""Where files arrive, on a real disk with faults at its edge."""

import errno
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import DiskFull, SourceChanged, StorageFailed
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, Manifest, pack_chunks
from sleap_rtc_plugin.transport import staging_area
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.staging_area import StagingArea, StagingInterrupted

FILES = {
    "a/one": b"x" * 2500,
    "a/two": b"y" * 700,
    "same": b"x" * 2500,
    "empty": b"",
    "also-empty": b"",
}


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    root = tmp_path / "source"
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return FileSource.scan(root, list(FILES), chunk_bytes=1000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "staging"


def store(area: StagingArea, source: FileSource, *numbers: int) -> None:
    for number in numbers or range(source.manifest.chunk_count):
        data = source.read_chunk(source.manifest.chunk(number))
        assert area.store(number, data)


def fill(root: Path, source: FileSource) -> StagingArea:
    area = StagingArea(root)
    area.inventory(source.manifest)
    store(area, source)
    return area


def contents(area: StagingArea) -> dict[str, bytes]:
    return {
        path.relative_to(area.files).as_posix(): path.read_bytes()
        for path in area.files.rglob("*")
        if path.is_file()
    }


def test_files_come_to_their_places(root: Path, source: FileSource) -> None:
    area = fill(root, source)
    assert contents(area) == {}
    for file in range(len(FILES)):
        assert area.finish(file)
    assert contents(area) == FILES
    assert list((root / "parts").iterdir()) == []
    again = StagingArea(root)
    assert again.inventory(source.manifest) == (frozenset(), frozenset(range(5)))


def test_what_is_stored_is_found_again(root: Path, source: FileSource) -> None:
    area = StagingArea(root)
    assert area.inventory(source.manifest) == (frozenset(), frozenset())
    store(area, source, 1, 3)
    area.close()
    chunks, files = StagingArea(root).inventory(source.manifest)
    # The same part serves the file of the same contents.
    same = next(iter(source.manifest.chunks_of(2)))
    assert chunks == {1, 3, same + 1}
    assert files == frozenset()


def test_a_chunk_with_another_digest_is_not_written(
    root: Path, source: FileSource
) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    assert not area.store(0, b"z" * 1000)
    assert not area.store(0, b"")
    assert list((root / "parts").iterdir()) == []


def test_a_part_damaged_before_it_is_finished_is_discarded(
    root: Path, source: FileSource
) -> None:
    area = fill(root, source)
    part = max((root / "parts").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(part.read_bytes())
    data[0] ^= 1
    part.write_bytes(data)
    assert not area.finish(0)
    assert not part.exists()
    assert contents(area) == {}


def test_a_file_damaged_in_place_is_not_taken_for_whole(
    root: Path, source: FileSource
) -> None:
    area = fill(root, source)
    for file in range(len(FILES)):
        area.finish(file)
    (area.files / "a/one").write_bytes(b"z" * 2500)
    _, files = StagingArea(root).inventory(source.manifest)
    assert files == frozenset({1, 2, 3, 4})


def test_a_link_in_place_of_a_file_is_not_taken_for_it(
    root: Path, source: FileSource, tmp_path: Path
) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["same"])
    (area.files / "same").symlink_to(outside)
    _, files = StagingArea(root).inventory(source.manifest)
    assert files == frozenset()
    fill(root, source).finish(2)
    assert outside.read_bytes() == FILES["same"]
    assert not (area.files / "same").is_symlink()


def test_a_part_that_is_a_link_is_not_followed(
    root: Path, source: FileSource, tmp_path: Path
) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    digest = source.manifest.files[0].digest.hex()
    (root / "parts" / f"{digest}.part").symlink_to(outside)
    with pytest.raises(StorageFailed):
        store(area, source, 0)
    assert outside.read_bytes() == b"precious"


def test_parts_of_another_package_are_removed(root: Path, source: FileSource) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    stale = root / "parts" / "stale.part"
    stale.write_bytes(b"stale")
    area.inventory(source.manifest)
    assert not stale.exists()


def test_every_byte_is_on_the_disk_before_it_gets_its_name(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync, replace = os.fsync, Path.replace

    def remember(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked(part: Path, target: Path) -> Path:
        assert part.stat().st_ino in synced, f"{target} was named before it was safe"
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(Path, "replace", checked)
    area = fill(root, source)
    for file in range(len(FILES)):
        synced.clear()
        assert area.finish(file)


def test_descriptors_are_bounded_and_closed(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"f{i}" for i in range(40)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    source = FileSource.scan(folder, names)
    area = fill(root, source)
    assert len(area._open) <= staging_area.MAX_OPEN_PARTS
    for file in range(len(names)):
        assert area.finish(file)
    area.close()
    assert not area._open


def no_space(*args: object, **kwargs: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_storing(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    monkeypatch.setattr(os, "write", no_space)
    with pytest.raises(DiskFull) as full:
        store(area, source, 0)
    assert full.value.place == str(root)


def test_a_full_disk_while_copying_then_resumed(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = fill(root, source)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", no_space)
        with pytest.raises(DiskFull):
            area.finish(0)
    area.close()
    again = StagingArea(root)
    chunks, _ = again.inventory(source.manifest)
    assert len(chunks) == source.manifest.chunk_count
    for file in range(len(FILES)):
        assert again.finish(file)
    assert contents(again) == FILES


def test_too_little_room_is_known_before_the_first_byte(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull):
        StagingArea(root).inventory(source.manifest)


def test_other_disk_errors(
    root: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    area = StagingArea(root)
    area.inventory(source.manifest)
    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(StorageFailed, match="Input/output error"):
        store(area, source, 0)


# -- holes and equal chunks ---------------------------------------------------------


def holed(*pieces: bytes | int) -> tuple[Manifest, bytes]:
    """Return a manifest of one file of chunks and holes, and the file."""
    data = b"".join(bytes(p) if isinstance(p, int) else p for p in pieces)
    sizes, digests = pack_chunks(
        [p if isinstance(p, int) else len(p) for p in pieces],
        [HOLE if isinstance(p, int) else digest_of(p) for p in pieces],
    )
    entry = FileEntry("file", len(data), digest_of(data), sizes, digests)
    return Manifest([entry]), data


def test_holes_are_here_and_take_no_space(root: Path) -> None:
    hole = 64 * MIB
    manifest, data = holed(hole, b"x" * 500, hole)
    area = StagingArea(root)
    assert area.inventory(manifest) == ({0, 2}, frozenset())
    assert area.store(1, b"x" * 500)
    assert area.finish(0)
    file = area.files / "file"
    assert file.stat().st_size == len(data)
    assert file.stat().st_blocks * 512 < MIB
    assert file.read_bytes() == data


def test_a_file_of_nothing_but_holes(root: Path) -> None:
    manifest, data = holed(3000, 5)
    area = StagingArea(root)
    assert area.inventory(manifest) == ({0, 1}, frozenset())
    assert area.finish(0)
    assert (area.files / "file").read_bytes() == data


def huge_zeros() -> Manifest:
    """Announce 240 GiB of zeros in three hundred bytes."""
    sizes, digests = pack_chunks([2**32 - 1] * 60, [HOLE] * 60)
    return Manifest([FileEntry("file", 60 * (2**32 - 1), b"w" * 32, sizes, digests)])


def let_disk_have(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    usage = shutil._ntuple_diskusage(free_bytes * 2, free_bytes, free_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_holes_on_a_huge_disk_are_only_a_size(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_disk_have(monkeypatch, 10**12)
    area = StagingArea(root)
    chunks, _ = area.inventory(huge_zeros())
    assert len(chunks) == 60
    assert list((root / "parts").iterdir()) == []


def test_holes_that_the_disk_could_not_hold_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_disk_have(monkeypatch, 250 * 2**30)
    with pytest.raises(DiskFull, match=r"294912\.0 MiB are needed"):
        StagingArea(root).inventory(huge_zeros())


def test_hashing_that_nobody_waits_for_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_disk_have(monkeypatch, 10**12)
    area = StagingArea(root)
    area.inventory(huge_zeros())
    hashing = threading.Event()
    go_on = area._go_on

    def told() -> None:
        hashing.set()
        go_on()

    monkeypatch.setattr(area, "_go_on", told)
    with ThreadPoolExecutor(1) as executor:
        finishing = executor.submit(area.finish, 0)
        assert hashing.wait(10)
        area.interrupt()
        with pytest.raises(StagingInterrupted):
            finishing.result(10)
    area.close()
    assert contents(area) == {}


def test_what_was_interrupted_goes_on_later(root: Path, source: FileSource) -> None:
    area = fill(root, source)
    area.interrupt()
    for interrupted in (
        lambda: area.finish(0),
        lambda: area.inventory(source.manifest),
    ):
        with pytest.raises(StagingInterrupted):
            interrupted()
    area.begin()
    assert len(area.inventory(source.manifest)[0]) == source.manifest.chunk_count
    for file in range(len(FILES)):
        assert area.finish(file)
    assert contents(area) == FILES


@pytest.mark.parametrize("seek_data", [True, False], ids=["sparse", "plain"])
@pytest.mark.parametrize("where", [0, 500, 500 + 2 * MIB, 500 + 3 * MIB - 1])
def test_what_came_to_be_in_a_hole_is_cleared(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: int, seek_data: bool
) -> None:
    if not seek_data:
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    manifest, data = holed(b"x" * 500, 3 * MIB, b"y" * 10)
    area = StagingArea(root)
    area.inventory(manifest)
    area.store(0, b"x" * 500)
    area.store(2, b"y" * 10)
    area.close()
    [part] = (root / "parts").iterdir()
    with part.open("r+b") as file:
        file.seek(where)
        file.write(b"!")
    again = StagingArea(root)
    chunks, _ = again.inventory(manifest)
    assert chunks == ({0, 1, 2} if where else {1, 2})
    again.store(0, b"x" * 500)
    assert again.finish(0)
    assert (again.files / "file").read_bytes() == data


def test_equal_chunks_are_written_to_all_their_places(
    root: Path, source: FileSource
) -> None:
    area = StagingArea(root)
    area.inventory(source.manifest)
    # "x" * 1000 twice in a/one and twice in same, its tail in both.
    assert area.store(0, b"x" * 1000, 1, 4, 5)
    assert area.store(2, b"x" * 500, 6)
    assert area.finish(0)
    assert area.finish(2)
    assert contents(area) == {"a/one": FILES["a/one"], "same": FILES["same"]}


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
    for store, known in ((None, b""), (kept, source.encoded_manifest)):
        area = StagingArea(root, store=store)
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


# -- the source ---------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x" * 500, b"z" * 2500], ids=len)
def test_a_source_that_changed(source: FileSource, data: bytes) -> None:
    (source.root / "a/one").write_bytes(data)
    with pytest.raises(SourceChanged) as changed:
        for number in source.manifest.chunks_of(0):
            source.read_chunk(source.manifest.chunk(number))
    assert changed.value.path == "a/one"


def test_a_source_that_is_gone(source: FileSource) -> None:
    (source.root / "a/one").unlink()
    with pytest.raises(SourceChanged):
        source.read_chunk(source.manifest.chunk(0))


def test_a_source_that_cannot_be_scanned(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        FileSource.scan(tmp_path, ["missing"])


def test_scanning_tells_how_far_it_is(source: FileSource) -> None:
    seen: list[int] = []
    FileSource.scan(source.root, list(FILES), seen.append, chunk_bytes=1000)
    assert sum(seen) == sum(map(len, FILES.values()))
