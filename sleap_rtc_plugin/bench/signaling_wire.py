"""A WebSocket client that costs a benchmark little: frames made once, written again.

It speaks just enough of RFC 6455 to load a server, answers its pings, and trusts it,
so it is no client for anything else. Used by the load of `bench signaling`.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

__all__ = ["WireClient", "WireClosed", "connect", "frame_of"]

TEXT: Final = 0x81
CLOSE: Final = 0x88
PING: Final = 0x89
_CONNECT_TIMEOUT_S: Final = 60.0
_HTTP_PORT: Final = 80
_SHORT: Final = 126
_MEDIUM: Final = 127
_CODE_BYTES: Final = 2


class WireClosed(Exception):
    """The server closed the connection, or never opened it."""


def frame_of(text: bytes) -> bytes:
    """Return the masked frame of a text; it may be written as often as wanted."""
    return Frame(Opcode.TEXT, text).serialize(mask=True)


class WireClient(asyncio.Protocol):
    """One connection; `on_texts` is told of all texts that came at once."""

    def __init__(self, request: bytes) -> None:
        """Open with the bytes of a handshake."""
        self.on_texts: Callable[[list[bytes]], None] = lambda texts: None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: str | None = None
        self._request = request
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- TCP only
        self._transport = transport
        transport.write(self._request)

    def write(self, data: bytes) -> None:
        """Write frames.

        Raises:
            WireClosed: the connection is gone.
        """
        if self.closed is not None or self._transport is None:
            raise WireClosed(self.closed or "not open")
        self._transport.write(data)

    def close(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take the answer to the handshake, then frames."""
        self._data = data = self._data + data if self._data else data
        if not self.opened.done():
            head, separator, rest = data.partition(b"\r\n\r\n")
            if not separator:
                return
            status = head.split(b"\r\n", 1)[0].decode("latin-1")
            if " 101 " not in status:
                self.opened.set_exception(WireClosed(status))
                self.close()
                return
            self.opened.set_result(None)
            self._data = rest
        texts = self._frames()
        if texts:
            self.on_texts(texts)

    def _frames(self) -> list[bytes]:
        """Take the whole frames of what has come."""
        data, at, size = self._data, 0, len(self._data)
        texts: list[bytes] = []
        while size - at >= 2:
            kind, length, begin = data[at], data[at + 1], at + 2
            if length == _SHORT:
                begin += 2
                length = int.from_bytes(data[at + 2 : begin])
            elif length == _MEDIUM:
                begin += 8
                length = int.from_bytes(data[at + 2 : begin])
            if size < begin + length:
                break
            at = begin + length
            if kind == TEXT:
                texts.append(data[begin:at])
            elif kind == PING:
                pong = Frame(Opcode.PONG, data[begin:at]).serialize(mask=True)
                self.write(pong)
            elif kind == CLOSE:
                code = int.from_bytes(data[begin : begin + _CODE_BYTES])
                self.closed = f"closed with {code}"
                self.close()
        self._data = data[at:]
        return texts

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self.closed = self.closed or "the connection broke"
        if not self.opened.done():
            self.opened.set_exception(WireClosed(self.closed))


async def connect(url: str) -> WireClient:
    """Open a WebSocket.

    Raises:
        WireClosed: the server did not let it in.
        OSError: the server is not there.
    """
    place = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: WireClient(request), place.hostname or "", place.port or _HTTP_PORT
        )
        await client.opened
    return client
