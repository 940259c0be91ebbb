"""Both ends of a link with their transfer pumps, and files to send over it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.peers import linked

from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump, TransferTotals

JOB = "job-" + "0" * 20
CHUNK_BYTES = 200_000


class End:
    """One end of a link with its pump; offers wait to be received."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.pump = TransferPump(link)
        self.offers: asyncio.Queue[FileMeta] = asyncio.Queue()
        self.needs: list[FileNeed] = []
        link.on_control = self._on_control

    def _on_control(self, message: Any) -> None:
        if isinstance(message, FileMeta):
            self.offers.put_nowait(message)
        elif isinstance(message, FileNeed | FileDone):
            if isinstance(message, FileNeed):
                self.needs.append(message)
            self.pump.handle(message)

    async def send(self, source: FileSource, **more: Any) -> TransferTotals:
        return await self.pump.send(source, job_id=JOB, purpose="package", **more)

    async def receive(self, area: StagingArea, **more: Any) -> TransferTotals:
        return await self.pump.receive(await self.offers.get(), area, **more)


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    async with linked() as (one, other):
        yield End(one), End(other)


def make_files(root: Path, seed: int, sizes: dict[str, int]) -> FileSource:
    made = random.Random(seed)  # noqa: S311 - contents of test files
    for path, size in sizes.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(made.randbytes(size))
    return FileSource.scan(root, list(sizes), chunk_bytes=CHUNK_BYTES)


def same(source: FileSource, area: StagingArea) -> bool:
    paths = [entry.path for entry in source.manifest.files]
    arrived = [p.relative_to(area.files) for p in area.files.rglob("*") if p.is_file()]
    return sorted(paths) == sorted(p.as_posix() for p in arrived) and all(
        (source.root / path).read_bytes() == (area.files / path).read_bytes()
        for path in paths
    )
