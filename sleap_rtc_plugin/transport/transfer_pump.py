"""Moves files over a link: the driver of the transfer sender and receiver machines.

One pump per link, at both ends. Hashing and disk run in threads, one per transfer;
the event loop only passes frames on. What a peer asks for is read when it is asked
for, so memory stays bounded whatever the size of the files.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from sleap_rtc_plugin.protocol import transfer_receiver as receiving
from sleap_rtc_plugin.protocol import transfer_sender as sending
from sleap_rtc_plugin.protocol.errors import (
    RemoteProtocolError,
    RtcError,
)
from sleap_rtc_plugin.protocol.fragments import (
    Fragment,
    Pack,
    decode_frame,
    encode_pack,
    fragments_of,
)
from sleap_rtc_plugin.protocol.ids import new_transfer_id
from sleap_rtc_plugin.protocol.limits import KIB, MAX_TRANSFERS_PER_LINK
from sleap_rtc_plugin.protocol.manifest import ChunkInfo, Manifest
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed, FilePurpose
from sleap_rtc_plugin.protocol.transfer_requests import TransferRequests
from sleap_rtc_plugin.transport.effects import in_thread, monotonic
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.link import Link, LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea

__all__ = ["Progress", "TransferPump", "TransferTotals"]

logger = logging.getLogger(__name__)

# A trip to a thread costs as much as hashing a chunk, so each carries several.
READ_BATCH_BYTES: Final = 512 * KIB
MAX_CALLS_PER_TRIP: Final = 64


@dataclass(frozen=True)
class TransferTotals:
    """How far a transfer is, in bytes; `moved_bytes` crossed the link."""

    total_bytes: int
    reused_bytes: int
    moved_bytes: int
    verified_bytes: int


Progress = Callable[[TransferTotals], None]
DiskWork = (
    receiving.CheckManifest
    | receiving.TakeInventory
    | receiving.StoreChunk
    | receiving.FinishFile
)


def _no_progress(totals: TransferTotals) -> None:
    """Report to nobody."""


class TransferPump:
    """Every transfer of one link, both ways. `on_begun` is called as each begins."""

    def __init__(self, link: Link) -> None:
        """Serve `link`; the caller passes control messages to `handle`."""
        self._link = link
        self._senders: dict[str, _Sending] = {}
        self._receivers: dict[str, _Receiving] = {}
        self._by_stream: dict[int, _Receiving] = {}
        self._streams = itertools.count(1)
        self._listeners: dict[int, Callable[[Fragment], None]] = {}
        self.on_begun: Callable[[], None] = lambda: None
        link.on_fragment = self._on_fragment

    @property
    def is_moving(self) -> bool:
        """Whether a transfer is under way, in either direction."""
        return bool(self._senders or self._receivers)

    @contextlib.contextmanager
    def listening(
        self, stream: int, listener: Callable[[Fragment], None]
    ) -> Iterator[None]:
        """Hand the fragments of a stream to `listener` meanwhile."""
        self._listeners[stream] = listener
        try:
            yield
        finally:
            del self._listeners[stream]

    def handle(self, message: FileNeed | FileDone) -> None:
        """Take a control message about a transfer.

        Raises:
            RemoteProtocolError: the transfer's machine does not allow it.
        """
        sender = self._senders.get(message.transfer_id)
        receiver = self._receivers.get(message.transfer_id)
        if sender is not None:
            sender.handle(message)
        elif receiver is not None and isinstance(message, FileDone):
            receiver.feed(receiving.SenderEnded(message))
        # Otherwise the transfer ended here while the message was on its way.

    async def send(
        self,
        source: FileSource,
        *,
        job_id: str,
        purpose: FilePurpose,
        on_progress: Progress = _no_progress,
    ) -> TransferTotals:
        """Offer files and serve the peer until it has verified them all.

        Raises:
            RtcError: why it did not come to that, from either side.
            LinkClosed: the link ended first.
        """
        self._check_room()
        meta = FileMeta(
            transfer_id=new_transfer_id(),
            stream=next(self._streams),
            job_id=job_id,
            purpose=purpose,
            manifest_bytes=len(source.encoded_manifest),
            manifest_digest=source.manifest_digest.hex(),
            total_bytes=source.manifest.total_bytes,
            file_count=len(source.manifest.files),
        )
        transfer = _Sending(self._link, source, meta, on_progress)
        self._senders[meta.transfer_id] = transfer
        self.on_begun()
        try:
            return await transfer.run()
        finally:
            del self._senders[meta.transfer_id]

    async def receive(
        self,
        meta: FileMeta,
        area: StagingArea,
        *,
        on_progress: Progress = _no_progress,
    ) -> TransferTotals:
        """Fetch what `meta` offers into `area`, until every file is in place.

        Raises:
            RtcError: why it did not come to that, from either side.
            LinkClosed: the link ended first.
        """
        self._check_room()
        if meta.transfer_id in self._receivers or meta.stream in self._by_stream:
            raise RemoteProtocolError(detail="the same transfer offered twice")
        transfer = _Receiving(self._link, meta, area, on_progress)
        self._receivers[meta.transfer_id] = transfer
        self._by_stream[meta.stream] = transfer
        self.on_begun()
        try:
            return await transfer.run()
        finally:
            del self._receivers[meta.transfer_id]
            del self._by_stream[meta.stream]

    def _check_room(self) -> None:
        if len(self._senders) + len(self._receivers) >= MAX_TRANSFERS_PER_LINK:
            raise RemoteProtocolError(detail="too many transfers on one link")

    def _on_fragment(self, frame: bytes | str) -> None:
        arrived = decode_frame(frame)
        listener = self._listeners.get(arrived.stream)
        if listener is not None and isinstance(arrived, Fragment):
            listener(arrived)
            return
        transfer = self._by_stream.get(arrived.stream)
        if transfer is None:
            # The transfer ended here while the frame was on its way.
            return
        match arrived:
            case Fragment():
                transfer.feed(receiving.FragmentReceived(arrived))
            case Pack():
                transfer.feed(receiving.PackReceived(arrived))


async def _until_closed(link: Link, work: asyncio.Future[None]) -> None:
    """Wait for `work`, but no longer than the link lives."""
    closed = asyncio.ensure_future(link.closed.wait())
    either: set[asyncio.Future[Any]] = {work, closed}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise LinkClosed(link.close_reason)
        await work
    finally:
        closed.cancel()


class _Sending:
    """One outgoing transfer at work."""

    def __init__(
        self, link: Link, source: FileSource, meta: FileMeta, on_progress: Progress
    ) -> None:
        self._link = link
        self._source = source
        self._on_progress = on_progress
        self._machine = sending.TransferSender(meta, source.manifest)
        self._wake = asyncio.Event()
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="send")

    async def run(self) -> TransferTotals:
        pump = asyncio.get_running_loop().create_task(self._pump())
        try:
            self._feed(sending.Offer())
            await _until_closed(self._link, self._outcome)
            return self._totals()
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            self._executor.shutdown(wait=False)
            self._outcome.cancel()

    def handle(self, message: FileNeed | FileDone) -> None:
        if isinstance(message, FileNeed):
            self._feed(sending.NeedReceived(message))
        else:
            self._feed(sending.ReceiverEnded(message))

    def _feed(self, event: sending.Event) -> None:
        for instruction in self._machine.handle(event, monotonic()):
            match instruction:
                case sending.Offered(message):
                    self._link.send(message)
                case sending.WorkReady():
                    self._wake.set()
                case sending.Delivered():
                    self._settle(None)
                case sending.TransferFailed(error):
                    self._settle(error)

    def _settle(self, error: RtcError | None) -> None:
        if self._outcome.done():
            return
        if error is None:
            self._on_progress(self._totals())
            self._outcome.set_result(None)
        else:
            self._outcome.set_exception(error)

    async def _pump(self) -> None:
        """Read and send what is asked for, a little of it in memory at a time."""
        try:
            while True:
                work = self._machine.next_work()
                if work is None:
                    self._wake.clear()
                    await self._wake.wait()
                elif isinstance(work, Manifest):
                    data = self._source.encoded_manifest
                    await self._send_cut(0, data, is_manifest=True)
                else:
                    groups = self._gather(work)
                    read = await in_thread(self._executor, self._read, groups)
                    for chunks in read:
                        await self._send_together(chunks)
        except LinkClosed:
            # `run` sees the same and says so.
            return
        except RtcError as error:
            self._feed(sending.SourceBroke(error))
        except Exception as error:
            # A bug must end the transfer, not leave it waiting for ever.
            if not self._outcome.done():
                self._outcome.set_exception(error)

    def _gather(self, first: ChunkInfo) -> list[list[ChunkInfo]]:
        """Take a batch of chunks, by the frames that small ones share."""
        groups: list[list[ChunkInfo]] = []
        batch_bytes = 0
        work: ChunkInfo | Manifest | None = first
        while isinstance(work, ChunkInfo):
            group = self._machine.pack_with(work, self._link.fragment_bytes)
            groups.append(group)
            batch_bytes += sum(chunk.size_bytes for chunk in group)
            if batch_bytes >= READ_BATCH_BYTES:
                break
            work = self._machine.next_work()
        return groups

    def _read(self, groups: list[list[ChunkInfo]]) -> list[list[tuple[int, bytes]]]:
        with self._source.reading() as read:
            return [[(chunk.number, read(chunk)) for chunk in some] for some in groups]

    async def _send_together(self, chunks: list[tuple[int, bytes]]) -> None:
        """Send one chunk, or several small ones in one frame."""
        if len(chunks) > 1:
            pack = Pack(self._machine.meta.stream, tuple(chunks))
            await self._link.send_fragment(encode_pack(pack))
        else:
            await self._send_cut(*chunks[0])
        self._machine.chunk_sent(sum(len(data) for _, data in chunks))
        self._on_progress(self._totals())

    async def _send_cut(
        self, chunk: int, data: bytes, *, is_manifest: bool = False
    ) -> None:
        """Send a chunk, or the manifest, in frames of the size that suits the link."""
        for frame in fragments_of(
            self._machine.meta.stream,
            chunk,
            data,
            is_manifest=is_manifest,
            fragment_bytes=lambda: self._link.fragment_bytes,
        ):
            await self._link.send_fragment(frame)

    def _totals(self) -> TransferTotals:
        machine = self._machine
        done = machine.state is sending.SenderState.DELIVERED
        total = machine.meta.total_bytes
        return TransferTotals(
            total_bytes=total,
            reused_bytes=machine.reused_bytes,
            moved_bytes=machine.sent_bytes,
            verified_bytes=total if done else 0,
        )


class _Receiving:
    """One incoming transfer at work."""

    def __init__(
        self, link: Link, meta: FileMeta, area: StagingArea, on_progress: Progress
    ) -> None:
        self._link = link
        self._meta = meta
        self._area = area
        self._on_progress = on_progress
        self._machine = receiving.TransferReceiver(meta)
        self._manifest = Manifest([])
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="receive")
        self._waiting: deque[DiskWork] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> TransferTotals:
        self._area.begin()
        try:
            known = await in_thread(
                self._executor, self._area.known_manifest, self._meta.manifest_digest
            )
            self.feed(receiving.Begin(known))
            await _until_closed(self._link, self._outcome)
            return self._totals()
        finally:
            # From here on nothing more is begun: the next link uses the same folder.
            self._outcome.cancel()
            if self._timer is not None:
                self._timer.cancel()
            # What is being written is finished, so that no thread outlives us; what
            # would take long is not.
            self._area.interrupt()
            self._waiting.clear()
            if self._worker is not None:
                await asyncio.gather(self._worker, return_exceptions=True)
            await in_thread(self._executor, self._area.close)
            self._executor.shutdown(wait=False)

    def feed(self, event: receiving.Event) -> None:
        if self._outcome.done():
            return
        for instruction in self._machine.handle(event, monotonic()):
            self._perform(instruction)
        self._set_timer()

    def _perform(self, instruction: receiving.Instruction) -> None:
        match instruction:
            case receiving.SendControl(message):
                self._link.send(message)
            case receiving.Completed():
                self._on_progress(self._totals())
                if not self._outcome.done():
                    self._outcome.set_result(None)
            case receiving.Failed(error):
                if not self._outcome.done():
                    self._outcome.set_exception(error)
            case _:
                self._waiting.append(instruction)
                if self._worker is None or self._worker.done():
                    loop = asyncio.get_running_loop()
                    self._worker = loop.create_task(self._work())

    # The blocking halves of the other instructions, with the events that report them.

    def _check_manifest(self, data: bytes) -> receiving.Event:
        if digest_of(data).hex() != self._meta.manifest_digest:
            raise RemoteProtocolError(detail="a manifest that differs from its digest")
        manifest = Manifest.decode(data)
        self._area.remember_manifest(data)
        return receiving.ManifestAccepted(manifest)

    def _take_inventory(self, manifest: Manifest) -> receiving.Event:
        self._manifest = manifest
        chunks, files = self._area.inventory(manifest)
        requests = TransferRequests.missing(manifest, chunks, files)
        return receiving.InventoryTaken(chunks, files, requests)

    def _store(self, number: int, data: bytes, *copies: int) -> receiving.Event:
        if self._area.store(number, data, *copies):
            return receiving.ChunkStored(number)
        return receiving.ChunkCorrupt(number)

    def _finish(self, files: Sequence[int]) -> Iterator[receiving.Event]:
        finished = self._area.finish(*files)
        for file in files:
            if file in finished:
                yield receiving.FileFinished(file)
            else:
                again = TransferRequests.of(self._manifest, [file], ())
                yield receiving.FileCorrupt(file, again)

    async def _work(self) -> None:
        """Do what waits for the disk, many things in one trip to the thread."""
        while self._waiting and not self._outcome.done():
            batch = list(itertools.islice(self._waiting, MAX_CALLS_PER_TRIP))
            for _ in batch:
                self._waiting.popleft()
            try:
                events = await in_thread(self._executor, self._make, batch)
            except Exception as error:
                # A bug must end the transfer, not leave it waiting for ever.
                if not self._outcome.done():
                    self._outcome.set_exception(error)
                return
            try:
                for event in events:
                    self.feed(event)
            except RemoteProtocolError as error:
                self._link.close(error.detail)
                return
            if not self._outcome.done():
                self._on_progress(self._totals())

    def _make(self, batch: Sequence[DiskWork]) -> list[receiving.Event]:
        """Do a batch, until something fails or the transfer has ended."""
        events: list[receiving.Event] = []
        whole: list[int] = []
        try:
            for work in batch:
                if self._outcome.done():
                    return events
                match work:
                    case receiving.CheckManifest(data):
                        events.append(self._check_manifest(data))
                    case receiving.TakeInventory(manifest):
                        events.append(self._take_inventory(manifest))
                    case receiving.StoreChunk(number, data, copies):
                        events.append(self._store(number, data, *copies))
                    case receiving.FinishFile(file):
                        whole.append(file)
            if whole:
                events += self._finish(whole)
        except RtcError as error:
            events.append(receiving.StorageBroke(error))
        return events

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.deadline()
        if deadline is not None and not self._outcome.done():
            delay = max(0.0, deadline - monotonic())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self.feed, receiving.TimedOut())

    def _totals(self) -> TransferTotals:
        progress = self._machine.progress
        return TransferTotals(
            total_bytes=progress.total_bytes,
            reused_bytes=progress.reused_bytes,
            moved_bytes=progress.received_bytes,
            verified_bytes=progress.stored_bytes,
        )
