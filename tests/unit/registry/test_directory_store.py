"""A folder as a store: whole files, kept conditions, and the faults of disks."""

import errno
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.programs import POSIX

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import MAX_STUCK_CALLS
from sleap_rtc_plugin.registry import directory_store
from sleap_rtc_plugin.registry.directory_store import DirectoryStore
from sleap_rtc_plugin.registry.object_store import ObjectMissing
from sleap_rtc_plugin.transport import file_lock

KEY = "room-1/manifest.json"
BLOB = "room-1/blobs/" + "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    (tmp_path / "store").mkdir()
    return DirectoryStore(tmp_path / "store")


async def some(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def whole(store: DirectoryStore, key: str, size: int) -> bytes:
    return b"".join([piece async for piece in store.pieces(key, size)])


async def test_replacing_only_what_was_read(store: DirectoryStore) -> None:
    assert await store.read(KEY, 100) is None
    first = await store.replace(KEY, b"one", None)
    assert first is not None
    assert await store.replace(KEY, b"two", None) is None
    second = await store.replace(KEY, b"two", first)
    assert second is not None
    assert await store.replace(KEY, b"three", first) is None
    found = await store.read(KEY, 100)
    assert found is not None
    assert (found.data, found.version) == (b"two", second)
    again = await store.read(KEY, 100, second)
    assert again is not None
    assert again.data is None
    long = await store.read(KEY, 1)
    assert long is not None
    assert long.data == b"tw"
    # What was there and is gone is another version too.
    (Path(store.name) / KEY).unlink()
    assert await store.replace(KEY, b"three", second) is None


async def test_files_in_pieces(store: DirectoryStore) -> None:
    await store.write(BLOB, 6, some(b"abc", b"def"))
    assert await whole(store, BLOB, 6) == b"abcdef"
    assert await whole(store, BLOB, 4) == b"abcd"
    await store.write(BLOB, 0, some())
    assert await whole(store, BLOB, 6) == b""
    entry = await store.look(BLOB)
    assert entry is not None
    assert entry.size_bytes == 0
    with pytest.raises(ObjectMissing):
        await whole(store, BLOB + "0", 6)
    assert await store.look(BLOB + "0") is None


async def test_what_a_source_raises_leaves_nothing(store: DirectoryStore) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield b"abc"
        raise KeyError("torn")

    with pytest.raises(KeyError):
        await store.write(BLOB, 6, torn())
    folder = Path(store.name) / "room-1" / "blobs"
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == []


async def test_only_what_is_old_still_is_removed(store: DirectoryStore) -> None:
    await store.write(BLOB, 1, some(b"a"))
    os.utime(Path(store.name) / BLOB, (1_000.0, 1_000.0))
    (entry,) = [e async for e in store.entries("room-1/blobs") if e.key == BLOB]
    assert entry.modified_at == 1_000.0
    await store.write(BLOB, 1, some(b"a"))
    assert not await store.remove_old(BLOB, 2_000.0)
    os.utime(Path(store.name) / BLOB, (1_000.0, 1_000.0))
    assert await store.remove_old(BLOB, 2_000.0)
    assert not await store.remove_old(BLOB, 2_000.0)
    assert [e async for e in store.entries("room-2/blobs")] == []


@POSIX
async def test_who_may_write_to_the_folder_may_write_to_its_files(
    tmp_path: Path,
) -> None:
    for mode, wanted in ((0o770, 0o660), (0o700, 0o600), (0o2775, 0o664)):
        root = tmp_path / f"{mode:o}"
        root.mkdir()
        root.chmod(mode)
        store = DirectoryStore(root)
        await store.replace(KEY, b"one", None)
        assert (root / KEY).stat().st_mode & 0o777 == wanted
        assert (root / "room-1").stat().st_mode & 0o777 == mode & 0o777


# -- faults --------------------------------------------------------------------------


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "unmounted")
    for call in (
        store.read(KEY, 100),
        store.replace(KEY, b"one", None),
        store.look(BLOB),
        store.write(BLOB, 1, some(b"a")),
        whole(store, BLOB, 1),
    ):
        with pytest.raises(StoreUnreachable, match="is its disk mounted"):
            await call
    assert not (tmp_path / "unmounted").exists()
    (tmp_path / "unmounted").touch()
    with pytest.raises(StoreUnreachable):
        await store.read(KEY, 100)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EACCES, StoreReadOnly),
        (errno.EIO, StoreUnreachable),
        (errno.ESTALE, StoreUnreachable),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
async def test_what_a_disk_says_becomes_words_and_changes_nothing(
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[RtcError],
    call: str,
) -> None:
    version = await store.replace(KEY, b"one", None)

    def fails(*args: Any, **kwargs: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(directory_store.os, call, fails)
    with pytest.raises(error):
        await store.replace(KEY, b"two", version)
    if call != "fsync" or number != errno.EIO:
        with pytest.raises(error):
            await store.write(BLOB, 3, some(b"abc"))
    monkeypatch.undo()
    found = await store.read(KEY, 100)
    assert found is not None
    assert (found.data, found.version) == (b"one", version)
    left = list(Path(store.name).rglob("*.part"))
    assert left == []


async def test_reading_what_one_may_not_read(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any, **kwargs: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(directory_store, "open_below", refused)
    with pytest.raises(StoreUnreachable, match="Permission denied"):
        await store.read(KEY, 100)


@POSIX
async def test_a_disk_without_locks_is_not_written_to(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unknown(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.raises(StoreReadOnly, match="its disk knows no locks"):
        await store.replace(KEY, b"one", None)
    assert file_lock.try_lock(0)


@POSIX
async def test_a_lock_that_nobody_gives_back(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.replace(KEY, b"one", None)
    monkeypatch.setattr(directory_store, "STORE_LOCK_TIMEOUT_S", 0.05)
    with (Path(store.name) / "room-1" / ".lock").open("r+b") as lock:
        assert file_lock.try_lock(lock.fileno())
        with pytest.raises(StoreUnreachable, match="another program keeps it locked"):
            await store.replace(KEY, b"two", None)
    assert await store.replace(KEY, b"two", None) is None


async def test_a_disk_that_hangs_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path, timeout_s=0.05)
    gate = threading.Event()
    monkeypatch.setattr(store, "_read", lambda key, limit: gate.wait(60) and None)
    try:
        for _ in range(MAX_STUCK_CALLS + 2):
            with pytest.raises(StoreUnreachable, match="it does not answer"):
                await store.read(KEY, 100)
        hanging = [t for t in threading.enumerate() if t.name == "model store"]
        assert len(hanging) == MAX_STUCK_CALLS
    finally:
        gate.set()
    for thread in hanging:
        thread.join(10)
    assert await store.look(BLOB) is None


@pytest.mark.skipif(sys.platform == "win32", reason="links are those of POSIX")
async def test_links_below_the_folder_are_not_followed(
    store: DirectoryStore, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "manifest.json").write_text("mine")
    (Path(store.name) / "room-1").symlink_to(secret)
    with pytest.raises(StoreUnreachable):
        await store.read(KEY, 100)
    with pytest.raises(StoreUnreachable):
        await store.replace(KEY, b"theirs", None)
    assert (secret / "manifest.json").read_text() == "mine"
    (Path(store.name) / "room-2").mkdir()
    (Path(store.name) / "room-2" / "manifest.json").symlink_to(secret / "manifest.json")
    with pytest.raises(StoreUnreachable):
        await store.read("room-2/manifest.json", 100)
    assert await store.look("room-2/manifest.json") is None
