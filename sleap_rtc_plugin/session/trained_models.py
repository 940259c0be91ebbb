"""Trained models on this machine: their files, and which of them make a set.

Reads folders as sleap-nn leaves them below `models/`; loads no weights and needs no
sleap-nn. Called by `package_builder` and `inference_package`, in a thread.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import NotAModel, RtcError, StorageFailed
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES
from sleap_rtc_plugin.protocol.model_records import CHECKPOINT, MODEL_CONFIG, type_of
from sleap_rtc_plugin.transport.package_configs import (
    parse_yaml,
    read_training_config,
    without_wandb_key,
)

__all__ = ["copy_model_file", "head_of", "model_files", "model_folder", "sets_of"]

_MODEL_FILES: Final = (CHECKPOINT, MODEL_CONFIG, "initial_config.yaml")
_LEGACY_FILES: Final = ("best_model.h5", "training_config.json")


def model_folder(path: Path) -> Path:
    """Return the folder of a model that is named by itself or by one of its files."""
    return path if path.is_dir() else path.parent


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model that an inference needs.

    Raises:
        NotAModel: it is no model that sleap-nn could load.
    """
    files = [folder / name for name in _MODEL_FILES if (folder / name).is_file()]
    missing = sorted({CHECKPOINT, MODEL_CONFIG} - {file.name for file in files})
    if not missing:
        return files
    reason = f"the trained model has no {' and no '.join(missing)}"
    if any((folder / name).is_file() for name in _LEGACY_FILES):
        reason = (
            "models of SLEAP 1.4 and older are not sent; train it again, or predict on "
            "this machine"
        )
    raise NotAModel(path=clean_text(str(folder)), reason=reason)


def head_of(folder: Path) -> str:
    """Return the head of a model, as sleap-nn names it.

    Raises:
        NotAModel: its configuration cannot be read.
    """
    try:
        with (folder / MODEL_CONFIG).open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        return read_training_config(parse_yaml(data, MODEL_CONFIG), MODEL_CONFIG).head
    except (OSError, RtcError) as error:
        reason = getattr(error, "reason", "") or f"its {MODEL_CONFIG} cannot be read"
        raise NotAModel(path=clean_text(str(folder)), reason=reason) from error


def sets_of(folders: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Group models: a centroid and a centered-instance network are used together.

    Each finds the next one that fits it, in the order given; the centroid's comes
    first in its set. One that finds none is a set by itself.

    Raises:
        NotAModel: one of them cannot be read.
    """
    heads = {folder: head_of(folder) for folder in folders}
    sets: list[tuple[Path, ...]] = []
    for folder in folders:
        for index, known in enumerate(sets):
            pair = next(
                (
                    pair
                    for pair in ((*known, folder), (folder, *known))
                    if len(pair) == 2 and type_of([heads[one] for one in pair])
                ),
                None,
            )
            if pair is not None:
                sets[index] = pair
                break
        else:
            sets.append((folder,))
    return sets


def copy_model_file(source: Path, target: Path, *, keep_wandb_key: bool) -> None:
    """Copy a file of a model, without the key that its configuration may hold.

    Raises:
        StorageFailed: it is gone.
        ConfigRefused: a configuration is not acceptable YAML.
        OSError: the disk failed.
    """
    try:
        if source.suffix == ".yaml" and not keep_wandb_key:
            data = source.read_bytes()
            edited = without_wandb_key(data, source.name)
            target.write_bytes(data if edited is None else edited)
        else:
            shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise StorageFailed(place=str(source), reason="it is gone") from error
