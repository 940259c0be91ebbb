"""The clocks and the one executor call that the drivers use.

Machines take time as an argument; this is where it comes from. Monotonic seconds,
which a change of the wall clock does not touch; the wall clock only shows that this
computer slept.
"""

import asyncio
import errno
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from sleap_rtc_plugin.protocol.errors import DiskFull, RtcError, StorageFailed
from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["in_thread", "monotonic", "storage_error", "wall_clock"]

P = ParamSpec("P")
T = TypeVar("T")

monotonic = time.monotonic
wall_clock = time.time


async def in_thread(
    executor: ThreadPoolExecutor | None,
    function: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a blocking call in a thread."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, lambda: function(*args, **kwargs))


def storage_error(
    error: OSError, path: Path, needed_bytes: int = 0, place: str | None = None
) -> RtcError:
    """Return the words for what the operating system said about `path`.

    `place` is what the user knows the path by, where that is not the path itself.
    """
    name = place or str(path)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        try:
            free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        except OSError:
            free = 0
        return DiskFull(
            place=name,
            needed=f"{max(needed_bytes, 1) / MIB:.1f} MiB",
            free=f"{free / MIB:.1f} MiB",
        )
    return StorageFailed(place=name, reason=error.strerror or str(error))
