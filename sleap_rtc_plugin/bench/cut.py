"""What is sent again after the link was cut in the middle of a package.

Two real peers in this process, with the engines that client and worker have; no
server and no programs around them. Used by `bench dedupe`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.ids import new_job_id
from sleap_rtc_plugin.protocol.messages import (
    ControlMessage,
    FileDone,
    FileMeta,
    FileNeed,
)
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.peer import PeerConnection
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump, TransferTotals

__all__ = ["CutFigures", "send_with_cut"]

_SECRET: Final = bytes(32)


@dataclass(frozen=True)
class CutFigures:
    """A package on two links, in bytes."""

    total_bytes: int
    before_bytes: int
    after_bytes: int
    unsent_bytes: int

    @property
    def twice_bytes(self) -> int:
        """What was sent before the cut, and again after it."""
        sent_bytes = self.before_bytes + self.after_bytes + self.unsent_bytes
        return max(0, sent_bytes - self.total_bytes)


class _End:
    """One end of a link: offers wait to be received."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.pump = TransferPump(link)
        self.offers: asyncio.Queue[FileMeta] = asyncio.Queue()
        link.on_control = self._on_control

    def _on_control(self, message: ControlMessage) -> None:
        if isinstance(message, FileMeta):
            self.offers.put_nowait(message)
        elif isinstance(message, FileNeed | FileDone):
            self.pump.handle(message)


async def _receive(
    end: _End,
    area: StagingArea,
    on_progress: Callable[[TransferTotals], None] = lambda totals: None,
) -> TransferTotals:
    return await end.pump.receive(await end.offers.get(), area, on_progress=on_progress)


@asynccontextmanager
async def _ends() -> AsyncIterator[tuple[_End, _End]]:
    """Connect a client and a worker, with no server between them."""
    client = PeerConnection(role="client", peer_id="worker-1", secret=_SECRET)
    worker = PeerConnection(role="worker", peer_id="client-1", secret=_SECRET)
    try:
        await client.take_answer(await worker.make_answer(await client.make_offer()))
        one, other = await asyncio.gather(client.authenticate(), worker.authenticate())
        yield _End(one), _End(other)
    finally:
        await client.close()
        await worker.close()


async def send_with_cut(package: Path, folder: Path, share: float) -> CutFigures:
    """Send a file, cut the link once `share` of it is verified, and send it again.

    Args:
        package: the file.
        folder: where it goes.
        share: 0 to 1.

    Raises:
        RtcError: it did not arrive.
    """
    source = await asyncio.to_thread(FileSource.scan, package.parent, [package.name])
    total_bytes = source.manifest.total_bytes
    before = TransferTotals(total_bytes, 0, 0, 0)
    async with _ends() as (client, worker):

        def count(totals: TransferTotals) -> None:
            nonlocal before
            before = totals

        def cut(totals: TransferTotals) -> None:
            if totals.verified_bytes >= share * total_bytes:
                worker.link.close("cut")

        first = await asyncio.gather(
            client.pump.send(
                source, job_id=new_job_id(), purpose="package", on_progress=count
            ),
            _receive(worker, StagingArea(folder), cut),
            return_exceptions=True,
        )
        for outcome in first:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, LinkClosed
            ):
                raise outcome
    async with _ends() as (client, worker):
        after, _ = await asyncio.gather(
            client.pump.send(source, job_id=new_job_id(), purpose="package"),
            _receive(worker, StagingArea(folder)),
        )
    return CutFigures(
        total_bytes=total_bytes,
        before_bytes=before.moved_bytes,
        after_bytes=after.moved_bytes,
        unsent_bytes=before.reused_bytes,
    )
