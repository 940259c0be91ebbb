"""What SLEAP's side and the companion say about the room's models; typed values.

Part of the unions of `companion.messages`, apart from it for its length. Records are
those of the registry itself; files are named by path and never cross. Times are Unix
seconds, sizes bytes.
"""

from msgspec import Struct

from sleap_rtc_plugin.protocol.errors import ErrorInfo
from sleap_rtc_plugin.protocol.model_messages import ModelEdit, ModelRow
from sleap_rtc_plugin.protocol.model_records import (
    AliasRecord,
    CurvePoint,
    ModelRecord,
    Publication,
)

__all__ = [
    "ChangeModel",
    "DescribeModel",
    "ListLocalModels",
    "ListModels",
    "LocalModelSet",
    "LocalModels",
    "ModelAnnounced",
    "ModelDescription",
    "ModelProgress",
    "ModelSaved",
    "Models",
    "PublishModel",
    "PullModel",
    "Pulled",
]


class _Tagged(Struct, frozen=True, kw_only=True, tag=True):
    """A message, told from the others by its class name."""


# -- commands --------------------------------------------------------------------------


class ListModels(_Tagged, frozen=True):
    """Which models has the room? Answered with `Models`.

    With `skeletons`, also which nodes the newest of them were trained for.
    """

    skeletons: bool = False


class DescribeModel(_Tagged, frozen=True):
    """Tell everything of one model. Answered with `ModelDescription`."""

    model: str


class ChangeModel(_Tagged, frozen=True):
    """Change the registry. Answered with `ModelDescription`, or `Done` if gone."""

    edit: ModelEdit


class PublishModel(_Tagged, frozen=True):
    """Publish a model of this computer. `ModelProgress`, then `ModelSaved` answer it.

    Attributes:
        operation: an id by which its progress is told.
        folders: its networks, one or two.
        publication: alias, notes and tags.
        name: what people are to call it; empty for its folder's name.
    """

    operation: str
    folders: list[str]
    publication: Publication = Publication()
    name: str = ""


class PullModel(_Tagged, frozen=True):
    """Bring a model below a folder. `ModelProgress`, then `Pulled` answer it."""

    operation: str
    model: str
    folder: str


class ListLocalModels(_Tagged, frozen=True):
    """Which trained models lie in a project's folder? Answered with `LocalModels`."""

    folder: str


ModelCommand = (
    ListModels
    | DescribeModel
    | ChangeModel
    | PublishModel
    | PullModel
    | ListLocalModels
)


# -- results ---------------------------------------------------------------------------


class Models(_Tagged, frozen=True):
    """The room's models, the newest first.

    Attributes:
        models: a row each.
        skeletons: the names of the nodes by model, of those that were asked for and
            say them.
        is_complete: there are no others.
        silent: why workers could not be asked, a sentence each; what they have is
            missing.
    """

    models: list[ModelRow]
    skeletons: dict[str, list[str]] = {}
    is_complete: bool = True
    silent: list[str] = []


class ModelDescription(_Tagged, frozen=True):
    """Everything of one model.

    Attributes:
        record: the model.
        aliases: those that point to it, with their moves.
        curves: its loss curves, one a part.
    """

    record: ModelRecord
    aliases: dict[str, AliasRecord] = {}
    curves: list[list[CurvePoint]] = []


class ModelSaved(_Tagged, frozen=True):
    """A model was published; `alias_error` says why it did not get its alias."""

    model: ModelDescription
    alias_error: ErrorInfo | None = None


class Pulled(_Tagged, frozen=True):
    """A model lies in these folders, one a part."""

    folders: list[str]


class LocalModelSet(Struct, frozen=True, kw_only=True):
    """A model on this computer that could be published.

    Attributes:
        name: what to call it.
        type: a head's name, or `topdown` for a pair.
        folders: its networks, in the order in which they are used.
        trained_at: when the newest of them was written.
    """

    name: str
    type: str
    folders: list[str]
    trained_at: float = 0.0


class LocalModels(_Tagged, frozen=True):
    """The trained models of a folder, the newest first."""

    models: list[LocalModelSet]


ModelResult = Models | ModelDescription | ModelSaved | Pulled | LocalModels


# -- events ----------------------------------------------------------------------------


class ModelAnnounced(_Tagged, frozen=True):
    """A job of somebody in the room published a model.

    `alias` is the one that it got, or empty.
    """

    model: str
    alias: str = ""


class ModelProgress(_Tagged, frozen=True):
    """Bytes of a model are moving; `done` of `total` are in place."""

    operation: str
    done: int
    total: int


ModelEvent = ModelAnnounced | ModelProgress
