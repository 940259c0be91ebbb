"""The sending half of a file transfer: it sends what it is asked for, nothing else.

What is asked for waits in order; the driver pulls one piece of work at a time, so
that the sender holds one chunk in memory, or one frame of small ones. Pure; driven by
`transport.transfer_pump`.
"""

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from sleap_rtc_plugin.protocol.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    RtcError,
    from_wire,
)
from sleap_rtc_plugin.protocol.fragments import PACKED_HEADER_BYTES
from sleap_rtc_plugin.protocol.limits import (
    MAX_NEED_CHUNKS,
    MAX_NEED_RANGES,
    MAX_PACKED_CHUNK_BYTES,
    MAX_PACKED_CHUNKS,
    MAX_REPAIRS_PER_CHUNK,
    MAX_REPAIRS_PER_FILE,
)
from sleap_rtc_plugin.protocol.machine import Machine, Remote
from sleap_rtc_plugin.protocol.manifest import (
    DIGEST_BYTES,
    HOLE,
    ChunkInfo,
    FileEntry,
    Manifest,
)
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed

__all__ = [
    "Delivered",
    "NeedReceived",
    "Offer",
    "Offered",
    "ReceiverEnded",
    "SenderState",
    "SourceBroke",
    "TransferFailed",
    "TransferSender",
    "WorkReady",
]


class SenderState(StrEnum):
    """Where a sender stands."""

    IDLE = "idle"
    OFFERED = "offered"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Offer:
    """Offer the files now."""


@dataclass(frozen=True)
class NeedReceived(Remote):
    """The receiver asks."""

    message: FileNeed


@dataclass(frozen=True)
class ReceiverEnded(Remote):
    """The receiver has everything, or gave up."""

    message: FileDone


@dataclass(frozen=True)
class SourceBroke:
    """A file could not be read, or is no longer what the manifest says."""

    error: RtcError


Event = Offer | NeedReceived | ReceiverEnded | SourceBroke


@dataclass(frozen=True)
class Offered:
    """Send this on the control channel."""

    message: FileMeta | FileDone


@dataclass(frozen=True)
class WorkReady:
    """`next_work` has something to do."""


@dataclass(frozen=True)
class Delivered:
    """The receiver verified every file and put it in place."""


@dataclass(frozen=True)
class TransferFailed:
    """The transfer has ended without that."""

    error: RtcError


Instruction = Offered | WorkReady | Delivered | TransferFailed


class TransferSender(Machine[SenderState, Event, Instruction]):
    """One outgoing transfer."""

    TABLE: ClassVar = {
        SenderState.IDLE: {Offer: "_offer"},
        SenderState.OFFERED: {
            NeedReceived: "_need_received",
            ReceiverEnded: "_receiver_ended",
            SourceBroke: "_source_broke",
        },
        SenderState.DELIVERED: {
            # Whoever waited for the files may give up just when they are there.
            ReceiverEnded: "_ignore",
            SourceBroke: "_ignore",
        },
        SenderState.FAILED: {
            # A request may cross our own end of the transfer on the wire.
            NeedReceived: "_ignore",
            ReceiverEnded: "_ignore",
            SourceBroke: "_ignore",
        },
    }

    def __init__(self, meta: FileMeta, manifest: Manifest) -> None:
        """Prepare to offer `manifest` as `meta` describes it."""
        super().__init__(SenderState.IDLE)
        self._meta = meta
        self._manifest = manifest
        self._wanted: deque[tuple[int, int]] = deque()
        self._manifest_wanted = False
        self._manifest_requests = 0
        self._requests: Counter[int] = Counter()
        self.reused_bytes = 0
        self.sent_bytes = 0

    @property
    def meta(self) -> FileMeta:
        """The offer."""
        return self._meta

    def next_work(self) -> ChunkInfo | Manifest | None:
        """Take the next thing to send: the manifest, a chunk, or nothing for now."""
        if self.state is not SenderState.OFFERED:
            return None
        if self._manifest_wanted:
            self._manifest_wanted = False
            return self._manifest
        if not self._wanted:
            return None
        return self._take()

    def pack_with(self, first: ChunkInfo, frame_bytes: int) -> list[ChunkInfo]:
        """Take what may travel in one packed frame with a chunk that was taken.

        Only small chunks do, those that were asked for right after `first`, and only
        up to `frame_bytes` together. Returns them all, or `first` alone.
        """
        chunks = [first]
        if first.size_bytes > MAX_PACKED_CHUNK_BYTES:
            return chunks
        room_bytes = frame_bytes - PACKED_HEADER_BYTES - first.size_bytes
        while self._wanted and len(chunks) < MAX_PACKED_CHUNKS:
            size_bytes = self._manifest.chunk(self._wanted[0][0]).size_bytes
            room_bytes -= PACKED_HEADER_BYTES + size_bytes
            if size_bytes > MAX_PACKED_CHUNK_BYTES or room_bytes < 0:
                break
            chunks.append(self._take())
        return chunks

    def _take(self) -> ChunkInfo:
        first, last = self._wanted.popleft()
        if first < last:
            self._wanted.appendleft((first + 1, last))
        return self._manifest.chunk(first)

    def chunk_sent(self, size_bytes: int) -> None:
        """Count a chunk that was handed to the channel."""
        self.sent_bytes += size_bytes

    def _ignore(self, event: Event, now: float) -> list[Instruction]:
        return []

    def _offer(self, event: Offer, now: float) -> list[Instruction]:
        if self._meta.total_bytes != self._manifest.total_bytes:
            raise LocalProtocolError(detail="an offer that differs from its manifest")
        self.state = SenderState.OFFERED
        return [Offered(self._meta)]

    def _need_received(self, event: NeedReceived, now: float) -> list[Instruction]:
        need = event.message
        if need.manifest:
            self._manifest_requests += 1
            if self._manifest_requests > 1 + MAX_REPAIRS_PER_FILE:
                raise RemoteProtocolError(detail="the manifest asked for again")
            self._manifest_wanted = True
        # What one request costs us is bounded, whatever its ranges claim.
        if sum(max(0, last - first + 1) for first, last in need.chunks) > (
            MAX_NEED_CHUNKS
        ):
            raise RemoteProtocolError(detail="too many chunks asked for at once")
        for first, last in need.chunks:
            self._want(first, last)
        if isinstance(need.reused_bytes, int):
            self.reused_bytes = min(need.reused_bytes, self._meta.total_bytes)
        return [WorkReady()]

    def _want(self, first: int, last: int) -> None:
        if not 0 <= first <= last < self._manifest.chunk_count or (
            _holds_hole(self._manifest, first, last)
        ):
            raise RemoteProtocolError(detail="a chunk that was not offered")
        if len(self._wanted) >= MAX_NEED_RANGES * 2:
            raise RemoteProtocolError(detail="more requests than can be kept")
        allowed = (1 + MAX_REPAIRS_PER_CHUNK) * (1 + MAX_REPAIRS_PER_FILE)
        for number in range(first, last + 1):
            self._requests[number] += 1
            if self._requests[number] > allowed:
                raise RemoteProtocolError(detail="a chunk asked for without end")
        self._wanted.append((first, last))

    def _receiver_ended(self, event: ReceiverEnded, now: float) -> list[Instruction]:
        self._wanted.clear()
        if event.message.error is not None:
            self.state = SenderState.FAILED
            return [TransferFailed(from_wire(event.message.error))]
        self.state = SenderState.DELIVERED
        return [Delivered()]

    def _source_broke(self, event: SourceBroke, now: float) -> list[Instruction]:
        self.state = SenderState.FAILED
        self._wanted.clear()
        done = FileDone(transfer_id=self._meta.transfer_id, error=event.error.to_wire())
        return [Offered(done), TransferFailed(event.error)]


def _holds_hole(manifest: Manifest, first: int, last: int) -> bool:
    """Tell whether some chunk of a range is a hole, which is offered to nobody."""
    number = first
    while number <= last:
        file = manifest.chunk(number).file
        chunks = manifest.chunks_of(file)
        end = min(last + 1, chunks.stop)
        if _is_hole_among(
            manifest.files[file], number - chunks.start, end - chunks.start
        ):
            return True
        number = end
    return False


def _is_hole_among(entry: FileEntry, begin: int, end: int) -> bool:
    """Look through a file's packed digests, from chunk `begin` to before `end`."""
    at = begin * DIGEST_BYTES
    while (at := entry.chunk_digests.find(HOLE, at, end * DIGEST_BYTES)) >= 0:
        into = at % DIGEST_BYTES
        if not into:
            return True
        # The zeros of two digests side by side are none.
        at += DIGEST_BYTES - into
    return False
