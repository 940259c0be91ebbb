"""The folders that this worker was told about, as its clients may look into them.

Read only: files are opened for reading, nothing is made or changed. A link is followed
where it stays inside its mount, and no call waits longer than its deadline. Blocking;
asked in threads by `mounted_files`.
"""

import contextlib
import errno
import logging
import os
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from sleap_rtc_plugin.protocol.errors import MountUnusable
from sleap_rtc_plugin.protocol.limits import (
    MAX_MOUNT_CANDIDATES,
    MAX_MOUNT_ENTRIES_PER_PAGE,
    MAX_MOUNT_ENTRIES_SEARCHED,
    MAX_MOUNT_FOLDER_ENTRIES,
    MAX_MOUNT_PAGE_BYTES,
    MOUNT_CALL_TIMEOUT_S,
    MOUNT_RESOLVE_S,
    MOUNT_SEARCH_S,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    EntryKind,
    MountEntry,
    MountPlace,
    WantedFile,
)
from sleap_rtc_plugin.protocol.mounts import (
    client_parts,
    entry_fault,
    place_fault,
    suffixes,
)
from sleap_rtc_plugin.transport.chunk_reader import ChunkReader, ReadChunk
from sleap_rtc_plugin.transport.contained_files import (
    folder_below,
    open_below,
    size_below,
)
from sleap_rtc_plugin.transport.effects import monotonic
from sleap_rtc_plugin.transport.file_samples import sample_descriptor
from sleap_rtc_plugin.transport.mount_calls import Mount, MountCaller

__all__ = ["MountTable", "Page", "Resolution"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
_OUTSIDE: Final = "a link leads out of it"


@dataclass(frozen=True)
class Page:
    """A page of a folder; the meaning of `MountListing`."""

    entries: list[MountEntry]
    more: bool = False
    is_complete: bool = True


@dataclass
class Resolution:
    """Where wanted files were found, by their index.

    `is_complete` is false where a bound ended the looking.
    """

    found: dict[int, MountPlace] = field(default_factory=dict)
    is_complete: bool = True


class MountTable:
    """Every mount of a worker, by its name."""

    def __init__(
        self,
        roots: Mapping[str, Path],
        *,
        call_timeout_s: float = MOUNT_CALL_TIMEOUT_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Serve `roots`; nothing is touched yet.

        Args:
            roots: absolute folders by their names.
            call_timeout_s: how long one call to a file system may take.
            clock: seconds, for what all calls together may take.
        """
        self.roots = dict(roots)
        self._mounts = {name: Mount(call_timeout_s) for name in roots}
        self._clock = clock

    # -- browsing --------------------------------------------------------------------

    def page(self, place: MountPlace | None, after: str) -> Page:
        """Return a page of a folder, or of the mounts, by name.

        Raises:
            MountUnusable: there is no such mount or folder, or it does not answer.
        """
        if place is None:
            names = sorted(name for name in self.roots if name > after)
            return Page([MountEntry(name=name, kind="mount") for name in names])
        with self._caller(place.mount, place.path) as caller:
            entries, is_complete = caller.call(
                _entries, self.roots[place.mount], place.path
            )
        rest = [entry for entry in entries if entry.name > after]
        page: list[MountEntry] = []
        size_bytes = 0
        for entry in rest[:MAX_MOUNT_ENTRIES_PER_PAGE]:
            size_bytes += len(msgspec.json.encode(entry)) + 1
            if page and size_bytes > MAX_MOUNT_PAGE_BYTES:
                break
            page.append(entry)
        return Page(page, more=len(page) < len(rest), is_complete=is_complete)

    # -- finding a client's files ------------------------------------------------------

    def resolve(self, files: Sequence[WantedFile]) -> Resolution:
        """Find files that have the size and the samples that are wanted.

        Looks where the client's hint says, then for the longest end of the client's
        path that a mount has, then everywhere for the name, within bounds.
        """
        resolution = Resolution()
        with contextlib.ExitStack() as stack:
            looking = _Looking(self.roots, files, resolution, self._clock)
            for name, mount in self._mounts.items():
                try:
                    looking.callers[name] = stack.enter_context(mount.caller())
                except OSError as error:
                    looking.give_up(name, error)
            looking.by_hint()
            looking.by_path()
            looking.by_name()
        return resolution

    @contextlib.contextmanager
    def reading(self, places: Mapping[str, MountPlace]) -> Iterator[ReadChunk]:
        """Yield what reads chunks of a package's files, found by `resolve`.

        Args:
            places: by the files' paths in the package.
        """
        with contextlib.ExitStack() as stack:
            readers: dict[str, ReadChunk] = {}
            for name in {place.mount for place in places.values()}:
                try:
                    caller = stack.enter_context(self._mounts[name].caller())
                except OSError as error:
                    logger.warning("The mount %s: %s", name, error)
                    continue
                readers[name] = self._reader(caller, name, places).read
            yield (
                lambda entry, chunk: (
                    readers[place.mount](entry, chunk)
                    if (place := places.get(entry.path)) and place.mount in readers
                    else None
                )
            )

    def _reader(
        self, caller: MountCaller, name: str, places: Mapping[str, MountPlace]
    ) -> ChunkReader:
        def open_file(member: str) -> int:
            base, path = _contained(self.roots[name], places[member].path)
            return open_below(base, path, os.O_RDONLY)

        return ChunkReader(caller, open_file, f"The mount {name}")

    @contextlib.contextmanager
    def _caller(self, name: str, path: str) -> Iterator[MountCaller]:
        if name not in self.roots:
            raise MountUnusable(mount=name, reason="the worker has none of that name")
        fault = place_fault(path)
        if fault is not None:
            raise MountUnusable(mount=name, reason=f"the folder named {fault}")
        try:
            with self._mounts[name].caller() as caller:
                yield caller
        except OSError as error:
            # The worker's own paths are in the error's text, not in its words.
            reason = error.strerror or "it cannot be read"
            raise MountUnusable(mount=name, reason=reason) from None


class _Looking:
    """One look for a client's files on all mounts that answer."""

    def __init__(
        self,
        roots: Mapping[str, Path],
        files: Sequence[WantedFile],
        resolution: Resolution,
        clock: Callable[[], float],
    ) -> None:
        self.callers: dict[str, MountCaller] = {}
        self._roots = roots
        self._files = files
        self._resolution = resolution
        self._clock = clock
        self._until = clock() + MOUNT_RESOLVE_S

    def give_up(self, mount: str, error: OSError) -> None:
        """Leave a mount out that does not answer or cannot be read."""
        logger.warning("The mount %s: %s", mount, error)
        self.callers.pop(mount, None)
        self._resolution.is_complete = False

    # -- the three ways ----------------------------------------------------------------

    def by_hint(self) -> None:
        for index, wanted in self._missing():
            if wanted.hint is not None and place_fault(wanted.hint.path) is None:
                self._check(index, wanted, wanted.hint.mount, wanted.hint.path)

    def by_path(self) -> None:
        for index, wanted in self._missing():
            ends = suffixes(wanted.path)
            candidates: list[tuple[int, str, str]] = []
            for mount in list(self.callers):
                found = self._call(
                    mount, _ends_of_size, self._roots[mount], ends, wanted.size_bytes
                )
                candidates += [(ends.index(end), mount, end) for end in found or ()]
            for _, mount, end in sorted(candidates)[:MAX_MOUNT_CANDIDATES]:
                if self._check(index, wanted, mount, end):
                    break

    def by_name(self) -> None:
        """Walk all mounts, side by side, for what is still missing."""
        if not any(True for _ in self._missing()):
            return
        until = min(self._until, self._clock() + MOUNT_SEARCH_S)
        left = MAX_MOUNT_ENTRIES_SEARCHED
        checked: dict[int, int] = {}
        folders = deque((mount, "") for mount in self.callers)
        while folders:
            names = self._names()
            if not names:
                return
            if left <= 0 or self._clock() >= until:
                self._resolution.is_complete = False
                return
            mount, folder = folders.popleft()
            walked = self._call(
                mount, _walk_folder, self._roots[mount], folder, names, left
            )
            if walked is None:
                continue
            left -= walked.count
            folders.extend((mount, below) for below in walked.folders)
            for index, path in walked.matches:
                if index in self._resolution.found:
                    continue
                checked[index] = checked.get(index, 0) + 1
                if checked[index] > MAX_MOUNT_CANDIDATES:
                    self._resolution.is_complete = False
                else:
                    self._check(index, self._files[index], mount, path)

    # -- one file ------------------------------------------------------------------

    def _missing(self) -> Iterator[tuple[int, WantedFile]]:
        for index, wanted in enumerate(self._files):
            if index not in self._resolution.found:
                yield index, wanted

    def _names(self) -> "dict[tuple[str, int], list[int]]":
        """Return the missing files by their names and sizes."""
        names: dict[tuple[str, int], list[int]] = {}
        for index, wanted in self._missing():
            parts = client_parts(wanted.path)
            if parts:
                key = (_same_name(parts[-1]), wanted.size_bytes)
                names.setdefault(key, []).append(index)
        return names

    def _check(self, index: int, wanted: WantedFile, mount: str, path: str) -> bool:
        """Take a candidate for the file if its size and samples are the same."""
        same = mount in self._roots and self._call(
            mount,
            _has_sample,
            self._roots[mount],
            path,
            wanted.size_bytes,
            wanted.sample,
        )
        if same:
            self._resolution.found[index] = MountPlace(mount=mount, path=path)
        return bool(same)

    def _call(
        self, mount: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """Ask a mount; None where it does not answer, now or any more."""
        caller = self.callers.get(mount)
        if caller is None:
            return None
        if self._clock() >= self._until:
            self._resolution.is_complete = False
            return None
        try:
            return caller.call(function, *args, **kwargs)
        except OSError as error:
            self.give_up(mount, error)
            return None


# -- on the disk, in the thread of a caller ---------------------------------------


@dataclass
class _Walked:
    """What one folder holds for a search."""

    count: int = 0
    folders: list[str] = field(default_factory=list)
    matches: list[tuple[int, str]] = field(default_factory=list)


def _contained(root: Path, path: str) -> tuple[Path, str]:
    """Return the root and a path below it, with no link left in either.

    Raises:
        OSError: there is nothing, or a link leads out of the root.
    """
    try:
        base = root.resolve(strict=True)
        target = (base / path).resolve(strict=True)
    except RuntimeError:
        # A link to itself, before Python 3.13.
        raise OSError(errno.ELOOP, _OUTSIDE) from None
    if not target.is_relative_to(base):
        raise OSError(errno.ELOOP, _OUTSIDE)
    inside = target.relative_to(base).as_posix()
    return base, "" if inside == "." else inside


def _entries(root: Path, path: str) -> tuple[list[MountEntry], bool]:
    """Return what a folder holds, by name, and whether that is all of it."""
    base, inside = _contained(root, path)
    entries: list[MountEntry] = []
    is_complete = True
    with folder_below(base, inside) as folder, os.scandir(folder) as found:
        for count, entry in enumerate(found):
            if count >= MAX_MOUNT_FOLDER_ENTRIES:
                is_complete = False
                break
            status = _status(entry, base, inside)
            kind = None if status is None else _kind(status)
            if status is not None and kind is not None:
                size_bytes = status.st_size if kind == "file" else 0
                entries.append(
                    MountEntry(name=entry.name, kind=kind, size_bytes=size_bytes)
                )
    return sorted(entries, key=lambda entry: entry.name), is_complete


def _status(
    entry: "os.DirEntry[str]", base: Path, folder: str
) -> os.stat_result | None:
    """Return what an entry is; None for what cannot be shown or lies outside."""
    if entry_fault(entry.name) is not None:
        return None
    try:
        if not entry.is_symlink():
            return entry.stat(follow_symlinks=False)
        base, path = _contained(base, f"{folder}/{entry.name}".lstrip("/"))
        return (base / path).lstat()
    except OSError:
        return None


def _same_name(name: str) -> str:
    """Return a name as it is compared: macOS writes accents in another form."""
    return unicodedata.normalize("NFC", name)


def _kind(status: os.stat_result) -> EntryKind | None:
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(status.st_mode) else None


def _ends_of_size(root: Path, ends: Sequence[str], size_bytes: int) -> list[str]:
    """Return those paths below a mount that are files of this size."""
    found = []
    for end in ends:
        # What is not there, or may not be looked at, is only no candidate.
        with contextlib.suppress(OSError):
            base, path = _contained(root, end)
            if size_below(base, path) == size_bytes:
                found.append(end)
    return found


def _has_sample(root: Path, path: str, size_bytes: int, sample: str) -> bool:
    """Tell whether a file has this size and these samples."""
    try:
        base, inside = _contained(root, path)
        descriptor = open_below(base, inside, os.O_RDONLY)
    except OSError:
        return False
    try:
        return (
            os.fstat(descriptor).st_size == size_bytes
            and sample_descriptor(descriptor, size_bytes) == sample
        )
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _walk_folder(
    root: Path, folder: str, names: Mapping[tuple[str, int], Sequence[int]], most: int
) -> _Walked:
    """Look through one folder; links are not followed, so that no walk goes round."""
    walked = _Walked()
    wanted = {name for name, _ in names}
    try:
        base = root.resolve(strict=True)
        with folder_below(base, folder) as opened, os.scandir(opened) as found:
            for entry in found:
                if walked.count >= most:
                    break
                walked.count += 1
                path = f"{folder}/{entry.name}".lstrip("/")
                if place_fault(path) is not None:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    walked.folders.append(path)
                elif (name := _same_name(entry.name)) in wanted and entry.is_file(
                    follow_symlinks=False
                ):
                    size_bytes = entry.stat(follow_symlinks=False).st_size
                    same = names.get((name, size_bytes), ())
                    walked.matches += [(index, path) for index in same]
    except OSError as error:
        # A folder that is not ours to read says nothing of the others.
        logger.info("A folder of a mount: %s", error)
    return walked
