"""Reads what a person handed over as a package: a zip, or a folder.

Everything about a zip is decided from its central directory before a byte is written;
extraction then streams, and stops at the size that was declared. Called by
`training_package`; knows nothing of what the members mean.
"""

import contextlib
import errno
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sleap_rtc_plugin.protocol.errors import (
    DiskFull,
    NotAPackage,
    PackageTooLarge,
    StorageFailed,
    UnsafeMember,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    COMPRESSION_RATIO_FREE_BYTES,
    FREE_SPACE_FACTOR,
    KIB,
    MAX_COMPRESSION_RATIO,
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
    MAX_ZIP_MEMBERS,
    MIB,
)
from sleap_rtc_plugin.protocol.paths import check_path, check_paths
from sleap_rtc_plugin.transport.zip_directory import LOCAL_HEADER_BYTES, read_end_record

__all__ = [
    "Member",
    "Progress",
    "check_free_space",
    "disk_errors",
    "extract_zip",
    "format_bytes",
    "list_folder",
    "stage_folder",
]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_COPY_BYTES: Final = 1 * MIB
# A member's entry has 46 bytes, a name and extra fields; 1 KiB each is ample.
_MAX_DIRECTORY_BYTES: Final = MAX_ZIP_MEMBERS * KIB
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_FLAG_ENCRYPTED: Final = 0x1
_FLAG_PATCHED: Final = 0x20
_FLAG_HIDDEN_NAMES: Final = 0x2000
# What `zipfile` raises over bytes that are not as they should be.
_BAD_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)
_CLUTTER: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Member:
    """A regular file of the package: its path with `/`, its size in bytes."""

    path: str
    size: int


def format_bytes(count: int) -> str:
    """Return a size for people: `12.3 MB`."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _is_clutter(path: str) -> bool:
    """Tell whether a file is what a desktop leaves in every folder and zip."""
    parts = path.split("/")
    name = parts[-1].lower()
    return "__MACOSX" in parts or name in _CLUTTER or name.startswith("._")


@contextlib.contextmanager
def disk_errors(place: Path, needed: int) -> Iterator[None]:
    """Turn a full or broken disk under `place` into an error with words."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _disk_full(place, needed) from error
        raise StorageFailed(
            place=str(place), reason=error.strerror or type(error).__name__
        ) from error


def _disk_full(place: Path, needed: int) -> DiskFull:
    try:
        free = format_bytes(shutil.disk_usage(place).free)
    except OSError:
        free = "too few"
    return DiskFull(place=str(place), needed=format_bytes(needed), free=free)


def check_free_space(place: Path, size: int) -> None:
    """Refuse to begin where `size` more bytes would not fit, with some to spare.

    Raises:
        DiskFull: there is no room.
        StorageFailed: the disk does not say.
    """
    needed = int(size * FREE_SPACE_FACTOR)
    with disk_errors(place, needed):
        free = shutil.disk_usage(place).free
    if free < needed:
        raise _disk_full(place, needed)


# -- zip: what the directory says ----------------------------------------------


def _refuse_large_directory(file: BinaryIO, path: Path) -> None:
    record = read_end_record(file)
    if record is None:
        raise NotAPackage(path=str(path), reason="it is not a zip, or it is truncated")
    if record.members > MAX_ZIP_MEMBERS:
        raise PackageTooLarge(
            path=str(path),
            reason=f"holds {record.members} members, more than {MAX_ZIP_MEMBERS}",
        )
    if record.directory_bytes > _MAX_DIRECTORY_BYTES:
        raise PackageTooLarge(
            path=str(path),
            reason="has a table of contents of " + format_bytes(record.directory_bytes),
        )


def _check_kind(info: zipfile.ZipInfo) -> None:
    """Refuse whatever is neither a regular file nor a folder.

    Raises:
        UnsafeMember: it is a link or a device, by Unix mode or Windows attribute.
    """
    kind = stat.S_IFMT(info.external_attr >> 16)
    wanted = stat.S_IFDIR if info.orig_filename.endswith("/") else stat.S_IFREG
    is_reparse_point = info.external_attr & stat.FILE_ATTRIBUTE_REPARSE_POINT
    if kind not in (0, wanted) or is_reparse_point:
        raise UnsafeMember(
            member=clean_text(info.orig_filename),
            reason="is a link or a device, not a file",
        )


def _check_readable(info: zipfile.ZipInfo, path: Path) -> None:
    name = clean_text(info.orig_filename)
    if info.flag_bits & (_FLAG_ENCRYPTED | _FLAG_HIDDEN_NAMES):
        raise NotAPackage(path=str(path), reason=f"its member {name} is encrypted")
    if info.compress_type not in _METHODS or info.flag_bits & _FLAG_PATCHED:
        raise NotAPackage(
            path=str(path),
            reason=f"its member {name} is compressed in a way that is not supported",
        )


def _check_sizes(infos: Iterable[zipfile.ZipInfo], path: Path) -> None:
    """Refuse a zip that would grow beyond any real package, from what it declares."""
    unpacked = packed = 0
    for info in infos:
        unpacked += info.file_size
        packed += info.compress_size
        _check_ratio(info.file_size, info.compress_size, path)
    if unpacked > MAX_PACKAGE_BYTES:
        raise PackageTooLarge(
            path=str(path), reason=f"unpacks to {format_bytes(unpacked)}"
        )
    _check_ratio(unpacked, packed, path)


def _check_ratio(unpacked: int, packed: int, path: Path) -> None:
    if unpacked <= COMPRESSION_RATIO_FREE_BYTES:
        return
    if unpacked > MAX_COMPRESSION_RATIO * packed:
        raise PackageTooLarge(
            path=str(path),
            reason=f"unpacks from {format_bytes(packed)} to {format_bytes(unpacked)}",
        )


def _check_overlap(infos: Iterable[zipfile.ZipInfo], end: int, path: Path) -> None:
    """Refuse members that share bytes: a zip bomb without a large ratio.

    `end` is where the central directory begins, in bytes.
    """
    by_offset = sorted(infos, key=lambda info: info.header_offset)
    limits = [info.header_offset for info in by_offset[1:]] + [end]
    for info, limit in zip(by_offset, limits, strict=False):
        name_bytes = len(info.orig_filename.encode("utf-8", "surrogateescape"))
        if not info.flag_bits & 0x800:
            name_bytes = len(info.orig_filename)  # cp437: one byte a character
        size = LOCAL_HEADER_BYTES + name_bytes + info.compress_size
        if info.header_offset < 0 or info.header_offset + size > limit:
            raise NotAPackage(path=str(path), reason="its members overlap each other")


def _check_directory(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """Return the members to extract, all of them safe to."""
    infos = archive.infolist()
    if len(infos) > MAX_ZIP_MEMBERS:
        raise PackageTooLarge(
            path=str(path),
            reason=f"holds {len(infos)} members, more than {MAX_ZIP_MEMBERS}",
        )
    for info in infos:
        check_path(info.orig_filename.removesuffix("/"))
        _check_kind(info)
    files = [info for info in infos if not info.orig_filename.endswith("/")]
    files = [info for info in files if not _is_clutter(info.orig_filename)]
    check_paths(info.orig_filename for info in files)
    for info in files:
        _check_readable(info, path)
    _check_sizes(files, path)
    _check_overlap(files, archive.start_dir, path)
    return files


# -- zip: extracting -------------------------------------------------------------


def extract_zip(
    path: Path, workdir: Path, *, progress: Progress | None = None
) -> tuple[Path, list[Member]]:
    """Extract a zip into a new folder below `workdir`.

    On any error the new folder is removed again.

    Args:
        path: the zip.
        workdir: an existing folder.
        progress: told how far it is, in unpacked bytes.

    Returns:
        The new folder, and its files in the zip's order.

    Raises:
        NotAPackage: it is not a zip, or it is damaged or encrypted.
        UnsafeMember: a member's name or kind could write elsewhere.
        PackageTooLarge: it holds more than any real package.
        DiskFull: there is no room.
        StorageFailed: the disk failed.
    """
    with _open_zip(path) as archive:
        infos = _check_directory(archive, path)
        total = sum(info.file_size for info in infos)
        check_free_space(workdir, total)
        with disk_errors(workdir, total):
            root = Path(tempfile.mkdtemp(prefix="package-", dir=workdir))
        try:
            done = 0
            for info in infos:
                for written in _extract_member(archive, info, root, path, total):
                    done += written
                    if progress:
                        progress(done, total)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise
    return root, [Member(info.orig_filename, info.file_size) for info in infos]


@contextlib.contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise NotAPackage(
            path=str(path), reason=f"it cannot be read: {error.strerror}"
        ) from error
    with file:
        _refuse_large_directory(file, path)
        try:
            archive = zipfile.ZipFile(file)
        except (*_BAD_ZIP, OSError) as error:
            raise NotAPackage(path=str(path), reason="its zip is damaged") from error
        with archive:
            yield archive


def _extract_member(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    root: Path,
    path: Path,
    total: int,
) -> Iterator[int]:
    """Write one member, yielding the bytes of each piece written."""
    target = root.joinpath(*info.orig_filename.split("/"))
    left = info.file_size
    with disk_errors(root.parent, total):
        target.parent.mkdir(parents=True, exist_ok=True)
        out = target.open("xb")
    with out, _zip_errors(path, info):
        with archive.open(info) as source:
            while piece := source.read(_COPY_BYTES):
                left -= len(piece)
                if left < 0:
                    raise zipfile.BadZipFile("more bytes than declared")
                with disk_errors(root.parent, total):
                    out.write(piece)
                yield len(piece)
        if left:
            raise zipfile.BadZipFile("fewer bytes than declared")


@contextlib.contextmanager
def _zip_errors(path: Path, info: zipfile.ZipInfo) -> Iterator[None]:
    """Turn whatever `zipfile` raises over bad bytes into an error with words."""
    try:
        yield
    except (*_BAD_ZIP, OSError) as error:
        raise NotAPackage(
            path=str(path),
            reason=f"its member {clean_text(info.orig_filename)} is damaged",
        ) from error


# -- folder ------------------------------------------------------------------------


def _is_link(entry: os.stat_result) -> bool:
    """Tell whether `lstat` saw a symbolic link or a Windows junction."""
    tags = (0xA000000C, 0xA0000003)  # IO_REPARSE_TAG_SYMLINK, _MOUNT_POINT
    return stat.S_ISLNK(entry.st_mode) or getattr(entry, "st_reparse_tag", 0) in tags


def list_folder(root: Path) -> list[Member]:
    """Return a folder's regular files, sorted by path, following no link.

    Raises:
        UnsafeMember: it holds a link, a device, or a name that not every system stores.
        PackageTooLarge: it holds more than any real package.
        StorageFailed: it cannot be read.
    """
    members: list[Member] = []
    pending = [root]
    seen = 0
    while pending:
        folder = pending.pop()
        with disk_errors(folder, 0):
            entries = [(path, path.lstat()) for path in folder.iterdir()]
        seen += len(entries)
        if seen > MAX_PACKAGE_FILES:
            raise PackageTooLarge(
                path=str(root), reason=f"holds more than {MAX_PACKAGE_FILES} files"
            )
        for path, entry in entries:
            name = path.relative_to(root).as_posix()
            if _is_clutter(name):
                continue
            check_path(name)
            if stat.S_ISDIR(entry.st_mode) and not _is_link(entry):
                pending.append(path)
            elif stat.S_ISREG(entry.st_mode) and not _is_link(entry):
                members.append(Member(name, entry.st_size))
            else:
                raise UnsafeMember(
                    member=clean_text(name), reason="is a link or a device, not a file"
                )
    check_paths(member.path for member in members)
    if sum(member.size for member in members) > MAX_PACKAGE_BYTES:
        raise PackageTooLarge(path=str(root), reason="is larger than can be sent")
    return sorted(members, key=lambda member: member.path)


def stage_folder(
    root: Path,
    members: Iterable[Member],
    workdir: Path,
    *,
    copied: frozenset[str],
) -> Path:
    """Make a second view of a folder below `workdir`, some of whose files may change.

    Files in `copied` are copied; the others, which can be large and are only read, are
    hard links where the disk allows it.

    Raises:
        DiskFull: there is no room.
        StorageFailed: the disk failed.
    """
    listed = list(members)
    total = sum(member.size for member in listed)
    with disk_errors(workdir, total):
        staged = Path(tempfile.mkdtemp(prefix="package-", dir=workdir))
        try:
            for member in listed:
                source = root.joinpath(*member.path.split("/"))
                target = staged.joinpath(*member.path.split("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                if member.path not in copied:
                    with contextlib.suppress(OSError):
                        os.link(source, target)
                        continue
                shutil.copyfile(source, target)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    return staged
