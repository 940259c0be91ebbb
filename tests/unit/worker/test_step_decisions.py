import json

import pytest

from sleap_rtc_plugin.protocol.errors import LocalProtocolError
from sleap_rtc_plugin.protocol.limits import (
    MAX_LAST_LINES,
    MAX_LOG_LINES_PER_EVENT,
    MAX_LOG_LINES_PER_S,
)
from sleap_rtc_worker import step_machine
from sleap_rtc_worker.limits import (
    LOG_FLUSH_INTERVAL_S,
    STOP_RESEND_INTERVAL_S,
)
from sleap_rtc_worker.step_machine import (
    Asked,
    Emit,
    Exited,
    Finish,
    GoingDown,
    Happening,
    Instruction,
    Message,
    NotStarted,
    Output,
    Phase,
    PublishStop,
    SignalTrainer,
    Started,
    StepMachine,
)
from sleap_rtc_worker.step_records import (
    StepLog,
    StepOrder,
    StepOutcome,
    StepProgress,
    StepSignal,
    StepStarted,
)

TRAIN = StepOrder(
    kind="train",
    argv=["x"],
    cwd="/",
    stop_grace_s=100.0,
    interrupt_grace_s=10.0,
    terminate_grace_s=5.0,
)
PREDICT = StepOrder(kind="predict", argv=["x"], cwd="/", interrupt_grace_s=10.0)
EXIT_0 = Exited(exit_code=0, signal=None, missing=(), at=2000.0)


def message(event: str, **fields: object) -> Message:
    return Message(json.dumps({"event": event, "logs": None, **fields}).encode())


def machine(order: StepOrder = TRAIN) -> StepMachine:
    made = StepMachine(order)
    assert made.handle(Started(7, 1000.0), 0.0) == [Emit(StepStarted(pid=7))]
    return made


def events(instructions: list[Instruction]) -> list[object]:
    return [item.event for item in instructions if isinstance(item, Emit)]


def finish(
    made: StepMachine, now: float = 50.0, happening: Happening = EXIT_0
) -> StepOutcome:
    last = made.handle(happening, now)[-1]
    assert isinstance(last, Finish)
    assert made.phase is Phase.ENDED
    assert made.deadline() is None
    return last.outcome


def test_progress_passes_through_and_is_counted() -> None:
    made = machine()
    assert events(made.handle(message("train_begin"), 1.0)) == [
        StepProgress(event="train_begin")
    ]
    made.handle(message("epoch_end", epoch=0), 2.0)
    made.handle(message("epoch_end", epoch=1), 2.0)
    made.handle(message("train_end"), 3.0)
    made.handle(Message(b"garbage"), 3.0)
    outcome = finish(made)
    assert outcome.train_begin
    assert outcome.train_end
    assert (outcome.epochs, outcome.messages_dropped) == (2, 1)
    assert (outcome.began, outcome.ended) == (1000.0, 2000.0)


def test_batches_are_thinned_and_epochs_never() -> None:
    made = machine()
    # 64 batches a second, of which every fourth comes 1/20 s after the one kept.
    given = [made.handle(message("batch_end", batch=n), n / 64) for n in range(128)]
    kept = [batch for instructions in given for batch in events(instructions)]
    assert len(kept) == 32
    # The last batch says how long the epoch was, and comes after all.
    last, end = events(made.handle(message("epoch_end", epoch=0), 2.0))
    assert (last.event, last.batch) == ("batch_end", 127)
    assert (end.event, end.epoch) == ("epoch_end", 0)
    for epoch in range(1, 100):
        assert len(made.handle(message("epoch_end", epoch=epoch), 2.0)) == 1
    assert finish(made).batches_thinned == 128 - len(kept) - 1


def test_a_stop_is_published_until_it_works() -> None:
    made = machine()
    made.handle(message("train_begin"), 1.0)
    assert made.handle(Asked("stop"), 2.0) == [
        Emit(StepSignal(how="stop")),
        PublishStop(),
    ]
    assert made.handle(Asked("stop"), 2.1) == []
    assert made.deadline() == 2.0 + STOP_RESEND_INTERVAL_S
    assert made.handle(None, 2.25) == [PublishStop()]
    made.handle(message("train_end"), 3.0)
    # The evaluation of the model may take longer than any patience.
    assert made.deadline() is None
    assert made.handle(None, 10_000.0) == []
    outcome = finish(made, 10_001.0)
    assert (outcome.stopped, outcome.cancelled, outcome.forced) == (True, False, None)


def test_a_stop_that_is_not_heard_becomes_an_interrupt() -> None:
    made = machine()
    made.handle(Asked("stop"), 0.0)
    made.handle(message("train_begin"), 90.0)
    assert SignalTrainer("interrupt") not in made.handle(None, 189.9)
    assert made.handle(None, 190.0) == [
        Emit(StepSignal(how="interrupt")),
        SignalTrainer("interrupt"),
    ]
    assert made.deadline() == 200.0
    outcome = finish(made, 191.0)
    assert (outcome.stopped, outcome.forced) == (True, "interrupt")


def test_a_stop_after_the_training_changes_nothing() -> None:
    made = machine()
    made.handle(message("train_end"), 1.0)
    assert made.handle(Asked("stop"), 2.0) == []
    assert not finish(made).stopped


def test_a_cancel_climbs_the_ladder() -> None:
    made = machine()
    steps: list[tuple[float, list[Instruction]]] = [
        (1.0, made.handle(Asked("cancel"), 1.0))
    ]
    while (at := made.deadline()) is not None and at < 30.0:
        steps.append((at, made.handle(None, at)))
    assert [(at, made_of[-1]) for at, made_of in steps] == [
        (1.0, SignalTrainer("interrupt")),
        (11.0, SignalTrainer("terminate")),
        (16.0, SignalTrainer("kill")),
        (21.0, SignalTrainer("kill")),
        (26.0, SignalTrainer("kill")),
    ]
    killed = Exited(exit_code=None, signal=9, missing=(), at=0.0)
    outcome = finish(made, 31.0, killed)
    assert (outcome.signal, outcome.forced, outcome.cancelled) == (9, "kill", True)


def test_a_cancel_wins_over_a_stop_and_not_the_reverse() -> None:
    made = machine()
    made.handle(Asked("stop"), 1.0)
    assert SignalTrainer("interrupt") in made.handle(Asked("cancel"), 1.1)
    assert made.handle(Asked("cancel"), 1.2) == []
    assert made.handle(Asked("stop"), 1.3) == []
    outcome = finish(made)
    assert (outcome.stopped, outcome.cancelled) == (False, True)


def test_a_cancel_during_the_evaluation_still_ends_it() -> None:
    made = machine()
    made.handle(message("train_end"), 1.0)
    assert SignalTrainer("interrupt") in made.handle(Asked("cancel"), 2.0)


def test_a_cancel_after_a_failed_stop_does_not_start_over() -> None:
    made = machine()
    made.handle(Asked("stop"), 0.0)
    made.handle(None, 100.0)
    assert made.handle(Asked("cancel"), 101.0) == []
    assert made.deadline() == 110.0


def test_a_prediction_that_is_stopped_is_interrupted() -> None:
    made = machine(PREDICT)
    assert made.handle(Asked("stop"), 1.0) == [
        Emit(StepSignal(how="interrupt")),
        SignalTrainer("interrupt"),
    ]
    outcome = finish(made)
    assert (outcome.stopped, outcome.cancelled) == (True, False)


def test_lines_are_gathered_for_a_moment() -> None:
    made = machine()
    assert made.handle(Output("err", b"one\ntwo\n"), 5.0) == []
    assert made.deadline() == 5.0 + LOG_FLUSH_INTERVAL_S
    assert events(made.handle(None, 5.25)) == [StepLog(lines=["one", "two"])]
    assert made.deadline() is None


def test_lines_are_bounded_per_second_and_the_rest_is_counted() -> None:
    made = machine()
    given = made.handle(Output("out", b"x\n" * 1000), 5.0)
    given += made.handle(None, 5.5)
    given += made.handle(None, 15.5)
    logs = [event for event in events(given) if isinstance(event, StepLog)]
    assert sum(len(log.lines) for log in logs) == MAX_LOG_LINES_PER_S
    # The last ones wait: perhaps nothing comes after them.
    waiting = MAX_LOG_LINES_PER_EVENT
    dropped = 1000 - MAX_LOG_LINES_PER_S - waiting
    assert sum(log.dropped for log in logs) == dropped
    assert made.handle(Output("out", b"later\n"), 16.5) == []
    assert events(made.handle(None, 17.0)) == [
        StepLog(lines=["later"], dropped=waiting)
    ]


def test_the_last_lines_are_kept_even_when_they_were_dropped() -> None:
    made = machine()
    made.handle(Output("out", b"".join(b"%d\n" % n for n in range(1000))), 5.0)
    made.handle(Output("err", b"the reason"), 5.0)
    outcome = finish(made)
    assert len(outcome.last_lines) == MAX_LAST_LINES
    assert outcome.last_lines[-2:] == ["999", "the reason"]


def test_what_was_not_flushed_is_flushed_at_the_end() -> None:
    made = machine()
    made.handle(Output("err", b"no newline"), 5.0)
    assert events(made.handle(EXIT_0, 5.1)) == [StepLog(lines=["no newline"])]


def test_stdout_of_a_training_is_only_text() -> None:
    made = machine()
    line = b'{"n_processed": 1, "n_total": 2}\n'
    made.handle(Output("out", line), 1.0)
    assert isinstance(events(made.handle(None, 2.0))[0], StepLog)


def test_predictions_are_thinned_but_for_the_last() -> None:
    made = machine(PREDICT)
    kept = []
    for done in range(1, 11):
        line = json.dumps({"n_processed": done, "n_total": 10, "rate": 1.0})
        kept += events(made.handle(Output("out", line.encode() + b"\n"), 1.0))
    assert [event.done for event in kept if isinstance(event, StepProgress)] == [1, 10]


def test_a_failed_prediction_keeps_its_reason() -> None:
    made = machine(PREDICT)
    made.handle(Output("out", b'{"error": true, "message": "bad"}\n'), 1.0)
    failed = Exited(exit_code=1, signal=None, missing=("o.slp",), at=0.0)
    outcome = finish(made, 2.0, failed)
    assert (outcome.error, outcome.missing) == ("bad", ["o.slp"])


def test_a_command_that_cannot_start() -> None:
    made = StepMachine(TRAIN)
    (last,) = made.handle(NotStarted("no such file\x1b", 5.0), 0.0)
    assert isinstance(last, Finish)
    assert last.outcome.not_started
    assert last.outcome.error == "no such file"


def test_a_runner_that_is_told_to_end_kills_at_once() -> None:
    for before in ((), (Asked("stop"),), (Asked("cancel"),)):
        made = machine()
        for happening in before:
            made.handle(happening, 1.0)
        assert made.handle(GoingDown(), 2.0)[-1] == SignalTrainer("kill")
        assert made.handle(GoingDown(), 2.5) == []
        # An interrupt would make sleap-nn delete its checkpoints.
        assert made.handle(Asked("stop"), 3.0) == []
        killed = Exited(exit_code=None, signal=9, missing=(), at=5.0)
        outcome = finish(made, 4.0, killed)
        assert outcome.interrupted == (Asked("cancel") not in before)
        assert outcome.stopped == (Asked("cancel") not in before)


def test_nothing_happens_after_the_end() -> None:
    made = machine()
    finish(made)
    with pytest.raises(LocalProtocolError):
        made.handle(None, 60.0)


def test_a_full_step_still_tells_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_machine, "MAX_EVENTS_PER_STEP", 3)
    made = machine()
    for number in range(5):
        made.handle(message("epoch_begin", epoch=number), number * 1.0)
    assert made.handle(message("batch_end"), 10.0) == []
    assert events(made.handle(message("epoch_end"), 11.0))
    made.handle(Output("err", b"the reason\n"), 12.0)
    outcome = finish(made, 13.0)
    assert outcome.last_lines == ["the reason"]
    assert outcome.batches_thinned == 1
