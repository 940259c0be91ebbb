"""What a worker keeps of earlier packages: for one room, for a time, to a limit."""

import os
import stat
import time
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.limits import GIB, MIB
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker import file_manager
from sleap_rtc_worker.file_manager import FileManager

JOBS = ["job-" + digit * 20 for digit in "0123456789"]
ROOM = "room-one"
# A folder's time is the disk's, so the clock has to be the real one.
NOW = time.time()
DAY_S = 24 * 3600.0


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "labels.slp").write_bytes(os.urandom(300_000))
    return FileSource.scan(folder, ["labels.slp"])


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def missing(files: FileManager, job_id: str, source: FileSource) -> int:
    """Receive the package for a job; return how many chunks had to be sent."""
    area = files.staging_area(job_id)
    chunks, _ = area.inventory(source.manifest)
    absent = set(range(source.manifest.chunk_count)) - chunks
    for number in absent:
        assert area.store(number, source.read_chunk(source.manifest.chunk(number)))
    assert area.finish(0)
    area.close()
    return len(absent)


def test_the_next_job_of_a_room_reuses_the_package(
    data_dir: Path, source: FileSource
) -> None:
    files = FileManager(data_dir)
    files.open_store(ROOM, NOW)
    assert missing(files, JOBS[0], source) == source.manifest.chunk_count
    files.discard(JOBS[0])
    assert missing(files, JOBS[1], source) == 0
    files.close_store()
    again = FileManager(data_dir)
    again.open_store(ROOM, NOW + DAY_S)
    assert missing(again, JOBS[2], source) == 0
    again.close_store()


def test_another_room_finds_nothing_of_it(data_dir: Path, source: FileSource) -> None:
    files = FileManager(data_dir)
    files.open_store(ROOM, NOW)
    missing(files, JOBS[0], source)
    area = files.staging_area(JOBS[0])
    area.remember_manifest(source.encoded_manifest)
    files.open_store("room-two", NOW)
    digest = source.manifest_digest.hex()
    assert files.staging_area(JOBS[1]).known_manifest(digest) == b""
    assert missing(files, JOBS[1], source) == source.manifest.chunk_count
    files.open_store(ROOM, NOW)
    assert files.staging_area(JOBS[2]).known_manifest(digest)
    assert missing(files, JOBS[2], source) == 0
    files.close_store()


def test_a_rooms_name_is_no_path(data_dir: Path) -> None:
    files = FileManager(data_dir)
    files.open_store("../../room", NOW)
    [folder] = (data_dir / "store").iterdir()
    assert len(folder.name) == 32
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    files.close_store()


def test_rooms_that_were_not_served_for_long_are_removed(
    data_dir: Path, source: FileSource
) -> None:
    files = FileManager(data_dir)
    files.open_store(ROOM, NOW)
    missing(files, JOBS[0], source)
    files.open_store("room-two", NOW + 89 * DAY_S)
    assert len(list((data_dir / "store").iterdir())) == 2
    files.open_store("room-two", NOW + 91 * DAY_S)
    assert len(list((data_dir / "store").iterdir())) == 1
    assert (files.package_dir(JOBS[0]) / "labels.slp").exists()
    files.close_store()


def test_rooms_of_before_leave_half_of_the_limit(
    data_dir: Path, source: FileSource
) -> None:
    files = FileManager(data_dir, store_limit_bytes=2 * MIB)
    rooms = [f"room-{n}" for n in range(5)]
    for age, (room, job_id) in enumerate(zip(rooms, JOBS, strict=False)):
        files.open_store(room, NOW + age)
        missing(files, job_id, source)
    files.open_store("room-new", NOW + 10)
    stores = list((data_dir / "store").iterdir())
    sizes = [p.stat().st_size for store in stores for p in store.rglob("files/*")]
    assert 0 < sum(sizes) <= MIB
    # The one that was served last is still known.
    files.open_store(rooms[-1], NOW + 11)
    assert missing(files, JOBS[9], source) == 0
    files.close_store()


def test_a_limit_of_nothing_keeps_nothing(data_dir: Path, source: FileSource) -> None:
    files = FileManager(data_dir, store_limit_bytes=0)
    files.open_store(ROOM, NOW)
    for job_id in JOBS[:2]:
        assert missing(files, job_id, source) == source.manifest.chunk_count
    assert not (data_dir / "store").exists()


def test_the_default_limit_is_a_share_of_the_disk(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = file_manager.shutil._ntuple_diskusage
    for total, limit in ((100 * GIB, 20 * GIB), (1000 * GIB, 50 * GIB)):
        disk = usage(total, 0, total)
        monkeypatch.setattr(
            file_manager.shutil, "disk_usage", lambda path, disk=disk: disk
        )
        assert FileManager(data_dir)._store_limit_bytes == limit


def test_what_the_store_could_give_back_counts_as_free(
    data_dir: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileManager(data_dir, store_limit_bytes=GIB)
    files.open_store(ROOM, NOW)
    missing(files, JOBS[0], source)
    disk = file_manager.shutil._ntuple_diskusage(GIB, GIB, 0)
    monkeypatch.setattr(file_manager.shutil, "disk_usage", lambda path: disk)
    # The job's own file holds the space as long as the job is there.
    assert files.space_fault(200_000) is not None
    files.discard(JOBS[0])
    assert files.space_fault(200_000) is None
    assert files.space_fault(300_000) is not None
    files.close_store()


def test_a_disk_that_refuses_the_store_is_no_reason_not_to_work(
    data_dir: Path, source: FileSource
) -> None:
    (data_dir / "store").write_bytes(b"in the way")
    files = FileManager(data_dir)
    files.open_store(ROOM, NOW)
    assert missing(files, JOBS[0], source) == source.manifest.chunk_count
    files.close_store()
