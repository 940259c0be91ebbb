"""Round trips and the times that follow from them (RFC 9260 section 6.3.1)."""

import pytest

from sleap_rtc_plugin.transport.sctp.round_trip import (
    CLOCK_GRAIN_S,
    PROBE_MIN_S,
    RTO_INITIAL_S,
    RTO_MAX_S,
    RTO_MIN_S,
    RTO_SLOW_PATH_S,
    RoundTrip,
)


def measured(*seconds: float) -> RoundTrip:
    made = RoundTrip()
    for each in seconds:
        made.measured(each)
    return made


def test_before_the_first_measurement() -> None:
    made = RoundTrip()
    assert made.timeout_s == RTO_INITIAL_S
    assert made.probe_s is None
    assert made.loss_delay_s >= RTO_INITIAL_S


def test_the_first_measurement_and_the_next() -> None:
    made = measured(0.8)
    assert (made.smoothed_s, made.timeout_s) == (0.8, pytest.approx(0.8 + 4 * 0.4))
    made.measured(1.6)
    assert made.smoothed_s == pytest.approx(0.9)
    assert made.timeout_s == pytest.approx(0.9 + 4 * 0.5)
    assert made.minimum_s == 0.8


def test_the_bounds_of_the_timeout() -> None:
    assert measured(0.001).timeout_s == RTO_MIN_S
    assert measured(2.0).timeout_s == pytest.approx(2.0 + 4 * 1.0)
    assert measured(600.0).timeout_s == RTO_SLOW_PATH_S


def test_each_timeout_doubles_it_and_an_arrival_ends_that() -> None:
    made = measured(*[0.1] * 50)
    for times in range(3):
        assert made.timeout_s == pytest.approx(RTO_MIN_S * 2**times)
        made.timed_out()
    for _ in range(2000):
        made.timed_out()
    assert made.timeout_s == RTO_MAX_S
    assert made.has_timed_out()
    made.heard()
    assert made.timeout_s == RTO_MIN_S


def test_a_steady_path_is_asked_for_an_answer_after_two_round_trips() -> None:
    assert measured(*[0.1] * 50).probe_s == pytest.approx(0.2)
    assert measured(*[0.0001] * 50).probe_s == PROBE_MIN_S


def test_how_late_a_packet_may_be() -> None:
    """RFC 9002 section 6.1.2: the larger of the smoothed and the latest one."""
    assert measured(*[0.1] * 50).loss_delay_s == pytest.approx(0.1 * 9 / 8)
    assert measured(*[0.1] * 50, 0.3).loss_delay_s == pytest.approx(0.3 * 9 / 8)
    assert measured(0.0).loss_delay_s == CLOCK_GRAIN_S
