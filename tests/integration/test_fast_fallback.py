"""Over real sockets and DTLS: the fast way fails, and aiortc's carries everything on.

Packets are as large as loopback takes them by then, larger than aiortc makes them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection
from support.broken_methods import Place, Trap, broken

from sleap_rtc_plugin.transport.data_channels import (
    allow_large_packets,
    engine_of,
    make_peer_connection,
)
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone
from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.datagrams import Datagrams
from sleap_rtc_plugin.transport.sctp.leg import Leg
from sleap_rtc_plugin.transport.sctp.path_mtu import FAST_PEER_PACKET_BYTES
from sleap_rtc_plugin.transport.sctp.sender import Sender
from sleap_rtc_plugin.transport.transport_options import TransportOptions

PATIENCE_S = 60
MESSAGE_BYTES = 64 * 1024
MESSAGES = 32
# By then much is in flight both ways.
LATER_CALL = 10

PLACES = [
    *(Place(Datagrams, name) for name in ("send", "_read_batch", "_take", "_decrypt")),
    *(Place(Datagrams, name, "after") for name in ("send", "_read_batch", "_decrypt")),
    *(Place(Datagrams, name) for name in ("_hand_over", "_follow", "_send_record")),
    *(Place(Leg, name) for name in ("send", "unwrap")),
    *(Place(DataPath, name) for name in ("packets", "receive_packet")),
    *(Place(DataPath, name, "after") for name in ("packets", "receive_packet")),
    Place(Sender, "on_sack", "after"),
]


class End:
    """One of two connections, and what came through its channels."""

    def __init__(self) -> None:
        self.connection = make_peer_connection(
            RTCConfiguration(iceServers=[]), TransportOptions()
        )
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.channels: asyncio.Queue[RTCDataChannel] = asyncio.Queue()
        self.connection.on("datachannel", self._announced)

    def _announced(self, channel: RTCDataChannel) -> None:
        self.listen(channel)
        self.channels.put_nowait(channel)

    def listen(self, channel: RTCDataChannel) -> None:
        """Keep what comes through a channel."""
        channel.on("message", self.received.put_nowait)

    async def open(self, label: str, other: "End") -> tuple[RTCDataChannel, ...]:
        """Open a channel; give back this end of it and the other."""
        opened = asyncio.get_running_loop().create_future()
        channel = self.connection.createDataChannel(label)
        channel.once("open", lambda: opened.set_result(None))
        self.listen(channel)
        if self.connection.localDescription is None:
            await introduce(self.connection, other.connection)
        await opened
        return channel, await other.channels.get()


async def introduce(caller: RTCPeerConnection, called: RTCPeerConnection) -> None:
    await caller.setLocalDescription(await caller.createOffer())
    await called.setRemoteDescription(caller.localDescription)
    await called.setLocalDescription(await called.createAnswer())
    await caller.setRemoteDescription(called.localDescription)


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    offer_loopback_when_alone()
    ends = End(), End()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield ends
    finally:
        for end in ends:
            await end.connection.close()


async def have_large_packets(channel: RTCDataChannel, *ends: End) -> None:
    """Send something to and fro until the probes have come back."""
    for end in ends:
        allow_large_packets(end.connection)
    paths = [end.connection.sctp._path for end in ends]
    while any(path.path_mtu.packet_bytes < FAST_PEER_PACKET_BYTES for path in paths):
        channel.send(b"ping")
        await ends[1].received.get()


async def have_received(end: End, sent: list[bytes]) -> None:
    """Wait until as much has come as was sent; it is the same, and in order."""
    assert [await end.received.get() for _ in sent] == sent


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_a_fault_on_the_way_loses_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_ends() as (near, far):
        channels = await near.open("data", far)
        await have_large_packets(channels[0], near, far)
        sent = [
            [bytes([end, n]) * (MESSAGE_BYTES // 2) for n in range(MESSAGES)]
            for end in (0, 1)
        ]
        with broken(place, Trap(LATER_CALL)) as trap:
            for channel, messages in zip(channels, sent, strict=True):
                for message in messages:
                    channel.send(message)
            await have_received(far, sent[0])
            await have_received(near, sent[1])
            assert trap.failures == 1
        engines = [engine_of(end.connection) for end in (near, far)]
        assert sorted(engines) == ["aiortc", "fast"]
        assert [channel.bufferedAmount for channel in channels] == [0, 0]

        closed = asyncio.get_running_loop().create_future()
        channels[1].once("close", lambda: closed.set_result(None))
        channels[0].close()
        await closed
        another, there = await far.open("another", near)
        another.send(b"there")
        there.send(b"back")
        await have_received(near, [b"there"])
        await have_received(far, [b"back"])
        assert near.received.empty() and far.received.empty()
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "slow way" in warnings[0].getMessage()
