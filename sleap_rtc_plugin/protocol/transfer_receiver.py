"""The receiving half of a file transfer: it knows what it has and asks for the rest.

Resume, repair and first sending are one path: take stock, ask, check, put in place.
Holes are not asked for, and equal chunks are asked for once. Pure;
`transport.transfer_pump` performs the instructions and reports back. At most
`REQUEST_WINDOW_BYTES` are asked for and not yet stored, in at most
`REQUEST_WINDOW_CHUNKS` chunks, which bounds the memory and what one step takes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET

from sleap_rtc_plugin.protocol.errors import (
    DigestMismatch,
    LocalProtocolError,
    RemoteProtocolError,
    RtcError,
    TransferStalled,
    from_wire,
)
from sleap_rtc_plugin.protocol.fragments import Fragment, Pack
from sleap_rtc_plugin.protocol.limits import (
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
    MAX_REPAIRS_PER_CHUNK,
    MAX_REPAIRS_PER_FILE,
    REQUEST_WINDOW_BYTES,
    REQUEST_WINDOW_CHUNKS,
    TRANSFER_STALL_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.machine import Machine, Remote
from sleap_rtc_plugin.protocol.manifest import Manifest
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed
from sleap_rtc_plugin.protocol.transfer_requests import TransferRequests

__all__ = [
    "Begin",
    "CheckManifest",
    "ChunkCorrupt",
    "ChunkStored",
    "Completed",
    "Failed",
    "FileCorrupt",
    "FileFinished",
    "FinishFile",
    "FragmentReceived",
    "InventoryTaken",
    "ManifestAccepted",
    "PackReceived",
    "ReceiverState",
    "SendControl",
    "SenderEnded",
    "StorageBroke",
    "StoreChunk",
    "TakeInventory",
    "TimedOut",
    "TransferReceiver",
]


class ReceiverState(StrEnum):
    """Where a receiver stands."""

    IDLE = "idle"
    MANIFEST = "manifest"
    INVENTORY = "inventory"
    RECEIVING = "receiving"
    COMPLETE = "complete"
    FAILED = "failed"


# -- events --------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """The offer was accepted; start asking.

    `manifest` is what an earlier transfer brought under the offered digest, or empty.
    """

    manifest: bytes = b""


@dataclass(frozen=True)
class FragmentReceived(Remote):
    """A fragment of this transfer's stream arrived."""

    fragment: Fragment


@dataclass(frozen=True)
class PackReceived(Remote):
    """Small chunks of this transfer's stream arrived together."""

    pack: Pack


@dataclass(frozen=True)
class ManifestAccepted:
    """The manifest's digest matches the offer and it was decoded."""

    manifest: Manifest


@dataclass(frozen=True)
class InventoryTaken:
    """These chunks are here already, verified; these files are in place already.

    `requests`: `TransferRequests.missing` of it, made in a thread; ours from here on.
    """

    chunks: frozenset[int]
    files: frozenset[int]
    requests: TransferRequests | None = None


@dataclass(frozen=True)
class ChunkStored:
    """A chunk's digest matched and it was written."""

    number: int


@dataclass(frozen=True)
class ChunkCorrupt:
    """A chunk's digest did not match; nothing was written."""

    number: int


@dataclass(frozen=True)
class FileFinished:
    """A file's whole digest matched and it stands under its final name."""

    file: int


@dataclass(frozen=True)
class FileCorrupt:
    """A file's whole digest did not match; its parts were discarded.

    `requests`: `TransferRequests.of` it alone, made in a thread; ours from here on.
    """

    file: int
    requests: TransferRequests | None = None


@dataclass(frozen=True)
class StorageBroke:
    """The disk failed us."""

    error: RtcError


@dataclass(frozen=True)
class SenderEnded(Remote):
    """The sender gave up."""

    message: FileDone


@dataclass(frozen=True)
class TimedOut:
    """`deadline` has passed."""


Event = (
    Begin
    | FragmentReceived
    | PackReceived
    | ManifestAccepted
    | InventoryTaken
    | ChunkStored
    | ChunkCorrupt
    | FileFinished
    | FileCorrupt
    | StorageBroke
    | SenderEnded
    | TimedOut
)

# -- instructions ----------------------------------------------------------------


@dataclass(frozen=True)
class SendControl:
    """Send this on the control channel."""

    message: FileNeed | FileDone


@dataclass(frozen=True)
class CheckManifest:
    """Compare these bytes with the offer's digest, decode, report the manifest."""

    data: bytes


@dataclass(frozen=True)
class TakeInventory:
    """Find out which chunks and files of the manifest are here already."""

    manifest: Manifest


@dataclass(frozen=True)
class StoreChunk:
    """Check this chunk's digest and write it; report stored or corrupt.

    `copies` are further chunks of the same bytes, to be written as well.
    """

    number: int
    data: bytes
    copies: Sequence[int] = ()


@dataclass(frozen=True)
class FinishFile:
    """Check the whole file's digest and give it its final name; report."""

    file: int


@dataclass(frozen=True)
class Completed:
    """Every file is verified and in place."""


@dataclass(frozen=True)
class Failed:
    """The transfer has ended without that; what was stored stays for a resume."""

    error: RtcError


Instruction = (
    SendControl
    | CheckManifest
    | TakeInventory
    | StoreChunk
    | FinishFile
    | Completed
    | Failed
)


@dataclass(frozen=True)
class ReceiverProgress:
    """How far a transfer is, in bytes."""

    total_bytes: int
    reused_bytes: int
    received_bytes: int
    stored_bytes: int


class TransferReceiver(Machine[ReceiverState, Event, Instruction]):
    """One incoming transfer, from the offer to the last file in place."""

    _LATE: ClassVar[Mapping[type, str]] = {
        ChunkStored: "_ignore",
        ChunkCorrupt: "_ignore",
        FileFinished: "_ignore",
        FileCorrupt: "_ignore",
        ManifestAccepted: "_ignore",
        InventoryTaken: "_ignore",
        StorageBroke: "_ignore",
        FragmentReceived: "_ignore",
        PackReceived: "_ignore",
        SenderEnded: "_ignore",
        TimedOut: "_ignore",
    }
    TABLE: ClassVar = {
        ReceiverState.IDLE: {Begin: "_begin", SenderEnded: "_sender_ended"},
        ReceiverState.MANIFEST: {
            FragmentReceived: "_manifest_fragment",
            ManifestAccepted: "_manifest_accepted",
            StorageBroke: "_storage_broke",
            SenderEnded: "_sender_ended",
            TimedOut: "_timed_out",
        },
        ReceiverState.INVENTORY: {
            InventoryTaken: "_inventory_taken",
            StorageBroke: "_storage_broke",
            SenderEnded: "_sender_ended",
            TimedOut: "_ignore",
        },
        ReceiverState.RECEIVING: {
            FragmentReceived: "_chunk_fragment",
            PackReceived: "_pack_received",
            ChunkStored: "_chunk_stored",
            ChunkCorrupt: "_chunk_corrupt",
            FileFinished: "_file_finished",
            FileCorrupt: "_file_corrupt",
            StorageBroke: "_storage_broke",
            SenderEnded: "_sender_ended",
            TimedOut: "_timed_out",
        },
        ReceiverState.COMPLETE: {SenderEnded: "_ignore", TimedOut: "_ignore"},
        ReceiverState.FAILED: _LATE,
    }

    def __init__(self, meta: FileMeta) -> None:
        """Prepare to receive what `meta` offers.

        Raises:
            RemoteProtocolError: the offer is larger than any package may be.
        """
        super().__init__(ReceiverState.IDLE)
        if (
            not 0 < meta.manifest_bytes <= MAX_MANIFEST_BYTES
            or meta.total_bytes > MAX_PACKAGE_BYTES
            or meta.file_count > MAX_PACKAGE_FILES
        ):
            raise RemoteProtocolError(detail="an offer larger than any package may be")
        self._meta = meta
        self._manifest: Manifest | None = None
        self._manifest_data = bytearray()
        self._manifest_checked = False
        self._requests = TransferRequests(Manifest([]))
        self._arriving: dict[int, bytearray] = {}
        self._checking: set[int] = set()
        self._open_files: set[int] = set()
        self._chunk_repairs: Counter[int] = Counter()
        self._file_repairs: Counter[int] = Counter()
        self._outstanding_bytes = 0
        self._reused_bytes = 0
        self._received_bytes = 0
        self._stored_bytes = 0
        self._heard_at: float | None = None

    # -- what the driver reads ---------------------------------------------------

    @property
    def progress(self) -> ReceiverProgress:
        """How far the transfer is."""
        return ReceiverProgress(
            total_bytes=self._meta.total_bytes,
            reused_bytes=self._reused_bytes,
            received_bytes=self._received_bytes,
            stored_bytes=self._stored_bytes,
        )

    @property
    def buffered_bytes(self) -> int:
        """Bytes of chunks held in memory now; at most the request window."""
        return sum(map(len, self._arriving.values()))

    def deadline(self) -> float | None:
        """When silence becomes a failure; None while nothing is asked for."""
        waiting = self.state is ReceiverState.MANIFEST and not self._manifest_checked
        if self._heard_at is None or not (waiting or self._arriving):
            return None
        return self._heard_at + TRANSFER_STALL_TIMEOUT_S

    # -- transitions ---------------------------------------------------------------

    def _ignore(self, event: Event, now: float) -> list[Instruction]:
        return []

    def _begin(self, event: Begin, now: float) -> list[Instruction]:
        self.state = ReceiverState.MANIFEST
        self._heard_at = now
        if len(event.manifest) == self._meta.manifest_bytes:
            self._manifest_checked = True
            return [CheckManifest(event.manifest)]
        need = FileNeed(transfer_id=self._meta.transfer_id, manifest=True)
        return [SendControl(need)]

    def _manifest_fragment(
        self, event: FragmentReceived, now: float
    ) -> list[Instruction]:
        fragment, data = event.fragment, self._manifest_data
        if (
            not fragment.is_manifest
            or self._manifest_checked
            or fragment.offset != len(data)
            or len(data) + len(fragment.data) > self._meta.manifest_bytes
        ):
            raise RemoteProtocolError(detail="a fragment that was not asked for")
        self._heard_at = now
        data += fragment.data
        if len(data) < self._meta.manifest_bytes:
            return []
        self._manifest_checked = True
        self._manifest_data = bytearray()
        return [CheckManifest(bytes(data))]

    def _manifest_accepted(
        self, event: ManifestAccepted, now: float
    ) -> list[Instruction]:
        manifest = event.manifest
        if (
            manifest.total_bytes != self._meta.total_bytes
            or len(manifest.files) != self._meta.file_count
        ):
            raise RemoteProtocolError(detail="a manifest that differs from its offer")
        self.state = ReceiverState.INVENTORY
        self._manifest = manifest
        self._requests = TransferRequests(manifest)
        return [TakeInventory(manifest)]

    def _inventory_taken(self, event: InventoryTaken, now: float) -> list[Instruction]:
        manifest = self._known_manifest()
        self.state = ReceiverState.RECEIVING
        self._heard_at = now
        here = event.chunks, event.files
        requests = event.requests or TransferRequests.missing(manifest, *here)
        self._requests = requests
        self._stored_bytes = manifest.total_bytes - requests.missing_bytes
        self._reused_bytes = manifest.total_bytes - requests.asked_bytes
        self._open_files = set(range(len(manifest.files))) - event.files
        finish: list[Instruction] = [
            FinishFile(file)
            for file in sorted(self._open_files)
            if not requests.lacks(file)
        ]
        return finish + self._next_need(now, first=True) + self._complete_if_done()

    def _chunk_fragment(self, event: FragmentReceived, now: float) -> list[Instruction]:
        fragment = event.fragment
        arriving = self._arriving.get(fragment.chunk)
        if (
            fragment.is_manifest
            or arriving is None
            or fragment.offset != len(arriving)
            or len(arriving) + len(fragment.data) > self._size(fragment.chunk)
        ):
            raise RemoteProtocolError(detail="a fragment that was not asked for")
        self._heard_at = now
        arriving += fragment.data
        self._received_bytes += len(fragment.data)
        if len(arriving) < self._size(fragment.chunk):
            return []
        return [self._arrived(fragment.chunk, bytes(arriving))]

    def _pack_received(self, event: PackReceived, now: float) -> list[Instruction]:
        self._heard_at = now
        instructions: list[Instruction] = []
        for number, data in event.pack.chunks:
            arriving = self._arriving.get(number)
            # Only what has not begun to arrive, and all of it.
            if arriving is None or arriving or len(data) != self._size(number):
                raise RemoteProtocolError(detail="a chunk that was not asked for")
            self._received_bytes += len(data)
            instructions.append(self._arrived(number, data))
        return instructions

    def _chunk_stored(self, event: ChunkStored, now: float) -> list[Instruction]:
        size = self._settle(event.number)
        stored, complete = self._requests.stored(event.number)
        self._stored_bytes += size * stored
        finish: list[Instruction] = [FinishFile(file) for file in complete]
        return finish + self._next_need(now)

    def _chunk_corrupt(self, event: ChunkCorrupt, now: float) -> list[Instruction]:
        self._settle(event.number)
        self._chunk_repairs[event.number] += 1
        if self._chunk_repairs[event.number] > MAX_REPAIRS_PER_CHUNK:
            return self._fail(DigestMismatch(path=self._path_of(event.number)))
        self._requests.wanted.appendleft(event.number)
        return self._next_need(now)

    def _file_finished(self, event: FileFinished, now: float) -> list[Instruction]:
        self._open_files.discard(event.file)
        return self._complete_if_done()

    def _file_corrupt(self, event: FileCorrupt, now: float) -> list[Instruction]:
        manifest = self._known_manifest()
        self._file_repairs[event.file] += 1
        if self._file_repairs[event.file] > MAX_REPAIRS_PER_FILE:
            return self._fail(DigestMismatch(path=manifest.files[event.file].path))
        again = event.requests or TransferRequests.of(manifest, [event.file], ())
        if not again.missing_bytes:
            return self._fail(DigestMismatch(path=manifest.files[event.file].path))
        self._requests.add(again)
        self._stored_bytes = max(0, self._stored_bytes - again.missing_bytes)
        return self._next_need(now)

    def _storage_broke(self, event: StorageBroke, now: float) -> list[Instruction]:
        return self._fail(event.error)

    def _sender_ended(self, event: SenderEnded, now: float) -> list[Instruction]:
        if event.message.error is None:
            raise RemoteProtocolError(detail="a sender that says it has received")
        self.state = ReceiverState.FAILED
        self._arriving.clear()
        return [Failed(from_wire(event.message.error))]

    def _timed_out(self, event: TimedOut, now: float) -> list[Instruction]:
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return []
        return self._fail(
            TransferStalled(
                activity="files were on their way",
                seconds=f"{TRANSFER_STALL_TIMEOUT_S:.0f}",
            )
        )

    # -- parts of transitions ------------------------------------------------------

    def _next_need(self, now: float, *, first: bool = False) -> list[Instruction]:
        """Ask for more once half the window is free; the first time, at once."""
        wanted = self._requests.wanted
        waiting = len(self._arriving) + len(self._checking)
        if not first and (
            not wanted
            or self._outstanding_bytes > REQUEST_WINDOW_BYTES // 2
            or waiting > REQUEST_WINDOW_CHUNKS // 2
        ):
            return []
        if not self._arriving:
            # The sender owed us nothing until now, however long our disk took.
            self._heard_at = now
        numbers: list[int] = []
        while wanted and waiting + len(numbers) < REQUEST_WINDOW_CHUNKS:
            size = self._size(wanted[0])
            # The first chunk is always asked for, even one larger than the window.
            if self._outstanding_bytes and (
                self._outstanding_bytes + size > REQUEST_WINDOW_BYTES
            ):
                break
            number = wanted.popleft()
            self._arriving[number] = bytearray()
            self._outstanding_bytes += size
            numbers.append(number)
        need = FileNeed(
            transfer_id=self._meta.transfer_id,
            chunks=list(_ranges(numbers)),
            reused_bytes=self._reused_bytes if first else UNSET,
        )
        # With nothing to ask for, the sender still learns what is reused.
        told = first and self._reused_bytes
        return [SendControl(need)] if numbers or told else []

    def _complete_if_done(self) -> list[Instruction]:
        if self._open_files or self.state is not ReceiverState.RECEIVING:
            return []
        self.state = ReceiverState.COMPLETE
        done = FileDone(transfer_id=self._meta.transfer_id)
        return [SendControl(done), Completed()]

    def _fail(self, error: RtcError) -> list[Instruction]:
        self.state = ReceiverState.FAILED
        self._arriving.clear()
        done = FileDone(transfer_id=self._meta.transfer_id, error=error.to_wire())
        return [SendControl(done), Failed(error)]

    def _arrived(self, number: int, data: bytes) -> StoreChunk:
        """A chunk is whole; it stays in the window until it is stored."""
        del self._arriving[number]
        self._checking.add(number)
        return StoreChunk(number, data, self._requests.copies_of(number))

    def _settle(self, number: int) -> int:
        """A chunk left the window; return its size."""
        if number not in self._checking:
            raise LocalProtocolError(detail=f"chunk {number} was not being stored")
        self._checking.remove(number)
        size = self._size(number)
        self._outstanding_bytes -= size
        return size

    def _size(self, number: int) -> int:
        return self._known_manifest().chunk(number).size_bytes

    def _path_of(self, number: int) -> str:
        manifest = self._known_manifest()
        return manifest.files[manifest.chunk(number).file].path

    def _known_manifest(self) -> Manifest:
        if self._manifest is None:
            raise RemoteProtocolError(detail="chunks before the manifest")
        return self._manifest


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Join ascending runs into inclusive ranges, keeping the order."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last
