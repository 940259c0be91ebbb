"""What is delivered when, what is held, and what is told of it.

Sections are those of RFC 9260, unless another one is named.
"""

import pytest
from support.sctp_invariants import check_receiver

from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    UNORDERED,
)
from sleap_rtc_plugin.transport.sctp.receiver import (
    MAX_DUPLICATES_TOLD,
    MAX_HELD_CHUNKS,
    MAX_MESSAGE_BYTES,
    MAX_TSN_OFFSET,
    DataChunk,
    MessageTooLarge,
    Receiver,
)

WHOLE = FIRST_FRAGMENT | LAST_FRAGMENT
BINARY = 53
BLOCKS = 280


class Bench:
    """A receiver whose TSNs count from 1, across the wrap if that is wanted."""

    def __init__(self, before: int = 0, **options: int) -> None:
        self.before = before
        self.receiver = Receiver(before, **options)

    def take(
        self,
        tsn: int,
        data: bytes,
        *,
        flags: int = WHOLE,
        stream: int = 1,
        seq: int = 0,
    ) -> list[bytes]:
        """Take a chunk; return what is delivered."""
        chunk = DataChunk(flags, stream, seq, BINARY, data)
        self.receiver.on_data((self.before + tsn) % TSN_MODULO, chunk)
        return self.delivered()

    def skip(self, tsn: int, *streams: tuple[int, int]) -> list[bytes]:
        """Take a FORWARD-TSN; return what is delivered."""
        self.receiver.on_forward_tsn((self.before + tsn) % TSN_MODULO, streams)
        return self.delivered()

    def delivered(self) -> list[bytes]:
        check_receiver(self.receiver)
        taken = [message.data for message in self.receiver.messages]
        self.receiver.messages.clear()
        return taken

    def told(self) -> tuple[int, list[tuple[int, int]], list[int]]:
        """Return what a SACK tells: the cumulative TSN, ranges and duplicates."""
        base, _, gaps, duplicates = self.receiver.take_ack(BLOCKS)
        upto = base - self.before
        return (
            upto,
            [(upto + low, upto + high) for low, high in gaps],
            [(tsn - self.before) % TSN_MODULO for tsn in duplicates],
        )


# -- delivery (sections 6.5, 6.6 and 6.9) ----------------------------------------------


def test_messages_in_order() -> None:
    bench = Bench()
    assert bench.take(1, b"a") == [b"a"]
    assert bench.take(2, b"b", flags=FIRST_FRAGMENT, seq=1) == []
    assert bench.take(3, b"c", flags=0, seq=1) == []
    assert bench.take(4, b"d", flags=LAST_FRAGMENT, seq=1) == [b"bcd"]
    assert bench.told() == (4, [], [])


def test_a_message_beyond_a_gap_waits_for_its_stream_only() -> None:
    bench = Bench()
    assert bench.take(2, b"same stream", seq=1) == []
    assert bench.take(3, b"other stream", stream=2) == [b"other stream"]
    assert bench.take(4, b"no order", flags=WHOLE | UNORDERED, seq=9) == [b"no order"]
    assert bench.take(1, b"missing") == [b"missing", b"same stream"]
    assert bench.told() == (4, [], [])
    assert bench.receiver.held_bytes == 0


def test_fragments_beyond_a_gap_make_a_message_in_any_order() -> None:
    bench = Bench()
    assert bench.take(5, b"c", flags=LAST_FRAGMENT, stream=2) == []
    assert bench.take(3, b"a", flags=FIRST_FRAGMENT, stream=2) == []
    assert bench.take(4, b"b", flags=0, stream=2) == [b"abc"]
    assert bench.told() == (0, [(3, 5)], [])


def test_a_message_that_begins_before_the_gap_is_complete_when_it_closes() -> None:
    bench = Bench()
    bench.take(1, b"a", flags=FIRST_FRAGMENT)
    bench.take(3, b"c", flags=LAST_FRAGMENT)
    assert bench.take(4, b"next", seq=1) == []
    assert bench.take(2, b"b", flags=0) == [b"abc", b"next"]


def test_fragments_of_two_messages_that_lie_side_by_side_are_not_mixed() -> None:
    bench = Bench()
    bench.take(3, b"b", flags=LAST_FRAGMENT)
    assert bench.take(4, b"c", flags=FIRST_FRAGMENT, seq=1) == []
    assert bench.take(5, b"d", flags=LAST_FRAGMENT, seq=1) == []
    assert bench.take(2, b"a", flags=FIRST_FRAGMENT) == [b"ab", b"cd"]


@pytest.mark.parametrize("seq", [0, 1, 7, 0xFFFF])
def test_a_number_that_a_stream_leaves_out_holds_nothing_up(seq: int) -> None:
    """Nothing is missing before it: the peer is out of step."""
    bench = Bench()
    assert bench.take(1, b"a", seq=seq) == [b"a"]
    assert bench.take(2, b"b", seq=(seq + 1) & 0xFFFF) == [b"b"]


def test_a_message_whose_rest_never_comes_is_left_out() -> None:
    bench = Bench()
    bench.take(1, b"a", flags=FIRST_FRAGMENT)
    assert bench.take(2, b"whole", seq=1) == [b"whole"]
    assert bench.take(3, b"tail", flags=LAST_FRAGMENT, seq=2) == []
    assert bench.receiver.held_bytes == 0


def test_numbers_of_streams_wrap() -> None:
    bench = Bench()
    bench.receiver.next_seq[1] = 0xFFFF
    assert bench.take(2, b"b", seq=0) == []
    assert bench.take(1, b"a", seq=0xFFFF) == [b"a", b"b"]


def test_tsns_wrap() -> None:
    bench = Bench(before=2 * TSN_MODULO - 2)
    bench.take(1, b"a")
    bench.take(3, b"c", seq=2)
    assert bench.told() == (1, [(3, 3)], [])
    assert bench.take(2, b"b", seq=1) == [b"b", b"c"]


# -- acknowledging (sections 6.2 and 3.3.4) --------------------------------------------


def test_what_comes_again_is_told_and_not_delivered_again() -> None:
    bench = Bench()
    bench.take(1, b"a")
    bench.take(3, b"c", stream=2)
    for tsn in (1, 3, 1):
        assert bench.take(tsn, b"again") == []
    assert bench.told() == (1, [(3, 3)], [1, 3, 1])
    assert bench.told() == (1, [(3, 3)], [])


def test_only_so_many_repetitions_are_remembered() -> None:
    bench = Bench()
    bench.take(1, b"a")
    for _ in range(1000):
        bench.take(1, b"a")
    assert len(bench.told()[2]) == MAX_DUPLICATES_TOLD


def test_more_gaps_than_a_packet_tells_of() -> None:
    bench = Bench()
    for tsn in range(2, 1000, 2):
        bench.take(tsn, b"x", stream=tsn, flags=WHOLE | UNORDERED)
    upto, gaps, _ = bench.told()
    assert (upto, len(gaps)) == (0, BLOCKS)
    assert gaps[0] == (2, 2)
    for tsn in range(1, 1000, 2):
        bench.take(tsn, b"x", flags=WHOLE | UNORDERED)
    assert bench.told() == (999, [], [])


def test_an_acknowledgement_is_due_when_something_came() -> None:
    bench = Bench()
    assert not bench.receiver.is_ack_due
    bench.take(1, b"a")
    assert bench.receiver.is_ack_due
    bench.told()
    assert not bench.receiver.is_ack_due
    bench.take(1, b"again")
    assert bench.receiver.is_ack_due


# -- bounds ----------------------------------------------------------------------------


def test_what_there_is_no_room_for_is_not_acknowledged() -> None:
    bench = Bench(window_bytes=10)
    bench.take(2, b"123456", seq=1)
    bench.take(3, b"12345", seq=2)
    assert bench.told() == (0, [(2, 2)], [])
    assert bench.receiver.take_ack(BLOCKS)[1] == 4
    # What closes the gap is taken always.
    assert len(bench.take(1, b"a long one, longer than the window")) == 2
    assert bench.receiver.take_ack(BLOCKS)[1] == 10


def test_the_number_of_small_chunks_is_bounded() -> None:
    bench = Bench()
    on_data = bench.receiver.on_data
    for tsn in range(2, MAX_HELD_CHUNKS + 100):
        on_data(tsn, DataChunk(FIRST_FRAGMENT, 1, tsn % 65536, BINARY, b"x"))
    check_receiver(bench.receiver)
    assert bench.told()[1] == [(2, MAX_HELD_CHUNKS + 1)]


@pytest.mark.parametrize("tsn", [MAX_TSN_OFFSET + 1, TSN_MODULO // 2 - 1])
def test_what_a_gap_block_could_not_tell_is_not_taken(tsn: int) -> None:
    bench = Bench()
    assert bench.take(tsn, b"far") == []
    assert bench.told() == (0, [], [])
    bench.take(MAX_TSN_OFFSET, b"near")
    assert bench.told()[1] == [(MAX_TSN_OFFSET, MAX_TSN_OFFSET)]


def test_a_message_of_the_largest_size_is_taken_and_a_larger_one_is_not() -> None:
    half = bytes(MAX_MESSAGE_BYTES // 2)
    bench = Bench()
    bench.take(1, half, flags=FIRST_FRAGMENT)
    assert len(bench.take(2, half, flags=LAST_FRAGMENT)[0]) == MAX_MESSAGE_BYTES
    bench.take(3, half, flags=FIRST_FRAGMENT)
    with pytest.raises(MessageTooLarge):
        bench.take(4, half + b"x", flags=LAST_FRAGMENT)


def test_a_message_that_grows_too_large_is_refused_before_it_ends() -> None:
    bench = Bench()
    bench.take(1, bytes(MAX_MESSAGE_BYTES), flags=FIRST_FRAGMENT)
    with pytest.raises(MessageTooLarge):
        bench.take(2, b"x", flags=0)


def test_a_message_beyond_a_gap_may_be_too_large_as_well() -> None:
    bench = Bench()
    bench.take(2, bytes(MAX_MESSAGE_BYTES), flags=FIRST_FRAGMENT)
    with pytest.raises(MessageTooLarge):
        bench.take(3, b"x", flags=LAST_FRAGMENT)


# -- FORWARD-TSN (RFC 3758 section 3.6) ------------------------------------------------


def test_a_skip_delivers_what_waited_for_it() -> None:
    bench = Bench()
    bench.take(2, b"b", seq=1)
    bench.take(4, b"d", seq=3)
    assert bench.skip(1, (1, 0)) == [b"b"]
    assert bench.told() == (2, [(4, 4)], [])
    assert bench.skip(3, (1, 2)) == [b"d"]
    assert bench.told() == (4, [], [])


def test_a_skip_of_several_streams() -> None:
    bench = Bench()
    bench.take(3, b"a", stream=1, seq=1)
    bench.take(4, b"b", stream=2, seq=1)
    assert sorted(bench.skip(2, (1, 0), (2, 0))) == [b"a", b"b"]


def test_a_skip_throws_away_what_is_left_of_a_message() -> None:
    bench = Bench()
    bench.take(1, b"a", flags=FIRST_FRAGMENT)
    bench.take(3, b"c", flags=LAST_FRAGMENT)
    assert bench.skip(3, (1, 0)) == []
    assert bench.receiver.held_bytes == 0
    assert bench.take(4, b"next", seq=1) == [b"next"]


def test_a_message_that_goes_on_after_a_skip_is_kept() -> None:
    bench = Bench()
    bench.take(2, b"a", flags=FIRST_FRAGMENT, stream=2)
    bench.take(3, b"b", flags=0, stream=2)
    assert bench.skip(2, (1, 0)) == []
    assert bench.take(4, b"c", flags=LAST_FRAGMENT, stream=2) == [b"abc"]


def test_a_skip_that_is_old_or_wild_changes_nothing() -> None:
    bench = Bench()
    bench.take(1, b"a")
    for tsn in (1, 0, MAX_TSN_OFFSET + 2, TSN_MODULO - 1):
        assert bench.skip(tsn, (1, 5)) == []
    assert bench.take(2, b"b", seq=1) == [b"b"]
    assert bench.receiver.next_seq[1] == 2


def test_a_stream_never_goes_back() -> None:
    bench = Bench()
    for tsn in range(1, 5):
        bench.take(tsn, b"x", seq=tsn - 1)
    bench.skip(5, (1, 2))
    assert bench.receiver.next_seq[1] == 4


# -- resets (RFC 6525 section 5.2.2) ---------------------------------------------------


def test_a_stream_that_is_reset_counts_from_zero() -> None:
    bench = Bench()
    bench.take(1, b"a", seq=0)
    bench.take(2, b"b", seq=1)
    bench.receiver.reset_stream(1)
    assert bench.take(4, b"d", seq=1) == []
    assert bench.take(3, b"c", seq=0) == [b"c", b"d"]


def test_what_waited_on_a_stream_goes_with_it() -> None:
    bench = Bench()
    bench.take(2, b"b", seq=1)
    bench.take(3, b"c", stream=2, seq=1)
    bench.receiver.reset_stream(1)
    assert bench.take(1, b"a", stream=2) == [b"a", b"c"]
    assert bench.receiver.held_bytes == 0
