"""Which files are a training's validation images, decided from name and bytes.

sleap-nn draws them as PNG (ISO/IEC 15948) into the run's folder `viz`. The worker
asks whether one is whole yet, the client whether what arrived may be shown: pixels
are counted from the header, so nothing here decodes any.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from sleap_rtc_plugin.protocol.limits import (
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIDE_PIXELS,
)

__all__ = ["IMAGES_FOLDER", "image_fault", "is_image_name"]

IMAGES_FOLDER: Final = "viz"
# `validation.0003.png`, and for bottom-up models `train.pafs_magnitude.0003.png`.
_NAME: Final = re.compile(r"(?:validation|train)(?:\.[a-z0-9_]{1,40}){1,3}\.png\Z")
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = struct.Struct(">I4s")
_CRC: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIBBBBB")
# What matplotlib writes; not among them are animations and compressed texts, whose
# size no header tells.
_KNOWN_CHUNKS: Final = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"sRGB", b"pHYs", b"tEXt"}
)


def is_image_name(name: str) -> bool:
    """Tell whether a file name is one that sleap-nn gives its images."""
    return _NAME.match(name) is not None


def image_fault(data: bytes) -> str | None:
    """Say why `data` is no whole image of a harmless size, or None where it is.

    The words complete the sentence "validation.0003.png …".
    """
    if len(data) > MAX_IMAGE_BYTES:
        return f"has more than {MAX_IMAGE_BYTES} bytes"
    kinds: list[bytes] = []
    for kind, body in _chunks(data):
        if kind not in _KNOWN_CHUNKS:
            return "holds what no such image holds"
        if not kinds:
            fault = _header_fault(kind, body)
            if fault:
                return fault
        kinds.append(kind)
    if b"IDAT" not in kinds or kinds[-1] != b"IEND":
        return "is not a whole PNG image"
    return None


def _header_fault(kind: bytes, body: bytes) -> str | None:
    if kind != b"IHDR" or len(body) != _HEADER.size:
        return "is not a PNG image"
    width, height, *_ = _HEADER.unpack(body)
    if not (
        0 < width <= MAX_IMAGE_SIDE_PIXELS
        and 0 < height <= MAX_IMAGE_SIDE_PIXELS
        and width * height <= MAX_IMAGE_PIXELS
    ):
        return f"has {width} x {height} pixels"
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks up to the first that is torn, damaged or the end.

    A file with something behind its end yields that as a chunk of no known kind.
    """
    if not data.startswith(_SIGNATURE):
        return
    at = len(_SIGNATURE)
    while at + _CHUNK.size <= len(data):
        size, kind = _CHUNK.unpack_from(data, at)
        end = at + _CHUNK.size + size
        if end + _CRC.size > len(data):
            return
        (crc,) = _CRC.unpack_from(data, end)
        if zlib.crc32(data[at + 4 : end]) != crc:
            return
        yield kind, data[at + _CHUNK.size : end]
        at = end + _CRC.size
        if kind == b"IEND":
            if at < len(data):
                yield b"", data[at:]
            return
