"""Small urgent messages on a path that loses packets: sent twice, and counted once."""

import pytest
from support.link_emulator import Conditions, random_loss
from support.path_pair import PathPair, SentMessage
from support.sender_bench import PAYLOAD, Bench

from sleap_rtc_plugin.transport.sctp.copies import (
    COPY_AFTER_S,
    LOSSY_S,
    MAX_COPIED_BYTES,
    MAX_WAITING,
    Copies,
)
from sleap_rtc_plugin.transport.sctp.receiver import DataChunk
from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

URGENT = 7
SMALL = 50
WHOLE = 3
NOW = 100.0


def lossy() -> Bench:
    """A bench on which a packet was just lost, and everything has arrived since."""
    bench = Bench()
    bench.sender.streams.set_urgent(URGENT)
    bench.send(5)
    # Three later ones are there: the first is sent again.
    assert bench.ack(-1, (1, 4)) == [0]
    bench.ack(4)
    bench.first += 5
    return bench


def test_an_urgent_message_goes_twice_after_a_loss() -> None:
    bench = lossy()
    bench.push(SMALL, stream=URGENT)
    assert bench.poll() == [0]
    sent_at = bench.now
    assert bench.wait() == [0]
    assert bench.now == pytest.approx(sent_at + COPY_AFTER_S)
    # It is in flight once, and once it is all that was sent.
    assert bench.sender.in_flight_bytes == SMALL
    assert bench.sent(0).sent_count == 1
    bench.ack(0)
    assert bench.sender.deadline() is None


def test_it_goes_once_on_a_path_that_loses_nothing() -> None:
    bench = Bench()
    bench.sender.streams.set_urgent(URGENT)
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    assert bench.sender.copies.due_at is None


def test_a_path_is_lossy_for_a_while_only() -> None:
    bench = lossy()
    bench.now += LOSSY_S
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    assert bench.sender.copies.due_at is None


@pytest.mark.parametrize(
    ("size", "stream", "options"),
    [
        pytest.param(SMALL, 1, {}, id="not urgent"),
        pytest.param(PAYLOAD + 1, URGENT, {}, id="more than one packet"),
        pytest.param(SMALL, URGENT, {"max_retransmits": 0}, id="never again"),
        pytest.param(SMALL, URGENT, {"expires_at": 1e9}, id="for a while"),
    ],
)
def test_other_messages_go_once(
    size: int, stream: int, options: dict[str, float]
) -> None:
    bench = lossy()
    bench.push(size, stream=stream, **options)
    bench.poll()
    assert bench.sender.copies.due_at is None


def test_what_has_arrived_is_not_copied() -> None:
    bench = lossy()
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    assert bench.ack(0, after_s=COPY_AFTER_S / 2) == []
    bench.now += COPY_AFTER_S
    assert bench.poll() == []


def test_a_copy_goes_beside_a_full_window() -> None:
    bench = lossy()
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    bench.congestion.set_window(SMALL)
    bench.push()
    assert bench.wait() == [0]


def test_what_a_copy_does_is_not_taken_for_reordering() -> None:
    bench = lossy()
    before = bench.sender._reordering.chunks
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    bench.send(4)
    assert bench.wait() == [0]
    # The loss counts, although the copy is on its way; and then both arrive.
    assert bench.ack(-1, (1, 4)) == [0]
    assert bench.congestion.samples[-1].lost_bytes == SMALL
    bench.ack(4, after_s=0.001, duplicates=(0,))
    assert bench.sender._reordering.chunks == before


def test_an_urgent_message_that_was_lost_goes_before_others() -> None:
    bench = Bench()
    bench.sender.streams.set_urgent(URGENT)
    bench.send(2)
    bench.push(SMALL, stream=URGENT)
    bench.poll()
    bench.send(4)
    assert bench.ack(-1, (3, 6)) == [2, 0, 1]


def test_the_path_is_lossy_where_the_peers_packets_are_missing() -> None:
    pair = PathPair(Conditions())
    path = pair.paths[0]
    path.sender.streams.set_urgent(URGENT)
    path.receiver.on_data(2, DataChunk(WHOLE, 1, 0, 53, b"second"))
    path.packets(NOW)
    path.send(OutboundMessage(URGENT, 53, b"urgent"))
    assert len(path.packets(NOW)) == 1
    assert len(path.packets(NOW + COPY_AFTER_S)) == 1
    assert path.packets(NOW + COPY_AFTER_S) == []


def test_hardly_one_waits_until_a_loss_is_found() -> None:
    latency_s, every_s, count, bulk = 0.04, 0.02, 1000, 1
    pair = PathPair(
        Conditions(latency_s, faults=[random_loss(0.02)]), urgent=(URGENT,), seed=3
    )
    began_at = pair.now
    waits_s: list[float] = []
    for number in range(count):
        # Both ends see that packets are lost: it is one that has nothing else to say.
        pair.send(SentMessage(0, bulk, number, 5000), SentMessage(1, URGENT, number, 9))
        until = began_at + (number + 1) * every_s
        while pair.now < until:
            pair.step()
            while len(waits_s) < len(pair.delivered[0]):
                sent_at = began_at + len(waits_s) * every_s
                waits_s.append(pair.now - sent_at)
    waits_s.sort()
    assert waits_s[len(waits_s) * 99 // 100] <= latency_s + COPY_AFTER_S + every_s


def test_no_more_than_a_few_wait() -> None:
    copies = Copies()
    copies.on_loss(NOW)
    for serial in range(2 * MAX_WAITING):
        message = OutboundMessage(URGENT, 53, bytes(MAX_COPIED_BYTES))
        chunk = SentChunk(serial, WHOLE, message, serial, message.data)
        chunk.sent_count = 1
        copies.offer(chunk, NOW)
    assert copies.take(NOW) == []
    taken = copies.take(NOW + COPY_AFTER_S)
    assert [chunk.serial for chunk in taken] == list(range(MAX_WAITING))
    assert copies.due_at is None
