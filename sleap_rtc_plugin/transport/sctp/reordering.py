"""How many later chunks have to arrive before an earlier one counts as lost.

Pure (RFC 9260 section 7.2.4, which counts to three). What was sent again and arrives
twice was late, not lost: a path that does that is given more time. Asked by
`transport.sctp.sender`.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["Reordering"]

LEAST_CHUNKS: Final = 3
MOST_CHUNKS: Final = 192
MAX_REMEMBERED: Final = 1024


class Reordering:
    """What is known of how a path changes the order of packets.

    Attributes:
        chunks: how many later ones have to arrive.
    """

    def __init__(self) -> None:
        """Begin with three."""
        self.chunks = LEAST_CHUNKS
        self._resent: dict[int, None] = {}

    def resent(self, serial: int) -> None:
        """A chunk, by its unwrapped TSN, is taken for lost and sent again."""
        self._resent[serial] = None
        if len(self._resent) > MAX_REMEMBERED:
            del self._resent[next(iter(self._resent))]

    def arrived_twice(self, serials: Iterable[int]) -> None:
        """The peer has these twice; wait for more from now on if that was our doing."""
        for serial in serials:
            if serial in self._resent:
                del self._resent[serial]
                self.chunks = min(MOST_CHUNKS, 2 * self.chunks)
                return
