"""Which steps begin again, and what their clients hear twice: nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_worker.limits import MAX_STEP_RESTARTS, RESTART_PAUSE_MAX_S
from sleap_rtc_worker.step_records import StepOutcome, StepProgress
from sleap_rtc_worker.step_restart import (
    GiveUp,
    Reached,
    Restart,
    is_repeat,
    reached_by,
    restart_line,
    verdict,
    verdict_on_start,
    why_cut_off,
)

TRAIN = TrainStep(config="c", labels="l.slp", run_name="r", head="centroid")
PREDICT = PredictStep(data="d.slp", models=["m"], output="o.slp")
DONE = {"exit_code": 0, "train_begin": True, "train_end": True}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"lost": True}, "disappeared"),
        ({"lost": True, "train_end": True}, "disappeared"),
        ({"signal": 9}, "SIGKILL"),
        ({"signal": 15, "train_begin": True}, "SIGTERM"),
        ({"signal": 1}, "SIGHUP"),
        ({"signal": 9, "interrupted": True}, "machine"),
        ({"exit_code": 0, "train_begin": True}, "told to end"),
        ({"exit_code": 1, "interrupted": True}, "machine"),
        ({"signal": 9, "stopped": True}, "SIGKILL"),
        ({**DONE, "signal": 9, "exit_code": None}, "SIGKILL"),
    ],
)
def test_what_was_cut_off_begins_again(outcome: dict, reason: str) -> None:
    decided = verdict(TRAIN, StepOutcome(**outcome), 0)
    assert isinstance(decided, Restart)
    assert reason in decided.reason


@pytest.mark.parametrize(
    "outcome",
    [
        DONE,
        {**DONE, "stopped": True},
        {**DONE, "interrupted": True},
        {"exit_code": 1, "train_begin": True},
        {"exit_code": 3, "last_lines": ["CUDA out of memory"]},
        {"signal": 11},
        {"signal": 6},
        {"signal": 9, "cancelled": True},
        {"signal": 9, "cancelled": True, "interrupted": True},
        {"lost": True, "cancelled": True},
        {"signal": 9, "stopped": True, "forced": "kill"},
        {"not_started": True},
        {"exit_code": 0},
        {**DONE, "missing": ["best.ckpt"]},
    ],
)
def test_what_ended_by_itself_does_not(outcome: dict) -> None:
    assert why_cut_off(TRAIN, StepOutcome(**outcome)) is None


def test_an_inference_begins_again_as_well() -> None:
    for outcome in (StepOutcome(lost=True), StepOutcome(signal=15)):
        assert isinstance(verdict(PREDICT, outcome, 0), Restart)
    for outcome in (
        StepOutcome(exit_code=0),
        StepOutcome(exit_code=0, missing=["o.slp"]),
        StepOutcome(exit_code=1),
        StepOutcome(signal=2, stopped=True, forced="interrupt"),
    ):
        assert verdict(PREDICT, outcome, 0) is None


def test_restarts_are_bounded_and_their_pauses_grow() -> None:
    pauses = []
    for restarts in range(MAX_STEP_RESTARTS):
        decided = verdict(TRAIN, StepOutcome(lost=True), restarts)
        assert isinstance(decided, Restart)
        pauses.append(decided.pause_s)
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= RESTART_PAUSE_MAX_S
    given_up = verdict(TRAIN, StepOutcome(lost=True), MAX_STEP_RESTARTS)
    assert isinstance(given_up, GiveUp)
    assert f"{MAX_STEP_RESTARTS} times" in given_up.reason
    assert isinstance(verdict_on_start("no zmq", 0), Restart)
    assert isinstance(verdict_on_start("no zmq", MAX_STEP_RESTARTS), GiveUp)


def test_the_user_reads_where_it_goes_on() -> None:
    assert restart_line(TRAIN, "it died", 2, 7) == (
        "[worker] the training was cut off (it died); it goes on after epoch 7 "
        "(restart 2 of 5)"
    )
    assert "from its beginning" in restart_line(TRAIN, "it died", 1, None)
    assert "the inference" in restart_line(PREDICT, "it died", 1, None)


# -- the curve ---------------------------------------------------------------------


def training(first: int, last: int, batches: int = 2) -> list[StepProgress]:
    """Return what sleap-nn says of a training that ends after epoch `last`."""
    said = [StepProgress(event="train_begin")]
    for epoch in range(first, last + 1):
        said.append(StepProgress(event="epoch_begin", epoch=epoch))
        for batch in range(batches):
            said.append(StepProgress(event="batch_end", epoch=epoch, batch=batch))
        said.append(StepProgress(event="epoch_end", epoch=epoch))
    return [*said, StepProgress(event="train_end")]


@given(st.data())
def test_a_curve_that_was_cut_anywhere_is_whole_and_told_once(
    data: st.DataObject,
) -> None:
    whole = training(0, 5)
    reached, told = Reached(), []
    first = 0
    for _ in range(data.draw(st.integers(0, 4))):
        said = training(first, 5)
        cut = data.draw(st.integers(0, len(said)))
        ended = [e.epoch for e in said[:cut] if e.event == "epoch_end"]
        for event in said[:cut]:
            if not is_repeat(reached, event):
                reached = reached_by(reached, event)
                told.append(event)
        # The checkpoint of the last epoch may not have been written any more.
        behind = data.draw(st.integers(0, 1))
        first = max(first, ended[-1] + 1 - behind if ended else first)
    for event in training(first, 5):
        if not is_repeat(reached, event):
            reached = reached_by(reached, event)
            told.append(event)
    assert told == whole
