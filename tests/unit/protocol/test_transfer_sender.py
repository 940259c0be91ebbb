"""The sending half: what is asked for, in order, and nothing else."""

import msgspec
import pytest
from support.machines import (
    BROKEN,
    DONE,
    GAVE_UP,
    HOLED_SENDER,
    MANIFEST,
    META,
    SENDER,
    entry,
)
from support.machines import meta_of as offer_of

from sleap_rtc_plugin.protocol.errors import LocalProtocolError, RemoteProtocolError
from sleap_rtc_plugin.protocol.limits import (
    FRAGMENT_BYTES,
    MAX_NEED_CHUNKS,
    MAX_NEED_RANGES,
    MAX_PACKED_CHUNK_BYTES,
    MAX_PACKED_CHUNKS,
    MAX_REPAIRS_PER_CHUNK,
    MAX_REPAIRS_PER_FILE,
)
from sleap_rtc_plugin.protocol.manifest import (
    HOLE,
    ChunkInfo,
    FileEntry,
    Manifest,
    pack_chunks,
)
from sleap_rtc_plugin.protocol.messages import FileDone, FileMeta, FileNeed
from sleap_rtc_plugin.protocol.transfer_sender import (
    Delivered,
    NeedReceived,
    Offer,
    Offered,
    ReceiverEnded,
    SenderState,
    SourceBroke,
    TransferFailed,
    TransferSender,
    WorkReady,
)


def offered() -> TransferSender:
    return SENDER.at(SenderState.OFFERED)


def need(*ranges: tuple[int, int], manifest: bool = False, **more) -> NeedReceived:
    return NeedReceived(
        FileNeed(
            transfer_id=META.transfer_id,
            manifest=manifest,
            chunks=list(ranges),
            **more,
        )
    )


def work(machine: TransferSender) -> list:
    done = []
    while (item := machine.next_work()) is not None:
        done.append(item if isinstance(item, Manifest) else item.number)
    return done


def test_offering() -> None:
    made = SENDER.make()
    assert made.meta is META
    assert made.handle(Offer(), 0.0) == [Offered(META)]
    assert work(made) == []


def test_work_comes_in_the_order_it_is_asked_for() -> None:
    made = offered()
    assert made.handle(need((1, 2)), 0.0) == [WorkReady()]
    made.handle(need((0, 0), manifest=True), 0.0)
    assert work(made) == [MANIFEST, 1, 2, 0]
    assert work(made) == []


def test_where_a_chunk_is() -> None:
    made = offered()
    made.handle(need((1, 1)), 0.0)
    chunk = made.next_work()
    assert (chunk.file, chunk.offset, chunk.size_bytes) == (0, 4, 2)


SIZES = [10, 20, MAX_PACKED_CHUNK_BYTES, MAX_PACKED_CHUNK_BYTES + 1, 30, 40]


def sized() -> TransferSender:
    """Offer chunks of the sizes above."""
    chunks = [bytes([number + 1]) * size for number, size in enumerate(SIZES)]
    manifest = Manifest([entry("some", *chunks)])
    made = TransferSender(offer_of(manifest), manifest)
    made.handle(Offer(), 0.0)
    return made


def packs(made: TransferSender, frame_bytes: int = FRAGMENT_BYTES) -> list[list[int]]:
    done = []
    while isinstance(first := made.next_work(), ChunkInfo):
        done.append([chunk.number for chunk in made.pack_with(first, frame_bytes)])
    return done


def test_small_chunks_that_were_asked_for_in_a_row_travel_together() -> None:
    made = sized()
    made.handle(need((0, 5)), 0.0)
    assert packs(made) == [[0, 1, 2], [3], [4, 5]]
    made.handle(need((4, 5), (0, 1)), 0.0)
    made.handle(need((5, 5)), 0.0)
    assert packs(made) == [[4, 5, 0, 1, 5]]


@pytest.mark.parametrize(
    ("frame_bytes", "expected"),
    [
        (1, [[0], [1], [4]]),
        (8 + 10 + 8 + 20 - 1, [[0], [1], [4]]),
        (8 + 10 + 8 + 20, [[0, 1], [4]]),
        (8 + 10 + 8 + 20 + 8 + 30, [[0, 1, 4]]),
    ],
)
def test_a_frame_of_small_chunks_is_no_larger_than_asked_for(
    frame_bytes: int, expected: list[list[int]]
) -> None:
    made = sized()
    made.handle(need((0, 1), (4, 4)), 0.0)
    assert packs(made, frame_bytes) == expected


def test_chunks_in_one_frame_are_bounded() -> None:
    chunks = [bytes([n % 256, n // 256]) for n in range(2 * MAX_PACKED_CHUNKS + 1)]
    manifest = Manifest([entry("many", *chunks)])
    made = TransferSender(offer_of(manifest), manifest)
    made.handle(Offer(), 0.0)
    made.handle(need((0, len(chunks) - 1)), 0.0)
    assert [len(pack) for pack in packs(made)] == [MAX_PACKED_CHUNKS] * 2 + [1]


def test_what_is_sent_and_what_was_there() -> None:
    made = offered()
    made.handle(need((0, 0), reused_bytes=4), 0.0)
    made.chunk_sent(4)
    made.chunk_sent(1)
    assert (made.sent_bytes, made.reused_bytes) == (5, 4)
    made.handle(need((0, 0)), 0.0)
    assert made.reused_bytes == 4
    made.handle(need(reused_bytes=10**12), 0.0)
    assert made.reused_bytes == META.total_bytes


@pytest.mark.parametrize(
    "ranges",
    [[(0, 3)], [(3, 3)], [(2, 1)], [(0, 2**32 - 1)], [(0, 1), (9, 9)]],
    ids=str,
)
def test_chunks_that_were_not_offered(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(RemoteProtocolError):
        offered().handle(need(*ranges), 0.0)


@pytest.mark.parametrize("ranges", [[(1, 1)], [(0, 1)], [(0, 3)], [(2, 2), (1, 2)]])
def test_a_hole_is_offered_to_nobody(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(RemoteProtocolError, match="not offered"):
        HOLED_SENDER.at(SenderState.OFFERED).handle(need(*ranges), 0.0)


def test_what_lies_around_a_hole_is_sent() -> None:
    made = HOLED_SENDER.at(SenderState.OFFERED)
    made.handle(need((0, 0), (2, 3)), 0.0)
    assert work(made) == [0, 2, 3]


def test_zeros_of_two_digests_are_no_hole() -> None:
    made = entry("file", b"a", b"b", b"c", b"d")
    digests = [b"a" * 20 + bytes(12), bytes(20) + b"b" * 12, HOLE, b"d" * 32]
    made = msgspec.structs.replace(made, chunk_digests=b"".join(digests))
    manifest = Manifest([made])
    sender = TransferSender(offer_of(manifest), manifest)
    sender.handle(Offer(), 0.0)
    sender.handle(need((0, 1), (3, 3)), 0.0)
    assert work(sender) == [0, 1, 3]
    with pytest.raises(RemoteProtocolError):
        sender.handle(need((1, 2)), 0.0)


def test_no_chunk_is_sent_without_end() -> None:
    made = offered()
    for _ in range((1 + MAX_REPAIRS_PER_CHUNK) * (1 + MAX_REPAIRS_PER_FILE)):
        made.handle(need((0, 0)), 0.0)
        assert work(made) == [0]
    with pytest.raises(RemoteProtocolError):
        made.handle(need((0, 0)), 0.0)


def test_the_manifest_is_not_sent_without_end() -> None:
    made = offered()
    for _ in range(1 + MAX_REPAIRS_PER_FILE):
        made.handle(need(manifest=True), 0.0)
    with pytest.raises(RemoteProtocolError):
        made.handle(need(manifest=True), 0.0)


@pytest.mark.parametrize("ranges", [1, 2])
def test_a_request_for_too_many_chunks(ranges: int) -> None:
    """What a request costs does not depend on what its ranges claim."""
    each = MAX_NEED_CHUNKS // ranges
    made = TransferSender(*offer_of_chunks(each + 1))
    made.handle(Offer(), 0.0)
    assert made.handle(need(*[(0, each - 1)] * ranges), 0.0) == [WorkReady()]
    with pytest.raises(RemoteProtocolError, match="too many chunks"):
        made.handle(need(*[(0, each - 1)] * (ranges - 1), (0, each)), 0.0)


def offer_of_chunks(count: int) -> tuple[FileMeta, Manifest]:
    sizes, digests = pack_chunks([1] * count, [b"d" * 32] * count)
    manifest = Manifest([FileEntry("file", count, b"w" * 32, sizes, digests)])
    return offer_of(manifest), manifest


def test_requests_waiting_are_bounded() -> None:
    chunks = [bytes([n % 256, n // 256]) for n in range(MAX_NEED_RANGES * 2 + 1)]
    manifest = Manifest([entry("many", *chunks)])
    made = TransferSender(offer_of(manifest), manifest)
    made.handle(Offer(), 0.0)
    for n in range(MAX_NEED_RANGES * 2):
        made.handle(need((n, n)), 0.0)
    with pytest.raises(RemoteProtocolError):
        made.handle(need((0, 0)), 0.0)


def test_delivered() -> None:
    made = offered()
    made.handle(need((0, 2)), 0.0)
    assert made.handle(ReceiverEnded(DONE), 0.0) == [Delivered()]
    assert work(made) == []
    assert made.handle(SourceBroke(BROKEN), 0.0) == []


def test_a_receiver_that_gives_up() -> None:
    made = offered()
    made.handle(need((0, 2)), 0.0)
    [failed] = made.handle(ReceiverEnded(GAVE_UP), 0.0)
    assert isinstance(failed, TransferFailed)
    assert failed.error.to_wire() == BROKEN.to_wire()
    assert work(made) == []


def test_a_source_that_breaks_reaches_the_receiver() -> None:
    made = offered()
    made.handle(need((0, 2)), 0.0)
    done = FileDone(transfer_id=META.transfer_id, error=BROKEN.to_wire())
    assert made.handle(SourceBroke(BROKEN), 0.0) == [
        Offered(done),
        TransferFailed(BROKEN),
    ]
    # What crosses it on the wire is passed over.
    assert made.handle(need((0, 0)), 0.0) == []
    assert made.handle(ReceiverEnded(GAVE_UP), 0.0) == []
    assert work(made) == []


def test_an_offer_must_be_that_of_its_manifest() -> None:
    made = TransferSender(msgspec.structs.replace(META, total_bytes=1), MANIFEST)
    with pytest.raises(LocalProtocolError):
        made.handle(Offer(), 0.0)
