"""The worker's sign of life: a small file in its data folder, touched while it lives.

The worker's event loop beats it, so that a loop that hangs shows; whoever watches (the
check of a container, systemd, a person) asks `sleap-remote worker --health`, which
imports nothing heavy and opens no connection. The time is the file's own: touching
needs no room on a full disk.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.transport.effects import in_thread, wall_clock
from sleap_rtc_worker.limits import (
    HEALTH_INTERVAL_S,
    HEALTH_STALE_S,
    MAX_HEALTH_BYTES,
)

__all__ = ["Health", "HealthFile", "Seen", "read_health", "verdict"]

_FILE: Final = "health.json"


class Health(Struct, frozen=True, kw_only=True):
    """What the worker says of itself.

    Attributes:
        status: how it is, as the room sees it.
        has_entered: whether it has been in its room since it started.
        running_jobs: how many jobs run.
        queue_length: how many wait.
    """

    status: str
    has_entered: bool = False
    running_jobs: int = 0
    queue_length: int = 0


@dataclass(frozen=True)
class Seen:
    """What lies in the folder.

    Attributes:
        health: what the worker said last.
        beaten_at: when it last showed that it lives (Unix seconds).
    """

    health: Health
    beaten_at: float


class HealthFile:
    """The file, as the worker writes it.

    Args:
        data_dir: the worker's data folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / _FILE
        self._written: Health | None = None

    async def keep(self, health: Callable[[], Health]) -> None:
        """Beat until cancelled.

        Args:
            health: what is to be said, asked for on the event loop.
        """
        while True:
            # A folder on a network that hangs must not hang the loop.
            await in_thread(None, self.beat, health(), wall_clock())
            await asyncio.sleep(HEALTH_INTERVAL_S)

    def beat(self, health: Health, now: float) -> None:
        """Say how the worker is, or at least that it lives; never raises for the disk.

        Args:
            health: what to say.
            now: Unix seconds.
        """
        if health != self._written:
            new = self._path.with_suffix(".new")
            with contextlib.suppress(OSError):
                new.write_bytes(msgspec.json.encode(health))
                new.replace(self._path)
                self._written = health
        with contextlib.suppress(OSError):
            os.utime(self._path, (now, now))

    def remove(self) -> None:
        """Leave nothing: a worker that ended is no worker that hangs."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_health(data_dir: Path) -> Seen | None:
    """Return what the worker on a folder said last, or None where that is unknown."""
    try:
        with (data_dir / _FILE).open("rb") as file:
            beaten_at = os.fstat(file.fileno()).st_mtime
            health = msgspec.json.decode(file.read(MAX_HEALTH_BYTES), type=Health)
    except (OSError, msgspec.DecodeError):
        return None
    return Seen(health, beaten_at)


def verdict(seen: Seen | None, now: float) -> tuple[bool, str]:
    """Say whether a worker lives, and how it is, in one sentence.

    A worker whose server is away lives: its jobs go on, and it comes back by itself.

    Args:
        seen: what lies in its folder.
        now: Unix seconds.
    """
    if seen is None:
        return False, "No worker runs on this folder, or it has just been started."
    silent_s = now - seen.beaten_at
    if abs(silent_s) > HEALTH_STALE_S:
        return False, (
            f"The worker has shown no sign of life for {abs(silent_s):.0f} s; "
            "restart it: its jobs go on from their last checkpoints."
        )
    health = seen.health
    room = "in its room" if health.has_entered else "not in its room yet"
    return True, (
        f"The worker is {health.status} and {room}; "
        f"jobs running: {health.running_jobs}, waiting: {health.queue_length}."
    )
