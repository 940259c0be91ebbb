"""Whether a package is one that this worker runs: its names, configurations, weights.

First the names of the job, before its package is asked for; then, once it is here,
every configuration is guarded and sleap-nn itself looks at the result, in a child
process. Called by the job coordinator.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sleap_rtc_plugin.protocol.errors import BadRequest, ConfigRefused
from sleap_rtc_plugin.protocol.inference_options import (
    check_options,
    check_video_options,
)
from sleap_rtc_plugin.protocol.messages import JobSpec, PredictStep, TrainStep
from sleap_rtc_plugin.protocol.model_records import (
    CHECKPOINT,
    MODEL_CONFIG,
    check_alias,
)
from sleap_rtc_plugin.protocol.mounts import VIDEO_SUFFIXES
from sleap_rtc_plugin.protocol.paths import check_component, check_path
from sleap_rtc_plugin.transport.effects import in_thread
from sleap_rtc_worker.config_check import check_configs
from sleap_rtc_worker.file_manager import FileManager, read_text
from sleap_rtc_worker.training_config import (
    epochs_of,
    guard_model_config,
    guard_training_config,
    label_members,
)

__all__ = [
    "CheckedPackage",
    "brought_models",
    "check_package",
    "check_spec",
    "checkpoints_in",
    "refuse_run_folder",
]

# Puts a model of the registry into a folder; returns its parts' folders there.
LayModel = Callable[[str, Path], Awaitable[list[str]]]


@dataclass
class CheckedPackage:
    """What is known of a package that is acceptable.

    Attributes:
        epochs: the most epochs of each step, 0 where that is not known.
        published: the folders of every model of the registry that a step uses, by its
            id; relative to the job's folder of such models, in the order of their use.
    """

    epochs: list[int] = field(default_factory=list)
    published: dict[str, list[str]] = field(default_factory=dict)


async def check_package(
    job_id: str,
    spec: JobSpec,
    files: FileManager,
    *,
    mounts: Sequence[Path],
    worker: str,
    lay_model: LayModel,
) -> CheckedPackage:
    """Guard every configuration, then let sleap-nn look at the result.

    Models of the registry are put beside the package, and looked at the same.

    Args:
        job_id: whose package is here.
        spec: what is to be done with it.
        files: where it lies.
        mounts: folders in which videos of labels may lie.
        worker: what users call this worker.
        lay_model: puts a verified model of the registry into a folder.

    Raises:
        RtcError: the package is not acceptable.
    """
    members = await in_thread(None, files.members, job_id)
    configs: dict[str, Path] = {}
    weights: set[str] = set()
    labels: set[str] = set()
    made: set[str] = set()
    checked = CheckedPackage()
    for index, step in enumerate(spec.steps):
        match step:
            case TrainStep():
                refuse_run_folder(step, members)
                text = files.read_config(job_id, step.config)
                guarded = guard_training_config(
                    text, step, members, allow_wandb=spec.allow_wandb
                )
                configs[step.config] = files.write_config(
                    job_id, index, step, guarded.text
                )
                weights.update(guarded.weights)
                labels.update(label_members(guarded.text, members), [step.labels])
                made.add(f"models/{step.run_name}")
                checked.epochs.append(epochs_of(guarded.text))
            case PredictStep():
                labels.add(step.data)
                for model in brought_models(step, members, made):
                    name = f"{model}/training_config.yaml"
                    text = files.read_config(job_id, name)
                    guard_model_config(text, name)
                    weights.update(checkpoints_in(model, members))
                checked.epochs.append(0)
                model_id = step.published
                if model_id is not None and model_id not in checked.published:
                    laid = await lay_model(model_id, files.published_dir(job_id))
                    checked.published[model_id] = laid
    root = files.package_dir(job_id)
    places = {member: root / member for member in sorted(weights)}
    for folder in (folder for laid in checked.published.values() for folder in laid):
        place = files.published_dir(job_id) / folder
        name = f"{folder}/{MODEL_CONFIG}"
        guard_model_config(read_text(place / MODEL_CONFIG, name), name)
        places[f"{folder}/{CHECKPOINT}"] = place / CHECKPOINT
    await check_configs(
        configs,
        weights=places,
        labels={member: root / member for member in sorted(labels)},
        mounts=mounts,
        worker=worker,
    )
    return checked


def check_spec(spec: JobSpec) -> None:
    """Check every name and option of a job before its package is asked for.

    Raises:
        RtcError: one of them is not acceptable.
    """
    run_names: set[str] = set()
    for step in spec.steps:
        match step:
            case TrainStep():
                check_path(step.config)
                check_path(step.labels)
                if _is_video(step.labels):
                    raise BadRequest(reason=f"{step.labels} are no labels to train on")
                name = check_component(step.run_name).casefold()
                if name in run_names:
                    raise BadRequest(reason=f"two models are named {step.run_name}")
                run_names.add(name)
            case PredictStep():
                check_path(step.data)
                check_component(step.output)
                for model in step.models:
                    check_path(model)
                check_options(step.options)
                if _is_video(step.data):
                    check_video_options(step.options)
                if bool(step.models) == bool(step.published):
                    raise BadRequest(
                        reason="an inference needs models, either of the package and "
                        "the job or one of the room's registry"
                    )
    if spec.publish is not None:
        if spec.publish.alias is not None:
            check_alias(spec.publish.alias)
        if not run_names:
            raise BadRequest(reason="a job that trains nothing has no model to publish")


def _is_video(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES


def refuse_run_folder(step: TrainStep, members: frozenset[str]) -> None:
    """Check that a package brings nothing into the folder that a training writes to.

    It would be taken for what the training has made: results, and the checkpoint
    that it goes on from after a crash.

    Raises:
        ConfigRefused: it does.
    """
    folder = f"models/{step.run_name}/".casefold()
    if any(member.casefold().startswith(folder) for member in members):
        raise ConfigRefused(
            config=step.config,
            reason=f"the package holds a model {step.run_name} already, and a training "
            "needs another run name",
        )


def brought_models(
    step: PredictStep, members: frozenset[str], made: set[str]
) -> list[str]:
    """Check that an inference step finds its data and models.

    Args:
        step: the inference.
        members: the package's files.
        made: model folders that earlier steps of the job make.

    Returns:
        The model folders that came with the package.

    Raises:
        ConfigRefused: something is missing.
    """
    brought: list[str] = []
    if step.data not in members:
        raise ConfigRefused(
            config="of the inference", reason=f"the package does not hold {step.data}"
        )
    for model in step.models:
        if model in made:
            continue
        if f"{model}/training_config.yaml" not in members:
            raise ConfigRefused(
                config="of the inference", reason=f"there is no model {model}"
            )
        brought.append(model)
    return brought


def checkpoints_in(model: str, members: frozenset[str]) -> list[str]:
    """Return the weight files of a model folder in the package."""
    return [
        member
        for member in members
        if member.startswith(f"{model}/")
        and member.lower().endswith((".ckpt", ".pt", ".pth", ".h5"))
    ]
