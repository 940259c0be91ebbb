"""What earlier results leave at home: per room, private, and never in the way."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc_plugin.protocol.limits import GIB
from sleap_rtc_plugin.session import result_store as module
from sleap_rtc_plugin.session.result_store import result_store
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import FileSource

PATIENCE_S = 10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache" / "sleap-remote"
    monkeypatch.setattr(module.platformdirs, "user_cache_path", lambda name: folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> FileSource:
    (tmp_path / "best.ckpt").write_bytes(os.urandom(100_000))
    return FileSource.scan(tmp_path, ["best.ckpt"])


async def test_what_came_home_is_found_again_in_its_room(
    cache: Path, model: FileSource
) -> None:
    [entry] = model.manifest.files
    async with result_store("room-1") as store:
        assert store is not None
        store.keep([(model.root / "best.ckpt", entry)], 0.0)
    for room, is_there in (("room-2", False), ("room-1", True)):
        async with result_store(room) as store:
            assert store is not None
            assert (store.file(entry.digest) is not None) is is_there
    stores = cache / "store"
    assert len(list(stores.iterdir())) == 2
    for folder in (stores, *stores.iterdir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_without_a_room_nothing_is_kept(cache: Path) -> None:
    async with result_store("") as store:
        assert store is None
    assert not cache.exists()


async def test_a_cache_that_is_no_folder_is_done_without(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_bytes(b"in the way")
    async with result_store("room-1") as store:
        assert store is None


async def test_the_limit_is_a_share_of_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    opened = module.open_room_store

    def note(*args: object, limit_bytes: int, **more: object) -> ChunkStore:
        asked.append(limit_bytes)
        return opened(*args, limit_bytes=limit_bytes, **more)

    monkeypatch.setattr(module, "open_room_store", note)
    usage = module.share_of_disk.__globals__["shutil"]
    disk = usage._ntuple_diskusage
    for total_bytes, limit_bytes in ((30 * GIB, 3 * GIB), (900 * GIB, 5 * GIB)):
        told = disk(total_bytes, 0, total_bytes)
        monkeypatch.setattr(usage, "disk_usage", lambda path, told=told: told)
        async with result_store("room-1"):
            assert asked[-1] == limit_bytes


async def test_whoever_gives_up_while_it_opens_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, go_on = threading.Event(), threading.Event()
    stores: list[ChunkStore] = []
    opened = module._open

    def slowly(room_id: str) -> ChunkStore | None:
        began.set()
        assert go_on.wait(PATIENCE_S)
        store = opened(room_id)
        assert store is not None
        stores.append(store)
        return store

    async def use() -> None:
        async with result_store("room-1"):
            raise AssertionError("it was given up")

    monkeypatch.setattr(module, "_open", slowly)
    using = asyncio.ensure_future(use())
    await asyncio.to_thread(began.wait, PATIENCE_S)
    using.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    [store] = stores
    # A closed store has nothing, and takes nothing.
    store.keep_manifest(b"data", 0.0)
    assert store.manifest(blake3(b"data").digest(), 0.0) is None
