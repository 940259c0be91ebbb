"""Facts and curves from logs that are whole, torn, odd or hostile."""

import itertools

import pytest

from sleap_rtc_plugin.protocol.limits import MAX_CURVE_POINTS
from sleap_rtc_plugin.protocol.model_records import CurvePoint
from sleap_rtc_plugin.registry import loss_log
from sleap_rtc_plugin.registry.loss_log import curve_of, facts_of

LOG = b"""epoch,train/loss,val/loss,learning_rate,train/time,val/time
0,,0.5,,,0.5
1,0.25,0.125,0.001,3.0,1.0
2,0.2,0.25,0.001,3.0,1.0
"""
CONFIG = {
    "sleap_nn_version": "0.3.5",
    "data_config": {"skeletons": [{"nodes": [{"name": "head"}, {"name": "tail"}]}]},
}


def test_what_a_training_left() -> None:
    facts = facts_of(LOG, CONFIG)
    assert (facts.epochs, facts.best_loss, facts.best_epoch) == (3, 0.125, 1)
    assert (facts.final_loss, facts.duration_s) == (0.25, 8.5)
    assert (facts.sleap_nn_version, facts.skeleton) == ("0.3.5", ["head", "tail"])
    assert facts.dataset_digest is None
    assert curve_of(LOG) == [
        CurvePoint(epoch=0, train=None, val=0.5),
        CurvePoint(epoch=1, train=0.25, val=0.125),
        CurvePoint(epoch=2, train=0.2, val=0.25),
    ]


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"\xff\xfe\x00",
        b"no,columns\n1,2\n",
        b"epoch\nnan\ninf\n-1\n1e300\n",
        b"epoch,val/loss\n" + b'"' * 10_000,
        b"\0" * 100,
        b"epoch,val/loss\n0," + b"9" * 200_000,
    ],
)
def test_logs_that_tell_nothing(log: bytes) -> None:
    assert all(point.val is None for point in curve_of(log))
    assert facts_of(log, None).best_loss is None


def test_losses_that_are_no_numbers_are_not_known() -> None:
    log = b"epoch,train/loss,val/loss\n0,nan,inf\n1,abc,0.5\n2\n3,-inf,\n"
    assert [(p.train, p.val) for p in curve_of(log)] == [
        (None, None),
        (None, 0.5),
        (None, None),
        (None, None),
    ]
    assert facts_of(log, {}).final_loss is None


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        {"data_config": None},
        {"data_config": {"skeletons": []}},
        {"data_config": {"skeletons": [{"nodes": "abc"}]}},
        {"data_config": {"skeletons": [{"nodes": [{"name": 7}, None]}]}},
        {"sleap_nn_version": ["0"]},
    ],
)
def test_configurations_that_tell_nothing(config: object) -> None:
    facts = facts_of(b"", config)
    assert (facts.skeleton, facts.sleap_nn_version) == ([], "")


def test_a_long_curve_is_thinned_and_keeps_its_best_epoch() -> None:
    rows = [f"{n},{1 / (n + 1)},{0.001 if n == 7_777 else 0.5}" for n in range(10_000)]
    points = curve_of("\n".join(["epoch,train/loss,val/loss", *rows]).encode())
    assert len(points) <= MAX_CURVE_POINTS
    assert (points[0].epoch, points[-1].epoch) == (0, 9_999)
    assert 7_777 in [point.epoch for point in points]
    gaps = [b.epoch - a.epoch for a, b in itertools.pairwise(points)]
    assert max(gaps) < 3 * 10_000 / MAX_CURVE_POINTS


def test_absurdly_many_epochs_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_log, "MAX_LOSS_LOG_EPOCHS", 2)
    assert facts_of(LOG, None).epochs == 2
    monkeypatch.setattr(loss_log, "MAX_LOSS_LOG_BYTES", 2)
    assert facts_of(LOG, None).epochs is None
