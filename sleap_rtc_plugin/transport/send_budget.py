"""How much may wait in the transfer channel: what it drains in a moment.

aiortc sends the messages of all channels in the order in which it was given them, so a
control message waits behind every fragment that waits already. Pure, time is an
argument; asked and told by `transport.link`.
"""

import math

from sleap_rtc_plugin.protocol.fragments import HEADER_BYTES
from sleap_rtc_plugin.protocol.limits import (
    FRAGMENT_BYTES,
    SEND_BUFFER_FLOOR_BYTES,
    SEND_BUFFER_HIGH_BYTES,
    SEND_QUEUE_TIME_S,
    SEND_RATE_MEMORY_S,
)

__all__ = ["SendBudget"]


class SendBudget:
    """What may wait in one channel, by how fast the channel has drained of late.

    Only time in which something waited counts: a channel that was given nothing is
    not slow. The first estimate is the slowest that the floor allows, so that a slow
    link is never flooded, and a fast one is found out within a few fragments.

    What the user allows at most is kept here too, for aiortc's own way of sending knows
    no bound.
    """

    def __init__(self, max_bytes_per_s: int | None = None) -> None:
        """Assume a slow channel; the user allows `max_bytes_per_s`, None for any."""
        self._max_bytes_per_s = max_bytes_per_s
        self._allowed_at = 0.0
        self._bytes = float(SEND_BUFFER_FLOOR_BYTES)
        self._seconds = SEND_QUEUE_TIME_S
        self._buffered_bytes = 0
        self._seen_at = 0.0

    @property
    def rate_bytes_per_s(self) -> float:
        """How fast the channel has drained of late."""
        return self._bytes / self._seconds

    @property
    def limit_bytes(self) -> int:
        """How much may wait in the channel now."""
        limit = int(self.rate_bytes_per_s * SEND_QUEUE_TIME_S)
        return max(SEND_BUFFER_FLOOR_BYTES, min(limit, SEND_BUFFER_HIGH_BYTES))

    @property
    def fragment_bytes(self) -> int:
        """How much one frame should carry: two of them fit in what may wait.

        The frame that aiortc has taken apart into packets is sent as a whole, and
        nobody counts it as buffered: on a slow link it has to be small.
        """
        return min(FRAGMENT_BYTES, self.limit_bytes // 2 - HEADER_BYTES)

    def room_at(self, frame_bytes: int) -> int:
        """Return the buffered bytes from which on a frame may be sent.

        A channel in which nothing waits takes a frame of any size.
        """
        return max(0, self.limit_bytes - frame_bytes)

    def wait_s(self, now: float) -> float:
        """Return for how long the user wants nothing sent; 0 for not at all."""
        return max(0.0, self._allowed_at - now)

    def sent(self, frame_bytes: int, buffered_bytes: int, now: float) -> None:
        """A frame joins the `buffered_bytes` that wait at `now`, in seconds."""
        if self._max_bytes_per_s is not None:
            begun_at = max(self._allowed_at, now - SEND_QUEUE_TIME_S)
            self._allowed_at = begun_at + frame_bytes / self._max_bytes_per_s
        if buffered_bytes > 0:
            self.drained(buffered_bytes, now)
        self._buffered_bytes = buffered_bytes + frame_bytes
        self._seen_at = now

    def drained(self, buffered_bytes: int, now: float) -> None:
        """The channel has drained to `buffered_bytes`, and was busy until `now`."""
        elapsed_s = max(0.0, now - self._seen_at)
        if self._buffered_bytes > 0:
            fading = math.exp(-elapsed_s / SEND_RATE_MEMORY_S)
            gone_bytes = max(0, self._buffered_bytes - buffered_bytes)
            self._bytes = self._bytes * fading + gone_bytes
            self._seconds = self._seconds * fading + elapsed_s
            if self._seconds > SEND_RATE_MEMORY_S:
                # After a long pause, of a laptop say, one second counts like another.
                self._bytes *= SEND_RATE_MEMORY_S / self._seconds
                self._seconds = SEND_RATE_MEMORY_S
        self._buffered_bytes = buffered_bytes
        self._seen_at = now
