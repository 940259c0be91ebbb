"""Every state machine of the protocol, in every state, with a sample of every event.

A state is reached by real events, so that what the table promises is tried on a
machine that is truly there. Used by the exhaustive and the random tests alike.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from blake3 import blake3
from support import wire_samples

from sleap_rtc_plugin.protocol import job as jobs
from sleap_rtc_plugin.protocol import signaling_messages as wire
from sleap_rtc_plugin.protocol import signaling_session as sessions
from sleap_rtc_plugin.protocol import transfer_receiver as receiving
from sleap_rtc_plugin.protocol import transfer_sender as sending
from sleap_rtc_plugin.protocol.errors import (
    JobLost,
    RuntimeExceeded,
    StepFailed,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.fragments import Fragment, Pack
from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, Manifest, pack_chunks
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed

BROKEN: Final = StorageFailed(place="/data", reason="it is gone")
STEP_FAILED: Final = StepFailed(step="Training", reason="it crashed", last_lines="")
RUNNER_GONE: Final = JobLost(job_id=wire_samples.JOB, reason="its runner is gone")


@dataclass(frozen=True)
class Kind:
    """One kind of machine.

    Attributes:
        name: for the tests' names.
        machine: its class.
        states: its enum.
        make: builds one at its beginning.
        paths: for each state, events that lead there.
        events: samples of each event.
    """

    name: str
    machine: type
    states: type[Enum]
    make: Callable[[], Any]
    paths: dict[Any, list[Any]]
    events: list[Any]

    def at(self, state: Enum) -> Any:
        """Return a machine that has come to `state`."""
        machine = self.make()
        for event in self.paths[state]:
            machine.handle(event, 0.0)
        assert machine.state is state, (machine.state, state)
        return machine


# -- transfers ----------------------------------------------------------------------


def entry(path: str, *chunks: bytes, holes: Collection[int] = ()) -> FileEntry:
    """Return the manifest entry of a file made of these chunks, some of them holes."""
    data = b"".join(chunks)
    packed, digests = pack_chunks(
        [len(chunk) for chunk in chunks],
        [HOLE if n in holes else blake3(c).digest() for n, c in enumerate(chunks)],
    )
    return FileEntry(path, len(data), blake3(data).digest(), packed, digests)


CHUNKS: Final = [b"aaaa", b"bb", b"ccc"]
MANIFEST: Final = Manifest(
    [entry("one", CHUNKS[0], CHUNKS[1]), entry("two", CHUNKS[2]), entry("empty")]
)
# Chunk 1 is a hole; 2 and 3 are the same bytes, in two files.
HOLED_CHUNKS: Final = [b"aaaa", bytes(5), b"bb", b"bb"]
HOLED_MANIFEST: Final = Manifest(
    [entry("holed", *HOLED_CHUNKS[:3], holes=[1]), entry("same", HOLED_CHUNKS[3])]
)


def meta_of(manifest: Manifest) -> FileMeta:
    """Return the offer of a manifest."""
    data = manifest.encode()
    return FileMeta(
        transfer_id=wire_samples.TRANSFER,
        stream=1,
        job_id=wire_samples.JOB,
        purpose="package",
        manifest_bytes=len(data),
        manifest_digest=blake3(data).hexdigest(),
        total_bytes=manifest.total_bytes,
        file_count=len(manifest.files),
    )


META: Final = meta_of(MANIFEST)
HOLED_META: Final = meta_of(HOLED_MANIFEST)
DONE: Final = FileDone(transfer_id=META.transfer_id)
GAVE_UP: Final = FileDone(transfer_id=META.transfer_id, error=BROKEN.to_wire())


def manifest_arrives(manifest: Manifest) -> receiving.FragmentReceived:
    """Return the event of a whole manifest in one fragment."""
    return receiving.FragmentReceived(
        Fragment(1, 0, 0, manifest.encode(), is_manifest=True)
    )


def chunk_arrives(
    number: int, chunks: Sequence[bytes] = CHUNKS
) -> receiving.FragmentReceived:
    """Return the event of a whole chunk in one fragment."""
    return receiving.FragmentReceived(
        Fragment(1, number, 0, chunks[number], is_manifest=False)
    )


def pack_arrives(
    *numbers: int, chunks: Sequence[bytes] = CHUNKS
) -> receiving.PackReceived:
    """Return the event of several whole chunks in one frame."""
    return receiving.PackReceived(Pack(1, tuple((n, chunks[n]) for n in numbers)))


WHOLE_MANIFEST: Final = manifest_arrives(MANIFEST)
NOTHING_HERE: Final = receiving.InventoryTaken(frozenset(), frozenset())


def _receiver(
    name: str, meta: FileMeta, manifest: Manifest, chunks: Sequence[bytes]
) -> Kind:
    files = range(len(manifest.files))
    to_inventory = [
        receiving.Begin(),
        manifest_arrives(manifest),
        receiving.ManifestAccepted(manifest),
    ]
    return Kind(
        name=name,
        machine=receiving.TransferReceiver,
        states=receiving.ReceiverState,
        make=lambda: receiving.TransferReceiver(meta),
        paths={
            receiving.ReceiverState.IDLE: [],
            receiving.ReceiverState.MANIFEST: [receiving.Begin()],
            receiving.ReceiverState.INVENTORY: to_inventory,
            receiving.ReceiverState.RECEIVING: [*to_inventory, NOTHING_HERE],
            receiving.ReceiverState.COMPLETE: [
                *to_inventory,
                receiving.InventoryTaken(frozenset(), frozenset(files)),
            ],
            receiving.ReceiverState.FAILED: [
                *to_inventory,
                receiving.StorageBroke(BROKEN),
            ],
        },
        events=[
            receiving.Begin(),
            receiving.Begin(manifest.encode()),
            manifest_arrives(manifest),
            *(chunk_arrives(number, chunks) for number in range(len(chunks))),
            pack_arrives(0, 2, chunks=chunks),
            pack_arrives(1, 1, chunks=chunks),
            receiving.ManifestAccepted(manifest),
            NOTHING_HERE,
            receiving.InventoryTaken(frozenset({0, 1}), frozenset({files[1]})),
            *map(receiving.ChunkStored, range(len(chunks))),
            *map(receiving.ChunkCorrupt, range(len(chunks))),
            *map(receiving.FileFinished, files),
            *map(receiving.FileCorrupt, files),
            receiving.StorageBroke(BROKEN),
            receiving.SenderEnded(GAVE_UP),
            receiving.SenderEnded(DONE),
            receiving.TimedOut(),
        ],
    )


def _sender(name: str, meta: FileMeta, manifest: Manifest) -> Kind:
    def need(*chunks: tuple[int, int], **more: Any) -> sending.NeedReceived:
        return sending.NeedReceived(
            FileNeed(transfer_id=meta.transfer_id, chunks=list(chunks), **more)
        )

    return Kind(
        name=name,
        machine=sending.TransferSender,
        states=sending.SenderState,
        make=lambda: sending.TransferSender(meta, manifest),
        paths={
            sending.SenderState.IDLE: [],
            sending.SenderState.OFFERED: [sending.Offer()],
            sending.SenderState.DELIVERED: [
                sending.Offer(),
                sending.ReceiverEnded(DONE),
            ],
            sending.SenderState.FAILED: [sending.Offer(), sending.SourceBroke(BROKEN)],
        },
        events=[
            sending.Offer(),
            need(manifest=True),
            need(reused_bytes=4),
            need((0, 2)),
            need((0, 0), (2, 2)),
            need((2, manifest.chunk_count)),
            need((2, 1)),
            sending.ReceiverEnded(DONE),
            sending.ReceiverEnded(GAVE_UP),
            sending.SourceBroke(BROKEN),
        ],
    )


RECEIVER: Final = _receiver("receiver", META, MANIFEST, CHUNKS)
HOLED_RECEIVER: Final = _receiver(
    "holed-receiver", HOLED_META, HOLED_MANIFEST, HOLED_CHUNKS
)
SENDER: Final = _sender("sender", META, MANIFEST)
HOLED_SENDER: Final = _sender("holed-sender", HOLED_META, HOLED_MANIFEST)

# -- jobs ---------------------------------------------------------------------------

_RUN: Final = [jobs.StagingBegan(), jobs.PackageStaged(), jobs.SlotGranted()]
_COLLECT: Final = [
    *_RUN,
    *[jobs.StepRunning(), jobs.StepEnded(None)] * 3,
]

JOB: Final = Kind(
    name="job",
    machine=jobs.Job,
    states=jobs.JobState,
    make=lambda: jobs.Job(wire_samples.JOB, wire_samples.SPEC),
    paths={
        jobs.JobState.SUBMITTED: [],
        jobs.JobState.STAGING: _RUN[:1],
        jobs.JobState.QUEUED: _RUN[:2],
        jobs.JobState.STARTING: _RUN,
        jobs.JobState.RUNNING: [*_RUN, jobs.StepRunning()],
        jobs.JobState.STOPPING: [*_RUN, jobs.StopRequested("step")],
        jobs.JobState.CANCELLING: [*_RUN, jobs.CancelRequested()],
        jobs.JobState.COLLECTING: _COLLECT,
        jobs.JobState.SUCCEEDED: [*_COLLECT, jobs.ResultsCollected()],
        jobs.JobState.FAILED: [
            *_RUN,
            jobs.StepEnded(STEP_FAILED),
            jobs.ResultsCollected(),
        ],
        jobs.JobState.CANCELLED: [jobs.CancelRequested()],
        jobs.JobState.REJECTED: [jobs.PackageRefused(BROKEN)],
        jobs.JobState.LOST: [
            *_RUN,
            jobs.RunnerLost(RUNNER_GONE),
            jobs.ResultsCollected(),
        ],
    },
    events=[
        jobs.StagingBegan(),
        jobs.PackageStaged(),
        jobs.PackageRefused(BROKEN),
        jobs.SlotGranted(),
        jobs.StepRunning(),
        jobs.StepEnded(None),
        jobs.StepEnded(STEP_FAILED),
        jobs.StepInterrupted(),
        jobs.RunnerLost(RUNNER_GONE),
        jobs.StopRequested("step"),
        jobs.StopRequested("job"),
        jobs.LimitReached(RuntimeExceeded(job_id="job-1", limit="12 h")),
        jobs.CancelRequested(),
        jobs.ResultsCollected(),
        jobs.CollectingFailed(BROKEN),
    ],
)

# -- signaling sessions -------------------------------------------------------------

SERVER: Final = "http://gpu-1:8080"
REGISTER: Final = wire.Register(
    id="c-register",
    room_id="room-1",
    token="a.b.c",
    peer_id="client-1",
    role="client",
    resume_key="k" * 32,
)
REGISTERED: Final = sessions.Received(
    wire.Registered(
        id="c-register", peer_id="client-1", room_id="room-1", expires_at=7200.0
    )
)


def session(*, keep_trying: bool = True, jitter: float = 0.5) -> Any:
    """Return a signaling session at its beginning."""
    return sessions.SignalingSession(
        REGISTER,
        server=SERVER,
        backoff=sessions.Backoff(lambda: jitter),
        keep_trying=keep_trying,
    )


_TO_READY: Final = [sessions.Started(), sessions.Connected(), REGISTERED]

SESSION: Final = Kind(
    name="session",
    machine=sessions.SignalingSession,
    states=sessions.SessionState,
    make=session,
    paths={
        sessions.SessionState.IDLE: [],
        sessions.SessionState.CONNECTING: _TO_READY[:1],
        sessions.SessionState.REGISTERING: _TO_READY[:2],
        sessions.SessionState.READY: _TO_READY,
        sessions.SessionState.WAITING: [*_TO_READY, sessions.Lost("it broke", 1006)],
        sessions.SessionState.CLOSED: [*_TO_READY, sessions.Stopped()],
    },
    events=[
        sessions.Started(),
        sessions.Connected(),
        sessions.ConnectFailed("connection refused"),
        sessions.Lost("it broke", 1006),
        sessions.Lost("the room has ended", 4410),
        REGISTERED,
        *[sessions.Received(message) for message in wire_samples.FROM_SERVER],
        *[sessions.CommandAsked(m) for m in wire_samples.FROM_CLIENT[2:5]],
        sessions.Ticked(),
        sessions.Stopped(),
    ],
)

KINDS: Final = [RECEIVER, HOLED_RECEIVER, SENDER, HOLED_SENDER, JOB, SESSION]
