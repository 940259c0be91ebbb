"""Which of the user's folders is which folder of a worker's mounts, as far as seen.

Learned from every file that was found, offered as a hint for the next, and forgotten
when it no longer holds. One small file in the user's state folder; without it files are
only found more slowly. Used by `worker_files`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import platformdirs
from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.limits import (
    MAX_CLIENT_PATH_CHARS,
    MAX_MOUNT_NAME_CHARS,
    MAX_MOUNT_PATH_CHARS,
    MIB,
)
from sleap_rtc_plugin.protocol.mount_messages import MountPlace
from sleap_rtc_plugin.protocol.mounts import client_parts, place_fault
from sleap_rtc_plugin.session.settings import replace_file

__all__ = ["MountMemory", "SamePlace", "corrected", "hint_for"]

logger = logging.getLogger(__name__)

MAX_WORKERS: Final = 50
MAX_PER_WORKER: Final = 32
MAX_MEMORY_BYTES: Final = 1 * MIB


class SamePlace(Struct, frozen=True, kw_only=True):
    """A folder of the user's and the folder of a mount that holds the same.

    Attributes:
        ours: the user's, as `/`-separated parts without a drive.
        mount: the mount's name.
        folder: the folder on it; empty for the mount itself.
    """

    ours: Annotated[str, Meta(max_length=MAX_CLIENT_PATH_CHARS)]
    mount: Annotated[str, Meta(max_length=MAX_MOUNT_NAME_CHARS)]
    folder: Annotated[str, Meta(max_length=MAX_MOUNT_PATH_CHARS)] = ""


def hint_for(known: Sequence[SamePlace], path: str) -> MountPlace | None:
    """Return where a file of the user's should be, by the nearest known folder."""
    same = _nearest(known, path)
    if same is None:
        return None
    below = client_parts(path)[len(_split(same.ours)) :]
    hinted = "/".join([*_split(same.folder), *below])
    if place_fault(hinted) is not None:
        return None
    return MountPlace(mount=same.mount, path=hinted)


def corrected(
    known: Sequence[SamePlace], found: Mapping[str, MountPlace | None]
) -> list[SamePlace]:
    """Return what is known after files were looked for.

    Args:
        known: what was known before, the last used first.
        found: where each of the user's files is, or None where it was not found.
    """
    failed: set[SamePlace] = set()
    held: set[SamePlace] = set()
    learned: list[SamePlace] = []
    for path, place in found.items():
        same = _nearest(known, path)
        if same is not None:
            (held if hint_for(known, path) == place else failed).add(same)
        if place is not None:
            learned.append(_learned(path, place))
    kept = [same for same in known if same in held or same not in failed]
    return list(dict.fromkeys([*learned, *kept]))[:MAX_PER_WORKER]


def _nearest(known: Sequence[SamePlace], path: str) -> SamePlace | None:
    parts = client_parts(path)
    fits = [
        same
        for same in known
        if (ours := _split(same.ours)) == parts[: len(ours)] and len(ours) < len(parts)
    ]
    return max(fits, key=lambda same: len(_split(same.ours)), default=None)


def _learned(path: str, place: MountPlace) -> SamePlace:
    """Take away what both paths end in, beginning with the file's name."""
    ours, theirs = list(client_parts(path)), list(_split(place.path))
    while ours and theirs and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    return SamePlace(ours="/".join(ours), mount=place.mount, folder="/".join(theirs))


def _split(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")) if path else ()


class MountMemory:
    """What is known of every worker, on the disk."""

    def __init__(self, path: Path | None = None) -> None:
        """Keep it in `path`, or in the user's own state folder."""
        folder = platformdirs.user_state_path("sleap-remote")
        self._path = path or folder / "mounts.json"

    def of(self, worker_id: str) -> list[SamePlace]:
        """Return what is known of a worker."""
        return self._read().get(worker_id, [])[:MAX_PER_WORKER]

    def remember(self, worker_id: str, known: Sequence[SamePlace]) -> None:
        """Replace what is known of a worker; what cannot be written is forgotten."""
        stored = self._read()
        if list(known) == stored.pop(worker_id, []):
            return
        kept = dict(list({worker_id: list(known), **stored}.items())[:MAX_WORKERS])
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(kept))
        except OSError as error:
            logger.warning("What is known of mounts cannot be saved: %s", error)

    def _read(self) -> dict[str, list[SamePlace]]:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_MEMORY_BYTES + 1)
            if len(data) > MAX_MEMORY_BYTES:
                return {}
            return msgspec.json.decode(data, type=dict[str, list[SamePlace]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("What is known of mounts cannot be read: %s", error)
            return {}
