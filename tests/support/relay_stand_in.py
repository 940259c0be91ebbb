"""A relay in the test's process that does as it is told to what it carries.

Brings two sockets together by their relay id and passes binary frames on, or changes,
repeats, swaps, drops or cuts them first. It knows no rooms and no tokens.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from sleap_rtc_plugin.protocol.relay_messages import (
    RelayJoined,
    decode_relay_join,
    encode_relay,
)

__all__ = ["RelayStandIn", "relay_stand_in"]

# Takes the number of a frame from one side and the frame; returns what to pass on.
Tamper = Callable[[int, bytes], list[bytes]]


class RelayStandIn:
    """Its address, and what went through it."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[bytes] = []
        self.tamper: Tamper = lambda number, frame: [frame]
        self.tampered_role = "client"
        self._waiting: dict[str, tuple[str, ServerConnection]] = {}
        self._sockets: set[ServerConnection] = set()
        self._met: dict[str, asyncio.Event] = {}
        self._partner: dict[ServerConnection, ServerConnection] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            join = decode_relay_join(str(await socket.recv()))
            met = self._met.setdefault(join.relay_id, asyncio.Event())
            known = self._waiting.pop(join.relay_id, None)
            if known is None:
                self._waiting[join.relay_id] = (join.peer_id, socket)
            else:
                self._partner |= {socket: known[1], known[1]: socket}
                met.set()
            await met.wait()
            await socket.send(encode_relay(RelayJoined()))
            await self._pass_on(socket, join.peer_id.partition("-")[0])
        partner = self._partner.get(socket)
        if partner is not None:
            await partner.close(4423)

    async def _pass_on(self, socket: ServerConnection, role: str) -> None:
        number = 0
        async for frame in socket:
            assert isinstance(frame, bytes)
            self.heard.append(frame)
            is_tampered = role == self.tampered_role
            frames = self.tamper(number, frame) if is_tampered else [frame]
            number += 1
            for one in frames:
                await self._partner[socket].send(one)


@asynccontextmanager
async def relay_stand_in(**options: Any) -> AsyncIterator[RelayStandIn]:
    relay = RelayStandIn()
    async with serve(
        relay.serve, "127.0.0.1", 0, compression=None, max_size=None, **options
    ) as server:
        relay.port = next(iter(server.sockets)).getsockname()[1]
        yield relay
