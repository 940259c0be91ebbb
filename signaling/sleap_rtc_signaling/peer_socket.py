"""One peer's WebSocket: a bounded outbox, and an end that cannot be put off.

It knows nothing of rooms. A peer that does not read what waits for it is told apart
from one that does, and cut off in time. Called by the switchboard.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from starlette.websockets import WebSocket, WebSocketDisconnect

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.close_codes import CloseCode
from sleap_rtc_plugin.protocol.limits import MAX_SIGNALING_SEND_QUEUE
from sleap_rtc_signaling.limits import CLOSE_DEADLINE_S, MAX_WAITING_BYTES
from sleap_rtc_signaling.listener import ABORT_EXTENSION

__all__ = ["SERVICE_RESTART", "PeerSocket"]

# The registry of close codes that RFC 6455 section 11.7 opens: service restart.
SERVICE_RESTART: Final = 1012


class PeerSocket:
    """One WebSocket and its outbox.

    Args:
        websocket: as Starlette hands it over.
        address: where it comes from, as `rate_limit.address_key` has it.
    """

    def __init__(self, websocket: WebSocket, address: str) -> None:
        self.address = address
        self.abort: Callable[[], None] = websocket.scope["extensions"][ABORT_EXTENSION]
        self._websocket = websocket
        self._outbox: asyncio.Queue[str | None] = asyncio.Queue(
            MAX_SIGNALING_SEND_QUEUE
        )
        self._waiting_bytes = 0
        self._close_code = 1000
        self._aborting: asyncio.TimerHandle | None = None

    def is_closing(self) -> bool:
        """Tell whether it was told to close."""
        return self._aborting is not None

    def send(self, message: Struct) -> bool:
        """Queue a message; False if the peer is too far behind."""
        if self.is_closing():
            return True
        text = codec.encode_signaling(message)
        # One message always fits; many large ones would be megabytes for each socket.
        if self._waiting_bytes > MAX_WAITING_BYTES:
            return False
        try:
            self._outbox.put_nowait(text)
        except asyncio.QueueFull:
            return False
        self._waiting_bytes += len(text)
        return True

    def close(self, code: int) -> None:
        """Send what is queued, then close; cut off if that takes too long."""
        if self.is_closing():
            return
        self._close_code = code
        if code == CloseCode.TOO_SLOW:
            # It will not read these either; only the close frame is worth a try.
            while not self._outbox.empty():
                self._outbox.get_nowait()
        loop = asyncio.get_running_loop()
        self._aborting = loop.call_later(CLOSE_DEADLINE_S, self.abort)
        try:
            self._outbox.put_nowait(None)
        except asyncio.QueueFull:
            self.abort()

    async def write(self) -> None:
        """Write the outbox to the socket until it is closed from either side."""
        # RuntimeError is how the ASGI server says that the socket closed meanwhile.
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while (text := await self._outbox.get()) is not None:
                self._waiting_bytes -= len(text)
                await self._websocket.send_text(text)
            await self._websocket.close(self._close_code)

    def gone(self) -> None:
        """Let go of the timer; from here on the ASGI server closes the socket."""
        if self._aborting is not None:
            self._aborting.cancel()
