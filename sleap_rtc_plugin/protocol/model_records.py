"""What a room's registry says of a model: the records of `manifest.json`.

The same records stand in the manifest in the object store and in the frames with which
a worker tells of them. Pure: shapes and their rules, no store and no files. A *model*
here is a set that is used together: one network, or the centroid and the
centered-instance network of a top-down pair.
"""

import re
from typing import Annotated, Final

from msgspec import Meta, Struct

from sleap_rtc_plugin.protocol.errors import BadRequest
from sleap_rtc_plugin.protocol.frames import Count, Hex32, Name, Path, UnixTime
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIAS_CHARS,
    MAX_ALIAS_MOVES,
    MAX_MODEL_FILES,
    MAX_MODEL_HOLDERS,
    MAX_MODEL_NOTES_CHARS,
    MAX_MODEL_PARTS,
    MAX_MODEL_TAGS,
    MAX_TAG_LENGTH,
)

__all__ = [
    "CHECKPOINT",
    "EVERY_MODEL",
    "MODEL_CONFIG",
    "TOP_DOWN",
    "Alias",
    "AliasMove",
    "AliasRecord",
    "CurvePoint",
    "ModelFile",
    "ModelFilter",
    "ModelId",
    "ModelPart",
    "ModelRecord",
    "ModelRef",
    "ModelTag",
    "Publication",
    "TrainingFacts",
    "alias_fault",
    "check_alias",
    "is_model_id",
    "type_of",
]

# The two files without which a folder is no model of sleap-nn.
CHECKPOINT: Final = "best.ckpt"
MODEL_CONFIG: Final = "training_config.yaml"

# The type of a set of two networks; each of them alone has its head's name.
TOP_DOWN: Final = "topdown"
_STAGES: Final = {
    "centroid": 0,
    "centered_instance": 1,
    "multi_class_topdown": 1,
}

_MODEL_ID: Final = re.compile(r"model-[0-9a-f]{20}\Z")
_ALIAS: Final = re.compile(
    rf"[a-z0-9](?:[a-z0-9._-]{{0,{MAX_ALIAS_CHARS - 2}}}[a-z0-9])?\Z"
)

ModelId = Annotated[str, Meta(pattern=r"^model-[0-9a-f]{20}\Z")]
Alias = Annotated[str, Meta(pattern=rf"^{_ALIAS.pattern}")]
# An alias or an id; which of the two is plain from its form.
ModelRef = Annotated[str, Meta(min_length=1, max_length=MAX_ALIAS_CHARS)]
ModelTag = Annotated[
    str, Meta(max_length=MAX_TAG_LENGTH, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")
]
Notes = Annotated[str, Meta(max_length=MAX_MODEL_NOTES_CHARS)]
Tags = Annotated[list[ModelTag], Meta(max_length=MAX_MODEL_TAGS)]


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file of a model; `digest` is BLAKE3 of its bytes, in hexadecimal digits."""

    path: Path
    size_bytes: Count
    digest: Hex32


class ModelPart(Struct, frozen=True, kw_only=True):
    """One network of the set: its head, and the folder that its files lie in."""

    folder: Name
    head: Name


class TrainingFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model was trained, as far as its files tell.

    Attributes:
        dataset_digest: BLAKE3 of the labels that it was trained on.
        epochs: how many were trained.
        best_loss: the lowest validation loss.
        best_epoch: when that was, counted from 0.
        final_loss: the validation loss of the last epoch.
        duration_s: how long the training took.
        sleap_nn_version: of the sleap-nn that trained it.
        skeleton: the names of its nodes, in order.
    """

    dataset_digest: Hex32 | None = None
    epochs: Count | None = None
    best_loss: float | None = None
    best_epoch: Count | None = None
    final_loss: float | None = None
    duration_s: float | None = None
    sleap_nn_version: Name = ""
    skeleton: Annotated[list[Name], Meta(max_length=1_000)] = []


class ModelRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of the registry. Times are Unix seconds.

    Attributes:
        id: derived from the configurations and weights of its parts.
        type: a head's name, or `topdown` for a pair.
        name: what people call it, where they use neither id nor alias.
        parts: its networks, in the order in which they are used.
        checkpoint_path: the weights of the first part, relative to the model.
        files: every file, by its path relative to the model.
        size_bytes: of all files together.
        trained_at: when the training ended, or None where that is not known.
        trained_by: who submitted it.
        trained_on: the worker that trained it.
        published_at: when it came into the registry.
        published_by: who put it there.
        workers: those that hold a verified copy.
        notes: what people wrote about it.
        tags: sorted.
        training: how it was trained.
    """

    id: ModelId
    type: Name
    name: Name
    parts: Annotated[list[ModelPart], Meta(min_length=1, max_length=MAX_MODEL_PARTS)]
    checkpoint_path: Path
    files: Annotated[list[ModelFile], Meta(min_length=1, max_length=MAX_MODEL_FILES)]
    size_bytes: Count
    trained_at: UnixTime | None = None
    trained_by: Name = ""
    trained_on: Name = ""
    published_at: UnixTime
    published_by: Name = ""
    workers: Annotated[list[Name], Meta(max_length=MAX_MODEL_HOLDERS)] = []
    notes: Notes = ""
    tags: Tags = []
    training: TrainingFacts = TrainingFacts()


class AliasMove(Struct, frozen=True, kw_only=True):
    """That an alias was put on a model (None: taken away), by whom and when."""

    model: ModelId | None
    by: Name
    at: UnixTime


class AliasRecord(Struct, frozen=True, kw_only=True):
    """Where an alias points, and its moves, the newest first."""

    model: ModelId
    moves: Annotated[list[AliasMove], Meta(max_length=MAX_ALIAS_MOVES)]


class CurvePoint(Struct, frozen=True, kw_only=True, array_like=True):
    """One epoch of a loss curve; a loss that is not known is None."""

    epoch: Count
    train: float | None
    val: float | None


class Publication(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job's models are to be published as.

    Attributes:
        alias: the name that they get, or None for none.
        moves_alias: take the alias off the model that has it.
        notes: what to say about them.
        tags: what to file them under.
    """

    alias: Alias | None = None
    moves_alias: bool = False
    notes: Notes = ""
    tags: Tags = []


class ModelFilter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which models are asked for; an empty field does not limit.

    Attributes:
        type: of this type.
        tag: with this tag.
        alias: with an alias that begins like this.
        worker: that this worker holds.
        text: with this in name, notes, id, alias or tag.
    """

    type: Name = ""
    tag: Annotated[str, Meta(max_length=MAX_TAG_LENGTH)] = ""
    alias: Annotated[str, Meta(max_length=MAX_ALIAS_CHARS)] = ""
    worker: Name = ""
    text: Name = ""


EVERY_MODEL: Final = ModelFilter()


def is_model_id(text: str) -> bool:
    """Tell whether `text` is a model's id: `model-` and 20 hexadecimal digits."""
    return _MODEL_ID.match(text) is not None


def alias_fault(alias: str) -> str | None:
    """Say what is wrong with an alias, or None where nothing is.

    The words complete the sentence "The alias {alias} …".
    """
    if is_model_id(alias):
        return "looks like the id of a model"
    if _ALIAS.match(alias):
        return None
    return (
        f"must be 1 to {MAX_ALIAS_CHARS} small letters, digits, dots, underscores and "
        "hyphens, with a letter or digit at both ends"
    )


def check_alias(alias: str) -> str:
    """Return `alias` if it can be one.

    Raises:
        BadRequest: it cannot.
    """
    fault = alias_fault(alias)
    if fault:
        raise BadRequest(reason=f"the alias {clean_text(alias) or 'given'} {fault}")
    return alias


def type_of(heads: list[str]) -> str | None:
    """Return the type of a set of networks by their heads, None for no such set.

    One network is of its head's type; two are `topdown` where the first finds
    centroids and the second instances in crops around them.
    """
    if len(heads) == 1:
        return heads[0]
    if len(heads) == MAX_MODEL_PARTS and [_STAGES.get(h) for h in heads] == [0, 1]:
        return TOP_DOWN
    return None
