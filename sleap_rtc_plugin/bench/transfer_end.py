"""One end of a link in `bench transfer`: a process that sends files, or receives them.

Reads its task as one JSON line on stdin, trades descriptions with the other end through
whoever started both, and answers with one line of figures. It measures itself, and
the sending end how long a stop command takes meanwhile, there and back.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.bench.memory import PeakMemory
from sleap_rtc_plugin.bench.plain_loop import PlainReceiver, send_plainly
from sleap_rtc_plugin.protocol.ids import new_command_id, new_job_id
from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.protocol.messages import (
    Acknowledged,
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
    JobCancel,
)
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump

__all__ = ["EndFigures", "EndTask"]

STOP_INTERVAL_S: Final = 0.1
_ALL_THERE: Final = "c-all-there"
_SECRET: Final = bytes(32)


class EndTask(Struct):
    """Which end this is, how it sends or receives, and what.

    `folder` holds the files, or is where they go.
    """

    role: Literal["client", "worker"]
    engine: Literal["ours", "plain loop"]
    folder: str
    paths: list[str]


class EndFigures(Struct):
    """What it took at one end; `stops_s` at the sending one alone."""

    seconds: float
    cpu_s: float
    idle_mib: float
    peak_mib: float
    stops_s: list[float]


class _End:
    """A link at work: control messages go where they belong."""

    def __init__(self, link: Link, task: EndTask) -> None:
        self._link = link
        self._folder = Path(task.folder)
        self._paths = task.paths
        self._pump = TransferPump(link)
        self._offers: asyncio.Queue[FileMeta] = asyncio.Queue()
        self._stopped: asyncio.Queue[None] = asyncio.Queue()
        self._all_there = asyncio.Event()
        self._plainly = PlainReceiver(self._folder, len(task.paths))
        link.on_control = self._on_control
        if task.engine == "plain loop":
            link.on_fragment = self._plainly.receive

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case FileMeta():
                self._offers.put_nowait(message)
            case FileNeed() | FileDone():
                self._pump.handle(message)
            case JobCancel():
                self._link.send(Acknowledged(command_id=message.command_id))
            case Acknowledged(command_id=command_id) if command_id == _ALL_THERE:
                self._all_there.set()
            case Acknowledged():
                self._stopped.put_nowait(None)

    def work(self, task: EndTask) -> Awaitable[None]:
        """Return this end's half of the transfer."""
        if task.role == "client":
            return self.send() if task.engine == "ours" else self.send_plainly()
        return self.receive() if task.engine == "ours" else self.receive_plainly()

    async def send(self) -> None:
        """Send as this project does, from reading the files to the last word."""
        source = await asyncio.to_thread(FileSource.scan, self._folder, self._paths)
        await self._pump.send(source, job_id=new_job_id(), purpose="package")

    async def receive(self) -> None:
        """Receive as a worker does."""
        store = ChunkStore(self._folder / "store", max_bytes=GIB)
        try:
            area = StagingArea(self._folder / "package", store=store)
            await self._pump.receive(await self._offers.get(), area)
        finally:
            store.close()

    async def send_plainly(self) -> None:
        """Send in the plain loop, around the pace that a link keeps."""
        await send_plainly(self._link._transfer, self._folder, self._paths)
        await self._all_there.wait()

    async def receive_plainly(self) -> None:
        """Receive what the plain loop sends."""
        await self._plainly.complete.wait()
        self._link.send(Acknowledged(command_id=_ALL_THERE))

    async def time_stops(self, work: "asyncio.Task[float]") -> list[float]:
        """Send stop commands, one at a time, until `work` is done."""
        seconds: list[float] = []
        job_id = new_job_id()
        while not work.done():
            begun = monotonic()
            self._link.send(JobCancel(command_id=new_command_id(), job_id=job_id))
            await self._stopped.get()
            seconds.append(monotonic() - begun)
            await asyncio.sleep(STOP_INTERVAL_S)
        return seconds


async def _run(task: EndTask) -> EndFigures:
    other = "worker" if task.role == "client" else "client"
    connection = PeerConnection(role=task.role, peer_id=f"{other}-1", secret=_SECRET)
    try:
        link = await _connect(connection, task.role)
        end = _End(link, task)
        stops_s: list[float] = []
        with PeakMemory(os.getpid()) as memory:
            work = asyncio.create_task(_seconds(end.work(task)))
            if task.role == "client":
                stops_s = await end.time_stops(work)
            seconds = await work
        if task.role == "worker":
            # The sender hangs up, once it has the last answer.
            await link.closed.wait()
        return EndFigures(
            seconds=seconds,
            cpu_s=memory.cpu_s,
            idle_mib=memory.idle_mib,
            peak_mib=memory.peak_mib,
            stops_s=stops_s,
        )
    finally:
        await connection.close()


async def _seconds(work: Awaitable[None]) -> float:
    begun = monotonic()
    await work
    return monotonic() - begun


async def _connect(connection: PeerConnection, role: str) -> Link:
    if role == "client":
        _say(await connection.make_offer())
        await connection.take_answer(await _hear())
    else:
        _say(await connection.make_answer(await _hear()))
    return await connection.authenticate()


async def _hear() -> str:
    line = await asyncio.to_thread(sys.stdin.readline)
    return msgspec.json.decode(line, type=str)


def _say(what: str | EndFigures) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Carry out the task on stdin."""
    task = msgspec.json.decode(sys.stdin.readline(), type=EndTask)
    _say(asyncio.run(_run(task)))


if __name__ == "__main__":
    main()
