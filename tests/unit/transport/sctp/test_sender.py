"""What is sent when, what counts as lost, and what is made of SACKs that lie.

Sections are those of RFC 9260, unless another one is named.
"""

import pytest
from support.sctp_invariants import check_sender
from support.sender_bench import (
    ANY,
    FIRST,
    LARGE,
    PAYLOAD,
    RTT_S,
    Bench,
    measured,
)

from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    UNORDERED,
)
from sleap_rtc_plugin.transport.sctp.reordering import LEAST_CHUNKS
from sleap_rtc_plugin.transport.sctp.round_trip import (
    RTO_INITIAL_S,
    RTO_MAX_S,
    RTO_MIN_S,
)
from sleap_rtc_plugin.transport.sctp.sender import (
    MAX_OUTSTANDING_CHUNKS,
    MAX_PROBES,
)

# -- fragments and windows (sections 6.1 and 6.9) --------------------------------------


def test_a_message_is_cut_and_the_numbers_of_its_stream_go_up() -> None:
    bench = Bench()
    bench.push(2 * PAYLOAD + 1)
    bench.push(PAYLOAD)
    bench.push(5, is_unordered=True)
    chunks = bench.sender.poll(0.0, 9, ANY)
    assert [(chunk.flags, chunk.stream_seq, chunk.size) for chunk in chunks] == [
        (FIRST_FRAGMENT, 0, PAYLOAD),
        (0, 0, PAYLOAD),
        (LAST_FRAGMENT, 0, 1),
        (FIRST_FRAGMENT | LAST_FRAGMENT, 1, PAYLOAD),
        (FIRST_FRAGMENT | LAST_FRAGMENT | UNORDERED, 0, 5),
    ]


def test_numbers_of_a_stream_wrap() -> None:
    bench = Bench()
    bench.sender.stream_seqs[1] = 0xFFFF
    bench.push()
    bench.push()
    chunks = bench.sender.poll(0.0, 9, ANY)
    assert [chunk.stream_seq for chunk in chunks] == [0xFFFF, 0]


def test_the_congestion_window_bounds_what_is_in_flight() -> None:
    bench = Bench(window=3 * PAYLOAD)
    assert bench.send(9) == [0, 1, 2]
    assert bench.ack(1) == [3, 4]
    assert bench.sender.in_flight_bytes == 3 * PAYLOAD


def test_the_window_of_the_peer_bounds_it_as_well() -> None:
    bench = Bench(peer_window=2 * PAYLOAD)
    assert bench.send(9) == [0, 1]
    assert bench.ack(1, window=4 * PAYLOAD) == [2, 3, 4, 5]


def test_a_closed_window_is_probed_with_one_packet_until_it_opens() -> None:
    bench = measured()
    assert bench.send(3) == [0, 1, 2]
    for _ in range(5):
        bench.push()
    assert bench.ack(2, window=0) == [3]
    # The receiver had no room for it.
    assert bench.ack(2, window=0) == []
    while not (again := bench.wait()):
        pass
    assert again == [3]
    assert bench.ack(3, window=ANY) == [4, 5, 6, 7]


def test_a_full_window_lets_nothing_new_out_in_the_place_of_what_was_not_lost() -> None:
    bench = Bench(window=6 * PAYLOAD)
    bench.send(12)
    # The first is late: it counts as lost, and arrives after all.
    bench.congestion.set_window(2 * PAYLOAD)
    bench.sender.on_sack(FIRST - 1, ANY, [(2, 4)], [], bench.now)
    bench.sender.on_sack(FIRST + 3, ANY, [], [], bench.now)
    assert bench.sender.in_flight_bytes == 2 * PAYLOAD
    assert bench.poll() == []


def test_the_number_of_chunks_outstanding_is_bounded() -> None:
    bench = Bench()
    for _ in range(MAX_OUTSTANDING_CHUNKS + 5):
        bench.push(1)
    assert len(bench.sender.poll(0.0, ANY, ANY)) == MAX_OUTSTANDING_CHUNKS


def test_what_is_taken_from_the_queue_is_told() -> None:
    bench = Bench(window=PAYLOAD)
    bench.push(3 * PAYLOAD)
    bench.push()
    bench.poll()
    assert [len(message.data) for message in bench.sender.taken] == [3 * PAYLOAD]
    assert bench.sender.has_queued(1)


# -- loss (section 7.2.4; RFC 8985) ----------------------------------------------------


def test_later_arrivals_tell_that_a_packet_is_lost() -> None:
    bench = Bench()
    bench.send(6)
    assert bench.ack(-1, (1, LEAST_CHUNKS - 1)) == []
    assert bench.ack(-1, (1, LEAST_CHUNKS), after_s=0) == [0]


def test_a_packet_that_is_late_is_lost_after_an_eighth_of_a_round_trip() -> None:
    bench = measured()
    bench.send(2)
    assert bench.ack(-1, (1, 1)) == []
    sent_at = bench.now - RTT_S
    assert bench.wait() == [0]
    assert bench.now == pytest.approx(sent_at + RTT_S * 9 / 8)


def test_a_repetition_that_is_lost_as_well_is_found() -> None:
    bench = Bench()
    bench.send(6)
    assert bench.ack(-1, (1, 5)) == [0]
    for _ in range(4):
        bench.push()
    assert bench.poll() == [6, 7, 8, 9]
    assert bench.ack(-1, (1, 9)) == [0]


def test_what_was_sent_again_without_need_makes_it_wait_for_more() -> None:
    bench = Bench()
    bench.send(6)
    assert bench.ack(-1, (1, 5)) == [0]
    # It was only late: the peer has it twice.
    bench.ack(5, duplicates=(0,))
    bench.first += 6
    bench.send(8)
    assert bench.ack(-1, (1, 2 * LEAST_CHUNKS - 1), after_s=0.001) == []
    assert bench.ack(-1, (1, 2 * LEAST_CHUNKS), after_s=0) == [0]


def test_one_lost_packet_may_be_sent_into_a_full_window() -> None:
    bench = Bench(window=6 * PAYLOAD)
    bench.send(12)
    bench.congestion.set_window(2 * PAYLOAD)
    assert bench.ack(-1, (2, 4)) == [0]
    assert bench.sender.in_flight_bytes == 2 * PAYLOAD


# -- timers (sections 6.3.1 to 6.3.3; RFC 8985 section 7) ------------------------------


def test_a_lost_tail_is_probed_and_then_times_out() -> None:
    bench = measured()
    bench.send(3)
    probes = 0
    while (again := bench.wait()) == [2]:
        probes += 1
    assert 1 <= probes <= MAX_PROBES
    assert again == [0, 1, 2]
    assert bench.congestion.timeouts == 1


def test_the_answer_to_a_probe_tells_what_is_missing() -> None:
    bench = measured()
    bench.send(5)
    assert bench.wait() == [4]
    assert bench.ack(-1, (1, 1), (4, 4)) == [0, 2, 3]


def test_without_a_measurement_only_the_timer_is_left() -> None:
    bench = Bench()
    bench.send(2)
    began_at = bench.now
    assert bench.wait() == [0, 1]
    assert bench.now - began_at == RTO_INITIAL_S


def test_the_timer_backs_off_up_to_a_bound_and_starts_anew_when_something_arrives() -> (
    None
):
    bench = measured()
    bench.send(1)
    while not bench.congestion.timeouts:
        bench.wait()
    waits = []
    for _ in range(6):
        began_at = bench.now
        bench.wait()
        waits.append(bench.now - began_at)
    doubled = [RTO_MIN_S * 2**times for times in range(1, 7)]
    assert waits == pytest.approx([min(wait, RTO_MAX_S) for wait in doubled])
    bench.ack(0)
    bench.first += 1
    bench.send(1)
    assert bench.sender._t3_at == pytest.approx(bench.now + RTO_MIN_S, rel=0.5)


def test_nothing_outstanding_means_no_timer() -> None:
    bench = Bench()
    bench.send(3)
    assert bench.sender.deadline() is not None
    bench.ack(2)
    assert bench.sender.deadline() is None


def test_after_two_timeouts_what_lay_beyond_a_gap_is_sent_again_too() -> None:
    """The receiver may have thrown it away (section 6.2)."""
    bench = Bench()
    bench.send(4)
    bench.ack(-1, (2, 3))
    again: list[int] = []
    while bench.congestion.timeouts < 1:
        again = bench.wait()
    assert 2 not in again
    while bench.congestion.timeouts < 2:
        again = bench.wait()
    assert again == [0, 1, 2, 3]


def test_a_packet_from_the_peer_ends_the_back_off() -> None:
    bench = measured()
    bench.send(1)
    while bench.congestion.timeouts < 5:
        bench.wait()
    bench.sender.on_heard(bench.now)
    began_at = bench.now
    assert bench.wait() == [0]
    assert bench.now - began_at < RTO_MIN_S


@pytest.mark.parametrize("is_measured", [True, False])
def test_a_peer_that_talks_and_does_not_hear_makes_no_timer_storm(
    is_measured: bool,
) -> None:
    bench = measured() if is_measured else Bench()
    bench.sender.round_trip.smoothed_s = 0.0001 if is_measured else None
    bench.send(1)
    while bench.congestion.timeouts < 2:
        bench.wait()
    end = bench.now + 1.0
    while bench.now < end:
        bench.sender.on_heard(bench.now)
        bench.wait()
    assert bench.congestion.timeouts < 50


def test_the_round_trip_is_measured_on_what_was_sent_once() -> None:
    """Karn's rule (section 6.3.1 C5)."""
    bench = Bench()
    bench.send(1)
    bench.ack(0)
    assert bench.sender.round_trip.smoothed_s == pytest.approx(RTT_S)
    bench.first += 1
    bench.send(1)
    bench.wait()
    bench.ack(0, after_s=0.001)
    assert bench.sender.round_trip.smoothed_s == pytest.approx(RTT_S)
    assert bench.congestion.samples[-1].rtt_s is None


def test_an_idle_time_is_told_before_anything_is_sent() -> None:
    bench = measured()
    bench.now += 60
    assert bench.congestion.idle_s == []
    bench.send(1)
    assert bench.congestion.idle_s == [pytest.approx(60, rel=0.01)]


def test_another_path_is_measured_anew_and_asked_what_has_arrived() -> None:
    bench = measured()
    bench.send(LEAST_CHUNKS + 1)
    bench.sender.on_new_path(bench.now)
    assert bench.sender.round_trip.smoothed_s is None
    # What is on its way over the old path may well arrive.
    assert bench.poll() == [LEAST_CHUNKS]
    # What did not arrive is sent again as soon as that is known.
    assert bench.ack(-1, (LEAST_CHUNKS, LEAST_CHUNKS)) == [0, 1]


# -- messages that may be given up (RFC 3758 section 3.5) ------------------------------


def test_what_may_not_be_sent_again_is_given_up_and_the_peer_skips_it() -> None:
    bench = Bench()
    bench.push(max_retransmits=0)
    for _ in range(5):
        bench.push()
    bench.poll()
    assert bench.ack(-1, (1, 5)) == []
    assert bench.sender.is_forward_due
    assert bench.sender.take_forward(9) == (FIRST + 5 - 5, [(1, 0)])


def test_streams_without_order_are_not_named() -> None:
    bench = Bench()
    bench.push(max_retransmits=0, is_unordered=True)
    for _ in range(5):
        bench.push()
    bench.poll()
    bench.ack(-1, (1, 5))
    assert bench.sender.take_forward(9) == (FIRST, [])


def test_a_fragment_takes_its_whole_message_with_it() -> None:
    bench = Bench()
    bench.push(3 * PAYLOAD, max_retransmits=0)
    for _ in range(5):
        bench.push()
    bench.poll()
    bench.ack(0, (2, 7))
    target, streams = bench.sender.take_forward(9)
    assert (target - FIRST, streams) == (1, [(1, 0)])
    bench.ack(7)
    assert not bench.sender.outstanding_chunks()


def test_several_streams_are_named_each_with_its_last_message() -> None:
    bench = Bench()
    for stream in (1, 2, 1):
        bench.push(stream=stream, max_retransmits=0)
        bench.poll()
    for _ in range(5):
        bench.push(stream=3)
    bench.poll()
    bench.ack(-1, (3, 7))
    assert bench.sender.take_forward(9) == (FIRST + 2, [(1, 1), (2, 0)])
    bench.sender.is_forward_due = True
    # What does not fit is told with the next one.
    assert bench.sender.take_forward(1) == (FIRST, [(1, 0)])


def test_a_skip_is_told_again_until_it_is_acknowledged() -> None:
    bench = Bench()
    bench.push(max_retransmits=0)
    bench.poll()
    bench.wait()
    assert bench.sender.is_forward_due
    bench.sender.take_forward(9)
    bench.wait()
    assert bench.sender.is_forward_due
    bench.ack(0)
    assert not bench.sender.is_forward_due
    assert not bench.sender.outstanding_chunks()


def test_what_is_too_old_is_not_sent_at_all() -> None:
    bench = Bench()
    bench.push(expires_at=bench.now - 1)
    bench.push()
    [chunk] = bench.sender.poll(bench.now, 9, ANY)
    assert (chunk.serial, chunk.stream_seq) == (FIRST, 0)
    assert len(bench.sender.taken) == 2


# -- packets that are too large for the path (RFC 8899 section 4.3) --------------------


def test_large_packets_that_vanish_are_counted_and_one_that_arrives_ends_that() -> None:
    bench = measured()
    bench.sender.set_payload(LARGE)
    for _ in range(5):
        bench.push(LARGE)
    for _ in range(LEAST_CHUNKS):
        bench.push(1)
    bench.poll()
    bench.ack(-1, (5, 7))
    assert bench.sender.large_losses == 5
    bench.ack(0, (5, 7))
    assert bench.sender.large_losses == 0


def test_a_timeout_alone_says_nothing_of_the_size_of_packets() -> None:
    """All of them vanished, small and large: that is an outage."""
    bench = measured()
    bench.sender.set_payload(LARGE)
    for _ in range(30):
        bench.push(LARGE)
    bench.poll()
    while not bench.congestion.timeouts:
        bench.wait()
    assert bench.sender.large_losses == 0


# -- SACKs that lie (section 6.2.1) ----------------------------------------------------


@pytest.mark.parametrize("upto", [6, 7, 1000, TSN_MODULO // 2 - 20])
def test_what_was_never_sent_cannot_be_acknowledged(upto: int) -> None:
    bench = Bench()
    bench.send(6)
    bench.ack(upto)
    assert bench.sender.acked == FIRST - 1
    assert bench.sender.in_flight_bytes == 6 * PAYLOAD
    assert bench.congestion.samples == []


def test_an_old_sack_changes_nothing() -> None:
    bench = Bench(window=6 * PAYLOAD)
    bench.send(9)
    bench.ack(3)
    assert bench.ack(1, (3, 3), window=0) == []
    assert bench.sender.acked == FIRST + 3
    assert bench.sender._peer_window_bytes == ANY


@pytest.mark.parametrize(
    "gap", [(0, 0), (0, 3), (4, 3), (2, 7), (2, 0xFFFF), (8, 9), (0xFFFF, 0)]
)
def test_wild_gap_blocks_are_left_out(gap: tuple[int, int]) -> None:
    bench = Bench()
    bench.send(6)
    bench.sender.on_sack(FIRST - 1, ANY, [gap], [], bench.now)
    check_sender(bench.sender)
    assert bench.sender.in_flight_bytes == 6 * PAYLOAD


def test_gap_blocks_that_overlap_count_once() -> None:
    bench = Bench()
    bench.send(6)
    bench.ack(-1, (2, 4), (3, 5), (2, 5))
    assert bench.congestion.samples[0].acked_bytes == 4 * PAYLOAD
    bench.ack(-1, (2, 5))
    assert len(bench.congestion.samples) == 1


def test_duplicates_of_what_was_never_sent_change_nothing() -> None:
    bench = Bench()
    bench.send(6)
    bench.ack(-1, duplicates=(0, 5, 77, -500))
    assert bench.sender._reordering.chunks == LEAST_CHUNKS


def test_tsns_wrap() -> None:
    bench = Bench(first=2 * TSN_MODULO - 3)
    assert bench.send(6) == [0, 1, 2, 3, 4, 5]
    assert bench.ack(-1, (1, 5)) == [0]
    bench.ack(5)
    assert not bench.sender.outstanding_chunks()
    assert bench.sender.wire_tsn() == 3
