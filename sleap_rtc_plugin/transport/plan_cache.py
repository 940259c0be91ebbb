"""How files were cut and hashed before, so that an unchanged one is not read again.

Trusts the file system's word that a file is the same; `FileSource.reading` does
not. A folder of small files, shared by any number of processes: a plan that is
missing, torn or foreign is merely made again. Called by `FileSource.scan`.
"""

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3
from msgspec import Struct

from sleap_rtc_plugin.protocol.limits import MAX_MANIFEST_BYTES, MIB
from sleap_rtc_plugin.protocol.manifest import DIGEST_BYTES, FileEntry
from sleap_rtc_plugin.transport.chunking import ChunkSizes

__all__ = ["MAX_PLANS", "MAX_PLANS_BYTES", "Archive", "PlanCache", "PlanKey"]

logger = logging.getLogger(__name__)

MAX_PLANS: Final = 100
MAX_PLANS_BYTES: Final = 64 * MIB
# Smaller files are hashed sooner than looked up.
MIN_FILE_BYTES: Final = 4 * MIB
# The coarsest clock of a file system (FAT's) ticks every two seconds: a file changed
# again within the tick would look the same.
SETTLED_NS: Final = 2_000_000_000
# Changed with every change of how files are cut.
_VERSION: Final = 2
_SUFFIX: Final = ".plan"


@dataclass(frozen=True)
class PlanKey:
    """What has to be the same for a plan to hold.

    `changed_ns` is when the inode changed: unlike the time of the contents, no program
    can set it back.
    """

    path: str
    size_bytes: int
    modified_ns: int
    changed_ns: int
    device: int
    inode: int
    sizes: ChunkSizes

    @classmethod
    def of(cls, path: Path, status: os.stat_result, sizes: ChunkSizes) -> "PlanKey":
        """Return the key of an open file."""
        return cls(
            path=str(path.resolve()),
            size_bytes=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
            device=status.st_dev,
            inode=status.st_ino,
            sizes=sizes,
        )


@dataclass(frozen=True)
class Archive:
    """An archive that was just extracted: its files are what it is, wherever they lie.

    Attributes:
        path: the archive.
        status: of the file, before anything was extracted from it.
    """

    path: Path
    status: os.stat_result

    @classmethod
    def of(cls, path: Path) -> "Archive":
        """Look at an archive that is about to be extracted.

        Raises:
            OSError: it is not there.
        """
        return cls(path, path.stat())

    @property
    def is_unchanged(self) -> bool:
        """Whether the archive is still the one that was extracted."""
        try:
            now = PlanKey.of(self.path, self.path.stat(), ChunkSizes())
        except OSError:
            return False
        return now == PlanKey.of(self.path, self.status, ChunkSizes())

    def is_settled(self, now_ns: int) -> bool:
        """Whether it last changed so long before `now_ns` that a change would show."""
        newest_ns = max(self.status.st_mtime_ns, self.status.st_ctime_ns)
        return now_ns - newest_ns >= SETTLED_NS

    @property
    def fingerprint(self) -> str:
        """A file name that no other archive has, nor this one once it is changed."""
        key = PlanKey.of(self.path, self.status, ChunkSizes())
        return blake3(msgspec.msgpack.encode(key)).hexdigest()

    def key_of(self, member: str, size_bytes: int, sizes: ChunkSizes) -> PlanKey:
        """Return the key of a file that was extracted, by its path in the archive."""
        key = PlanKey.of(self.path, self.status, sizes)
        return replace(key, path=f"{key.path}\0{member}", size_bytes=size_bytes)


class _Plan(Struct, frozen=True, array_like=True):
    version: int
    key: PlanKey
    entry: FileEntry


class PlanCache:
    """Plans of files, in a private folder."""

    def __init__(
        self, folder: Path, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Use `folder`, which is made when needed; `clock_ns` is Unix time."""
        self._folder = folder
        self._clock_ns = clock_ns

    def find(self, key: PlanKey) -> FileEntry | None:
        """Return what was kept for `key`, or None."""
        if key.size_bytes < MIN_FILE_BYTES:
            return None
        path = self._path_of(key)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES)
            checksum, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
            if blake3(body).digest() != checksum:
                return None
            plan = msgspec.msgpack.decode(body, type=_Plan)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if (plan.version, plan.key) != (_VERSION, key):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return plan.entry

    def keep(self, key: PlanKey, entry: FileEntry) -> None:
        """Keep the plan of a file that has not changed lately; forget old ones.

        A full or broken disk costs the plan, nothing else.
        """
        now_ns = self._clock_ns()
        newest_ns = max(key.modified_ns, key.changed_ns)
        if key.size_bytes < MIN_FILE_BYTES or now_ns - newest_ns < SETTLED_NS:
            return
        body = msgspec.msgpack.encode(_Plan(_VERSION, key, entry))
        path = self._path_of(key)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(blake3(body).digest() + body)
            draft.replace(path)
            self._forget_old()
        except OSError as error:
            logger.debug("A plan could not be kept: %s", error)
            with contextlib.suppress(OSError):
                draft.unlink()

    def _path_of(self, key: PlanKey) -> Path:
        name = blake3(key.path.encode(errors="surrogateescape")).hexdigest()
        return self._folder / (name + _SUFFIX)

    def _forget_old(self) -> None:
        """Delete what was not used for longest, drafts of dead processes included."""
        found: list[tuple[int, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, status.st_size, path))
        total_bytes = 0
        for count, (_, size_bytes, path) in enumerate(sorted(found, reverse=True), 1):
            total_bytes += size_bytes
            if count > MAX_PLANS or total_bytes > MAX_PLANS_BYTES:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
