"""The receiving half, event by event."""

import msgspec
import pytest
from msgspec import UNSET
from support.machines import (
    BROKEN,
    CHUNKS,
    GAVE_UP,
    MANIFEST,
    META,
    NOTHING_HERE,
    RECEIVER,
    WHOLE_MANIFEST,
    chunk_arrives,
    entry,
    meta_of,
    pack_arrives,
)

from sleap_rtc_plugin.protocol import transfer_receiver as module
from sleap_rtc_plugin.protocol.errors import (
    DigestMismatch,
    RemoteProtocolError,
    TransferStalled,
)
from sleap_rtc_plugin.protocol.fragments import Fragment, Pack
from sleap_rtc_plugin.protocol.limits import (
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
    MAX_REPAIRS_PER_CHUNK,
    MAX_REPAIRS_PER_FILE,
    TRANSFER_STALL_TIMEOUT_S,
)
from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, Manifest, pack_chunks
from sleap_rtc_plugin.protocol.messages import FileDone, FileNeed
from sleap_rtc_plugin.protocol.transfer_receiver import (
    Begin,
    CheckManifest,
    ChunkCorrupt,
    ChunkStored,
    Completed,
    Failed,
    FileCorrupt,
    FileFinished,
    FinishFile,
    FragmentReceived,
    InventoryTaken,
    ManifestAccepted,
    PackReceived,
    ReceiverState,
    SendControl,
    SenderEnded,
    StorageBroke,
    StoreChunk,
    TakeInventory,
    TimedOut,
    TransferReceiver,
)

FILES = len(MANIFEST.files)


def receiving(*events) -> TransferReceiver:
    made = RECEIVER.at(ReceiverState.RECEIVING)
    feed(made, *events)
    return made


def feed(machine: TransferReceiver, *events, now: float = 0.0) -> list:
    instructions: list = []
    for event in events:
        instructions += machine.handle(event, now)
    return instructions


def needs(instructions: list) -> list[FileNeed]:
    return [
        i.message
        for i in instructions
        if isinstance(i, SendControl) and isinstance(i.message, FileNeed)
    ]


def failure(instructions: list) -> object:
    done, failed = instructions
    assert isinstance(done, SendControl)
    assert isinstance(done.message, FileDone)
    assert done.message.error == failed.error.to_wire()
    return failed.error


def fragment(number: int, offset: int, data: bytes, *, is_manifest: bool = False):
    return FragmentReceived(Fragment(1, number, offset, data, is_manifest))


def test_a_whole_transfer() -> None:
    made = TransferReceiver(META)
    [need] = needs(feed(made, Begin()))
    assert need.manifest
    assert feed(made, WHOLE_MANIFEST) == [CheckManifest(MANIFEST.encode())]
    assert feed(made, ManifestAccepted(MANIFEST)) == [TakeInventory(MANIFEST)]
    instructions = feed(made, NOTHING_HERE)
    assert instructions[0] == FinishFile(2)
    [need] = needs(instructions)
    assert need.chunks == [(0, 2)]
    assert need.reused_bytes == 0
    for number in range(3):
        assert feed(made, chunk_arrives(number)) == [StoreChunk(number, CHUNKS[number])]
    assert feed(made, ChunkStored(0), FileFinished(2)) == []
    assert feed(made, ChunkStored(2)) == [FinishFile(1)]
    assert feed(made, ChunkStored(1)) == [FinishFile(0)]
    assert feed(made, FileFinished(0)) == []
    done = SendControl(FileDone(transfer_id=META.transfer_id))
    assert feed(made, FileFinished(1)) == [done, Completed()]
    progress = made.progress
    assert progress.total_bytes == progress.stored_bytes == progress.received_bytes == 9
    assert progress.reused_bytes == 0
    assert made.deadline() is None


def test_a_manifest_of_nothing_completes_at_once() -> None:
    nothing = Manifest([])
    made = TransferReceiver(meta_of(nothing))
    data = fragment(0, 0, nothing.encode(), is_manifest=True)
    feed(made, Begin(), data, ManifestAccepted(nothing))
    assert feed(made, NOTHING_HERE)[-1] == Completed()


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest_bytes": 0},
        {"manifest_bytes": MAX_MANIFEST_BYTES + 1},
        {"total_bytes": MAX_PACKAGE_BYTES + 1},
        {"file_count": MAX_PACKAGE_FILES + 1},
    ],
    ids=str,
)
def test_an_offer_larger_than_any_package(changes: dict[str, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        TransferReceiver(msgspec.structs.replace(META, **changes))


# -- the manifest -------------------------------------------------------------------


def test_a_manifest_in_pieces() -> None:
    data = MANIFEST.encode()
    made = RECEIVER.at(ReceiverState.MANIFEST)
    assert feed(made, fragment(0, 0, data[:50], is_manifest=True)) == []
    checked = feed(made, fragment(0, 50, data[50:], is_manifest=True))
    assert checked == [CheckManifest(data)]


@pytest.mark.parametrize(
    "event",
    [
        fragment(0, 0, MANIFEST.encode()),
        fragment(0, 1, MANIFEST.encode(), is_manifest=True),
        fragment(0, 0, MANIFEST.encode() + b"x", is_manifest=True),
        chunk_arrives(0),
    ],
)
def test_what_is_no_piece_of_the_manifest(event: FragmentReceived) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(RECEIVER.at(ReceiverState.MANIFEST), event)


def test_a_manifest_sent_twice_is_the_peers_fault() -> None:
    made = RECEIVER.at(ReceiverState.MANIFEST)
    feed(made, WHOLE_MANIFEST)
    with pytest.raises(RemoteProtocolError):
        feed(made, WHOLE_MANIFEST)


@pytest.mark.parametrize("changes", [{"total_bytes": 8}, {"file_count": 4}], ids=str)
def test_a_manifest_that_differs_from_its_offer(changes: dict[str, int]) -> None:
    made = TransferReceiver(msgspec.structs.replace(META, **changes))
    feed(made, Begin(), WHOLE_MANIFEST)
    with pytest.raises(RemoteProtocolError):
        feed(made, ManifestAccepted(MANIFEST))


# -- a manifest that came before ----------------------------------------------------


def test_a_manifest_that_is_known_is_not_asked_for() -> None:
    made = TransferReceiver(META)
    assert feed(made, Begin(MANIFEST.encode())) == [CheckManifest(MANIFEST.encode())]
    assert made.deadline() is None
    assert feed(made, ManifestAccepted(MANIFEST)) == [TakeInventory(MANIFEST)]


def test_a_known_manifest_of_another_size_is_asked_for() -> None:
    [need] = needs(feed(TransferReceiver(META), Begin(MANIFEST.encode() + b"x")))
    assert need.manifest


def test_a_manifest_that_nobody_asked_for() -> None:
    made = TransferReceiver(META)
    feed(made, Begin(MANIFEST.encode()))
    with pytest.raises(RemoteProtocolError):
        feed(made, WHOLE_MANIFEST)


# -- holes and equal chunks ---------------------------------------------------------


def offered(*entries: FileEntry) -> TransferReceiver:
    manifest = Manifest(list(entries))
    made = TransferReceiver(meta_of(manifest))
    feed(made, Begin(manifest.encode()), ManifestAccepted(manifest))
    return made


def with_hole(path: str, hole_bytes: int, *chunks: bytes) -> FileEntry:
    """Return a file that begins with a hole."""
    rest = entry(path, *chunks)
    sizes, digests = pack_chunks([hole_bytes], [HOLE])
    return FileEntry(
        path,
        hole_bytes + rest.size_bytes,
        b"w" * 32,
        sizes + rest.chunk_sizes,
        digests + rest.chunk_digests,
    )


def test_holes_are_never_asked_for() -> None:
    huge = 2**32 - 1
    made = offered(with_hole("some", 10, b"aa"), with_hole("all", huge))
    instructions = feed(made, NOTHING_HERE)
    assert instructions[0] == FinishFile(1)
    [need] = needs(instructions)
    assert need.chunks == [(1, 1)]
    assert need.reused_bytes == 10 + huge
    assert made.progress.stored_bytes == 10 + huge
    with pytest.raises(RemoteProtocolError):
        feed(made, fragment(0, 0, b"a"))


def test_a_corrupt_file_with_a_hole_is_fetched_again_without_it() -> None:
    made = offered(with_hole("some", 10, b"aa"))
    feed(made, NOTHING_HERE, fragment(1, 0, b"aa"), ChunkStored(1))
    assert made.progress.stored_bytes == 12
    [need] = needs(feed(made, FileCorrupt(0)))
    assert need.chunks == [(1, 1)]
    assert made.progress.stored_bytes == 10


def test_a_hole_with_a_wrong_digest_fails_at_once() -> None:
    made = offered(with_hole("all", 10))
    feed(made, NOTHING_HERE)
    assert isinstance(failure(feed(made, FileCorrupt(0))), DigestMismatch)


def test_equal_chunks_are_asked_for_once() -> None:
    made = offered(entry("one", b"aa", b"b", b"aa"), entry("two", b"aa"))
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 1)]
    assert need.reused_bytes == 4
    assert made.progress.stored_bytes == 0
    [store] = feed(made, fragment(0, 0, b"aa"))
    assert (store.number, store.data, list(store.copies)) == (0, b"aa", [2, 3])
    assert feed(made, ChunkStored(0)) == [FinishFile(1)]
    assert made.progress.stored_bytes == 6
    feed(made, fragment(1, 0, b"b"))
    assert feed(made, ChunkStored(1)) == [FinishFile(0)]
    progress = made.progress
    assert progress.reused_bytes + progress.received_bytes == progress.total_bytes == 7
    assert progress.stored_bytes == 7


def test_a_corrupt_chunk_is_asked_for_again_with_its_copies() -> None:
    made = offered(entry("one", b"aa", b"aa"))
    feed(made, NOTHING_HERE)
    for _ in range(2):
        [store] = feed(made, fragment(0, 0, b"xx"))
        assert list(store.copies) == [1]
        feed(made, ChunkCorrupt(0))
    feed(made, fragment(0, 0, b"aa"))
    assert feed(made, ChunkStored(0)) == [FinishFile(0)]


def test_a_corrupt_file_takes_its_copies_along_and_nobody_elses() -> None:
    made = offered(entry("one", b"aa"), entry("two", b"aa", b"aa"))
    feed(made, NOTHING_HERE, fragment(0, 0, b"aa"))
    assert set(feed(made, ChunkStored(0))) == {FinishFile(0), FinishFile(1)}
    feed(made, FileFinished(0))
    [need] = needs(feed(made, FileCorrupt(1)))
    assert need.chunks == [(1, 1)]
    [store] = feed(made, fragment(1, 0, b"aa"))
    assert list(store.copies) == [2]
    assert feed(made, ChunkStored(1)) == [FinishFile(1)]
    assert made.progress.stored_bytes == 6
    assert feed(made, FileFinished(1))[-1] == Completed()


def test_only_what_is_missing_is_a_copy() -> None:
    made = offered(entry("one", b"aa", b"aa", b"aa"))
    here = InventoryTaken(frozenset({0}), frozenset())
    [need] = needs(feed(made, here))
    assert need.chunks == [(1, 1)]
    assert need.reused_bytes == 4


def test_one_digest_with_two_sizes_is_two_chunks() -> None:
    lie = entry("one", b"aa", b"aa")
    sizes, _ = pack_chunks([2, 1], [])
    made = offered(FileEntry("one", 3, lie.digest, sizes, lie.chunk_digests))
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 1)]


def test_a_million_equal_chunks_are_one() -> None:
    count = 900_000
    sizes, digests = pack_chunks([1], [b"d" * 32])
    made = offered(FileEntry("one", count, b"w" * 32, sizes * count, digests * count))
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 0)]
    [store] = feed(made, fragment(0, 0, b"x"))
    assert len(store.copies) == count - 1
    assert feed(made, ChunkStored(0)) == [FinishFile(0)]
    assert made.progress.stored_bytes == count


# -- what is here already -----------------------------------------------------------


def test_only_what_is_missing_is_asked_for() -> None:
    made = RECEIVER.at(ReceiverState.INVENTORY)
    here = InventoryTaken(frozenset({0}), frozenset({1, 2}))
    [need] = needs(feed(made, here))
    assert need.chunks == [(1, 1)]
    assert need.reused_bytes == 7
    assert made.progress.reused_bytes == 7


def test_a_file_with_every_chunk_is_only_finished() -> None:
    made = RECEIVER.at(ReceiverState.INVENTORY)
    here = InventoryTaken(frozenset({0, 1, 2}), frozenset())
    instructions = feed(made, here)
    finish = [i for i in instructions if isinstance(i, FinishFile)]
    assert finish == [FinishFile(0), FinishFile(1), FinishFile(2)]
    assert feed(made, *map(FileFinished, range(3)))[-1] == Completed()


@pytest.mark.parametrize(
    "here",
    [
        InventoryTaken(frozenset({0, 1, 2}), frozenset()),
        InventoryTaken(frozenset(), frozenset({0, 1, 2})),
    ],
    ids=["chunks", "files"],
)
def test_the_sender_learns_that_everything_is_reused(here: InventoryTaken) -> None:
    made = RECEIVER.at(ReceiverState.INVENTORY)
    [need] = needs(feed(made, here))
    assert need.reused_bytes == META.total_bytes
    assert need.chunks == []


# -- the window ---------------------------------------------------------------------


def windowed(monkeypatch: pytest.MonkeyPatch, window: int, *sizes: int):
    monkeypatch.setattr(module, "REQUEST_WINDOW_BYTES", window)
    chunks = [bytes([i]) * size for i, size in enumerate(sizes)]
    manifest = Manifest([entry("file", *chunks)])
    made = TransferReceiver(meta_of(manifest))
    data = fragment(0, 0, manifest.encode(), is_manifest=True)
    feed(made, Begin(), data, ManifestAccepted(manifest))
    return made, chunks


def test_no_more_than_the_window_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, chunks = windowed(monkeypatch, 4, 1, 1, 1, 1, 1, 1)
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 3)]
    for n in range(4):
        feed(made, fragment(n, 0, chunks[n]))
    assert made.buffered_bytes == 0
    assert needs(feed(made, ChunkStored(0))) == []
    [need] = needs(feed(made, ChunkStored(1)))
    assert need.chunks == [(4, 5)]
    assert need.reused_bytes is UNSET


def test_no_more_chunks_than_so_many_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiny chunks cost as much as others, whatever window of bytes they leave."""
    made, chunks = windowed(monkeypatch, 1000, 1, 1, 1, 1, 1, 1)
    monkeypatch.setattr(module, "REQUEST_WINDOW_CHUNKS", 4)
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 3)]
    for n in range(4):
        feed(made, fragment(n, 0, chunks[n]))
    assert needs(feed(made, ChunkStored(0))) == []
    [need] = needs(feed(made, ChunkStored(1)))
    assert need.chunks == [(4, 5)]


def test_a_chunk_larger_than_the_window_is_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, chunks = windowed(monkeypatch, 4, 9, 9)
    [need] = needs(feed(made, NOTHING_HERE))
    assert need.chunks == [(0, 0)]
    feed(made, fragment(0, 0, chunks[0]))
    [need] = needs(feed(made, ChunkStored(0)))
    assert need.chunks == [(1, 1)]


def test_buffered_bytes() -> None:
    made = receiving()
    feed(made, fragment(0, 0, b"aa"), fragment(1, 0, b"b"))
    assert made.buffered_bytes == 3
    feed(made, fragment(0, 2, b"aa"))
    assert made.buffered_bytes == 1


@pytest.mark.parametrize(
    "event",
    [
        fragment(3, 0, b"x"),
        fragment(0, 1, b"a"),
        fragment(0, 0, b"aaaaa"),
        fragment(0, 0, b"aaaa", is_manifest=True),
        fragment(2**32 - 1, 0, b"x"),
    ],
)
def test_a_fragment_nobody_asked_for(event: FragmentReceived) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(receiving(), event)


def test_small_chunks_that_arrive_together() -> None:
    made = receiving()
    assert feed(made, pack_arrives(2, 0)) == [
        StoreChunk(2, CHUNKS[2]),
        StoreChunk(0, CHUNKS[0]),
    ]
    assert made.progress.received_bytes == len(CHUNKS[0] + CHUNKS[2])
    assert made.buffered_bytes == 0
    # The others are still asked for, and nothing that came comes again.
    assert feed(made, chunk_arrives(1)) == [StoreChunk(1, CHUNKS[1])]
    with pytest.raises(RemoteProtocolError):
        feed(made, pack_arrives(2))


@pytest.mark.parametrize(
    "chunks",
    [
        [(3, b"x")],
        [(2**32 - 1, b"x")],
        [(0, b"aaa")],
        [(0, b"aaaaa")],
        [(2, b"ccc"), (2, b"ccc")],
        [(0, b"aaaa"), (1, b"b")],
    ],
    ids=str,
)
def test_a_pack_nobody_asked_for(chunks: list[tuple[int, bytes]]) -> None:
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        feed(receiving(), PackReceived(Pack(1, tuple(chunks))))


def test_a_pack_holds_nothing_that_has_begun_to_arrive() -> None:
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        feed(receiving(), fragment(0, 0, b"aa"), pack_arrives(0))


def test_a_chunk_sent_again_while_it_is_stored() -> None:
    made = receiving(chunk_arrives(0))
    with pytest.raises(RemoteProtocolError):
        feed(made, chunk_arrives(0))


# -- repair -------------------------------------------------------------------------


def test_a_corrupt_chunk_is_asked_for_again_at_once() -> None:
    made = receiving(chunk_arrives(1))
    [need] = needs(feed(made, ChunkCorrupt(1)))
    assert need.chunks == [(1, 1)]


def test_a_chunk_that_never_arrives_whole() -> None:
    made = receiving()
    for _ in range(MAX_REPAIRS_PER_CHUNK):
        [need] = needs(feed(made, chunk_arrives(1), ChunkCorrupt(1)))
        assert need.chunks == [(1, 1)]
    error = failure(feed(made, chunk_arrives(1), ChunkCorrupt(1))[1:])
    assert isinstance(error, DigestMismatch)
    assert error.path == "one"


def store_all(made: TransferReceiver) -> None:
    for number in range(3):
        feed(made, chunk_arrives(number), ChunkStored(number))


def test_a_corrupt_file_is_fetched_again_whole() -> None:
    made = receiving()
    store_all(made)
    [need] = needs(feed(made, FileCorrupt(0)))
    assert need.chunks == [(0, 1)]
    assert made.progress.stored_bytes == 3
    feed(made, chunk_arrives(0), ChunkStored(0), chunk_arrives(1))
    assert feed(made, ChunkStored(1)) == [FinishFile(0)]
    assert feed(made, *map(FileFinished, range(3)))[-1] == Completed()


def test_a_file_that_never_fits_its_digest() -> None:
    made = receiving()
    store_all(made)
    for _ in range(MAX_REPAIRS_PER_FILE):
        feed(made, FileCorrupt(1), chunk_arrives(2), ChunkStored(2))
    assert isinstance(failure(feed(made, FileCorrupt(1))), DigestMismatch)


def test_an_empty_file_with_a_wrong_digest_fails_at_once() -> None:
    assert isinstance(failure(feed(receiving(), FileCorrupt(2))), DigestMismatch)


# -- ends ---------------------------------------------------------------------------


def test_a_broken_disk_reaches_the_sender() -> None:
    made = receiving(chunk_arrives(0), fragment(1, 0, b"b"))
    assert failure(feed(made, StorageBroke(BROKEN))) is BROKEN
    assert made.buffered_bytes == 0
    late = [ChunkStored(0), ChunkCorrupt(0), FileFinished(2), chunk_arrives(1)]
    assert feed(made, *late, StorageBroke(BROKEN), TimedOut()) == []


@pytest.mark.parametrize("state", list(ReceiverState)[:4])
def test_a_sender_that_gives_up(state: ReceiverState) -> None:
    made = RECEIVER.at(state)
    [failed] = feed(made, SenderEnded(GAVE_UP))
    assert isinstance(failed, Failed)
    assert failed.error.to_wire() == GAVE_UP.error
    assert made.state is ReceiverState.FAILED
    assert made.buffered_bytes == 0
    assert made.deadline() is None


def test_a_sender_cannot_say_that_we_have_received() -> None:
    with pytest.raises(RemoteProtocolError):
        feed(receiving(), SenderEnded(FileDone(transfer_id=META.transfer_id)))


# -- silence ------------------------------------------------------------------------


@pytest.mark.parametrize("state", [ReceiverState.MANIFEST, ReceiverState.RECEIVING])
def test_silence_becomes_a_failure(state: ReceiverState) -> None:
    made = RECEIVER.at(state)
    due = made.deadline()
    assert due == TRANSFER_STALL_TIMEOUT_S
    assert feed(made, TimedOut(), now=due - 0.001) == []
    assert isinstance(failure(feed(made, TimedOut(), now=due)), TransferStalled)


def test_every_fragment_puts_the_deadline_off() -> None:
    made = receiving()
    feed(made, fragment(0, 0, b"a"), now=50.0)
    assert made.deadline() == 50.0 + TRANSFER_STALL_TIMEOUT_S
    assert feed(made, TimedOut(), now=TRANSFER_STALL_TIMEOUT_S) == []


def test_a_slow_disk_is_no_silence() -> None:
    made = receiving()
    for number in range(3):
        feed(made, chunk_arrives(number), now=1.0)
    assert made.deadline() is None
    # Long after, one turns out corrupt and is asked for again: only now does the
    # sender owe us something.
    later = 10 * TRANSFER_STALL_TIMEOUT_S
    assert needs(feed(made, ChunkCorrupt(1), now=later))
    assert made.deadline() == later + TRANSFER_STALL_TIMEOUT_S
    assert feed(made, TimedOut(), now=later + 1) == []
    assert made.state is ReceiverState.RECEIVING


def test_the_inventory_takes_as_long_as_it_takes() -> None:
    made = RECEIVER.at(ReceiverState.INVENTORY)
    assert made.deadline() is None
    feed(made, NOTHING_HERE, now=1000.0)
    assert made.deadline() == 1000.0 + TRANSFER_STALL_TIMEOUT_S
    assert FILES == 3
