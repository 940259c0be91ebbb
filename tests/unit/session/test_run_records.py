"""What a SLEAP that was closed and opened again finds its runs by."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.session.run_records import RunRecord, RunRecords
from sleap_rtc_plugin.session.run_request import MergeChoice, ProjectFacts


def a_record(created_at: float = 1.0) -> RunRecord:
    return RunRecord(
        job_id=new_job_id(),
        room_id="room-1",
        worker_id="worker-1",
        worker="gpu",
        name="flies",
        output="/data",
        created_at=created_at,
        project=ProjectFacts(path="/data/flies.slp", nodes=["head"], videos=["a.mp4"]),
        merge=MergeChoice(mode="replace"),
    )


def test_records_come_back_the_oldest_first(tmp_path: Path) -> None:
    records = RunRecords(tmp_path)
    late, early = a_record(2.0), a_record(1.0)
    records.write(late)
    records.write(early)
    assert RunRecords(tmp_path).all() == [early, late]
    assert records.find(late.job_id) == late
    records.remove(late.job_id)
    assert records.all() == [early]


def test_a_spoiled_record_hides_no_other(tmp_path: Path) -> None:
    records = RunRecords(tmp_path)
    good = a_record()
    records.write(good)
    (tmp_path / "runs" / f"{new_job_id()}.json").write_bytes(b"{")
    (tmp_path / "runs" / "renamed.json").write_bytes(
        (tmp_path / "runs" / f"{good.job_id}.json").read_bytes()
    )
    assert records.all() == [good]


@pytest.mark.parametrize("job_id", ["../../etc/passwd", "", "job-"])
def test_an_id_is_never_a_path(tmp_path: Path, job_id: str) -> None:
    records = RunRecords(tmp_path)
    assert records.find(job_id) is None
    records.remove(job_id)


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert RunRecords(tmp_path).all() == []


def test_a_run_belongs_to_one_program_at_a_time(tmp_path: Path) -> None:
    record = a_record()
    mine = RunRecords(tmp_path).claim(record.job_id)
    assert mine is not None
    assert RunRecords(tmp_path).claim(record.job_id) is None
    mine.close()
    again = RunRecords(tmp_path).claim(record.job_id)
    assert again is not None
    again.close()
