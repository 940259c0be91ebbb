"""The binary frames of the transfer channel: a piece of a chunk, or many small chunks.

Both begin with sixteen bytes, big-endian: version (8 bits), flags (8), reserved (16),
stream (32), chunk number (32), offset inside the chunk (32). Then come the bytes, or
chunk after chunk with its number (32) and size (32). Pure; used by the transfer pump.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    FRAGMENT_BYTES,
    MAX_PACKED_CHUNK_BYTES,
    MAX_PACKED_CHUNKS,
    MAX_TRANSFER_FRAME_BYTES,
)

__all__ = [
    "FLAG_MANIFEST",
    "FLAG_PACKED",
    "HEADER_BYTES",
    "PACKED_HEADER_BYTES",
    "Fragment",
    "Pack",
    "decode_frame",
    "encode_fragment",
    "encode_pack",
    "fragments_of",
]

_HEADER: Final = struct.Struct("!BBHIII")
_PACKED_HEADER: Final = struct.Struct("!II")
_VERSION: Final = 1
HEADER_BYTES: Final = _HEADER.size
PACKED_HEADER_BYTES: Final = _PACKED_HEADER.size
FLAG_MANIFEST: Final = 0x01
FLAG_PACKED: Final = 0x02


class Fragment(NamedTuple):
    """A piece of a chunk, or of the manifest itself where `is_manifest` is set."""

    stream: int
    chunk: int
    offset: int
    data: bytes
    is_manifest: bool


class Pack(NamedTuple):
    """Small chunks of one stream, each whole: their numbers and their bytes."""

    stream: int
    chunks: tuple[tuple[int, bytes], ...]


def encode_fragment(fragment: Fragment) -> bytes:
    """Return the frame for one fragment."""
    flags = FLAG_MANIFEST if fragment.is_manifest else 0
    header = _HEADER.pack(
        _VERSION, flags, 0, fragment.stream, fragment.chunk, fragment.offset
    )
    return header + fragment.data


def encode_pack(pack: Pack) -> bytes:
    """Return the frame for small chunks that travel together."""
    parts = [_HEADER.pack(_VERSION, FLAG_PACKED, 0, pack.stream, 0, 0)]
    for number, data in pack.chunks:
        parts += [_PACKED_HEADER.pack(number, len(data)), data]
    return b"".join(parts)


def decode_frame(frame: bytes | str) -> Fragment | Pack:
    """Read one frame of the transfer channel.

    Raises:
        RemoteProtocolError: text, too short or long, of another version, or packed in
            a way that does not add up.
    """
    if isinstance(frame, str):
        raise RemoteProtocolError(detail="a text frame on the transfer channel")
    if not HEADER_BYTES < len(frame) <= MAX_TRANSFER_FRAME_BYTES:
        raise RemoteProtocolError(detail=f"a transfer frame of {len(frame)} bytes")
    version, flags, reserved, stream, chunk, offset = _HEADER.unpack_from(frame)
    if version != _VERSION or reserved:
        raise RemoteProtocolError(detail="a transfer frame of another version")
    if flags == FLAG_PACKED and chunk == offset == 0:
        return Pack(stream, tuple(_unpack(frame)))
    if flags & ~FLAG_MANIFEST:
        raise RemoteProtocolError(detail="a transfer frame of another version")
    return Fragment(
        stream, chunk, offset, frame[HEADER_BYTES:], bool(flags & FLAG_MANIFEST)
    )


def _unpack(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks of a packed frame."""
    at = HEADER_BYTES
    for _ in range(MAX_PACKED_CHUNKS):
        if len(frame) - at < PACKED_HEADER_BYTES:
            break
        number, size_bytes = _PACKED_HEADER.unpack_from(frame, at)
        at += PACKED_HEADER_BYTES
        if not 0 < size_bytes <= min(MAX_PACKED_CHUNK_BYTES, len(frame) - at):
            break
        yield number, frame[at : at + size_bytes]
        at += size_bytes
        if at == len(frame):
            return
    raise RemoteProtocolError(detail="a packed frame that does not add up")


def fragments_of(
    stream: int,
    chunk: int,
    data: bytes,
    *,
    is_manifest: bool = False,
    fragment_bytes: Callable[[], int] | None = None,
) -> Iterator[bytes]:
    """Cut a chunk into the frames that carry it, in order, as they are taken.

    `fragment_bytes` is asked before each cut how much a frame should carry.
    """
    offset = 0
    while offset < len(data):
        end = offset + (fragment_bytes() if fragment_bytes else FRAGMENT_BYTES)
        piece = Fragment(stream, chunk, offset, data[offset:end], is_manifest)
        yield encode_fragment(piece)
        offset = end
