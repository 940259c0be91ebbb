"""A process that serves, for `bench signaling` to load: ours, or a bare relay.

Reads its task as one JSON line on stdin, says where it listens, and ends when stdin
does. Ours has the limits that one address meets set out of the way; they are counted
all the same.
"""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.signaling_bare import serve_bare_relay
from sleap_rtc_plugin.bench.signaling_files import allow_open_files

__all__ = ["ServerEngine", "ServerReady", "ServerTask"]

_HOST = "127.0.0.1"
_MANY = 1_000_000

ServerEngine = Literal["ours", "bare websockets"]


class ServerTask(Struct):
    """What to serve.

    Attributes:
        engine: whose server.
        data_dir: where ours keeps its rooms.
    """

    engine: ServerEngine
    data_dir: str


class ServerReady(Struct):
    """It listens."""

    http_url: str
    websocket_url: str


@contextlib.asynccontextmanager
async def _serving(task: ServerTask) -> AsyncIterator[ServerReady]:
    if task.engine == "bare websockets":
        async with await serve_bare_relay(_HOST) as server:
            port = server.sockets[0].getsockname()[1]
            yield ServerReady("", f"ws://{_HOST}:{port}/")
        return
    from sleap_rtc_signaling.config import LimitsConfig, SignalingConfig
    from sleap_rtc_signaling.server import SignalingServer

    config = SignalingConfig(
        port=0,
        rest_port=None,
        data_dir=Path(task.data_dir),
        limits=LimitsConfig(
            max_sockets=_MANY,
            max_sockets_per_address=_MANY,
            connects_per_s=_MANY,
            messages_per_s=_MANY,
            address_messages_per_s=_MANY,
        ),
    )
    async with SignalingServer(config) as ours:
        yield ServerReady(ours.url, ours.websocket_url)


async def _run(task: ServerTask) -> None:
    async with _serving(task) as ready:
        gc.collect()
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = msgspec.json.decode(sys.stdin.readline(), type=ServerTask)
    allow_open_files()
    asyncio.run(_run(task))


if __name__ == "__main__":
    main()
