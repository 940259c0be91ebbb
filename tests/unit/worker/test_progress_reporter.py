import pytest

from sleap_rtc_plugin.protocol.messages import ProgressReport, TrainLog
from sleap_rtc_worker.progress_reporter import (
    ProgressReporter,
    UnnumberedEvent,
    to_message,
)
from sleap_rtc_worker.step_records import (
    RunnerEvent,
    StepLog,
    StepProgress,
    StepSignal,
    StepStarted,
)

JOB = "job-0123456789abcdef0123"
PROGRESS = StepProgress(
    at=5.0, event="epoch_end", epoch=3, losses={"loss": 0.5, "val/loss": 0.25}
)
LOG = StepLog(at=6.0, lines=["one", "two"], dropped=4)


def test_progress_keeps_every_field() -> None:
    assert to_message(JOB, 1, 9, PROGRESS) == ProgressReport(
        job_id=JOB,
        seq=9,
        at=5.0,
        step=1,
        kind="epoch_end",
        epoch=3,
        losses={"loss": 0.5, "val/loss": 0.25},
    )
    predicted = StepProgress(event="predict", done=4, total=10, rate=2.5)
    message = to_message(JOB, 0, 1, predicted)
    assert isinstance(message, ProgressReport)
    assert (message.done, message.total, message.rate) == (4, 10, 2.5)


def test_log_keeps_every_field() -> None:
    assert to_message(JOB, 0, 2, LOG) == TrainLog(
        job_id=JOB, seq=2, at=6.0, step=0, lines=["one", "two"], dropped=4
    )


@pytest.mark.parametrize("how", ["stop", "interrupt", "terminate", "kill"])
def test_signals_are_said_in_the_log(how: str) -> None:
    event = StepSignal(how=how)  # type: ignore[arg-type]
    message = to_message(JOB, 0, 1, event)
    assert isinstance(message, TrainLog)
    assert message.lines[0].startswith("[worker]")


def test_the_start_is_no_message() -> None:
    event = StepStarted(pid=1)
    assert to_message(JOB, 0, 1, event) is None
    with pytest.raises(ValueError, match="without a message"):
        UnnumberedEvent(step=0, at=0.0, event=event).numbered(JOB, 1)


def test_the_reporter_publishes_what_clients_get() -> None:
    published: list[UnnumberedEvent] = []
    reporter = ProgressReporter(2, published.append)
    given: list[RunnerEvent] = [StepStarted(pid=1), PROGRESS, LOG]
    assert [reporter.report(event) for event in given] == [False, True, True]
    assert [(event.step, event.at) for event in published] == [(2, 5.0), (2, 6.0)]
    assert published[0].numbered(JOB, 7) == to_message(JOB, 2, 7, PROGRESS)
