"""Whose files go and whose stay: the rules alone, then with files and a journal."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.errors import DiskFull, QuotaExceeded, ResultsRemoved
from sleap_rtc_plugin.protocol.job import JobState
from sleap_rtc_plugin.protocol.limits import KIB
from sleap_rtc_plugin.protocol.messages import JobSpec, TrainStep
from sleap_rtc_worker.file_manager import FileManager
from sleap_rtc_worker.job_executor import JobExecutor
from sleap_rtc_worker.job_run import JobRun, StepTools
from sleap_rtc_worker.journal import JobRecord, Journal
from sleap_rtc_worker.limits import FETCHED_GRACE_S, FORGET_AFTER_S, KEEP_RESULTS_S
from sleap_rtc_worker.result_keeper import ResultKeeper
from sleap_rtc_worker.retention import JobLimits, Kept, due, room_makers

DAY = 24 * 3600.0
NOW = 1_800_000_000.0
STEP = TrainStep(config="c.yaml", labels="l.slp", run_name="r", head="centroid")

kept_jobs = st.lists(
    st.builds(
        Kept,
        job_id=st.uuids().map(str),
        size_bytes=st.integers(0, 100),
        ended_at=st.floats(0, 100),
        expires_at=st.floats(0, 200),
        is_fetched=st.booleans(),
        is_held=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda job: job.job_id,
)


def kept(name: str, *, fetched: bool = False, days: float = 1, size: int = 10) -> Kept:
    ended_at = NOW - days * DAY
    return Kept(name, size, ended_at, ended_at + KEEP_RESULTS_S, fetched)


def test_fetched_results_go_before_others_and_the_oldest_first() -> None:
    jobs = [
        kept("unfetched", days=40),
        kept("new", fetched=True, days=2),
        kept("old", fetched=True, days=3),
        kept("promised", days=29),
    ]
    assert room_makers(jobs, NOW, 1) == ["old"]
    assert room_makers(jobs, NOW, 11) == ["old", "new"]
    assert room_makers(jobs, NOW, 30) == ["old", "new", "unfetched"]
    assert room_makers(jobs, NOW, 31) is None
    assert room_makers(jobs, NOW, 0) == []


def test_what_nobody_fetched_goes_only_where_room_is_needed() -> None:
    assert due([kept("a", days=31), kept("b", fetched=True, days=31)], NOW) == ["b"]
    assert due([kept("c", fetched=True, days=29)], NOW) == []


def test_what_is_read_now_stays() -> None:
    held = dataclasses.replace(kept("a", fetched=True, days=99), is_held=True)
    assert due([held], NOW) == []
    assert room_makers([held], NOW, 1) is None


@given(kept_jobs, st.floats(0, 300), st.integers(-5, 300))
def test_no_promise_is_broken(jobs: list[Kept], now: float, missing: int) -> None:
    chosen = room_makers(jobs, now, missing)
    by_id = {job.job_id: job for job in jobs}
    for job_id in [*(chosen or ()), *due(jobs, now)]:
        job = by_id[job_id]
        assert not job.is_held
        assert job.is_fetched or now >= job.expires_at
    if chosen is not None:
        sizes = [by_id[job_id].size_bytes for job_id in chosen]
        assert sum(sizes) >= missing
        # None too many: without the last one it would not be enough.
        assert not sizes or sum(sizes[:-1]) < missing


# -- files ---------------------------------------------------------------------------


class Yard:
    """Jobs that have ended, with files of a known size."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.now = NOW
        self.journal = Journal(folder)
        self.files = FileManager(folder)
        self.tools = StepTools(
            journal=self.journal,
            files=self.files,
            executor=JobExecutor(),
            trainer=[],
            worker_name="w",
        )
        self.jobs: dict[str, JobRun] = {}
        self.keeper = self.keep(**limits)

    def keep(self, **limits: float) -> ResultKeeper:
        return ResultKeeper(
            self.jobs,
            self.tools,
            JobLimits(**limits),  # type: ignore[arg-type]
            wall_clock=lambda: self.now,
        )

    def add(
        self,
        number: int,
        *,
        days: float,
        state: JobState = JobState.SUCCEEDED,
        fetched: bool = False,
        kib: int = 64,
    ) -> JobRun:
        ended_at = NOW - days * DAY
        is_over = state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
        record = JobRecord(
            job_id=f"job-{number:020x}",
            spec=JobSpec(name="x", steps=[STEP]),
            package_digest="0" * 64,
            package_bytes=kib * KIB,
            submitter="client",
            created_at=ended_at - 60,
            state=state,
            step=0,
            finished_steps=[0] if state is JobState.SUCCEEDED else [],
            ended_at=ended_at if is_over else None,
            fetched_at=ended_at + 1 if fetched else None,
        )
        self.journal.write(record)
        if state is not JobState.CANCELLED:
            model = self.files.package_dir(record.job_id) / "models" / "r"
            model.mkdir(parents=True)
            (model / "best.ckpt").write_bytes(b"x" * kib * KIB)
        run = JobRun(record, self.tools, lambda run: None)
        self.jobs[record.job_id] = run
        return run

    def has(self, run: JobRun) -> bool:
        return self.files.has_files(run.job_id)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.journal.close()


async def test_files_are_measured_once_a_job_has_ended(yard: Yard) -> None:
    run = yard.add(1, days=1)
    await yard.keeper.tend()
    assert 64 * KIB <= run.record.size_bytes < 80 * KIB
    assert yard.keeper.used_bytes == run.record.size_bytes
    assert yard.journal.jobs()[0].size_bytes == run.record.size_bytes


async def test_results_that_came_home_go_when_their_time_is_over(yard: Yard) -> None:
    fetched, unfetched = yard.add(1, days=31, fetched=True), yard.add(2, days=31)
    await yard.keeper.tend()
    assert (yard.has(fetched), yard.has(unfetched)) == (False, True)
    assert fetched.summary().results_removed
    assert not unfetched.summary().results_removed
    with (
        pytest.raises(ResultsRemoved, match="were removed on 2027-01-"),
        fetched.held(),
    ):
        pass


async def test_a_job_that_made_nothing_has_nothing_to_miss(yard: Yard) -> None:
    """Its reason is what a client that comes later is to read."""
    fresh = yard.add(2, days=1, state=JobState.FAILED)
    failed = yard.add(1, days=31, state=JobState.FAILED)
    await yard.keeper.tend()
    # The checkpoints of a training that failed may be hours of work.
    assert (yard.has(fresh), yard.has(failed)) == (True, False)
    assert not failed.summary().results_removed
    assert failed.summary().expires_at is None
    with failed.held():
        assert (await failed.results()).manifest.total_bytes == 0


async def test_a_quota_refuses_rather_than_break_a_promise(yard: Yard) -> None:
    yard.keeper = yard.keep(disk_quota_bytes=200 * KIB)
    promised, old = yard.add(1, days=29), yard.add(2, days=31)
    await yard.keeper.tend()
    assert yard.keeper.refusal(32 * KIB) is None
    # Asking changes nothing; the job that comes does.
    assert yard.has(old)
    assert yard.keeper.refusal(64 * KIB) is None
    yard.keeper.make_room(64 * KIB)
    await yard.keeper.settle()
    assert (yard.has(promised), yard.has(old)) == (True, False)
    refusal = yard.keeper.refusal(128 * KIB)
    assert isinstance(refusal, QuotaExceeded)
    assert "w may not take more" in str(refusal)
    assert yard.has(promised)
    # Two days later the promise is kept, and the same job is taken.
    yard.now += 2 * DAY
    assert yard.keeper.refusal(128 * KIB) is None
    yard.keeper.make_room(128 * KIB)
    await yard.keeper.settle()
    assert not yard.has(promised)


async def test_what_came_home_just_now_stays_for_an_hour(yard: Yard) -> None:
    yard.keeper = yard.keep(disk_quota_bytes=100 * KIB)
    run = yard.add(1, days=1)
    run.note(fetched_at=NOW - FETCHED_GRACE_S + 1)
    await yard.keeper.tend()
    assert yard.keeper.refusal(64 * KIB) is not None
    yard.now += 1
    assert yard.keeper.refusal(64 * KIB) is None


async def test_results_that_are_being_fetched_stay(yard: Yard) -> None:
    run = yard.add(1, days=31, fetched=True)
    with run.held():
        await yard.keeper.tend()
        assert yard.has(run)
    await yard.keeper.tend()
    assert not yard.has(run)


async def test_a_running_job_never_goes_and_counts_what_it_will_take(
    yard: Yard,
) -> None:
    yard.keeper = yard.keep(disk_quota_bytes=100 * KIB)
    run = yard.add(1, days=99, state=JobState.RUNNING, kib=60)
    await yard.keeper.tend()
    assert yard.has(run)
    assert yard.keeper.used_bytes == 72 * KIB
    assert isinstance(yard.keeper.refusal(60 * KIB), QuotaExceeded)


async def test_a_full_disk_is_no_quota(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: type("Usage", (), {"free": 10 * KIB})
    )
    yard.add(1, days=29)
    await yard.keeper.tend()
    assert isinstance(yard.keeper.refusal(64 * KIB), DiskFull)
    yard.now += 2 * DAY
    assert yard.keeper.refusal(32 * KIB) is None


async def test_what_a_crash_left_of_a_removal_goes_with_the_next_start(
    yard: Yard,
) -> None:
    run = yard.add(1, days=3, fetched=True)
    run.note(removed_at=NOW)
    cancelled = yard.add(2, days=3, state=JobState.CANCELLED)
    (yard.files.job_dir(cancelled.job_id)).mkdir()
    await yard.keeper.tend()
    assert not yard.has(run)
    assert not yard.has(cancelled)


async def test_a_job_stays_on_the_list_for_a_while(yard: Yard) -> None:
    run = yard.add(1, days=31, fetched=True)
    await yard.keeper.tend()
    yard.now += FORGET_AFTER_S - 1
    await yard.keeper.tend()
    assert list(yard.jobs) == [run.job_id]
    yard.now += 1
    run.watch(lambda: None)
    await yard.keeper.tend()
    assert list(yard.jobs) == [run.job_id]
    run._watchers.clear()
    await yard.keeper.tend()
    assert not yard.jobs
    assert yard.journal.jobs() == []


async def test_unfetched_results_are_never_forgotten(yard: Yard) -> None:
    run = yard.add(1, days=1)
    yard.now += 10 * FORGET_AFTER_S
    await yard.keeper.tend()
    assert yard.has(run)
    assert list(yard.jobs) == [run.job_id]
