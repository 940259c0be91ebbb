"""The third data channel of a link: unordered, and nothing on it is sent twice.

Opened on a link where both sides named the feature `live`, after both have proved
themselves. It carries live frames one way and what was found in them the other; what
is late is dropped by whoever sends it, so nothing queues here. Made by
`transport.peer`; used by the client's `session.live` and the worker's `live_service`.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from aiortc.exceptions import InvalidStateError

from sleap_rtc_plugin.protocol.limits import (
    LIVE_SEND_BUFFER_BYTES,
    MAX_LIVE_MESSAGE_BYTES,
)

__all__ = ["LiveChannel", "LossyChannel"]


class LossyChannel(Protocol):
    """What this needs of a data channel (W3C RTCDataChannel)."""

    bufferedAmountLowThreshold: int

    @property
    def bufferedAmount(self) -> int:
        """Bytes given to `send` and not yet handed to the transport."""

    @property
    def readyState(self) -> str:
        """`connecting`, `open`, `closing` or `closed`."""

    def send(self, data: bytes | str) -> None:
        """Queue one message."""


class LiveChannel:
    """One such channel. `closed` is set when it or its link has ended."""

    def __init__(self, channel: LossyChannel) -> None:
        """Wrap a channel; whoever makes this hands in what it reports."""
        self.on_message: Callable[[bytes], None] | None = None
        self.closed = asyncio.Event()
        self._channel = channel
        self._opened = asyncio.Event()
        self._drained = asyncio.Event()
        channel.bufferedAmountLowThreshold = LIVE_SEND_BUFFER_BYTES
        if channel.readyState == "open":
            self._opened.set()

    @property
    def has_room(self) -> bool:
        """Whether what is sent now goes out soon."""
        return self._channel.bufferedAmount <= LIVE_SEND_BUFFER_BYTES

    async def until_open(self) -> None:
        """Wait until the peer has opened its end, or the channel has ended."""
        await self._opened.wait()

    async def until_room(self) -> None:
        """Wait until what is sent goes out soon, or the channel has ended."""
        while not (self.has_room or self.closed.is_set()):
            self._drained.clear()
            await self._drained.wait()

    def send(self, message: bytes) -> None:
        """Send one message, once; nothing happens on a channel that has ended.

        Raises:
            ValueError: it is larger than `MAX_LIVE_MESSAGE_BYTES`.
        """
        if len(message) > MAX_LIVE_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes")
        if not self.closed.is_set():
            with contextlib.suppress(InvalidStateError):
                self._channel.send(message)

    # -- what the connection reports ---------------------------------------------------

    def opened(self) -> None:
        """Both ends are open."""
        self._opened.set()

    def drained(self) -> None:
        """The channel's buffer is low."""
        self._drained.set()

    def received(self, message: bytes | str) -> None:
        """A message came; text is none of ours and dropped."""
        if isinstance(message, bytes) and self.on_message is not None:
            self.on_message(message)

    def ended(self) -> None:
        """The channel or its link has ended; let whoever waits know."""
        self.closed.set()
        self._opened.set()
        self._drained.set()
