"""Shared storage: probes, files on their way through it, and everything in between."""

import os
import random
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.shared_mounts import Hang, hanging, names_below, two_mounts

from sleap_rtc_plugin.protocol.errors import SharedStorageUnusable, SourceChanged
from sleap_rtc_plugin.protocol.limits import SHARED_LEFT_OVER_AFTER_S
from sleap_rtc_plugin.protocol.shared_storage import (
    input_path,
    is_proof,
    output_path,
    probe_path,
)
from sleap_rtc_plugin.transport import shared_storage
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_plugin.transport.shared_storage import CopyStopped, SharedStorage
from sleap_rtc_plugin.transport.staging_area import StagingArea

JOB = "job-" + "0a" * 10
OTHER = "job-" + "0b" * 10
INPUT = input_path(JOB)
CHUNK_BYTES = 10_000
SOON_S = 0.2
PATIENCE_S = 10.0

links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
pytestmark = links


@pytest.fixture
def views(tmp_path: Path) -> tuple[Path, Path]:
    return two_mounts(tmp_path)


@pytest.fixture
def ours(views: tuple[Path, Path]) -> SharedStorage:
    return SharedStorage(views[0], timeout_s=PATIENCE_S)


@pytest.fixture
def theirs(views: tuple[Path, Path]) -> SharedStorage:
    return SharedStorage(views[1], place="the worker's", timeout_s=PATIENCE_S)


@pytest.fixture
def source(tmp_path: Path) -> FileSource:
    made = random.Random(1)  # noqa: S311 - contents of test files
    root = tmp_path / "package"
    contents = {
        "a/big": made.randbytes(105_000),
        "b": made.randbytes(5),
        "empty": b"",
        "zeros": bytes(50_000),
    }
    for path, data in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return FileSource.scan(root, list(contents), chunk_bytes=CHUNK_BYTES)


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch, views: tuple[Path, Path]) -> Iterator[Hang]:
    with hanging(monkeypatch, views[0]) as found:
        yield found


def all_chunks(source: FileSource) -> set[int]:
    return set(range(source.manifest.chunk_count))


def taken(storage: SharedStorage, source: FileSource, folder: Path) -> set[int]:
    """Take stock over `storage` and return the chunks that need not be sent."""
    area = StagingArea(folder, sources=[storage.folder(INPUT)])
    try:
        chunks, files = area.inventory(source.manifest)
        assert not files
        if chunks == all_chunks(source):
            for index, entry in enumerate(source.manifest.files):
                assert area.finish(index)
                data = (area.files / entry.path).read_bytes()
                assert data == (source.root / entry.path).read_bytes()
        return set(chunks)
    finally:
        area.close()


def lay(storage: SharedStorage, source: FileSource) -> None:
    storage.make_folder(INPUT, JOB)
    storage.lay_files(source, INPUT)


# -- the probe ---------------------------------------------------------------------


def test_two_mount_points_of_one_storage(
    ours: SharedStorage, theirs: SharedStorage
) -> None:
    probe = ours.lay_probe()
    assert is_proof(theirs.answer_probe(probe.name, JOB), probe.nonce, JOB)
    ours.remove(probe_path(probe.name))
    with pytest.raises(SharedStorageUnusable, match="the worker's"):
        theirs.answer_probe(probe.name, JOB)


def test_another_folder_is_not_the_same_storage(
    ours: SharedStorage, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(SharedStorageUnusable):
        SharedStorage(tmp_path / "other").answer_probe(ours.lay_probe().name, JOB)


@pytest.mark.parametrize("size", [0, 31, 33, 4096])
def test_only_a_nonce_is_answered(
    ours: SharedStorage, views: tuple[Path, Path], size: int
) -> None:
    probe = ours.lay_probe()
    (views[0] / probe_path(probe.name)).write_bytes(b"s" * size)
    with pytest.raises(SharedStorageUnusable, match="no probe"):
        ours.answer_probe(probe.name, JOB)


def test_a_probe_that_is_a_link_a_pipe_or_a_folder(
    ours: SharedStorage, views: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"k" * 32)
    probes = views[0] / "probes"
    ours.lay_probe()
    (probes / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(probes / "pipe")
    (probes / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(SharedStorageUnusable):
            ours.answer_probe(name, JOB)


def test_probes_that_lie_behind_a_link(
    ours: SharedStorage, views: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "one").write_bytes(b"k" * 32)
    (views[0] / "probes").symlink_to(tmp_path / "secrets")
    with pytest.raises(SharedStorageUnusable):
        ours.answer_probe("one", JOB)
    with pytest.raises(SharedStorageUnusable):
        ours.lay_probe()
    assert names_below(tmp_path / "secrets") == {"one"}


# -- paths -------------------------------------------------------------------------


def test_only_the_job_s_own_folders_can_be_used(
    ours: SharedStorage, theirs: SharedStorage
) -> None:
    for job in (JOB, OTHER):
        ours.make_folder(input_path(job), job)
    theirs.check_folder(INPUT, JOB)
    for path in (input_path(OTHER), output_path(JOB), "/etc", f"{INPUT}/../..", ""):
        with pytest.raises(SharedStorageUnusable):
            theirs.check_folder(path, JOB)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_link_anywhere_below_the_root_is_refused(
    theirs: SharedStorage,
    views: tuple[Path, Path],
    tmp_path: Path,
    source: FileSource,
    depth: int,
) -> None:
    """Not to the outside, not to another place inside, not to itself."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = views[0].joinpath(*INPUT.split("/")[:depth])
    inside = views[0] / "inside"
    for target in (outside, inside, link):
        inside.mkdir(exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        with pytest.raises(SharedStorageUnusable):
            theirs.check_folder(INPUT, JOB)
        with pytest.raises(SharedStorageUnusable):
            theirs.make_folder(INPUT, JOB)
        with pytest.raises(SharedStorageUnusable):
            theirs.lay_files(source, INPUT)
        theirs.remove(f"{INPUT}/kept")
        link.unlink()
    assert names_below(inside) == set()
    assert names_below(outside) == set()


def test_a_link_among_the_files_is_not_followed(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path], tmp_path: Path
) -> None:
    lay(ours, source)
    laid = views[0] / INPUT / "a" / "big"
    laid.rename(tmp_path / "elsewhere")
    laid.symlink_to(tmp_path / "elsewhere")
    missing = set(source.manifest.chunks_of(0))
    assert taken(ours, source, tmp_path / "job") == all_chunks(source) - missing


def test_removing_follows_no_link(
    ours: SharedStorage, views: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    ours.make_folder(INPUT, JOB)
    (views[0] / INPUT / "link").symlink_to(tmp_path / "kept")
    ours.remove(f"jobs/{JOB}")
    assert names_below(views[0]) == {"jobs"}
    (views[0] / "jobs" / JOB).symlink_to(tmp_path / "kept")
    ours.remove(f"jobs/{JOB}/file")
    ours.remove(f"jobs/{JOB}")
    assert names_below(tmp_path / "kept") == {"file"}


# -- files -------------------------------------------------------------------------


def test_a_package_goes_through_the_storage(
    ours: SharedStorage, theirs: SharedStorage, source: FileSource, tmp_path: Path
) -> None:
    ours.make_folder(INPUT, JOB)
    laid: list[int] = []
    ours.lay_files(source, INPUT, laid.append)
    assert sum(laid) == source.manifest.total_bytes
    assert taken(theirs, source, tmp_path / "job") == all_chunks(source)


def test_nobody_else_may_read_it(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path]
) -> None:
    lay(ours, source)
    for name in names_below(views[0] / "jobs"):
        mode = (views[0] / "jobs" / name).stat().st_mode
        assert mode & 0o077 == 0, name


def test_a_root_with_a_group_s_bit_is_the_group_s(
    views: tuple[Path, Path], source: FileSource
) -> None:
    views[0].resolve().chmod(0o2770)
    storage = SharedStorage(views[0])
    lay(storage, source)
    probe = storage.lay_probe()
    for name in names_below(views[0]):
        status = (views[0] / name).stat()
        wanted = 0o770 if stat.S_ISDIR(status.st_mode) else 0o660
        assert status.st_mode & 0o777 == wanted, name
    assert (views[0] / probe_path(probe.name)).stat().st_mode & 0o070 == 0o060


def test_what_is_whole_is_not_copied_again(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path], tmp_path: Path
) -> None:
    lay(ours, source)
    kept, torn = views[0] / INPUT / "a" / "big", views[0] / INPUT / "b"
    inode = kept.stat().st_ino
    torn.write_bytes(b"half")
    laid: list[int] = []
    ours.lay_files(source, INPUT, laid.append)
    assert kept.stat().st_ino == inode
    assert sum(laid) == source.manifest.total_bytes
    assert taken(ours, source, tmp_path / "job") == all_chunks(source)


def test_wrong_bytes_are_asked_for_over_the_link(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path], tmp_path: Path
) -> None:
    lay(ours, source)
    with (views[0] / INPUT / "a" / "big").open("r+b") as file:
        file.seek(25_000)
        file.write(b"x")
    assert taken(ours, source, tmp_path / "job") == all_chunks(source) - {2}


def test_truncated_grown_and_missing_files(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path], tmp_path: Path
) -> None:
    lay(ours, source)
    os.truncate(views[0] / INPUT / "a" / "big", 15_000)
    with (views[0] / INPUT / "zeros").open("ab") as file:
        file.write(b"more")
    (views[0] / INPUT / "b").unlink()
    here = taken(ours, source, tmp_path / "job")
    whole = {0, *source.manifest.chunks_of(2), *source.manifest.chunks_of(3)}
    assert here == whole


def test_a_file_that_changes_while_it_is_copied(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path]
) -> None:
    (source.root / "a" / "big").write_bytes(bytes(105_000))
    ours.make_folder(INPUT, JOB)
    with pytest.raises(SourceChanged):
        ours.lay_files(source, INPUT)
    assert not (views[0] / INPUT / "a" / "big").exists()


def test_copying_can_be_called_off(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path]
) -> None:
    ours.make_folder(INPUT, JOB)
    stopped = threading.Event()
    with pytest.raises(CopyStopped):
        ours.lay_files(source, INPUT, lambda _: stopped.set(), stopped.is_set)
    assert not (views[0] / INPUT / "a" / "big").exists()


def test_too_little_room(
    ours: SharedStorage,
    source: FileSource,
    views: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fits exactly does not fit: a disk is not filled to the last byte."""
    free = source.manifest.total_bytes
    monkeypatch.setattr(
        shared_storage.shutil, "disk_usage", lambda _: SimpleNamespace(free=free)
    )
    ours.make_folder(INPUT, JOB)
    with pytest.raises(SharedStorageUnusable, match="are free"):
        ours.lay_files(source, INPUT)
    assert names_below(views[0] / INPUT) == set()


def test_a_full_disk_while_copying(
    ours: SharedStorage, source: FileSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_storage, "_write_at", write)
    ours.make_folder(INPUT, JOB)
    with pytest.raises(SharedStorageUnusable, match="it is full"):
        ours.lay_files(source, INPUT)


# -- mounts that hang or go ----------------------------------------------------------


def test_a_mount_that_hangs_fails_in_time(
    views: tuple[Path, Path], hang: Hang, source: FileSource
) -> None:
    storage = SharedStorage(views[0], timeout_s=SOON_S)
    hang.begin("make_folders_below", "open_below", "check_folder_below")
    for attempt in (
        storage.lay_probe,
        lambda: storage.answer_probe("0" * 64, JOB),
        lambda: storage.make_folder(INPUT, JOB),
    ):
        with pytest.raises(SharedStorageUnusable, match="does not answer"):
            attempt()


def test_a_mount_that_hangs_while_it_is_written(
    views: tuple[Path, Path], hang: Hang, source: FileSource
) -> None:
    storage = SharedStorage(views[0], timeout_s=SOON_S)
    storage.make_folder(INPUT, JOB)
    hang.begin_reading(after_calls=3)
    with pytest.raises(SharedStorageUnusable, match="does not answer"):
        storage.lay_files(source, INPUT)


def test_a_mount_that_hangs_while_it_is_read(
    views: tuple[Path, Path], hang: Hang, source: FileSource, tmp_path: Path
) -> None:
    """The rest is asked for over the link; nobody waits for each chunk again."""
    storage = SharedStorage(views[0], timeout_s=SOON_S)
    lay(storage, source)
    hang.begin_reading(after_calls=3)
    assert taken(storage, source, tmp_path / "job") == {0, 1, 2}


def test_a_mount_that_is_gone(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path], tmp_path: Path
) -> None:
    lay(ours, source)
    views[0].unlink()
    assert taken(ours, source, tmp_path / "job") == set()
    for attempt in (ours.lay_probe, lambda: ours.lay_files(source, INPUT)):
        with pytest.raises(SharedStorageUnusable):
            attempt()
    ours.remove(INPUT)


# -- users and left-overs --------------------------------------------------------------

_ANOTHER_USER = """
import os, sys
from pathlib import Path
from sleap_rtc_plugin.protocol.errors import SharedStorageUnusable
from sleap_rtc_plugin.transport.shared_storage import SharedStorage
os.setgroups([]); os.setgid(54321); os.setuid(54321)
storage, name, job = SharedStorage(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
for action in (
    lambda: storage.answer_probe(name, job),
    lambda: storage.check_folder(f"jobs/{job}/input", job),
    lambda: storage.make_folder(f"jobs/{job}/input", job),
):
    try:
        action()
    except SharedStorageUnusable as error:
        print(error.reason)
storage.remove(f"jobs/{job}")
print(bool(storage.lay_probe()))
"""


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0, reason="only root becomes another user"
)
def test_another_user_can_use_the_root_and_not_our_files(source: FileSource) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o1777)
        storage = SharedStorage(root)
        lay(storage, source)
        probe = storage.lay_probe()
        found = subprocess.run(
            [sys.executable, "-c", _ANOTHER_USER, folder, probe.name, JOB],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert found.stdout.splitlines() == ["Permission denied"] * 3 + ["True"]
        assert (root / INPUT / "b").is_file()


def test_left_overs_go_after_a_week(
    ours: SharedStorage, source: FileSource, views: tuple[Path, Path]
) -> None:
    lay(ours, source)
    probe = ours.lay_probe()
    (views[0] / "jobs" / "no-job").mkdir()
    (views[0] / "own-work").mkdir()
    now = (views[0] / "jobs" / JOB).stat().st_mtime
    ours.remove_left_overs(now + SHARED_LEFT_OVER_AFTER_S / 2)
    assert (views[0] / INPUT / "b").is_file()
    ours.remove_left_overs(now + 2 * SHARED_LEFT_OVER_AFTER_S)
    assert names_below(views[0]) == {"jobs", "probes", "jobs/no-job", "own-work"}
    assert not (views[0] / probe_path(probe.name)).exists()
