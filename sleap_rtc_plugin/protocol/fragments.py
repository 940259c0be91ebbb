"""The binary frames of the transfer channel: a fixed header and a piece of a chunk.

Sixteen bytes, big-endian: version (8 bits), flags (8), reserved (16), stream (32),
chunk number (32), offset inside the chunk (32); then the bytes. Pure; used
by the transfer sender and receiver.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from sleap_rtc_plugin.protocol.errors import RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import FRAGMENT_BYTES, MAX_TRANSFER_FRAME_BYTES

__all__ = [
    "FLAG_MANIFEST",
    "HEADER_BYTES",
    "Fragment",
    "decode_fragment",
    "encode_fragment",
    "fragments_of",
]

_HEADER: Final = struct.Struct("!BBHIII")
_VERSION: Final = 1
HEADER_BYTES: Final = _HEADER.size
FLAG_MANIFEST: Final = 0x01


class Fragment(NamedTuple):
    """A piece of a chunk, or of the manifest itself where `is_manifest` is set."""

    stream: int
    chunk: int
    offset: int
    data: bytes
    is_manifest: bool


def encode_fragment(fragment: Fragment) -> bytes:
    """Return the frame for one fragment."""
    flags = FLAG_MANIFEST if fragment.is_manifest else 0
    header = _HEADER.pack(
        _VERSION, flags, 0, fragment.stream, fragment.chunk, fragment.offset
    )
    return header + fragment.data


def decode_fragment(frame: bytes | str) -> Fragment:
    """Read one frame of the transfer channel.

    Raises:
        RemoteProtocolError: text, too short or long, or of another version.
    """
    if isinstance(frame, str):
        raise RemoteProtocolError(detail="a text frame on the transfer channel")
    if not HEADER_BYTES < len(frame) <= MAX_TRANSFER_FRAME_BYTES:
        raise RemoteProtocolError(detail=f"a transfer frame of {len(frame)} bytes")
    version, flags, reserved, stream, chunk, offset = _HEADER.unpack_from(frame)
    if version != _VERSION or flags & ~FLAG_MANIFEST or reserved:
        raise RemoteProtocolError(detail="a transfer frame of another version")
    return Fragment(
        stream, chunk, offset, frame[HEADER_BYTES:], bool(flags & FLAG_MANIFEST)
    )


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
