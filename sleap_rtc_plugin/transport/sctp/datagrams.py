"""DTLS records in and out of the sockets of an ICE connection, in batches, at once.

aiortc passes each datagram through a queue, a task and an event-loop cycle of its own.
Here a wake-up reads what has come, up to a bound, and sending is a plain call. Knows
DTLS, UDP and TURN over UDP, nothing of SCTP. Thin; used by
`transport.sctp.fast_transport`.
"""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from aioice.ice import CandidatePair, Connection, StunProtocol
from aioice.turn import TurnClientUdpProtocol, TurnTransport
from aiortc import RTCDtlsTransport
from OpenSSL import SSL

__all__ = ["Datagrams", "UnknownPath", "WideRecords"]

logger = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 65_535
# How many datagrams one wake-up reads before other work has its turn.
MAX_BATCH: Final = 64
# 400 Mbit/s for 40 ms; the system may grant less.
SOCKET_BUFFER_BYTES: Final = 2 * 1024 * 1024
# What a datagram socket does not take at once waits here; more is as good as lost.
MAX_UNSENT: Final = 128
RECORD_OVERHEAD_BYTES: Final = 128
# How soon to ask for the renewal of a TURN channel again.
RENEWAL_INTERVAL_S: Final = 5.0

# DTLS 1.2 content types (RFC 6347 section 4.1), and the range of RFC 7983.
_APPLICATION_DATA: Final = 23
_RECORD_HEADER_BYTES: Final = 13
_TURN_HEADER_BYTES: Final = 4
_COMPONENT: Final = 1

# How Linux treats packets larger than the path's MTU (ip(7), ipv6(7)).
_LINUX_MTU_DISCOVER: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
_PMTUDISC_DONT: Final = 0
_PMTUDISC_PROBE: Final = 3


class UnknownPath(Exception):
    """Packets travel in a way that is not known here; it says which."""


class WideRecords:
    """A DTLS connection that reads and writes records larger than 1500 bytes.

    aiortc asks for 1500 bytes at a time and loses step where a record is larger.
    """

    def __init__(self, connection: SSL.Connection) -> None:
        """Stand in for `connection`."""
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        """Read the data of a whole record."""
        return bytes(self._connection.recv(max(size, MAX_DATAGRAM_BYTES)))

    def bio_read(self, size: int) -> bytes:
        """Read a whole record that is to be sent."""
        return bytes(self._connection.bio_read(max(size, MAX_DATAGRAM_BYTES)))


class _Leg:
    """One socket, how a packet for the peer is wrapped on it, and where it goes."""

    def __init__(self, pair: CandidatePair) -> None:
        """Find the socket of a pair.

        Raises:
            UnknownPath: it has none that is known here.
        """
        stun = pair.protocol
        transport = stun.transport
        self.pair = pair
        self.address: tuple[str, int] | None = pair.remote_addr
        self.channel = b""
        self._turn: TurnClientUdpProtocol | None = None
        self._renew_at = 0.0
        if isinstance(transport, TurnTransport):
            # aioice keeps it to itself.
            turn = getattr(transport, "_TurnTransport__inner_protocol", None)
            if not isinstance(turn, TurnClientUdpProtocol):
                raise UnknownPath("a relay over TCP")
            number = turn.peer_to_channel.get(pair.remote_addr)
            if number is None:
                raise UnknownPath("a relay without a channel")
            self._turn = turn
            self.protocol: asyncio.DatagramProtocol = turn
            self.address = None
            self.channel = number.to_bytes(2, "big")
            inner: Any = turn.transport
        elif type(stun) is StunProtocol:
            self.protocol = stun
            inner = transport
        else:
            raise UnknownPath(f"a transport of {type(transport).__name__}")
        known = inner.get_extra_info("socket")
        if known is None or known.type != socket.SOCK_DGRAM:
            raise UnknownPath("no socket")
        # A descriptor of our own: the event loop lets nobody near its own.
        self.socket = socket.socket(fileno=os.dup(known.fileno()))
        self.socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            if self.socket.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BUFFER_BYTES:
                self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)

    def renew(self, record: bytes, wall_clock: float) -> bool:
        """Let aioice send a record if that makes it renew its channel at the relay.

        Returns:
            Whether it sends it.
        """
        if self._turn is None or wall_clock < self._renew_at:
            return False
        number = int.from_bytes(self.channel, "big")
        self._renew_at = self._turn.channel_refresh_at.get(number, 0.0)
        if wall_clock < self._renew_at:
            return False
        self._renew_at = wall_clock + RENEWAL_INTERVAL_S
        self.pair.protocol.transport.sendto(record, self.pair.remote_addr)
        return True

    @property
    def can_probe(self) -> bool:
        """Whether the system can be told not to cut packets into fragments."""
        return sys.platform == "linux" and self.socket.family in _LINUX_MTU_DISCOVER

    def set_fragments(self, are_allowed: bool) -> None:
        """Let the system cut large packets into fragments, or never."""
        if self.can_probe:
            level, option = _LINUX_MTU_DISCOVER[self.socket.family]
            value = _PMTUDISC_DONT if are_allowed else _PMTUDISC_PROBE
            self.socket.setsockopt(level, option, value)

    def close(self) -> None:
        self.socket.close()


class Datagrams:
    """The way packets take between this DTLS transport and its peer.

    Attributes:
        is_blocked: the socket takes no more for now; `on_room` tells when it does.
    """

    def __init__(
        self,
        dtls: RTCDtlsTransport,
        *,
        on_packets: Callable[[list[bytes]], None],
        on_room: Callable[[], None],
        on_new_path: Callable[[], None],
        on_too_large: Callable[[int], None],
        run: Callable[..., object],
        wall_clock: Callable[[], float],
    ) -> None:
        """Find the way; nothing is changed yet.

        Args:
            dtls: the connected DTLS transport.
            on_packets: given what was decrypted, a batch at a time.
            on_room: the socket takes packets again.
            on_new_path: ICE has nominated another pair.
            on_too_large: this machine refuses packets of that size.
            run: calls a function, with arguments, that the event loop or aioice wants
                called; where it fails, the fast way ends.
            wall_clock: the clock by which aioice renews TURN channels, in seconds.

        Raises:
            UnknownPath: it cannot be used; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.SelectorEventLoop):
            raise UnknownPath(f"an event loop of {type(loop).__name__}")
        connection: Connection = dtls.transport._connection
        pair = connection._nominated.get(_COMPONENT)
        if pair is None or dtls._ssl is None:
            raise UnknownPath("no nominated pair")
        self._loop = loop
        self._dtls = dtls
        self._connection = connection
        self._on_packets = on_packets
        self._on_room = on_room
        self._on_new_path = on_new_path
        self._on_too_large = on_too_large
        self._run = run
        self._wall_clock = wall_clock
        self._buffer = bytearray(MAX_DATAGRAM_BYTES)
        self._view = memoryview(self._buffer)
        self._unsent: deque[bytes] = deque()
        self._are_fragments_allowed = False
        self._leg = _Leg(pair)
        self._ssl: SSL.Connection = dtls._ssl
        self._overhead_bytes = 0
        self.is_blocked = False

    @property
    def can_probe(self) -> bool:
        """Whether a packet too large for the path would be lost, and not cut."""
        return self._leg.can_probe

    def attach(self) -> None:
        """Take the packets over."""
        vars(self._dtls)["_ssl"] = WideRecords(self._ssl)
        # What comes on other sockets of the connection, and through aioice.
        vars(self._connection)["data_received"] = self._data_received
        self._hook()

    def detach(self) -> None:
        """Leave the packets to aiortc again."""
        vars(self._connection).pop("data_received", None)
        self._unhook()
        # aiortc goes on, with chunks as large as they have become.
        self._leg.set_fragments(True)
        self._leg.close()

    def _hook(self) -> None:
        self._leg.set_fragments(self._are_fragments_allowed)
        vars(self._leg.protocol)["datagram_received"] = self._datagram_received

    def _unhook(self) -> None:
        vars(self._leg.protocol).pop("datagram_received", None)
        if self.is_blocked:
            self._loop.remove_writer(self._leg.socket)
            self.is_blocked = False
        self._unsent.clear()

    def _check_pair(self) -> bool:
        """Follow ICE to another pair; False while there is no way."""
        pair = self._connection._nominated.get(_COMPONENT)
        if pair is self._leg.pair:
            return True
        if pair is None:
            return False
        leg = _Leg(pair)
        self._unhook()
        self._leg.close()
        self._leg = leg
        self._hook()
        logger.info("The connection goes over %s now.", pair)
        self._on_new_path()
        return True

    def allow_fragments(self) -> None:
        """Some packets are too large for the path and cannot be made smaller."""
        self._are_fragments_allowed = True
        self._leg.set_fragments(True)

    # -- in ----------------------------------------------------------------------------

    def _datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """The event loop read one datagram for a protocol of aioice's."""
        self._run(self._read_batch, data, address)

    def _read_batch(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Take a datagram, and the others that wait as well."""
        packets: list[bytes] = []
        leg = self._leg
        self._take(leg, memoryview(data), address, packets)
        receive, view = leg.socket.recvfrom_into, self._view
        for _ in range(MAX_BATCH - 1):
            try:
                size, address = receive(view)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                leg.protocol.error_received(error)
                break
            self._take(leg, view[:size], address, packets)
        self._on_packets(packets)

    def _take(
        self,
        leg: _Leg,
        datagram: memoryview,
        address: tuple[Any, ...],
        packets: list[bytes],
    ) -> None:
        """Decrypt a datagram if it is one of ours; leave others to aioice."""
        if leg.channel:
            size = int.from_bytes(datagram[2:4], "big") + _TURN_HEADER_BYTES
            if bytes(datagram[:2]) != leg.channel or not (
                _TURN_HEADER_BYTES < size <= len(datagram)
            ):
                self._leave_to(leg.protocol, datagram, address)
                return
            datagram = datagram[_TURN_HEADER_BYTES:size]
        if datagram and datagram[0] == _APPLICATION_DATA:
            self._decrypt(datagram, packets)
        elif leg.channel:
            self._leave_to(leg.pair.protocol, datagram, leg.pair.remote_addr)
        else:
            self._leave_to(leg.protocol, datagram, address)

    def _leave_to(
        self,
        protocol: asyncio.DatagramProtocol,
        datagram: memoryview,
        address: tuple[Any, ...],
    ) -> None:
        """Let aioice take a datagram.

        It may be anybody's, and aioice fails at some: that is no fault of ours.
        """
        try:
            type(protocol).datagram_received(protocol, bytes(datagram), address)
        except Exception as error:
            logger.debug("A datagram that cannot be used: %r", error)

    def _data_received(self, data: bytes, component: int) -> None:
        """What aioice took for data: from another socket, or no application data."""
        self._run(self._read_one, data, component)

    def _read_one(self, data: bytes, component: int) -> None:
        if data and data[0] == _APPLICATION_DATA:
            packets: list[bytes] = []
            self._decrypt(memoryview(data), packets)
            self._on_packets(packets)
        else:
            # Alerts and handshakes are for aiortc's own loop, which also closes.
            Connection.data_received(self._connection, data, component)

    def _decrypt(self, datagram: memoryview, packets: list[bytes]) -> None:
        """Append what the application records of a datagram hold."""
        while len(datagram) > _RECORD_HEADER_BYTES:
            size = _RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
            record, datagram = datagram[:size], datagram[size:]
            self._ssl.bio_write(record)
            try:
                packets.append(self._ssl.recv(size))
            except SSL.ZeroReturnError:
                # The peer has closed: aiortc's own loop is to notice as well.
                self._connection._queue.put_nowait(None)
                return
            except SSL.Error:
                # Damaged, replayed or forged.
                continue

    # -- out ---------------------------------------------------------------------------

    def send(self, packets: Sequence[bytes]) -> None:
        """Encrypt and send packets; those that cannot be sent are lost."""
        if not self._check_pair():
            return
        wall_clock = self._wall_clock()
        for packet in packets:
            try:
                self._ssl.send(packet)
                record = self._ssl.bio_read(len(packet) + RECORD_OVERHEAD_BYTES)
            except SSL.Error as error:
                logger.debug("DTLS does not take a packet: %s", error)
                return
            self._overhead_bytes = len(record) - len(packet)
            if self._leg.channel and self._leg.renew(record, wall_clock):
                continue
            if self.is_blocked:
                if len(self._unsent) < MAX_UNSENT:
                    self._unsent.append(record)
            elif not self._send_record(record):
                self._unsent.append(record)
                self.is_blocked = True
                self._loop.add_writer(self._leg.socket, self._writable)

    def _send_record(self, record: bytes) -> bool:
        """Send a record; False where the socket takes no more for now."""
        leg = self._leg
        try:
            if leg.address is None:
                size = len(record).to_bytes(2, "big")
                leg.socket.send(b"".join((leg.channel, size, record)))
            else:
                leg.socket.sendto(record, leg.address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._on_too_large(len(record) - self._overhead_bytes)
            else:
                leg.protocol.error_received(error)
        return True

    def _writable(self) -> None:
        self._run(self._send_waiting)

    def _send_waiting(self) -> None:
        while self._unsent:
            if not self._send_record(self._unsent[0]):
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._leg.socket)
        self.is_blocked = False
        self._on_room()
