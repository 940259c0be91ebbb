"""A loss curve in one line of text."""

from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.cli.loss_curve import LossCurve


def curve(*losses: float, name: str = "val/loss") -> LossCurve:
    made = LossCurve()
    for epoch, loss in enumerate(losses):
        made.add(epoch, {name: loss})
    return made


def test_a_loss_that_falls() -> None:
    assert curve(8, 4, 2, 1).draw() == "█▆▃▁"
    assert curve(8, 4, 2, 1).summary() == "█▆▃▁ 8 → 1 in 4 epochs"


def test_one_epoch_is_no_curve() -> None:
    assert curve().draw() == curve(1).draw() == curve(1).summary() == ""


def test_a_loss_that_stays_and_one_of_zero() -> None:
    assert curve(1, 1, 1).draw() == "▁▁▁"
    assert curve(1, 0).draw() == "█▁"


def test_epochs_that_come_again_replace_themselves() -> None:
    made = curve(8, 4, 2, 1)
    made.add(3, {"val/loss": 2.0})
    assert len(made) == 4
    assert made.draw() == "█▅▁▁"


def test_the_validation_goes_before_the_training() -> None:
    made = curve(9.0, name="train/loss")
    made.add(1, {"train/loss": 9.0, "val/loss": 2.0})
    made.add(2, {"train/loss": 9.0})
    made.add(3, {"train/loss": 9.0, "val/loss": 1.0})
    assert made.summary() == "█▁ 2 → 1 in 2 epochs"


def test_a_long_one_is_drawn_in_its_width() -> None:
    assert len(curve(*range(1000, 0, -1)).draw(20)) == 20


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.floats(allow_nan=False, allow_infinity=False)),
        max_size=100,
    ),
    st.integers(1, 60),
)
def test_whatever_a_worker_says(told: list[tuple[int, float]], width: int) -> None:
    made = LossCurve()
    for epoch, loss in told:
        made.add(epoch, {"val/loss": loss})
    drawn = made.draw(width)
    assert len(drawn) <= width
    assert set(drawn) <= set("▁▂▃▄▅▆▇█")
    made.summary(width)
