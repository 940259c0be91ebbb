"""PNG images made by hand, sound ones and traps, without a library that draws."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def header(width: int, height: int) -> bytes:
    """A gray image's IHDR."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png(
    shade: int = 0, *, width: int = 4, height: int = 3, extra: bytes = b""
) -> bytes:
    """A whole gray image; `extra` are chunks before its pixels."""
    rows = (b"\x00" + bytes([shade]) * width) * height
    return (
        SIGNATURE
        + header(width, height)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def bomb(width: int = 100_000, height: int = 100_000) -> bytes:
    """A few bytes that a viewer would make gigabytes of."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return SIGNATURE + header(width, height) + pixels + chunk(b"IEND", b"")
