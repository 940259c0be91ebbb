"""Files below a root that others write to as well: no link below it is followed.

Where the system can, each folder on the way is opened from the one above, so nobody
can put a link in between; elsewhere the resolved path has to lie below the root. The
root itself may be a link. Blocking calls, made by `shared_storage` and by the worker's
mounts; paths were checked.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = [
    "check_folder_below",
    "check_inside",
    "folder_below",
    "make_folders_below",
    "open_below",
    "remove_below",
    "rename_below",
    "size_below",
]

_CAN_WALK: Final = (
    os.open in os.supports_dir_fd
    and os.mkdir in os.supports_dir_fd
    and hasattr(os, "O_NOFOLLOW")
    and hasattr(os, "O_DIRECTORY")
)
_NOT_A_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
# A pipe that somebody put there must not hold us.
_FLAGS: Final = _NOT_A_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_below(root: Path, path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor.

    Args:
        root: the folder that is not left.
        path: relative to it, with `/`.
        flags: as of `os.open`.
        mode: of a file that is made.

    Raises:
        OSError: there is none, or a link is in the way.
    """
    with _parent(root, path) as (name, folder):
        descriptor = os.open(name, flags | _FLAGS, mode, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a file")
            if flags & os.O_CREAT:
                _give_mode(descriptor, mode, folder)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def make_folders_below(root: Path, path: str, mode: int) -> None:
    """Make a folder and those above it, as far as they are missing.

    Raises:
        OSError: they cannot be made, or a link is in the way.
    """
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        with _parent(root, "/".join(parts[:depth])) as (name, folder):
            try:
                os.mkdir(name, mode, dir_fd=folder)
            except FileExistsError:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    raise
                continue
            if folder is not None:
                made = os.open(name, _FOLDER | _NOT_A_LINK, dir_fd=folder)
                try:
                    _give_mode(made, mode, folder)
                finally:
                    os.close(made)


def check_inside(root: Path, path: str) -> None:
    """Look whether a path, all links followed, lies below the root.

    Raises:
        OSError: it does not.
    """
    try:
        is_inside = (root / path).resolve().is_relative_to(root.resolve())
    except RuntimeError:
        # A link to itself, before Python 3.13.
        is_inside = False
    if not is_inside:
        raise OSError(errno.ELOOP, "a link leads out of it")


def check_folder_below(root: Path, path: str) -> None:
    """Look whether a folder is there and no link is in the way.

    Raises:
        OSError: it is not so.
    """
    with _parent(root, f"{path}/."):
        if not (_CAN_WALK or (root / path).is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")


@contextlib.contextmanager
def folder_below(root: Path, path: str) -> Iterator[int | str]:
    """Yield what `os.scandir` takes for a folder; the empty path is the root.

    Raises:
        OSError: there is none, or a link is in the way.
    """
    with _parent(root, f"{path}/." if path else ".") as (name, folder):
        yield name if folder is None else folder


def rename_below(root: Path, path: str, target: str) -> None:
    """Give a file another name, in place of what has it.

    Raises:
        OSError: it cannot be renamed, or a link is in the way.
    """
    with (
        _parent(root, path) as (name, folder),
        _parent(root, target) as (new_name, new_folder),
    ):
        os.replace(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)


def size_below(root: Path, path: str) -> int | None:
    """Return a regular file's size in bytes, or None where there is none.

    Raises:
        OSError: a link is in the way, or the folder cannot be read.
    """
    try:
        with _parent(root, path) as (name, folder):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def remove_below(root: Path, path: str) -> None:
    """Remove a file, or a folder with all that it holds, as far as we may.

    Raises:
        OSError: a link is in the way above it.
    """
    with _parent(root, path) as (name, folder):
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)


@contextlib.contextmanager
def _parent(root: Path, path: str) -> Iterator[tuple[str, int | None]]:
    """Yield a path's last name and the folder that it is relative to."""
    *parts, name = path.split("/")
    if not _CAN_WALK:
        check_inside(root, path)
        if (root / path).is_symlink():
            raise OSError(errno.ELOOP, "a link is in the way")
        yield str(root / path), None
        return
    folder = os.open(root, _FOLDER)
    try:
        for part in parts:
            deeper = os.open(part, _FOLDER | _NOT_A_LINK, dir_fd=folder)
            os.close(folder)
            folder = deeper
        yield name, folder
    finally:
        os.close(folder)


def _give_mode(descriptor: int, mode: int, folder: int | None) -> None:
    """Set what the process's mask took away, where the file system lets us.

    What root makes, as in a container, belongs to whom the folder belongs.
    """
    if folder is None:
        return
    with contextlib.suppress(PermissionError):
        if os.geteuid() == 0:
            above = os.fstat(folder)
            os.fchown(descriptor, above.st_uid, above.st_gid)
        os.fchmod(descriptor, mode)
