"""The few ways in which the files of a step are read and written.

A file is replaced as a whole, or grows by whole lines; a reader therefore never
sees half of anything but a last line that a full disk has torn.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

__all__ = ["append_line", "read_bounded", "replace_file"]


def read_bounded(path: Path, limit: int) -> bytes | None:
    """Return a file's bytes, or None where it is missing or longer than `limit`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


def replace_file(
    path: Path, data: bytes, *, durable: bool = False, mode: int | None = None
) -> None:
    """Put `data` in the place of a file at once.

    Args:
        path: the file.
        data: all of its new bytes.
        durable: also wait until the disk has it, and its name.
        mode: its permissions; without, only its owner may read it.

    Raises:
        OSError: it could not be written; the old file is still there.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if mode is not None:
            Path(name).chmod(mode)
        _swap(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    if durable and sys.platform != "win32":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _swap(name: str, path: Path) -> None:
    # On Windows a reader that has the old file open makes the replacement fail for
    # the moment that it reads.
    for _ in range(20 if sys.platform == "win32" else 0):
        with contextlib.suppress(PermissionError):
            Path(name).replace(path)
            return
    Path(name).replace(path)


def append_line(path: Path, line: bytes, *, after_torn: bool = False) -> None:
    """Append one line and hand it to the system.

    Args:
        path: the file, made where it is missing.
        line: its bytes, the newline included.
        after_torn: the last append failed, so a line may be unfinished.

    Raises:
        OSError: the line was not, or only partly, written.
    """
    data = b"\n" + line if after_torn else line
    handle = os.open(
        path,
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0),
        0o600,
    )
    try:
        written = os.write(handle, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")
    finally:
        os.close(handle)
