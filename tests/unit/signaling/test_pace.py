from pytest import approx

from sleap_rtc_signaling.pace import Pace


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    pace = Pace(1_000.0, 500)
    assert [pace.take(100, 0.0) for _ in range(5)] == [0.0] * 5
    assert pace.take(100, 0.0) == approx(0.1)
    assert pace.take(100, 0.0) == approx(0.2)
    assert pace.take(100, 0.2) == approx(0.1)


def test_a_pause_gives_back_a_burst_and_no_more() -> None:
    pace = Pace(1_000.0, 500)
    assert pace.take(600, 0.0) == approx(0.1)
    assert pace.take(500, 1_000.0) == 0.0
    assert pace.take(1, 1_000.0) > 0.0


def test_a_clock_that_steps_back_holds_nobody_for_ever() -> None:
    pace = Pace(1_000.0, 500)
    assert pace.take(100, 50.0) == 0.0
    assert pace.take(100, 49.9) <= 0.2


def test_those_who_share_pass_in_turn() -> None:
    pace = Pace(1_000.0, 1)
    waits = [pace.take(100, 0.0) for _ in range(10)]
    assert waits == sorted(waits)
    assert 0.9 < waits[-1] <= 1.0
