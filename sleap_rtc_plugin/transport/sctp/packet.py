"""SCTP packets and the chunks of the data path, to bytes and back (RFC 9260 section 3).

Pure. Reads and writes only what the fast path handles itself: DATA, SACK, FORWARD-TSN
(RFC 3758), HEARTBEAT with padding (RFC 4820). Used by `transport.sctp.data_path`.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import Final

from google_crc32c import value as crc32c

__all__ = [
    "CHUNK_HEADER",
    "COMMON_HEADER_BYTES",
    "DATA",
    "DATA_HEADER",
    "DATA_HEADER_BYTES",
    "FIRST_FRAGMENT",
    "FORWARD_TSN",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "INIT",
    "LAST_FRAGMENT",
    "SACK",
    "TSN_MODULO",
    "UNORDERED",
    "Ack",
    "BadPacket",
    "forward_tsn_chunk",
    "heartbeat_chunks",
    "heartbeat_info",
    "iter_chunks",
    "read_ack",
    "read_forward_tsn",
    "sack_chunk",
    "seal",
    "unwrap",
]

TSN_MODULO: Final = 1 << 32

# Chunk types (section 3.2; RFC 3758 section 3.2; RFC 4820 section 3).
DATA: Final = 0
INIT: Final = 1
SACK: Final = 3
HEARTBEAT: Final = 4
HEARTBEAT_ACK: Final = 5
PAD: Final = 0x84
FORWARD_TSN: Final = 192

# Flags of DATA (section 3.3.1).
LAST_FRAGMENT: Final = 0x01
FIRST_FRAGMENT: Final = 0x02
UNORDERED: Final = 0x04

HEARTBEAT_INFO: Final = 1

COMMON_HEADER_BYTES: Final = 12
CHUNK_HEADER: Final = Struct("!BBH")
CHUNK_HEADER_BYTES: Final = CHUNK_HEADER.size
# Type, flags, length, TSN, stream, stream sequence number, payload protocol.
DATA_HEADER: Final = Struct("!BBHLHHL")
DATA_HEADER_BYTES: Final = DATA_HEADER.size
_SACK: Final = Struct("!BBHLLHH")
_ACK: Final = Struct("!LLHH")
_FORWARD: Final = Struct("!BBHL")
_PAIR: Final = Struct("!HH")
_WORD: Final = Struct("!L")
_CHECKSUM: Final = Struct("<L")
_NO_CHECKSUM: Final = bytes(4)

Ack = tuple[int, int, list[tuple[int, int]], list[int]]


class BadPacket(ValueError):
    """Bytes that are no SCTP packet, or not one for this association."""


def unwrap(tsn: int, near: int) -> int:
    """Return the unwrapped TSN nearest to `near` that is `tsn` on the wire."""
    offset = (tsn - near) % TSN_MODULO
    return near + (offset if offset < TSN_MODULO // 2 else offset - TSN_MODULO)


def seal(header: bytes, chunks: bytes) -> bytes:
    """Return the packet of a common header (12 bytes) and chunks, with its checksum.

    The checksum in `header` is taken to be zero (section 6.8).
    """
    return b"".join((header[:8], _CHECKSUM.pack(crc32c(header + chunks)), chunks))


def iter_chunks(packet: bytes, tag: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, flags, and where the chunk begins and ends, without padding.

    Args:
        packet: what DTLS decrypted.
        tag: our verification tag.

    Raises:
        BadPacket: it is damaged, or for another association. Chunks before the damage
            have been yielded: the checksum held, so the sender sent it like that.
    """
    size = len(packet)
    if size < COMMON_HEADER_BYTES + CHUNK_HEADER_BYTES:
        raise BadPacket("too short")
    begin = COMMON_HEADER_BYTES
    checksum = crc32c(b"".join((packet[:8], _NO_CHECKSUM, packet[begin:])))
    if _CHECKSUM.unpack_from(packet, 8)[0] != checksum:
        raise BadPacket("wrong checksum")
    # Only INIT comes with a tag of zero, and alone (section 8.5.1).
    expected = 0 if packet[begin] == INIT else tag
    if _WORD.unpack_from(packet, 4)[0] != expected:
        raise BadPacket("wrong verification tag")
    while begin + CHUNK_HEADER_BYTES <= size:
        kind, flags, length = CHUNK_HEADER.unpack_from(packet, begin)
        end = begin + length
        if length < CHUNK_HEADER_BYTES or end > size:
            raise BadPacket("a chunk of a wrong length")
        yield kind, flags, begin, end
        if expected == 0:
            return
        begin = end + (-length & 3)


# -- SACK (section 3.3.4) --------------------------------------------------------------


def sack_chunk(
    cumulative: int,
    window_bytes: int,
    gaps: Sequence[tuple[int, int]],
    duplicates: Sequence[int],
) -> bytes:
    """Return a SACK.

    Args:
        cumulative: the last TSN before the first gap.
        window_bytes: how much the receiver can still hold.
        gaps: what arrived beyond, each from and to, counted from `cumulative`.
        duplicates: TSNs that arrived once more.
    """
    head = _SACK.pack(
        SACK,
        0,
        _SACK.size + 4 * (len(gaps) + len(duplicates)),
        cumulative % TSN_MODULO,
        window_bytes,
        len(gaps),
        len(duplicates),
    )
    if not gaps and not duplicates:
        return head
    words = [_PAIR.pack(*gap) for gap in gaps]
    words += [_WORD.pack(tsn % TSN_MODULO) for tsn in duplicates]
    return head + b"".join(words)


def read_ack(packet: bytes, begin: int, end: int) -> Ack:
    """Return the cumulative TSN, the window, the gap blocks and the duplicates.

    TSNs are as on the wire; gaps count from the cumulative TSN, as they came.

    Raises:
        BadPacket: it does not hold what it says.
    """
    begin += CHUNK_HEADER_BYTES
    if end - begin < _ACK.size:
        raise BadPacket("a SACK that is too short")
    cumulative, window_bytes, gap_count, duplicate_count = _ACK.unpack_from(
        packet, begin
    )
    begin += _ACK.size
    middle = begin + 4 * gap_count
    if middle + 4 * duplicate_count > end:
        raise BadPacket("a SACK that is too short")
    gaps = list(_PAIR.iter_unpack(packet[begin:middle])) if gap_count else []
    duplicates = (
        [
            word
            for (word,) in _WORD.iter_unpack(
                packet[middle : middle + 4 * duplicate_count]
            )
        ]
        if duplicate_count
        else []
    )
    return cumulative, window_bytes, gaps, duplicates


# -- FORWARD-TSN (RFC 3758 section 3.2) ------------------------------------------------


def forward_tsn_chunk(tsn: int, streams: Iterable[tuple[int, int]]) -> bytes:
    """Return a FORWARD-TSN; `streams` are streams and sequence numbers to skip to."""
    skipped = b"".join(_PAIR.pack(*pair) for pair in streams)
    length = _FORWARD.size + len(skipped)
    return _FORWARD.pack(FORWARD_TSN, 0, length, tsn % TSN_MODULO) + skipped


def read_forward_tsn(
    packet: bytes, begin: int, end: int
) -> tuple[int, list[tuple[int, int]]]:
    """Return the new cumulative TSN, as on the wire, and the streams that skip.

    Raises:
        BadPacket: it is no FORWARD-TSN.
    """
    length = end - begin
    if length < _FORWARD.size or length % 4:
        raise BadPacket("a FORWARD-TSN of a wrong length")
    tsn = _WORD.unpack_from(packet, begin + CHUNK_HEADER_BYTES)[0]
    return tsn, list(_PAIR.iter_unpack(packet[begin + _FORWARD.size : end]))


# -- padded HEARTBEAT (sections 3.3.5, 3.3.6; RFC 4820; RFC 8899 section 6.2) ----------


def heartbeat_chunks(info: bytes, chunk_bytes: int) -> bytes:
    """Return a HEARTBEAT and the PAD chunk that makes both `chunk_bytes` long.

    `info` comes back in the acknowledgement, the padding does not. Both lengths are
    multiples of four.
    """
    length = CHUNK_HEADER_BYTES + 4 + len(info)
    heartbeat = (
        CHUNK_HEADER.pack(HEARTBEAT, 0, length)
        + _PAIR.pack(HEARTBEAT_INFO, 4 + len(info))
        + info
    )
    rest = chunk_bytes - len(heartbeat)
    if rest < CHUNK_HEADER_BYTES:
        return heartbeat
    pad = CHUNK_HEADER.pack(PAD, 0, rest) + bytes(rest - CHUNK_HEADER_BYTES)
    return heartbeat + pad


def heartbeat_info(packet: bytes, begin: int, end: int) -> bytes:
    """Return what a HEARTBEAT-ACK brings back; nothing if that is not ours."""
    begin += CHUNK_HEADER_BYTES
    if end - begin < 4:
        return b""
    kind, length = _PAIR.unpack_from(packet, begin)
    if kind != HEARTBEAT_INFO or begin + length > end:
        return b""
    return packet[begin + 4 : begin + length]
