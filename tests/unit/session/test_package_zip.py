"""What a zip may hold, and that nothing is left behind when it is refused."""

import errno
import os
import shutil
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    NotAPackage,
    PackageTooLarge,
    RtcError,
    StorageFailed,
    UnsafeMember,
)
from sleap_rtc_plugin.session import package_archive
from sleap_rtc_plugin.session.package_archive import (
    Member,
    extract_zip,
    format_bytes,
    list_folder,
    stage_folder,
)
from sleap_rtc_plugin.transport.zip_directory import read_end_record

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    workdir = tmp_path / "work"
    workdir.mkdir()
    return workdir


@pytest.fixture
def zip_path(tmp_path: Path) -> Path:
    return tmp_path / "p.zip"


def write(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = name
            if isinstance(name, str):
                info = zipfile.ZipInfo()
                info.filename = name  # the constructor would mend it on Windows
                info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def refused(kind: type[RtcError], path: Path, workdir: Path) -> str:
    with pytest.raises(kind) as caught:
        extract_zip(path, workdir)
    assert list(workdir.iterdir()) == []
    return str(caught.value)


def test_members_are_extracted_in_order(zip_path: Path, workdir: Path) -> None:
    write(zip_path, ("b.txt", b"two" * 1000), ("a/c.txt", b"one"))
    told: list[tuple[int, int]] = []
    root, members = extract_zip(
        zip_path, workdir, progress=lambda *args: told.append(args)
    )
    assert members == [Member("b.txt", 3000), Member("a/c.txt", 3)]
    assert (root / "b.txt").read_bytes() == b"two" * 1000
    assert (root / "a" / "c.txt").read_bytes() == b"one"
    assert told[-1] == (3003, 3003)


def test_clutter_of_desktops_is_left_out(zip_path: Path, workdir: Path) -> None:
    names = ("a.txt", ".DS_Store", "__MACOSX/._a.txt", "._a.txt", "Thumbs.db")
    write(zip_path, *((name, b"x") for name in names))
    root, members = extract_zip(zip_path, workdir)
    assert [member.path for member in members] == ["a.txt"]
    assert [path.name for path in root.rglob("*")] == ["a.txt"]


def test_folder_entries_are_not_members(zip_path: Path, workdir: Path) -> None:
    write(zip_path, ("sub/", b""), ("sub/a.txt", b"x"))
    assert extract_zip(zip_path, workdir)[1] == [Member("sub/a.txt", 1)]


@pytest.mark.parametrize("data", [b"", b"not a zip" * 100, b"PK\x03\x04" + b"x" * 99])
def test_not_a_zip(zip_path: Path, workdir: Path, data: bytes) -> None:
    zip_path.write_bytes(data)
    assert "it is not a zip, or it is truncated" in refused(
        NotAPackage, zip_path, workdir
    )


def test_truncated(zip_path: Path, workdir: Path) -> None:
    data = write(zip_path, ("a.txt", os.urandom(5000))).read_bytes()
    zip_path.write_bytes(data[:-40])
    assert "truncated" in refused(NotAPackage, zip_path, workdir)


def test_central_directory_cut_out(zip_path: Path, workdir: Path) -> None:
    data = write(zip_path, ("a.txt", os.urandom(5000))).read_bytes()
    zip_path.write_bytes(data[:100] + data[-22:])
    assert "its zip is damaged" in refused(NotAPackage, zip_path, workdir)


def test_wrong_checksum(zip_path: Path, workdir: Path) -> None:
    info = zipfile.ZipInfo("a.txt")
    data = write(zip_path, (info, b"the contents")).read_bytes()
    zip_path.write_bytes(data.replace(b"the contents", b"the CONTENTS"))
    assert "its member a.txt is damaged" in refused(NotAPackage, zip_path, workdir)


def test_damaged_deflate_stream(zip_path: Path, workdir: Path) -> None:
    data = bytearray(write(zip_path, ("a.txt", bytes(range(256)) * 40)).read_bytes())
    data[40:60] = b"\xff" * 20
    zip_path.write_bytes(data)
    assert "damaged" in refused(NotAPackage, zip_path, workdir)


def test_encrypted(zip_path: Path, workdir: Path) -> None:
    data = bytearray(write(zip_path, ("a.txt", b"x")).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    zip_path.write_bytes(data)
    assert "a.txt is encrypted" in refused(NotAPackage, zip_path, workdir)


def test_unsupported_compression(zip_path: Path, workdir: Path) -> None:
    data = bytearray(write(zip_path, ("a.txt", b"x")).read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 97
    zip_path.write_bytes(data)
    assert "compressed in a way that is not supported" in refused(
        NotAPackage, zip_path, workdir
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x", "leads out of its folder"),
        ("a/../../x", "leads out of its folder"),
        ("/etc/passwd", "is an absolute path"),
        ("C:/x", "is an absolute path"),
        ("a\\b", "has a character that not every system can store"),
        ("\\\\server\\share", "is an absolute path"),
        ("NUL", "is a name that Windows reserves"),
        ("sub/con.yaml", "is a name that Windows reserves"),
        ("a.txt.", "is a name that Windows reserves"),
        ("a\x07b", "has a character that not every system can store"),
        ("/".join("a" * 13), "is nested deeper"),
        ("../dir/", "leads out of its folder"),
    ],
)
def test_unsafe_names(zip_path: Path, workdir: Path, name: str, words: str) -> None:
    write(zip_path, ("ok.txt", b"x"), (name, b"x" * (not name.endswith("/"))))
    assert words in refused(UnsafeMember, zip_path, workdir)


def test_name_with_a_zero_byte(zip_path: Path, workdir: Path) -> None:
    data = write(zip_path, ("a.txtZ../x", b"x")).read_bytes()
    zip_path.write_bytes(data.replace(b"a.txtZ../x", b"a.txt\0../x"))
    refused(UnsafeMember, zip_path, workdir)


@pytest.mark.parametrize("other", ["A.TXT", "a.txt/b"])
def test_two_members_that_are_one_file(
    zip_path: Path, workdir: Path, other: str
) -> None:
    write(zip_path, ("a.txt", b"x"), (other, b"y"))
    assert "has the same name as another" in refused(UnsafeMember, zip_path, workdir)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(zip_path: Path, workdir: Path) -> None:
    write(zip_path, ("a.txt", b"x"), ("a.txt", b"y"))
    assert "has the same name as another" in refused(UnsafeMember, zip_path, workdir)


@pytest.mark.parametrize(
    "attributes", [0o120777 << 16, 0o020666 << 16, 0o040755 << 16, 0x400]
)
def test_links_and_devices(zip_path: Path, workdir: Path, attributes: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = attributes
    write(zip_path, (info, b"/etc/passwd"))
    assert "is a link or a device" in refused(UnsafeMember, zip_path, workdir)


def test_100_000_members(zip_path: Path, workdir: Path) -> None:
    # The end record alone is enough: the directory is not even read.
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 99, 1, 0)
    end64 = struct.pack(
        *("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 100_000, 100_000, 99, 1)
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 100, 1)
    zip_path.write_bytes(b"x" * 100 + end64 + locator + end)
    words = refused(PackageTooLarge, zip_path, workdir)
    assert "holds 100000 members, more than 10000" in words


def test_more_members_than_the_end_record_admits(zip_path: Path, workdir: Path) -> None:
    with zipfile.ZipFile(zip_path, "w") as archive:
        for number in range(10_001):
            archive.writestr(f"{number}", b"")
    data = bytearray(zip_path.read_bytes())
    data[-14:-10] = struct.pack("<2H", 3, 3)
    zip_path.write_bytes(data)
    assert "holds 10001 members" in refused(PackageTooLarge, zip_path, workdir)


def test_directory_of_absurd_size(zip_path: Path, workdir: Path) -> None:
    zip_path.write_bytes(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2**31, 0, 0))
    assert "table of contents of 2.1 GB" in refused(PackageTooLarge, zip_path, workdir)


def forged(zip_path: Path, declared: int) -> Path:
    """Write a zip whose member claims another size than it has."""
    data = bytearray(write(zip_path, ("a.txt", b"x" * 1000)).read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<L", declared)
    data[22:26] = struct.pack("<L", declared)
    zip_path.write_bytes(data)
    return zip_path


def test_bomb_by_what_it_declares(zip_path: Path, workdir: Path) -> None:
    forged(zip_path, 3 * 10**9)
    assert "to 3.0 GB" in refused(PackageTooLarge, zip_path, workdir)


def test_bomb_that_declares_too_little(zip_path: Path, workdir: Path) -> None:
    forged(zip_path, 10)
    assert "its member a.txt is damaged" in refused(NotAPackage, zip_path, workdir)


def test_member_shorter_than_declared(zip_path: Path, workdir: Path) -> None:
    forged(zip_path, 2000)
    assert "its member a.txt is damaged" in refused(NotAPackage, zip_path, workdir)


def test_real_bomb(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_archive, "COMPRESSION_RATIO_FREE_BYTES", 10_000)
    write(zip_path, ("a.txt", bytes(100_000)))
    assert "to 100.0 kB" in refused(PackageTooLarge, zip_path, workdir)


def test_bomb_spread_over_members(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_archive, "COMPRESSION_RATIO_FREE_BYTES", 100_000)
    write(zip_path, *((f"{n}", bytes(90_000)) for n in range(4)))
    assert "to 360.0 kB" in refused(PackageTooLarge, zip_path, workdir)


def test_well_compressed_small_members_are_fine(zip_path: Path, workdir: Path) -> None:
    write(zip_path, ("a.txt", bytes(1_000_000)))
    assert extract_zip(zip_path, workdir)[1] == [Member("a.txt", 1_000_000)]


def test_members_that_overlap(zip_path: Path, workdir: Path) -> None:
    data = write(zip_path, ("a.txt", b"xyz"), ("b.txt", b"xyz")).read_bytes()
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    entry = bytearray(data[second : data.index(b"PK\x05\x06")])
    entry[42:46] = struct.pack("<L", 0)
    zip_path.write_bytes(data[:second] + entry + data[second + len(entry) :])
    assert "overlap" in refused(NotAPackage, zip_path, workdir)


def test_larger_than_can_be_sent(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_archive, "MAX_PACKAGE_BYTES", 10)
    write(zip_path, ("a.txt", b"x" * 11))
    assert "unpacks to 11 bytes" in refused(PackageTooLarge, zip_path, workdir)


def test_too_little_room(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, 500))
    write(zip_path, ("a.txt", os.urandom(1000)))
    words = refused(DiskFull, zip_path, workdir)
    assert f"not enough space on {workdir}: 1.2 kB are needed and 500 bytes" in words


def test_disk_full_while_extracting(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(zip_path, ("a.txt", b"x"), ("b.txt", b"x"))
    real_open = Path.open

    def open_(self: Path, mode: str = "r", **options: object) -> object:
        if self.name == "b.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_open(self, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_)
    assert "not enough space" in refused(DiskFull, zip_path, workdir)


def test_broken_disk(
    zip_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    write(zip_path, ("a.txt", b"x"))
    assert "Input/output error" in refused(StorageFailed, zip_path, workdir)


def test_end_record_of_a_plain_zip(zip_path: Path) -> None:
    write(zip_path, ("a.txt", b"x"), ("b.txt", b"x"))
    with zip_path.open("rb") as file:
        record = read_end_record(file)
    assert record is not None
    assert record.members == 2
    assert record.is_exact


@pytest.mark.parametrize(("before", "behind"), [(b"MZ", b""), (b"", b"\x05\0hello")])
def test_end_record_of_a_zip_in_something_else(
    zip_path: Path, before: bytes, behind: bytes
) -> None:
    data = write(zip_path, ("a.txt", b"x")).read_bytes()
    zip_path.write_bytes(before + (data[:-2] + behind if behind else data))
    with zip_path.open("rb") as file:
        record = read_end_record(file)
    assert record is not None
    assert not record.is_exact


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2 * 10**12, "2000.0 GB")],
)
def test_sizes_for_people(count: int, words: str) -> None:
    assert format_bytes(count) == words


# -- folders ---------------------------------------------------------------------


def test_folder_is_listed_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b").write_bytes(b"xx")
    (tmp_path / "sub" / "a").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert list_folder(tmp_path) == [Member("b", 2), Member("sub/a", 1)]


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "missing", "b"])
def test_folder_with_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "a").symlink_to(target)
    with pytest.raises(UnsafeMember, match="holds a, which is a link"):
        list_folder(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="there are no such files")
def test_folder_with_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeMember, match="a device"):
        list_folder(tmp_path)


def test_folder_with_too_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_archive, "MAX_PACKAGE_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(PackageTooLarge, match="more than 3 files"):
        list_folder(tmp_path)


@pytest.mark.parametrize("has_links", [True, False])
def test_staged_folder(
    tmp_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    (source / "b").write_bytes(b"b")
    staged = stage_folder(source, list_folder(source), workdir, copied=frozenset({"a"}))
    (staged / "a").write_bytes(b"changed")
    assert (source / "a").read_bytes() == b"a"
    assert (staged / "b").read_bytes() == b"b"
