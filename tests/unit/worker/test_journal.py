"""The journal keeps jobs and events, and lets one worker in."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    FolderInUse,
    JournalDamaged,
    JournalTooNew,
    StepFailed,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    ProgressReport,
    TrainStep,
)
from sleap_rtc_worker.journal import (
    JOURNAL_VERSION,
    RESERVE_BYTES,
    JobRecord,
    Journal,
)

JOB = "job-" + "0" * 20
SPEC = JobSpec(
    name="flies",
    steps=[TrainStep(config="c.yaml", labels="l.slp", run_name="r=1", head="centroid")],
)


def record(**changes: object) -> JobRecord:
    made = JobRecord(
        job_id=JOB,
        spec=SPEC,
        package_digest="0" * 64,
        package_bytes=10,
        submitter="client-1",
        created_at=1.0,
    )
    return msgspec.structs.replace(made, **changes)


def events(first: int, last: int) -> list[ProgressReport]:
    return [
        ProgressReport(job_id=JOB, seq=n, at=float(n), step=0, kind="batch_end")
        for n in range(first, last + 1)
    ]


def test_jobs_and_events_survive_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    failure = StepFailed(step="Training", reason="it broke", last_lines="a\nb")
    first = JobEvent(job_id=JOB, seq=1, at=1.0, state="failed", error=failure.to_wire())
    kept = record(state=JobState.FAILED, error=failure.to_wire(), finished_steps=[0])
    journal.write(kept, [first])
    journal.close()
    journal = Journal(tmp_path)
    assert journal.jobs() == [kept]
    assert journal.events(JOB, 0) == [first]
    assert journal.last_seq(JOB) == 1
    journal.close()


def test_events_come_in_pages_from_any_number(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(record(), events(1, 30))
    assert [e.seq for e in journal.events(JOB, 10, limit=5)] == [11, 12, 13, 14, 15]
    assert journal.events(JOB, 30) == []
    assert journal.events("job-" + "1" * 20, 0) == []
    journal.close()


def test_a_job_and_its_events_are_written_both_or_neither(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(record(), events(1, 2))
    with pytest.raises(StorageFailed):
        journal.write(record(state=JobState.RUNNING), events(2, 3))
    assert journal.jobs() == [record()]
    assert journal.last_seq(JOB) == 2
    journal.close()


def test_a_second_worker_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(FolderInUse, match="in use by another worker"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    journal = Journal(tmp_path)
    journal.write(record())
    files = list(tmp_path.glob("journal*"))
    assert len(files) >= 2
    assert not any(file.stat().st_mode & 0o077 for file in files)
    journal.close()


def test_a_newer_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    database = sqlite3.connect(tmp_path / "journal.sqlite3")
    database.execute(f"PRAGMA user_version={JOURNAL_VERSION + 1}")
    database.commit()
    database.close()
    before = (tmp_path / "journal.sqlite3").read_bytes()
    with pytest.raises(JournalTooNew, match=r"newer version.*version 4.*pip install"):
        Journal(tmp_path)
    assert (tmp_path / "journal.sqlite3").read_bytes() == before


def test_an_older_journal_is_opened_and_its_times_are_read(tmp_path: Path) -> None:
    """Version 1 kept them in the events only."""
    other = "job-" + "1" * 20
    journal = Journal(tmp_path)
    states = ["staging", "queued", "starting", "running", "starting", "failed"]
    told = [
        JobEvent(job_id=JOB, seq=n, at=float(n), state=state)
        for n, state in enumerate(states, start=1)
    ]
    ended = record(state=JobState.FAILED, epoch=None)
    journal.write(ended, [*told[:4], *events(5, 6)])
    journal.write(ended, [msgspec.structs.replace(e, seq=e.seq + 2) for e in told[4:]])
    waiting = record(job_id=other, state=JobState.QUEUED)
    journal.write(waiting, [JobEvent(job_id=other, seq=1, at=7.0, state="queued")])
    journal.close()
    as_version_1(tmp_path)
    for _ in range(2):
        journal = Journal(tmp_path)
        filled = msgspec.structs.replace(ended, started_at=3.0, ended_at=6.0)
        assert journal.jobs() == [filled, waiting]
        assert journal.last_seq(JOB) == 8
        journal.close()


def test_an_older_journal_that_is_damaged_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(record(), [])
    journal.close()
    as_version_1(tmp_path, "JOB_EVENT::{")
    with pytest.raises(JournalDamaged):
        Journal(tmp_path)


def as_version_1(folder: Path, frame: str | None = None) -> None:
    """Make a journal what the first version would have left."""
    database = sqlite3.connect(folder / "journal.sqlite3")
    if frame is not None:
        database.execute("INSERT INTO events VALUES (?, 1, ?)", (JOB, frame))
    rows = database.execute("SELECT job_id, record FROM jobs").fetchall()
    for job_id, row in rows:
        kept = json.loads(row)
        for name in ("started_at", "ended_at", "epoch", "done", "total"):
            del kept[name]
        database.execute(
            "UPDATE jobs SET record = ? WHERE job_id = ?",
            (json.dumps(kept).encode(), job_id),
        )
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"noise" * 1000)
    assert_refused_and_left_alone(tmp_path, "no SQLite database")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_torn_journal_is_refused(tmp_path: Path, share: float) -> None:
    path = write_pages(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert_refused_and_left_alone(tmp_path, "journal")


def test_a_journal_with_rotten_pages_is_refused(tmp_path: Path) -> None:
    path = write_pages(tmp_path)
    data = bytearray(path.read_bytes())
    for offset in range(3 * 4096, len(data) - 4096, 2 * 4096):
        data[offset : offset + 512] = b"\xa5" * 512
    path.write_bytes(data)
    assert_refused_and_left_alone(tmp_path, "journal")


def test_a_job_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    write_pages(tmp_path)
    database = sqlite3.connect(tmp_path / "journal.sqlite3")
    database.execute("UPDATE jobs SET record = ?", (b'{"job_id": 7}',))
    database.commit()
    database.close()
    assert_refused_and_left_alone(tmp_path, "a job in it cannot be read")


def test_a_worker_that_was_killed_loses_no_event(tmp_path: Path) -> None:
    """What is only in the WAL yet is read, and looking at it takes nothing away."""
    folder, copy = tmp_path / "a", tmp_path / "b"
    journal = Journal(folder)
    journal.write(record(), events(1, 50))
    # What a kill leaves: the files as they are, and no lock.
    shutil.copytree(folder, copy)
    assert (copy / "journal.sqlite3-wal").stat().st_size > 0
    journal.close()
    again = Journal(copy)
    assert again.jobs() == [record()]
    assert again.last_seq(JOB) == 50
    again.close()


def test_a_journal_of_version_2_is_taken_up(tmp_path: Path) -> None:
    """Written by the release before this one, with its own code."""
    dump = (Path(__file__).parent / "journal_version_2.sql").read_text()
    database = sqlite3.connect(tmp_path / "journal.sqlite3")
    database.executescript(dump)
    database.execute("PRAGMA user_version=2")
    database.close()
    for _ in range(2):
        journal = Journal(tmp_path)
        jobs = journal.jobs()
        assert [job.state.value for job in jobs] == ["succeeded", "running", "queued"]
        assert [journal.last_seq(job.job_id) for job in jobs] == [6, 4, 2]
        assert {job.restarts for job in jobs} == {0}
        assert jobs[1].events_offset == 77
        assert jobs[1].epoch == 1
        kinds = [type(e).__name__ for e in journal.events(jobs[1].job_id, 0)]
        assert kinds == ["JobEvent", "JobEvent", "ProgressReport", "TrainLog"]
        journal.write(msgspec.structs.replace(jobs[1], restarts=1), [])
        journal.write(msgspec.structs.replace(jobs[1], restarts=0), [])
        journal.close()
    database = sqlite3.connect(tmp_path / "journal.sqlite3")
    assert database.execute("PRAGMA user_version").fetchone() == (JOURNAL_VERSION,)
    database.close()


def write_pages(folder: Path) -> Path:
    """Write a journal of many pages; return its file."""
    journal = Journal(folder)
    journal.write(record(), events(1, 2000))
    journal.close()
    return folder / "journal.sqlite3"


def assert_refused_and_left_alone(folder: Path, words: str) -> None:
    before = (folder / "journal.sqlite3").read_bytes()
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=words) as caught:
            Journal(folder)
        assert "move it away" in str(caught.value)
        assert (folder / "journal.sqlite3").read_bytes() == before


def test_a_clock_that_was_set_back_changes_no_queue(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    times = [5000.0, 1400.0, 9000.0, 1400.0, 0.0]
    ids = [f"job-{9 - n}{'0' * 19}" for n in range(len(times))]
    for job_id, at in zip(ids, times, strict=True):
        journal.write(record(job_id=job_id, created_at=at))
    # Changes do not move a job to the end.
    journal.write(record(job_id=ids[1], created_at=1400.0, state=JobState.QUEUED))
    journal.close()
    again = Journal(tmp_path)
    assert [job.job_id for job in again.jobs()] == ids
    again.close()


# -- a full disk ---------------------------------------------------------------------


class FullDisk(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_FULL


def test_the_reserve_is_for_what_is_vital(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    reserve = tmp_path / "journal.reserve"
    assert reserve.stat().st_size == RESERVE_BYTES
    real = journal._insert

    def insert(*args: Any) -> None:
        if reserve.exists():
            raise FullDisk("database or disk is full")
        real(*args)

    monkeypatch.setattr(journal, "_insert", insert)
    with pytest.raises(DiskFull, match="the worker's journal"):
        journal.write(record(), events(1, 1))
    assert reserve.exists()
    journal.write(record(), events(1, 1), is_vital=True)
    assert not reserve.exists()
    assert journal.last_seq(JOB) == 1
    # It is taken again as soon as there is room.
    journal.write(record(), events(2, 2), is_vital=True)
    assert reserve.exists()
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux mounts a small disk")
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield place
    finally:
        unmount = ["umount", "-l", str(place)]
        subprocess.run(unmount, check=True)


def test_a_disk_that_fills_up_leaves_a_journal_with_the_failure_in_it(
    small_disk: Path,
) -> None:
    journal = Journal(small_disk)
    written = 0
    with pytest.raises(DiskFull):
        while True:
            journal.write(record(), events(written + 1, written + 100))
            written += 100
    assert written > 0
    failed = record(state=JobState.FAILED)
    end = JobEvent(job_id=JOB, seq=written + 1, at=1.0, state="failed")
    journal.write(failed, [end], is_vital=True)
    journal.close()
    # The next worker opens it on the same disk, which is as full.
    again = Journal(small_disk)
    assert again.jobs() == [failed]
    assert again.last_seq(JOB) == written + 1
    assert again.events(JOB, written) == [end]
    again.close()
