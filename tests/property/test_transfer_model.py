"""A transfer under every fault at once: never a wrong byte, always a way to the end."""

import os
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.transfer_world import CHUNK_BYTES, PowerCut, TransferWorld

from sleap_rtc_plugin.protocol import fragments, transfer_receiver
from sleap_rtc_plugin.protocol.errors import (
    DigestMismatch,
    RemoteProtocolError,
    SourceChanged,
    TransferStalled,
)
from sleap_rtc_plugin.protocol.transfer_receiver import StoreChunk
from sleap_rtc_plugin.transport import staging_area

WINDOW_BYTES = 3 * CHUNK_BYTES
WINDOW_CHUNKS = 4
PATHS = ["a", "b", "d/c", "d/e.slp", "é/ü"]
# Few contents, so that files are often the same; sizes around the chunk's.
sizes = st.sampled_from([0, 1, 999, 1000, 1001, 2500, 4000])
various = st.builds(
    lambda seed, size: bytes((seed * 31 + i // 7) % 256 for i in range(size)),
    st.integers(0, 2),
    sizes,
)
# Chunks that are equal, and zeros, which are holes.
alike = st.builds(lambda byte, size: byte * size, st.sampled_from([b"r", b"\0"]), sizes)
mixed = st.builds(lambda one, two: bytes(1000) + one[:1000] + two, alike, various)
contents = various | alike | mixed


class Transfer(RuleBasedStateMachine):
    """One package, its receiver, and everything that may go wrong between them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="transfer-"))
        self.source, self.staging = self.root / "source", self.root / "staging"
        self.earlier = self.root / "earlier"
        self.source.mkdir()
        (self.root / "untouched").write_bytes(b"untouched")
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(transfer_receiver, "REQUEST_WINDOW_BYTES", WINDOW_BYTES)
        self.patch.setattr(transfer_receiver, "REQUEST_WINDOW_CHUNKS", WINDOW_CHUNKS)
        self.patch.setattr(fragments, "FRAGMENT_BYTES", 400)
        # The disk below is a temporary one: what survives a power cut is the model's.
        self.patch.setattr(os, "fsync", lambda descriptor: None)
        self.world: TransferWorld | None = None
        self.offered: dict[str, set[bytes]] = {}
        self.disk_was_damaged = False
        self.frames_were_damaged = False
        self.versions = 0

    @initialize(
        files=st.dictionaries(st.sampled_from(PATHS), contents, min_size=1, max_size=5)
    )
    def offer(self, files: dict[str, bytes]) -> None:
        for path, data in files.items():
            self._write(path, data)
        self.world = TransferWorld(self.source, self.staging, self.root / "store")
        self._remember()

    # -- what goes well ---------------------------------------------------------------

    @rule(
        steps=st.sampled_from([1, 3, 10, 20, 40]),
        choices=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    )
    def go_on(self, steps: int, choices: list[int]) -> None:
        for turn in range(steps):
            possible = self.world.possible()
            if not possible:
                break
            possible[choices[turn % len(choices)] % len(possible)]()
            self.memory_is_bounded()

    @rule()
    def go_on_to_the_end(self) -> None:
        self.world.run()

    @rule()
    def another_job(self) -> None:
        self.world.next_job(self.earlier)
        self._remember()

    @rule()
    def the_same_package_for_another_job(self) -> None:
        self._offer_anew()
        self.world.run()
        if self.world.failed:
            return
        self.another_job()
        assert self.world.manifest_was_known
        self.world.run()
        assert self.world.completed
        assert self.world.asked_bytes == 0
        assert self.world.sender.reused_bytes == self.world.meta.total_bytes

    @rule(path=st.sampled_from(PATHS), data=various)
    def add_to_a_file_for_another_job(self, path: str, data: bytes) -> None:
        file = self.source / path
        if not file.exists() or file.stat().st_size % CHUNK_BYTES:
            return
        self.the_same_package_for_another_job()
        self._write(path, file.read_bytes() + data)
        was_whole = self.world.completed
        self.another_job()
        self.world.run()
        if was_whole and self.world.completed:
            assert self.world.asked_bytes <= len(data)

    # -- what goes wrong --------------------------------------------------------------

    @rule(which=st.integers(0, 4), data=contents)
    def a_trainer_changes_a_file_in_place(self, which: int, data: bytes) -> None:
        files = [path for path in self.earlier.glob("files/**/*") if path.is_file()]
        if files:
            with sorted(files)[which % len(files)].open("r+b") as file:
                file.write(data)

    @rule()
    def cut(self) -> None:
        self.world.connect()

    @rule()
    def kill_the_receiver(self) -> None:
        self.world.restart_receiver()

    @precondition(lambda self: self.world.disk)
    @rule(where=st.sampled_from(["write", "ftruncate", "replace", "copyfile", "link"]))
    def kill_the_receiver_while_it_writes(self, where: str) -> None:
        def stop(*args: object, **kwargs: object) -> None:
            if where == "write" and isinstance(args[1], memoryview):
                write(args[0], args[1][: len(args[1]) // 2])
            raise PowerCut

        write = os.write
        owner = {"replace": Path, "copyfile": shutil}.get(where, os)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, where, stop)
            with suppress(PowerCut):
                self.world._use_disk()
        self.world.restart_receiver()

    @precondition(lambda self: self.world.fragments)
    @rule(which=st.integers(0, 3), where=st.integers(16, 415))
    def corrupt_in_flight(self, which: int, where: int) -> None:
        queue = self.world.fragments
        which %= len(queue)
        frame = bytearray(queue[which])
        if frame[1] & fragments.FLAG_MANIFEST:
            self.frames_were_damaged = True  # not repaired: it ends the transfer
        if frame[1] & fragments.FLAG_PACKED:
            where = len(frame) - 1  # numbers and sizes are no data
        else:
            where = 16 + (where - 16) % (len(frame) - 16)
        frame[where] ^= 0x40
        queue[which] = bytes(frame)
        self._may_be_asked_again()

    @precondition(lambda self: self.world.fragments)
    @rule(
        which=st.integers(0, 5),
        how=st.sampled_from(["drop", "repeat", "swap", "shorten", "lengthen"]),
    )
    def mistreat_a_frame(self, which: int, how: str) -> None:
        """What no data channel does, and a hostile peer may do."""
        queue = self.world.fragments
        which %= len(queue)
        match how:
            case "drop":
                del queue[which]
            case "repeat":
                queue.insert(which, queue[which])
            case "swap":
                queue[0], queue[which] = queue[which], queue[0]
            case "shorten":
                queue[which] = queue[which][:-1]
            case "lengthen":
                queue[which] += b"!"
        self._damaged()

    @precondition(lambda self: self.world.fragments)
    @rule(which=st.integers(0, 5), bit=st.integers(0, 16 * 8 - 1))
    def flip_a_bit_of_a_header(self, which: int, bit: int) -> None:
        queue = self.world.fragments
        frame = bytearray(queue[which % len(queue)])
        frame[bit // 8] ^= 1 << bit % 8
        queue[which % len(queue)] = bytes(frame)
        self._damaged()

    @rule(
        which=st.integers(0, 4),
        where=st.integers(0, 3999),
        crash=st.booleans(),
        go_on=st.booleans(),
    )
    def damage_a_part(self, which: int, where: int, crash: bool, go_on: bool) -> None:
        """A torn write, seen after a crash, or a bad sector at any time."""
        if self.world.completed or self.world.failed:
            for path in PATHS:
                self.change_the_source_but_not_its_size(path, offer=True)
        while not (parts := sorted(self.staging.glob("parts/*.part"))):
            possible = self.world.possible()
            if not possible:
                return
            possible[which % len(possible)]()
        part = parts[which % len(parts)]
        data = bytearray(part.read_bytes())
        if not data:
            return
        data[where % len(data)] ^= 0xFF
        with part.open("r+b") as file:
            file.write(data)
        self.world.stored.clear()
        self._may_be_asked_again()
        self.disk_was_damaged = True
        if crash:
            self.world.restart_receiver()
        if go_on:
            self.world.run()

    @rule(path=st.sampled_from(PATHS), data=contents)
    def change_the_source(self, path: str, data: bytes) -> None:
        if (self.source / path).exists():
            self._write(path, data)

    @rule(path=st.sampled_from(PATHS), offer=st.booleans())
    def change_the_source_but_not_its_size(self, path: str, offer: bool) -> None:
        if (self.source / path).exists():
            data = (self.source / path).read_bytes()
            self._write(path, bytes(byte ^ 0x55 for byte in data))
        if offer:
            self._offer_anew()

    @rule(path=st.sampled_from(PATHS), data=st.data())
    def shrink_the_source(self, path: str, data: st.DataObject) -> None:
        file = self.source / path
        if file.exists():
            size = data.draw(st.integers(0, file.stat().st_size))
            os.truncate(file, size)

    @rule(path=st.sampled_from(PATHS), data=st.none() | contents)
    def add_or_remove_a_file(self, path: str, data: bytes | None) -> None:
        file = self.source / path
        if data is not None:
            self._write(path, data)
        elif any(p != file and p.is_file() for p in self.source.rglob("*")):
            file.unlink(missing_ok=True)

    @rule()
    def kill_the_sender_and_repeat_its_command(self) -> None:
        """It plans what is there now, which may be another version."""
        self._offer_anew()

    @rule(
        how=st.sampled_from(["in front", "behind", "both gone"]),
        steps=st.integers(6, 30),
        crash=st.booleans(),
    )
    def change_the_package_on_its_way(self, how: str, steps: int, crash: bool) -> None:
        """Two new files; one changes, or both go, when something has arrived."""
        self.versions += 1
        made = random.Random(self.versions)  # noqa: S311 - contents of test files
        paths = ["new/one", "new/two"]
        for path in paths:
            self._write(path, made.randbytes(3 * CHUNK_BYTES + 1))
        self.another_job()
        arrived = self.staging / "files" / paths[0]
        while possible := self.world.possible():
            possible[-1]()
            steps -= 1
            if arrived.exists() if how == "both gone" else steps < 0:
                break
        file, block = self.source / paths[0], made.randbytes(CHUNK_BYTES)
        match how:
            case "in front":
                file.write_bytes(block + file.read_bytes())
            case "behind":
                file.write_bytes(file.read_bytes()[: 3 * CHUNK_BYTES] + block)
            case "both gone":
                shutil.rmtree(file.parent)
                self._write(PATHS[0], block)
        if crash:
            self.world.restart_receiver()
        self._offer_anew()

    @rule()
    def go_on_as_a_client_does(self) -> None:
        """A file that changed on its way is planned once more."""
        self.world.run()
        if isinstance(self.world.failed, SourceChanged):
            self._offer_anew()
            self.world.run()
            assert not isinstance(self.world.failed, SourceChanged)

    # -- what must hold ---------------------------------------------------------------

    @invariant()
    def nothing_is_written_outside(self) -> None:
        assert {path.name for path in self.root.iterdir()} <= {
            "source",
            "staging",
            "store",
            "earlier",
            "untouched",
        }
        assert (self.root / "untouched").read_bytes() == b"untouched"
        if self.staging.exists():
            assert {p.name for p in self.staging.iterdir()} <= {
                "parts",
                "files",
                "manifest",
            }
            assert not any(path.is_symlink() for path in self.staging.rglob("*"))

    @invariant()
    def what_has_its_final_name_is_whole(self) -> None:
        files = self.staging / "files"
        for file in files.rglob("*"):
            if file.is_file():
                path = file.relative_to(files).as_posix()
                assert file.read_bytes() in self.offered[path]

    @invariant()
    def completed_means_every_byte(self) -> None:
        world = self.world
        if world is None or not world.completed:
            return
        for entry in world.source.manifest.files:
            data = (self.staging / "files" / entry.path).read_bytes()
            assert len(data) == entry.size_bytes
            assert staging_area.digest_of(data) == entry.digest
        there = {
            path.relative_to(self.staging).as_posix()
            for path in self.staging.rglob("*")
            if path.is_file()
        }
        assert there == {f"files/{entry.path}" for entry in world.source.manifest.files}

    @invariant()
    def every_byte_is_counted_once(self) -> None:
        world = self.world
        if world is None or not world.completed:
            return
        progress = world.receiver.progress
        assert progress.stored_bytes == progress.total_bytes
        if not world.asked_again:
            assert progress.reused_bytes + world.asked_bytes == progress.total_bytes
            assert progress.received_bytes == world.asked_bytes

    @invariant()
    def nothing_stored_is_asked_for_again(self) -> None:
        assert self.world is None or not self.world.wrongly_asked

    @invariant()
    def it_waits_only_for_something(self) -> None:
        world = self.world
        if world is not None and not (world.completed or world.failed):
            assert world.possible()

    @invariant()
    def failures_have_a_reason(self) -> None:
        if self.world is None or self.world.failed is None:
            return
        allowed: tuple[type, ...] = (SourceChanged, DigestMismatch)
        if self.frames_were_damaged:
            allowed += (TransferStalled, RemoteProtocolError)
        if not self.disk_was_damaged:
            assert isinstance(self.world.failed, allowed), self.world.failed

    @invariant()
    def memory_is_bounded(self) -> None:
        """What arrives and what waits for the disk, whatever the peer sends."""
        if self.world is not None:
            assert self.world.held_bytes <= WINDOW_BYTES + CHUNK_BYTES
            waiting = [i for i in self.world.disk if isinstance(i, StoreChunk)]
            assert len(waiting) <= WINDOW_CHUNKS

    # -- the end ----------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.world is not None:
                self._offer_anew()
                self.world.run()
                assert self.world.completed, self.world.failed
                assert not self.world.wrongly_asked
                self.completed_means_every_byte()
                self.what_has_its_final_name_is_whole()
                # Once more, from nothing but the disk: not one byte is asked for.
                self.world.restart_receiver()
                self.world.run()
                assert self.world.completed
                assert self.world.asked_bytes == 0
                assert self.world.sender.reused_bytes == self.world.meta.total_bytes
                self.world.close()
        finally:
            self.patch.undo()
            shutil.rmtree(self.root)

    # -- parts ------------------------------------------------------------------------

    def _write(self, path: str, data: bytes) -> None:
        file = self.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def _offer_anew(self) -> None:
        self.world.connect(rescan=True)
        self._remember()

    def _remember(self) -> None:
        for entry in self.world.source.manifest.files:
            data = (self.source / entry.path).read_bytes()
            self.offered.setdefault(entry.path, set()).add(data)

    def _damaged(self) -> None:
        self.frames_were_damaged = True
        self._may_be_asked_again()

    def _may_be_asked_again(self) -> None:
        self.world.asked_again |= set(range(self.world.source.manifest.chunk_count))


TestTransfer = Transfer.TestCase
# Each example is a whole story with a disk; half as many as elsewhere are enough.
TestTransfer.settings = settings(
    max_examples=settings.default.max_examples // 2, stateful_step_count=30
)
