"""One socket of an ICE connection, and how a packet for the peer is wrapped on it.

Knows UDP and TURN over UDP (RFC 8656); whatever else ICE finds is refused, and the
connection stays aiortc's. Thin; used by `transport.sctp.datagrams`.
"""

import asyncio
import socket
import sys
from struct import Struct
from typing import Any, Final

from aioice.ice import CandidatePair, StunProtocol
from aioice.turn import TurnClientUdpProtocol, TurnTransport

__all__ = ["Leg", "UnknownPath"]

# 400 Mbit/s for 40 ms; the system may grant less.
SOCKET_BUFFER_BYTES: Final = 2 * 1024 * 1024

_TURN_HEADER_BYTES: Final = 4
# How Linux treats packets larger than the path's MTU (ip(7), ipv6(7)).
_LINUX_MTU_DISCOVER: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23),
}
# Generic segmentation offload (udp(7)): Python's socket module does not name it.
_LINUX_UDP_SEGMENT: Final = 103
_SEGMENT_SIZE: Final = Struct("=H")
_MAX_SEGMENTS: Final = 64
_MAX_SEGMENTS_BYTES: Final = 65_000
_PMTUDISC_DONT: Final = 0
_PMTUDISC_PROBE: Final = 3


class UnknownPath(Exception):
    """Packets travel in a way that is not known here; it says which."""


class Leg:
    """The socket of a pair of candidates.

    aioice keeps a channel at a relay alive by itself: its checks of the peer's consent,
    every five seconds (RFC 7675), go over the same channel and renew it.

    Attributes:
        pair: which pair it is.
        protocol: what the event loop gives the socket's datagrams.
        transport: how the event loop reads them.
        socket: a descriptor of our own for the same socket.
    """

    def __init__(self, pair: CandidatePair) -> None:
        """Find the socket of a pair.

        Raises:
            UnknownPath: it has none that is known here.
        """
        stun = pair.protocol
        transport = stun.transport
        self.pair = pair
        self._address: tuple[str, int] | None = pair.remote_addr
        self._channel = b""
        if isinstance(transport, TurnTransport):
            # aioice keeps it to itself.
            turn = getattr(transport, "_TurnTransport__inner_protocol", None)
            if not isinstance(turn, TurnClientUdpProtocol):
                raise UnknownPath("a relay over TCP")
            number = turn.peer_to_channel.get(pair.remote_addr)
            if number is None:
                raise UnknownPath("a relay without a channel")
            self.protocol: asyncio.DatagramProtocol = turn
            self._address = None
            self._channel = number.to_bytes(2, "big")
            inner: Any = turn.transport
        elif type(stun) is StunProtocol:
            self.protocol = stun
            inner = transport
        else:
            raise UnknownPath(f"a transport of {type(transport).__name__}")
        known = inner.get_extra_info("socket")
        if known is None or known.type != socket.SOCK_DGRAM or inner.is_closing():
            raise UnknownPath("no socket")
        self.transport: asyncio.DatagramTransport = inner
        # A descriptor of our own: the event loop lets nobody near its own.
        self.socket: socket.socket = known.dup()
        self.socket.setblocking(False)
        self._own_fragments: int | None = None
        self._can_segment = sys.platform == "linux" and self._address is not None
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            if self.socket.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BUFFER_BYTES:
                self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)

    @property
    def can_probe(self) -> bool:
        """Whether the system can be told not to cut packets into fragments."""
        return sys.platform == "linux" and self.socket.family in _LINUX_MTU_DISCOVER

    def set_fragments(self, are_allowed: bool) -> None:
        """Let the system cut large packets into fragments, or never."""
        if self.can_probe:
            level, option = _LINUX_MTU_DISCOVER[self.socket.family]
            if self._own_fragments is None:
                self._own_fragments = self.socket.getsockopt(level, option)
            value = _PMTUDISC_DONT if are_allowed else _PMTUDISC_PROBE
            self.socket.setsockopt(level, option, value)

    def send(self, record: bytes) -> None:
        """Send a record to the peer.

        Raises:
            BlockingIOError: the socket takes no more for now.
            OSError: the system does not want to send it.
        """
        if self._address is None:
            size = len(record).to_bytes(2, "big")
            self.socket.send(b"".join((self._channel, size, record)))
        else:
            self.socket.sendto(record, self._address)

    def send_segments(self, records: bytes, record_bytes: int) -> bool:
        """Send many records in one call; the system cuts them apart (udp(7), GSO).

        Args:
            records: at most `max_segments`, one after the other; the last one may be
                shorter.
            record_bytes: how long each of the others is.

        Returns:
            Whether they were sent. Where the system cannot, it is not asked again.

        Raises:
            BlockingIOError: the socket takes no more for now.
        """
        segment = _SEGMENT_SIZE.pack(record_bytes)
        options = [(socket.SOL_UDP, _LINUX_UDP_SEGMENT, segment)]
        try:
            self.socket.sendmsg([records], options, 0, self._address)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError:
            self._can_segment = False
            return False
        return True

    def max_segments(self, record_bytes: int) -> int:
        """Return how many records of that length one call sends; 1 for no more."""
        if not self._can_segment:
            return 1
        return max(1, min(_MAX_SEGMENTS, _MAX_SEGMENTS_BYTES // record_bytes))

    def unwrap(self, datagram: memoryview) -> memoryview:
        """Return what the peer sent; nothing if it was not the peer that sent it."""
        if not self._channel:
            return datagram
        end = _TURN_HEADER_BYTES + int.from_bytes(datagram[2:4], "big")
        if datagram[:2] != self._channel or end > len(datagram):
            return datagram[:0]
        return datagram[_TURN_HEADER_BYTES:end]

    def close(self, *, may_fragment: bool = False) -> None:
        """Leave the socket to aioice, as it was.

        Args:
            may_fragment: what is sent from now on may be cut all the same.
        """
        if may_fragment:
            self.set_fragments(True)
        elif self._own_fragments is not None:
            level, option = _LINUX_MTU_DISCOVER[self.socket.family]
            self.socket.setsockopt(level, option, self._own_fragments)
        self.socket.close()
