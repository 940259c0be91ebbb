"""A training's losses in few numbers: thinned, and true at both ends."""

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.messages import ProgressReport
from sleap_rtc_worker.limits import MAX_TRAIL_POINTS
from sleap_rtc_worker.loss_trail import LossTrail

JOB = "job-" + "0" * 20


def ended(epoch: int, step: int = 0, **losses: float) -> ProgressReport:
    return ProgressReport(
        job_id=JOB,
        seq=1,
        at=1.0,
        step=step,
        kind="epoch_end",
        epoch=epoch,
        losses={name.replace("_", "/"): value for name, value in losses.items()},
    )


def trail(*reports: ProgressReport) -> LossTrail:
    made = LossTrail()
    for report in reports:
        made = made.after(report)
    return made


def test_batches_and_epochs_without_a_loss_add_nothing() -> None:
    batch = msgspec.structs.replace(ended(0, val_loss=1.0), kind="batch_end")
    assert trail(batch, ended(1)) == LossTrail()


def test_the_loss_of_the_validation_is_preferred_once_it_is_there() -> None:
    seen = trail(ended(0, loss=3.0), ended(1, train_loss=2.0, val_loss=2.5))
    assert (seen.of, seen.points) == ("val", [(1, 2.5)])
    assert trail(ended(0, val_loss=1.0), ended(1, loss=9.0)).points == [(0, 1.0)]


def test_another_training_begins_anew() -> None:
    seen = trail(ended(0, val_loss=1.0), ended(0, step=1, val_loss=7.0))
    assert (seen.step, seen.points) == (1, [(0, 7.0)])


def test_an_epoch_that_comes_again_takes_the_place_of_what_was() -> None:
    seen = trail(*(ended(n, val_loss=float(n)) for n in (0, 1, 2, 3, 2)))
    assert [epoch for epoch, _ in seen.points] == [0, 1, 2]


@given(st.integers(1, 3_000))
def test_few_points_evenly_apart_with_the_newest(epochs: int) -> None:
    seen = trail(*(ended(n, val_loss=float(n)) for n in range(epochs)))
    kept = [epoch for epoch, _ in seen.points]
    assert kept[-1] == epochs - 1
    assert kept[0] == 0
    assert len(kept) <= MAX_TRAIL_POINTS
    assert len(kept) >= min(epochs, MAX_TRAIL_POINTS // 2)
    steps = {later - earlier for earlier, later in pairwise(kept[:-1])}
    assert len(steps) <= 1
