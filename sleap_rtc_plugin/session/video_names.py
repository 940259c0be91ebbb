"""Changes which files a labels file names as its videos, and nothing else in it.

On its way out a package names the worker's own copies of videos; the results name the
user's again. Works on the file format (`videos_json` of `.slp`), since a copy through
sleap-io would write everything anew. Blocking.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sleap_rtc_plugin.protocol.limits import MIB

__all__ = ["rename_videos", "rename_videos_in_results"]

logger = logging.getLogger(__name__)

_VIDEOS: Final = "videos_json"
MAX_VIDEOS: Final = 100_000
MAX_VIDEOS_BYTES: Final = 64 * MIB


def rename_videos(path: Path, names: Mapping[str, str]) -> bool:
    """Replace the names of videos, in place; return whether there were any.

    Args:
        path: a labels file of our own.
        names: the new names by the old ones, with `/`.

    Raises:
        ValueError: it holds no list of videos.
        OSError: it cannot be read or written.
    """
    import h5py

    with h5py.File(path, "r+") as file:
        videos = _read(file)
        renamed = [_rename(video, names) for video in videos]
        if not any(renamed):
            return False
        del file[_VIDEOS]
        rows = [json.dumps(video, separators=(",", ":")) for video in videos]
        file.create_dataset(
            _VIDEOS, data=rows, dtype=h5py.string_dtype(), maxshape=(None,)
        )
    return True


def rename_videos_in_results(folder: Path, names: Mapping[str, str]) -> None:
    """Replace the names of videos in all labels that came home.

    What a worker sent may be anything: a file in which this does not work stays as it
    is. Each is changed in a copy, since other names of it may be kept for later.

    Args:
        folder: the results, not yet in their place.
        names: the user's names of videos by those of the worker.
    """
    if not names:
        return
    for path in sorted(folder.rglob("*.slp")):
        copy = path.with_name(f"{path.name}.renamed")
        try:
            shutil.copyfile(path, copy)
            if rename_videos(copy, names):
                copy.replace(path)
        # h5py and JSON have errors of many kinds for a file that is none.
        except Exception as error:
            logger.warning("The videos of %s keep their names: %s", path.name, error)
        finally:
            copy.unlink(missing_ok=True)


def _read(file: Any) -> list[dict[str, Any]]:
    """Return the videos of an open file, from data of its own only."""
    import h5py

    if not isinstance(file.get(_VIDEOS, getlink=True), h5py.HardLink):
        raise ValueError("it holds no list of videos")
    rows = file[_VIDEOS]
    if (
        not isinstance(rows, h5py.Dataset)
        or rows.is_virtual
        or rows.external is not None
        or rows.ndim != 1
        or rows.size > MAX_VIDEOS
        or rows.nbytes > MAX_VIDEOS_BYTES
    ):
        raise ValueError("it holds no list of videos")
    videos = [json.loads(row) for row in rows[:]]
    if not all(isinstance(video, dict) for video in videos):
        raise ValueError("it holds a video that is none")
    return videos


def _rename(video: dict[str, Any], names: Mapping[str, str]) -> bool:
    """Replace a video's name in both places where it stands."""
    backend = video.get("backend")
    places = [video, *([backend] if isinstance(backend, dict) else [])]
    is_renamed = False
    for place in places:
        name = place.get("filename")
        if isinstance(name, str) and name in names:
            place["filename"] = names[name]
            is_renamed = True
    return is_renamed
