"""Zips that were unpacked before, so that sending one again begins at once.

A cache in a private folder: whatever is missing, foreign or does not fit is unpacked
again. A user of an entry gets links of his own, so an entry may be deleted at any time.
Called by `training_package`, in a thread.
"""

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.limits import GIB, MAX_CONFIG_BYTES
from sleap_rtc_plugin.protocol.paths import check_paths
from sleap_rtc_plugin.session.package_archive import Member
from sleap_rtc_plugin.transport.plan_cache import Archive

__all__ = ["MAX_UNPACKED_BYTES", "UnpackedPackages"]

logger = logging.getLogger(__name__)

MAX_UNPACKED_BYTES: Final = 10 * GIB
MAX_UNPACKED_SHARE: Final = 0.05
"""Of the disk, if that is less."""

_FILES: Final = "files"
_LIST: Final = "members.json"
_DRAFT: Final = "draft-"


class UnpackedPackages:
    """Unpacked zips below one folder, the last used ones, by what the zips are."""

    def __init__(self, folder: Path, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
        """Use `folder`, which is made when needed, for up to `max_bytes`."""
        self._folder = folder
        self._max_bytes = max_bytes

    def find(self, archive: Archive, workdir: Path) -> tuple[Path, list[Member]] | None:
        """Return a new folder below `workdir` with an archive's files, or None.

        The small files in it are the caller's own; the others are links, to be read.
        """
        entry = self._entry(archive)
        try:
            members = _read_list(entry)
            root = _linked(entry / _FILES, members, workdir)
            os.utime(entry)
        except (OSError, msgspec.MsgspecError, RtcError):
            return None
        return root, members

    def keep(self, archive: Archive, root: Path, members: list[Member]) -> None:
        """Keep what was just unpacked and not yet changed, as well as we can."""
        if not archive.is_settled(time.time_ns()) or not archive.is_unchanged:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder))
            try:
                _linked(root, members, draft).rename(draft / _FILES)
                (draft / _LIST).write_bytes(msgspec.json.encode(members))
                entry = self._entry(archive)
                shutil.rmtree(entry, ignore_errors=True)
                draft.rename(entry)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            self._trim()
        except OSError as error:
            logger.debug("An unpacked package could not be kept: %s", error)

    def drop(self, archive: Archive) -> None:
        """Forget an archive's files, which turned out to be other ones."""
        shutil.rmtree(self._entry(archive), ignore_errors=True)

    def _entry(self, archive: Archive) -> Path:
        return self._folder / archive.fingerprint

    def _trim(self) -> None:
        """Delete what was not used for longest, drafts of dead processes included."""
        share = int(shutil.disk_usage(self._folder).total * MAX_UNPACKED_SHARE)
        left_bytes = min(self._max_bytes, share)
        with os.scandir(self._folder) as found:
            entries = [(one.stat(follow_symlinks=False).st_mtime, one) for one in found]
        for _, entry in sorted(entries, key=lambda each: each[0], reverse=True):
            with contextlib.suppress(OSError, msgspec.MsgspecError, RtcError):
                members = _read_list(Path(entry.path))
                left_bytes -= sum(member.size for member in members)
                if left_bytes >= 0:
                    continue
            shutil.rmtree(entry.path, ignore_errors=True)


def _read_list(entry: Path) -> list[Member]:
    """Return the members of an entry, in the archive's order.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: it is torn.
        UnsafeMember: somebody else wrote it.
    """
    data = (entry / _LIST).read_bytes()
    members = msgspec.json.decode(data, type=list[Member])
    check_paths(member.path for member in members)
    return members


def _linked(source: Path, members: Iterable[Member], folder: Path) -> Path:
    """Make a new folder below `folder` with the same files: small ones are copies.

    Raises:
        OSError: the disk knows no links, or a file is gone or another.
    """
    target = Path(tempfile.mkdtemp(prefix="package-", dir=folder))
    try:
        for member in members:
            place = target / member.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if member.size <= MAX_CONFIG_BYTES:
                shutil.copyfile(source / member.path, place)
            else:
                os.link(source / member.path, place, follow_symlinks=False)
            if place.lstat().st_size != member.size:
                raise FileNotFoundError(place)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target
