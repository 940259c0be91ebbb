"""Verified copies of models on this worker's disk: bounded, shared between its jobs.

What was not used for longest goes first, and never what is in use. It knows neither the
registry nor the store: `model_registry` fills it, and takes models out of it. Blocking
calls, made in threads; its own bookkeeping may be asked anywhere.

    <model id>/record.json     what the registry said of it; its time is the last use
    <model id>/files/          one folder for each part
    <model id>.part/           one that is being fetched
"""

import contextlib
import errno
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from sleap_rtc_plugin.protocol.errors import ModelDamaged
from sleap_rtc_plugin.protocol.limits import FREE_SPACE_FACTOR, MIB
from sleap_rtc_plugin.protocol.model_records import ModelRecord, is_model_id
from sleap_rtc_plugin.registry.room_manifest import record_fault
from sleap_rtc_plugin.transport.effects import storage_error, wall_clock
from sleap_rtc_worker.limits import MAX_MODEL_RECORD_BYTES

__all__ = ["ModelCache"]

logger = logging.getLogger(__name__)

_RECORD: Final = "record.json"
_FILES: Final = "files"
_PART: Final = ".part"
_BLOCK_BYTES: Final = 1 * MIB


class ModelCache:
    """The models at hand."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        *,
        place: str = "the worker's disk",
        now: Callable[[], float] = wall_clock,
    ) -> None:
        """Take up what an earlier worker left in `folder`, which is made when needed.

        Args:
            folder: for nothing else, and one worker at a time.
            limit_bytes: how much may be kept that nobody uses.
            place: what clients are told it is called.
            now: Unix seconds.

        Raises:
            DiskFull, StorageFailed: the folder cannot be used.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._place = place
        self._now = now
        self._lock = threading.Lock()
        # Whoever changes folders; taken before the other one.
        self._changing = threading.RLock()
        self._records: dict[str, ModelRecord] = {}
        self._used_at: dict[str, float] = {}
        self._uses: Counter[str] = Counter()
        self._unwanted: set[str] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in list(folder.iterdir()):
                self._take_up(entry)
        except OSError as error:
            raise storage_error(error, folder, place=place) from None
        self.trim()

    def _take_up(self, entry: Path) -> None:
        path = entry / _RECORD
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MODEL_RECORD_BYTES + 1)
            record = msgspec.json.decode(data, type=ModelRecord)
            used_at = path.stat().st_mtime
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            record, used_at = None, 0.0
        if record is None or record.id != entry.name or record_fault(record):
            # What was being fetched, or torn by a crash, is fetched anew.
            _remove(entry)
            return
        self._records[record.id] = record
        self._used_at[record.id] = used_at

    # -- what is here ----------------------------------------------------------------

    @property
    def records(self) -> dict[str, ModelRecord]:
        """Every model at hand, by its id."""
        with self._lock:
            return dict(self._records)

    @property
    def size_bytes(self) -> int:
        """What all of them take."""
        with self._lock:
            return sum(record.size_bytes for record in self._records.values())

    def holds(self, record: ModelRecord) -> bool:
        """Tell whether a model is at hand, with all its files."""
        with self._lock:
            held = self._records.get(record.id)
        # Whoever published it again may have brought more files.
        return held is not None and (held.files, held.parts) == (
            record.files,
            record.parts,
        )

    def files_of(self, model_id: str) -> Path:
        """Return the folder below which a model's files lie."""
        return self._folder / model_id / _FILES

    @contextlib.contextmanager
    def using(self, model_id: str) -> Iterator[None]:
        """Keep a model, here already or fetched meanwhile, from being removed."""
        with self._lock:
            self._uses[model_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._uses[model_id] -= 1
                if not self._uses[model_id]:
                    del self._uses[model_id]

    def touch(self, model_id: str) -> None:
        """Note that a model was used now."""
        with self._lock:
            self._used_at[model_id] = self._now()
        with contextlib.suppress(OSError):
            os.utime(self._folder / model_id / _RECORD)

    # -- adding and removing ---------------------------------------------------------

    def incoming(self, record: ModelRecord) -> Path:
        """Return an empty folder into which a model may be fetched.

        Raises:
            DiskFull: the model does not fit.
            StorageFailed: there is none to be had.
        """
        folder = self._incoming(record.id)
        needed = int(record.size_bytes * FREE_SPACE_FACTOR)
        try:
            _remove(folder)
            folder.mkdir(mode=0o700)
            if shutil.disk_usage(folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise storage_error(error, folder, needed, self._place) from None
        return folder

    def forget_incoming(self, model_id: str) -> None:
        """Remove what was fetched of a model, which is not wanted after all."""
        shutil.rmtree(self._incoming(model_id), ignore_errors=True)

    def _incoming(self, model_id: str) -> Path:
        return self._folder / f"{_checked(model_id)}{_PART}"

    def keep(self, record: ModelRecord) -> None:
        """Take in what lies in the folder that `incoming` gave, and make room for it.

        Raises:
            DiskFull, StorageFailed: it cannot be kept.
        """
        folder, part = self._folder / record.id, self._incoming(record.id)
        with self._changing:
            try:
                _remove(folder)
                folder.mkdir(mode=0o700)
                part.rename(folder / _FILES)
                written = folder / f"{_RECORD}{_PART}"
                written.write_bytes(msgspec.json.encode(record))
                # Only with its record is it one that a later worker takes up.
                written.replace(folder / _RECORD)
            except OSError as error:
                raise storage_error(
                    error, folder, record.size_bytes, self._place
                ) from None
            with self._lock:
                self._records[record.id] = record
                self._used_at[record.id] = self._now()
                self._unwanted.discard(record.id)
        self.trim()

    def keep_only(self, wanted: set[str]) -> None:
        """Remove every model but these: the registry has deleted the others."""
        with self._lock:
            self._unwanted = set(self._records) - wanted
        self.trim()

    def drop(self, model_id: str) -> None:
        """Remove a model, whoever uses it: it is not what it should be."""
        with self._changing:
            with self._lock:
                self._forget(model_id)
            with contextlib.suppress(OSError):
                _remove(self._folder / _checked(model_id))

    def trim(self) -> None:
        """Remove what is not wanted any more, and what is too much."""
        with self._changing:
            with self._lock:
                # Whoever begins to use one from here on finds that it is not there.
                gone = self._superfluous()
                for model_id in gone:
                    self._forget(model_id)
            for model_id in gone:
                logger.info("The model %s leaves this worker", model_id)
                with contextlib.suppress(OSError):
                    _remove(self._folder / model_id)

    def _superfluous(self) -> list[str]:
        unused = [m for m in self._records if m not in self._uses]
        gone = [m for m in unused if m in self._unwanted]
        left_bytes = sum(
            r.size_bytes for m, r in self._records.items() if m not in gone
        )
        for model_id in sorted(unused, key=lambda m: self._used_at[m]):
            if left_bytes <= self._limit_bytes:
                break
            if model_id not in gone:
                gone.append(model_id)
                left_bytes -= self._records[model_id].size_bytes
        return gone

    def _forget(self, model_id: str) -> None:
        self._records.pop(model_id, None)
        self._used_at.pop(model_id, None)
        self._unwanted.discard(model_id)

    # -- using -----------------------------------------------------------------------

    def verify(self, model_id: str) -> None:
        """Compare a model's files with its record.

        Raises:
            ModelDamaged: one is not what it was; the model is not here any more.
            StorageFailed: the disk failed.
        """
        for _ in self._verified(model_id, None):
            pass

    def copy(self, model_id: str, target: Path) -> None:
        """Copy a model's files below `target`, each verified as it is copied.

        Raises:
            ModelDamaged: one is not what it was; the model is not here any more, and
                what was copied is removed again.
            DiskFull, StorageFailed: the disk failed.
        """
        # What a check that was cut off left there.
        shutil.rmtree(target, ignore_errors=True)
        try:
            for _ in self._verified(model_id, target):
                pass
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise

    def _verified(self, model_id: str, target: Path | None) -> Iterator[None]:
        with self._lock:
            record = self._records.get(model_id)
        if record is None:
            raise ModelDamaged(
                model=model_id, file="a file", reason="the worker's copy is gone"
            )
        source = self.files_of(model_id)
        for file in record.files:
            try:
                to = target / file.path if target is not None else None
                digest = _read(source / file.path, to)
            except FileNotFoundError:
                digest = ""
            except OSError as error:
                raise storage_error(
                    error, source, record.size_bytes, self._place
                ) from None
            if digest != file.digest:
                self.drop(model_id)
                raise ModelDamaged(
                    model=model_id,
                    file=file.path,
                    reason="the worker's copy has changed",
                )
            yield
        self.touch(model_id)


def _read(source: Path, target: Path | None) -> str:
    """Return a file's digest in hex, and copy the bytes that it was taken of."""
    digest = blake3()
    with contextlib.ExitStack() as stack:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        opened = os.open(source, flags | getattr(os, "O_NOFOLLOW", 0))
        reading = stack.enter_context(os.fdopen(opened, "rb", buffering=0))
        writing = None
        if target is not None:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            writing = stack.enter_context(target.open("xb", buffering=0))
        while block := reading.read(_BLOCK_BYTES):
            digest.update(block)
            view = memoryview(block)
            while writing is not None and view:
                view = view[writing.write(view) or 0 :]
    return digest.hexdigest()


def _checked(model_id: str) -> str:
    if not is_model_id(model_id):
        raise ValueError("a model's id that was not checked")
    return model_id


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
