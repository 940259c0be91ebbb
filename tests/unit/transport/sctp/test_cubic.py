"""CUBIC's growth over time."""

import pytest

from sleap_rtc_plugin.transport.sctp.cubic import Cubic

PACKET = 1_200


def grow(
    cubic: Cubic, window: float, since: float, until: float, rtt_s: float
) -> float:
    """Let round trips pass, each of which acknowledges a window."""
    now = since
    while now < until:
        window = cubic.grow(now, window, int(window), rtt_s)
        now += rtt_s
    return window


def test_a_loss_leaves_seven_tenths() -> None:
    assert Cubic(PACKET).reduce(1_000_000) == pytest.approx(700_000)


def test_it_is_back_where_it_was_when_the_formula_says_so() -> None:
    # RFC 9438 section 4.2: K is the cube root of what is missing over C, 0.4.
    cubic = Cubic(PACKET)
    peak = 1_000.0 * PACKET
    left = cubic.reduce(peak)
    plateau_s = (300 / 0.4) ** (1 / 3)
    assert grow(cubic, left, 0, plateau_s / 2, 0.05) > left + (peak - left) * 0.8
    assert grow(cubic, left, 0, plateau_s, 0.05) == pytest.approx(peak, rel=0.01)


def test_a_second_loss_below_the_first_one_gives_room_to_others() -> None:
    cubic, other = Cubic(PACKET), Cubic(PACKET)
    cubic.reduce(1_000_000)
    left = cubic.reduce(800_000)
    same = other.reduce(800_000)
    assert left == same
    assert grow(cubic, left, 0, 6, 0.05) < grow(other, same, 0, 6, 0.05)


def test_on_a_short_path_it_grows_as_reno_does() -> None:
    cubic = Cubic(PACKET)
    cubic.aim(0)
    window = grow(cubic, 10.0 * PACKET, 0, 0.1, 0.001)
    assert window == pytest.approx(110 * PACKET, rel=0.05)


def test_time_in_which_the_window_was_not_used_does_not_count() -> None:
    used, paused = Cubic(PACKET), Cubic(PACKET)
    for cubic in (used, paused):
        cubic.reduce(1_000_000)
    left = used.grow(0, 700_000, 1, 0.05)
    paused.grow(0, 700_000, 1, 0.05)
    paused.pause(100.0)
    assert paused.grow(101, left, PACKET, 0.05) == used.grow(1, left, PACKET, 0.05)


def test_it_never_grows_by_more_than_half_in_a_round_trip() -> None:
    cubic = Cubic(PACKET)
    window = cubic.grow(0, 100_000.0, 0, 0.05)
    assert cubic.grow(1_000, window, 100_000, 0.05) <= 1.5 * window
