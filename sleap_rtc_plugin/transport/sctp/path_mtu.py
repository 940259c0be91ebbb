"""How large packets may be: tried with padded probes, taken back where they vanish.

Pure (RFC 8899). Sizes are those of whole SCTP packets, before DTLS and UDP. Asked by
`transport.sctp.data_path`.
"""

from typing import Final

__all__ = [
    "BASE_PACKET_BYTES",
    "BASE_PAYLOAD_BYTES",
    "FAST_PEER_PACKET_BYTES",
    "Oversized",
    "PathMtu",
]

# What aiortc sends, and what every path carries: it fits the least IPv6 MTU.
BASE_PACKET_BYTES: Final = 1188
# Of that, 12 bytes are the packet's header and 16 that of a DATA chunk.
BASE_PAYLOAD_BYTES: Final = BASE_PACKET_BYTES - 28
# Ethernet with 1500 bytes: 48 for IPv6 and UDP, 4 for TURN, and 37 for DTLS fit.
ETHERNET_PACKET_BYTES: Final = 1400
# Jumbo frames of 9000 bytes.
JUMBO_PACKET_BYTES: Final = 8900
# A DTLS record holds 16384 bytes (RFC 6347 section 4.1); this machine carries them.
FAST_PEER_PACKET_BYTES: Final = 16_384
_SIZES: Final = (ETHERNET_PACKET_BYTES, JUMBO_PACKET_BYTES, FAST_PEER_PACKET_BYTES)
# RFC 8899 section 5.1.2: MAX_PROBES, PROBE_TIMER and PMTU_RAISE_TIMER.
MAX_PROBES: Final = 3
PROBE_TIMEOUT_S: Final = 1.5
RAISE_INTERVAL_S: Final = 600.0
# What looked like a path with less room may have been an outage.
BLACK_HOLE_REST_S: Final = 30.0
# Chunks that do not even arrive in fragments for so long never will...
STUCK_S: Final = 20.0
# ...if it is not that nothing arrives at all. Peers say something every few seconds.
SILENCE_S: Final = 12.0


class PathMtu:
    """The size of packets on one path.

    Attributes:
        packet_bytes: how large a packet may be.
    """

    def __init__(self, limit_bytes: int = ETHERNET_PACKET_BYTES) -> None:
        """Begin with what every path carries.

        `limit_bytes` is the largest that the peer can read: stock aiortc reads no more
        than 1500 bytes of a DTLS record, and loses step over a longer one.
        """
        self.packet_bytes = BASE_PACKET_BYTES
        self._limit_bytes = limit_bytes
        self._probed_bytes = 0
        self._probe_id = 0
        self._tries = 0
        self._timeout_at: float | None = None
        self._next_at = 0.0

    def raise_limit(self, limit_bytes: int, now: float) -> None:
        """The peer can read larger packets than was known."""
        if limit_bytes > self._limit_bytes:
            self._limit_bytes = limit_bytes
            if self._timeout_at is None:
                self._next_at = now

    def next_probe(self, now: float) -> tuple[int, int] | None:
        """Return the number and the size of a probe to send now, or None."""
        if self._timeout_at is not None:
            if now < self._timeout_at:
                return None
            self._timeout_at = None
            if self._tries >= MAX_PROBES:
                self._rest(now, RAISE_INTERVAL_S)
        if now < self._next_at:
            return None
        size = self._next_size()
        if size is None:
            self._next_at = float("inf")
            return None
        if size != self._probed_bytes:
            self._probed_bytes = size
            self._tries = 0
        self._tries += 1
        self._probe_id += 1
        self._timeout_at = now + PROBE_TIMEOUT_S
        return self._probe_id, size

    def _next_size(self) -> int | None:
        for size in _SIZES:
            if self.packet_bytes < size <= self._limit_bytes:
                return size
        return None

    def _rest(self, now: float, seconds: float) -> None:
        self._tries = 0
        self._timeout_at = None
        self._next_at = now + seconds

    def on_probe_acked(self, probe_id: int, now: float) -> bool:
        """Take the acknowledgement of a probe; True if packets may be larger now."""
        if self._timeout_at is None or probe_id != self._probe_id:
            return False
        self.packet_bytes = self._probed_bytes
        self._timeout_at = None
        self._tries = 0
        self._next_at = now
        return True

    def on_too_large(self, packet_bytes: int, now: float) -> bool:
        """This machine refused to send a packet; True if it was no mere probe."""
        if packet_bytes > self.packet_bytes:
            self._rest(now, RAISE_INTERVAL_S)
            return False
        return self.on_black_hole(now)

    def on_black_hole(self, now: float) -> bool:
        """Large packets vanish: go back; True if they were larger than the base."""
        was_larger = self.packet_bytes > BASE_PACKET_BYTES
        self.packet_bytes = BASE_PACKET_BYTES
        self._rest(now, BLACK_HOLE_REST_S)
        return was_larger

    def on_new_path(self, now: float) -> None:
        """Packets take another path: begin with what every path carries."""
        self.packet_bytes = BASE_PACKET_BYTES
        self._timeout_at = None
        self._tries = 0
        self._next_at = now

    def deadline(self) -> float | None:
        """Return when `next_probe` may have something; None for never."""
        if self._timeout_at is not None:
            return self._timeout_at
        return self._next_at if self._next_at != float("inf") else None


class Oversized:
    """Chunks cut for larger packets than the path carries now; they keep their TSNs.

    They travel in fragments. Where the network drops those, or cannot make them, such
    chunks never arrive, while everything smaller does: that must not go on for ever.
    """

    def __init__(self) -> None:
        """There are none."""
        self._end = 0
        self._acked = 0
        self._since = 0.0
        self._heard_at = 0.0

    def begin(self, next_serial: int, now: float) -> None:
        """Everything before `next_serial` may be too large."""
        self._end = next_serial
        self._since = now

    def is_outstanding(self, acked: int) -> bool:
        """Whether one of them is not acknowledged; `acked` is the cumulative TSN."""
        return acked + 1 < self._end

    def on_heard(self, now: float) -> None:
        """Something came from the peer."""
        if now - self._heard_at >= SILENCE_S:
            self._since = now
        self._heard_at = now

    def is_stuck(self, acked: int, now: float) -> bool:
        """Whether they do not arrive any more, though the peer is heard."""
        if not self.is_outstanding(acked):
            return False
        if acked != self._acked:
            self._acked = acked
            self._since = now
        return now - self._since >= STUCK_S and now - self._heard_at < SILENCE_S
