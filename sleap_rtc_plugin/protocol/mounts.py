"""What makes a file of the client's the same as one on a worker's mount.

Names, places and samples, decided without touching a disk. Called by the worker, which
looks, and by the client, which asks and remembers.
"""

import re
from typing import Final

from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_MOUNT_ENTRY_CHARS,
    MAX_MOUNT_NAME_CHARS,
    MAX_MOUNT_PATH_CHARS,
    MAX_MOUNT_PATH_DEPTH,
    SAMPLE_BYTES,
)

__all__ = [
    "VIDEO_HEAD_BYTES",
    "VIDEO_SUFFIXES",
    "client_parts",
    "entry_fault",
    "is_mount_name",
    "is_video_container",
    "place_fault",
    "sample_ranges",
    "suffixes",
]

# What sleap-io opens with a video decoder.
VIDEO_SUFFIXES: Final = (".mp4", ".avi", ".mov", ".mj2", ".mkv")
VIDEO_HEAD_BYTES: Final = 12
_MOUNT_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_MOUNT_NAME_CHARS}}}\Z")
_DRIVE: Final = re.compile(r"[A-Za-z]:\Z")
# The first box of an MP4, QuickTime or Motion JPEG 2000 file.
_MP4_BOXES: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"jP  "}
)
_MATROSKA: Final = b"\x1a\x45\xdf\xa3"


def is_mount_name(name: str) -> bool:
    """Tell whether a mount may be called so."""
    return _MOUNT_NAME.match(name) is not None


def entry_fault(name: str) -> str | None:
    """Say why a name cannot be one in a folder of a mount, or None where it can.

    Wider than the rules for packages: a worker's own files may have colons.
    """
    if name in ("", ".", ".."):
        return "leads out of its folder"
    if len(name) > MAX_MOUNT_ENTRY_CHARS:
        return f"has a name longer than {MAX_MOUNT_ENTRY_CHARS} characters"
    if "/" in name or "\\" in name or clean_text(name, len(name)) != name.strip(" "):
        return "has a character that cannot be shown"
    return None


def place_fault(path: str) -> str | None:
    """Say why a path cannot be one below a mount, or None where it can.

    The empty path is the mount itself. The words complete "the path …".
    """
    if not path:
        return None
    if len(path) > MAX_MOUNT_PATH_CHARS:
        return f"is longer than {MAX_MOUNT_PATH_CHARS} characters"
    parts = path.split("/")
    if len(parts) > MAX_MOUNT_PATH_DEPTH:
        return f"is nested deeper than {MAX_MOUNT_PATH_DEPTH} folders"
    if _DRIVE.match(parts[0]):
        return "is an absolute path"
    return next((fault for part in parts if (fault := entry_fault(part))), None)


def client_parts(path: str) -> tuple[str, ...]:
    """Return the folders and the name of a client's path, of whatever system it is.

    Empty where the path goes back up or holds what no file of a mount is called.
    """
    parts = [
        part for part in path.replace("\\", "/").split("/") if part not in ("", ".")
    ]
    if parts and _DRIVE.match(parts[0]):
        del parts[0]
    if len(parts) > MAX_MOUNT_PATH_DEPTH or any(map(entry_fault, parts)):
        return ()
    return tuple(parts)


def suffixes(path: str) -> list[str]:
    """Return the ends of a client's path that may be places, the longest first."""
    parts = client_parts(path)
    return ["/".join(parts[start:]) for start in range(len(parts))]


def sample_ranges(size_bytes: int) -> list[tuple[int, int]]:
    """Return which stretches of a file are compared: offset and length in bytes.

    The first, the middle and the last `SAMPLE_BYTES`; all of a file that is smaller
    than the three together.
    """
    if size_bytes <= 3 * SAMPLE_BYTES:
        return [(0, size_bytes)] if size_bytes else []
    middle = (size_bytes - SAMPLE_BYTES) // 2
    return [(offset, SAMPLE_BYTES) for offset in (0, middle, size_bytes - SAMPLE_BYTES)]


def is_video_container(head: bytes) -> bool:
    """Tell from a file's first `VIDEO_HEAD_BYTES` whether it is a video by itself.

    Decoders also take lists of other files and addresses for videos; a worker opens
    nothing that is not known to hold its own images.
    """
    return (
        head[4:8] in _MP4_BOXES
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
        or head.startswith(_MATROSKA)
    )
