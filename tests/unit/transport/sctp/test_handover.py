"""The state of an association, from aiortc's transport and back to it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    InboundStream,
    RTCSctpTransport,
)
from aiortc.rtcsctptransport import DataChunk as StockChunk
from support.link_emulator import Conditions, EmulatedLink
from support.path_pair import FixedWindow
from support.sctp_invariants import check_data_path
from support.simulated_loop import simulate
from support.simulated_transports import SimulatedDtls

from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.handover import (
    CannotTakeOver,
    give_back,
    take_over,
)
from sleap_rtc_plugin.transport.sctp.packet import (
    FIRST_FRAGMENT,
    LAST_FRAGMENT,
    TSN_MODULO,
)
from sleap_rtc_plugin.transport.sctp.path_mtu import BASE_PAYLOAD_BYTES, PathMtu
from sleap_rtc_plugin.transport.sctp.receiver import RECEIVE_WINDOW_BYTES, DataChunk
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

WHOLE = FIRST_FRAGMENT | LAST_FRAGMENT
# aiortc itself does not get over a gap where its numbers wrap.
THEIRS = 1000
OURS = TSN_MODULO - 3
NOW = 100.0
WALL_CLOCK = 5000.0
MANY = 1000
WINDOW = 1 << 20

Test = Callable[[RTCSctpTransport], None]


def on_a_transport(test: Test) -> Callable[[], None]:
    """Run a test with an aiortc transport whose association is established."""

    async def main() -> None:
        link = EmulatedLink(asyncio.get_running_loop(), Conditions())
        dtls = SimulatedDtls(link, 0, is_protected=True)
        transport = RTCSctpTransport(dtls)
        transport._association_state = transport.State.ESTABLISHED
        transport._last_received_tsn = THEIRS
        transport._remote_port = 5000
        transport._local_tsn = OURS
        transport._last_sacked_tsn = transport._advanced_peer_ack_tsn = OURS - 1
        transport._ssthresh = WINDOW
        test(transport)
        dtls.close()

    def run() -> None:
        simulate(main)

    run.__name__ = run.__qualname__ = test.__name__
    return run


def taken(transport: RTCSctpTransport) -> DataPath:
    path = take_over(transport, FixedWindow(WINDOW), PathMtu())
    check_data_path(path)
    return path


def given(transport: RTCSctpTransport, path: DataPath) -> None:
    give_back(transport, path, now=NOW, wall_clock=WALL_CLOCK)


def run_now(work: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(StopIteration):
        work.send(None)


def receive(path: DataPath, tsn: int, content: bytes, **fields: int) -> None:
    flags, stream = fields.get("flags", WHOLE), fields.get("stream", 1)
    chunk = DataChunk(flags, stream, fields.get("seq", 0), 53, content)
    path.receiver.on_data((THEIRS + tsn) % TSN_MODULO, chunk)


def delivered_by_aiortc(
    transport: RTCSctpTransport, tsn: int, content: bytes, **fields: int
) -> list[bytes]:
    """Let aiortc take a chunk; return what it delivers."""
    got = []

    async def take(stream_id: int, protocol: int, data: bytes) -> None:
        got.append(data)

    vars(transport)["_receive"] = take
    chunk = StockChunk(flags=fields.get("flags", WHOLE))
    chunk.tsn = (THEIRS + tsn) % TSN_MODULO
    chunk.stream_id, chunk.stream_seq = fields.get("stream", 1), fields.get("seq", 0)
    chunk.user_data = content
    run_now(transport._receive_data_chunk(chunk))
    return got


# -- taking over -----------------------------------------------------------------------


@on_a_transport
def test_numbers_go_on(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.send(OutboundMessage(1, 53, b"x"))
    [chunk] = path.sender.poll(NOW, MANY, WINDOW)
    assert chunk.serial % TSN_MODULO == OURS
    receive(path, 1, b"y")
    assert [message.data for message in path.messages] == [b"y"]


@on_a_transport
def test_what_aiortc_holds_is_taken_along(transport: RTCSctpTransport) -> None:
    """Data may come before the association is established on this side."""
    stream = transport._inbound_streams[1] = InboundStream()
    stream.sequence_number = 4
    for tsn, flags in ((0, SCTP_DATA_FIRST_FRAG), (2, SCTP_DATA_LAST_FRAG)):
        chunk = StockChunk(flags=flags)
        chunk.tsn = (THEIRS + tsn) % TSN_MODULO
        chunk.stream_id, chunk.stream_seq = 1, 4
        chunk.user_data = bytes([tsn])
        stream.reassembly.append(chunk)
    transport._sack_misordered = {(THEIRS + 2) % TSN_MODULO, (THEIRS + 3) % TSN_MODULO}
    path = taken(transport)
    receive(path, 3, b"again", stream=2)
    receive(path, 1, b"\1", flags=0, seq=4)
    assert [message.data for message in path.messages] == [b"\0\1\2"]
    assert path.receiver.cumulative % TSN_MODULO == (THEIRS + 3) % TSN_MODULO


@on_a_transport
def test_what_was_sent_already_stays_aiortc_s(transport: RTCSctpTransport) -> None:
    transport._outbound_queue.append(StockChunk())
    with pytest.raises(CannotTakeOver):
        taken(transport)


@on_a_transport
def test_without_a_peer_there_is_nothing_to_take(transport: RTCSctpTransport) -> None:
    transport._last_received_tsn = None
    with pytest.raises(CannotTakeOver):
        taken(transport)


# -- giving back what was received -----------------------------------------------------


@on_a_transport
def test_what_is_missing_is_still_missing(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    receive(path, 1, b"a", flags=FIRST_FRAGMENT)
    receive(path, 3, b"c", flags=LAST_FRAGMENT)
    receive(path, 5, b"next", seq=1)
    receive(path, 6, b"other", stream=2)
    assert [message.data for message in path.messages] == [b"other"]
    path.messages.clear()
    given(transport, path)
    assert not path.messages
    held = len(b"a") + len(b"c") + len(b"next")
    assert transport._advertised_rwnd == RECEIVE_WINDOW_BYTES - held
    assert transport._sack_misordered == {
        (THEIRS + tsn) % TSN_MODULO for tsn in (3, 5, 6)
    }
    assert delivered_by_aiortc(transport, 6, b"other", stream=2) == []
    assert delivered_by_aiortc(transport, 4, b"b", stream=3) == [b"b"]
    assert delivered_by_aiortc(transport, 2, b"b", flags=0) == [b"abc", b"next"]
    assert transport._last_received_tsn == (THEIRS + 6) % TSN_MODULO
    assert transport._advertised_rwnd == RECEIVE_WINDOW_BYTES


@on_a_transport
def test_what_turns_out_to_be_whole_is_delivered(transport: RTCSctpTransport) -> None:
    """After a fault between taking a chunk and delivering its message."""
    path = taken(transport)
    receiver = path.receiver
    for tsn, stream in ((2, 1), (3, 2)):
        serial = receiver.cumulative + tsn
        receiver.hold(serial, DataChunk(WHOLE, stream, 0, 53, bytes([stream])))
    given(transport, path)
    assert [message.data for message in path.messages] == [b"\1", b"\2"]
    assert delivered_by_aiortc(transport, 1, b"first", stream=9) == [b"first"]
    assert transport._last_received_tsn == (THEIRS + 3) % TSN_MODULO


@on_a_transport
def test_a_gap_that_is_closed_already_is_none(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    receiver = path.receiver
    receiver.hold(receiver.cumulative + 1, DataChunk(WHOLE, 1, 0, 53, b"a"))
    receiver.hold(receiver.cumulative + 3, DataChunk(WHOLE, 1, 2, 53, b"c"))
    given(transport, path)
    assert [message.data for message in path.messages] == [b"a"]
    assert transport._last_received_tsn == (THEIRS + 1) % TSN_MODULO
    assert transport._sack_misordered == {(THEIRS + 3) % TSN_MODULO}


# -- giving back what is to be sent ----------------------------------------------------


def acknowledge(path: DataPath, upto: int, *gaps: tuple[int, int]) -> None:
    path.sender.on_sack((OURS + upto) % TSN_MODULO, WINDOW, gaps, [], NOW)


@on_a_transport
def test_everything_that_has_not_arrived_is_there(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.sender.congestion._window_bytes = 5 * BASE_PAYLOAD_BYTES
    contents = [bytes([n]) * (2 * BASE_PAYLOAD_BYTES) for n in range(5)]
    for content in contents:
        path.send(OutboundMessage(1, 53, content))
    path.sender.poll(NOW, MANY, WINDOW)
    acknowledge(path, 1, (2, 2))
    given(transport, path)
    sent, queued = transport._sent_queue, transport._outbound_queue
    assert [chunk.tsn for chunk in (*sent, *queued)] == [
        (OURS + number) % TSN_MODULO for number in range(2, 10)
    ]
    assert b"".join(chunk.user_data for chunk in (*sent, *queued)) == b"".join(
        contents[1:]
    )
    assert [chunk._retransmit for chunk in sent] == [True, False, True]
    assert [chunk._acked for chunk in sent] == [False, True, False]
    assert [chunk._sent_time for chunk in sent] == [WALL_CLOCK] * 3
    assert [chunk.stream_seq for chunk in (*sent, *queued)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert transport._outbound_stream_seq == {1: 5}
    assert transport._local_tsn == (OURS + 10) % TSN_MODULO
    assert transport._last_sacked_tsn == (OURS + 1) % TSN_MODULO
    assert len(path.sender.taken) == 5


@on_a_transport
def test_only_what_has_its_tsn_stays_large(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.sender.set_payload(8 * BASE_PAYLOAD_BYTES)
    for _ in range(2):
        path.send(OutboundMessage(1, 53, bytes(10 * BASE_PAYLOAD_BYTES)))
    path.sender.poll(NOW, 1, WINDOW)
    given(transport, path)
    assert [len(chunk.user_data) for chunk in transport._sent_queue] == [
        8 * BASE_PAYLOAD_BYTES
    ]
    assert [len(chunk.user_data) for chunk in transport._outbound_queue] == [
        BASE_PAYLOAD_BYTES
    ] * 12


@on_a_transport
def test_urgent_messages_stay_before_others(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.sender.streams.set_urgent(7)
    path.send(OutboundMessage(1, 53, b"bulk"))
    path.send(OutboundMessage(7, 53, b"control"))
    given(transport, path)
    assert [chunk.user_data for chunk in transport._outbound_queue] == [
        b"control",
        b"bulk",
    ]


@on_a_transport
def test_what_may_be_given_up_still_may(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.send(OutboundMessage(1, 53, b"once", max_retransmits=0))
    path.send(OutboundMessage(1, 53, b"soon", expires_at=NOW + 5))
    path.send(OutboundMessage(1, 53, b"too late", expires_at=NOW - 1))
    path.send(OutboundMessage(1, 53, b"always"))
    given(transport, path)
    chunks = transport._outbound_queue
    assert [chunk.user_data for chunk in chunks] == [b"once", b"soon", b"always"]
    assert [chunk._max_retransmits for chunk in chunks] == [0, None, None]
    assert [chunk._expiry for chunk in chunks] == [None, WALL_CLOCK + 5, None]


@on_a_transport
def test_the_peer_is_told_of_what_was_given_up(transport: RTCSctpTransport) -> None:
    path = taken(transport)
    path.send(OutboundMessage(1, 53, b"lost", max_retransmits=0))
    for _ in range(4):
        path.send(OutboundMessage(2, 53, b"later"))
    path.sender.poll(NOW, MANY, WINDOW)
    acknowledge(path, -1, (2, 5))
    path.sender.poll(NOW, MANY, WINDOW)
    given(transport, path)
    skip = transport._forward_tsn_chunk
    assert (skip.cumulative_tsn, skip.streams) == (OURS, [(1, 0)])
    assert [chunk._acked for chunk in transport._sent_queue] == [True] * 4
