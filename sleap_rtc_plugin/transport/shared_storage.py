"""A folder that both sides mount, at whatever places, as a way for files.

One side lays files down, the other takes them as a source of chunks, each checked by
`StagingArea`; whatever fails here, the link brings the rest. Nothing hangs: every
call has a deadline. Blocking, used in threads by the client's session and the worker.
"""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import SharedStorageUnusable
from sleap_rtc_plugin.protocol.ids import is_job_id
from sleap_rtc_plugin.protocol.limits import (
    FREE_SPACE_FACTOR,
    MIB,
    MOUNT_TIMEOUT_S,
    PROBE_BYTES,
    SHARED_LEFT_OVER_AFTER_S,
)
from sleap_rtc_plugin.protocol.shared_storage import (
    JOBS_FOLDER,
    PROBES_FOLDER,
    job_folder,
    path_error,
    probe_path,
    prove,
)
from sleap_rtc_plugin.transport.chunk_reader import ChunkReader, ReadChunk
from sleap_rtc_plugin.transport.contained_files import (
    check_folder_below,
    check_inside,
    make_folders_below,
    open_below,
    remove_below,
    rename_below,
    size_below,
)
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.mount_calls import Mount, MountCaller

__all__ = [
    "CopyStopped",
    "Laid",
    "Probe",
    "SharedFolder",
    "SharedStorage",
    "lay_in_thread",
]

logger = logging.getLogger(__name__)

# What is written between two waits for the disk; it must fit into one deadline.
SYNC_BYTES: Final = 32 * MIB
REPORT_EVERY_BYTES: Final = 4 * MIB
MAX_LEFT_OVERS_LOOKED_AT: Final = 10_000
# Everybody makes a folder in these and only its owner removes it, as in /tmp.
_COMMON_MODE: Final = 0o1777
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_FULL: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

Laid = Callable[[int], None]


class CopyStopped(Exception):
    """The copying was called off."""


@dataclass(frozen=True)
class Probe:
    """A nonce that lies on the storage; its name is no secret."""

    name: str
    nonce: bytes


@dataclass(frozen=True)
class _Modes:
    """Who else may use what we make: nobody, or the root's group."""

    common: int
    folder: int
    file: int


class SharedStorage:
    """One side's view of the storage."""

    def __init__(
        self,
        root: Path,
        *,
        place: str | None = None,
        timeout_s: float = MOUNT_TIMEOUT_S,
    ) -> None:
        """Use `root`; nothing is touched yet.

        Args:
            root: where this machine mounts it; may be a link.
            place: what errors call it; a worker does not tell clients its paths.
            timeout_s: how long one call may take.
        """
        self._root = root
        self.place = place or f"The shared storage {root}"
        self._mount = Mount(timeout_s)

    # -- the probe -----------------------------------------------------------------

    def lay_probe(self) -> Probe:
        """Write a nonce for the other side to read; `remove` it by its path.

        Raises:
            SharedStorageUnusable: it cannot be written.
        """
        probe = Probe(secrets.token_hex(PROBE_BYTES), secrets.token_bytes(PROBE_BYTES))
        with self._caller() as caller:
            modes = caller.call(self._modes)
            caller.call(make_folders_below, self._root, PROBES_FOLDER, modes.common)
            file = caller.open(
                open_below, self._root, probe_path(probe.name), _NEW, modes.file
            )
            caller.call(os.write, file, probe.nonce)
            caller.call(os.fsync, file)
            caller.close(file)
        return probe

    def answer_probe(self, name: str, job_id: str) -> str:
        """Return the proof of having read the nonce of that name.

        Raises:
            SharedStorageUnusable: it is not there, or is no nonce.
        """
        with self._caller() as caller:
            file = caller.open(open_below, self._root, probe_path(name), os.O_RDONLY)
            nonce = caller.call(os.read, file, PROBE_BYTES + 1)
        if len(nonce) != PROBE_BYTES:
            raise self.unusable("the probe is no probe")
        return prove(nonce, job_id)

    # -- laying files down -----------------------------------------------------------

    def make_folder(self, path: str, job_id: str) -> None:
        """Make a folder of a job, for this user only unless a group shares the root.

        Raises:
            SharedStorageUnusable: it cannot be made, or is somebody else's.
        """
        with self._caller() as caller:
            modes = caller.call(self._modes)
            caller.call(make_folders_below, self._root, JOBS_FOLDER, modes.common)
            caller.call(make_folders_below, self._root, path, modes.folder)
            if not caller.call(_is_ours, self._root / job_folder(job_id)):
                raise self.unusable("the job's folder belongs to another user")

    def check_folder(self, path: str, job_id: str) -> None:
        """Look whether a folder that a peer named for a job can be used.

        Raises:
            SharedStorageUnusable: it lies elsewhere, or is not there.
        """
        fault = path_error(path, job_id)
        if fault is not None:
            raise self.unusable(fault)
        with self._caller() as caller:
            caller.call(check_inside, self._root, path)
            caller.call(check_folder_below, self._root, path)

    def lay_files(
        self,
        source: FileSource,
        path: str,
        on_laid: Laid = lambda size_bytes: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Copy files into a folder of a job; those that are whole there stay.

        Args:
            source: the files.
            path: the folder, relative to the root; it is there.
            on_laid: told how many more bytes are there.
            is_stopped: asked now and then whether to go on.

        Raises:
            SharedStorageUnusable: they cannot be written, or there is no room.
            SourceChanged: a file is no longer what it was.
            CopyStopped: `is_stopped` said so.
        """
        with self._caller() as caller:
            modes = caller.call(self._modes)
            missing = []
            for index, entry in enumerate(source.manifest.files):
                size = caller.call(size_below, self._root, f"{path}/{entry.path}")
                if size == entry.size_bytes:
                    on_laid(size)
                else:
                    missing.append(index)
            files = source.manifest.files
            self._check_space(caller, sum(files[i].size_bytes for i in missing))
            for index in missing:
                target = f"{path}/{files[index].path}"
                part = f"{path}.{secrets.token_hex(4)}.part"
                above = target.rpartition("/")[0]
                caller.call(make_folders_below, self._root, above, modes.folder)
                file = caller.open(open_below, self._root, part, _NEW, modes.file)
                self._write(caller, file, source, index, on_laid, is_stopped)
                caller.close(file)
                caller.call(rename_below, self._root, part, target)

    def _write(
        self,
        caller: MountCaller,
        file: int,
        source: FileSource,
        index: int,
        on_laid: Laid,
        is_stopped: Callable[[], bool],
    ) -> None:
        manifest = source.manifest
        caller.call(os.ftruncate, file, manifest.files[index].size_bytes)
        unsynced_bytes = 0
        for number in manifest.chunks_of(index):
            if is_stopped():
                raise CopyStopped
            chunk = manifest.chunk(number)
            if not chunk.is_hole:
                caller.call(_write_at, file, source.read_chunk(chunk), chunk.offset)
                unsynced_bytes += chunk.size_bytes
            if unsynced_bytes >= SYNC_BYTES:
                caller.call(os.fsync, file)
                unsynced_bytes = 0
            on_laid(chunk.size_bytes)
        caller.call(os.fsync, file)

    def _check_space(self, caller: MountCaller, size_bytes: int) -> None:
        needed = int(size_bytes * FREE_SPACE_FACTOR)
        free = caller.call(shutil.disk_usage, self._root).free
        if needed > free:
            raise self.unusable(
                f"{needed / MIB:.1f} MiB are needed there and "
                f"{free / MIB:.1f} MiB are free"
            )

    # -- taking and removing -----------------------------------------------------------

    def folder(self, path: str) -> "SharedFolder":
        """Return a folder of a job, to take chunks from; its path was checked."""
        return SharedFolder(self, path)

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[ReadChunk]:
        """Yield what reads a chunk's bytes below `path`, or None where it cannot."""
        with contextlib.ExitStack() as stack:
            try:
                caller = stack.enter_context(self._mount.caller())
            except OSError as error:
                logger.warning("%s", self.unusable(_words(error)))
                yield lambda entry, chunk: None
                return

            def open_file(name: str) -> int:
                return open_below(self._root, f"{path}/{name}", os.O_RDONLY)

            yield ChunkReader(caller, open_file, self.place).read

    def remove(self, path: str) -> None:
        """Remove what lies at a path, as far as it can be done."""
        with contextlib.suppress(SharedStorageUnusable), self._caller() as caller:
            caller.call(remove_below, self._root, path)

    def remove_left_overs(self, now: float) -> None:
        """Remove what crashes of this user's programs left behind long ago.

        Args:
            now: Unix seconds.
        """
        with contextlib.suppress(SharedStorageUnusable), self._caller() as caller:
            for path in caller.call(self._left_overs, now):
                caller.call(remove_below, self._root, path)

    def _left_overs(self, now: float) -> list[str]:
        found: list[str] = []
        for folder in (JOBS_FOLDER, PROBES_FOLDER):
            with contextlib.suppress(OSError), os.scandir(self._root / folder) as all_:
                for count, entry in enumerate(all_):
                    if count >= MAX_LEFT_OVERS_LOOKED_AT:
                        break
                    if folder == JOBS_FOLDER and not is_job_id(entry.name):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    age_s = now - status.st_mtime
                    if _owns(status) and age_s > SHARED_LEFT_OVER_AFTER_S:
                        found.append(f"{folder}/{entry.name}")
        return found

    # -- words and ways ----------------------------------------------------------------

    def unusable(self, reason: str) -> SharedStorageUnusable:
        """Return the error that says why this storage is not used."""
        return SharedStorageUnusable(place=self.place, reason=reason)

    @contextlib.contextmanager
    def _caller(self) -> Iterator[MountCaller]:
        try:
            with self._mount.caller() as caller:
                yield caller
        except OSError as error:
            raise self.unusable(_words(error)) from None

    def _modes(self) -> _Modes:
        if self._root.stat().st_mode & getattr(stat, "S_ISGID", 0):
            return _Modes(common=0o2770, folder=0o2770, file=0o660)
        return _Modes(common=_COMMON_MODE, folder=0o700, file=0o600)


class SharedFolder:
    """Files of a job on the storage, as a source of chunks."""

    def __init__(self, storage: SharedStorage, path: str) -> None:
        """Take from `path`, relative to the storage's root."""
        self.storage = storage
        self.path = path

    def reading(self) -> contextlib.AbstractContextManager[ReadChunk]:
        """Return what reads chunks, in whose context the files stay open."""
        return self.storage.reading(self.path)


async def lay_in_thread(
    storage: SharedStorage,
    source: FileSource,
    path: str,
    *,
    on_laid: Laid = lambda laid_bytes: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Copy files as `lay_files` does, off the event loop.

    Where this is cancelled the copying ends soon. `on_laid` is told on the loop, now
    and then, how many bytes are there by now.
    """
    loop = asyncio.get_running_loop()
    is_cancelled = threading.Event()
    laid = told = 0

    def note(size_bytes: int) -> None:
        nonlocal laid, told
        laid += size_bytes
        if laid - told >= REPORT_EVERY_BYTES or laid == source.manifest.total_bytes:
            told = laid
            loop.call_soon_threadsafe(on_laid, laid)

    work = asyncio.ensure_future(
        in_thread(
            None,
            storage.lay_files,
            source,
            path,
            note,
            lambda: is_cancelled.is_set() or is_stopped(),
        )
    )
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        is_cancelled.set()
        await asyncio.gather(work, return_exceptions=True)
        raise


def _write_at(file: int, data: bytes, offset: int) -> None:
    os.lseek(file, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _is_ours(folder: Path) -> bool:
    """Whether the folder was made by us, or for the group that shares the root."""
    status = folder.lstat()
    return _owns(status) or bool(status.st_mode & getattr(stat, "S_ISGID", 0))


def _owns(status: os.stat_result) -> bool:
    # What root makes belongs to whom the root folder belongs.
    return os.name == "nt" or os.geteuid() in (0, status.st_uid)


def _words(error: OSError) -> str:
    if error.errno in _FULL:
        return "it is full"
    return error.strerror or str(error)
