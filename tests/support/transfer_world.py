"""Both halves of a transfer over a wire that may be cut, one small step at a time.

A synchronous stand-in for the transfer pump: the real machines, the real file source,
the real staging area and the real chunk store, no sockets and no event loop. Each step
does one thing, so that a test may stop, cut or crash between any two.
"""

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from support import wire_samples

from sleap_rtc_plugin.protocol import codec
from sleap_rtc_plugin.protocol import transfer_receiver as receiving
from sleap_rtc_plugin.protocol import transfer_sender as sending
from sleap_rtc_plugin.protocol.errors import RemoteProtocolError, RtcError
from sleap_rtc_plugin.protocol.fragments import (
    Pack,
    decode_frame,
    encode_pack,
    fragments_of,
)
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.staging_area import StagingArea

CHUNK_BYTES: Final = 1000
PACK_BYTES: Final = 1500
STREAM: Final = 7
STORE_LIMIT_BYTES: Final = 10**9


class PowerCut(BaseException):
    """The receiver's machine stops in the middle of an instruction."""


class TransferWorld:
    """A source folder, a staging folder, a chunk store, and what is between them."""

    def __init__(self, source: Path, staging: Path, store: Path) -> None:
        self.source_root = source
        self.staging_root = staging
        self.store_root = store
        self.completed = False
        self.failed: RtcError | None = None
        self.links_closed = 0
        self.asked_bytes = 0
        self.stored: set[int] = set()
        self.asked_again: set[int] = set()
        self.wrongly_asked: set[int] = set()
        self.source: FileSource | None = None
        self._open_area()
        self.connect(rescan=True)

    def _open_area(self) -> None:
        self.store = ChunkStore(self.store_root, max_bytes=STORE_LIMIT_BYTES)
        self.area = StagingArea(self.staging_root, store=self.store)

    # -- connecting ------------------------------------------------------------------

    def connect(self, *, rescan: bool = False) -> None:
        """Begin the transfer anew on a fresh link; what was on its way is lost."""
        self.area.close()
        if rescan or self.source is None:
            paths = sorted(
                path.relative_to(self.source_root).as_posix()
                for path in self.source_root.rglob("*")
                if path.is_file()
            )
            source = FileSource.scan(self.source_root, paths, chunk_bytes=CHUNK_BYTES)
            if self.source is not None and source.manifest != self.source.manifest:
                self._take_over_stored(self.source.manifest, source.manifest)
            self.source = source
        manifest = self.source.manifest
        meta = FileMeta(
            transfer_id=wire_samples.TRANSFER,
            stream=STREAM,
            job_id=wire_samples.JOB,
            purpose="package",
            manifest_bytes=len(self.source.encoded_manifest),
            manifest_digest=self.source.manifest_digest.hex(),
            total_bytes=manifest.total_bytes,
            file_count=len(manifest.files),
        )
        self.meta = meta
        self.completed, self.failed = False, None
        self.asked_again = set()
        self.asked_bytes = 0
        self.to_sender: deque[str] = deque()
        self.to_receiver: deque[str] = deque()
        self.fragments: deque[bytes] = deque()
        self.disk: deque[receiving.Instruction] = deque()
        self.area.begin()
        self.sender = sending.TransferSender(meta, manifest)
        self.receiver = receiving.TransferReceiver(meta)
        self._feed_sender(sending.Offer())
        known = self.area.known_manifest(meta.manifest_digest)
        self.manifest_was_known = bool(known)
        self._feed_receiver(receiving.Begin(known))

    def _take_over_stored(self, earlier: Manifest, manifest: Manifest) -> None:
        """Expect of a new version every chunk that arrived of the earlier one."""
        if not (self.staging_root / "manifest").exists():
            # All of it arrived: from then on it is for the store to find.
            self.stored.clear()
        there = {earlier.chunk(number).digest for number in self.stored}
        numbers = range(manifest.chunk_count)
        self.stored = {n for n in numbers if manifest.chunk(n).digest in there}

    def restart_receiver(self) -> None:
        """Let the receiver's process die and come back with nothing but its disk."""
        self.close()
        self._open_area()
        self.connect()

    def next_job(self, earlier: Path) -> None:
        """Begin anew for another job; the files of this one lie in `earlier` then."""
        self.close()
        if earlier.exists():
            shutil.rmtree(earlier)
        if self.staging_root.exists():
            self.staging_root.rename(earlier)
        self.stored.clear()
        self._open_area()
        self.connect(rescan=True)

    def close(self) -> None:
        """Let go of the disk."""
        self.area.close()
        self.store.close()

    # -- one small step ----------------------------------------------------------------

    def possible(self) -> list[Callable[[], None]]:
        """Return everything that could happen next."""
        steps: list[Callable[[], None]] = []
        if self.to_sender:
            steps.append(self._deliver_to_sender)
        if self.to_receiver:
            steps.append(self._deliver_to_receiver)
        if self.fragments:
            steps.append(self._deliver_fragment)
        if self.disk:
            steps.append(self._use_disk)
        if self._has_work():
            steps.append(self._send)
        if not steps and not self.failed and self.receiver.deadline() is not None:
            # What is waited for was lost on its way.
            steps.append(self._be_silent)
        return steps

    def run(self, steps: int = 100_000) -> None:
        """Take turns until nothing is left to do."""
        for turn in range(steps):
            possible = self.possible()
            if not possible:
                return
            possible[turn % len(possible)]()
        raise AssertionError("the transfer does not come to an end")

    @property
    def held_bytes(self) -> int:
        """Bytes of chunks that the receiver holds in memory."""
        waiting = [i for i in self.disk if isinstance(i, receiving.StoreChunk)]
        return self.receiver.buffered_bytes + sum(len(i.data) for i in waiting)

    def _has_work(self) -> bool:
        # `next_work` takes; this only looks.
        sender = self.sender
        return sender.state is sending.SenderState.OFFERED and bool(
            sender._manifest_wanted or sender._wanted
        )

    def _send(self) -> None:
        assert self.source is not None
        work = self.sender.next_work()
        if isinstance(work, Manifest):
            data = self.source.encoded_manifest
            self.fragments += fragments_of(STREAM, 0, data, is_manifest=True)
        elif work is not None:
            together = self.sender.pack_with(work, PACK_BYTES)
            try:
                read = [(c.number, self.source.read_chunk(c)) for c in together]
            except RtcError as error:
                self._feed_sender(sending.SourceBroke(error))
                return
            if len(read) > 1:
                self.fragments.append(encode_pack(Pack(STREAM, tuple(read))))
            else:
                self.fragments += fragments_of(STREAM, *read[0])
            self.sender.chunk_sent(sum(len(data) for _, data in read))

    def _deliver_to_sender(self) -> None:
        message = codec.decode_control(self.to_sender.popleft())
        if isinstance(message, FileNeed):
            self._feed_sender(sending.NeedReceived(message))
        else:
            assert isinstance(message, FileDone)
            self._feed_sender(sending.ReceiverEnded(message))

    def _deliver_to_receiver(self) -> None:
        message = codec.decode_control(self.to_receiver.popleft())
        if isinstance(message, FileDone):
            self._feed_receiver(receiving.SenderEnded(message))

    def _deliver_fragment(self) -> None:
        frame = self.fragments.popleft()
        try:
            arrived = decode_frame(frame)
            if arrived.stream != STREAM:
                return
            if isinstance(arrived, Pack):
                self._feed_receiver(receiving.PackReceived(arrived))
            else:
                self._feed_receiver(receiving.FragmentReceived(arrived))
        except RemoteProtocolError:
            # The link closes, and the client comes back on another one.
            self.links_closed += 1
            self.connect()

    def _be_silent(self) -> None:
        deadline = self.receiver.deadline()
        assert deadline is not None
        self._feed_receiver(receiving.TimedOut(), deadline)

    def _feed_sender(self, event: sending.Event) -> None:
        for instruction in self.sender.handle(event, 0.0):
            if isinstance(instruction, sending.Offered):
                self.to_receiver.append(codec.encode_control(instruction.message))

    def _feed_receiver(self, event: receiving.Event, now: float = 0.0) -> None:
        for instruction in self.receiver.handle(event, now):
            match instruction:
                case receiving.SendControl(message):
                    if isinstance(message, FileNeed):
                        self._note(message)
                    self.to_sender.append(codec.encode_control(message))
                case receiving.Completed():
                    self.completed = True
                case receiving.Failed(error):
                    self.failed = error
                case _:
                    self.disk.append(instruction)

    def _note(self, need: FileNeed) -> None:
        assert self.source is not None
        for first, last in need.chunks:
            for number in range(first, last + 1):
                self.asked_bytes += self.source.manifest.chunk(number).size_bytes
                if number in self.stored and number not in self.asked_again:
                    self.wrongly_asked.add(number)

    def _discarded(self, file: int) -> None:
        """Forget what a discarded part held, for every file that it served."""
        assert self.source is not None
        manifest = self.source.manifest
        for other, entry in enumerate(manifest.files):
            if entry.digest == manifest.files[file].digest:
                self.stored -= set(manifest.chunks_of(other))
        self.asked_again |= set(manifest.chunks_of(file))

    # -- the receiver's disk -----------------------------------------------------------

    def _use_disk(self) -> None:
        try:
            event = self._perform(self.disk.popleft())
        except RtcError as error:
            event = receiving.StorageBroke(error)
        if not (self.completed or self.failed):
            self._feed_receiver(event)

    def _perform(self, instruction: receiving.Instruction) -> receiving.Event:
        match instruction:
            case receiving.CheckManifest(data):
                if digest_of(data).hex() != self.meta.manifest_digest:
                    raise RemoteProtocolError(detail="another manifest")
                self.area.remember_manifest(data)
                return receiving.ManifestAccepted(Manifest.decode(data))
            case receiving.TakeInventory(manifest):
                return receiving.InventoryTaken(*self.area.inventory(manifest))
            case receiving.StoreChunk(number, data, copies):
                if self.area.store(number, data, *copies):
                    self.stored |= {number, *copies}
                    return receiving.ChunkStored(number)
                return receiving.ChunkCorrupt(number)
            case receiving.FinishFile(file):
                if self.area.finish(file):
                    return receiving.FileFinished(file)
                self._discarded(file)
                return receiving.FileCorrupt(file)
        raise AssertionError(instruction)
