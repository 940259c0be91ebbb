"""Datagrams as no peer should send them, made from those that a real one sends.

Nothing here judges: tests put them into the receive path of an established association
and look at what it does. Most have a valid checksum and tag, so that they get deep.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct

from sleap_rtc_plugin.transport.sctp.packet import seal

__all__ = ["DatagramFuzz"]

KEPT_PACKETS = 256
MOST_CHUNKS = 6
LONGEST_BODY = 1500

_HEADER = Struct("!HHLL")
_CHUNK = Struct("!BBH")
_DATA = Struct("!LHHL")
_SACK = Struct("!LLHH")
_WORD = Struct("!L")

DATA, SACK, FORWARD_TSN = 0, 3, 192
HARMLESS_KINDS = (0x84, 0xC1, 0xFF, 0x3F)
"""Padding, and chunks that nobody knows."""
CONTROL_KINDS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130)
"""Setting up, asking, resetting and ending: not the data path's own."""


class DatagramFuzz:
    """Makes datagrams for one end of an association.

    Args:
        rng: all chance.
        tag: the verification tag that this end expects.
        ports: source and destination.
    """

    def __init__(
        self, rng: random.Random, tag: int, ports: tuple[int, int] = (5000, 5000)
    ) -> None:
        self._rng = rng
        self._tag = tag
        self._ports = ports
        self._packets: deque[bytes] = deque(maxlen=KEPT_PACKETS)
        self._near: Callable[[], Sequence[int]] = lambda: (0,)

    def observe(self, packet: bytes) -> None:
        """Remember a packet that the peer really sent."""
        self._packets.append(packet)

    def aim(self, near: Callable[[], Sequence[int]]) -> None:
        """Choose TSNs around those that this names: where the state is."""
        self._near = near

    # -- what changes nothing ----------------------------------------------------------

    def harmless(self) -> bytes:
        """A datagram that an association has to get over without any effect."""
        rng = self._rng
        kind = rng.randrange(5)
        if kind == 0:
            return rng.randbytes(rng.randrange(64))
        if kind == 1 and self._packets:
            return rng.choice(self._packets)
        if kind == 2 and self._packets:
            return self._spoil(rng.choice(self._packets))
        if kind == 3 and self._packets:
            packet = rng.choice(self._packets)
            return packet[: rng.randrange(len(packet))]
        if kind == 4:
            unknown = rng.choice(HARMLESS_KINDS)
            return self._seal(self._chunk(unknown, rng.randbytes(rng.randrange(40))))
        # Another association's.
        return self._seal(self._any_chunk(), tag=self._tag ^ (1 << rng.randrange(32)))

    def _spoil(self, packet: bytes) -> bytes:
        """Invert up to three bits: less than what the checksum always finds."""
        spoilt = bytearray(packet)
        for _ in range(self._rng.randint(1, 3)):
            bit = self._rng.randrange(8 * len(spoilt))
            spoilt[bit // 8] ^= 1 << bit % 8
        return bytes(spoilt)

    # -- what may do anything ----------------------------------------------------------

    def hostile(self) -> bytes:
        """A datagram of a peer that means harm, or is out of its mind."""
        rng = self._rng
        kind = rng.randrange(8)
        if kind == 0:
            return self.harmless()
        if kind <= 2 and self._packets:
            return self._reseal(self._mutate(rng.choice(self._packets)))
        if kind == 3 and self._packets:
            packet = rng.choice(self._packets)
            return self._reseal(packet[: rng.randrange(12, len(packet) + 1)])
        chunks = [self._any_chunk() for _ in range(rng.randint(1, MOST_CHUNKS))]
        if rng.random() < 0.2:
            chunks[-1] = self._with_wrong_length(chunks[-1])
        return self._seal(b"".join(chunks))

    def _mutate(self, packet: bytes) -> bytes:
        rng = self._rng
        mutated = bytearray(packet)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(12, len(mutated))
            mutated[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        return bytes(mutated)

    def _any_chunk(self) -> bytes:
        rng = self._rng
        kind = rng.choice((DATA, DATA, DATA, SACK, SACK, FORWARD_TSN, 5, -1))
        if kind == DATA:
            stream = rng.choice((0, 1, 2, 9, 65534, 65535, rng.randrange(65536)))
            body = _DATA.pack(
                self._tsn(), stream, rng.choice((0, 1, 2, 65535)), rng.choice((51, 53))
            ) + bytes(rng.choice((0, 1, 1, 3, 100, 1160, LONGEST_BODY)))
            return self._chunk(DATA, body, flags=rng.randrange(8))
        if kind == SACK:
            gaps = self._pairs(80)
            duplicates = [self._tsn() for _ in range(rng.choice((0, 0, 0, 2)))]
            window = rng.choice((0, 1, 5000, 1 << 20, 0xFFFFFFFF))
            body = _SACK.pack(self._tsn(), window, len(gaps) // 4, len(duplicates))
            return self._chunk(
                SACK, body + gaps + b"".join(map(_WORD.pack, duplicates))
            )
        if kind == FORWARD_TSN:
            return self._chunk(FORWARD_TSN, _WORD.pack(self._tsn()) + self._pairs(10))
        if kind == 5:
            info = b"size" + _WORD.pack(rng.randrange(4))
            return self._chunk(5, _pair(1, 4 + len(info)) + info)
        return self._chunk(rng.choice(HARMLESS_KINDS), rng.randbytes(rng.randrange(60)))

    def _pairs(self, below: int) -> bytes:
        """Gap blocks or skipped streams: a few that are likely, or many of chance."""
        rng = self._rng
        count = rng.choice((0, 0, 1, 1, 3, 300))
        if count > 3:
            return rng.randbytes(4 * count)
        pairs = (
            _pair(*sorted((rng.randrange(below), rng.choice((1, below, 65535)))))
            for _ in range(count)
        )
        return b"".join(pairs)

    def control(self) -> bytes:
        """A packet with one chunk that is aiortc's to take, with a body of chance."""
        rng = self._rng
        kind = rng.choice(CONTROL_KINDS)
        body = rng.randbytes(rng.choice((0, 1, 4, 7, 16, 20, 60)))
        return self._seal(self._chunk(kind, body), tag=0 if kind == 1 else None)

    def _tsn(self) -> int:
        rng = self._rng
        if rng.random() < 0.05:
            return rng.getrandbits(32)
        near = rng.choice(self._near())
        reach = rng.choice((2, 2, 40, 40, 3000, 70_000))
        return (near + rng.randint(-reach, reach)) % (1 << 32)

    def _with_wrong_length(self, chunk: bytes) -> bytes:
        length = self._rng.choice((0, 3, 4, len(chunk) + 1, 0xFFFF))
        return chunk[:2] + length.to_bytes(2, "big") + chunk[4:]

    def _chunk(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        length = 4 + len(body)
        return _CHUNK.pack(kind, flags, length) + body + bytes(-length & 3)

    def _reseal(self, packet: bytes) -> bytes:
        """The same with a right header and checksum."""
        return self._seal(packet[12:])

    def _seal(self, chunks: bytes, tag: int | None = None) -> bytes:
        tag = self._tag if tag is None else tag
        return seal(_HEADER.pack(*self._ports, tag, 0), chunks)


def _pair(first: int, second: int) -> bytes:
    return first.to_bytes(2, "big") + second.to_bytes(2, "big")
