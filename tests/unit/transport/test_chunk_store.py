"""Files of earlier packages on a real disk: kept, found, damaged, let go."""

import errno
import logging
import os
import random
import sqlite3
import stat
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, pack_chunks
from sleap_rtc_plugin.transport import chunk_store
from sleap_rtc_plugin.transport.chunk_store import (
    FILE_COST_BYTES,
    LEASE_LIFETIME_S,
    ROW_COST_BYTES,
    ChunkStore,
    Place,
)
from sleap_rtc_plugin.transport.file_source import digest_of

CHUNK_BYTES = 1000
LIMIT_BYTES = 10**9
NOW = 1_700_000_000.0


def entry_of(data: bytes, chunk_bytes: int = CHUNK_BYTES) -> FileEntry:
    pieces = [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)]
    sizes, digests = pack_chunks(list(map(len, pieces)), list(map(digest_of, pieces)))
    return FileEntry("file", len(data), digest_of(data), sizes, digests)


def noise(seed: int, size: int = 3500) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - contents of test files


class Folder:
    """A store and a place where verified files lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = self.opened()

    def opened(self, max_bytes: int = LIMIT_BYTES) -> ChunkStore:
        self.store = ChunkStore(self.root / "store", max_bytes=max_bytes)
        return self.store

    def reopened(self, max_bytes: int = LIMIT_BYTES) -> ChunkStore:
        self.store.close()
        return self.opened(max_bytes)

    def keep(self, data: bytes, now: float = NOW, chunk_bytes: int = CHUNK_BYTES):
        path = self.root / digest_of(data).hex()[:8]
        path.write_bytes(data)
        self.store.keep([(path, entry_of(data, chunk_bytes))], now)
        return path

    def kept(self, data: bytes) -> Path:
        return self.root / "store" / "files" / digest_of(data).hex()

    def chunk(self, data: bytes) -> bytes | None:
        """Return what the store has for the first chunk of `data`."""
        wanted = digest_of(data[:CHUNK_BYTES])
        for place in self.store.find([wanted]).get(wanted, []):
            if found := self.store.read(place):
                return found
        return None


@pytest.fixture
def folder(tmp_path: Path):
    made = Folder(tmp_path)
    yield made
    made.store.close()


# -- keeping and finding ------------------------------------------------------------


def test_a_kept_file_is_found_by_its_chunks_and_as_a_whole(folder: Folder) -> None:
    data = noise(1)
    path = folder.keep(data)
    pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    found = folder.store.find([*map(digest_of, pieces), digest_of(b"other")])
    assert [folder.store.read(found[digest_of(p)][0]) for p in pieces] == pieces
    assert len(found) == len(pieces)
    whole = folder.store.file(digest_of(data))
    assert whole == Place(digest_of(data), 0, len(data), digest_of(data))
    assert folder.store.read(whole) == data
    assert folder.store.file(digest_of(b"other")) is None
    assert folder.kept(data).samefile(path), "kept without writing it again"


def test_what_was_kept_is_there_after_a_restart(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data).unlink()
    folder.reopened()
    assert folder.chunk(data) == data[:CHUNK_BYTES]


def test_a_file_kept_twice_is_one_file(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data)
    folder.keep(data)
    assert len(folder.store.find([digest_of(data[:CHUNK_BYTES])])) == 1
    assert [p.name for p in folder.kept(data).parent.iterdir()] == [
        digest_of(data).hex()
    ]


def test_a_file_cut_in_another_way_is_found_by_its_new_chunks(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data)
    folder.keep(data, chunk_bytes=700)
    old, new = digest_of(data[:CHUNK_BYTES]), digest_of(data[:700])
    assert list(folder.store.find([old, new])) == [new]


def test_the_file_used_last_is_offered_first(folder: Folder) -> None:
    one, two = noise(1), noise(1)[:CHUNK_BYTES] + noise(2)
    folder.keep(two, NOW)
    folder.keep(one, NOW + 1)
    shared = digest_of(one[:CHUNK_BYTES])
    places = folder.store.find([shared])[shared]
    assert [place.file for place in places] == [digest_of(one), digest_of(two)]


def test_holes_and_crumbs_are_not_indexed(folder: Folder) -> None:
    data = bytes(5000) + noise(1, 300) + b"crumb"
    sizes, digests = pack_chunks(
        [5000, 300, 5],
        [HOLE, digest_of(data[5000:5300]), digest_of(b"crumb")],
    )
    path = folder.root / "file"
    path.write_bytes(data)
    entry = FileEntry("file", len(data), digest_of(data), sizes, digests)
    folder.store.keep([(path, entry)], NOW)
    found = folder.store.find([HOLE, digest_of(data[5000:5300]), digest_of(b"crumb")])
    assert list(found) == [digest_of(data[5000:5300])]


def test_no_more_places_than_anyone_tries(folder: Folder) -> None:
    start = noise(1, CHUNK_BYTES)
    for seed in range(chunk_store.MAX_PLACES + 3):
        folder.keep(start + noise(seed + 10, 10))
    assert len(folder.store.find([digest_of(start)])[digest_of(start)]) == (
        chunk_store.MAX_PLACES
    )


def test_many_digests_at_once(folder: Folder) -> None:
    data = noise(1, 300 * 1100)
    folder.keep(data, chunk_bytes=300)
    digests = [digest_of(data[i : i + 300]) for i in range(0, len(data), 300)]
    assert set(folder.store.find(digests)) == set(digests)


def test_the_file_verified_last_is_the_one_that_is_kept(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data).write_bytes(noise(2))
    again = folder.root / "again"
    again.write_bytes(data)
    folder.store.keep([(again, entry_of(data))], NOW)
    assert folder.kept(data).samefile(again)
    assert folder.chunk(data) == data[:CHUNK_BYTES]


# -- what is not what it was --------------------------------------------------------


@pytest.mark.parametrize("size", [3500, 3499, 4000, 0])
def test_a_file_changed_in_place_is_dropped(folder: Folder, size: int) -> None:
    data = noise(1)
    folder.keep(data).write_bytes(noise(2, size))
    assert folder.chunk(data) is None
    assert folder.store.file(digest_of(data)) is None
    assert not folder.kept(data).exists()


def test_one_file_is_damaged_and_another_has_the_chunk(folder: Folder) -> None:
    one, two = noise(1), noise(1)[:CHUNK_BYTES] + noise(2)
    folder.keep(two, NOW)
    folder.keep(one, NOW + 1).write_bytes(b"changed")
    assert folder.chunk(one) == one[:CHUNK_BYTES]
    assert folder.store.file(digest_of(one)) is None


def test_a_file_that_is_gone_is_dropped(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data)
    folder.kept(data).unlink()
    assert folder.chunk(data) is None
    assert folder.store.find([digest_of(data[:CHUNK_BYTES])]) == {}


def test_a_file_that_was_dropped_is_kept_again(folder: Folder) -> None:
    data = noise(1)
    folder.keep(data).write_bytes(b"changed")
    folder.keep(data)
    assert folder.chunk(data) == data[:CHUNK_BYTES]


def test_a_link_is_neither_kept_nor_followed(folder: Folder) -> None:
    data, precious = noise(1), folder.root / "precious"
    precious.write_bytes(data)
    (folder.root / "link").symlink_to(precious)
    folder.store.keep([(folder.root / "link", entry_of(data))], NOW)
    assert folder.store.file(digest_of(data)) is None
    folder.keep(data)
    folder.kept(data).unlink()
    folder.kept(data).symlink_to(precious)
    assert folder.chunk(data) is None
    assert precious.read_bytes() == data


def test_a_file_that_is_not_the_one_verified_is_not_kept(folder: Folder) -> None:
    path = folder.root / "file"
    path.write_bytes(b"shorter")
    folder.store.keep([(path, entry_of(noise(1)))], NOW)
    assert folder.store.file(digest_of(noise(1))) is None
    assert not folder.kept(noise(1)).exists()


# -- letting go ---------------------------------------------------------------------

COST = 3500 + 4 * ROW_COST_BYTES + FILE_COST_BYTES


def test_the_file_not_used_for_longest_goes_first(folder: Folder) -> None:
    files = [noise(seed) for seed in range(4)]
    for age, data in enumerate(files):
        folder.keep(data, NOW + age)
    with folder.store.lease([digest_of(files[0])], NOW + 10):
        pass
    folder.reopened(2 * COST).trim(NOW + 20)
    assert [folder.kept(data).exists() for data in files] == [True, False, False, True]


def test_a_leased_file_stays(folder: Folder) -> None:
    old, new = noise(1), noise(2)
    folder.keep(old, NOW)
    folder.keep(new, NOW + 1)
    store = folder.reopened(COST)
    with store.lease([digest_of(old), digest_of(old), digest_of(b"none")], NOW - 1):
        store.trim(NOW + 2)
        assert folder.kept(old).exists()
        assert not folder.kept(new).exists()
    folder.keep(new, NOW + 3)
    store.trim(NOW + 4)
    assert not folder.kept(old).exists()


@pytest.mark.parametrize("later", [LEASE_LIFETIME_S + 1, -1])
def test_the_lease_of_a_dead_process_ends(folder: Folder, later: float) -> None:
    data = noise(1)
    folder.keep(data)
    held = folder.store.lease([digest_of(data)], NOW)
    held.__enter__()
    store = folder.reopened(0)
    store.trim(NOW)
    assert folder.kept(data).exists()
    # At its end, or where the clock was set back since.
    store.trim(NOW + later)
    assert not folder.kept(data).exists()


def test_a_file_larger_than_the_store_is_not_kept(folder: Folder) -> None:
    folder.reopened(1000)
    folder.keep(noise(1))
    assert folder.store.file(digest_of(noise(1))) is None


def test_room_is_made_only_where_it_helps(folder: Folder) -> None:
    shared, alone, newest = noise(1), noise(2), noise(3)
    folder.keep(shared, NOW)
    folder.keep(alone, NOW + 1).unlink()
    folder.keep(newest, NOW + 2).unlink()
    assert folder.store.spare_bytes() == len(alone) + len(newest)
    folder.store.make_room(1, NOW + 3)
    kept = [folder.kept(data).exists() for data in (shared, alone, newest)]
    assert kept == [True, False, True]


# -- manifests ----------------------------------------------------------------------


def test_the_newest_manifests_are_kept(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_store, "MAX_MANIFESTS", 3)
    monkeypatch.setattr(chunk_store, "MAX_MANIFESTS_BYTES", 100)
    made = [bytes([n]) * 30 for n in range(4)]
    for age, data in enumerate(made[:3]):
        folder.store.keep_manifest(data, NOW + age)
    # The oldest is used again, so the next one pushes the second out.
    assert folder.store.manifest(digest_of(made[0]), NOW + 5) == made[0]
    folder.store.keep_manifest(made[3], NOW + 6)
    folder.reopened()
    left = [folder.store.manifest(digest_of(data), NOW + 7) for data in made]
    assert left == [made[0], None, made[2], made[3]]
    folder.store.keep_manifest(b"x" * 99, NOW + 8)
    assert folder.store.manifest(digest_of(made[3]), NOW + 9) is None


# -- crashes and damage -------------------------------------------------------------


def test_a_start_finds_files_and_rows_that_do_not_match(folder: Folder) -> None:
    whole, gone, torn = noise(1), noise(2), noise(3)
    for data in (whole, gone, torn):
        folder.keep(data)
    folder.kept(gone).unlink()
    os.truncate(folder.kept(torn), 10)
    stray = folder.kept(whole).with_name("stray")
    stray.write_bytes(b"left by a crash")
    (folder.kept(whole).parent / "link").symlink_to(folder.root)
    folder.reopened()
    names = [path.name for path in stray.parent.iterdir()]
    assert names == [digest_of(whole).hex()]
    assert [bool(folder.chunk(data)) for data in (whole, gone, torn)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "damage",
    [b"not a database at all, but long enough to be read as one" * 100, b"\0" * 4096],
    ids=["text", "zeros"],
)
def test_a_damaged_index_is_set_aside(folder: Folder, damage: bytes) -> None:
    folder.keep(noise(1))
    folder.store.close()
    index = folder.root / "store" / "index.sqlite3"
    index.write_bytes(damage)
    folder.opened()
    assert index.with_name("index.damaged").read_bytes() == damage
    assert list(folder.kept(b"").parent.iterdir()) == []
    folder.keep(noise(2))
    assert folder.chunk(noise(2))


def test_an_index_of_another_version_is_set_aside(folder: Folder) -> None:
    folder.keep(noise(1))
    folder.store.close()
    with sqlite3.connect(folder.root / "store" / "index.sqlite3") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    folder.opened()
    assert folder.chunk(noise(1)) is None
    folder.keep(noise(1))
    assert folder.chunk(noise(1))


def test_pages_of_the_index_are_damaged_while_it_is_used(folder: Folder) -> None:
    for seed in range(30):
        folder.keep(noise(seed, 100_000), chunk_bytes=300)
    folder.reopened()
    index = folder.root / "store" / "index.sqlite3"
    data = bytearray(index.read_bytes())
    data[4096:] = random.Random(5).randbytes(len(data) - 4096)  # noqa: S311
    index.write_bytes(data)
    for seed in range(30):
        folder.chunk(noise(seed, 100_000))
        folder.keep(noise(seed + 100))
    folder.reopened()
    folder.keep(noise(1))
    assert folder.chunk(noise(1)) == noise(1)[:CHUNK_BYTES]


# -- a disk that does not do as it is told ------------------------------------------


def test_a_disk_without_links_gets_a_copy(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    data = noise(1)
    path = folder.keep(data)
    assert not folder.kept(data).samefile(path)
    assert stat.S_IMODE(folder.kept(data).stat().st_mode) == 0o600
    path.write_bytes(b"changed")
    assert folder.chunk(data) == data[:CHUNK_BYTES]


def test_a_full_disk_is_told_once_and_fails_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.keep(noise(1))
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(chunk_store.shutil, "copyfileobj", full)
        folder.keep(noise(2))
        folder.keep(noise(3))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "No space left" in caplog.text
    assert not folder.kept(noise(2)).exists()
    assert folder.chunk(noise(1)) == noise(1)[:CHUNK_BYTES]


def test_a_folder_that_cannot_be_used_is_an_empty_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "store").write_bytes(b"a file")
    store = ChunkStore(tmp_path / "store", max_bytes=LIMIT_BYTES, place="the disk")
    (tmp_path / "file").write_bytes(noise(1))
    store.keep([(tmp_path / "file", entry_of(noise(1)))], NOW)
    store.keep_manifest(b"manifest", NOW)
    assert store.manifest(digest_of(b"manifest"), NOW) is None
    assert store.find([digest_of(b"x")]) == {}
    with store.lease([digest_of(b"x")], NOW):
        store.trim(NOW)
    assert store.spare_bytes() == 0
    assert "the disk" in caplog.text
    assert str(tmp_path) not in caplog.records[0].getMessage().partition(":")[0]


def test_an_index_that_another_process_holds_is_not_waited_for_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_store, "BUSY_TIMEOUT_S", 0.01)
    folder.reopened()
    folder.keep(noise(1))
    other = sqlite3.connect(
        folder.root / "store" / "index.sqlite3", isolation_level=None
    )
    other.execute("BEGIN IMMEDIATE")
    folder.keep(noise(2))
    assert folder.chunk(noise(1)) is None
    other.execute("ROLLBACK")
    other.close()
    assert folder.chunk(noise(1)) == noise(1)[:CHUNK_BYTES]
    assert folder.store.file(digest_of(noise(2))) is None


def test_nobody_else_may_read_the_store(folder: Folder) -> None:
    folder.keep(noise(1))
    root = folder.root / "store"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "files").stat().st_mode) == 0o700
    for path in root.glob("index*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_store_that_is_closed_has_nothing(folder: Folder) -> None:
    folder.keep(noise(1))
    folder.store.close()
    assert folder.chunk(noise(1)) is None
    folder.store.close()
