"""Junk on the transfer channel: sent for a while at one end, counted at the other.

How fast that goes is what `sleap-remote doctor` says of a link. Nothing touches a disk,
and memory stays as it is. Used by the worker and by the client's check.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sleap_rtc_plugin.protocol.fragments import Fragment, encode_fragment
from sleap_rtc_plugin.protocol.limits import FRAGMENT_BYTES, LINK_TEST_STREAM
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.link import Link

__all__ = ["JunkCounter", "Moved", "send_junk"]

# The chunk number of the frame after which nothing comes.
_LAST: Final = 2**32 - 1


@dataclass(frozen=True)
class Moved:
    """What was moved after the first frame, and how long that took."""

    size_bytes: int
    seconds: float

    @property
    def bytes_per_s(self) -> float:
        """The speed, or 0 where too little was moved to tell."""
        return self.size_bytes / self.seconds if self.seconds > 0 else 0.0


async def send_junk(
    link: Link,
    *,
    duration_s: float,
    max_bytes: int,
    is_stopped: Callable[[], bool],
) -> Moved:
    """Send junk as fast as the peer takes it, and then the frame that ends it.

    Args:
        link: to the peer.
        duration_s: for how long.
        max_bytes: how much at most.
        is_stopped: asked before each frame whether to end.

    Raises:
        LinkClosed: the link ended.
    """
    # Random, or whatever compresses on the way would flatter the link.
    junk = secrets.token_bytes(FRAGMENT_BYTES)
    begun_at = monotonic()
    sent_bytes = 0
    while sent_bytes < max_bytes and not is_stopped():
        if monotonic() - begun_at >= duration_s:
            break
        data = junk[: min(link.fragment_bytes, max_bytes - sent_bytes)]
        await link.send_fragment(_frame(0, data))
        sent_bytes += len(data)
        # A channel that never fills would keep everybody else from their turn.
        await asyncio.sleep(0)
    await link.send_fragment(_frame(_LAST, b"\0"))
    return Moved(sent_bytes, monotonic() - begun_at)


class JunkCounter:
    """Counts junk as it arrives; `ended` is set with the frame that ends it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ended = asyncio.Event()
        self._size_bytes = 0
        self._first_at: float | None = None
        self._last_at = 0.0

    def take(self, fragment: Fragment) -> None:
        """Count a frame; the first only starts the clock."""
        if self.ended.is_set():
            return
        if fragment.chunk == _LAST:
            self.ended.set()
            return
        now = monotonic()
        if self._first_at is None:
            self._first_at = now
        else:
            self._size_bytes += len(fragment.data)
        self._last_at = now

    def moved(self) -> Moved:
        """Return what has arrived so far."""
        if self._first_at is None:
            return Moved(0, 0.0)
        return Moved(self._size_bytes, self._last_at - self._first_at)


def _frame(chunk: int, data: bytes) -> bytes:
    return encode_fragment(Fragment(LINK_TEST_STREAM, chunk, 0, data, False))
