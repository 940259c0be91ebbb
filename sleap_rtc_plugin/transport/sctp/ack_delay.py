"""When to acknowledge: at once, or together with what is about to come.

Pure (RFC 9260 section 6.2 lets a receiver wait, 200 ms at most). In a stream of packets
one SACK for thirty saves both ends a part of their work; a few packets alone, and
anything that is missing, are acknowledged at once. Asked by `transport.sctp.data_path`.
"""

from typing import Final

__all__ = ["AckDelay"]

# Fewer packets in one batch are no stream: a sender may wait for this very SACK, as
# aiortc does after each four packets.
STREAM_PACKETS: Final = 8
MAX_PACKETS: Final = 32
MAX_DELAY_S: Final = 0.001


class AckDelay:
    """What came since the last SACK.

    Attributes:
        due_at: when the SACK that waits has to go; None where none waits.
    """

    def __init__(self) -> None:
        """Begin with nothing to acknowledge."""
        self.due_at: float | None = None
        self._batch_packets = 0
        self._waiting_packets = 0

    def on_packet(self) -> None:
        """A packet with user data came."""
        self._batch_packets += 1
        self._waiting_packets += 1

    def must_wait(self, *, is_urgent: bool, now: float) -> bool:
        """Whether to wait with the SACK that is due; asked after each batch."""
        batch_packets, self._batch_packets = self._batch_packets, 0
        if is_urgent or self._waiting_packets >= MAX_PACKETS:
            return False
        if self.due_at is not None:
            return now < self.due_at and not 0 < batch_packets < STREAM_PACKETS
        if batch_packets < STREAM_PACKETS:
            return False
        self.due_at = now + MAX_DELAY_S
        return True

    def acknowledged(self) -> None:
        """A SACK of everything goes out."""
        self.due_at = None
        self._waiting_packets = 0
