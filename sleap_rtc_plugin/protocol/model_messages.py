"""Frames about the models of a room: list, describe, change, push, pull.

Sent on a link where both sides named the feature `models`; part of
`messages.ControlMessage`. A client that reaches the room's store itself needs none of
them. Files travel as in any other transfer: `FILE_META` names the model instead of a
job, and its purpose is `model`.
"""

from typing import Annotated, ClassVar

from msgspec import Meta, Struct, field

from sleap_rtc_plugin.protocol.frames import CommandId, Count, Frame, Name
from sleap_rtc_plugin.protocol.limits import (
    MAX_ALIASES_PER_MODEL,
    MAX_CURVE_POINTS,
    MAX_MODELS_PER_PAGE,
)
from sleap_rtc_plugin.protocol.model_records import (
    Alias,
    AliasRecord,
    CurvePoint,
    ModelFilter,
    ModelId,
    ModelRecord,
    ModelRef,
    Notes,
    Publication,
    Tags,
    TrainingFacts,
)

__all__ = [
    "CollectModels",
    "DeleteModel",
    "ModelChange",
    "ModelChanged",
    "ModelCommit",
    "ModelDescribe",
    "ModelDescribed",
    "ModelFetch",
    "ModelList",
    "ModelListed",
    "ModelMessage",
    "ModelOffer",
    "ModelPush",
    "ModelRow",
    "PutAlias",
    "RemoveAlias",
    "SetNotes",
    "SetTags",
]

Curve = Annotated[list[CurvePoint], Meta(max_length=MAX_CURVE_POINTS)]
Aliases = Annotated[list[Alias], Meta(max_length=MAX_ALIASES_PER_MODEL)]


class ModelRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model in one row of a list; `ModelRecord` says what the fields mean."""

    id: ModelId
    type: Name
    name: Name
    aliases: Aliases = []
    size_bytes: Count
    trained_at: float | None = None
    trained_by: Name = ""
    trained_on: Name = ""
    published_at: float
    published_by: Name = ""
    workers: list[Name] = []
    tags: Tags = []
    best_loss: float | None = None
    epochs: Count | None = None
    sleap_nn_version: Name = ""


# -- asking ----------------------------------------------------------------------


class ModelList(Frame, frozen=True):
    """List the room's models, the newest first, from the one after `after` on."""

    NAME: ClassVar[str] = "MODEL_LIST"
    command_id: CommandId
    filter: ModelFilter = ModelFilter()
    after: ModelId | None = None


class ModelListed(Frame, frozen=True):
    """A page of models; `more` says that older ones follow."""

    NAME: ClassVar[str] = "MODEL_LISTED"
    command_id: CommandId
    models: Annotated[list[ModelRow], Meta(max_length=MAX_MODELS_PER_PAGE)]
    more: bool = False


class ModelDescribe(Frame, frozen=True):
    """Tell everything of one model, by its alias or id."""

    NAME: ClassVar[str] = "MODEL_DESCRIBE"
    command_id: CommandId
    model: ModelRef


class ModelDescribed(Frame, frozen=True):
    """Everything of one model.

    Attributes:
        record: the model.
        aliases: those that point to it, with who put them there.
        curves: its loss curves, one a part; thinned evenly where they are long.
        held: whether this worker has a verified copy at hand.
    """

    NAME: ClassVar[str] = "MODEL_DESCRIBED"
    command_id: CommandId
    record: ModelRecord
    aliases: dict[Alias, AliasRecord] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    held: bool = False


# -- changing --------------------------------------------------------------------


class PutAlias(Struct, frozen=True, kw_only=True, tag="put_alias"):
    """Point an alias to a model.

    An alias that points elsewhere moves only with `moves`, and only where it still
    points to `expected` if that is given.
    """

    alias: Alias
    model: ModelRef
    moves: bool = False
    expected: ModelId | None = None


class RemoveAlias(Struct, frozen=True, kw_only=True, tag="remove_alias"):
    """Take an alias away; its model stays."""

    alias: Alias


class SetTags(Struct, frozen=True, kw_only=True, tag="set_tags"):
    """Add tags to a model and take others off."""

    model: ModelRef
    add: Tags = []
    remove: Tags = []


class SetNotes(Struct, frozen=True, kw_only=True, tag="set_notes"):
    """Replace what people wrote about a model."""

    model: ModelRef
    notes: Notes


class DeleteModel(Struct, frozen=True, kw_only=True, tag="delete"):
    """Take a model out of the registry; one that has an alias only with `force`."""

    model: ModelRef
    force: bool = False


class CollectModels(Struct, frozen=True, kw_only=True, tag="collect"):
    """Remove files of the store that no model refers to, and that are old enough."""


ModelEdit = PutAlias | RemoveAlias | SetTags | SetNotes | DeleteModel | CollectModels


class ModelChange(Frame, frozen=True):
    """Change the registry; `by` says for whom, as a person would write it."""

    NAME: ClassVar[str] = "MODEL_CHANGE"
    command_id: CommandId
    edit: ModelEdit
    by: Name = ""


class ModelChanged(Frame, frozen=True):
    """The registry was changed, or was so already.

    Attributes:
        record: the model as it is now; None where it was deleted, or none was meant.
        aliases: those that point to it.
        files: how many files of the store were removed.
        bytes: how much they took.
    """

    NAME: ClassVar[str] = "MODEL_CHANGED"
    command_id: CommandId
    record: ModelRecord | None = None
    aliases: Aliases = field(default_factory=list)
    files: Count = 0
    bytes: Count = 0


# -- files -----------------------------------------------------------------------


class ModelOffer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a client knows of a model that it publishes; the worker checks the files.

    Attributes:
        id: as the client derived it.
        name: what people call it.
        folders: the folders of its parts, in the order in which they are used.
        training: how it was trained, as far as the files do not tell.
        trained_at: when the training ended.
        trained_by: who trained it.
        trained_on: where.
        publication: its alias, notes and tags.
    """

    id: ModelId
    name: Name
    folders: Annotated[list[Name], Meta(min_length=1, max_length=2)]
    training: TrainingFacts = TrainingFacts()
    trained_at: float | None = None
    trained_by: Name = ""
    trained_on: Name = ""
    publication: Publication = Publication()


class ModelPush(Frame, frozen=True):
    """Make ready to receive this model's files; acknowledged, then `FILE_META`."""

    NAME: ClassVar[str] = "MODEL_PUSH"
    command_id: CommandId
    offer: ModelOffer
    total_bytes: Count


class ModelCommit(Frame, frozen=True):
    """Publish the model whose files have arrived; answered by `MODEL_CHANGED`."""

    NAME: ClassVar[str] = "MODEL_COMMIT"
    command_id: CommandId
    model: ModelId
    by: Name = ""


class ModelFetch(Frame, frozen=True):
    """Offer the files of a model; acknowledged, then the worker's `FILE_META`."""

    NAME: ClassVar[str] = "MODEL_FETCH"
    command_id: CommandId
    model: ModelId


ModelMessage = (
    ModelList
    | ModelListed
    | ModelDescribe
    | ModelDescribed
    | ModelChange
    | ModelChanged
    | ModelPush
    | ModelCommit
    | ModelFetch
)
