"""Zips that were opened before: found again, never wrong, never more than allowed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.packages import write_package

from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES
from sleap_rtc_plugin.session import unpacked_packages
from sleap_rtc_plugin.session.package_archive import Member, extract_zip
from sleap_rtc_plugin.session.unpacked_packages import UnpackedPackages
from sleap_rtc_plugin.transport.plan_cache import Archive

LARGE = os.urandom(MAX_CONFIG_BYTES + 1)
FILES = {"labels.pkg.slp": LARGE, "centroid.yaml": b"a: 1", "models/a/best.ckpt": b"x"}


@pytest.fixture
def cache(tmp_path: Path) -> UnpackedPackages:
    return UnpackedPackages(tmp_path / "cache")


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def zipped(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """Write a zip that was not touched for a while."""
    write_package(path, files)
    return path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be old enough to be trusted."""
    monkeypatch.setattr("sleap_rtc_plugin.transport.plan_cache.SETTLED_NS", 0)


def unpack(cache: UnpackedPackages, path: Path, workdir: Path) -> Path:
    archive = Archive.of(path)
    root, members = extract_zip(path, workdir)
    cache.keep(archive, root, members)
    return root


def contents(root: Path, members: list[Member]) -> dict[str, bytes]:
    return {member.path: (root / member.path).read_bytes() for member in members}


def test_what_was_unpacked_is_found_again(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    assert cache.find(Archive.of(path), workdir) is None
    first = unpack(cache, path, workdir)
    shutil.rmtree(first)
    found = cache.find(Archive.of(path), workdir)
    assert found is not None
    assert [member.path for member in found[1]] == list(FILES)
    assert contents(*found) == FILES


def test_a_users_changes_to_small_files_stay_his_own(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    first = unpack(cache, path, workdir)
    (first / "centroid.yaml").write_bytes(b"changed")
    for _ in range(2):
        found = cache.find(Archive.of(path), workdir)
        assert found is not None
        assert contents(*found) == FILES
        (found[0] / "centroid.yaml").write_bytes(b"changed, and longer")


def test_another_zip_of_the_same_name_is_another(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    unpack(cache, path, workdir)
    zipped(path, FILES | {"centroid.yaml": b"a: 2"})
    assert cache.find(Archive.of(path), workdir) is None


def test_a_zip_that_changed_while_it_was_unpacked_is_not_kept(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    archive = Archive.of(path)
    root, members = extract_zip(path, workdir)
    zipped(path, FILES | {"centroid.yaml": b"a: 2"})
    cache.keep(archive, root, members)
    assert cache.find(archive, workdir) is None
    assert cache.find(Archive.of(path), workdir) is None


def test_a_zip_that_is_still_warm_is_not_kept(
    cache: UnpackedPackages,
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sleap_rtc_plugin.transport.plan_cache.SETTLED_NS", 10**12)
    path = zipped(tmp_path / "a.zip")
    unpack(cache, path, workdir)
    assert cache.find(Archive.of(path), workdir) is None


@pytest.mark.parametrize(
    "listed",
    [b"", b"[", b'[{"path": "../../x", "size": 1}]', b'[{"path": "gone", "size": 1}]'],
)
def test_a_damaged_entry_is_no_entry(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path, listed: bytes
) -> None:
    path = zipped(tmp_path / "a.zip")
    shutil.rmtree(unpack(cache, path, workdir))
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "members.json").write_bytes(listed)
    assert cache.find(Archive.of(path), workdir) is None
    assert list(workdir.iterdir()) == []


def test_a_file_of_another_size_is_no_entry(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    shutil.rmtree(unpack(cache, path, workdir))
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / "files" / "labels.pkg.slp").write_bytes(LARGE[:-1])
    assert cache.find(Archive.of(path), workdir) is None
    assert list(workdir.iterdir()) == []


def test_nothing_is_kept_on_a_disk_without_links(
    cache: UnpackedPackages,
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_links(*args: Any, **settings: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    path = zipped(tmp_path / "a.zip")
    unpack(cache, path, workdir)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_last_used_ones_are_kept_within_the_limit(
    workdir: Path, tmp_path: Path
) -> None:
    size = sum(map(len, FILES.values()))
    cache = UnpackedPackages(tmp_path / "cache", max_bytes=2 * size)
    paths = [zipped(tmp_path / f"{name}.zip") for name in "abc"]
    for age, path in enumerate(paths[:2]):
        unpack(cache, path, workdir)
        entry = tmp_path / "cache" / Archive.of(path).fingerprint
        os.utime(entry, (age, age))
    held = cache.find(Archive.of(paths[0]), workdir)
    unpack(cache, paths[2], workdir)
    there = [cache.find(Archive.of(path), workdir) is not None for path in paths]
    assert there == [True, False, True]
    # What goes from the cache stays with who has it.
    shutil.rmtree(tmp_path / "cache")
    assert held is not None
    assert contents(*held) == FILES


def test_too_little_disk_keeps_nothing(
    cache: UnpackedPackages,
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpacked_packages, "MAX_UNPACKED_SHARE", 0.0)
    path = zipped(tmp_path / "a.zip")
    unpack(cache, path, workdir)
    assert cache.find(Archive.of(path), workdir) is None


def test_what_turned_out_wrong_is_forgotten(
    cache: UnpackedPackages, workdir: Path, tmp_path: Path
) -> None:
    path = zipped(tmp_path / "a.zip")
    unpack(cache, path, workdir)
    cache.drop(Archive.of(path))
    assert cache.find(Archive.of(path), workdir) is None
