"""A real signaling server in the test's process, and people who use it by the protocol.

A `Lab` has the server, a clock that the test sets forward, HTTP, and raw WebSockets.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol.signaling_messages import IceServer, Register, Registered
from sleap_rtc_signaling.config import SignalingConfig
from sleap_rtc_signaling.server import SignalingServer

WAIT_S = 10.0
ICE = IceServer(urls=["turn:127.0.0.1:3478"], username="u", credential="c")

logging.getLogger("websockets.client").setLevel(logging.WARNING)


class Clock:
    """Unix time that the test sets forward."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Peer:
    """A raw WebSocket that speaks the protocol's messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: Any) -> None:
        await self.socket.send(codec.encode_signaling(message))

    async def receive(self) -> Any:
        async with asyncio.timeout(WAIT_S):
            return codec.decode_server_message(await self.socket.recv())

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.receive()

    async def closed(self) -> int | None:
        async with asyncio.timeout(WAIT_S):
            await self.socket.wait_closed()
        return self.socket.close_code


class Lab:
    """A server, a clock, and what a person does with them.

    Where there are more instances of the server, sockets go to one after the other.
    """

    def __init__(
        self, server: SignalingServer, clock: Clock, *more: SignalingServer
    ) -> None:
        self.server = server
        self.servers = (server, *more)
        self._turns = itertools.cycle(self.servers)
        self.clock = clock
        self.stack = contextlib.AsyncExitStack()
        self.http = httpx.AsyncClient(base_url=server.url)

    async def post(self, path: str, token: str = "", **options: Any) -> httpx.Response:
        return await self.http.post(path, headers=bearer(token), **options)

    async def get(self, path: str, token: str = "") -> httpx.Response:
        return await self.http.get(path, headers=bearer(token))

    async def metrics(self) -> str:
        """Return the metrics, those of several instances added up."""
        texts = []
        for server in self.servers:
            address = websocket_url(server).removesuffix("/ws").replace("ws", "http", 1)
            texts.append((await self.http.get(f"{address}/metrics")).text)
        if len(texts) == 1:
            return texts[0]
        sums: defaultdict[str, float] = defaultdict(float)
        if not all(text.startswith("#") for text in texts):
            await asyncio.sleep(0.2)
            return ""  # asked too often
        for line in "\n".join(texts).splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                # Each instance counts the rooms that it has a part of.
                is_shared = name == "sleap_signaling_rooms"
                sums[name] = (max if is_shared else sum)((sums[name], float(value)))
        return "\n".join(f"{name} {value}" for name, value in sums.items()) + "\n"

    async def account(self) -> str:
        token: str = (await self.post("/anonymous-signin")).json()["token"]
        return token

    async def room(self, account: str = "") -> tuple[str, str]:
        account = account or await self.account()
        made = (await self.post("/create-room", account)).json()
        return made["room_id"], made["token"]

    async def connect(self, **options: Any) -> Peer:
        opened = await self.stack.enter_async_context(
            connect(websocket_url(next(self._turns)), compression=None, **options)
        )
        return Peer(opened)

    async def register(
        self, room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
    ) -> tuple[Peer, Any]:
        peer = await self.connect()
        message = registration(room, peer_id, role, **fields)
        return peer, await peer.ask(message)

    async def join(
        self, room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
    ) -> Peer:
        peer, reply = await self.register(room, peer_id, role, **fields)
        assert isinstance(reply, Registered)
        return peer

    def advance(self, seconds: float) -> None:
        self.clock.now += seconds
        for server in self.servers:
            server.wake()

    async def close(self) -> None:
        await self.stack.aclose()
        await self.http.aclose()


def websocket_url(server: SignalingServer) -> str:
    """Return the address of this very instance, whatever people are told."""
    if server.host != "127.0.0.1":
        return server.websocket_url
    scheme = server.websocket_url.partition(":")[0]
    return f"{scheme}://127.0.0.1:{server.port}/ws"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def registration(
    room: tuple[str, str], peer_id: str, role: str = "client", **fields: Any
) -> Register:
    return Register(
        **{
            "id": "r",
            "room_id": room[0],
            "token": room[1],
            "peer_id": peer_id,
            "role": role,
            "resume_key": (peer_id * 32)[:32],
            **fields,
        }
    )


def config(folder: Path, **fields: Any) -> SignalingConfig:
    return SignalingConfig(
        **{"port": 0, "rest_port": None, "data_dir": folder / "data", **fields}
    )
