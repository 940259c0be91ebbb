"""Two real SCTP transports in one process, over an emulated link and in simulated time.

Only DTLS is a stand-in: its records are numbered and checked as real ones are, and
carry the SCTP packets as they are. The rest is aiortc's and the product's own.
"""

import asyncio
import itertools
import random
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from struct import Struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc import rtcsctptransport
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport
from support.link_emulator import Conditions, EmulatedLink

from sleap_rtc_plugin.transport.sctp.congestion import CongestionControl
from sleap_rtc_plugin.transport.sctp.fast_transport import FastSctpTransport
from sleap_rtc_plugin.transport.sctp.loss_based import LossBased

__all__ = [
    "FULL_PAYLOAD_BYTES",
    "RECORD_OVERHEAD_BYTES",
    "EmulatedDatagrams",
    "Inbox",
    "SimulatedDtls",
    "SimulatedPair",
    "connected_pair",
    "fast",
    "start_below_wrap",
    "stock",
]

LARGEST_MESSAGE = RTCSctpCapabilities(maxMessageSize=262144)
PORT = 5000
FULL_PAYLOAD_BYTES = 1160
"""User data of a packet of the size that every path carries."""

_RECORD = Struct("!BHQLH20x")
"""Type, version, number, checksum, length; as long as DTLS 1.2 with AES-GCM adds."""
RECORD_OVERHEAD_BYTES = _RECORD.size
APPLICATION_DATA = 23
DTLS_1_2 = 0xFEFD

REPLAY_WINDOW_RECORDS = 64
"""OpenSSL takes no record that is older than this many."""


class SimulatedDtls:
    """What an SCTP transport sees of DTLS, with the link in the place of ICE.

    Args:
        link: carries the records.
        end: which of its ends this is.
        is_protected: spoilt and repeated records are dropped, as DTLS does. Without,
            SCTP sees them.
    """

    def __init__(self, link: EmulatedLink, end: int, *, is_protected: bool) -> None:
        self.state = "connected"
        self._role = "client" if end == 0 else "server"
        self._link = link
        self._end = end
        self._is_protected = is_protected
        self._numbers = itertools.count()
        self._newest = -1
        self._seen: set[int] = set()
        self._data_receiver: Any = None
        self._received: asyncio.Queue[bytes] = asyncio.Queue()
        self._on_batch: Callable[[list[bytes]], None] | None = None
        self._reader: asyncio.Task[None] | None = None
        link.on_arrival(end, self._arrived)

    async def _send_data(self, data: bytes) -> None:
        if self.state != "connected":
            raise ConnectionError("Cannot send encrypted data, not connected")
        self.send_now([data])

    def send_now(self, packets: Sequence[bytes], *, may_fragment: bool = False) -> None:
        """Put packets on the link without a turn of the loop."""
        for packet in packets:
            self._link.send(self._end, self.seal(packet), may_fragment=may_fragment)

    def deliver_batches(self, receive: Callable[[list[bytes]], None] | None) -> None:
        """Hand over what arrives at one time at once; None for aiortc's own way."""
        self._on_batch = receive

    def seal(self, data: bytes) -> bytes:
        """Make a record of a packet."""
        number = next(self._numbers)
        header = (APPLICATION_DATA, DTLS_1_2, number, _checksum(number, data))
        return _RECORD.pack(*header, len(data)) + data

    def open_record(self, record: bytes) -> bytes | None:
        """Give back the packet in a record; None where DTLS would drop it."""
        data = record[RECORD_OVERHEAD_BYTES:]
        if not self._is_protected:
            return data
        kind, version, number, checksum, size = _RECORD.unpack_from(record)
        if (kind, version, size) != (APPLICATION_DATA, DTLS_1_2, len(data)):
            return None
        if checksum != _checksum(number, data) or number in self._seen:
            return None
        if number <= self._newest - REPLAY_WINDOW_RECORDS:
            return None
        self._newest = max(self._newest, number)
        self._seen.add(number)
        if len(self._seen) > 2 * REPLAY_WINDOW_RECORDS:
            oldest = self._newest - REPLAY_WINDOW_RECORDS
            self._seen = {seen for seen in self._seen if seen > oldest}
        return data

    def _register_data_receiver(self, receiver: Any) -> None:
        assert self._data_receiver is None
        self._data_receiver = receiver
        self._reader = asyncio.ensure_future(self._read())
        self._reader.add_done_callback(_fail_with)

    def _unregister_data_receiver(self, receiver: Any) -> None:
        if self._data_receiver is receiver:
            self._data_receiver = None

    def _arrived(self, records: list[bytes]) -> None:
        if self._on_batch is not None:
            opened = [self.open_record(record) for record in records]
            self._on_batch([data for data in opened if data])
            return
        for record in records:
            self._received.put_nowait(record)

    async def _read(self) -> None:
        """One packet after the other, each in its own turn of the loop, as aiortc."""
        while True:
            data = self.open_record(await self._received.get())
            if data and self._data_receiver is not None:
                await self._data_receiver._handle_data(data)

    def close(self) -> None:
        """Take no more datagrams."""
        self.state = "closed"
        if self._reader is not None:
            self._reader.cancel()


class EmulatedDatagrams:
    """How the fast transport's packets travel: `Datagrams` without sockets."""

    can_probe = True
    is_blocked = False

    def __init__(self, dtls: SimulatedDtls, transport: FastSctpTransport) -> None:
        self._dtls = dtls
        self._transport = transport
        self._may_fragment = False

    def attach(self) -> None:
        """Take the packets over."""
        self._dtls.deliver_batches(self._transport.receive_packets)

    def detach(self) -> None:
        """Leave the packets to aiortc again."""
        self._dtls.deliver_batches(None)

    def send(self, packets: Sequence[bytes]) -> None:
        """Send packets."""
        self._dtls.send_now(packets, may_fragment=self._may_fragment)

    def set_fragments(self, are_allowed: bool) -> None:
        """Let the network cut what is larger than its MTU, or never."""
        self._may_fragment = are_allowed


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "big")))


def _fail_with(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()


class Inbox:
    """What came through a channel, in the order it came."""

    def __init__(self, channel: RTCDataChannel) -> None:
        self.channel = channel
        self.messages: list[bytes | str] = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        channel.on("message", self._take)

    def _take(self, message: bytes | str) -> None:
        self.messages.append(message)
        for entry in [entry for entry in self._waiting if self._has(entry[0])]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def _has(self, count: int) -> bool:
        return len(self.messages) >= count

    async def until(self, count: int) -> list[bytes | str]:
        """Wait until so many messages are here; they stay here."""
        if not self._has(count):
            arrived = asyncio.get_running_loop().create_future()
            self._waiting.append((count, arrived))
            await arrived
        return self.messages


MakeTransport = Callable[[Any], RTCSctpTransport]


def stock(dtls: Any) -> RTCSctpTransport:
    """Make aiortc's own transport."""
    return RTCSctpTransport(dtls, PORT)


def fast(
    congestion: Callable[[], CongestionControl] = lambda: LossBased(FULL_PAYLOAD_BYTES),
) -> MakeTransport:
    """Make transports with the fast data path, and this congestion control."""

    def make(dtls: SimulatedDtls) -> RTCSctpTransport:
        return FastSctpTransport.adopt(
            stock(dtls),
            congestion,
            make_datagrams=lambda sctp: EmulatedDatagrams(dtls, sctp),
        )

    return make


class SimulatedPair:
    """Two transports and the link between them; end 0 is the DTLS client."""

    def __init__(
        self,
        link: EmulatedLink,
        dtls: tuple[SimulatedDtls, SimulatedDtls],
        sctp: tuple[RTCSctpTransport, RTCSctpTransport],
    ) -> None:
        self.link = link
        self.dtls = dtls
        self.sctp = sctp

    async def open_channel(
        self, from_end: int = 0, **parameters: Any
    ) -> tuple[RTCDataChannel, Inbox]:
        """Open a channel; give back this end of it and the inbox of the other."""
        loop = asyncio.get_running_loop()
        announced: asyncio.Future[Inbox] = loop.create_future()
        opened = loop.create_future()
        # The inbox is made at once: messages may come with the announcement.
        self.sctp[1 - from_end].once(
            "datachannel", lambda channel: announced.set_result(Inbox(channel))
        )
        channel = RTCDataChannel(
            self.sctp[from_end], RTCDataChannelParameters(**parameters)
        )
        channel.once("open", lambda: opened.set_result(None))
        await opened
        return channel, await announced


def start_below_wrap(
    sctp: RTCSctpTransport,
    *,
    tsn: int | None = None,
    stream_seq: dict[int, int] | None = None,
    peer_stream_seq: dict[int, int] | None = None,
) -> None:
    """Set with which numbers a transport begins; before it is started.

    Args:
        sctp: a transport that has sent nothing.
        tsn: the first that it sends.
        stream_seq: the first number per stream that it sends.
        peer_stream_seq: the first per stream that it receives.
    """
    if tsn is not None:
        before = rtcsctptransport.tsn_minus_one(tsn)
        sctp._local_tsn = sctp._reconfig_request_seq = tsn
        sctp._last_sacked_tsn = sctp._advanced_peer_ack_tsn = before
    sctp._outbound_stream_seq.update(stream_seq or {})
    for stream, number in (peer_stream_seq or {}).items():
        sctp._get_inbound_stream(stream).sequence_number = number


@asynccontextmanager
async def connected_pair(
    conditions: Conditions | None = None,
    *,
    make: tuple[MakeTransport, MakeTransport] = (stock, stock),
    seed: int = 0,
    is_protected: bool = True,
    backward: Conditions | None = None,
    before_start: Callable[[SimulatedPair], None] | None = None,
) -> AsyncIterator[SimulatedPair]:
    """Two transports, started; what was asked of them goes over the link.

    Args:
        conditions: of the link, from the first datagram on.
        make: makes the transport of either end.
        seed: of the link's chance, and of the transports' tags and numbers.
        is_protected: whether DTLS drops spoilt and repeated records.
        backward: conditions from end 1 to end 0, where they differ.
        before_start: called with the pair before anything is sent.
    """
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtcsctptransport, "time", SimpleNamespace(time=loop.time))
        patch.setattr(rtcsctptransport, "random32", lambda: chance.getrandbits(32))
        link = EmulatedLink(loop, conditions or Conditions(), seed, backward=backward)
        dtls = (
            SimulatedDtls(link, 0, is_protected=is_protected),
            SimulatedDtls(link, 1, is_protected=is_protected),
        )
        sctp = (make[0](dtls[0]), make[1](dtls[1]))
        pair = SimulatedPair(link, dtls, sctp)
        if before_start is not None:
            before_start(pair)
        for transport in sctp:
            await transport.start(LARGEST_MESSAGE, PORT)
        try:
            yield pair
        finally:
            for transport in sctp:
                await transport.stop()
            # What aiortc has in hand is still sent.
            await asyncio.sleep(0)
            for end in dtls:
                end.close()
