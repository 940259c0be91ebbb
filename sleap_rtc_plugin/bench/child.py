"""A process of ours that a benchmark starts and talks to, one JSON value a line.

It reads its task from stdin and answers on stdout; it is gone when the benchmark is.
Used by the benchmarks that measure processes.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import NoReply
from sleap_rtc_plugin.protocol.limits import KIB

__all__ = ["Child", "child", "pass_on"]

T = TypeVar("T")

# A description of a connection, or the figures of a turn with every round trip.
_LINE_BYTES: Final = 1024 * KIB


class Child:
    """A process that was started; `pid` is its number."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        """Talk to a process that the user knows by that name."""
        self._process = process
        self._name = name
        self.pid = process.pid

    def tell(self, what: Struct | str) -> None:
        """Write a line."""
        self.tell_line(msgspec.json.encode(what) + b"\n")

    def tell_line(self, line: bytes) -> None:
        """Write a line as it is."""
        if self._process.stdin is not None:
            self._process.stdin.write(line)

    async def hear(self, kind: type[T]) -> T:
        """Read a line.

        Raises:
            NoReply: it ended without one.
        """
        return msgspec.json.decode(await self.hear_line(), type=kind)

    async def hear_line(self) -> bytes:
        """Read a line as it is.

        Raises:
            NoReply: it ended without one.
        """
        stdout = self._process.stdout
        line = await stdout.readline() if stdout is not None else b""
        if not line:
            raise NoReply(peer=self._name, command="the benchmark")
        return line

    def hang_up(self) -> None:
        """End its stdin, which asks it to end."""
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextlib.asynccontextmanager
async def child(module: str, task: Struct, name: str) -> AsyncIterator[Child]:
    """Run a module with a task; it is gone afterwards, whatever happened.

    Args:
        module: one of ours that runs by itself.
        task: its first line.
        name: what to call it where it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
    )
    try:
        started = Child(process, name)
        started.tell(task)
        yield started
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def pass_on(one: Child, other: Child) -> None:
    """Give the next line of one to the other, whatever it says."""
    other.tell_line(await one.hear_line())
