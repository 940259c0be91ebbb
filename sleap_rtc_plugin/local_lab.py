"""A whole lab on this machine: a signaling server here, a worker beside it.

For the demo and the benchmarks, which need real programs and no other machine. The
worker is a process of its own, started through the command line as a user would, and
leaves the processor to whoever uses it: in life it runs elsewhere.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from sleap_rtc_plugin.companion.priority import make_give_way
from sleap_rtc_plugin.protocol.errors import LocalProtocolError
from sleap_rtc_plugin.protocol.session_string import Session

__all__ = ["LocalLab", "local_lab"]


@dataclass(frozen=True)
class LocalLab:
    """Where the lab is: its server, its session, its worker's process."""

    url: str
    session: Session
    worker_pid: int


@contextlib.asynccontextmanager
async def local_lab(folder: Path, *, worker_name: str) -> AsyncIterator[LocalLab]:
    """Run a signaling server and a worker whose files are below `folder`."""
    from sleap_rtc_signaling.config import SignalingConfig
    from sleap_rtc_signaling.server import SignalingServer

    config = SignalingConfig(port=0, rest_port=None, data_dir=folder / "signaling")
    async with SignalingServer(config) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sleap_rtc_plugin.cli", "worker"),
            *("--signaling", server.url, "--name", worker_name),
            *("--data", str(folder / "worker")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        make_give_way(process.pid)
        try:
            if process.stdout is None:
                raise LocalProtocolError(detail="a process without its pipe")
            line = await process.stdout.readline()
            yield LocalLab(server.url, Session.parse(line.decode()), process.pid)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
