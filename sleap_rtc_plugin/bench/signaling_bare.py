"""A bare relay on `websockets`, for `bench signaling` to stand beside ours.

It routes by room and stamps nothing: no tokens, no limits, no metrics, no reservations,
and nothing that it decodes beyond whom a message is for. What ours costs above it is
what those cost. Started by `bench.signaling_server`.
"""

import contextlib
from typing import Final

import msgspec
from msgspec import Struct
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

__all__ = ["serve_bare_relay"]


class _Command(Struct):
    type: str
    id: str
    to: str = ""
    room_id: str = ""
    peer_id: str = ""


class _Done(Struct):
    type: str
    id: str


_decoder: Final = msgspec.json.Decoder(_Command)
_encoder: Final = msgspec.json.Encoder()


class _Rooms:
    def __init__(self) -> None:
        self._sockets: dict[tuple[str, str], ServerConnection] = {}

    async def serve(self, socket: ServerConnection) -> None:
        """Enter the first message's room, and pass the others on."""
        with contextlib.suppress(ConnectionClosed):
            first = _decoder.decode(await socket.recv())
            place = (first.room_id, first.peer_id)
            self._sockets[place] = socket
            try:
                await self._reply(socket, "registered", first.id)
                await self._relay(socket, first.room_id)
            finally:
                del self._sockets[place]

    async def _relay(self, socket: ServerConnection, room_id: str) -> None:
        async for text in socket:
            command = _decoder.decode(text)
            other = self._sockets.get((room_id, command.to))
            if other is not None:
                await other.send(text)
            await self._reply(socket, "delivered" if other else "error", command.id)

    async def _reply(self, socket: ServerConnection, kind: str, name: str) -> None:
        await socket.send(_encoder.encode(_Done(kind, name)), text=True)


async def serve_bare_relay(host: str) -> Server:
    """Serve on a free port."""
    return await serve(_Rooms().serve, host, 0, compression=None, backlog=512)
