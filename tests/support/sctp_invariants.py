"""What must hold inside the fast path whatever came: looked at by tests, not by it."""

from sleap_rtc_plugin.transport.sctp import receiver as receiver_module
from sleap_rtc_plugin.transport.sctp import reordering
from sleap_rtc_plugin.transport.sctp import sender as sender_module
from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.receiver import Receiver
from sleap_rtc_plugin.transport.sctp.sender import Sender

__all__ = ["check_data_path", "check_receiver", "check_sender"]


def check_receiver(receiver: Receiver) -> None:
    """Its books agree with what it holds, and that is bounded."""
    held, waiting = receiver._held, receiver._waiting
    ranges = list(receiver._beyond)
    beyond = {tsn for first, last in ranges for tsn in range(first, last + 1)}
    assert beyond == set(held)
    assert all(tsn > receiver.cumulative + 1 for tsn in beyond)
    held_bytes = sum(len(chunk.data) for chunk in held.values() if chunk is not None)
    held_bytes += sum(len(message.data) for _, message in waiting.values())
    assert receiver._held_bytes == held_bytes
    assert receiver._partial_bytes == sum(len(part.data) for part in receiver._partial)
    assert held_bytes <= receiver._window_bytes
    assert receiver._partial_bytes <= receiver_module.MAX_MESSAGE_BYTES
    assert len(held) <= receiver_module.MAX_HELD_CHUNKS
    # What waits for its turn lies beyond a gap: behind it nothing earlier can come.
    assert all(first > receiver.cumulative for first, _ in waiting.values())
    assert receiver._waiting_at == {first: key for key, (first, _) in waiting.items()}
    assert len(receiver._duplicates) <= receiver_module.MAX_DUPLICATES_TOLD


def check_sender(sender: Sender) -> None:
    """Its books agree, and a timer runs for what is not acknowledged."""
    outstanding = sender._outstanding
    assert list(outstanding) == list(range(sender.acked + 1, sender.next_serial))
    in_flight = lost = 0
    for serial, chunk in outstanding.items():
        assert chunk.serial == serial
        assert chunk.is_acked + chunk.is_lost + chunk.is_abandoned <= 1
        in_flight += chunk.size if chunk.is_in_flight else 0
        lost += chunk.is_lost
    assert sender.in_flight_bytes == in_flight
    assert sum(chunk.is_lost for chunk in sender._lost) == lost
    assert len(sender._lost) <= sender_module.MAX_OUTSTANDING_CHUNKS
    told = {
        serial for first, last in sender._gap_acked for serial in range(first, last + 1)
    }
    settled = {
        serial
        for serial, chunk in outstanding.items()
        if chunk.is_acked or chunk.is_abandoned
    }
    assert told <= settled
    assert len(sender._reordering._resent) <= reordering.MAX_REMEMBERED
    if outstanding:
        assert sender._t3_at is not None


def check_data_path(path: DataPath) -> None:
    """Both halves of an association are sound."""
    check_receiver(path.receiver)
    check_sender(path.sender)
