"""Transfers between two real engines, one of which lies, breaks or has a bad disk.

Whatever happens: nothing half-written under a final name, one reason at both ends, and
an honest attempt afterwards goes on.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.transfer_ends import CHUNK_BYTES, End, ends, make_files, same

from sleap_rtc_plugin.protocol import transfer_receiver
from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    SourceChanged,
    StorageFailed,
    TransferStalled,
)
from sleap_rtc_plugin.protocol.fragments import FLAG_MANIFEST
from sleap_rtc_plugin.protocol.limits import MAX_PACKAGE_BYTES, MAX_TRANSFER_FRAME_BYTES
from sleap_rtc_plugin.protocol.messages import FileNeed
from sleap_rtc_plugin.protocol.transfer_requests import TransferRequests
from sleap_rtc_plugin.transport import transfer_pump
from sleap_rtc_plugin.transport.file_source import FileSource, digest_of
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferTotals

pytestmark = pytest.mark.timeout(90)

SIZES = {"a/big": 1_500_000, "b": CHUNK_BYTES, "empty": 0}
# The frame of the big file's chunks that is tampered with.
THIRD = 3


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    return make_files(tmp_path / "s", 1, SIZES)


@pytest.fixture
def area(tmp_path: Path) -> StagingArea:
    return StagingArea(tmp_path / "inner" / "t")


async def attempt(
    client: End, worker: End, source: FileSource, area: StagingArea
) -> list[TransferTotals | BaseException]:
    async with asyncio.timeout(60):
        return await asyncio.gather(
            client.send(source), worker.receive(area), return_exceptions=True
        )


def assert_nothing_half_written(source: FileSource, area: StagingArea) -> None:
    """What has its final name is whole, and nothing lies outside."""
    for path in area.files.rglob("*"):
        if path.is_file():
            name = path.relative_to(area.files)
            assert path.read_bytes() == (source.root / name).read_bytes()
    outside = area.root.parent.parent
    assert {path.name for path in outside.iterdir()} <= {"s", "inner"}
    assert {path.name for path in area.root.parent.iterdir()} <= {"t"}


async def assert_goes_on(source: FileSource, area: StagingArea) -> None:
    async with ends() as (client, worker):
        sent, _ = await attempt(client, worker, source, StagingArea(area.root))
    assert isinstance(sent, TransferTotals)
    assert same(source, area)


# -- frames ----------------------------------------------------------------------------


def flip(frame: bytes) -> list[bytes]:
    return [frame[:-1] + bytes([frame[-1] ^ 1])]


def truncate(frame: bytes) -> list[bytes]:
    return [frame[:-1]]


def oversize(frame: bytes) -> list[bytes]:
    return [frame.ljust(MAX_TRANSFER_FRAME_BYTES + 1, b"!")]


def repeat(frame: bytes) -> list[bytes]:
    return [frame, frame]


def endless(frame: bytes) -> list[bytes]:
    return [frame] * 50


def lose(frame: bytes) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    ("tamper", "outcome"),
    [
        (flip, TransferTotals),
        (truncate, LinkClosed),
        (oversize, LinkClosed),
        (repeat, LinkClosed),
        (endless, LinkClosed),
        (lose, LinkClosed),
    ],
    ids=lambda value: value.__name__,
)
async def test_a_frame_that_is_not_as_it_was_sent(
    source: FileSource,
    area: StagingArea,
    tamper: Callable[[bytes], list[bytes]],
    outcome: type,
) -> None:
    async with ends() as (client, worker):
        send_fragment, seen = client.link.send_fragment, 0

        async def tampered(frame: bytes) -> None:
            nonlocal seen
            seen += not frame[1] & FLAG_MANIFEST
            for each in tamper(frame) if seen == THIRD else [frame]:
                await send_fragment(each)

        client.link.send_fragment = tampered  # type: ignore[method-assign]
        results = await attempt(client, worker, source, area)
    assert [type(result) for result in results] == [outcome, outcome]
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)


async def test_frames_in_another_order(source: FileSource, area: StagingArea) -> None:
    async with ends() as (client, worker):
        send_fragment = client.link.send_fragment
        held: list[bytes] = []

        async def swapped(frame: bytes) -> None:
            if frame[1] & FLAG_MANIFEST or len(held) == THIRD:
                await send_fragment(frame)
                return
            held.append(frame)
            if len(held) == THIRD:
                for each in reversed(held):
                    await send_fragment(each)

        client.link.send_fragment = swapped  # type: ignore[method-assign]
        results = await attempt(client, worker, source, area)
    assert [type(result) for result in results] == [LinkClosed, LinkClosed]
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)


async def test_the_last_frame_never_comes(
    source: FileSource, area: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_receiver, "TRANSFER_STALL_TIMEOUT_S", 0.5)
    async with ends() as (client, worker):
        send_fragment, left = client.link.send_fragment, source.manifest.total_bytes

        async def cut_short(frame: bytes) -> None:
            nonlocal left
            left -= 0 if frame[1] & FLAG_MANIFEST else len(frame) - 16
            if left > 0:
                await send_fragment(frame)

        client.link.send_fragment = cut_short  # type: ignore[method-assign]
        results = await attempt(client, worker, source, area)
    assert [type(result) for result in results] == [TransferStalled, TransferStalled]
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)


async def test_a_bit_that_flips_at_rest(
    source: FileSource, area: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, flipped = area.finish, []

    def damage_first(file: int) -> bool:
        if not flipped:
            [part] = [p for p in (area.root / "parts").iterdir() if p.stat().st_size]
            data = bytearray(part.read_bytes())
            data[1000] ^= 1
            part.write_bytes(data)
            flipped.append(part)
        return finish(file)

    one_file = make_files(source.root.parent / "s", 2, {"a/big": 1_500_000})
    monkeypatch.setattr(area, "finish", damage_first)
    async with ends() as (client, worker):
        sent, _ = await attempt(client, worker, one_file, area)
    assert isinstance(sent, TransferTotals)
    assert sent.moved_bytes == 2 * 1_500_000
    assert same(one_file, area)


# -- manifests and requests --------------------------------------------------------


def entry(path: str, size: int, sizes: bytes, digests: bytes) -> list[object]:
    return [path, size, b"w" * 32, sizes, digests]


HUGE = (2**32 - 1).to_bytes(4, "big")
ONE = (1).to_bytes(4, "big")
COUNT = MAX_PACKAGE_BYTES // (2**32 - 1) + 1


@pytest.mark.parametrize(
    "files",
    [
        [entry("same", 1, ONE, b"d" * 32), entry("SAME", 1, ONE, b"d" * 32)],
        [entry("f", 1, ONE, b"d" * 32), entry("f/g", 1, ONE, b"d" * 32)],
        [entry("f", -1, ONE, b"d" * 32)],
        [entry("f", 2**32 - 1, HUGE, b"d" * 32)],
        [entry("f", COUNT * (2**32 - 1), HUGE * COUNT, bytes(32) * COUNT)],
        [entry("f", 2**63, ONE, b"d" * 32)],
        [entry("../f", 1, ONE, b"d" * 32)],
        [entry("/f", 1, ONE, b"d" * 32)],
        [entry("C:/f", 1, ONE, b"d" * 32)],
        "no list",
    ],
    ids=[
        *("same path", "file in a file", "negative", "huge chunk", "huge package"),
        *("huge number", "escaping", "absolute", "drive", "no list"),
    ],
)
async def test_a_manifest_that_no_honest_sender_makes(
    source: FileSource, area: StagingArea, files: Any
) -> None:
    evil = msgspec.msgpack.encode([files])
    honest = source.encoded_manifest, source.manifest_digest
    source.encoded_manifest, source.manifest_digest = evil, digest_of(evil)
    async with ends() as (client, worker):
        results = await attempt(client, worker, source, area)
    assert all(isinstance(result, RtcError | LinkClosed) for result in results)
    assert not area.root.exists()
    source.encoded_manifest, source.manifest_digest = honest
    await assert_goes_on(source, area)


@pytest.mark.parametrize(
    "ranges", [[(0, 10**6)], [(-1, 0)], [(3, 2)], [(0, 1)] * 2_000], ids=str
)
async def test_a_receiver_that_asks_for_what_was_not_offered(
    source: FileSource, ranges: list[tuple[int, int]]
) -> None:
    async with ends() as (client, worker):
        sending = asyncio.ensure_future(client.send(source))
        meta = await worker.offers.get()
        # What the codec would not let pass is not sent by it either.
        need = FileNeed(transfer_id=meta.transfer_id, chunks=ranges)
        worker.link.send(need)
        with pytest.raises(LinkClosed):
            await sending


async def test_what_is_asked_for_is_worked_out_in_a_thread(
    source: FileSource, area: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest of 900,000 chunks takes seconds, which the loop does not have."""
    made, threads = TransferRequests._want, set()

    def noted(self: TransferRequests, *args: Any) -> None:
        threads.add(threading.current_thread())
        made(self, *args)

    monkeypatch.setattr(TransferRequests, "_want", noted)
    async with ends() as (client, worker):
        await attempt(client, worker, source, area)
    assert same(source, area)
    assert threads
    assert threading.main_thread() not in threads


# -- disks -----------------------------------------------------------------------------


def fail_after_three(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let writes of chunks fail from the fourth on."""
    write, written = os.write, 0

    def fails(descriptor: int, data: Any) -> int:
        nonlocal written
        if len(data) == CHUNK_BYTES:
            written += 1
            if written > THIRD:
                raise OSError(number, os.strerror(number))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fails)


@pytest.mark.parametrize(
    "number",
    [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EACCES],
    ids=errno.errorcode.get,
)
async def test_a_disk_that_fails_at_the_receiver(
    source: FileSource,
    area: StagingArea,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    fail_after_three(monkeypatch, number)
    async with ends() as (client, worker):
        results = await attempt(client, worker, source, area)
        assert [type(result) for result in results] == [StorageFailed, StorageFailed]
        assert os.strerror(number) in str(results[0])
        assert not client.link.closed.is_set()
    monkeypatch.undo()
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)


async def test_a_folder_that_is_gone_in_the_middle(
    source: FileSource, area: StagingArea, tmp_path: Path
) -> None:
    """As when its mount goes away: open files live on, names do not."""
    store, stored = area.store, 0

    def unmount_after_three(number: int, data: bytes, *copies: int) -> bool:
        nonlocal stored
        stored += 1
        if stored == THIRD:
            area.root.rename(tmp_path / "inner" / "gone")
        return store(number, data, *copies)

    area.store = unmount_after_three  # type: ignore[method-assign]
    async with ends() as (client, worker):
        results = await attempt(client, worker, source, area)
    assert [type(result) for result in results] == [StorageFailed, StorageFailed]
    assert not area.root.exists()
    (tmp_path / "inner" / "gone").rename(area.root)
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EIO, StorageFailed), (errno.ENOENT, SourceChanged)],
    ids=["EIO", "ENOENT"],
)
async def test_a_disk_that_fails_at_the_sender(
    source: FileSource,
    area: StagingArea,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type,
) -> None:
    is_open, opened = Path.open, 0

    def fails(path: Path, *args: Any, **more: Any) -> Any:
        nonlocal opened
        if path.parent.parent == source.root:
            opened += 1
            if opened > THIRD:
                raise OSError(number, os.strerror(number))
        return is_open(path, *args, **more)

    async with ends() as (client, worker):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", fails)
            # Every chunk is read by itself, so that the third open is in the middle.
            patch.setattr(transfer_pump, "READ_BATCH_BYTES", 1)
            results = await attempt(client, worker, source, area)
    assert [type(result) for result in results] == [error, error]
    assert_nothing_half_written(source, area)
    await assert_goes_on(source, area)
