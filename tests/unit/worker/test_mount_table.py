"""What a client sees of a worker's mounts, and what it can never see."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.shared_mounts import names_below

from sleap_rtc_plugin.protocol.errors import MountUnusable
from sleap_rtc_plugin.protocol.limits import (
    MAX_MOUNT_ENTRIES_PER_PAGE,
    MOUNT_SEARCH_S,
    SAMPLE_BYTES,
)
from sleap_rtc_plugin.protocol.mount_messages import (
    MountEntry,
    MountPlace,
    WantedFile,
)
from sleap_rtc_plugin.transport.file_samples import sample_file
from sleap_rtc_plugin.transport.file_source import FileSource
from sleap_rtc_worker import mounts
from sleap_rtc_worker.mounts import MountTable

POSIX = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "lab"
    (root / "2026" / "cam0").mkdir(parents=True)
    (root / "2026" / "fly.mp4").write_bytes(b"fly" * 1000)
    (root / "2026" / "cam0" / "12:30.mp4").write_bytes(b"noon" * 1000)
    (root / "notes.txt").write_text("notes")
    return root


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "secret.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"secret" * 1000)
    return path


@pytest.fixture
def table(lab: Path) -> MountTable:
    return MountTable({"lab": lab})


def names(table: MountTable, path: str = "", after: str = "") -> list[str]:
    page = table.page(MountPlace(mount="lab", path=path), after)
    return [entry.name for entry in page.entries]


def wanted(
    path: Path, *, as_path: str | None = None, hint: str | None = None
) -> WantedFile:
    size_bytes, sample = sample_file(path)
    return WantedFile(
        path=as_path or f"/home/ann/{path.name}",
        size_bytes=size_bytes,
        sample=sample,
        hint=None if hint is None else MountPlace(mount="lab", path=hint),
    )


def found(table: MountTable, *files: WantedFile) -> list[str | None]:
    places = table.resolve(files).found
    return [
        f"{places[index].mount}:{places[index].path}" if index in places else None
        for index in range(len(files))
    ]


# -- browsing --------------------------------------------------------------------------


def test_the_mounts_are_listed_by_their_names(tmp_path: Path) -> None:
    table = MountTable({"b": tmp_path, "a": tmp_path})
    page = table.page(None, "")
    assert page.entries == [
        MountEntry(name="a", kind="mount"),
        MountEntry(name="b", kind="mount"),
    ]
    assert MountTable({}).page(None, "").entries == []


def test_a_folder_is_listed_with_sizes(table: MountTable) -> None:
    page = table.page(MountPlace(mount="lab", path="2026"), "")
    assert page.entries == [
        MountEntry(name="cam0", kind="folder"),
        MountEntry(name="fly.mp4", kind="file", size_bytes=3000),
    ]
    assert page.is_complete
    assert not page.more


def test_a_large_folder_comes_in_pages(table: MountTable, lab: Path) -> None:
    for number in range(MAX_MOUNT_ENTRIES_PER_PAGE + 3):
        (lab / "2026" / "cam0" / f"{number:04}.png").touch()
    first = table.page(MountPlace(mount="lab", path="2026/cam0"), "")
    assert first.more
    assert len(first.entries) == MAX_MOUNT_ENTRIES_PER_PAGE
    rest = names(table, "2026/cam0", first.entries[-1].name)
    assert rest == ["0400.png", "0401.png", "0402.png", "12:30.mp4"]


def test_a_folder_past_the_bound_says_that_it_is_not_all(
    table: MountTable, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MAX_MOUNT_FOLDER_ENTRIES", 1)
    page = table.page(MountPlace(mount="lab", path=""), "")
    assert len(page.entries) == 1
    assert not page.is_complete


@pytest.mark.parametrize(
    "path",
    ["..", "../secret.mp4", "/etc", "2026/../..", "2026//cam0", "nothing", "notes.txt"],
)
def test_what_is_no_folder_of_the_mount_is_refused(
    table: MountTable, path: str, tmp_path: Path
) -> None:
    with pytest.raises(MountUnusable) as refused:
        table.page(MountPlace(mount="lab", path=path), "")
    assert str(tmp_path) not in str(refused.value)


def test_an_unknown_mount_is_refused(table: MountTable) -> None:
    with pytest.raises(MountUnusable, match="none of that name"):
        table.page(MountPlace(mount="other"), "")


@POSIX
def test_links_that_leave_the_mount_are_left_out(
    table: MountTable, lab: Path, secret: Path
) -> None:
    (lab / "out.mp4").symlink_to(secret)
    (lab / "up").symlink_to(lab.parent)
    (lab / "loop").symlink_to("loop")
    (lab / "inside").symlink_to(lab / "2026")
    (lab / "pipe").touch()
    os.mkfifo(lab / "fifo")
    assert names(table) == ["2026", "inside", "notes.txt", "pipe"]
    assert names(table, "inside") == ["cam0", "fly.mp4"]
    for path in ("up", "loop", "up/secret.mp4"):
        with pytest.raises(MountUnusable):
            names(table, path)


@POSIX
def test_names_that_cannot_be_shown_are_left_out(table: MountTable, lab: Path) -> None:
    for name in (b"bad\xff.mp4", b"line\nbreak", b"back\\slash"):
        os.close(os.open(os.fsencode(lab) + b"/" + name, os.O_CREAT))
    assert names(table) == ["2026", "notes.txt"]


# -- finding files ---------------------------------------------------------------------


def test_a_file_is_found_by_the_end_of_its_path(table: MountTable, lab: Path) -> None:
    file = lab / "2026" / "fly.mp4"
    assert found(table, wanted(file, as_path="/mnt/x/2026/fly.mp4")) == [
        "lab:2026/fly.mp4"
    ]
    assert found(table, wanted(file, as_path="Z:\\x\\2026\\fly.mp4")) == [
        "lab:2026/fly.mp4"
    ]


def test_a_file_is_found_by_its_name_where_its_folders_differ(
    table: MountTable, lab: Path
) -> None:
    noon = wanted(lab / "2026" / "cam0" / "12:30.mp4")
    assert found(table, noon) == ["lab:2026/cam0/12:30.mp4"]


def test_a_name_is_the_same_in_either_form_of_its_accents(
    table: MountTable, lab: Path
) -> None:
    (lab / "2026" / "m\u00fccke.mp4").write_bytes(b"m" * 500)
    file = wanted(lab / "2026" / "m\u00fccke.mp4", as_path="/Users/ann/mu\u0308cke.mp4")
    assert found(table, file) == ["lab:2026/m\u00fccke.mp4"]


def test_the_hint_comes_first(table: MountTable, lab: Path) -> None:
    file = lab / "2026" / "fly.mp4"
    (lab / "copy.mp4").write_bytes(file.read_bytes())
    by_hint = wanted(file, as_path="/x/2026/fly.mp4", hint="copy.mp4")
    assert found(table, by_hint) == ["lab:copy.mp4"]
    wrong = wanted(file, as_path="/x/2026/fly.mp4", hint="notes.txt")
    assert found(table, wrong) == ["lab:2026/fly.mp4"]
    senseless = wanted(file, as_path="/x/2026/fly.mp4", hint="../../etc/passwd")
    assert found(table, senseless) == ["lab:2026/fly.mp4"]


def test_the_longest_end_wins_across_mounts(lab: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "fly.mp4").write_bytes((lab / "2026" / "fly.mp4").read_bytes())
    table = MountTable({"a": other, "lab": lab})
    file = wanted(other / "fly.mp4", as_path="/x/2026/fly.mp4")
    assert found(table, file) == ["lab:2026/fly.mp4"]


@pytest.mark.parametrize("size_bytes", [100, 3 * SAMPLE_BYTES + 100])
@pytest.mark.parametrize("place", [0, 0.5, 0.999])
def test_the_same_name_and_size_is_not_the_same_file(
    table: MountTable, lab: Path, tmp_path: Path, size_bytes: int, place: float
) -> None:
    data = bytearray(os.urandom(size_bytes))
    (tmp_path / "mine.mp4").write_bytes(data)
    data[int(place * size_bytes)] ^= 1
    (lab / "mine.mp4").write_bytes(data)
    assert found(table, wanted(tmp_path / "mine.mp4")) == [None]


def test_another_size_is_another_file(
    table: MountTable, lab: Path, tmp_path: Path
) -> None:
    (tmp_path / "fly.mp4").write_bytes(b"fly" * 1001)
    assert found(table, wanted(tmp_path / "fly.mp4")) == [None]
    assert table.resolve([wanted(tmp_path / "fly.mp4")]).is_complete


@POSIX
def test_nothing_outside_is_found_through_links(
    table: MountTable, lab: Path, secret: Path
) -> None:
    (lab / "secret.mp4").symlink_to(secret)
    (lab / "up").symlink_to(secret.parent)
    (lab / "round").symlink_to(lab)
    for hint in ("secret.mp4", "up/secret.mp4", "../secret.mp4", "round/secret.mp4"):
        assert found(table, wanted(secret, hint=hint)) == [None]
    inside = wanted(lab / "2026" / "fly.mp4", as_path="/x/round/2026/fly.mp4")
    assert found(table, inside) == ["lab:round/2026/fly.mp4"]


def test_a_search_that_hits_its_bound_says_so(
    table: MountTable, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MAX_MOUNT_ENTRIES_SEARCHED", 2)
    resolution = table.resolve([wanted(lab / "2026" / "cam0" / "12:30.mp4")])
    assert resolution.found == {}
    assert not resolution.is_complete


def test_a_search_that_takes_too_long_says_so(lab: Path) -> None:
    ticks = iter(range(1000))
    table = MountTable({"lab": lab}, clock=lambda: next(ticks) * MOUNT_SEARCH_S)
    resolution = table.resolve([wanted(lab / "2026" / "cam0" / "12:30.mp4")])
    assert resolution.found == {}
    assert not resolution.is_complete


def test_too_many_of_one_name_are_not_all_read(
    table: MountTable, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MAX_MOUNT_CANDIDATES", 3)
    (tmp_path / "same.mp4").write_bytes(b"a" * 1000)
    for number in range(5):
        (lab / str(number)).mkdir()
        (lab / str(number) / "same.mp4").write_bytes(b"b" * 1000)
    resolution = table.resolve([wanted(tmp_path / "same.mp4")])
    assert resolution.found == {}
    assert not resolution.is_complete


def test_a_mount_that_hangs_costs_its_deadline_and_the_others_are_searched(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    released = threading.Event()
    real = mounts._contained

    def contained(root: Path, path: str) -> Any:
        if root == slow:
            released.wait()
        return real(root, path)

    monkeypatch.setattr(mounts, "_contained", contained)
    table = MountTable({"slow": slow, "lab": lab}, call_timeout_s=0.2)
    try:
        resolution = table.resolve([wanted(lab / "2026" / "fly.mp4")])
        assert resolution.found[0] == MountPlace(mount="lab", path="2026/fly.mp4")
        assert not resolution.is_complete
        with pytest.raises(MountUnusable, match="does not answer"):
            table.page(MountPlace(mount="slow"), "")
    finally:
        released.set()


def test_nothing_is_written_below_a_mount(table: MountTable, lab: Path) -> None:
    before = {
        name: ((lab / name).stat().st_mtime_ns, (lab / name).stat().st_size)
        for name in names_below(lab)
    }
    names(table)
    found(table, wanted(lab / "2026" / "fly.mp4"), wanted(lab / "notes.txt"))
    source = FileSource.scan(lab, ["notes.txt"])
    with table.reading({"notes.txt": MountPlace(mount="lab", path="notes.txt")}) as r:
        assert r(source.manifest.files[0], source.manifest.chunk(0)) == b"notes"
    after = {
        name: ((lab / name).stat().st_mtime_ns, (lab / name).stat().st_size)
        for name in names_below(lab)
    }
    assert before == after


# -- chunks of packages ----------------------------------------------------------------


@POSIX
def test_chunks_come_from_inside_only(
    table: MountTable, lab: Path, secret: Path
) -> None:
    (lab / "out.mp4").symlink_to(secret)
    source = FileSource.scan(secret.parent, ["secret.mp4"])
    entry, chunk = source.manifest.files[0], source.manifest.chunk(0)
    for place in (
        MountPlace(mount="lab", path="out.mp4"),
        MountPlace(mount="lab", path="../secret.mp4"),
        MountPlace(mount="lab", path="gone.mp4"),
    ):
        with table.reading({"secret.mp4": place}) as read:
            assert read(entry, chunk) is None
    with table.reading({}) as read:
        assert read(entry, chunk) is None
