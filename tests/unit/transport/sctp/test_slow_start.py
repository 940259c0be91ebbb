"""When slow start ends (RFC 9406)."""

from sleap_rtc_plugin.transport.sctp.slow_start import SlowStart


def play_round(slow_start: SlowStart, *rtts_s: float) -> None:
    for index, rtt_s in enumerate(rtts_s):
        slow_start.on_ack(rtt_s, is_new_round=index == 0)


def test_round_trips_that_stay_the_same_do_not_end_it() -> None:
    slow_start = SlowStart()
    for _ in range(20):
        play_round(slow_start, *[0.05] * 20)
    assert slow_start.growth == 1.0
    assert not slow_start.is_over


def test_longer_round_trips_slow_it_down_and_end_it_five_rounds_later() -> None:
    slow_start = SlowStart()
    play_round(slow_start, *[0.05] * 8)
    play_round(slow_start, *[0.06] * 7)
    assert slow_start.growth == 1.0
    slow_start.on_ack(0.06, is_new_round=False)
    assert slow_start.growth == 0.25
    for _ in range(4):
        play_round(slow_start, *[0.06] * 8)
        assert not slow_start.is_over
    play_round(slow_start, *[0.06] * 8)
    assert slow_start.is_over


def test_a_rise_that_passes_does_not_end_it() -> None:
    slow_start = SlowStart()
    play_round(slow_start, *[0.05] * 8)
    play_round(slow_start, *[0.06] * 8)
    play_round(slow_start, *[0.05] * 8)
    assert slow_start.growth == 1.0


def test_a_few_late_packets_are_no_rise() -> None:
    slow_start = SlowStart()
    for _ in range(5):
        play_round(slow_start, *[0.09, 0.05] * 10)
    assert slow_start.growth == 1.0


def test_a_queue_of_half_a_round_trip_is_not_waited_for_until_the_next_round() -> None:
    slow_start = SlowStart()
    play_round(slow_start, *[0.08] * 8, *[0.13] * 7)
    assert slow_start.growth == 1.0
    slow_start.on_ack(0.13, is_new_round=False)
    assert slow_start.growth == 0.25


def test_what_was_sent_more_than_once_says_nothing() -> None:
    slow_start = SlowStart()
    for _ in range(10):
        slow_start.on_ack(None, is_new_round=True)
    assert slow_start.growth == 1.0
