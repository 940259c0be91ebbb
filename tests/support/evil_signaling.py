"""A signaling server that sits in the middle of every link, for tests.

Speaks the real server's wire to both sides, but answers each offer with a peer
connection of its own and makes another one to the worker. What comes on one side is
passed to the other unchanged: the best that a relay without the secret can do.
"""

import asyncio
import contextlib
import http
import json
import time
from types import TracebackType
from typing import Self

import msgspec
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from sleap_rtc_plugin.protocol.codec import decode_client_message
from sleap_rtc_plugin.protocol.signaling_messages import (
    Answer,
    ClientMessage,
    Delivered,
    DiscoverPeers,
    MetadataUpdated,
    Offer,
    PeerInfo,
    PeerList,
    PeerMessage,
    PeerMetadata,
    Ping,
    Pong,
    Register,
    Registered,
    RelayedAnswer,
    RelayedOffer,
    RelayedPeerMessage,
    ServerMessage,
    UpdateMetadata,
)
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone

CHANNELS = ("control", "transfer")


class _Side:
    """The man in the middle's connection to one of the two."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channels: dict[str, RTCDataChannel] = {}
        self.other: _Side | None = None
        self.heard: list[str | bytes] = []
        self._waiting: dict[str, list[str | bytes]] = {name: [] for name in CHANNELS}
        self.pc.on("datachannel", self.adopt)

    def adopt(self, channel: RTCDataChannel) -> None:
        self.channels[channel.label] = channel
        channel.on("message", lambda data: self._pass_on(channel.label, data))
        channel.on("open", lambda: self._flush(channel.label))
        channel.on("close", self._hang_up)
        self._flush(channel.label)

    def _pass_on(self, label: str, data: str | bytes) -> None:
        self.heard.append(data)
        if self.other is not None:
            self.other.send(label, data)

    def send(self, label: str, data: str | bytes) -> None:
        self._waiting[label].append(data)
        self._flush(label)

    def _flush(self, label: str) -> None:
        channel = self.channels.get(label)
        if channel is not None and channel.readyState == "open":
            for data in self._waiting[label]:
                channel.send(data)
            self._waiting[label].clear()

    def _hang_up(self) -> None:
        if self.other is not None:
            for channel in self.other.channels.values():
                channel.close()


class EvilSignaling:
    """The server. Use as an async context manager."""

    def __init__(self) -> None:
        self.from_client: list[str | bytes] = []
        self.from_worker: list[str | bytes] = []
        self.links = 0
        self._sockets: dict[str, ServerConnection] = {}
        self._peers: dict[str, PeerInfo] = {}
        self._awaited: dict[str, asyncio.Future[str]] = {}
        self._sides: list[_Side] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        offer_loopback_when_alone()
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._rest, compression=None
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for side in self._sides:
            await side.pc.close()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    # -- the wire ----------------------------------------------------------------------

    def _rest(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ice-servers":
            body = json.dumps({"ice_servers": []})
            return connection.respond(http.HTTPStatus.OK, body)
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        peer_id = ""
        with contextlib.suppress(ConnectionClosed):
            async for data in socket:
                message = decode_client_message(data)
                if isinstance(message, Register):
                    peer_id = message.peer_id
                    self._sockets[peer_id] = socket
                    self._peers[peer_id] = PeerInfo(
                        peer_id=peer_id,
                        role=message.role,
                        metadata=message.metadata,
                        connected_at=time.time(),
                    )
                for to, reply in self._handle(peer_id, message):
                    if to in self._sockets:
                        text = msgspec.json.encode(reply).decode()
                        await self._sockets[to].send(text)

    def _handle(
        self, sender: str, message: ClientMessage
    ) -> list[tuple[str, ServerMessage]]:
        match message:
            case Register(id=id_, room_id=room):
                expires_at = time.time() + 3600
                reply = Registered(
                    id=id_, peer_id=sender, room_id=room, expires_at=expires_at
                )
                return [(sender, reply)]
            case DiscoverPeers(id=id_, role=role):
                peers = [p for p in self._peers.values() if role in (None, p.role)]
                return [(sender, PeerList(id=id_, peers=peers))]
            case UpdateMetadata(id=id_, metadata=metadata):
                self._learn(sender, metadata)
                return [(sender, MetadataUpdated(id=id_))]
            case PeerMessage(id=id_, to=to, payload=payload):
                relayed = RelayedPeerMessage(id=id_, from_=sender, payload=payload)
                return [(to, relayed), (sender, Delivered(id=id_))]
            case Ping(id=id_):
                return [(sender, Pong(id=id_, time=time.time()))]
            case Offer():
                task = asyncio.get_running_loop().create_task(
                    self._get_in_between(sender, message)
                )
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return [(sender, Delivered(id=message.id))]
            case Answer(id=id_, sdp=sdp, offer_id=offer_id):
                self._awaited[offer_id].set_result(sdp)
                return [(sender, Delivered(id=id_))]
        return []

    def _learn(self, peer_id: str, metadata: PeerMetadata) -> None:
        known = self._peers[peer_id]
        self._peers[peer_id] = msgspec.structs.replace(known, metadata=metadata)

    # -- the attack --------------------------------------------------------------------

    async def _get_in_between(self, client: str, offer: Offer) -> None:
        self.links += 1
        to_client, to_worker = _Side(), _Side()
        to_client.other, to_worker.other = to_worker, to_client
        to_client.heard, to_worker.heard = self.from_client, self.from_worker
        self._sides += [to_client, to_worker]

        for name in CHANNELS:
            to_worker.adopt(to_worker.pc.createDataChannel(name))
        await to_worker.pc.setLocalDescription(await to_worker.pc.createOffer())
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._awaited[offer.id] = answer
        forged = RelayedOffer(
            id=offer.id, from_=client, sdp=to_worker.pc.localDescription.sdp
        )
        await self._sockets[offer.to].send(msgspec.json.encode(forged).decode())
        sdp = await answer
        await to_worker.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

        await to_client.pc.setRemoteDescription(
            RTCSessionDescription(offer.sdp, "offer")
        )
        await to_client.pc.setLocalDescription(await to_client.pc.createAnswer())
        forged_answer = RelayedAnswer(
            id=offer.id,
            from_=offer.to,
            sdp=to_client.pc.localDescription.sdp,
            offer_id=offer.id,
        )
        await self._sockets[client].send(msgspec.json.encode(forged_answer).decode())
