"""A worker's jobs, page by page, each small enough for a frame."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.errors import ErrorInfo, JobUnknown
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import (
    MAX_CONTROL_FRAME_BYTES,
    MAX_ERROR_TEXT_CHARS,
    MAX_JOBS_PER_PAGE,
)
from sleap_rtc_plugin.protocol.messages import JobListed, JobSpec, TrainStep
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_coordinator import JobCoordinator
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.job_run import StepTools
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.state_manager import StateManager

STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")


def job_id(number: int) -> str:
    return f"job-{number:020x}"


def record(number: int, error: ErrorInfo | None = None) -> JobRecord:
    return JobRecord(
        job_id=job_id(number),
        spec=JobSpec(name="é" * 120, owner="é" * 120, steps=[STEP]),
        package_digest="0" * 64,
        package_bytes=1,
        submitter="client",
        # Two jobs a second: the id decides between them.
        created_at=float(number // 2),
        state=JobState.FAILED,
        error=error,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.close()


def coordinator(journal: Journal, folder: Path) -> JobCoordinator:
    tools = StepTools(
        journal=journal,
        files=FileManager(folder),
        executor=JobExecutor(),
        trainer=["sleap-nn"],
        worker_name="w",
    )
    state = StateManager(name="w", capabilities={}, tags=[], on_change=lambda _: None)
    return JobCoordinator(tools=tools, state=state, can_train=True)


def pages(jobs: JobCoordinator) -> list[list[str]]:
    """Ask for every page; each must fit a frame."""
    found: list[list[str]] = []
    after: str | None = None
    more = True
    while more:
        page, more = jobs.page(after)
        frame = codec.encode_control(JobListed(command_id="c-1", jobs=page, more=more))
        assert len(frame.encode()) <= MAX_CONTROL_FRAME_BYTES
        assert codec.decode_control(frame).jobs == page
        found.append([job.job_id for job in page])
        after = found[-1][-1] if page else None
    return found


def test_a_new_worker_has_none(journal: Journal, tmp_path: Path) -> None:
    assert coordinator(journal, tmp_path).page(None) == ([], False)


def test_every_job_is_listed_once_the_newest_first(
    journal: Journal, tmp_path: Path
) -> None:
    count = 2 * MAX_JOBS_PER_PAGE + 1
    for number in range(count):
        journal.write(record(number))
    found = pages(coordinator(journal, tmp_path))
    assert [len(page) for page in found] == [MAX_JOBS_PER_PAGE] * 2 + [1]
    assert [job for page in found for job in page] == [
        job_id(n) for n in reversed(range(count))
    ]


def test_a_page_of_long_errors_ends_earlier(journal: Journal, tmp_path: Path) -> None:
    fields = dict.fromkeys(("step", "reason", "last_lines"), "\U0001f400" * 10_000)
    for number in range(8):
        journal.write(record(number, ErrorInfo("step_failed", fields)))
    jobs = coordinator(journal, tmp_path)
    found = pages(jobs)
    assert [len(page) for page in found] == [2] * 4
    [first, *_], _ = jobs.page(None)
    assert first.error is not None
    assert {len(text) for text in first.error.fields.values()} == {MAX_ERROR_TEXT_CHARS}


def test_a_page_after_a_job_that_is_not_there(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JobUnknown):
        coordinator(journal, tmp_path).page(job_id(1))
