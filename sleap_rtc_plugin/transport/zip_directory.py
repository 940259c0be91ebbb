"""Reads the end of a zip before anybody trusts the rest of it.

Python's `zipfile` loads the whole central directory at once, however many members it
claims; this module looks at the fixed-size records behind it first. Called by whoever
opens a zip that came from somewhere else; knows nothing of packages or checkpoints.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

__all__ = ["LOCAL_HEADER_BYTES", "EndRecord", "read_end_record"]

# APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.14, 4.3.15 and 4.3.16.
LOCAL_HEADER_BYTES: Final = 30
_END: Final = struct.Struct("<4s4H2LH")
_END_MAGIC: Final = b"PK\x05\x06"
_LOCATOR: Final = struct.Struct("<4sLQL")
_LOCATOR_MAGIC: Final = b"PK\x06\x07"
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC: Final = b"PK\x06\x06"
_MAX_COMMENT_BYTES: Final = 0xFFFF


@dataclass(frozen=True)
class EndRecord:
    """What the end of a zip says about its central directory.

    Attributes:
        members: how many there are.
        directory_bytes: the directory's size.
        directory_offset: where it begins, in bytes, as the record claims.
        end_offset: where the (first) end record begins, in bytes from the file's start.
        comment_bytes: the size of the comment behind the end record.
    """

    members: int
    directory_bytes: int
    directory_offset: int
    end_offset: int
    comment_bytes: int

    @property
    def is_exact(self) -> bool:
        """Tell whether every reader must find the same directory in this zip.

        Bytes in front of the zip or a comment behind it leave room for two zips in one
        file, of which different programs see different ones.
        """
        ends_at = self.directory_offset + self.directory_bytes
        return ends_at == self.end_offset and self.comment_bytes == 0


def read_end_record(file: BinaryIO) -> EndRecord | None:
    """Return the end record of a zip, found as `zipfile` finds it; None if none.

    Args:
        file: open for reading bytes, seekable; its position is changed.

    Raises:
        OSError: the file cannot be read.
    """
    size = file.seek(0, os.SEEK_END)
    tail_bytes = min(size, _MAX_COMMENT_BYTES + _END.size)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    start = tail.rfind(_END_MAGIC)
    plain = len(tail) - _END.size
    if plain >= 0 and tail[plain : plain + 4] == _END_MAGIC and tail.endswith(b"\0\0"):
        start = plain
    if start < 0 or len(tail) - start < _END.size:
        return None
    _, _, _, _, members, directory_bytes, directory_offset, comment_bytes = (
        _END.unpack_from(tail, start)
    )
    record = EndRecord(
        members=members,
        directory_bytes=directory_bytes,
        directory_offset=directory_offset,
        end_offset=size - tail_bytes + start,
        comment_bytes=comment_bytes,
    )
    return _read_zip64(file, record) or record


def _read_zip64(file: BinaryIO, record: EndRecord) -> EndRecord | None:
    """Return the larger record that a zip64 has in front of the plain one."""
    locator_offset = record.end_offset - _LOCATOR.size
    end64_offset = locator_offset - _END64.size
    if end64_offset < 0:
        return None
    file.seek(end64_offset)
    block = file.read(_END64.size + _LOCATOR.size)
    if block[_END64.size : _END64.size + 4] != _LOCATOR_MAGIC:
        return None
    if block[:4] != _END64_MAGIC:
        return None
    fields = _END64.unpack_from(block)
    return EndRecord(
        members=fields[7],
        directory_bytes=fields[8],
        directory_offset=fields[9],
        end_offset=end64_offset,
        comment_bytes=record.comment_bytes,
    )
