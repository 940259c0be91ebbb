"""How a transfer ends when its link does, with the disk in the middle of something."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc_plugin.protocol.fragments import fragments_of
from sleap_rtc_plugin.protocol.limits import FRAGMENT_BYTES
from sleap_rtc_plugin.protocol.messages import FileMeta, FileNeed
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.link import LinkClosed
from sleap_rtc_plugin.transport.staging_area import StagingArea
from sleap_rtc_plugin.transport.transfer_pump import TransferPump


class FakeLink:
    """The part of a link that a pump uses."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.close_reason = ""
        self.fragment_bytes = FRAGMENT_BYTES
        self.on_fragment: Any = None
        self.sent: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, message: Any) -> None:
        self.sent.put_nowait(message)

    def close(self, reason: str) -> None:
        self.close_reason = reason
        self.closed.set()


class SlowArea(StagingArea):
    """A staging area whose writes wait until they are let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.storing, self.go_on = threading.Event(), threading.Event()
        self.finished: list[int] = []

    def store(self, number: int, data: bytes) -> bool:
        self.storing.set()
        assert self.go_on.wait(10)
        return super().store(number, data)

    def finish(self, file: int) -> bool:
        self.finished.append(file)
        return super().finish(file)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x" * 100)
    return FileSource.scan(tmp_path / "source", ["file"])


def offer(source: FileSource) -> FileMeta:
    return FileMeta(
        transfer_id="transfer-" + "0" * 20,
        stream=1,
        job_id="job-" + "0" * 20,
        purpose="package",
        manifest_bytes=len(source.encoded_manifest),
        manifest_digest=source.manifest_digest.hex(),
        total_bytes=source.manifest.total_bytes,
        file_count=1,
    )


async def test_nothing_touches_the_folder_once_a_cut_transfer_has_returned(
    tmp_path: Path, source: FileSource
) -> None:
    link, area = FakeLink(), SlowArea(tmp_path / "staging")
    pump = TransferPump(link)
    receiving = asyncio.ensure_future(pump.receive(offer(source), area))
    await link.sent.get()
    for frame in fragments_of(1, 0, source.encoded_manifest, is_manifest=True):
        link.on_fragment(frame)
    await link.sent.get()
    for frame in fragments_of(1, 0, b"x" * 100):
        link.on_fragment(frame)
    assert await asyncio.to_thread(area.storing.wait, 10)
    link.close("it broke")
    await turns()
    area.go_on.set()
    with pytest.raises(LinkClosed, match="it broke"):
        await receiving
    assert area.finished == []
    assert not area._open
    # The chunk that was being written is there for the next link.
    chunks, files = StagingArea(area.root).inventory(source.manifest)
    assert (chunks, files) == ({0}, frozenset())


async def test_a_bug_below_ends_the_transfer_instead_of_hanging_it(
    tmp_path: Path, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> Any:
        raise ZeroDivisionError

    link, area = FakeLink(), StagingArea(tmp_path / "staging")
    pump = TransferPump(link)
    monkeypatch.setattr(area, "inventory", broken)
    receiving = asyncio.ensure_future(pump.receive(offer(source), area))
    await link.sent.get()
    for frame in fragments_of(1, 0, source.encoded_manifest, is_manifest=True):
        link.on_fragment(frame)
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await receiving


async def test_a_bug_in_the_source_ends_the_transfer_instead_of_hanging_it(
    source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> Any:
        raise ZeroDivisionError

    link = FakeLink()
    pump = TransferPump(link)
    monkeypatch.setattr(source, "reading", broken)
    sending = asyncio.ensure_future(
        pump.send(source, job_id="job-" + "0" * 20, purpose="package")
    )
    meta = await link.sent.get()
    pump.handle(FileNeed(transfer_id=meta.transfer_id, chunks=[(0, 0)]))
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await sending


async def turns() -> None:
    """Let every task that can run come to where it waits."""
    for _ in range(20):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn
