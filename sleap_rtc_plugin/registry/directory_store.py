"""A store in a folder, which the programs of many computers may share.

A lock makes "replace it if it still is what I read" one step, between threads,
processes and, where the disk passes locks on, computers. What is written is on the disk
before anything refers to it. No link below the folder is followed: others write there.
obstore's own store of this kind can do neither. Opened by `store_address`.
"""

import asyncio
import contextlib
import errno
import os
import random
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import (
    RtcError,
    StoreFull,
    StoreReadOnly,
    StoreUnreachable,
)
from sleap_rtc_plugin.protocol.limits import (
    MAX_STORE_ENTRIES,
    REGISTRY_TIMEOUT_S,
    STORE_LOCK_TIMEOUT_S,
    STORE_PIECE_BYTES,
    STORE_PIECE_TIMEOUT_S,
)
from sleap_rtc_plugin.registry.object_store import Entry, Found, ObjectMissing
from sleap_rtc_plugin.registry.store_calls import NoAnswer, StoreCalls
from sleap_rtc_plugin.transport.contained_files import (
    folder_below,
    make_folders_below,
    open_below,
    remove_below,
    rename_below,
)
from sleap_rtc_plugin.transport.file_lock import try_lock

__all__ = ["DirectoryStore"]

P = ParamSpec("P")
T = TypeVar("T")

_LOCK: Final = ".lock"
_LOCK_POLL_S: Final = 0.01
_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FILE_BITS: Final = 0o666


class _KeptLocked(Exception):
    """Somebody has the lock of a folder for too long."""


class DirectoryStore:
    """A folder as an `ObjectStore`; a key is a path in it.

    The folder has to be there: one that is missing is a disk that is not mounted.
    """

    def __init__(self, root: Path, *, timeout_s: float = REGISTRY_TIMEOUT_S) -> None:
        """Use the folder `root`, and give each call `timeout_s` seconds."""
        self._root = root
        self._timeout_s = timeout_s
        self._calls = StoreCalls()

    @property
    def name(self) -> str:
        """What to call the store before people: its path."""
        return str(self._root)

    async def read(
        self, key: str, limit_bytes: int, known: str | None = None
    ) -> Found | None:
        """See `ObjectStore.read`."""
        data = await self._call(self._read, key, limit_bytes + 1)
        if data is None:
            return None
        version = _version(data)
        return Found(None if version == known else data, version)

    async def replace(self, key: str, data: bytes, expected: str | None) -> str | None:
        """See `ObjectStore.replace`."""
        return await self._call(self._replace, key, data, expected, is_writing=True)

    async def write(
        self, key: str, size_bytes: int, pieces: AsyncIterator[bytes]
    ) -> None:
        """See `ObjectStore.write`."""
        unfinished: _Unfinished | None = None
        writing = partial(self._call, timeout_s=STORE_PIECE_TIMEOUT_S, is_writing=True)
        try:
            async for piece in pieces:
                if unfinished is None:
                    unfinished = await writing(self._begin, key)
                await writing(unfinished.append, piece)
            if unfinished is None:
                unfinished = await writing(self._begin, key)
            await writing(unfinished.sync)
            await writing(self._give_name, unfinished.key, key)
        finally:
            if unfinished is not None:
                with contextlib.suppress(RtcError):
                    await asyncio.shield(writing(unfinished.discard))

    async def pieces(self, key: str, size_bytes: int) -> AsyncIterator[bytes]:
        """See `ObjectStore.pieces`."""
        reading = partial(self._call, timeout_s=STORE_PIECE_TIMEOUT_S)
        descriptor = await reading(self._open, key)
        if descriptor is None:
            raise ObjectMissing(key)
        try:
            left = size_bytes
            while left > 0:
                piece = await reading(os.read, descriptor, min(left, STORE_PIECE_BYTES))
                if not piece:
                    return
                left -= len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def look(self, key: str) -> Entry | None:
        """See `ObjectStore.look`."""
        return await self._call(self._look, key)

    async def entries(self, folder: str) -> AsyncIterator[Entry]:
        """See `ObjectStore.entries`."""
        for entry in await self._call(
            self._list, folder, timeout_s=STORE_PIECE_TIMEOUT_S
        ):
            yield entry

    async def remove_old(self, key: str, before: float) -> bool:
        """See `ObjectStore.remove_old`."""
        return await self._call(self._remove_old, key, before, is_writing=True)

    # -- in a thread ---------------------------------------------------------------

    def _read(self, key: str, limit_bytes: int) -> bytes | None:
        descriptor = self._open(key)
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit_bytes)

    def _open(self, key: str) -> int | None:
        try:
            return open_below(self._root, key, os.O_RDONLY)
        except FileNotFoundError:
            self._need_root()
            return None

    def _replace(self, key: str, data: bytes, expected: str | None) -> str | None:
        with self._locked(_folder_of(key)):
            # Compared as a whole: of one that is too large, what follows counts too.
            current = self._open(key)
            found = None
            if current is not None:
                with os.fdopen(current, "rb") as file:
                    found = _version(file.read())
            if found != expected:
                return None
            unfinished = self._begin(key)
            try:
                unfinished.append(data)
                unfinished.sync()
                rename_below(self._root, unfinished.key, key)
                _sync_folder(self._root, _folder_of(key))
            finally:
                unfinished.discard()
        return _version(data)

    def _begin(self, key: str) -> "_Unfinished":
        folder = _folder_of(key)
        self._make_folder(folder)
        name = f"{folder}/.{secrets.token_hex(8)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = open_below(self._root, name, flags, self._file_mode())
        return _Unfinished(self._root, name, descriptor)

    def _make_folder(self, folder: str) -> None:
        mode = stat.S_IMODE(self._need_root().st_mode)
        with contextlib.suppress(FileNotFoundError), folder_below(self._root, folder):
            return
        make_folders_below(self._root, folder, mode)
        _sync_folder(self._root, folder.rpartition("/")[0])

    def _file_mode(self) -> int:
        """Return what those may do with a file who may do so with the folder."""
        return stat.S_IMODE(self._need_root().st_mode) & _FILE_BITS

    def _give_name(self, unfinished: str, key: str) -> None:
        folder = _folder_of(key)
        # So that `_remove_old` finds either the old file or the new one.
        with self._locked(folder):
            rename_below(self._root, unfinished, key)
        _sync_folder(self._root, folder)

    def _look(self, key: str) -> Entry | None:
        folder, _, name = key.rpartition("/")
        try:
            with folder_below(self._root, folder) as below:
                if isinstance(below, int):
                    status = os.stat(name, dir_fd=below, follow_symlinks=False)
                else:
                    status = (Path(below) / name).lstat()
        except FileNotFoundError:
            self._need_root()
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return Entry(key, status.st_size, status.st_mtime)

    def _list(self, folder: str) -> list[Entry]:
        entries: list[Entry] = []
        try:
            with folder_below(self._root, folder) as below, os.scandir(below) as found:
                for item in found:
                    if len(entries) >= MAX_STORE_ENTRIES:
                        break
                    with contextlib.suppress(FileNotFoundError):
                        status = item.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            key = f"{folder}/{item.name}"
                            entries.append(Entry(key, status.st_size, status.st_mtime))
        except FileNotFoundError:
            self._need_root()
        return entries

    def _remove_old(self, key: str, before: float) -> bool:
        with self._locked(_folder_of(key)):
            entry = self._look(key)
            if entry is None or entry.modified_at >= before:
                return False
            remove_below(self._root, key)
        return True

    @contextlib.contextmanager
    def _locked(self, folder: str) -> Iterator[None]:
        """Keep everybody else out of a folder for a moment."""
        self._make_folder(folder)
        flags = os.O_RDWR | os.O_CREAT
        lock = open_below(self._root, f"{folder}/{_LOCK}", flags, self._file_mode())
        try:
            until = time.monotonic() + STORE_LOCK_TIMEOUT_S
            while not try_lock(lock, needs_locks=True):
                if time.monotonic() > until:
                    raise TimeoutError(
                        errno.ETIMEDOUT, "another program keeps it locked"
                    )
                time.sleep(_LOCK_POLL_S * random.random())  # noqa: S311 - no secret
            yield
        finally:
            os.close(lock)

    def _need_root(self) -> os.stat_result:
        """Look whether the folder is there.

        Raises:
            StoreUnreachable: it is not.
        """
        try:
            status = self._root.stat()
        except FileNotFoundError:
            reason = "there is no such folder; is its disk mounted?"
            raise StoreUnreachable(store=self.name, reason=reason) from None
        if not stat.S_ISDIR(status.st_mode):
            raise StoreUnreachable(store=self.name, reason="it is not a folder")
        return status

    # -- calls that end ------------------------------------------------------------

    async def _call(
        self,
        function: Callable[P, T],
        *args: Any,
        timeout_s: float | None = None,
        is_writing: bool = False,
    ) -> T:
        """Make a blocking call in a thread, and put its failure into words."""
        try:
            work = partial(function, *args)
            return await self._calls.call(timeout_s or self._timeout_s, work)
        except NoAnswer:
            raise StoreUnreachable(
                store=self.name, reason="it does not answer"
            ) from None
        except _KeptLocked:
            raise StoreUnreachable(
                store=self.name, reason="another program keeps it locked"
            ) from None
        except OSError as error:
            raise self._words(error, is_writing) from error

    def _words(self, error: OSError, is_writing: bool) -> RtcError:
        reason = error.strerror or "it failed"
        if error.errno in _FULL:
            return StoreFull(store=self.name, reason=reason)
        if is_writing and error.errno in _REFUSED:
            return StoreReadOnly(store=self.name, reason=reason)
        return StoreUnreachable(store=self.name, reason=reason)


class _Unfinished:
    """A file that has a name of its own until it is whole."""

    def __init__(self, root: Path, key: str, descriptor: int) -> None:
        self.key = key
        self._root = root
        self._descriptor: int | None = descriptor

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._descriptor is not None:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            self._close()

    def discard(self) -> None:
        """Close it and take away its name; without effect once it has another."""
        self._close()
        with contextlib.suppress(OSError):
            remove_below(self._root, self.key)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def _version(data: bytes) -> str:
    """Return what tells two contents apart; equal contents may take turns unseen."""
    return blake3(data).hexdigest()


def _sync_folder(root: Path, folder: str) -> None:
    """Put a folder's names on the disk; Windows opens no folder."""
    # Some network disks cannot, and keep the order by themselves.
    with contextlib.suppress(OSError), folder_below(root, folder) as below:
        if isinstance(below, int):
            os.fsync(below)
