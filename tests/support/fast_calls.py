"""Two connected ends in this process, over real sockets, and streams between them.

The ends are peer connections as the product makes them, fast or stock; a test looks
behind them and harms what is in between. Every message of a stream is compared when it
arrives.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from aioice.ice import Candidate, CandidatePair, Connection, StunProtocol
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from sleap_rtc_plugin.transport.data_channels import make_peer_connection
from sleap_rtc_plugin.transport.host_candidates import offer_loopback_when_alone
from sleap_rtc_plugin.transport.sctp.data_path import DataPath
from sleap_rtc_plugin.transport.sctp.datagrams import Datagrams
from sleap_rtc_plugin.transport.sctp.leg import Leg
from sleap_rtc_plugin.transport.transport_options import TransportOptions

__all__ = [
    "FAST",
    "STOCK",
    "CallEnd",
    "Stream",
    "another_socket",
    "called",
    "nominate",
    "pair_of",
]

FAST = TransportOptions(engine="fast")
STOCK = TransportOptions(engine="stock")
STREAM = "stream"
CONNECT_TIMEOUT_S = 20
HIGH_WATER_BYTES = 4 << 20
LOW_WATER_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 64 << 10
_CONTENT = random.Random(5).randbytes(MAX_MESSAGE_BYTES)  # noqa: S311 - no secret


class CallEnd:
    """One end: its connection, its one channel, and what is behind them."""

    def __init__(
        self,
        options: TransportOptions = FAST,
        configuration: RTCConfiguration | None = None,
        place: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Make an end; its sockets are opened within `place`."""
        offer_loopback_when_alone()
        self.connection: RTCPeerConnection = make_peer_connection(
            configuration or RTCConfiguration(iceServers=[]), options
        )
        self.place = place or nullcontext()
        self.channel: Any = None
        self.opened = asyncio.Event()
        self.drained = asyncio.Event()
        self.closed = asyncio.Event()
        self.connection.on("datachannel", self.adopt)
        self.connection.on("connectionstatechange", self._on_state)

    def _on_state(self) -> None:
        if self.connection.connectionState in ("closed", "failed"):
            self.closed.set()

    def adopt(self, channel: Any) -> None:
        if channel.label != STREAM:
            return
        self.channel = channel
        channel.bufferedAmountLowThreshold = LOW_WATER_BYTES
        channel.on("open", self.opened.set)
        channel.on("bufferedamountlow", self.drained.set)
        if channel.readyState == "open":
            self.opened.set()

    @property
    def sctp(self) -> Any:
        assert self.connection.sctp is not None
        return self.connection.sctp

    @property
    def ice(self) -> Connection:
        return self.sctp.transport.transport._connection

    @property
    def is_fast(self) -> bool:
        return getattr(self.sctp, "is_fast", False)

    @property
    def path(self) -> DataPath:
        return self.sctp._path

    @property
    def datagrams(self) -> Datagrams:
        return self.sctp._datagrams

    @property
    def leg(self) -> Leg:
        assert self.datagrams._leg is not None
        return self.datagrams._leg

    @property
    def address(self) -> tuple[str, int]:
        """Where its datagrams come to."""
        return self.ice._nominated[1].local_addr


@asynccontextmanager
async def called(one: CallEnd, other: CallEnd) -> AsyncIterator[None]:
    """Connect the ends: `one` offers and opens the channel."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _call(one, other)
            await one.opened.wait()
            await other.opened.wait()
        yield
    finally:
        await one.connection.close()
        await other.connection.close()


async def _call(one: CallEnd, other: CallEnd) -> None:
    ours, theirs = one.connection, other.connection
    one.adopt(ours.createDataChannel(STREAM))
    with one.place:
        await ours.setLocalDescription(await ours.createOffer())
    offer = ours.localDescription.sdp
    await theirs.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    with other.place:
        await theirs.setLocalDescription(await theirs.createAnswer())
    answer = theirs.localDescription.sdp
    await ours.setRemoteDescription(RTCSessionDescription(answer, "answer"))


class Stream:
    """Messages of many sizes from one end to the other, compared as they arrive.

    Attributes:
        received_bytes: how much has arrived.
    """

    def __init__(self, source: CallEnd, sink: CallEnd, total_bytes: int) -> None:
        self._source = source
        self._total_bytes = total_bytes
        self._number = 0
        self._marks: list[tuple[float, asyncio.Event]] = []
        self._fault: str | None = None
        self._finished = asyncio.Event()
        self.received_bytes = 0
        sink.channel.on("message", self._receive)
        self._sink = sink

    def _message(self, number: int) -> bytes:
        size = 1 + number * 7919 % (MAX_MESSAGE_BYTES - 4)
        return number.to_bytes(4, "big") + _CONTENT[:size]

    def _receive(self, message: bytes) -> None:
        if message != self._message(self._number):
            self._fault = self._fault or f"message {self._number} is another"
        self._number += 1
        self.received_bytes += len(message)
        for share, reached in self._marks:
            if self.received_bytes >= share * self._total_bytes:
                reached.set()
        if self.received_bytes >= self._total_bytes or self._fault:
            self._finished.set()

    async def reaches(self, share: float) -> None:
        """Wait until that share of it has arrived."""
        reached = asyncio.Event()
        self._marks.append((share, reached))
        if self.received_bytes < share * self._total_bytes:
            await reached.wait()

    async def run(self, timeout_s: float = 90.0) -> None:
        """Send everything, and wait until it has arrived as it was sent."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_all()
                await self._finished.wait()
        except TimeoutError:
            share = f"{self.received_bytes} of {self._total_bytes} bytes"
            raise AssertionError(f"{share} arrived in {timeout_s} s") from None
        finally:
            self._sink.channel.remove_listener("message", self._receive)
        assert self._fault is None, self._fault

    async def _send_all(self) -> None:
        source, sent_bytes, number = self._source, 0, 0
        while sent_bytes < self._total_bytes:
            while source.channel.bufferedAmount >= HIGH_WATER_BYTES:
                source.drained.clear()
                await source.drained.wait()
            message = self._message(number)
            source.channel.send(message)
            sent_bytes += len(message)
            number += 1


async def another_socket(end: CallEnd) -> StunProtocol:
    """Give an end a second socket, as if another of its networks had come up."""
    ice = end.ice
    first = ice._nominated[1].protocol.local_candidate
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: StunProtocol(ice), local_addr=(first.host, 0)
    )
    protocol.local_candidate = Candidate(
        foundation="another",
        component=1,
        transport="udp",
        priority=first.priority,
        host=first.host,
        port=protocol.transport.get_extra_info("sockname")[1],
        type="host",
    )
    ice._protocols.append(protocol)
    return protocol


def pair_of(ours: StunProtocol, theirs: StunProtocol) -> CandidatePair:
    """Return the pair of a socket here and one there."""
    remote = Candidate.from_sdp(theirs.local_candidate.to_sdp())
    remote._network_host = remote.host
    return CandidatePair(ours, remote)


async def nominate(one: CallEnd, ours: StunProtocol, theirs: StunProtocol) -> None:
    """Let the end that offered check another pair, and nominate it (RFC 8445)."""
    assert one.ice.ice_controlling
    pair = pair_of(ours, theirs)
    one.ice._check_list.append(pair)
    await one.ice.check_start(pair)
    assert one.ice._nominated[1] is pair
