"""Submissions under way are remembered, and nothing else is believed."""

from pathlib import Path

import pytest

from sleap_rtc_plugin.session.pending_jobs import (
    PendingJob,
    PendingJobs,
    submission_key,
)

JOB = PendingJob("job-" + "a" * 20, "worker-1", "gpu-box")


def test_a_submission_is_found_until_it_is_forgotten(tmp_path: Path) -> None:
    pending = PendingJobs(tmp_path)
    assert pending.find("k") is None
    pending.remember("k", JOB)
    assert PendingJobs(tmp_path).find("k") == JOB
    pending.forget("k")
    pending.forget("k")
    assert pending.find("k") is None


def test_a_job_is_found_by_its_id(tmp_path: Path) -> None:
    pending = PendingJobs(tmp_path)
    assert pending.of_job(JOB.job_id) is None
    pending.remember("k", JOB)
    (tmp_path / "pending" / "spoiled.json").write_text("{")
    assert pending.of_job(JOB.job_id) == JOB
    assert pending.of_job("job-" + "b" * 20) is None


def test_a_record_of_an_older_version_names_the_worker_by_its_id(
    tmp_path: Path,
) -> None:
    (tmp_path / "pending").mkdir()
    text = f'{{"job_id":"{JOB.job_id}","worker_id":"worker-1"}}'
    (tmp_path / "pending" / "k.json").write_text(text)
    found = PendingJobs(tmp_path).find("k")
    assert found is not None
    assert found.worker == "worker-1"


@pytest.mark.parametrize(
    "text", ["", "{", '{"job_id":"../x","worker_id":"w"}', '["a"]']
)
def test_a_spoiled_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "pending").mkdir()
    (tmp_path / "pending" / "k.json").write_text(text)
    assert PendingJobs(tmp_path).find("k") is None


def test_the_key_differs_where_the_submission_does(tmp_path: Path) -> None:
    def key(room: str = "r", digest: bytes = b"d", spec: bytes = b"s") -> str:
        return submission_key(
            room_id=room, package_digest=digest, spec=spec, output=tmp_path
        )

    assert key() == key()
    assert len({key(), key("q"), key(digest=b"e"), key(spec=b"t")}) == 4
