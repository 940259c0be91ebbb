"""How soon two data paths get over a fault: by what arrived later, not by a timer."""

from support.link_emulator import Conditions, Fate, scripted
from support.path_pair import PathPair, SentMessage

from sleap_rtc_plugin.transport.sctp.round_trip import RTO_MIN_S

LATENCY_S = 0.02
ROUND_TRIP_S = 2 * LATENCY_S
LOST = Fate(lost=True)
PASSED = Fate()


def pair_losing(*fates: Fate) -> PathPair:
    """A pair that has talked, whose end 0 loses what is sent as said."""
    pair = PathPair(Conditions(LATENCY_S))
    pair.send(SentMessage(0, 5, 99, 100), SentMessage(1, 5, 98, 100))
    pair.run_until(pair.is_quiet, 5)
    pair.directions[0].conditions = Conditions(LATENCY_S, faults=[scripted(fates)])
    for delivered in pair.delivered:
        delivered.clear()
    return pair


def time_until(pair: PathPair, count: int) -> float:
    """Seconds until so many messages have arrived at end 1."""
    begin = pair.now
    pair.run_until(lambda: len(pair.delivered[1]) >= count, 60)
    return pair.now - begin


def test_a_lost_packet_is_sent_again_when_later_ones_have_arrived() -> None:
    pair = pair_losing(PASSED, LOST)
    pair.send(SentMessage(0, 0, 1, 30 * 1160))
    assert time_until(pair, 1) < 2 * ROUND_TRIP_S


def test_a_lost_tail_is_found_by_a_probe() -> None:
    pair = pair_losing(*[PASSED] * 3, LOST)
    pair.send(*[SentMessage(0, 0, number, 1160) for number in range(4)])
    assert time_until(pair, 4) < 5 * ROUND_TRIP_S < RTO_MIN_S


def test_what_is_given_up_is_skipped_without_a_timer() -> None:
    pair = pair_losing(LOST)
    pair.send(SentMessage(0, 0, 1, 1160, max_retransmits=0))
    pair.send(*[SentMessage(0, 0, number, 1160) for number in range(2, 7)])
    assert time_until(pair, 5) < 3 * ROUND_TRIP_S < RTO_MIN_S


def test_what_is_given_up_beyond_the_front_is_skipped_when_the_front_has_arrived() -> (
    None
):
    pair = pair_losing(LOST, LOST)
    pair.send(SentMessage(0, 1, 1, 1160))
    pair.send(SentMessage(0, 0, 2, 1160, max_retransmits=0))
    pair.send(*[SentMessage(0, 0, number, 1160) for number in range(3, 8)])
    assert time_until(pair, 6) < 4 * ROUND_TRIP_S < RTO_MIN_S


def test_another_stream_does_not_wait_for_a_lost_packet() -> None:
    pair = pair_losing(LOST)
    pair.send(SentMessage(0, 0, 1, 1160), SentMessage(0, 1, 2, 1160))
    assert time_until(pair, 1) < 1.01 * LATENCY_S
    assert pair.delivered[1][0].stream_id == 1
