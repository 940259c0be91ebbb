"""The bytes of packets and chunks: what is written, what is read, what is refused.

Sections are those of RFC 9260, unless another one is named.
"""

import struct

import pytest
from aiortc.rtcsctptransport import (
    ForwardTsnChunk,
    HeartbeatChunk,
    SackChunk,
    parse_packet,
)
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.transport.sctp.packet import (
    DATA,
    FORWARD_TSN,
    HEARTBEAT_ACK,
    INIT,
    SACK,
    TSN_MODULO,
    BadPacket,
    forward_tsn_chunk,
    heartbeat_chunks,
    heartbeat_info,
    iter_chunks,
    read_ack,
    read_forward_tsn,
    sack_chunk,
    seal,
    unwrap,
)

TAG = 0xABCD1234
HEADER = struct.pack("!HHLL", 5000, 5001, TAG, 0)


def chunk(kind: int, body: bytes, flags: int = 0) -> bytes:
    padding = bytes(-len(body) % 4)
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + padding


def chunks_of(packet: bytes, tag: int = TAG) -> list[tuple[int, int, bytes]]:
    return [
        (kind, flags, packet[begin + 4 : end])
        for kind, flags, begin, end in iter_chunks(packet, tag)
    ]


# -- packets (sections 3.1, 6.8 and 8.5) -----------------------------------------------


def test_chunks_are_read_without_their_padding() -> None:
    packet = seal(HEADER, chunk(DATA, b"abcde", flags=3) + chunk(SACK, b"12345678"))
    assert chunks_of(packet) == [(DATA, 3, b"abcde"), (SACK, 0, b"12345678")]


def test_aiortc_reads_what_is_written() -> None:
    packet = seal(HEADER, sack_chunk(7, 100, [(2, 3)], [9]))
    source, destination, tag, [sack] = parse_packet(packet)
    assert (source, destination, tag) == (5000, 5001, TAG)
    assert isinstance(sack, SackChunk)


@given(st.integers(0, 8 * 32 - 1))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    packet = bytearray(seal(HEADER, chunk(DATA, bytes(16))))
    packet[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadPacket):
        chunks_of(bytes(packet))


@pytest.mark.parametrize("size", range(16))
def test_too_short(size: int) -> None:
    with pytest.raises(BadPacket):
        chunks_of(seal(HEADER, chunk(DATA, b""))[:size])


@pytest.mark.parametrize("length", [0, 3, 21, 0xFFFF])
def test_what_came_before_a_wrong_length_counts(length: int) -> None:
    wrong = struct.pack("!BBH", DATA, 0, length) + bytes(16)
    seen = []
    with pytest.raises(BadPacket):
        for kind, *_ in iter_chunks(seal(HEADER, chunk(SACK, bytes(12)) + wrong), TAG):
            seen.append(kind)
    assert seen == [SACK]


def test_a_packet_for_another_association_is_refused() -> None:
    with pytest.raises(BadPacket):
        chunks_of(seal(HEADER, chunk(DATA, bytes(16))), tag=TAG + 1)


def test_init_comes_with_no_tag_and_alone() -> None:
    without_tag = HEADER[:4] + bytes(8)
    packet = seal(without_tag, chunk(INIT, bytes(16)) + chunk(DATA, bytes(16)))
    assert [kind for kind, *_ in chunks_of(packet)] == [INIT]
    with pytest.raises(BadPacket):
        chunks_of(seal(HEADER, chunk(INIT, bytes(16))))
    with pytest.raises(BadPacket):
        chunks_of(seal(without_tag, chunk(DATA, bytes(16))))


# -- SACK (section 3.3.4) --------------------------------------------------------------

offsets = st.integers(0, 0xFFFF)
tsns = st.integers(0, TSN_MODULO - 1)


@given(tsns, tsns, st.lists(st.tuples(offsets, offsets)), st.lists(tsns))
def test_a_sack_is_read_as_it_was_written(
    cumulative: int, window: int, gaps: list[tuple[int, int]], duplicates: list[int]
) -> None:
    packet = seal(HEADER, sack_chunk(cumulative, window, gaps, duplicates))
    [(_, _, begin, end)] = iter_chunks(packet, TAG)
    assert read_ack(packet, begin, end) == (cumulative, window, gaps, duplicates)
    [stock] = parse_packet(packet)[3]
    assert (stock.gaps, stock.duplicates) == (gaps, duplicates)


@pytest.mark.parametrize(
    "body",
    [
        bytes(11),
        struct.pack("!LLHH", 1, 1, 1, 0),
        struct.pack("!LLHH", 1, 1, 0, 1),
        struct.pack("!LLHH", 1, 1, 0xFFFF, 0xFFFF) + bytes(40),
    ],
)
def test_a_sack_that_holds_less_than_it_says_is_refused(body: bytes) -> None:
    packet = seal(HEADER, chunk(SACK, body))
    with pytest.raises(BadPacket):
        read_ack(packet, 12, 16 + len(body))


# -- FORWARD-TSN (RFC 3758 section 3.2) ------------------------------------------------


@given(tsns, st.lists(st.tuples(offsets, offsets)))
def test_a_skip_is_read_as_it_was_written(
    tsn: int, streams: list[tuple[int, int]]
) -> None:
    packet = seal(HEADER, forward_tsn_chunk(tsn, streams))
    [(_, _, begin, end)] = iter_chunks(packet, TAG)
    assert read_forward_tsn(packet, begin, end) == (tsn, streams)
    [stock] = parse_packet(packet)[3]
    assert isinstance(stock, ForwardTsnChunk)
    assert (stock.cumulative_tsn, stock.streams) == (tsn, streams)


@pytest.mark.parametrize("size", [0, 3, 5, 6, 7, 9])
def test_a_skip_of_a_wrong_length_is_refused(size: int) -> None:
    packet = seal(HEADER, chunk(FORWARD_TSN, bytes(size)))
    with pytest.raises(BadPacket):
        read_forward_tsn(packet, 12, 16 + size)


# -- padded HEARTBEAT (sections 3.3.5 and 3.3.6; RFC 4820) -----------------------------


@pytest.mark.parametrize("size", [1176, 1388, 16_372])
def test_a_probe_is_as_large_as_asked_and_aiortc_would_answer_it(size: int) -> None:
    chunks = heartbeat_chunks(b"size1234", size)
    assert len(chunks) == size
    [heartbeat] = parse_packet(seal(HEADER, chunks))[3]
    assert isinstance(heartbeat, HeartbeatChunk)
    assert heartbeat.params == [(1, b"size1234")]


def test_the_mark_of_a_probe_comes_back() -> None:
    body = struct.pack("!HH", 1, 12) + b"size1234"
    packet = seal(HEADER, chunk(HEARTBEAT_ACK, body))
    assert heartbeat_info(packet, 12, 16 + len(body)) == b"size1234"


@pytest.mark.parametrize(
    "body",
    [b"", b"\0\1", struct.pack("!HH", 2, 8) + b"size", b"\0\1\xff\xff" + b"size"],
)
def test_an_answer_to_another_question_has_no_mark(body: bytes) -> None:
    packet = seal(HEADER, chunk(HEARTBEAT_ACK, body))
    assert heartbeat_info(packet, 12, 16 + len(body)) == b""


# -- numbers (section 1.6) -------------------------------------------------------------


@given(st.integers(0, 1 << 40), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_a_number_is_unwrapped_to_the_nearest(near: int, offset: int) -> None:
    assert unwrap((near + offset) % TSN_MODULO, near) == near + offset
