"""What is remembered of a worker's mounts, and when it is forgotten."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc_plugin.protocol.mount_messages import MountPlace
from sleap_rtc_plugin.session import mount_memory
from sleap_rtc_plugin.session.mount_memory import (
    MountMemory,
    SamePlace,
    corrected,
    hint_for,
)

HOME = SamePlace(ours="home/ann", mount="lab", folder="ann")
VIDEOS = SamePlace(ours="home/ann/videos", mount="raw", folder="")


def at(path: str, mount: str = "lab") -> MountPlace:
    return MountPlace(mount=mount, path=path)


def test_the_nearest_known_folder_gives_the_hint() -> None:
    known = [HOME, VIDEOS]
    assert hint_for(known, "/home/ann/a.mp4") == at("ann/a.mp4")
    assert hint_for(known, "/home/ann/videos/x/a.mp4") == at("x/a.mp4", "raw")
    assert hint_for(known, "D:\\home\\ann\\a.mp4") == at("ann/a.mp4")
    assert hint_for(known, "/home/anna/a.mp4") is None
    assert hint_for(known, "/home/ann") is None
    assert hint_for([], "/home/ann/a.mp4") is None


def test_a_file_that_was_found_teaches_its_folder() -> None:
    [same] = corrected([], {"/home/ann/x/a.mp4": at("data/x/a.mp4")})
    assert same == SamePlace(ours="home/ann", mount="lab", folder="data")
    assert hint_for([same], "/home/ann/y/b.mp4") == at("data/y/b.mp4")


def test_a_folder_that_moved_is_learned_anew() -> None:
    known = corrected([HOME], {"/home/ann/a.mp4": at("ann/old/a.mp4")})
    assert known == [SamePlace(ours="home/ann", mount="lab", folder="ann/old")]


def test_one_file_that_is_missing_does_not_undo_what_holds_for_another() -> None:
    places = {"/home/ann/a.mp4": at("ann/a.mp4"), "/home/ann/b.mp4": None}
    assert HOME in corrected([HOME], places)
    assert corrected([HOME], {"/home/ann/b.mp4": None}) == []
    assert corrected([HOME], {"/elsewhere/b.mp4": None}) == [HOME]


def test_no_more_is_kept_than_fits() -> None:
    known: list[SamePlace] = []
    for number in range(100):
        known = corrected(known, {f"/{number}/a.mp4": at(f"x{number}/a.mp4")})
    assert len(known) == mount_memory.MAX_PER_WORKER
    assert known[0].ours == "99"


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_what_was_learned_hints_at_the_same_place(ours: str, theirs: str) -> None:
    place = at(f"{theirs}/{ours}".replace("\\", "/").strip("/"))
    for same in corrected([], {ours: place}):
        hint = hint_for([same], ours)
        assert hint is None or hint.mount == "lab"


def test_it_outlives_the_program(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mounts.json"
    MountMemory(path).remember("worker-1", [HOME])
    MountMemory(path).remember("worker-2", [VIDEOS])
    assert MountMemory(path).of("worker-1") == [HOME]
    assert MountMemory(path).of("worker-2") == [VIDEOS]
    assert MountMemory(path).of("worker-3") == []
    MountMemory(path).remember("worker-1", [])
    assert MountMemory(path).of("worker-1") == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"w": [{"ours": 1}]}'])
def test_a_broken_file_is_only_forgotten(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mounts.json"
    path.write_bytes(data)
    assert MountMemory(path).of("w") == []
    MountMemory(path).remember("w", [HOME])
    assert MountMemory(path).of("w") == [HOME]


def test_old_workers_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_memory, "MAX_WORKERS", 2)
    memory = MountMemory(tmp_path / "mounts.json")
    for worker in ("a", "b", "c"):
        memory.remember(worker, [HOME])
    assert [worker for worker in "abc" if memory.of(worker)] == ["b", "c"]
