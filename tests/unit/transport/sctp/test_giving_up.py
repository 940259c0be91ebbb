"""What the sender tells the peer of messages that it gives up (RFC 3758)."""

import pytest
from support.path_pair import FixedWindow

from sleap_rtc_plugin.transport.sctp.sender import Sender
from sleap_rtc_plugin.transport.sctp.streams import OutboundMessage

PAYLOAD_BYTES = 1000
FIRST_TSN = 1
MANY = 64
LATER = 10.0


@pytest.mark.parametrize("is_unordered", [False, True])
def test_a_message_given_up_half_sent_has_an_end_to_skip(is_unordered: bool) -> None:
    """The half that was sent may have arrived, so that nothing of it is skipped.

    The peer would wait for the rest, or take what is sent next for it.
    """
    sender = Sender(
        FIRST_TSN,
        FixedWindow(2 * PAYLOAD_BYTES),
        payload_bytes=PAYLOAD_BYTES,
        peer_window_bytes=1 << 20,
    )
    message = OutboundMessage(
        5, 53, bytes(4 * PAYLOAD_BYTES), is_unordered, max_retransmits=0
    )
    sender.streams.push(message)
    assert [chunk.serial for chunk in sender.poll(0.0, MANY, 1 << 20)] == [1, 2]
    assert sender.has_queued(5)

    sender.on_deadline(LATER)
    sender.streams.push(OutboundMessage(5, 53, b"next"))
    [following] = sender.poll(LATER, MANY, 1 << 20)
    assert not sender.has_queued(5)
    skipped_to, streams = sender.take_forward(MANY)
    assert skipped_to == 3
    assert streams == ([] if is_unordered else [(5, 0)])
    assert following.serial == 4
    assert following.stream_seq == (0 if is_unordered else 1)
    assert sender.in_flight_bytes == len(b"next")

    sender.on_sack(4, 1 << 20, [], [], LATER)
    assert not sender.outstanding_chunks()
