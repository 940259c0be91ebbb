"""What earlier results left at home, so that no byte of them has to come again.

A chunk store per room in the user's cache folder, open while results are fetched.
Used by `session.remote_job`; a cache that cannot be used is done without.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import platformdirs

from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.room_store import open_room_store, share_of_disk

__all__ = ["result_store"]

LIMIT_BYTES: Final = 5 * GIB
DISK_SHARE: Final = 10


@contextlib.asynccontextmanager
async def result_store(room_id: str) -> AsyncIterator[ChunkStore | None]:
    """Yield the store of a room; None without a room, or where there can be none."""
    opening = asyncio.ensure_future(in_thread(None, _open, room_id))
    store: ChunkStore | None = None
    try:
        # Whoever gives up while it opens must still close it.
        store = await asyncio.shield(opening)
        yield store
    finally:
        if store is None:
            store = await opening
        if store is not None:
            await in_thread(None, store.close)


def _open(room_id: str) -> ChunkStore | None:
    if not room_id:
        return None
    stores = platformdirs.user_cache_path("sleap-remote") / "store"
    try:
        stores.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        limit_bytes = share_of_disk(stores.parent, LIMIT_BYTES, DISK_SHARE)
    except OSError:
        return None
    return open_room_store(
        stores, room_id, limit_bytes=limit_bytes, now=time.time(), place=str(stores)
    )
