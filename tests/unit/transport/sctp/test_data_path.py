"""Both halves of an association together: what is in a packet, and what comes of one.

Sections are those of RFC 9260, unless another one is named.
"""

import struct
from collections.abc import Iterator

import pytest
from support.path_pair import TAGS, FixedWindow
from support.sctp_invariants import check_data_path

from sleap_rtc_plugin.transport.sctp.data_path import (
    BLACK_HOLE_LOSSES,
    MAX_BURST_CHUNKS,
    Association,
    DataPath,
)
from sleap_rtc_plugin.transport.sctp.packet import (
    DATA,
    DATA_HEADER,
    FORWARD_TSN,
    HEARTBEAT,
    HEARTBEAT_ACK,
    SACK,
    heartbeat_info,
    iter_chunks,
    seal,
)
from sleap_rtc_plugin.transport.sctp.path_mtu import (
    BASE_PACKET_BYTES,
    ETHERNET_PACKET_BYTES,
    FAST_PEER_PACKET_BYTES,
    PathMtu,
)
from sleap_rtc_plugin.transport.sctp.receiver import MessageTooLarge, Receiver
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

PORT = 5000
NOW = 100.0
WHOLE = 3
LARGEST_MESSAGE = 262_144


def make_path(end: int = 0, limit_bytes: int = BASE_PACKET_BYTES) -> DataPath:
    return DataPath(
        Association(PORT, PORT, TAGS[end], TAGS[1 - end], True),
        receiver=Receiver(0),
        first_tsn=1,
        peer_window_bytes=1 << 24,
        congestion=FixedWindow(1 << 24),
        path_mtu=PathMtu(limit_bytes),
    )


def packet_of(*chunks: bytes) -> bytes:
    """A packet from end 1 to end 0."""
    header = struct.pack("!HHLL", PORT, PORT, TAGS[0], 0)
    return seal(header, b"".join(chunks))


def data(tsn: int, content: bytes, flags: int = WHOLE, seq: int | None = None) -> bytes:
    seq = tsn - 1 if seq is None else seq
    length = DATA_HEADER.size + len(content)
    header = DATA_HEADER.pack(DATA, flags, length, tsn, 1, seq, 53)
    return header + content + bytes(-length % 4)


def chunk(kind: int, body: bytes) -> bytes:
    return struct.pack("!BBH", kind, 0, 4 + len(body)) + body + bytes(-len(body) % 4)


def kinds(packet: bytes, tag: int = TAGS[1]) -> list[int]:
    return [kind for kind, *_ in iter_chunks(packet, tag)]


def drained(path: DataPath, now: float = NOW) -> Iterator[bytes]:
    while packets := path.packets(now):
        yield from packets


def push(path: DataPath, size: int, **options: object) -> None:
    path.send(OutboundMessage(1, 53, bytes(size), **options))


# -- out -------------------------------------------------------------------------------


def test_small_messages_share_a_packet() -> None:
    path = make_path()
    for _ in range(3):
        push(path, 100)
    [packet] = drained(path)
    assert kinds(packet) == [DATA, DATA, DATA]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1159, 1160, 1161, 70_000])
def test_no_packet_is_larger_than_the_path_carries(size: int) -> None:
    path, peer = make_path(0), make_path(1)
    for _ in range(4):
        push(path, size)
    for packet in drained(path):
        assert len(packet) <= BASE_PACKET_BYTES
        assert len(packet) % 4 == 0
        peer.receive_packet(packet, NOW)
    assert [len(message.data) for message in peer.messages] == [size] * 4


def test_one_call_sends_no_more_than_a_burst() -> None:
    path = make_path()
    push(path, LARGEST_MESSAGE)
    assert len(path.packets(NOW)) <= MAX_BURST_CHUNKS


def test_an_acknowledgement_comes_before_data() -> None:
    """Section 6.10."""
    path = make_path()
    path.receive_packet(packet_of(data(1, b"x")), NOW)
    push(path, 10)
    [packet] = drained(path)
    assert kinds(packet) == [SACK, DATA]


def test_a_batch_is_acknowledged_once() -> None:
    path = make_path()
    for tsn in range(1, 50):
        path.receive_packet(packet_of(data(tsn, b"x")), NOW)
    assert [kinds(packet) for packet in drained(path)] == [[SACK]]


def test_an_acknowledgement_of_many_gaps_fits_a_packet() -> None:
    path = make_path()
    for tsn in range(2, 5000, 2):
        path.receive_packet(packet_of(data(tsn, b"x")), NOW)
    [packet] = drained(path)
    assert len(packet) <= BASE_PACKET_BYTES


def test_what_is_given_up_is_told_beside_an_acknowledgement() -> None:
    path = make_path()
    push(path, 10, max_retransmits=0)
    list(drained(path))
    path.receive_packet(packet_of(data(1, b"x")), NOW)
    path.handle_timeout(path.deadline())
    [packet] = drained(path, NOW + 10)
    assert kinds(packet) == [SACK, FORWARD_TSN]


def test_a_skip_that_does_not_fit_beside_one_goes_by_itself() -> None:
    path = make_path()
    for stream in range(20):
        path.send(OutboundMessage(stream, 53, b"x", max_retransmits=0))
    list(drained(path))
    for tsn in range(2, 5000, 2):
        path.receive_packet(packet_of(data(tsn, b"x")), NOW)
    path.handle_timeout(path.deadline())
    packets = list(drained(path, NOW + 10))
    assert [kinds(packet) for packet in packets] == [[SACK], [FORWARD_TSN]]


# -- in --------------------------------------------------------------------------------


def test_what_is_not_for_the_data_path_is_handed_back() -> None:
    path = make_path()
    others = path.receive_packet(
        packet_of(chunk(130, b"reset"), data(1, b"x"), chunk(200, b"")), NOW
    )
    assert [(each.kind, each.body) for each in others] == [(130, b"reset"), (200, b"")]
    assert [message.data for message in path.messages] == [b"x"]


@pytest.mark.parametrize(
    "bad",
    [
        chunk(SACK, b"short"),
        chunk(FORWARD_TSN, b"abc"),
        DATA_HEADER.pack(DATA, WHOLE, DATA_HEADER.size, 2, 1, 1, 53),
        struct.pack("!BBH", DATA, WHOLE, 4),
        struct.pack("!BBH", DATA, WHOLE, 0xFFFF),
    ],
    ids=["sack", "skip", "no data", "no header", "length"],
)
def test_a_bad_chunk_ends_a_packet_and_what_came_before_counts(bad: bytes) -> None:
    path = make_path()
    assert path.receive_packet(packet_of(data(1, b"x"), bad, data(2, b"y")), NOW) == []
    assert [message.data for message in path.messages] == [b"x"]
    check_data_path(path)


def test_a_packet_that_was_damaged_or_is_another_s_is_nothing() -> None:
    path = make_path()
    good = packet_of(data(1, b"x"))
    for packet in (b"", good[:20], good[:-4] + b"\1\0\0\0", seal(bytes(12), good[12:])):
        assert path.receive_packet(packet, NOW) == []
    assert not path.messages
    assert list(drained(path)) == []


def test_a_message_that_is_too_large_is_refused() -> None:
    path = make_path()
    path.receive_packet(packet_of(data(1, bytes(60_000), flags=2)), NOW)
    with pytest.raises(MessageTooLarge):
        for tsn in range(2, 9):
            path.receive_packet(packet_of(data(tsn, bytes(60_000), 0, seq=0)), NOW)


# -- the size of packets (RFC 8899) ----------------------------------------------------


def answer(packet: bytes, path: DataPath) -> bool:
    """Answer a probe as the peer does; False if it is none."""
    for kind, _, begin, end in iter_chunks(packet, TAGS[1]):
        if kind == HEARTBEAT:
            info = heartbeat_info(packet, begin, end)
            mark = struct.pack("!HH", 1, 4 + len(info)) + info
            path.receive_packet(packet_of(chunk(HEARTBEAT_ACK, mark)), NOW)
            return True
    return False


def with_large_packets() -> DataPath:
    path = make_path(limit_bytes=FAST_PEER_PACKET_BYTES)
    while packets := path.packets(NOW):
        assert all(answer(packet, path) for packet in packets)
    assert path.path_mtu.packet_bytes == FAST_PEER_PACKET_BYTES
    return path


def test_packets_are_larger_when_a_probe_of_that_size_has_come_back() -> None:
    path = make_path(limit_bytes=ETHERNET_PACKET_BYTES)
    push(path, 10_000)
    [*small, probe] = drained(path)
    assert len(probe) == ETHERNET_PACKET_BYTES
    assert max(map(len, small)) == BASE_PACKET_BYTES
    assert answer(probe, path)
    push(path, 10_000)
    assert max(map(len, drained(path))) == ETHERNET_PACKET_BYTES


@pytest.mark.parametrize("mark", [b"", b"size", b"size\0\0\0\0\0", b"SIZE\0\0\0\1"])
def test_an_answer_that_is_not_to_a_probe_changes_nothing(mark: bytes) -> None:
    path = make_path(limit_bytes=ETHERNET_PACKET_BYTES)
    path.packets(NOW)
    body = struct.pack("!HH", 1, 4 + len(mark)) + mark
    path.receive_packet(packet_of(chunk(HEARTBEAT_ACK, body)), NOW)
    assert path.path_mtu.packet_bytes == BASE_PACKET_BYTES


def acknowledge(path: DataPath, upto: int, *gaps: tuple[int, int]) -> None:
    body = struct.pack("!LLHH", upto, 1 << 24, len(gaps), 0)
    body += b"".join(struct.pack("!HH", *gap) for gap in gaps)
    path.receive_packet(packet_of(chunk(SACK, body)), NOW + 0.01)


def test_large_packets_that_vanish_while_small_ones_arrive_are_made_smaller() -> None:
    path = with_large_packets()
    for _ in range(BLACK_HOLE_LOSSES):
        push(path, 16_000)
    for _ in range(5):
        push(path, 10)
    list(drained(path))
    acknowledge(path, 0, (BLACK_HOLE_LOSSES + 1, BLACK_HOLE_LOSSES + 5))
    packets = path.packets(NOW + 0.01)
    assert path.path_mtu.packet_bytes == BASE_PACKET_BYTES
    # Those have their TSNs, and go as they are: the network may cut them.
    assert path.may_fragment
    assert max(map(len, packets)) > BASE_PACKET_BYTES
    push(path, 16_000)
    assert max(map(len, drained(path, NOW + 0.01))) == BASE_PACKET_BYTES


def test_two_timeouts_in_a_row_may_be_a_path_that_carries_less() -> None:
    path = with_large_packets()
    push(path, 100_000)
    list(drained(path))
    while path.sender.round_trip.backoff < 2:
        assert path.path_mtu.packet_bytes == FAST_PEER_PACKET_BYTES
        now = path.deadline()
        path.handle_timeout(now)
        list(drained(path, now))
    assert path.path_mtu.packet_bytes == BASE_PACKET_BYTES
    assert path.may_fragment


def test_a_size_that_this_machine_refuses_is_not_used_again() -> None:
    path = with_large_packets()
    path.on_too_large(FAST_PEER_PACKET_BYTES, NOW)
    push(path, 50_000)
    assert max(map(len, drained(path))) == BASE_PACKET_BYTES


def test_another_path_begins_with_small_packets() -> None:
    path = with_large_packets()
    path.on_new_path(NOW)
    push(path, 50_000)
    sizes = [len(packet) for packet in drained(path)]
    assert sizes[0] == BASE_PACKET_BYTES
    # And the probe.
    assert max(sizes) == ETHERNET_PACKET_BYTES


# -- idle ------------------------------------------------------------------------------


def test_an_idle_association_wants_no_timer() -> None:
    path = make_path()
    push(path, 10)
    list(drained(path))
    acknowledge(path, 1)
    list(drained(path, NOW + 0.01))
    assert path.deadline() is None
