"""Which models the words after `--model` mean: folders here, or models of the room.

A word with a separator, or one that exists here as a file or folder, is a folder; any
other is an alias or an id. Called by `sleap-remote predict`, in a thread.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sleap_rtc_plugin.protocol.errors import NotAModel, OptionRefused
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import MAX_MODEL_PARTS
from sleap_rtc_plugin.protocol.model_records import (
    MODEL_CONFIG,
    alias_fault,
    is_model_id,
)
from sleap_rtc_plugin.session.inference_package import ModelSet, RoomModel, TrainedSet
from sleap_rtc_plugin.session.trained_models import (
    model_files,
    model_folder,
    sets_of,
)

__all__ = ["ChosenModels", "choose_models"]

_MAX_ENTRIES: Final = 1_000


@dataclass(frozen=True)
class ChosenModels:
    """The sets in their order, and what the user is told of how words were read."""

    sets: tuple[ModelSet, ...]
    notes: tuple[str, ...] = ()


def choose_models(words: Sequence[str]) -> ChosenModels:
    """Read the words after `--model`.

    A centroid and a centered-instance network among the folders are one set.

    Raises:
        NotAModel: a folder holds no model.
        OptionRefused: a word can be neither a folder nor a model of the room.
    """
    folders: list[Path] = []
    rooms: list[RoomModel] = []
    notes: list[str] = []
    for word in dict.fromkeys(words):
        if _is_path(word):
            folders += [f for f in _folders_of(Path(word)) if f not in folders]
            if _can_be_ref(word):
                notes.append(
                    f"{word} is a folder here and used as one; move it away to use the "
                    "room's model of that name."
                )
        elif _can_be_ref(word):
            rooms.append(RoomModel(word))
        else:
            raise OptionRefused(
                option="--model",
                reason=f"{clean_text(word) or 'it'} is no folder here, and an alias "
                f"{alias_fault(word)}",
            )
    sets = [TrainedSet(folders) for folders in sets_of(folders)]
    return ChosenModels((*sets, *rooms), tuple(notes))


def _is_path(word: str) -> bool:
    separators = {"/", os.sep, os.altsep or os.sep}
    return any(one in word for one in separators) or os.path.lexists(word)


def _can_be_ref(word: str) -> bool:
    return is_model_id(word) or alias_fault(word) is None


def _folders_of(path: Path) -> list[Path]:
    """Return the model at a path, or those of a set that lies in one folder.

    Raises:
        NotAModel: there is none, or more than one set could be meant.
    """
    shown = clean_text(str(path))
    if not path.exists():
        raise NotAModel(path=shown, reason="there is no such file or folder")
    folder = model_folder(path).resolve()
    if path.is_dir() and not (folder / MODEL_CONFIG).exists():
        entries = sorted(folder.iterdir())[:_MAX_ENTRIES]
        inner = [one for one in entries if (one / MODEL_CONFIG).is_file()]
        if 0 < len(inner) <= MAX_MODEL_PARTS:
            for one in inner:
                model_files(one)
            if len(sets_of(inner)) == 1:
                return inner
        if inner:
            raise NotAModel(path=shown, reason="it holds several models")
    model_files(folder)
    return [folder]
