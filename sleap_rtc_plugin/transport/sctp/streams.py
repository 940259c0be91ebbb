"""Which message is sent next: urgent streams first, then each stream in turn.

Pure (RFC 8260 section 3: strict priority between two classes, round robin by message
within each). A message that has begun is finished first, since its fragments have
consecutive TSNs (RFC 9260 section 6.9). Asked by `transport.sctp.sender`.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

__all__ = ["OutboundMessage", "StreamScheduler"]


@dataclass(slots=True)
class OutboundMessage:
    """What the application wants sent.

    Attributes:
        stream_id: its stream.
        protocol: its payload protocol identifier (RFC 8831 section 8).
        data: at least one byte.
        is_unordered: delivered as it arrives.
        expires_at: when it is given up (RFC 3758 section 4.1); None for never.
        max_retransmits: how often it is sent again at most; None for always.
        is_counted: it counts in its channel's buffered amount.
    """

    stream_id: int
    protocol: int
    data: bytes
    is_unordered: bool = False
    expires_at: float | None = None
    max_retransmits: int | None = None
    is_counted: bool = True


class StreamScheduler:
    """Messages that have not begun to be sent."""

    def __init__(self) -> None:
        """Begin with nothing to send."""
        self._urgent: set[int] = set()
        # The streams that have something to send, the next one first.
        self._turns: tuple[
            OrderedDict[int, deque[OutboundMessage]],
            OrderedDict[int, deque[OutboundMessage]],
        ] = (OrderedDict(), OrderedDict())

    def __bool__(self) -> bool:
        return bool(self._turns[0]) or bool(self._turns[1])

    def set_urgent(self, stream_id: int) -> None:
        """Let a stream go before those that are not urgent."""
        self._urgent.add(stream_id)
        waiting = self._turns[1].pop(stream_id, None)
        if waiting is not None:
            self._turns[0][stream_id] = waiting

    def is_urgent(self, stream_id: int) -> bool:
        """Whether a stream goes before others."""
        return stream_id in self._urgent

    def push(self, message: OutboundMessage) -> None:
        """Queue a message behind those of its stream."""
        turns = self._turns[0 if message.stream_id in self._urgent else 1]
        waiting = turns.get(message.stream_id)
        if waiting is None:
            waiting = turns[message.stream_id] = deque()
        waiting.append(message)

    def pop(self) -> OutboundMessage | None:
        """Take the next message."""
        turns = self._turns[0] or self._turns[1]
        if not turns:
            return None
        stream_id, waiting = next(iter(turns.items()))
        if len(waiting) > 1:
            turns.move_to_end(stream_id)
        else:
            del turns[stream_id]
        return waiting.popleft()

    def has_queued(self, stream_id: int) -> bool:
        """Whether something of a stream waits."""
        return any(stream_id in turns for turns in self._turns)
