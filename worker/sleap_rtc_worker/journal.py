"""What the worker must not forget: its jobs and their numbered events (SQLite, WAL).

Every change is written here before anyone hears of it. One worker holds a journal at
a time; a second on the same folder is refused. Called by the job coordinator only.
"""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sleap_rtc_plugin.protocol.codec import decode_control, encode_control
from sleap_rtc_plugin.protocol.errors import (
    ErrorInfo,
    FolderInUse,
    JournalDamaged,
    JournalTooNew,
    RemoteProtocolError,
    RtcError,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.job import ENDED, JobState
from sleap_rtc_plugin.protocol.messages import (
    JobEvent,
    JobSpec,
    PredictStep,
    Step,
    StepEvent,
    StopScope,
)
from sleap_rtc_plugin.transport.effects import storage_error
from sleap_rtc_worker.loss_trail import LossTrail
from sleap_rtc_worker.step_restart import Reached

__all__ = ["JobRecord", "Journal"]

JOURNAL_VERSION: Final = 3
EVENTS_PAGE: Final = 500
LOCK_TIMEOUT_S: Final = 0.1
RESERVE_BYTES: Final = 1024 * 1024
MAX_DAMAGE_CHARS: Final = 200
_FILE: Final = "journal.sqlite3"
_RESERVE_FILE: Final = "journal.reserve"
# What clients are told it is called.
_PLACE: Final = "the worker's journal"
_MAGIC: Final = b"SQLite format 3\0"
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    record BLOB NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    job_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    frame TEXT NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;
"""


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job as the journal keeps it.

    Attributes:
        submitter: the peer id that submitted it, to be told of its end.
        events_offset: how many bytes of the current step's event file are journaled.
        has_package: whether the whole package is here, so that it can be checked.
        started_at: when its first step began (Unix seconds).
        ended_at: when it reached its end.
        epoch: of the current step, counted from 0.
        done: frames that the current step has predicted.
        total: frames that it is to predict.
        ticket: when it was queued; a number of the same count as `turn`.
        turn: when it was given a slot.
        left: when it gave that back.
        gpu: the slot's GPU, as CUDA_VISIBLE_DEVICES names it.
        epochs: the most that each step trains for, 0 where that is not known.
        ran_s: for how long it was seen running.
        size_bytes: what its files take on the disk, once it has ended.
        fetched_at: when a client had all its results (Unix seconds).
        removed_at: when its files were removed.
        restarts: how often the current step was begun again.
        reached: how far the events of the current step have come.
        trail: the losses of the last training, thinned.
        published: the folders of models of the registry that its steps use, by id;
            relative to where those of the job lie, in the order of their use.
        model: what was published of it.
        alias: the alias that it got.
    """

    job_id: str
    spec: JobSpec
    package_digest: str
    package_bytes: int
    submitter: str
    created_at: float
    state: JobState = JobState.SUBMITTED
    step: int | None = None
    error: ErrorInfo | None = None
    finished_steps: list[int] = []
    stop_scope: StopScope | None = None
    events_offset: int = 0
    has_package: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    epoch: int | None = None
    done: int = 0
    total: int = 0
    ticket: int = 0
    turn: int = 0
    left: int = 0
    gpu: str | None = None
    epochs: list[int] = []
    ran_s: float = 0.0
    size_bytes: int = 0
    fetched_at: float | None = None
    removed_at: float | None = None
    restarts: int = 0
    reached: Reached = Reached()
    trail: LossTrail = LossTrail()
    published: dict[str, list[str]] = {}
    model: str | None = None
    alias: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the job reached one of its ends."""
        return self.state in ENDED

    def published_for(self, step: Step) -> list[str]:
        """Return the folders of the model of the registry that a step uses, if any."""
        model_id = step.published if isinstance(step, PredictStep) else None
        return self.published[model_id] if model_id is not None else []


class Journal:
    """The jobs and events of one worker's data folder."""

    def __init__(self, folder: Path) -> None:
        """Open or make the journal in `folder`.

        Raises:
            FolderInUse: another worker holds it.
            JournalTooNew: a newer version wrote it; it is left as it is.
            JournalDamaged: it cannot be read; it is left as it is.
            DiskFull, StorageFailed: the disk failed.
        """
        self._path = folder / _FILE
        self._reserve = folder / _RESERVE_FILE
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # SQLite gives its companion files the permissions of this one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            has_content = self._path.stat().st_size > 0
        except OSError as error:
            raise storage_error(error, self._path) from None
        try:
            if has_content:
                with contextlib.suppress(sqlite3.OperationalError):
                    # A disk that is full has no room for what SQLite wants to look.
                    self._inspect()
            self._db = sqlite3.connect(
                self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None
            )
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        except RemoteProtocolError as error:
            raise self._damaged(error.detail) from None
        except sqlite3.Error as error:
            raise self._fault(error, folder) from None
        self._refill_reserve()

    def _inspect(self) -> None:
        """Look at a journal before anything is written to it.

        SQLite changes a file even when it closes it (it folds the WAL in), so a journal
        that is not taken up is opened for reading only.
        """
        with self._path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise self._damaged("it is no SQLite database")
        reading = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=LOCK_TIMEOUT_S,
            isolation_level=None,
        )
        with contextlib.closing(reading):
            (version,) = reading.execute("PRAGMA user_version").fetchone()
            if version > JOURNAL_VERSION:
                raise JournalTooNew(place=str(self._path), version=str(version))
            found = reading.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise self._damaged(clean_text(str(found[0]), MAX_DAMAGE_CHARS))
            if version == 0:
                return
            for (row,) in reading.execute("SELECT record FROM jobs"):
                try:
                    msgspec.json.decode(row, type=JobRecord)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    reason = f"a job in it cannot be read: {error}"
                    raise self._damaged(clean_text(reason, MAX_DAMAGE_CHARS)) from None

    def _damaged(self, reason: str) -> JournalDamaged:
        return JournalDamaged(place=str(self._path), reason=reason)

    def _fault(self, error: sqlite3.Error, folder: Path) -> RtcError:
        """Return the words for what SQLite said while the journal was opened."""
        if "locked" in str(error):
            return FolderInUse(place=str(folder))
        if _is_full(error):
            return self._full()
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
            return StorageFailed(place=str(self._path), reason=str(error))
        return self._damaged(str(error))

    def _full(self) -> RtcError:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return storage_error(full, self._path, needed_bytes=RESERVE_BYTES, place=_PLACE)

    def _open(self) -> None:
        # The exclusive lock is what refuses a second worker on the same folder.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != JOURNAL_VERSION:
            self._db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            if version == 1:
                self._fill_in_times()
            # Version 2 knew no restarts; what a record lacks has its default.
            self._db.execute(f"PRAGMA user_version={JOURNAL_VERSION}")
            self._db.execute("COMMIT")
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")

    def _fill_in_times(self) -> None:
        """Read from their events when the jobs of a version 1 began and ended."""
        for record in self.jobs():
            rows = self._db.execute(
                "SELECT frame FROM events WHERE job_id = ? "
                "AND frame GLOB 'JOB_EVENT::*' ORDER BY seq",
                (record.job_id,),
            )
            events = [decode_control(frame) for (frame,) in rows]
            at = {e.state: e.at for e in reversed(events) if isinstance(e, JobEvent)}
            filled = msgspec.structs.replace(
                record,
                started_at=at.get(JobState.STARTING),
                ended_at=at.get(record.state) if record.has_ended else None,
            )
            self._db.execute(
                "UPDATE jobs SET record = ? WHERE job_id = ?",
                (msgspec.json.encode(filled), record.job_id),
            )

    def close(self) -> None:
        """Close the journal."""
        self._db.close()

    # -- jobs ----------------------------------------------------------------------

    def jobs(self) -> list[JobRecord]:
        """Return every job in the order in which they came.

        Not by their times: a clock that was set back must not change a queue.
        """
        rows = self._db.execute("SELECT record FROM jobs ORDER BY rowid")
        return [msgspec.json.decode(row, type=JobRecord) for (row,) in rows]

    def write(
        self,
        record: JobRecord,
        events: Sequence[StepEvent] = (),
        *,
        is_vital: bool = False,
    ) -> None:
        """Write a job and its new events, both or neither.

        Args:
            record: the job.
            events: what is new of it.
            is_vital: use the reserve where the disk is full: what became of a job
                must be known, also where its log is not.

        Raises:
            DiskFull, StorageFailed: the disk failed; nothing was written.
        """
        frames = [(record.job_id, e.seq, encode_control(e)) for e in events]
        try:
            self._insert(record, frames)
        except sqlite3.Error as error:
            if not _is_full(error):
                raise StorageFailed(place=_PLACE, reason=str(error)) from None
            if not is_vital or not self._reserve.exists():
                raise self._full() from None
        else:
            if is_vital:
                self._refill_reserve()
            return
        self._give_reserve_up()
        try:
            self._insert(record, frames)
        except sqlite3.Error as error:
            if _is_full(error):
                raise self._full() from None
            raise StorageFailed(place=_PLACE, reason=str(error)) from None

    def _insert(self, record: JobRecord, frames: list[tuple[str, int, str]]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?) "
                "ON CONFLICT (job_id) DO UPDATE SET record = excluded.record",
                (record.job_id, msgspec.json.encode(record), record.created_at),
            )
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?)", frames)

    # -- the reserve -----------------------------------------------------------------

    def _refill_reserve(self) -> None:
        """Take a little of the disk, to have it when there is nothing left."""
        with contextlib.suppress(OSError):
            if self._reserve.exists():
                return
        part = self._reserve.with_suffix(".part")
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                # Bytes that no file system makes smaller.
                file.write(os.urandom(RESERVE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._reserve)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def _give_reserve_up(self) -> None:
        with contextlib.suppress(OSError):
            self._reserve.unlink()

    def forget(self, job_id: str) -> None:
        """Delete a job and its events.

        Raises:
            StorageFailed: the disk failed; nothing was deleted.
        """
        try:
            with self._db:
                self._db.execute("BEGIN")
                self._db.execute("DELETE FROM events WHERE job_id = ?", (job_id,))
                self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
        except sqlite3.Error as error:
            raise StorageFailed(place=str(self._path), reason=str(error)) from None

    # -- events --------------------------------------------------------------------

    def last_seq(self, job_id: str) -> int:
        """Return the number of a job's newest event, 0 without any."""
        row = self._db.execute(
            "SELECT max(seq) FROM events WHERE job_id = ?", (job_id,)
        ).fetchone()
        return int(row[0] or 0)

    def events(
        self, job_id: str, since: int, limit: int = EVENTS_PAGE
    ) -> list[StepEvent]:
        """Return a job's events after number `since`, at most `limit`, in order."""
        rows = self._db.execute(
            "SELECT frame FROM events WHERE job_id = ? AND seq > ? "
            "ORDER BY seq LIMIT ?",
            (job_id, since, limit),
        )
        events: list[StepEvent] = []
        for (frame,) in rows:
            event = decode_control(frame)
            if not isinstance(event, StepEvent):
                raise RemoteProtocolError(detail="a journal entry that is no event")
            events.append(event)
        return events


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
