"""A plan is found again only for the same file, and is worth no trouble."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.manifest import HOLE, FileEntry, pack_chunks
from sleap_rtc_plugin.transport import plan_cache
from sleap_rtc_plugin.transport.chunking import ChunkSizes
from sleap_rtc_plugin.transport.plan_cache import (
    MIN_FILE_BYTES,
    SETTLED_NS,
    PlanCache,
    PlanKey,
)

NOW_NS = 1_700_000_000_000_000_000
KEY = PlanKey(
    path="/data/labels.pkg.slp",
    size_bytes=MIN_FILE_BYTES,
    modified_ns=NOW_NS - SETTLED_NS,
    changed_ns=NOW_NS - SETTLED_NS,
    device=1,
    inode=2,
    sizes=ChunkSizes(),
)
ENTRY = FileEntry(
    "labels.pkg.slp",
    MIN_FILE_BYTES,
    b"d" * 32,
    *pack_chunks([5, MIN_FILE_BYTES - 5], [b"c" * 32, HOLE]),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "plans"


@pytest.fixture
def cache(folder: Path) -> PlanCache:
    return PlanCache(folder, clock_ns=lambda: NOW_NS)


def test_a_plan_is_found_again(cache: PlanCache, folder: Path) -> None:
    assert cache.find(KEY) is None
    cache.keep(KEY, ENTRY)
    assert cache.find(KEY) == ENTRY
    [plan] = folder.iterdir()
    if os.name != "nt":
        assert plan.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/data/other"},
        {"size_bytes": MIN_FILE_BYTES + 1},
        {"modified_ns": KEY.modified_ns + 1},
        {"changed_ns": KEY.changed_ns + 1},
        {"device": 3},
        {"inode": 3},
        {"sizes": ChunkSizes(average_bytes=1024)},
    ],
    ids=str,
)
def test_another_file_has_another_plan(
    cache: PlanCache, changes: dict[str, object]
) -> None:
    cache.keep(KEY, ENTRY)
    assert cache.find(replace(KEY, **changes)) is None


@pytest.mark.parametrize("name", ["modified_ns", "changed_ns"])
def test_a_file_changed_just_now_may_change_again(cache: PlanCache, name: str) -> None:
    key = replace(KEY, **{name: NOW_NS - SETTLED_NS + 1})
    cache.keep(key, ENTRY)
    assert cache.find(key) is None


def test_a_file_from_the_future_is_not_kept(cache: PlanCache) -> None:
    key = replace(KEY, modified_ns=NOW_NS + 10 * SETTLED_NS)
    cache.keep(key, ENTRY)
    assert cache.find(key) is None


def test_small_files_are_not_kept(cache: PlanCache, folder: Path) -> None:
    cache.keep(replace(KEY, size_bytes=MIN_FILE_BYTES - 1), ENTRY)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["empty", "short", "bit", "junk", "folder"])
def test_a_damaged_plan_is_no_plan(cache: PlanCache, folder: Path, damage: str) -> None:
    cache.keep(KEY, ENTRY)
    [plan] = folder.iterdir()
    data = plan.read_bytes()
    if damage == "folder":
        plan.unlink()
        plan.mkdir()
    else:
        plan.write_bytes(
            {
                "empty": b"",
                "short": data[:-1],
                "bit": data[:-1] + bytes([data[-1] ^ 1]),
                "junk": b"\xff" * 100,
            }[damage]
        )
    assert cache.find(KEY) is None
    cache.keep(KEY, ENTRY)
    assert (cache.find(KEY) == ENTRY) == (damage != "folder")


def test_a_plan_of_another_version_is_no_plan(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.keep(KEY, ENTRY)
    monkeypatch.setattr(plan_cache, "_VERSION", 0)
    assert cache.find(KEY) is None


def test_a_folder_that_cannot_be_made_costs_the_plan(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = PlanCache(tmp_path / "file" / "plans", clock_ns=lambda: NOW_NS)
    cache.keep(KEY, ENTRY)
    assert cache.find(KEY) is None


@pytest.mark.parametrize("bound", ["MAX_PLANS", "MAX_PLANS_BYTES"])
def test_what_was_not_used_for_longest_goes_first(
    cache: PlanCache, folder: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    keys = [replace(KEY, path=f"/data/{number}") for number in range(6)]
    for age, key in enumerate(keys):
        cache.keep(key, ENTRY)
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (age, age))
    one_bytes = newest.stat().st_size
    draft = folder / "dead.0123"
    draft.write_bytes(b"half a plan")
    os.utime(draft, (0, 0))
    assert cache.find(keys[0])  # used now, though kept first
    value = 3 if bound == "MAX_PLANS" else 3 * one_bytes + 100
    monkeypatch.setattr(plan_cache, bound, value)
    cache.keep(KEY, ENTRY)
    left = [key.path for key in (KEY, *keys) if cache.find(key)]
    assert left == [KEY.path, keys[0].path, keys[5].path]
    assert len(list(folder.iterdir())) == 3
