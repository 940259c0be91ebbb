"""Chunks in any order, some of them repeated, become the messages that were sent."""

from collections import defaultdict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from support.sctp_invariants import check_receiver

from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
    UNORDERED,
)
from sleap_rtc_plugin.transport.sctp.receiver import DataChunk, Receiver

FRAGMENT_BYTES = 10
ORDERED_STREAMS = (0, 1, 7)
UNORDERED_STREAMS = (2, 65534)
FIRST_SEQ = 65534


@dataclass(frozen=True)
class Sent:
    """A message, on a stream that is ordered or not."""

    stream_id: int
    data: bytes

    @property
    def is_unordered(self) -> bool:
        return self.stream_id in UNORDERED_STREAMS


sizes = st.sampled_from([1, 9, 10, 11, 20, 21, 45]) | st.integers(1, 60)
messages = st.lists(
    st.tuples(st.sampled_from(ORDERED_STREAMS + UNORDERED_STREAMS), sizes), max_size=12
).map(
    # Each has its own bytes, so that what is delivered can be told apart.
    lambda drawn: [
        Sent(stream, bytes([number, 0, 0])[:size].ljust(size, bytes([number])))
        for number, (stream, size) in enumerate(drawn)
    ]
)


def chunks_of(sent: list[Sent]) -> list[DataChunk]:
    """The fragments, in the order of their TSNs."""
    chunks, seqs = [], defaultdict(lambda: FIRST_SEQ)
    for message in sent:
        seq = 0 if message.is_unordered else seqs[message.stream_id]
        seqs[message.stream_id] = (seqs[message.stream_id] + 1) % 65536
        pieces = range(0, len(message.data), FRAGMENT_BYTES)
        for at in pieces:
            flags = UNORDERED if message.is_unordered else 0
            flags |= FIRST_FRAGMENT if at == 0 else 0
            flags |= LAST_FRAGMENT if at == pieces[-1] else 0
            piece = message.data[at : at + FRAGMENT_BYTES]
            chunks.append(DataChunk(flags, message.stream_id, seq, 53, piece))
    return chunks


def new_receiver(cumulative: int) -> Receiver:
    receiver = Receiver(cumulative)
    receiver.next_seq.update(dict.fromkeys(ORDERED_STREAMS, FIRST_SEQ))
    return receiver


def delivered(receiver: Receiver) -> list[Sent]:
    return [Sent(message.stream_id, message.data) for message in receiver.messages]


def check_delivery(got: list[Sent], sent: list[Sent]) -> None:
    """Each once, and in order on the streams that are ordered."""
    for stream in ORDERED_STREAMS:
        assert [one for one in got if one.stream_id == stream] == [
            one for one in sent if one.stream_id == stream
        ]
    assert sorted(one.data for one in got) == sorted(one.data for one in sent)


def check_ack(receiver: Receiver, arrived: set[int], begin: int) -> None:
    """A SACK tells exactly what has arrived."""
    cumulative, _, gaps, _ = receiver.take_ack(max_blocks=1000)
    told = {cumulative + at for first, last in gaps for at in range(first, last + 1)}
    assert set(range(begin, cumulative + 1)) | told == arrived
    assert cumulative + 1 not in arrived


@given(messages, st.data(), st.integers(0, 40))
def test_any_order_with_repetitions(
    sent: list[Sent], data: st.DataObject, below_wrap: int
) -> None:
    cumulative = TSN_MODULO - 1 - below_wrap
    begin = cumulative + 1
    chunks = list(enumerate(chunks_of(sent), begin))
    repeated = data.draw(st.lists(st.sampled_from(chunks), max_size=6)) if sent else []
    receiver = new_receiver(cumulative)
    arrived: set[int] = set()
    for tsn, chunk in data.draw(st.permutations(chunks + repeated)):
        receiver.on_data(tsn % TSN_MODULO, chunk)
        arrived.add(tsn)
        assert receiver.is_ack_due
        check_receiver(receiver)
        check_ack(receiver, arrived, begin)
    check_delivery(delivered(receiver), sent)
    assert receiver.held_bytes == 0
    assert not receiver._beyond


@given(messages, st.data())
def test_what_is_whole_is_not_held_up_by_other_streams(
    sent: list[Sent], data: st.DataObject
) -> None:
    chunks = list(enumerate(chunks_of(sent)))
    missing = data.draw(st.sets(st.sampled_from(ORDERED_STREAMS + UNORDERED_STREAMS)))
    receiver = new_receiver(-1)
    there = [entry for entry in chunks if entry[1].stream_id not in missing]
    for tsn, chunk in data.draw(st.permutations(there)):
        receiver.on_data(tsn, chunk)
        check_receiver(receiver)
    check_delivery(
        delivered(receiver), [one for one in sent if one.stream_id not in missing]
    )


@given(messages, st.data())
def test_what_is_given_up_blocks_nothing(sent: list[Sent], data: st.DataObject) -> None:
    """Whole messages are skipped; all others arrive, whatever the order."""
    receiver = new_receiver(-1)
    given_up = data.draw(st.sets(st.integers(0, max(0, len(sent) - 1))))
    chunks = list(enumerate(chunks_of(sent)))
    owners = [
        number
        for number, message in enumerate(sent)
        for _ in range(0, len(message.data), FRAGMENT_BYTES)
    ]
    kept = [entry for entry in chunks if owners[entry[0]] not in given_up]
    # Some fragments of what is given up arrive all the same, never the whole of it.
    lost = [entry for entry in chunks if owners[entry[0]] in given_up]
    strays = data.draw(st.sets(st.sampled_from(lost))) if lost else set()
    strays -= {
        entry
        for entry in lost
        if all(
            other in strays for other in lost if owners[other[0]] == owners[entry[0]]
        )
    }
    for tsn, chunk in data.draw(st.permutations(kept + sorted(strays))):
        receiver.on_data(tsn, chunk)
        check_receiver(receiver)
    position = -1
    while position + 1 < len(chunks):
        # As a sender does: to the end of what is given up after the cumulative TSN.
        position = receiver.cumulative
        skipped: dict[int, int] = {}
        while position + 1 < len(chunks) and owners[position + 1] in given_up:
            position += 1
            chunk = chunks[position][1]
            if not chunk.flags & UNORDERED:
                skipped[chunk.stream_id] = chunk.stream_seq
        if position == receiver.cumulative:
            break
        receiver.on_forward_tsn(position % TSN_MODULO, list(skipped.items()))
        check_receiver(receiver)
    check_delivery(
        delivered(receiver),
        [message for number, message in enumerate(sent) if number not in given_up],
    )
    assert receiver.cumulative == len(chunks) - 1
    assert receiver.held_bytes == 0
