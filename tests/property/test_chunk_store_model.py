"""A store under every fault at once: what is read from it is right, or is absent."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sleap_rtc_plugin.protocol.manifest import FileEntry, pack_chunks
from sleap_rtc_plugin.transport import chunk_store
from sleap_rtc_plugin.transport.chunk_store import ChunkStore
from sleap_rtc_plugin.transport.file_source import digest_of

# Few pieces, so that files share chunks; some are too small to be indexed.
PIECES = [bytes([n]) * size for n, size in enumerate([300, 500, 1000, 700, 10])]
files = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(tuple)
LIMITS = [0, 6_000, 15_000, 10**9]


def entry_of(pieces: tuple[bytes, ...]) -> FileEntry:
    data = b"".join(pieces)
    packed = pack_chunks(list(map(len, pieces)), list(map(digest_of, pieces)))
    return FileEntry("file", len(data), digest_of(data), *packed)


class PowerCut(BaseException):
    """The process ends in the middle of something."""


class Store(RuleBasedStateMachine):
    """One store, the jobs' files that it links to, and what may happen to both."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="store-"))
        self.jobs = self.root / "jobs"
        self.jobs.mkdir()
        self.limit = LIMITS[-1]
        self.now = 1e9
        self.made = 0
        self.kept: set[tuple[bytes, ...]] = set()
        self.store = self._opened()
        self.second = self._opened()

    def _opened(self) -> ChunkStore:
        return ChunkStore(self.root / "store", max_bytes=self.limit)

    def _stored(self) -> list[Path]:
        return sorted((self.root / "store" / "files").iterdir())

    # -- what is done with a store ----------------------------------------------------

    @rule(pieces=files, second=st.booleans())
    def keep(self, pieces: tuple[bytes, ...], second: bool) -> None:
        self.made += 1
        self.now += 1
        path = self.jobs / str(self.made)
        path.write_bytes(b"".join(pieces))
        store = self.second if second else self.store
        store.keep([(path, entry_of(pieces))], self.now)
        self.kept.add(pieces)
        if self.limit == LIMITS[-1]:
            assert store.file(entry_of(pieces).digest) is not None

    @rule(pieces=files, where=st.sampled_from(["link", "lstat"]), late=st.booleans())
    def die_while_keeping(
        self, pieces: tuple[bytes, ...], where: str, late: bool
    ) -> None:
        def stop(*args: object, **kwargs: object) -> None:
            if late:
                done(*args, **kwargs)
            raise PowerCut

        path = self.jobs / "dying"
        path.write_bytes(b"".join(pieces))
        owner = Path if where == "lstat" else os
        done = getattr(owner, where)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, where, stop)
            with suppress(PowerCut):
                self.store.keep([(path, entry_of(pieces))], self.now)
        path.unlink()
        self.restart()

    @rule(later=st.sampled_from([0, 1, 1000]), wanted=st.sampled_from([0, 1, 3000]))
    def trim(self, later: float, wanted: int) -> None:
        self.now += later
        self.store.trim(self.now)
        self.store.make_room(wanted, self.now)
        sizes = [path.stat().st_size for path in self._stored()]
        assert sum(sizes) <= self.limit

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 9))
    def trim_while_it_is_leased(self, which: int) -> None:
        self.discard_the_jobs()
        kept = sorted(self.kept)
        digest = entry_of(kept[which % len(kept)]).digest
        with self.second.lease([digest], self.now):
            before = self.store.file(digest)
            self.store.trim(self.now)
            self.store.make_room(10**9, self.now)
            assert self.store.file(digest) == before

    # -- what happens to it -----------------------------------------------------------

    @precondition(lambda self: self._stored())
    @rule(which=st.integers(0, 9), data=st.binary(max_size=20), truncate=st.booleans())
    def change_a_file(self, which: int, data: bytes, truncate: bool) -> None:
        """What a trainer does to its file, or a bad sector to ours."""
        stored = self._stored()
        with stored[which % len(stored)].open("r+b") as file:
            file.write(data)
            if truncate:
                file.truncate()

    @precondition(lambda self: self._stored())
    @rule(which=st.integers(0, 9))
    def lose_a_file(self, which: int) -> None:
        stored = self._stored()
        stored[which % len(stored)].unlink()

    @rule()
    def discard_the_jobs(self) -> None:
        for path in self.jobs.iterdir():
            path.unlink()

    @rule(limit=st.sampled_from(LIMITS))
    def restart(self, limit: int | None = None) -> None:
        self.limit = self.limit if limit is None else limit
        self.store.close()
        self.second.close()
        self.store, self.second = self._opened(), self._opened()

    @rule(data=st.binary(min_size=100, max_size=200))
    def damage_the_index(self, data: bytes) -> None:
        self.store.close()
        self.second.close()
        (self.root / "store" / "index.sqlite3").write_bytes(data)
        self.restart()
        assert self._stored() == []

    # -- what must hold ---------------------------------------------------------------

    @invariant()
    def what_is_read_is_right_or_absent(self) -> None:
        for place in [
            place
            for places in self.store.find(list(map(digest_of, PIECES))).values()
            for place in places
        ]:
            data = self.store.read(place)
            assert data is None or digest_of(data) == place.digest
            # What could not be read is not offered again.
            if data is None:
                assert self.second.file(place.file) is None

    @invariant()
    def whole_files_too(self) -> None:
        for pieces in self.kept:
            place = self.store.file(entry_of(pieces).digest)
            data = place and self.store.read(place)
            assert data is None or data == b"".join(pieces)

    def teardown(self) -> None:
        self.store.close()
        self.second.close()
        shutil.rmtree(self.root)


TestStore = Store.TestCase
assert min(map(len, PIECES)) < chunk_store.MIN_INDEXED_CHUNK_BYTES
