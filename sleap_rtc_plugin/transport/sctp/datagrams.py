"""DTLS records in and out of the sockets of an ICE connection, in batches, at once.

aiortc passes each datagram through a queue, a task and an event-loop cycle of its own.
Here a wake-up reads what has come, up to a bound, and sending is a plain call. Knows
DTLS and when ICE takes another pair, nothing of SCTP. Thin; used by
`transport.sctp.fast_transport`.
"""

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from aioice.ice import Connection
from aiortc import RTCDtlsTransport
from OpenSSL import SSL

from sleap_rtc_plugin.transport.sctp.leg import Leg, UnknownPath

__all__ = ["Datagrams", "WideRecords"]

logger = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 65_535
# How many datagrams one wake-up reads before other work has its turn.
MAX_BATCH: Final = 64
# What a datagram socket does not take at once waits here; more is as good as lost.
MAX_UNSENT: Final = 128
RECORD_OVERHEAD_BYTES: Final = 128

# RFC 6347 section 4.1 and RFC 5246 section 6.2.3. A longer one would not be read as a
# whole, and what follows would be taken for its rest.
_RECORD_HEADER_BYTES: Final = 13
MAX_RECORD_BYTES: Final = _RECORD_HEADER_BYTES + 16_384 + 2_048
_COMPONENT: Final = 1
# How a STUN message begins (RFC 7983 section 7), from a TURN server too.
_STUN: Final = frozenset((b"\0", b"\1", b"\2", b"\3"))


class WideRecords:
    """A DTLS connection that reads and writes records larger than 1500 bytes.

    aiortc asks for 1500 bytes at a time and loses step where a record is larger. It
    stays when the packets are aiortc's again: the peer may go on sending large ones.
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


class Datagrams:
    """The way packets take between this DTLS transport and its peer."""

    def __init__(
        self,
        dtls: RTCDtlsTransport,
        *,
        on_packets: Callable[[list[bytes]], None],
        on_room: Callable[[], None],
        on_new_path: Callable[[], None],
        on_too_large: Callable[[int], None],
        run: Callable[..., object],
    ) -> None:
        """Find the way; nothing is taken over yet.

        Args:
            dtls: the connected DTLS transport.
            on_packets: given what was decrypted, a batch at a time.
            on_room: the socket takes packets again.
            on_new_path: ICE has nominated another pair.
            on_too_large: this machine refuses packets of that size.
            run: calls a method that the event loop or aioice wants called; where it
                fails, the fast way ends.

        Raises:
            UnknownPath: it cannot be used.
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
        self._buffer = bytearray(MAX_DATAGRAM_BYTES)
        self._view = memoryview(self._buffer)
        self._unsent: deque[bytes] = deque()
        self._is_waiting = False
        self._are_fragments_allowed = False
        self._ssl: SSL.Connection = dtls._ssl
        self._overhead_bytes = 0
        self._may_answer = False
        self._has_ended = False
        self._leg: Leg | None = Leg(pair)

    @property
    def can_probe(self) -> bool:
        """Whether a packet too large for the path would be lost, and not cut."""
        return self._leg is not None and self._leg.can_probe

    @property
    def is_blocked(self) -> bool:
        """Whether the socket takes no more for now; `on_room` tells when it does."""
        return self._is_waiting and self._is_current()

    def attach(self) -> None:
        """Take the packets over."""
        vars(self._dtls)["_ssl"] = WideRecords(self._ssl)
        # What comes on other sockets of the connection, and through aioice.
        vars(self._connection)["data_received"] = self._data_received
        if self._leg is not None:
            self._hook(self._leg)
        # Not now: aiortc is in the middle of a datagram.
        self._loop.call_soon(self._run, self._catch_up)

    def _catch_up(self) -> None:
        """Read what came before, and aiortc has not read to its end."""
        if self._leg is None:
            return
        packets: list[bytes] = []
        while self._read(MAX_RECORD_BYTES, packets):
            pass
        self._hand_over(packets)
        queue = self._connection._queue
        for _ in range(queue.qsize()):
            item = queue.get_nowait()
            if item is None:
                queue.put_nowait(None)
            else:
                self._data_received(*item)

    def detach(self) -> None:
        """Leave the packets to aiortc again."""
        vars(self._connection).pop("data_received", None)
        # It goes on with chunks as large as they have become.
        self._leave(may_fragment=True)

    def set_fragments(self, are_allowed: bool) -> None:
        """Let packets be cut into fragments where they are too large, or never."""
        if are_allowed != self._are_fragments_allowed:
            self._are_fragments_allowed = are_allowed
            if self._leg is not None:
                self._leg.set_fragments(are_allowed)

    # -- the nominated pair ------------------------------------------------------------

    def _hook(self, leg: Leg) -> None:
        leg.set_fragments(self._are_fragments_allowed)
        vars(leg.protocol)["datagram_received"] = self._datagram_received
        # The event loop makes room for 256 KiB before it reads, for any datagram: at
        # that size the system gives memory page by page, ten times as slow as reading.
        vars(leg.transport)["max_size"] = MAX_DATAGRAM_BYTES

    def _leave(self, *, may_fragment: bool = False) -> None:
        """Let the socket go, with what waits for it."""
        leg, self._leg = self._leg, None
        if leg is None:
            return
        vars(leg.protocol).pop("datagram_received", None)
        vars(leg.transport).pop("max_size", None)
        if self._is_waiting:
            self._loop.remove_writer(leg.socket)
            self._is_waiting = False
        self._unsent.clear()
        leg.close(may_fragment=may_fragment)

    def _is_current(self) -> bool:
        pair = self._connection._nominated.get(_COMPONENT)
        return self._leg is not None and self._leg.pair is pair

    def _follow(self) -> Leg | None:
        """Return the way of the nominated pair; None where there is none any more.

        Raises:
            UnknownPath: it is not known here.
        """
        if self._is_current():
            return self._leg
        self._leave()
        pair = self._connection._nominated.get(_COMPONENT)
        if pair is None:
            # Nobody agrees to our packets any more (RFC 7675 section 5.1).
            return None
        self._leg = leg = Leg(pair)
        self._hook(leg)
        logger.info("The connection goes over %s now.", pair)
        self._on_new_path()
        return leg

    # -- in ----------------------------------------------------------------------------

    def _datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """The event loop read one datagram for a protocol of aioice's."""
        leg = self._leg
        if leg is not None and data[:1] in _STUN:
            # All there is on an idle connection: ICE asks whether we still agree.
            _leave_to_ice(leg, data, address)
        else:
            self._run(self._read_batch, data, address)

    def _read_batch(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Take a datagram, and the others that wait as well."""
        leg = self._leg
        if leg is None:
            return
        packets: list[bytes] = []
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
        self._hand_over(packets)

    def _take(
        self,
        leg: Leg,
        datagram: memoryview,
        address: tuple[Any, ...],
        packets: list[bytes],
    ) -> None:
        """Decrypt a datagram if it is one of ours; leave others to aioice."""
        content = leg.unwrap(datagram)
        if _is_dtls(content):
            self._decrypt(content, packets)
        else:
            _leave_to_ice(leg, bytes(datagram), address)

    def _data_received(self, data: bytes, component: int) -> None:
        """What aioice took for data: from another socket, or not DTLS."""
        self._run(self._read_one, data, component)

    def _read_one(self, data: bytes, component: int) -> None:
        if _is_dtls(data):
            packets: list[bytes] = []
            self._decrypt(memoryview(data), packets)
            self._hand_over(packets)
        elif data and data[0] > 127:
            # Media (RFC 7983). Nothing else is known, and aiortc trips over nothing.
            Connection.data_received(self._connection, data, component)

    def _decrypt(self, datagram: memoryview | bytes, packets: list[bytes]) -> None:
        """Append what the records of a datagram hold."""
        while len(datagram) > _RECORD_HEADER_BYTES:
            size = _RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
            if size > MAX_RECORD_BYTES:
                return
            record, datagram = datagram[:size], datagram[size:]
            self._ssl.bio_write(record)
            self._read(size, packets)

    def _read(self, size: int, packets: list[bytes]) -> bool:
        """Append the data of one record; False if there is none."""
        try:
            packets.append(self._ssl.recv(size))
            return True
        except SSL.WantReadError:
            # Damaged, replayed, forged, or a part of a handshake that is over.
            self._may_answer = True
        except SSL.Error as error:
            self._may_answer = True
            if self._ssl.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
                self._end("The peer has closed the connection (%r).", error)
        return False

    def _hand_over(self, packets: list[bytes]) -> None:
        if self._may_answer:
            self._may_answer = False
            self._send_answer()
        if packets:
            self._on_packets(packets)

    def _send_answer(self) -> None:
        """Send what DTLS says by itself, before it gets into a packet of ours."""
        try:
            answer = self._ssl.bio_read(MAX_DATAGRAM_BYTES)
        except SSL.WantReadError:
            return
        if self._is_current() and not self._is_waiting:
            self._send_record(answer)

    def _end(self, reason: str, error: SSL.Error) -> None:
        """DTLS has ended: let aiortc's own loop find that out, once."""
        if not self._has_ended:
            self._has_ended = True
            logger.info(reason, error)
            self._connection._queue.put_nowait(None)

    # -- out ---------------------------------------------------------------------------

    def send(self, packets: Sequence[bytes]) -> None:
        """Encrypt and send packets; those that cannot be sent are lost.

        Raises:
            UnknownPath: they travel in a way now that is not known here.
        """
        leg = self._follow()
        if leg is None or self._has_ended:
            return
        begin, count = 0, len(packets)
        while begin < count:
            size = len(packets[begin])
            end = begin + 1
            most = begin + leg.max_segments(size + RECORD_OVERHEAD_BYTES)
            while end < min(most, count) and len(packets[end]) == size:
                end += 1
            records = self._encrypt(packets[begin:end])
            if not records:
                return
            self._send_records(leg, records, end - begin)
            begin = end

    def _encrypt(self, packets: Sequence[bytes]) -> bytes:
        """Return the records of packets of one size; nothing where DTLS has ended."""
        size = len(packets[0])
        try:
            for packet in packets:
                self._ssl.send(packet)
            records = self._ssl.bio_read((size + RECORD_OVERHEAD_BYTES) * len(packets))
        except SSL.WantReadError:
            return b""
        except SSL.Error as error:
            self._end("The connection takes no more packets (%r).", error)
            return b""
        self._overhead_bytes = len(records) // len(packets) - size
        return records

    def _send_records(self, leg: Leg, records: bytes, count: int) -> None:
        """Send records, most often of one size, or let them wait."""
        size = len(records) // count
        if count > 1 and size * count == len(records) and not self._is_waiting:
            try:
                if leg.send_segments(records, size):
                    return
            except (BlockingIOError, InterruptedError):
                self._wait(leg)
        for record in _split(records) if count > 1 else (records,):
            if not self._is_waiting and not self._send_record(record):
                self._wait(leg)
            if self._is_waiting and len(self._unsent) < MAX_UNSENT:
                self._unsent.append(record)

    def _wait(self, leg: Leg) -> None:
        """Go on when the socket has room."""
        self._is_waiting = True
        self._loop.add_writer(leg.socket, self._writable)

    def _send_record(self, record: bytes) -> bool:
        """Send a record; False where the socket takes no more for now."""
        leg = self._leg
        if leg is None:
            return True
        reason: OSError | None = None
        # The first call may report what became of an earlier packet, and not send.
        for _ in range(2):
            try:
                leg.send(record)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                reason = error
            else:
                return True
        if reason is not None and reason.errno == errno.EMSGSIZE:
            self._on_too_large(len(record) - self._overhead_bytes)
        elif reason is not None:
            leg.protocol.error_received(reason)
        return True

    def _writable(self) -> None:
        self._run(self._send_waiting)

    def _send_waiting(self) -> None:
        if not self._is_current():
            self._leave()
            return
        while self._unsent:
            if not self._send_record(self._unsent[0]):
                return
            self._unsent.popleft()
        if self._leg is not None:
            self._loop.remove_writer(self._leg.socket)
        self._is_waiting = False
        self._on_room()


def _leave_to_ice(leg: Leg, datagram: bytes, address: tuple[Any, ...]) -> None:
    try:
        type(leg.protocol).datagram_received(leg.protocol, datagram, address)
    except Exception as error:  # a stranger's bytes, which aioice does not check
        logger.debug("A datagram that cannot be used: %r", error)


def _split(records: bytes) -> Iterator[bytes]:
    """Yield the records, which lie one after the other (RFC 6347 section 4.1)."""
    begin = 0
    while begin < len(records):
        length = int.from_bytes(records[begin + 11 : begin + 13], "big")
        end = begin + _RECORD_HEADER_BYTES + length
        yield records[begin:end]
        begin = end


def _is_dtls(datagram: memoryview | bytes) -> bool:
    """Whether a datagram holds DTLS records (RFC 7983 section 7)."""
    return len(datagram) > _RECORD_HEADER_BYTES and 19 < datagram[0] < 64
