"""Small urgent messages go twice, a moment apart, on a path that loses packets.

Pure. One that is lost would be found missing a round trip later, and those behind it in
its stream would wait with it. A copy takes no part in the book-keeping: what is lost,
how long a round trip takes and what the congestion control hears goes by the first.
Asked by `transport.sctp.sender`.
"""

from collections import deque
from typing import Final

from sleap_rtc_plugin.transport.sctp.sent_chunk import SentChunk

__all__ = ["Copies"]

# Packets are often lost several in a row: the copy comes after them.
COPY_AFTER_S: Final = 0.005
# How long after a loss the path counts as one that loses packets.
LOSSY_S: Final = 10.0
MAX_COPIED_BYTES: Final = 1024
# No more wait at a time, and so at most 0.8 MB/s goes into copies.
MAX_WAITING: Final = 4


class Copies:
    """What is to be sent once more, whether it is lost or not."""

    def __init__(self) -> None:
        """Begin with a path that loses nothing."""
        self._lossy_until = 0.0
        self._waiting: deque[tuple[float, SentChunk]] = deque()

    @property
    def due_at(self) -> float | None:
        """When `take` has something; None for never."""
        return self._waiting[0][0] if self._waiting else None

    def on_loss(self, now: float) -> None:
        """A packet was lost, of ours or of the peer's."""
        self._lossy_until = now + LOSSY_S

    def offer(self, chunk: SentChunk, now: float) -> None:
        """A whole message that is urgent was sent, in one chunk."""
        # What may be given up says itself how often it is sent.
        if (
            now < self._lossy_until
            and chunk.size <= MAX_COPIED_BYTES
            and chunk.message is None
            and len(self._waiting) < MAX_WAITING
        ):
            chunk.is_copied = True
            self._waiting.append((now + COPY_AFTER_S, chunk))

    def take(self, now: float) -> list[SentChunk]:
        """Return the chunks to send once more now."""
        chunks: list[SentChunk] = []
        while self._waiting and self._waiting[0][0] <= now:
            chunk = self._waiting.popleft()[1]
            if chunk.sent_count == 1 and not chunk.is_acked:
                chunks.append(chunk)
        return chunks
