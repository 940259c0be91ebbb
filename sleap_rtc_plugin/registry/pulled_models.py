"""Where a model arrives: beside its place first, then whole or not at all.

Nothing that is there is overwritten. Blocking; `model_registry` calls it in a thread,
with records that were checked and bytes that were verified.
"""

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import StorageFailed
from sleap_rtc_plugin.protocol.limits import MAX_PULLED_NAMES, MIB
from sleap_rtc_plugin.protocol.model_records import MODEL_CONFIG, ModelFile
from sleap_rtc_plugin.transport.effects import storage_error

__all__ = ["ArrivingPart", "find_part"]

# SLEAP lists the newest YAML of a folder; the coarsest clock of a disk ticks in 2 s.
_NEWEST_MARGIN_S: Final = 2.0
_PIECE_BYTES: Final = 4 * MIB


def find_part(folder: Path, name: str, files: Sequence[ModelFile]) -> Path | None:
    """Return the folder that holds a part of a model already, or None.

    Args:
        folder: where parts lie.
        name: of the part; the same with a number counts too.
        files: of the part, by their paths in it.
    """
    for candidate in _candidates(folder / name):
        if not os.path.lexists(candidate):
            return None
        if _holds(candidate, files):
            return candidate
    return None


def _candidates(target: Path) -> Iterator[Path]:
    yield target
    for number in range(2, MAX_PULLED_NAMES + 1):
        yield target.with_name(f"{target.name} ({number})")


def _holds(folder: Path, files: Sequence[ModelFile]) -> bool:
    """Tell whether a folder has all these files; it may have others beside them."""
    try:
        return not folder.is_symlink() and all(
            _is_file(folder.joinpath(*file.path.split("/")), file) for file in files
        )
    except OSError:
        return False


def _is_file(path: Path, file: ModelFile) -> bool:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.size_bytes:
        return False
    hasher = blake3()
    with path.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest() == file.digest


class ArrivingPart:
    """A part of a model on its way into `folder`, under a name that nobody uses."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make the temporary folder.

        Raises:
            DiskFull: there is no room.
            StorageFailed: it cannot be made.
        """
        self._target = folder / name
        self.path = folder / f".{secrets.token_hex(8)}.part"
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()

    def write(self, path: str, data: bytes) -> None:
        """Append to a file of the part."""
        target = self.path.joinpath(*path.split("/"))
        with self._errors(len(data)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as file:
                file.write(data)

    def place(self) -> Path:
        """Give the part its name, or the first free one with a number.

        Returns:
            Where it lies now.
        """
        with self._errors():
            self._make_newest()
            for path in [*self.path.rglob("*"), self.path]:
                _sync(path)
            for candidate in _candidates(self._target):
                if os.path.lexists(candidate):
                    continue
                try:
                    self.path.rename(candidate)
                except OSError:
                    if os.path.lexists(candidate):
                        continue  # another program was faster to take the name
                    raise
                _sync(candidate.parent)
                return candidate
        raise StorageFailed(
            place=str(self._target),
            reason=f"there are {MAX_PULLED_NAMES} of that name already",
        )

    def discard(self) -> None:
        """Leave nothing behind; without effect once it is in its place."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _make_newest(self) -> None:
        now = time.time()
        for path in self.path.rglob("*"):
            at = now if path.name == MODEL_CONFIG else now - _NEWEST_MARGIN_S
            os.utime(path, (at, at))

    @contextlib.contextmanager
    def _errors(self, needed_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, self._target.parent, needed_bytes) from error


def _sync(path: Path) -> None:
    if os.name != "posix":
        return  # Windows opens no folder, and syncs a file only while writing it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
