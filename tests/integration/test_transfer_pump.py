"""Files over a real link: both ways, cut, resumed, and with faults at the edge."""

import asyncio
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.transfer_ends import CHUNK_BYTES, ends, make_files, same

from sleap_rtc_plugin.protocol import limits
from sleap_rtc_plugin.protocol.errors import DiskFull, RtcError, SourceChanged
from sleap_rtc_plugin.protocol.fragments import FLAG_PACKED, HEADER_BYTES
from sleap_rtc_plugin.protocol.messages import FileNeed
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

pytestmark = pytest.mark.timeout(90)
SIZES = {"a/big": 3_000_000, "a/small": 10, "empty": 0, "edge": CHUNK_BYTES}


async def test_files_both_ways_at_once(tmp_path: Path) -> None:
    there = make_files(tmp_path / "there", 1, SIZES)
    back = make_files(tmp_path / "back", 2, {"results/best.ckpt": 2_000_000})
    at_worker, at_client = StagingArea(tmp_path / "w"), StagingArea(tmp_path / "c")
    seen: list[TransferTotals] = []
    async with ends() as (client, worker):
        totals = await asyncio.gather(
            client.send(there),
            worker.receive(at_worker, on_progress=seen.append),
            worker.send(back),
            client.receive(at_client),
        )
    assert same(there, at_worker)
    assert same(back, at_client)
    assert [t.moved_bytes for t in totals] == [sum(SIZES.values())] * 2 + [
        2_000_000
    ] * 2
    assert all(t.verified_bytes == t.total_bytes for t in totals)
    verified = [t.verified_bytes for t in seen]
    assert verified == sorted(verified)


async def test_many_transfers_one_after_another(tmp_path: Path) -> None:
    async with ends() as (client, worker):
        for n in range(limits.MAX_TRANSFERS_PER_LINK + 2):
            source = make_files(tmp_path / f"s{n}", n, {"file": 1000})
            area = StagingArea(tmp_path / f"t{n}")
            await asyncio.gather(client.send(source), worker.receive(area))
            assert same(source, area)


async def test_the_same_files_again_cost_nothing(tmp_path: Path) -> None:
    source = make_files(tmp_path / "s", 1, SIZES)
    async with ends() as (client, worker):
        for _ in range(2):
            area = StagingArea(tmp_path / "t")
            sent, got = await asyncio.gather(client.send(source), worker.receive(area))
    total = sum(SIZES.values())
    assert (sent.moved_bytes, sent.reused_bytes) == (0, total)
    assert (got.moved_bytes, got.reused_bytes) == (0, total)


async def test_a_link_cut_in_the_middle_is_resumed(tmp_path: Path) -> None:
    source = make_files(tmp_path / "s", 1, {"big": 12_000_000})
    area = StagingArea(tmp_path / "t")
    stored = 0
    async with ends() as (client, worker):

        def cut_at_half(totals: TransferTotals) -> None:
            nonlocal stored
            stored = totals.verified_bytes
            if stored >= 6_000_000:
                worker.link.close("cut")

        results = await asyncio.gather(
            client.send(source),
            worker.receive(area, on_progress=cut_at_half),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [LinkClosed, LinkClosed]
    assert not same(source, area)
    async with ends() as (client, worker):
        sent, _ = await asyncio.gather(
            client.send(source), worker.receive(StagingArea(area.root))
        )
    assert same(source, area)
    assert sent.reused_bytes >= stored
    assert sent.moved_bytes <= 12_000_000 - stored


async def test_a_full_disk_reaches_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_files(tmp_path / "s", 1, SIZES)
    area = StagingArea(tmp_path / "t")
    write = os.write
    written = 0

    def fills_up(descriptor: int, data: Any) -> int:
        nonlocal written
        if len(data) != CHUNK_BYTES:
            return write(descriptor, data)
        written += 1
        if written > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    async with ends() as (client, worker):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fills_up)
            results = await asyncio.gather(
                client.send(source), worker.receive(area), return_exceptions=True
            )
        assert [type(result) for result in results] == [DiskFull, DiskFull]
        assert results[0].place == str(area.root)
        # Room was made; the same link goes on where it stopped.
        sent, _ = await asyncio.gather(client.send(source), worker.receive(area))
    assert same(source, area)
    assert sent.reused_bytes >= 3 * CHUNK_BYTES


@pytest.mark.parametrize("change", ["shrink", "rewrite", "delete"])
async def test_a_source_that_changes_reaches_the_receiver(
    tmp_path: Path, change: str
) -> None:
    source = make_files(tmp_path / "s", 1, {"big": 2_000_000})
    file = tmp_path / "s" / "big"
    if change == "shrink":
        os.truncate(file, 1_000_000)
    elif change == "rewrite":
        file.write_bytes(b"\x00" * 2_000_000)
    else:
        file.unlink()
    area = StagingArea(tmp_path / "t")
    async with ends() as (client, worker):
        results = await asyncio.gather(
            client.send(source), worker.receive(area), return_exceptions=True
        )
        assert [type(result) for result in results] == [SourceChanged, SourceChanged]
        assert not client.link.closed.is_set()
    assert list(area.files.iterdir()) == []


async def test_many_small_files_share_frames(tmp_path: Path) -> None:
    sizes = {f"small-{n}": 1 + n % 3000 for n in range(300)}
    source = make_files(tmp_path / "s", 1, {**sizes, "large": 50_000})
    area = StagingArea(tmp_path / "t")
    frames = 0
    async with ends() as (client, worker):
        arrived = worker.link.on_fragment

        def count(frame: bytes | str) -> None:
            nonlocal frames
            frames += 1
            arrived(frame)

        worker.link.on_fragment = count
        sent, got = await asyncio.gather(client.send(source), worker.receive(area))
    assert same(source, area)
    assert sent.moved_bytes == got.moved_bytes == source.manifest.total_bytes
    assert frames < 60


async def test_a_peer_that_asks_for_what_was_not_offered_loses_the_link(
    tmp_path: Path,
) -> None:
    source = make_files(tmp_path / "s", 1, {"file": 10})
    async with ends() as (client, worker):
        sending = asyncio.ensure_future(client.send(source))
        meta = await worker.offers.get()
        worker.link.send(FileNeed(transfer_id=meta.transfer_id, chunks=[(0, 1)]))
        with pytest.raises(LinkClosed, match="not offered"):
            await sending
        await worker.link.closed.wait()


async def test_a_peer_that_sends_what_was_not_asked_for_loses_the_link(
    tmp_path: Path,
) -> None:
    source = make_files(tmp_path / "s", 1, {"file": 10})
    async with ends() as (client, worker):
        sending = asyncio.ensure_future(client.send(source))
        offer = await worker.offers.get()
        area = StagingArea(tmp_path / "t")
        receiving = asyncio.ensure_future(worker.pump.receive(offer, area))
        frame = bytes.fromhex("01000000") + offer.stream.to_bytes(4, "big")
        await client.link.send_fragment(frame + b"\x00" * 8 + b"unasked")
        results = await asyncio.gather(sending, receiving, return_exceptions=True)
        assert [type(result) for result in results] == [LinkClosed, LinkClosed]
    assert not area.files.exists() or list(area.files.iterdir()) == []


async def test_a_peer_that_packs_what_was_not_asked_for_loses_the_link(
    tmp_path: Path,
) -> None:
    source = make_files(tmp_path / "s", 1, {"one": 10, "two": 20})
    area = StagingArea(tmp_path / "t")
    async with ends() as (client, worker):
        send_fragment = client.link.send_fragment

        async def repeat_chunks(frame: bytes) -> None:
            if frame[1] == FLAG_PACKED:
                frame += frame[HEADER_BYTES:]
            await send_fragment(frame)

        client.link.send_fragment = repeat_chunks
        results = await asyncio.gather(
            client.send(source), worker.receive(area), return_exceptions=True
        )
        assert [type(result) for result in results] == [LinkClosed, LinkClosed]
        assert worker.link.close_reason == "a chunk that was not asked for"
    assert list(area.files.iterdir()) == []


async def test_a_manifest_with_a_path_that_leads_out_is_refused(
    tmp_path: Path,
) -> None:
    source = make_files(tmp_path / "s", 1, {"xxxxxxxx": 10})
    evil = source.encoded_manifest.replace(b"xxxxxxxx", b"../../xx")
    source.encoded_manifest = evil
    source.manifest_digest = digest_of(evil)
    area = StagingArea(tmp_path / "t" / "u" / "v")
    async with ends() as (client, worker):
        results = await asyncio.gather(
            client.send(source), worker.receive(area), return_exceptions=True
        )
    assert all(isinstance(result, RtcError | LinkClosed) for result in results)
    assert [result.code for result in results if isinstance(result, RtcError)]
    assert not (tmp_path / "t" / "xx").exists()
    assert not area.root.exists()


async def test_too_many_transfers_on_one_link(tmp_path: Path) -> None:
    source = make_files(tmp_path / "s", 1, {"file": 10})
    async with ends() as (client, worker):
        sending = [
            asyncio.ensure_future(client.send(source))
            for _ in range(limits.MAX_TRANSFERS_PER_LINK)
        ]
        for _ in sending:
            await worker.offers.get()
        with pytest.raises(RtcError, match="too many transfers"):
            await client.send(source)
        client.link.close("done")
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert {type(result) for result in results} == {LinkClosed}


# -- a store of earlier packages ----------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChunkStore]:
    made = ChunkStore(tmp_path / "store", max_bytes=10**9)
    yield made
    made.close()


async def test_the_same_package_for_another_job_costs_only_the_offer(
    tmp_path: Path, store: ChunkStore
) -> None:
    source = make_files(tmp_path / "s", 1, SIZES)
    async with ends() as (client, worker):
        for name in ("first", "second"):
            area = StagingArea(tmp_path / name, store=store)
            client.needs.clear()
            sent, got = await asyncio.gather(client.send(source), worker.receive(area))
            assert same(source, area)
    total = sum(SIZES.values())
    assert (sent.moved_bytes, sent.reused_bytes) == (0, total)
    assert (got.moved_bytes, got.verified_bytes) == (0, total)
    [need] = client.needs
    assert (need.manifest, need.chunks) == (False, [])


async def test_a_second_package_sends_only_what_is_new(
    tmp_path: Path, store: ChunkStore
) -> None:
    made = random.Random(3)  # noqa: S311 - contents of test files
    folder = tmp_path / "s"
    folder.mkdir()
    first = made.randbytes(4_000_000)
    versions = [first, made.randbytes(1000) + first + bytes(500_000)]
    async with ends() as (client, worker):
        for n, data in enumerate(versions):
            (folder / "labels").write_bytes(data)
            source = FileSource.scan(folder, ["labels"])
            area = StagingArea(tmp_path / f"t{n}", store=store)
            sent, _ = await asyncio.gather(client.send(source), worker.receive(area))
            assert same(source, area)
    assert sent.moved_bytes < 400_000
    assert sent.moved_bytes + sent.reused_bytes == len(versions[1])


async def test_equal_chunks_cross_the_link_once(tmp_path: Path) -> None:
    block = random.Random(4).randbytes(CHUNK_BYTES)  # noqa: S311 - test data
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "one").write_bytes(block * 5)
    (folder / "two").write_bytes(block * 3)
    source = FileSource.scan(folder, ["one", "two"], chunk_bytes=CHUNK_BYTES)
    area = StagingArea(tmp_path / "t")
    async with ends() as (client, worker):
        sent, got = await asyncio.gather(client.send(source), worker.receive(area))
    assert same(source, area)
    assert sent.moved_bytes == got.moved_bytes == CHUNK_BYTES
    assert sent.reused_bytes == 7 * CHUNK_BYTES
    assert got.verified_bytes == got.total_bytes
