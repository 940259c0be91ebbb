"""The client's picture of a job: gaps, repeats and lies."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import wire_samples
from support.machines import BROKEN

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, StorageFailed
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.job_mirror import (
    EventApplied,
    EventRepeated,
    EventsMissing,
    JobMirror,
)
from sleap_rtc_plugin.protocol.limits import MAX_LOSSES_PER_STEP
from sleap_rtc_plugin.protocol.messages import JobEvent, ProgressReport, TrainLog

ID = wire_samples.JOB


def state(seq: int, name: str, step: int | None = None, **more) -> JobEvent:
    return JobEvent(job_id=ID, seq=seq, at=0.0, state=name, step=step, **more)


def progress(seq: int, kind: str, step: int = 0, **more) -> ProgressReport:
    return ProgressReport(job_id=ID, seq=seq, at=0.0, step=step, kind=kind, **more)


def log(seq: int, *lines: str, step: int = 0) -> TrainLog:
    return TrainLog(job_id=ID, seq=seq, at=0.0, step=step, lines=list(lines))


def mirror(*events) -> JobMirror:
    made = JobMirror(ID, wire_samples.SPEC)
    for event in events:
        assert isinstance(made.handle(event), EventApplied)
    return made


HISTORY = [
    state(1, "staging"),
    state(2, "queued"),
    state(3, "starting", 0),
    state(4, "running", 0),
    progress(5, "train_begin"),
    progress(6, "batch_end", epoch=0, batch=3, losses={"train/loss": 2.0}),
    progress(7, "epoch_end", epoch=0, losses={"train/loss": 1.0, "val/loss": 3.0}),
    log(8, "epoch 0 done"),
    progress(9, "epoch_end", epoch=1, losses={"train/loss": 0.5}),
    progress(10, "train_end"),
    state(11, "starting", 2),
    progress(12, "predict", step=2, done=5, total=10, rate=2.5),
    state(13, "collecting", 2),
    state(14, "succeeded", 2),
]


def test_a_whole_job() -> None:
    job = mirror(*HISTORY)
    assert job.state is JobState.SUCCEEDED
    assert job.has_ended
    assert job.last_seq == 14
    train, _, predict = job.steps
    assert (train.epoch, train.has_begun, train.has_ended) == (1, True, True)
    assert train.losses == {"train/loss": 0.5, "val/loss": 3.0}
    assert (predict.done, predict.total, predict.rate) == (5, 10, 2.5)
    assert job.last_lines == ["epoch 0 done"]


def test_a_step_that_begins_again() -> None:
    """As a worker tells of a training that was cut off and goes on."""
    made = mirror(
        *HISTORY[:7],
        state(8, "starting", 0),
        log(9, "[worker] the training was cut off"),
        state(10, "running", 0),
        progress(11, "epoch_end", epoch=1, losses={"train/loss": 0.5}),
    )
    assert (made.state, made.step) == (JobState.RUNNING, 0)
    assert made.steps[0].epoch == 1
    assert made.steps[0].losses == {"train/loss": 0.5, "val/loss": 3.0}
    # Where no checkpoint was left, what was told is void.
    for event in (
        state(12, "starting", 0),
        progress(13, "train_begin"),
        progress(14, "epoch_end", epoch=0, losses={"train/loss": 1.0}),
    ):
        assert isinstance(made.handle(event), EventApplied)
    assert made.steps[0].epoch == 0
    assert made.steps[0].losses == {"train/loss": 1.0}


def test_a_stopping_step_begins_again_and_stays_stopping() -> None:
    made = mirror(*HISTORY[:4], state(5, "stopping", 0), state(6, "stopping", 0))
    assert made.was_stopped


def test_repeats_change_nothing() -> None:
    job = mirror(*HISTORY)
    before = (job.state, dict(job.steps[0].losses), list(job.last_lines))
    for event in HISTORY:
        assert job.handle(event) == EventRepeated()
    assert (job.state, dict(job.steps[0].losses), list(job.last_lines)) == before


def test_a_gap_says_from_where_to_ask_again() -> None:
    job = mirror(*HISTORY[:3])
    assert job.handle(HISTORY[5]) == EventsMissing(since=3)
    assert job.last_seq == 3
    assert job.state is JobState.STARTING
    for event in HISTORY[3:]:
        assert isinstance(job.handle(event), EventApplied)


def test_events_before_the_first_are_missed_too() -> None:
    assert mirror().handle(HISTORY[1]) == EventsMissing(since=0)


@given(st.lists(st.integers(0, len(HISTORY) - 1), max_size=60))
def test_any_order_and_then_the_rest_gives_the_same_picture(order: list[int]) -> None:
    job = mirror()
    for index in order:
        job.handle(HISTORY[index])
    for event in HISTORY[job.last_seq :]:
        assert isinstance(job.handle(event), EventApplied)
    straight = mirror(*HISTORY)
    assert job.steps == straight.steps
    assert job.last_lines == straight.last_lines


@pytest.mark.parametrize(
    "event", [HISTORY[0], HISTORY[4], HISTORY[7]], ids=lambda e: e.NAME
)
def test_another_jobs_event(event) -> None:
    strange = msgspec.structs.replace(event, job_id="job-" + "f" * 20)
    job = mirror()
    with pytest.raises(RemoteProtocolError):
        job.handle(strange)
    assert job.last_seq == 0


@pytest.mark.parametrize(
    "event",
    [
        state(5, "dancing", 0),
        state(5, "RUNNING", 0),
        state(5, "running", 3),
        state(5, "queued"),
        state(5, "submitted"),
        progress(5, "epoch_end", step=3),
        log(5, "line", step=99),
    ],
    ids=repr,
)
def test_impossible_events_are_refused_and_leave_no_trace(event) -> None:
    job = mirror(*HISTORY[:4])
    with pytest.raises(RemoteProtocolError):
        job.handle(event)
    assert (job.last_seq, job.state, job.step) == (4, JobState.RUNNING, 0)


@pytest.mark.parametrize("end", sorted(ENDED))
def test_nothing_follows_an_end(end: JobState) -> None:
    job = mirror(state(1, end.value))
    for name in JobState:
        with pytest.raises(RemoteProtocolError):
            job.handle(state(2, name.value))
    assert job.state is end


def test_an_error_arrives_with_its_fields_cleaned() -> None:
    wire = StorageFailed(place="/data\x1b[2J", reason="\u202egone").to_wire()
    job = mirror(state(1, "failed", error=wire))
    assert isinstance(job.error, StorageFailed)
    assert "\x1b" not in str(job.error)
    assert "\u202e" not in str(job.error)
    assert mirror(state(1, "failed", error=BROKEN.to_wire())).error is not BROKEN


def test_the_last_lines_are_clean_and_few() -> None:
    job = mirror(
        *[log(n, f"line {n}\x1b[31m", f"more {n}") for n in range(1, 31)],
    )
    assert len(job.last_lines) == 20
    assert job.last_lines[-1] == "more 30"
    assert all(line.isprintable() for line in job.last_lines)


def test_a_long_line_is_kept_whole() -> None:
    job = mirror(log(1, "x" * 500))
    assert job.last_lines == ["x" * 500]


def test_a_worker_that_invents_names_of_losses_does_not_fill_our_memory() -> None:
    made = mirror(*HISTORY[:5])
    known = {"train/loss": 1.0}
    made.handle(progress(6, "batch_end", losses=known))
    for seq in range(7, 7 + 2 * MAX_LOSSES_PER_STEP):
        made.handle(progress(seq, "batch_end", losses={f"invented {seq}": 1.0}))
    made.handle(progress(made.last_seq + 1, "batch_end", losses={"train/loss": 0.5}))
    assert len(made.steps[0].losses) == MAX_LOSSES_PER_STEP
    assert made.steps[0].losses["train/loss"] == 0.5
