"""A wide-area path between two network namespaces, as a process of its own.

Reads its task as one JSON line on stdin, answers with where the namespaces are, and
forwards packets between them until stdin ends, as it does when whoever started it is
gone. It then tells what it did. Started by `bench.wan_process`.
"""

import contextlib
import os
import select
import signal
import sys
import time
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.namespaces import (
    Namespace,
    NotPermitted,
    Tun,
    new_networks,
)
from sleap_rtc_plugin.bench.path_spec import PathSpec
from sleap_rtc_plugin.bench.wan_path import WanPath

__all__ = ["WanFigures", "WanReady", "WanTask"]

# Packets are forwarded this often while there are any; a call each would cost a core.
_TICK_S: Final = 0.000_3
_BATCH_PACKETS: Final = 128
_NICENESS: Final = -10


class WanTask(Struct):
    """The path, and the seed of its losses."""

    spec: PathSpec
    seed: int


class WanReady(Struct):
    """Where both ends are; or none, with the reason."""

    ends: tuple[Namespace, Namespace] | None
    reason: str = ""


class WanFigures(Struct):
    """What the path did, both ways together."""

    seconds: float
    cpu_s: float
    taken: int
    lost: int
    overflowed: int


def _forward(tuns: tuple[Tun, Tun], paths: tuple[WanPath, WanPath]) -> None:
    """Carry packets until stdin ends."""
    near, far = tuns
    there, back = paths
    ways = ((near, there, far), (far, back, near))
    files = [sys.stdin.fileno(), near.fd, far.fd]
    wait_s: float | None = None
    while True:
        ready, _, _ = select.select(files, [], [], wait_s)
        if files[0] in ready:
            return
        now = time.monotonic()
        for begin, path, end in ways:
            path.take(begin.read(_BATCH_PACKETS), now)
            end.write(path.due(now))
        dues = [path.next_due for _, path, _ in ways if path.next_due is not None]
        wait_s = max(0.0, min(dues) - now) if dues else None
        if ready or dues:
            time.sleep(_TICK_S)
            wait_s = None if wait_s is None else max(0.0, wait_s - _TICK_S)


def main() -> None:
    """Carry out the task on stdin."""
    # Ctrl-C reaches this process too, but whoever started it decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=WanTask)
    try:
        (here, near), (there, far) = new_networks()
    except (NotPermitted, OSError) as error:
        _say(WanReady(None, str(error)))
        return
    # It stands for a cable, which waits for nobody; not everybody may ask for that.
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    paths = (WanPath(task.spec, 2 * task.seed), WanPath(task.spec, 2 * task.seed + 1))
    _say(WanReady((here, there)))
    begun, cpu = time.monotonic(), time.process_time()
    _forward((near, far), paths)
    _say(
        WanFigures(
            seconds=time.monotonic() - begun,
            cpu_s=time.process_time() - cpu,
            taken=sum(path.taken for path in paths),
            lost=sum(path.lost for path in paths),
            overflowed=sum(path.overflowed for path in paths),
        )
    )


def _say(what: WanReady | WanFigures) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
