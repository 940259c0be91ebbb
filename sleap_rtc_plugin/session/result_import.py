"""Puts a job's results home: models where SLEAP looks for them, predictions beside.

Everything is checked before anything is moved, and each model arrives by one rename,
so a crash leaves whole models or none. Nothing that is already there is ever
overwritten or merged. Called with files whose digests have been verified.
"""

import contextlib
import errno
import filecmp
import itertools
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from sleap_rtc_plugin.protocol.errors import StorageFailed, UnsafeMember
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.paths import check_paths
from sleap_rtc_plugin.session.package_archive import disk_errors, list_folder
from sleap_rtc_plugin.session.video_names import rename_videos_in_results
from sleap_rtc_plugin.transport.checkpoint_scan import scan_result

__all__ = [
    "PREDICTIONS_FOLDER",
    "ImportPlan",
    "ImportedResults",
    "import_results",
    "place_models",
    "plan_import",
]

MODELS_FOLDER: Final = "models"
# Where SLEAP puts the predictions of a project, beside its labels.
PREDICTIONS_FOLDER: Final = "predictions"
NEWEST_FILE: Final = "training_config.yaml"
MAX_SAME_NAMES: Final = 1000
# The coarsest clock of a file system that people use (FAT) ticks every two seconds.
NEWEST_MARGIN_S: Final = 2.0
_OCCUPIED: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


@dataclass(frozen=True)
class ImportPlan:
    """What goes where, by relative paths.

    Attributes:
        models: the run names, each a folder below `models/`.
        predictions: the names of the other files.
    """

    models: tuple[str, ...]
    predictions: tuple[str, ...]


@dataclass(frozen=True)
class ImportedResults:
    """Where the results are now."""

    models: list[Path]
    predictions: list[Path]


def plan_import(paths: Sequence[str]) -> ImportPlan:
    """Sort received files into models and predictions.

    Args:
        paths: relative paths with `/`.

    Raises:
        UnsafeMember: a path is not safe, or lies where no result belongs.
    """
    check_paths(paths)
    models: dict[str, None] = {}
    predictions: list[str] = []
    for path in paths:
        parts = path.split("/")
        if parts[0] == MODELS_FOLDER and len(parts) > 2:
            models[parts[1]] = None
        elif len(parts) == 1 and path.casefold() != MODELS_FOLDER:
            predictions.append(path)
        else:
            raise UnsafeMember(
                member=clean_text(path), reason="does not lie where results belong"
            )
    return ImportPlan(models=tuple(models), predictions=tuple(predictions))


def import_results(
    received: Path,
    output: Path,
    *,
    predictions_folder: str = "",
    video_names: Mapping[str, str] | None = None,
) -> ImportedResults:
    """Move verified results from `received` into `output`.

    What has the same name and the same contents is already there and is kept; what has
    the same name and other contents stays, and the new one gets ` (2)` and so on.
    Calling it again after a crash moves what is left.

    Args:
        received: a folder with `models/<run name>/...` and predictions, on the same
            disk as `output`. It may hold files afterwards that were there already.
        output: made if it is missing.
        predictions_folder: the folder below `output` for everything but models, made
            if it is needed and missing; `output` itself by default.
        video_names: the user's names of videos by those that the worker knows them by.

    Raises:
        UnsafeMember: a path is not safe; nothing was moved.
        UnsafeCheckpoint: a file would run code when loaded; nothing was moved.
        DiskFull: there is no room.
        StorageFailed: the disk failed, or it is another one than that of `output`.
    """
    members = list_folder(received)
    plan = plan_import([member.path for member in members])
    for member in members:
        scan_result(received.joinpath(*member.path.split("/")), member.path)
    rename_videos_in_results(received, video_names or {})
    with disk_errors(output, sum(member.size for member in members)):
        output.mkdir(parents=True, exist_ok=True)
        file_mode, _ = modes = _usual_modes(output)
        sources = [received / MODELS_FOLDER / run_name for run_name in plan.models]
        home = output / MODELS_FOLDER
        models = _place_models(sources, home, modes, _same_folder) if sources else []
        predictions = []
        home = output / predictions_folder
        if plan.predictions:
            home.mkdir(exist_ok=True)
        for name in plan.predictions:
            source = received / name
            source.chmod(file_mode)
            _sync(source)
            predictions.append(_place(source, home / name, _same_file, _publish_file))
        if plan.predictions:
            _sync(home)
        _sync(output)
    return ImportedResults(models=models, predictions=predictions)


def place_models(received: Path, names: Sequence[str], folder: Path) -> list[Path]:
    """Move verified models from `received` into `folder`, in the same way.

    A folder that holds the very files of a model, and others beside, is that model.

    Args:
        received: holds a folder for each model, on the same disk as `folder`.
        names: those folders, in the order of the answer.
        folder: made if it is missing.

    Raises:
        UnsafeMember: a path is not safe; nothing was moved.
        UnsafeCheckpoint: a file would run code when loaded; nothing was moved.
        DiskFull: there is no room.
        StorageFailed: the disk failed, or it is another one than that of `folder`.
    """
    members = list_folder(received)
    check_paths([member.path for member in members])
    for member in members:
        scan_result(received.joinpath(*member.path.split("/")), member.path)
    with disk_errors(folder, sum(member.size for member in members)):
        folder.mkdir(parents=True, exist_ok=True)
        sources = [received / name for name in names]
        return _place_models(sources, folder, _usual_modes(folder), _holds_folder)


def _place_models(
    sources: Sequence[Path],
    folder: Path,
    modes: tuple[int, int],
    is_there: Callable[[Path, Path], bool],
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    models = []
    for source in sources:
        _set_modes(source, *modes)
        _make_newest(source)
        _sync_tree(source)
        target = folder / source.name
        models.append(_place(source, target, is_there, _rename_folder))
    _sync(folder)
    return models


# -- permissions -------------------------------------------------------------------


def _usual_modes(output: Path) -> tuple[int, int]:
    """Return the permissions that new files and folders get here.

    What arrives is private until it is verified; at home it is as readable as what
    the user's other programs write, so that a lab can share its project folder.
    """
    folder = Path(tempfile.mkdtemp(dir=output, prefix=".permissions."))
    try:
        inner, file = folder / "folder", folder / "file"
        inner.mkdir()
        file.touch()
        modes = (
            stat.S_IMODE(file.stat().st_mode),
            stat.S_IMODE(inner.stat().st_mode),
        )
        file.unlink()
        inner.rmdir()
    finally:
        folder.rmdir()
    return modes


def _set_modes(folder: Path, file_mode: int, folder_mode: int) -> None:
    folder.chmod(folder_mode)
    for path in folder.rglob("*"):
        path.chmod(folder_mode if path.is_dir() else file_mode)


# -- choosing a name ---------------------------------------------------------------


def _candidates(target: Path, *, is_folder: bool) -> Iterator[Path]:
    """Yield the wanted name, then those with ` (2)`, ` (3)` ... in it."""
    yield target
    # A run name holds dots that end no file type: `261122_074257.centroid.n=24`.
    name = PurePosixPath(target.name)
    stem, suffix = (target.name, "") if is_folder else (name.stem, name.suffix)
    for number in range(2, MAX_SAME_NAMES + 1):
        yield target.with_name(f"{stem} ({number}){suffix}")


def _place(
    source: Path,
    target: Path,
    is_same: Callable[[Path, Path], bool],
    move: Callable[[Path, Path], bool],
) -> Path:
    """Move `source` to the first free name, or find it there already."""
    for candidate in _candidates(target, is_folder=source.is_dir()):
        if os.path.lexists(candidate):
            if is_same(source, candidate):
                return candidate
        elif move(source, candidate):
            return candidate
    raise StorageFailed(
        place=str(target), reason=f"there are {MAX_SAME_NAMES} of that name already"
    )


def _rename_folder(source: Path, target: Path) -> bool:
    """Rename a folder; False where another program was faster to take the name."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in _OCCUPIED:
            return False
        raise
    return True


def _publish_file(source: Path, target: Path) -> bool:
    """Rename a file without ever replacing one; False where the name is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:
        # This disk has no hard links; there is a moment between look and rename.
        if os.path.lexists(target):
            return False
        source.rename(target)
        return True
    source.unlink()
    return True


# -- comparing ----------------------------------------------------------------------


def _same_file(first: Path, second: Path) -> bool:
    return (
        second.is_file()
        and not second.is_symlink()
        and filecmp.cmp(first, second, shallow=False)
    )


def _tree(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


def _same_folder(first: Path, second: Path) -> bool:
    return _holds_folder(first, second) and len(_tree(first)) == len(_tree(second))


def _holds_folder(first: Path, second: Path) -> bool:
    """Tell whether all that is in the first folder is in the second, too."""
    if not second.is_dir() or second.is_symlink():
        return False
    ours, theirs = _tree(first), _tree(second)
    return ours.keys() <= theirs.keys() and all(
        _same_file(path, theirs[name]) for name, path in ours.items()
    )


# -- making it last -------------------------------------------------------------------


def _make_newest(model: Path) -> None:
    """Make `training_config.yaml` the newest file: SLEAP lists the newest YAML."""
    newest = model / NEWEST_FILE
    if not newest.is_file():
        return
    now = time.time()
    for path in _tree(model).values():
        if path != newest and path.stat().st_mtime > now - NEWEST_MARGIN_S:
            os.utime(path, (now - NEWEST_MARGIN_S, now - NEWEST_MARGIN_S))
    os.utime(newest, (now, now))


def _sync_tree(folder: Path) -> None:
    """Put a folder's files and names on the disk before its name says it is whole."""
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in itertools.chain(_tree(folder).values(), reversed(folders), [folder]):
        _sync(path)


def _sync(path: Path) -> None:
    if os.name != "posix":
        return  # Windows opens no folder, and syncs a file only while writing it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
