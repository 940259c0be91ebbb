"""A worker whose journal cannot be used, or whose disk is full: real programs."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.programs import Programs, Worker

JOB_FAILED, REFUSED = 1, 4
DISK_MIB = 24

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def journal(programs: Programs) -> Path:
    """The journal of a worker that has ended."""
    worker = programs.scripted_worker("train").wait_ready()
    worker.terminate()
    worker.wait()
    path = programs.folder / "worker-data" / "journal.sqlite3"
    assert path.is_file()
    return path


def refused(programs: Programs, code: int) -> str:
    """Start a worker on it; return the one sentence that it ends with."""
    worker: Worker = programs.scripted_worker("train")
    assert worker.wait() == code, worker.story()
    assert worker.out == []
    (sentence,) = worker.err
    return sentence


def test_a_journal_of_a_newer_version(programs: Programs, journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as database:
        database.execute("PRAGMA user_version=99")
        database.commit()
    before = journal.read_bytes()
    sentence = refused(programs, REFUSED)
    assert "a newer version of this program (journal version 99)" in sentence
    assert "pip install -U" in sentence
    assert journal.read_bytes() == before


def test_a_torn_journal(programs: Programs, journal: Path) -> None:
    data = journal.read_bytes()
    journal.write_bytes(data[: len(data) // 2])
    before = journal.read_bytes()
    for _ in range(2):
        sentence = refused(programs, JOB_FAILED)
        assert "is damaged" in sentence
        assert "move it away" in sentence
        assert journal.read_bytes() == before
    # What the sentence says helps.
    journal.replace(journal.with_name("damaged"))
    programs.scripted_worker("train").wait_ready()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def fill(disk: Path) -> Path:
    """Leave not a byte free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def test_a_disk_that_fills_up_while_a_job_trains(
    programs: Programs, small_package: Path, small_disk: Path, output: Path
) -> None:
    """The job fails, the journal knows it, and the worker goes on."""
    data = small_disk / "data"
    behaviour = "epochs,epochs=1000,pace_ms=100"
    worker = programs.scripted_worker(behaviour, "--data", data).wait_ready()
    client = programs.train(small_package, worker.session, output)
    client.wait_event(event="progress", kind="epoch_end")
    ballast = fill(small_disk)
    assert client.wait(120) == JOB_FAILED, client.story()
    assert client.report["state"] == "failed", client.story()
    # Whoever notices first: the worker's journal or sleap-nn.
    assert "space" in client.report["error"]["message"]
    assert worker.is_running
    worker.kill()
    ballast.unlink()
    copy = programs.folder / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("store", "jobs"))
    with closing(sqlite3.connect(copy / "journal.sqlite3")) as database:
        assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        rows = database.execute("SELECT record FROM jobs").fetchall()
    assert [json.loads(row)["state"] for (row,) in rows] == ["failed"]
    # There is room again: the next worker takes the journal up, and a job.
    worker = programs.scripted_worker("train", "--data", data).wait_ready()
    again = programs.train(small_package, worker.session, programs.folder / "again")
    assert again.wait(120) == 0, again.story()
