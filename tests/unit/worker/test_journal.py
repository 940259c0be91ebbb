"""The journal keeps jobs and events, and lets one worker in."""

import json
import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from sleap_rtc_plugin.protocol.errors import (
    FolderInUse,
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
from sleap_rtc_worker.journal import JOURNAL_VERSION, JobRecord, Journal

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
    with pytest.raises(StorageFailed, match="newer version"):
        Journal(tmp_path)


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
    with pytest.raises(StorageFailed):
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
    with pytest.raises(StorageFailed):
        Journal(tmp_path)
