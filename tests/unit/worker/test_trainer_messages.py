import json

import pytest

from sleap_rtc_plugin.protocol.limits import MAX_LOSSES_PER_EVENT
from sleap_rtc_worker.limits import MAX_TRAINER_MESSAGE_BYTES
from sleap_rtc_worker.step_records import StepProgress
from sleap_rtc_worker.trainer_messages import (
    IGNORED,
    TrainerError,
    parse_predict_line,
    parse_trainer_message,
)

# As sleap-nn 0.3.5 writes them.
EPOCH_END = (
    b'{"what": "", "event": "epoch_end", "logs": {"loss": 0.031, "val/loss": 0.0308, '
    b'"val/time": 0.42, "epoch": 0.0, "train/confmap_loss_fg": 0.31, '
    b'"train/lr": 9.9e-05}, "epoch": 0}'
)
BATCH_END = (
    b'{"what": "", "event": "batch_end", "logs": {"loss": 0.0315, "val/loss": 0.03}, '
    b'"epoch": 1, "batch": 4}'
)


def parse(**message: object) -> object:
    return parse_trainer_message(json.dumps(message).encode())


def test_an_epoch_is_rebuilt() -> None:
    assert parse_trainer_message(EPOCH_END) == StepProgress(
        event="epoch_end",
        epoch=0,
        losses={
            "loss": 0.031,
            "val/loss": 0.0308,
            "train/lr": 9.9e-05,
            "val/time": 0.42,
            "train/confmap_loss_fg": 0.31,
        },
    )


def test_a_batch_carries_its_own_loss_only() -> None:
    assert parse_trainer_message(BATCH_END) == StepProgress(
        event="batch_end", epoch=1, batch=4, losses={"loss": 0.0315}
    )


def test_the_begin_and_the_end() -> None:
    assert parse(event="train_begin", logs=None, wandb_url="x") == StepProgress(
        event="train_begin"
    )
    assert parse(event="train_end", logs=None) == StepProgress(event="train_end")


def test_batch_start_is_known_and_silent() -> None:
    assert parse(event="batch_start", batch=1) is IGNORED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"train_end"',
        b"\xff\xfe",
        b"[" * 30_000,
        b'{"event": "predict"}',
        b'{"event": "other"}',
        b'{"event": 1}',
        b'{"event": ["train_end"]}',
        b'{"py/object": "os.system"}',
        b'{"event": "epoch_end", "epoch": ' + b"9" * 5000 + b"}",
        b'{"event": "train_end", "x": "' + b"x" * MAX_TRAINER_MESSAGE_BYTES + b'"}',
    ],
)
def test_anything_else_is_not_understood(data: bytes) -> None:
    assert parse_trainer_message(data) is None


def test_figures_that_are_none_are_left_out() -> None:
    data = (
        b'{"event": "epoch_end", "epoch": -1, "batch": 1.5, "logs": {"a": NaN, '
        b'"b": Infinity, "c": -Infinity, "d": "1", "e": true, "f": null, '
        b'"g": {"py/reduce": []}, "h": [1], "i": 1' + b"0" * 400 + b', "loss": 2}}'
    )
    assert parse_trainer_message(data) == StepProgress(
        event="epoch_end", losses={"loss": 2.0}
    )


@pytest.mark.parametrize("value", [True, "1", 1.0, -1, 2**53, 10**300, None, [1]])
def test_an_epoch_is_a_small_whole_number_or_nothing(value: object) -> None:
    message = parse(event="epoch_begin", epoch=value)
    assert isinstance(message, StepProgress)
    assert message.epoch is None


def test_the_losses_are_bounded_and_the_curve_comes_first() -> None:
    logs = {f"metric{number}": 1.0 for number in range(100)}
    message = parse(event="epoch_end", logs={**logs, "val/loss": 2.0, "loss": 1.0})
    assert isinstance(message, StepProgress)
    assert len(message.losses) == MAX_LOSSES_PER_EVENT
    assert list(message.losses)[:2] == ["loss", "val/loss"]


@pytest.mark.parametrize(
    "name", ["", "a b", "<b>", "x" * 61, "1", "a\nb", "\u202eloss"]
)
def test_a_loss_has_a_plain_name(name: str) -> None:
    message = parse(event="epoch_end", logs={name: 1.0})
    assert isinstance(message, StepProgress)
    assert message.losses == {}


def test_inference_progress() -> None:
    line = '{"n_processed": 4, "n_total": 10, "rate": 3.9, "eta": 1.5}'
    assert parse_predict_line(line) == StepProgress(
        event="predict", done=4, total=10, rate=3.9
    )
    unknown_total = '{"n_processed": 4, "n_total": null, "rate": Infinity}'
    assert parse_predict_line(unknown_total) == StepProgress(event="predict", done=4)


def test_inference_errors_are_cleaned() -> None:
    line = '{"error": true, "type": "ValueError", "message": "no\\u001b[31m\\nmodel"}'
    error = parse_predict_line(line)
    assert isinstance(error, TrainerError)
    assert error == "ValueError: no [31m model"
    assert parse_predict_line('{"error": true}') == "inference failed"


@pytest.mark.parametrize("line", ["", "hello", "{", "{}", '{"n_processed": "4"}'])
def test_other_lines_are_text(line: str) -> None:
    assert parse_predict_line(line) is None
