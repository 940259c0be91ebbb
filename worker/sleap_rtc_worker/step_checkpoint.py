"""The checkpoint of a training that was cut off, kept for the next try.

sleap-nn takes a folder with a `best.ckpt` for another training's and writes beside it.
So what a dead try left is moved out of the run's folder, the rest is deleted, and
`best.ckpt` is put back once the next try has begun. Blocking calls: `job_run` makes
them in threads, the step runner on its own.

    kept/<n>/last.ckpt, best.ckpt       of step n's tries so far
    kept/<n>/training_log.csv           their epochs
"""

import contextlib
import csv
import io
import os
import pickletools
import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sleap_rtc_worker.limits import MAX_CHECKPOINT_INDEX_BYTES, MAX_TRAINING_LOG_BYTES
from sleap_rtc_worker.step_files import read_bounded, replace_file

__all__ = [
    "BEST",
    "LAST",
    "Kept",
    "checkpoint_epochs",
    "drop_last",
    "is_whole",
    "join_log",
    "joined_logs",
    "named_from",
    "put_best_back",
    "rescue",
]

BEST: Final = "best.ckpt"
LAST: Final = "last.ckpt"
LOG: Final = "training_log.csv"
_CONFIG: Final = "training_config.yaml"
_BEGUN: Final = "initial_config.yaml"
# What earlier epochs drew, and what Weights & Biases has not sent yet.
_STAYS: Final = frozenset({"viz", "wandb"})
_READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """What the next try goes on from.

    Attributes:
        checkpoint: the file, or None to begin from the beginning.
        epochs: how many epochs it holds, where that can be told.
    """

    checkpoint: Path | None = None
    epochs: int | None = None


def rescue(run_dir: Path, kept_dir: Path) -> Kept:
    """Keep a dead try's checkpoints and clean its folder; again is harmless.

    Nothing may write to the folder any more. A checkpoint that is torn is not kept;
    then an earlier one counts.

    Raises:
        OSError: the disk failed.
    """
    kept_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (LAST, BEST):
        found = run_dir / name
        if is_whole(found):
            found.replace(kept_dir / name)
    if (run_dir / _CONFIG).is_file():
        # sleap-nn compares the seed with the one beside the checkpoint.
        (run_dir / _CONFIG).replace(kept_dir / _CONFIG)
    if (run_dir / LOG).is_file():
        written = _read_log(run_dir / LOG)
        _write_log(kept_dir / LOG, joined_logs(_read_log(kept_dir / LOG), written))
    _clean(run_dir)
    for name in (LAST, BEST):
        if is_whole(kept_dir / name):
            return Kept(kept_dir / name, checkpoint_epochs(kept_dir / name))
    return Kept()


def _clean(run_dir: Path) -> None:
    if not run_dir.is_dir() or run_dir.is_symlink():
        return
    with os.scandir(run_dir) as entries:
        left = [entry for entry in entries if entry.name not in _STAYS]
    for entry in left:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()


def is_whole(path: Path) -> bool:
    """Tell whether a checkpoint is a zip whose every part has its checksum.

    Reads all of it, and loads nothing.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as part:
                    while part.read(_READ_BYTES):
                        pass
            return bool(archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError):
        return False


def checkpoint_epochs(path: Path) -> int | None:
    """Return how many epochs a checkpoint of Lightning holds, or None.

    Reads the pickle's opcodes; nothing of it is run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if len(names) != 1:
                return None
            with archive.open(names[0]) as part:
                data = part.read(MAX_CHECKPOINT_INDEX_BYTES)
        is_next = False
        for opcode, value, _ in pickletools.genops(data):
            if is_next and "PUT" not in opcode.name and opcode.name != "MEMOIZE":
                # Lightning counts from 0 and writes at the end of the epoch.
                return int(value) + 1 if isinstance(value, int) else None
            is_next = is_next or ("UNICODE" in opcode.name and value == "epoch")
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError):
        return None
    return None


def named_from(package: Path, checkpoint: Path | None) -> str | None:
    """Name a checkpoint from the folder that sleap-nn is started in.

    What lies between is our own and safe in Hydra's words, whatever leads to it.
    """
    if checkpoint is None:
        return None
    return Path(os.path.relpath(checkpoint, package)).as_posix()


# -- the next try ------------------------------------------------------------------


def put_best_back(run_dir: Path, kept_dir: Path) -> bool:
    """Give the run's folder the best checkpoint so far, unless it has a newer one.

    The training that goes on knows how good it was and writes it only when it does
    better. A link appears at once or not at all, so this may come at any time.

    Returns:
        Whether there is nothing left to do.

    Raises:
        OSError: the disk failed.
    """
    # sleap-nn writes it once it has chosen its folder, and before its first epoch.
    if not (run_dir / _BEGUN).is_file():
        return False
    kept = kept_dir / BEST
    if not kept.is_file() or (run_dir / BEST).exists():
        return True
    try:
        os.link(kept, run_dir / BEST)
    except FileExistsError:
        return True
    except OSError:
        # A file system without links.
        part = run_dir / f".{BEST}.part"
        shutil.copyfile(kept, part)
        part.replace(run_dir / BEST)
    return True


def join_log(run_dir: Path, kept_dir: Path) -> None:
    """Put the epochs of the tries before in front of the last one's log."""
    before = _read_log(kept_dir / LOG)
    if before:
        _write_log(run_dir / LOG, joined_logs(before, _read_log(run_dir / LOG)))


def drop_last(run_dir: Path) -> None:
    """Delete the checkpoint that only restarts need."""
    with contextlib.suppress(OSError):
        (run_dir / LAST).unlink()


def _read_log(path: Path) -> str:
    data = read_bounded(path, MAX_TRAINING_LOG_BYTES) or b""
    return data.decode("utf-8", "replace")


def _write_log(path: Path, text: str) -> None:
    mode = None
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
    replace_file(path, text.encode(), mode=mode)


def joined_logs(before: str, after: str) -> str:
    """Join the `training_log.csv` of a training that was cut off with the rest of it.

    Args:
        before: what was written before; its last line may be torn.
        after: what the training that went on has written.

    Returns:
        One row for each epoch. Where both have it the later one counts, with what it
        leaves empty taken from the earlier one.
    """
    columns, earlier = _rows(before)
    later_columns, later = _rows(after)
    if later_columns and later_columns != columns:
        columns, earlier = later_columns, {}
    rows = dict(earlier)
    for epoch, row in later.items():
        old = rows.pop(epoch, {})
        rows[epoch] = {name: row[name] or old.get(name, "") for name in columns}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows.values())
    return text.getvalue()


def _rows(text: str) -> tuple[list[str], dict[str, dict[str, str]]]:
    lines = list(csv.reader(io.StringIO(text, newline="")))
    if not lines or "epoch" not in lines[0]:
        return [], {}
    columns = lines[0]
    whole = lines[1:] if text.endswith("\n") else lines[1:-1]
    rows = [
        dict(zip(columns, line, strict=True))
        for line in whole
        if len(line) == len(columns)
    ]
    return columns, {row["epoch"]: row for row in rows}
