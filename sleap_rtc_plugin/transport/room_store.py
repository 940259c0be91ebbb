"""One chunk store per room below one folder, and together below one limit.

What one room sent is never found from another, so each has a folder of its own. Used by
the worker for packages and by the client for results. Blocking calls.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc_plugin.transport.chunk_store import ChunkStore

__all__ = ["open_room_store", "share_of_disk"]

# The stores of rooms that are not used now: how long, and how much of the limit.
ROOM_IDLE_S: Final = 90 * 24 * 3600.0
OTHER_ROOMS_SHARE: Final = 2
_ROOM_NAME_BYTES: Final = 16


def share_of_disk(folder: Path, limit_bytes: int, share: int) -> int:
    """Return `limit_bytes`, but no more than one `share`-th of the disk of `folder`.

    Raises:
        OSError: the disk does not say.
    """
    return min(limit_bytes, shutil.disk_usage(folder).total // share)


def open_room_store(
    stores: Path, room_id: str, *, limit_bytes: int, now: float, place: str
) -> ChunkStore:
    """Open or make the store of a room; remove those of rooms long gone.

    Args:
        stores: holds a folder per room, named by a digest of its id; made when needed.
        room_id: the room that is used from now on.
        limit_bytes: what all stores may take together.
        now: Unix seconds.
        place: what the log calls it.
    """
    name = blake3(room_id.encode()).hexdigest(length=_ROOM_NAME_BYTES)
    others_bytes = 0
    # A folder that cannot be used is the store's to tell.
    with contextlib.suppress(OSError):
        stores.mkdir(mode=0o700, exist_ok=True)
        (stores / name).mkdir(mode=0o700, exist_ok=True)
        os.utime(stores / name, (now, now))
        others_bytes = _clear_other_rooms(
            stores, name, limit_bytes // OTHER_ROOMS_SHARE, now
        )
    store = ChunkStore(stores / name, max_bytes=limit_bytes - others_bytes, place=place)
    store.trim(now)
    return store


def _clear_other_rooms(stores: Path, name: str, limit_bytes: int, now: float) -> int:
    """Remove stores of rooms but `name`; return the bytes of those that stay."""
    rooms = sorted(
        (folder.lstat().st_mtime, folder)
        for folder in stores.iterdir()
        if folder.name != name and folder.is_dir() and not folder.is_symlink()
    )
    left_bytes = limit_bytes
    for used_at, folder in reversed(rooms):
        size_bytes = sum(path.lstat().st_size for path in folder.rglob("*"))
        if now - used_at > ROOM_IDLE_S or size_bytes > left_bytes:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            left_bytes -= size_bytes
    return limit_bytes - left_bytes
