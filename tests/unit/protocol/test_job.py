"""Every way a job can go, as its coordinator sees it."""

import pytest
from support import wire_samples
from support.machines import BROKEN, JOB, RUNNER_GONE, STEP_FAILED

from sleap_rtc_plugin.protocol.errors import JobCancelled
from sleap_rtc_plugin.protocol.job import (
    CancelRequested,
    CancelStep,
    CollectingFailed,
    CollectResults,
    Discard,
    Event,
    Job,
    JobState,
    PackageRefused,
    PackageStaged,
    Record,
    ResultsCollected,
    RunnerLost,
    SlotGranted,
    StagingBegan,
    StartStep,
    StepEnded,
    StepInterrupted,
    StepRunning,
    StopRequested,
    StopStep,
)

STATE = JobState
READY = [StagingBegan(), PackageStaged(), SlotGranted()]


def feed(job: Job, *events: Event) -> list:
    instructions: list = []
    for event in events:
        instructions += job.handle(event, 0.0)
    return instructions


def new_job(*events: Event) -> Job:
    job = JOB.make()
    feed(job, *events)
    return job


def records(instructions: list) -> list[tuple[JobState, int | None]]:
    return [(i.state, i.step) for i in instructions if isinstance(i, Record)]


def test_from_submit_to_success() -> None:
    job = JOB.make()
    went_well = [StepRunning(), StepEnded(None)]
    instructions = feed(job, *READY, *went_well * 3, ResultsCollected())
    assert records(instructions) == [
        (STATE.STAGING, None),
        (STATE.QUEUED, None),
        (STATE.STARTING, 0),
        (STATE.RUNNING, 0),
        (STATE.STARTING, 1),
        (STATE.RUNNING, 1),
        (STATE.STARTING, 2),
        (STATE.RUNNING, 2),
        (STATE.COLLECTING, 2),
        (STATE.SUCCEEDED, 2),
    ]
    starts = [i for i in instructions if isinstance(i, StartStep)]
    assert starts == [StartStep(0), StartStep(1), StartStep(2)]
    assert CollectResults((0, 1, 2)) in instructions
    assert job.error is None


def test_a_change_is_recorded_before_anything_is_done_about_it() -> None:
    for state in JOB.states:
        for event in JOB.events:
            job = JOB.at(state)
            if type(event) not in JOB.machine.TABLE[state]:
                continue
            before = (job.state, job.step, job.error, job.stop_scope)
            instructions = job.handle(event, 0.0)
            if instructions:
                assert isinstance(instructions[0], Record)
            elif before != (job.state, job.step, job.error, job.stop_scope):
                pytest.fail(f"{event} in {state} changed the job without a record")


def test_a_package_that_is_refused() -> None:
    for events in ([], [StagingBegan()]):
        job = new_job(*events)
        refused = feed(job, PackageRefused(BROKEN))
        assert refused == [Record(STATE.REJECTED, None, BROKEN), Discard()]


def test_staging_may_begin_again_on_a_new_link() -> None:
    job = new_job(StagingBegan())
    assert feed(job, StagingBegan()) == []
    assert job.state is STATE.STAGING


@pytest.mark.parametrize("events", [[], READY[:1], READY[:2]], ids=len)
@pytest.mark.parametrize(
    "event", [CancelRequested(), StopRequested("step"), StopRequested("job")]
)
def test_before_it_runs_stop_and_cancel_are_the_same(
    events: list[Event], event: Event
) -> None:
    job = new_job(*events)
    [record, discard] = feed(job, event)
    assert record.state is STATE.CANCELLED
    assert isinstance(record.error, JobCancelled)
    assert discard == Discard()


@pytest.mark.parametrize("began", [[], [StepRunning()]], ids=["starting", "running"])
def test_cancel_while_a_step_runs(began: list[Event]) -> None:
    job = new_job(*READY, *began)
    assert feed(job, CancelRequested()) == [
        Record(STATE.CANCELLING, 0),
        CancelStep(0),
    ]
    assert feed(job, CancelRequested(), StopRequested("job"), StepRunning()) == []
    instructions = feed(job, StepEnded(STEP_FAILED))
    assert records(instructions) == [(STATE.CANCELLED, 0)]
    assert instructions[-1] == Discard()
    assert isinstance(job.error, JobCancelled)


def test_a_cancelled_step_that_ends_well_or_is_lost_is_still_cancelled() -> None:
    for event in (StepEnded(None), RunnerLost(RUNNER_GONE)):
        job = new_job(*READY, CancelRequested())
        feed(job, event)
        assert job.state is STATE.CANCELLED
        assert isinstance(job.error, JobCancelled)


def test_cancel_after_stop() -> None:
    job = new_job(*READY, StepRunning(), StopRequested("step"))
    assert feed(job, CancelRequested())[-1] == CancelStep(0)
    assert job.state is STATE.CANCELLING


def test_cancel_while_collecting() -> None:
    job = new_job(*READY, StepEnded(STEP_FAILED))
    assert feed(job, CancelRequested())[-1] == Discard()
    assert job.state is STATE.CANCELLED
    assert feed(job, ResultsCollected(), CollectingFailed(BROKEN)) == []
    assert job.state is STATE.CANCELLED


def test_stopping_a_step_goes_on_with_the_next() -> None:
    job = new_job(*READY, StepRunning())
    stopping = feed(job, StopRequested("step"))
    assert stopping == [Record(STATE.STOPPING, 0), StopStep(0)]
    instructions = feed(job, StepEnded(None))
    assert instructions == [Record(STATE.STARTING, 1), StartStep(1)]
    assert job.finished_steps == [0]
    assert job.stop_scope is None


def test_stopping_the_job_keeps_the_step_and_leaves_the_rest_out() -> None:
    job = new_job(*READY, StepRunning(), StopRequested("job"))
    assert CollectResults((0,)) in feed(job, StepEnded(None))
    feed(job, ResultsCollected())
    assert job.state is STATE.SUCCEEDED


def test_a_stop_may_be_widened_but_not_narrowed() -> None:
    job = new_job(*READY, StopRequested("step"))
    # The journal must know, or a restarted worker would go on with the next step.
    assert feed(job, StopRequested("job")) == [Record(STATE.STOPPING, 0)]
    assert feed(job, StopRequested("step"), StopRequested("job")) == []
    assert CollectResults((0,)) in feed(job, StepEnded(None))


def test_stopping_inference_keeps_the_models() -> None:
    trained = [StepRunning(), StepEnded(None)] * 2
    for outcome in (None, STEP_FAILED):
        job = new_job(*READY, *trained, StepRunning(), StopRequested("step"))
        assert CollectResults((0, 1)) in feed(job, StepEnded(outcome))
        feed(job, ResultsCollected())
        assert job.state is STATE.SUCCEEDED


def test_a_stopped_training_that_crashes_has_failed() -> None:
    job = new_job(*READY, StopRequested("step"), StepEnded(STEP_FAILED))
    feed(job, ResultsCollected())
    assert job.state is STATE.FAILED


@pytest.mark.parametrize(
    ("event", "end"),
    [(StepEnded(STEP_FAILED), STATE.FAILED), (RunnerLost(RUNNER_GONE), STATE.LOST)],
)
def test_a_failure_keeps_what_earlier_steps_made(event: Event, end: JobState) -> None:
    job = new_job(*READY, StepRunning(), StepEnded(None), StepRunning())
    instructions = feed(job, event)
    assert records(instructions) == [(STATE.COLLECTING, 1)]
    assert instructions[-1] == CollectResults((0,))
    assert feed(job, ResultsCollected()) == [Record(end, 1, event.error)]


@pytest.mark.parametrize("began", [[], [StepRunning()]])
def test_a_step_that_was_cut_off_begins_again(began: list[Event]) -> None:
    job = new_job(*READY, *began)
    for _ in range(3):
        instructions = feed(job, StepInterrupted())
        assert instructions == [Record(STATE.STARTING, 0), StartStep(0)]
        feed(job, StepRunning())
    assert job.finished_steps == []


def test_a_training_that_was_to_stop_begins_again_and_stops() -> None:
    job = new_job(*READY, StepRunning(), StopRequested("job"))
    instructions = feed(job, StepInterrupted())
    assert instructions == [Record(STATE.STOPPING, 0), StartStep(0)]
    assert CollectResults((0,)) in feed(job, StepEnded(None))


def test_an_inference_that_was_to_stop_has_ended() -> None:
    trained = [StepRunning(), StepEnded(None)] * 2
    job = new_job(*READY, *trained, StepRunning(), StopRequested("step"))
    assert CollectResults((0, 1)) in feed(job, StepInterrupted())


def test_a_step_that_was_cut_off_while_it_was_cancelled_is_cancelled() -> None:
    job = new_job(*READY, CancelRequested())
    assert records(feed(job, StepInterrupted())) == [(STATE.CANCELLED, 0)]


@pytest.mark.parametrize("began", [[], [StepRunning()], [StopRequested("step")]])
def test_a_runner_may_be_lost_whenever_it_runs(began: list[Event]) -> None:
    job = new_job(*READY, *began, RunnerLost(RUNNER_GONE), ResultsCollected())
    assert job.state is STATE.LOST
    assert job.error is RUNNER_GONE


def test_results_that_cannot_be_gathered() -> None:
    job = new_job(*READY, *[StepEnded(None)] * 3)
    assert feed(job, CollectingFailed(BROKEN)) == [Record(STATE.FAILED, 2, BROKEN)]


def test_what_went_wrong_first_is_what_the_user_hears() -> None:
    job = new_job(*READY, StepEnded(STEP_FAILED), CollectingFailed(BROKEN))
    assert job.error is STEP_FAILED
    lost = new_job(*READY, RunnerLost(RUNNER_GONE), CollectingFailed(BROKEN))
    assert lost.state is STATE.LOST


def test_a_restored_job_goes_on_where_it_stood() -> None:
    job = Job.restore(
        wire_samples.JOB,
        wire_samples.SPEC,
        state=STATE.STOPPING,
        step=1,
        error=None,
        finished_steps=[0],
        stop_scope="job",
    )
    assert not job.has_ended
    assert CollectResults((0, 1)) in feed(job, StepEnded(None))
