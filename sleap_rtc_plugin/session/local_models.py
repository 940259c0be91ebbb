"""Finds the trained models below a folder, and which of them belong together.

Reads only small configuration files, and decides nothing about weights: whoever
publishes a model reads it whole and checks it (`registry.model_files`). Called by the
companion, in a thread.
"""

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import RtcError
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_CONFIG_BYTES
from sleap_rtc_plugin.protocol.model_records import CHECKPOINT, MODEL_CONFIG, type_of
from sleap_rtc_plugin.transport.package_configs import parse_yaml, read_training_config

__all__ = ["LocalModel", "LocalSet", "find_local_models", "model_sets"]

MAX_FOLDERS_SEARCHED: Final = 5_000
MAX_LOCAL_MODELS: Final = 500
_FIRST: Final = "centroid"


@dataclass(frozen=True)
class LocalModel:
    """A folder with one trained network; `trained_at` is in Unix seconds."""

    folder: Path
    head: str
    trained_at: float


@dataclass(frozen=True)
class LocalSet:
    """Networks that are used together, in that order."""

    name: str
    type: str
    models: tuple[LocalModel, ...]

    @property
    def trained_at(self) -> float:
        """When the newest of them was written, Unix seconds."""
        return max(model.trained_at for model in self.models)


def find_local_models(folder: Path) -> list[LocalModel]:
    """Return the trained models right below `folder`; none where it is not there.

    What cannot be read is left out: a folder of models may hold anything.
    """
    found: list[LocalModel] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, MAX_FOLDERS_SEARCHED):
            with contextlib.suppress(OSError, RtcError):
                if entry.is_dir() and (model := _read(Path(entry.path))) is not None:
                    found.append(model)
    found.sort(key=lambda model: (-model.trained_at, model.folder.name))
    return found[:MAX_LOCAL_MODELS]


def _read(folder: Path) -> LocalModel | None:
    checkpoint, config = folder / CHECKPOINT, folder / MODEL_CONFIG
    if not checkpoint.is_file() or config.stat().st_size > MAX_CONFIG_BYTES:
        return None
    parsed = parse_yaml(config.read_bytes(), folder.name)
    head = read_training_config(parsed, folder.name).head
    return LocalModel(folder, head, checkpoint.stat().st_mtime)


def model_sets(models: Iterable[LocalModel]) -> list[LocalSet]:
    """Put top-down pairs together, by the names that SLEAP gives them.

    SLEAP names the two of a run alike but for the head, such as `flies.centroid.n=20`
    and `flies.centered_instance.n=20`. One whose partner is not there stands alone.

    Returns:
        The sets, in the order of the first of their models.
    """
    models = list(models)
    firsts = {_stem(model): model for model in reversed(models) if model.head == _FIRST}
    pairs = {
        _stem(model): (firsts[_stem(model)], model)
        for model in reversed(models)
        if _stem(model) in firsts and type_of([_FIRST, model.head])
    }
    sets: dict[tuple[LocalModel, ...], LocalSet] = {}
    for model in models:
        pair = pairs.get(_stem(model), ())
        together = pair if model in pair else (model,)
        kind = type_of([one.head for one in together]) or model.head
        name = _stem(model) if len(together) > 1 else model.folder.name
        sets.setdefault(together, LocalSet(clean_text(name), kind, together))
    return list(sets.values())


def _stem(model: LocalModel) -> str:
    """Return a folder's name without the head in it."""
    name = re.sub(rf"(\A|[._ -]){re.escape(model.head)}(?=\Z|[._ -])", "", _name(model))
    return name.strip("._ -") or _name(model)


def _name(model: LocalModel) -> str:
    return model.folder.name
