"""What the user set up in SLEAP's own dialog, as values that need neither SLEAP nor Qt.

Gathered by the GUI on its thread, handed to the companion, and turned there into a
package by `session.package_builder`. Also what is needed, hours later, to merge the
predictions the way the user chose.
"""

from typing import Literal

from msgspec import Struct

from sleap_rtc_plugin.protocol.model_records import Publication

__all__ = [
    "MergeChoice",
    "ModelToTrain",
    "ProjectFacts",
    "PublishedModel",
    "RunRequest",
    "TrainedModel",
]


class ModelToTrain(Struct, frozen=True, kw_only=True, tag="train"):
    """A model that this run trains.

    Attributes:
        head: the model type, as SLEAP names its tabs (`centroid`, ...).
        config: the training configuration as YAML, already through SLEAP's
            `filter_cfg`; paths of resumed weights in it are local ones.
        run_name: what the user typed as the run's name, or empty.
    """

    head: str
    config: str
    run_name: str = ""


class TrainedModel(Struct, frozen=True, kw_only=True, tag="trained"):
    """A model that lies on this machine and is used as it is.

    Attributes:
        head: the model type.
        path: its folder, or its `training_config.yaml`.
    """

    head: str
    path: str


class PublishedModel(Struct, frozen=True, kw_only=True, tag="published"):
    """A model of the room's registry, which the worker has or fetches itself.

    Attributes:
        id: the model.
        head: the model type, or `topdown` for a pair.
        name: its alias, or what else people call it.
    """

    id: str
    head: str
    name: str


class ProjectFacts(Struct, frozen=True, kw_only=True):
    """What tells one project from another.

    Attributes:
        path: the absolute path of the saved project file.
        nodes: the skeleton's node names, in order; empty where there is no skeleton.
        videos: the videos' file names without folders, in order.
    """

    path: str
    nodes: list[str] = []
    videos: list[str] = []


class MergeChoice(Struct, frozen=True, kw_only=True):
    """How the predictions are to be merged (SLEAP's `InferenceTask.merge_results`).

    Attributes:
        mode: `replace` takes the place of earlier predictions on a frame, `add` keeps
            both.
        clear_all_first: remove all of the project's predictions before the merge.
        target: which frames, by the key of SLEAP's frame target selector.
    """

    mode: Literal["add", "replace"] = "add"
    clear_all_first: bool = False
    target: str = ""


class RunRequest(Struct, frozen=True, kw_only=True):
    """One run: models to train or use, then inference.

    Attributes:
        project: the saved project to train and predict on.
        models: in the order of training; those that are trained already go along. A
            published one is used with no others.
        predictions: one argument list per inference item, as SLEAP's
            `InferenceTask.make_predict_cli_call` makes it (`sleap predict --gui
            --data_path ...`). Model paths in it are ignored; `models` counts.
        merge: how predictions come back into the project.
        send_wandb_key: leave a Weights & Biases key in the configurations.
        publish: what the trained models are published as, or None for not at all.
    """

    project: ProjectFacts
    models: list[ModelToTrain | TrainedModel | PublishedModel]
    predictions: list[list[str]] = []
    merge: MergeChoice = MergeChoice()
    send_wandb_key: bool = False
    publish: Publication | None = None
