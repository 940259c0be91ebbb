"""Where files arrive, on a real disk with faults at its edge."""

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.staging import FILES, contents, fill, let_disk_have, source_in, store

from sleap_rtc_plugin.protocol.errors import DiskFull, SourceChanged, StorageFailed
from sleap_rtc_plugin.protocol.limits import MIB
from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, Manifest, pack_chunks
from sleap_rtc_plugin.transport import staging_area
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.staging_area import StagingArea, StagingInterrupted


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return source_in(tmp_path / "source")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "staging"


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
