"""The far ends of the interoperation tests: aiortc, libwebrtc, and what both share.

Each serves the data channels it is given or opens, by the first word of their label, so
that a test sees from one side what crossed in both directions. The browser's far end is
`interop_chromium`; the near end, which drives the calls, is `interop_calls`.

`echo`: every message goes back as it came. `sink`: binary messages are digested, and a
text is answered with the SHA-256 of all of them so far, in hexadecimal. `repeat-N`:
every message goes back N times.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Protocol

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from sleap_rtc_plugin.transport.data_channels import engine_of, make_peer_connection
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "HIGH_WATER_BYTES",
    "LOW_WATER_BYTES",
    "AiortcEnd",
    "AiortcPeer",
    "FarPeer",
    "LibwebrtcPeer",
    "Message",
    "connection",
]

# How much a sender lets its channel hold. libwebrtc refuses more than 16 MiB.
HIGH_WATER_BYTES = 4 << 20
LOW_WATER_BYTES = 1 << 20

Message = bytes | str


class FarPeer(Protocol):
    """The other end of a call. Descriptions are texts with every candidate in them."""

    async def open_channel(self, label: str, *, ordered: bool) -> None:
        """Open a channel and serve it; before the call it is queued."""

    async def offer(self) -> str:
        """Return an offer."""

    async def answer(self, offer: str) -> str:
        """Take the near end's offer and return the answer."""

    async def accept(self, answer: str) -> None:
        """Take the near end's answer."""

    async def close_channel(self, label: str) -> None:
        """Close a channel that it opened or was given."""

    async def channel_closed(self, label: str) -> None:
        """Wait until a channel is closed, whoever closed it."""

    async def close(self) -> None:
        """End the call."""


class ServedChannel:
    """What a far end in this process does on one channel.

    `send` and `buffered_bytes` are the channel's; `received`, `drained` and
    `closed.set` are for its events.
    """

    def __init__(
        self, label: str, send: Callable[[Message], None], buffered: Callable[[], int]
    ) -> None:
        self._behaviour, _, times = label.partition(" ")[0].partition("-")
        self._times = int(times or 1)
        self._send = send
        self._buffered_bytes = buffered
        self._digest = hashlib.sha256()
        self._to_send: list[Message] = []
        self.closed = asyncio.Event()

    def received(self, message: Message) -> None:
        if self._behaviour != "sink":
            self._to_send += [message] * self._times
            self.drained()
        elif isinstance(message, str):
            self._send(self._digest.hexdigest())
        else:
            self._digest.update(message)

    def drained(self) -> None:
        while self._to_send and self._buffered_bytes() < HIGH_WATER_BYTES:
            self._send(self._to_send.pop(0))


def connection(engine: Any) -> RTCPeerConnection:
    """Return aiortc's connection, stock or fast, which asks no server for anything."""
    offer_loopback_when_alone()
    return make_peer_connection(
        RTCConfiguration(iceServers=[]), TransportOptions(engine=engine)
    )


class AiortcEnd:
    """An end of aiortc's, stock or fast as `connection` is. Says how they describe."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        self.connection = connection
        connection.on("datachannel", self.adopt)

    @property
    def engine(self) -> str:
        """What moves its data, once connected: `fast` or `aiortc`."""
        return engine_of(self.connection)

    def adopt(self, channel: Any) -> None:
        """Listen on a channel, before anything has come on it."""
        raise NotImplementedError

    async def offer(self) -> str:
        connection = self.connection
        await connection.setLocalDescription(await connection.createOffer())
        return str(connection.localDescription.sdp)

    async def answer(self, offer: str) -> str:
        connection = self.connection
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return str(connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        description = RTCSessionDescription(answer, "answer")
        await self.connection.setRemoteDescription(description)

    async def close(self) -> None:
        await self.connection.close()


class AiortcPeer(AiortcEnd):
    """A far end of aiortc's."""

    def __init__(self, connection: RTCPeerConnection) -> None:
        super().__init__(connection)
        self._channels: dict[str, tuple[Any, ServedChannel]] = {}

    def adopt(self, channel: Any) -> None:
        served = ServedChannel(
            channel.label, channel.send, lambda: channel.bufferedAmount
        )
        self._channels[channel.label] = channel, served
        channel.bufferedAmountLowThreshold = LOW_WATER_BYTES
        channel.on("message", served.received)
        channel.on("bufferedamountlow", served.drained)
        channel.on("close", served.closed.set)

    async def open_channel(self, label: str, *, ordered: bool) -> None:
        self.adopt(self.connection.createDataChannel(label, ordered=ordered))

    async def close_channel(self, label: str) -> None:
        self._channels[label][0].close()

    async def channel_closed(self, label: str) -> None:
        await self._channels[label][1].closed.wait()


@cache
def libwebrtc() -> Any:
    """Return the library, which may now use loopback where there is nothing else."""
    webrtc = pytest.importorskip("webrtc", reason="wrtc is not installed")
    webrtc.allow_loopback()
    return webrtc


class LibwebrtcPeer:
    """A far end of Chrome's own library, in threads of its own in this process."""

    def __init__(self) -> None:
        self._webrtc = webrtc = libwebrtc()
        self._connection = webrtc.RTCPeerConnection(webrtc.RTCConfiguration())
        self._channels: dict[str, tuple[Any, ServedChannel]] = {}
        self._gathered = asyncio.Event()
        self._connection.on("datachannel", lambda event: self._serve(event.channel))
        self._connection.on("icegatheringstatechange", self._on_gathering)

    async def open_channel(self, label: str, *, ordered: bool) -> None:
        options = self._webrtc.RTCDataChannelInit(ordered=ordered)
        self._serve(self._connection.create_data_channel(label, options))

    def _serve(self, channel: Any) -> None:
        served = ServedChannel(
            channel.label, channel.send, lambda: channel.buffered_amount
        )
        self._channels[channel.label] = channel, served
        channel.buffered_amount_low_threshold = LOW_WATER_BYTES
        channel.on("message", lambda event: served.received(event.data))
        channel.on("bufferedamountlow", lambda event: served.drained())
        channel.on("close", lambda event: served.closed.set())

    def _on_gathering(self, event: Any) -> None:
        if self._connection.ice_gathering_state == "complete":
            self._gathered.set()

    async def offer(self) -> str:
        return await self._described()

    async def answer(self, offer: str) -> str:
        await self._take("offer", offer)
        return await self._described()

    async def accept(self, answer: str) -> None:
        await self._take("answer", answer)

    async def _described(self) -> str:
        await self._connection.set_local_description()
        await self._gathered.wait()
        return str(self._connection.local_description.sdp)

    async def _take(self, kind: Any, sdp: str) -> None:
        init = self._webrtc.RTCSessionDescriptionInit(type=kind, sdp=sdp)
        await self._connection.set_remote_description(init)

    async def close_channel(self, label: str) -> None:
        self._channels[label][0].close()

    async def channel_closed(self, label: str) -> None:
        await self._channels[label][1].closed.wait()

    async def close(self) -> None:
        with suppress(self._webrtc.InvalidStateError):
            self._connection.close()
