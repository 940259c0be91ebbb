"""The hidden folder in which a job's results arrive before they go to their places.

One program at a time has it: the same command, run twice at once, brings the same
results to the same folder. The second waits and finds them there.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

from sleap_rtc_plugin.transport.effects import in_thread, storage_error
from sleap_rtc_plugin.transport.file_lock import try_lock

__all__ = ["INCOMING_FOLDER", "incoming_folder", "remove_incoming"]

INCOMING_FOLDER: Final = ".sleap-remote"
LOCK_RETRY_S: Final = 0.1


@contextlib.asynccontextmanager
async def incoming_folder(output: Path, job_id: str) -> AsyncIterator[Path]:
    """Have the folder of a job below `output` to ourselves; it may not exist yet.

    What is in it stays when the work in it fails, and the next call goes on with it.

    Raises:
        DiskFull: there is no room.
        StorageFailed: the disk failed.
    """
    incoming = output / INCOMING_FOLDER / job_id
    lock = incoming.with_name(f"{job_id}.lock")
    try:
        # Another program has no event of ours to set.
        while (held := await in_thread(None, _try_take, lock)) is None:  # noqa: ASYNC110
            await asyncio.sleep(LOCK_RETRY_S)
    except OSError as error:
        raise storage_error(error, incoming.parent) from error
    try:
        yield incoming
    finally:
        with contextlib.suppress(OSError):
            # Whoever waits for it sees that it is gone, and makes another.
            lock.unlink()
        held.close()
        with contextlib.suppress(OSError):
            # Unless something is still in it, of this job or of another.
            incoming.parent.rmdir()


def remove_incoming(incoming: Path) -> None:
    """Remove what the import left."""
    shutil.rmtree(incoming, ignore_errors=True)


def _try_take(lock: Path) -> BinaryIO | None:
    """Take the lock; None where another program has it, or has just let it go."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = lock.open("ab")
    except FileNotFoundError:
        # The folder went between the two lines: the other program is done.
        return None
    if try_lock(file.fileno()) and _is_at(file, lock):
        return file
    file.close()
    return None


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one that has the name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
