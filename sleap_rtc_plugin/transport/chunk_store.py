"""Verified files of earlier packages, kept so that their bytes need not be sent again.

A cache: what it gives is checked first, what it cannot do is left undone, and nothing
here makes a transfer fail. Files are hard links to where they are used, so keeping
them writes nothing; whoever changes his file in place changes ours, which its digest
tells. Blocking calls, made in threads by `StagingArea`; processes may share a store.
"""

import contextlib
import logging
import os
import secrets
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from blake3 import blake3

from sleap_rtc_plugin.protocol.limits import KIB, MIB
from sleap_rtc_plugin.protocol.manifest import DIGEST_BYTES, HOLE, FileEntry

__all__ = ["ChunkStore", "Place"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

STORE_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
# A smaller chunk costs as much to remember as to send.
MIN_INDEXED_CHUNK_BYTES: Final = 256
# What a file and an indexed chunk take besides the file's own bytes.
FILE_COST_BYTES: Final = 4 * KIB
ROW_COST_BYTES: Final = 160
MAX_PLACES: Final = 4
MAX_DIGESTS_PER_QUERY: Final = 500
LEASE_LIFETIME_S: Final = 600.0
MAX_MANIFESTS: Final = 64
MAX_MANIFESTS_BYTES: Final = 64 * MIB

_INDEX: Final = "index.sqlite3"
_DAMAGED: Final = "index.damaged"
_FILES: Final = "files"
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | _SAFELY
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    chunking BLOB NOT NULL,
    cost INTEGER NOT NULL,
    used_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS chunks (
    digest BLOB NOT NULL,
    file INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (digest, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS chunks_of_file ON chunks (file);
CREATE TABLE IF NOT EXISTS leases (
    owner TEXT NOT NULL,
    file INTEGER NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (owner, file)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (
    digest BLOB PRIMARY KEY,
    data BLOB NOT NULL,
    used_at REAL NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Place:
    """Where some bytes should be.

    Attributes:
        file: digest of the stored file.
        offset: in that file, in bytes.
        size_bytes: how many.
        digest: what they must have.
    """

    file: bytes
    offset: int
    size_bytes: int
    digest: bytes


class ChunkStore:
    """One room's files below one folder, with an index of their chunks."""

    def __init__(self, root: Path, *, max_bytes: int, place: str | None = None) -> None:
        """Open or make the store and let go of what is not whole.

        A folder that cannot be used makes a store that has nothing and keeps nothing.

        Args:
            root: a folder of its own, for this user only.
            max_bytes: what `trim` leaves, with the index.
            place: what the log calls it, where that is not its path.
        """
        self._root = root
        self._files = root / _FILES
        self._max_bytes = max_bytes
        self._place = place or str(root)
        self._lock = threading.RLock()
        self._complained = False
        self._db: sqlite3.Connection | None = None
        try:
            for folder in (root, self._files):
                folder.mkdir(mode=0o700, exist_ok=True)
            self._db = self._open_index()
        except (OSError, sqlite3.Error) as error:
            self._complain(error)
        self._attempt(self._drop_what_is_not_whole, None)

    def close(self) -> None:
        """Close the index; the store has nothing from here on."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # -- keeping -------------------------------------------------------------------

    def keep(self, files: Iterable[tuple[Path, FileEntry]], now: float) -> None:
        """Remember files that were just verified, as best we can.

        Args:
            files: each with its size, digest and chunks; it is linked, or copied where
                the disk knows no links.
            now: Unix seconds.
        """
        wanted = [each for each in files if 0 < each[1].size_bytes <= self._max_bytes]

        def keep(db: sqlite3.Connection) -> None:
            for path, entry in wanted:
                self._keep(db, path, entry, now)

        if wanted:
            self._attempt(keep, None)

    def _keep(
        self, db: sqlite3.Connection, path: Path, entry: FileEntry, now: float
    ) -> None:
        chunking = _chunking_of(entry)
        target = self._path(entry.digest)
        row = db.execute(
            "SELECT id, chunking FROM files WHERE digest = ?", (entry.digest,)
        ).fetchone()
        # What was just verified also replaces what we have: that may have been
        # changed, or be held by nobody else any more.
        if not _link(path, target, entry.size_bytes) and (
            _regular_size(target) != entry.size_bytes
        ):
            _remove(target)
            _copy(path, target)
        if row is not None and row[1] == chunking:
            db.execute("UPDATE files SET used_at = ? WHERE id = ?", (now, row[0]))
            return
        if row is not None:
            _forget_rows(db, row[0])
        file = db.execute(
            "INSERT INTO files (digest, size, chunking, cost, used_at) "
            "VALUES (?, ?, ?, 0, ?)",
            (entry.digest, entry.size_bytes, chunking, now),
        ).lastrowid
        rows = db.executemany(
            "INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?)",
            ((d, file, offset, size) for d, offset, size in _indexed(entry)),
        ).rowcount
        cost = FILE_COST_BYTES + entry.size_bytes + max(rows, 0) * ROW_COST_BYTES
        db.execute("UPDATE files SET cost = ? WHERE id = ?", (cost, file))

    def keep_manifest(self, data: bytes, now: float) -> None:
        """Remember a manifest; the newest few are kept."""

        def keep(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO manifests VALUES (?, ?, ?) "
                "ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at",
                (blake3(data).digest(), data, now),
            )
            left_bytes = MAX_MANIFESTS_BYTES
            rows = db.execute(
                "SELECT digest, length(data) FROM manifests "
                "ORDER BY used_at DESC, rowid DESC"
            ).fetchall()
            for rank, (digest, size_bytes) in enumerate(rows):
                left_bytes -= size_bytes
                if rank >= MAX_MANIFESTS or left_bytes < 0:
                    db.execute("DELETE FROM manifests WHERE digest = ?", (digest,))

        self._attempt(keep, None)

    def trim(self, now: float) -> None:
        """Let the files go that were not used for longest, until the rest fits.

        A file stays while a lease holds it.
        """

        def trim(db: sqlite3.Connection) -> None:
            (total,) = db.execute("SELECT coalesce(sum(cost), 0) FROM files").fetchone()
            if total <= self._max_bytes:
                return
            for file, digest, cost in _oldest_first(db, now):
                if total <= self._max_bytes:
                    return
                self._forget(db, file, digest)
                total -= cost

        self._attempt(trim, None)

    def make_room(self, wanted_bytes: int, now: float) -> None:
        """Give disk space back, the oldest files first: a transfer needs it more."""

        def make_room(db: sqlite3.Connection) -> None:
            left_bytes = wanted_bytes
            for file, digest, _ in _oldest_first(db, now):
                if left_bytes <= 0:
                    return
                # Where a job still has the file, our link takes no space.
                if spare_bytes := _spare_bytes(self._path(digest)):
                    self._forget(db, file, digest)
                    left_bytes -= spare_bytes

        self._attempt(make_room, None)

    def spare_bytes(self) -> int:
        """Return how many bytes of the disk nobody holds but the store."""

        def spare(db: sqlite3.Connection) -> int:
            rows = db.execute("SELECT digest FROM files").fetchall()
            return sum(_spare_bytes(self._path(digest)) for (digest,) in rows)

        return self._attempt(spare, 0)

    # -- finding -------------------------------------------------------------------

    def file(self, digest: bytes) -> Place | None:
        """Return where a whole file of this digest is, or None."""

        def find(db: sqlite3.Connection) -> Place | None:
            row = db.execute(
                "SELECT size FROM files WHERE digest = ?", (digest,)
            ).fetchone()
            return None if row is None else Place(digest, 0, row[0], digest)

        return self._attempt(find, None)

    def find(self, digests: Collection[bytes]) -> dict[bytes, list[Place]]:
        """Return where chunks of these digests are, the files used last first."""
        wanted = list(set(digests))

        def find(db: sqlite3.Connection) -> dict[bytes, list[Place]]:
            found: dict[bytes, list[Place]] = {}
            for start in range(0, len(wanted), MAX_DIGESTS_PER_QUERY):
                some = wanted[start : start + MAX_DIGESTS_PER_QUERY]
                marks = ", ".join("?" * len(some))
                rows = db.execute(
                    "SELECT chunks.digest, files.digest, offset, chunks.size "  # noqa: S608 - question marks only
                    "FROM chunks JOIN files ON files.id = chunks.file "
                    f"WHERE chunks.digest IN ({marks}) "
                    "ORDER BY files.used_at DESC, files.id DESC",
                    some,
                )
                for digest, file, offset, size_bytes in rows:
                    places = found.setdefault(digest, [])
                    if len(places) < MAX_PLACES:
                        places.append(Place(file, offset, size_bytes, digest))
            return found

        return self._attempt(find, {})

    def path_of(self, entry: FileEntry) -> Path | None:
        """Return where a file is that was verified with just these chunks, or None.

        It is only to be read, and whoever copies it checks the copy.
        """

        def find(db: sqlite3.Connection) -> Path | None:
            row = db.execute(
                "SELECT chunking FROM files WHERE digest = ?", (entry.digest,)
            ).fetchone()
            is_known = row is not None and row[0] == _chunking_of(entry)
            return self._path(entry.digest) if is_known else None

        return self._attempt(find, None)

    @contextlib.contextmanager
    def lease(self, files: Collection[bytes], now: float) -> Iterator[None]:
        """Hold stored files, by their digests, while something is copied from them.

        The lease of a process that died ends after `LEASE_LIFETIME_S`. A file that
        is damaged goes all the same.
        """
        owner = secrets.token_hex(8)

        def take(db: sqlite3.Connection) -> None:
            for digest in files:
                db.execute(
                    "INSERT OR IGNORE INTO leases "
                    "SELECT ?, id, ? FROM files WHERE digest = ?",
                    (owner, now + LEASE_LIFETIME_S, digest),
                )
                db.execute(
                    "UPDATE files SET used_at = max(used_at, ?) WHERE digest = ?",
                    (now, digest),
                )

        def give_back(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM leases WHERE owner = ?", (owner,))

        self._attempt(take, None)
        try:
            yield
        finally:
            self._attempt(give_back, None)

    def read(self, place: Place) -> bytes | None:
        """Return the bytes at `place`, or None where they are not what they were.

        A file that changed is dropped from the store.
        """
        path = self._path(place.file)
        try:
            with os.fdopen(os.open(path, _READ), "rb", buffering=0) as file:
                file.seek(place.offset)
                data = file.read(place.size_bytes)
        except OSError:
            data = None
        if data is not None and blake3(data).digest() == place.digest:
            return data
        self.drop(place.file)
        return None

    def manifest(self, digest: bytes, now: float) -> bytes | None:
        """Return the bytes of a manifest that came before, or None."""

        def find(db: sqlite3.Connection) -> bytes | None:
            row = db.execute(
                "SELECT data FROM manifests WHERE digest = ?", (digest,)
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE manifests SET used_at = ? WHERE digest = ?", (now, digest)
            )
            return bytes(row[0])

        data = self._attempt(find, None)
        return data if data is not None and blake3(data).digest() == digest else None

    def drop(self, digest: bytes) -> None:
        """Forget a file that is not what it was."""

        def drop(db: sqlite3.Connection) -> None:
            row = db.execute(
                "SELECT id FROM files WHERE digest = ?", (digest,)
            ).fetchone()
            if row is not None:
                self._forget(db, row[0], digest)

        self._attempt(drop, None)

    # -- the index -----------------------------------------------------------------

    def _open_index(self) -> sqlite3.Connection:
        """Open the index; one that is damaged is set aside and begun anew."""
        path = self._root / _INDEX
        # SQLite gives its companion files the permissions of this one.
        flags = os.O_RDWR | os.O_CREAT | _SAFELY
        os.close(os.open(path, flags, 0o600))
        try:
            return _connect(path)
        except sqlite3.OperationalError:
            # Locked, full or read-only: nothing is wrong with what it says.
            raise
        except sqlite3.DatabaseError as error:
            logger.info("The index of %s was damaged: %s", self._place, error)
            path.replace(self._root / _DAMAGED)
            for suffix in ("-wal", "-shm"):
                path.with_name(_INDEX + suffix).unlink(missing_ok=True)
            os.close(os.open(path, flags, 0o600))
            return _connect(path)

    def _drop_what_is_not_whole(self, db: sqlite3.Connection) -> None:
        """Make files and rows agree: a crash may have come between the two."""
        known: set[str] = set()
        for file, digest, size_bytes in db.execute(
            "SELECT id, digest, size FROM files"
        ).fetchall():
            if _regular_size(self._path(digest)) == size_bytes:
                known.add(digest.hex())
            else:
                self._forget(db, file, digest)
        with os.scandir(self._files) as found:
            for entry in found:
                if entry.name not in known and not entry.is_dir(follow_symlinks=False):
                    _remove(Path(entry.path))

    def _forget(self, db: sqlite3.Connection, file: int, digest: bytes) -> None:
        # The file first: a row without it is noticed, a file without a row is not.
        _remove(self._path(digest))
        _forget_rows(db, file)

    def _path(self, digest: bytes) -> Path:
        return self._files / digest.hex()

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do `work` in one transaction, or nothing of it and return `otherwise`."""
        with self._lock:
            db = self._db
            if db is None:
                return otherwise
            try:
                db.execute("BEGIN IMMEDIATE")
                try:
                    result = work(db)
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            except (OSError, sqlite3.Error) as error:
                self._complain(error)
                if type(error) is sqlite3.DatabaseError:
                    # The index is damaged: the next start sets it aside.
                    self.close()
                return otherwise
            return result

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            logger.info("The chunk store in %s cannot be used: %s", self._place, error)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        [(verdict,)] = db.execute("PRAGMA quick_check(1)").fetchall()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if verdict != "ok" or version not in (0, STORE_VERSION):
            raise sqlite3.DatabaseError(f"{verdict}, version {version}")
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={STORE_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _chunking_of(entry: FileEntry) -> bytes:
    """Return a digest of how a file is cut, and into what."""
    return blake3(entry.chunk_sizes + entry.chunk_digests).digest()


def _indexed(entry: FileEntry) -> Iterator[tuple[bytes, int, int]]:
    """Yield digest, offset and size of the chunks that are worth a row."""
    offset = 0
    for number in range(len(entry.chunk_digests) // DIGEST_BYTES):
        size_bytes = int.from_bytes(entry.chunk_sizes[number * 4 : number * 4 + 4])
        digest = entry.chunk_digests[
            number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES
        ]
        if digest != HOLE and size_bytes >= MIN_INDEXED_CHUNK_BYTES:
            yield digest, offset, size_bytes
        offset += size_bytes


def _forget_rows(db: sqlite3.Connection, file: int) -> None:
    db.execute("DELETE FROM chunks WHERE file = ?", (file,))
    db.execute("DELETE FROM leases WHERE file = ?", (file,))
    db.execute("DELETE FROM files WHERE id = ?", (file,))


def _oldest_first(db: sqlite3.Connection, now: float) -> list[tuple[int, bytes, int]]:
    """Return id, digest and cost of the files that no lease holds."""
    # A lease that ends too late was made before the clock was set back.
    db.execute(
        "DELETE FROM leases WHERE until NOT BETWEEN ? AND ?",
        (now, now + LEASE_LIFETIME_S),
    )
    return db.execute(
        "SELECT id, digest, cost FROM files "
        "WHERE id NOT IN (SELECT file FROM leases) ORDER BY used_at, id"
    ).fetchall()


def _regular_size(path: Path) -> int | None:
    """Return a file's size; None for what is not there or no file of its own."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _spare_bytes(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _link(source: Path, target: Path, size_bytes: int) -> bool:
    """Make `target` a link to a verified file; False where the disk knows no links."""
    fresh = target.with_suffix(".new")
    _remove(fresh)
    try:
        os.link(source, fresh, follow_symlinks=False)
    except (OSError, NotImplementedError):
        return False
    try:
        if _regular_size(fresh) != size_bytes:
            raise OSError(f"{source.name} is not the file that was verified")
        fresh.replace(target)
    finally:
        # A rename over another link to the same file leaves both.
        _remove(fresh)
    return True


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            os.fdopen(os.open(source, _READ), "rb") as data,
            os.fdopen(os.open(target, _CREATE, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(data, copy, MIB)
    except OSError:
        _remove(target)
        raise
