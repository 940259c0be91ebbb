"""Builds the package of a run from the saved project: labels, configurations, models.

Makes the very form that `training_package.open_package` reads. Needs neither SLEAP nor
sleap-nn, opens no windows and changes no folder but its own; the project is only read.
Called by the companion, in a thread.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
import yaml

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    NotAModel,
    OptionRefused,
)
from sleap_rtc_plugin.protocol.ids import clean_text
from sleap_rtc_plugin.protocol.paths import path_fault
from sleap_rtc_plugin.session.embedded_labels import (
    EmbeddedLabels,
    measure_images,
    write_labels,
)
from sleap_rtc_plugin.session.package_archive import check_free_space, disk_errors
from sleap_rtc_plugin.session.package_steps import (
    INFERENCE_SCRIPT,
    JOBS_FILE,
    MODELS_FOLDER,
    TRAIN_SCRIPT,
    PackageContents,
    plan_steps,
)
from sleap_rtc_plugin.session.project_labels import (
    SPARE_DISK_BYTES,
    Project,
    VideoFile,
    open_project,
)
from sleap_rtc_plugin.session.run_plan import (
    Inference,
    TrainingFile,
    edit_config,
    inference_script,
    jobs_file,
    labels_name,
    plan_inference,
    predictions_name,
    project_stem,
    run_name_of,
    train_script,
)
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    PublishedModel,
    RunRequest,
    TrainedModel,
)
from sleap_rtc_plugin.session.trained_models import (
    copy_model_file,
    model_files,
    model_folder,
)
from sleap_rtc_plugin.transport.package_configs import (
    TrainingConfig,
    parse_yaml,
    read_training_config,
)

__all__ = [
    "BuildPhase",
    "FindVideos",
    "OnProgress",
    "build_package",
    "video_names",
]

BuildPhase = Literal["loading", "embedding"]
OnProgress = Callable[[BuildPhase, int, int], None]
"""Told the phase, and how many of how many frames are done; may raise to give up."""
FindVideos = Callable[[Sequence[VideoFile], int], Mapping[int, str]]
"""Given video files and how many videos the run uses; returns paths on the worker."""

# Stays here: of a folder, only what the job needs is sent.
_VIDEOS_FILE: Final = "worker-videos.json"
_BROUGHT_FOLDER: Final = "trained"


@dataclass
class _Plan:
    """Everything that will be in the package, before a byte of it is written."""

    stem: str
    labels: list[EmbeddedLabels] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)
    configs: dict[str, TrainingConfig] = field(default_factory=dict)
    training: list[TrainingFile] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    published: str | None = None
    trains_on_predictions: bool = False

    @cached_property
    def main_labels(self) -> EmbeddedLabels:
        """What is trained on, and predicted on by sleap-nn's own filters."""
        return self.add_labels()

    def add_labels(self) -> EmbeddedLabels:
        """Begin one more labels file."""
        self.labels.append(EmbeddedLabels(labels_name(self.stem, len(self.labels) + 1)))
        return self.labels[-1]


def build_package(
    run: RunRequest,
    folder: Path,
    *,
    now: str,
    on_progress: OnProgress,
    find_videos: FindVideos = lambda files, used: {},
) -> Path:
    """Build a run's package, whole or not at all.

    Args:
        run: what the user set up.
        folder: the package to be; where it exists already, nothing is built.
        now: the time as SLEAP writes it into names, such as `261122_074257`.
        on_progress: told how far it is; what it raises ends the building.
        find_videos: says which videos the worker has; their images are not embedded.

    Returns:
        `folder`.

    Raises:
        PackageError: the project, a model or an option cannot be used; each leaf
            says why.
        SourceChanged: the project was saved while it was read.
        DiskFull: there is no room.
        StorageFailed: a disk failed.
    """
    if folder.is_dir():
        return folder
    if not run.models:
        raise OptionRefused(
            option="--tracking",
            reason="tracking without a model runs in SLEAP itself, on this machine",
        )
    inference = plan_inference(run.predictions)
    on_progress("loading", 0, 0)
    project = open_project(Path(run.project.path))
    plan = _plan(run, project, inference, now)
    frames = {frame for labels in plan.labels for frame in labels.images}
    files = project.video_files(frames)
    at_worker = find_videos(files, len({index for index, _ in frames}))
    names = {
        at_worker[file.index]: file.name for file in files if file.index in at_worker
    }
    with _new_folder(folder) as building:
        (building / _VIDEOS_FILE).write_bytes(msgspec.json.encode(names))
        _write(plan, project, building, run.send_wandb_key, at_worker, on_progress)
        building.rename(folder)
    return folder


def video_names(folder: Path) -> dict[str, str]:
    """Return the project's names of videos by the worker's, of a package built here.

    Empty for a package of another kind, and for one whose images are all in it.
    """
    try:
        data = (folder / _VIDEOS_FILE).read_bytes()
        return msgspec.json.decode(data, type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` that is gone afterwards, unless it was renamed."""
    prefix = f".{folder.name}."
    with disk_errors(folder.parent, 0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{prefix}*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    try:
        with disk_errors(folder.parent, 0):
            yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


# -- deciding ----------------------------------------------------------------------


def _plan(
    run: RunRequest, project: Project, inference: list[Inference], now: str
) -> _Plan:
    """Decide everything, and refuse before the slow part what would be refused later.

    Raises:
        PackageError: the run cannot be carried out.
    """
    plan = _Plan(project_stem(project.path))
    user_frames = project.user_frames()
    for model in run.models:
        match model:
            case ModelToTrain():
                run_name = run_name_of(
                    model.run_name, now, model.head, len(user_frames)
                )
                _plan_training(plan, model, run, run_name)
            case TrainedModel():
                _plan_trained(plan, model, project.path.parent)
            case PublishedModel():
                _plan_published(plan, model, run)
    if plan.training:
        project.check_skeleton()
        if not user_frames:
            raise project.fault("it has no user-labeled frame to train on")
        plan.main_labels.frames.update(user_frames)
        if plan.trains_on_predictions:
            plan.main_labels.frames.update(project.labeled_frames())

    predicted: list[tuple[Inference, str, str]] = []
    for one in inference:
        labels = _add_frames(plan, project, one)
        if labels is not None:
            output = predictions_name(plan.stem, now, len(predicted) + 1)
            predicted.append((one, labels.name, output))
    if not plan.labels:
        raise project.fault("there is no frame to predict on")

    plan.texts[JOBS_FILE] = jobs_file(
        plan.training, plan.labels[0].name, predicted, plan.models, plan.published
    )
    if plan.training:
        plan.texts[TRAIN_SCRIPT] = train_script(plan.training)
    if predicted:
        plan.texts[INFERENCE_SCRIPT] = inference_script(predicted, plan.models)
    _check(plan, project)
    return plan


def _plan_training(
    plan: _Plan, model: ModelToTrain, run: RunRequest, run_name: str
) -> None:
    name = f"{model.head}.yaml"
    if path_fault(name) or "/" in name or name in plan.texts:
        raise ConfigRefused(
            config=clean_text(name), reason="two models of a run have this name"
        )
    fault = "is more than one name" if "/" in run_name else path_fault(run_name)
    if fault:
        raise ConfigRefused(
            config=name, reason=f"its run name {clean_text(run_name)} {fault}"
        )
    config = parse_yaml(model.config.encode(), name)
    weights: dict[str, str] = {}
    for local in read_training_config(config, name).weights:
        source = _find(local, Path(run.project.path).parent)
        if source is None or not source.is_file():
            raise ConfigRefused(
                config=name,
                reason=f"the weights it starts from are not at {clean_text(local)}",
            )
        weights[local] = _member_for(plan, source)
    edited = edit_config(
        config,
        labels=plan.main_labels.name,
        run_name=run_name,
        weights=weights,
        keep_wandb_key=run.send_wandb_key,
    )
    plan.configs[name] = read_training_config(edited, name)
    plan.texts[name] = yaml.safe_dump(edited, sort_keys=False, allow_unicode=True)
    if edited["data_config"].get("user_instances_only") is False:
        plan.trains_on_predictions = True
    plan.training.append(TrainingFile(name, run_name))
    plan.models.append(f"{MODELS_FOLDER}/{run_name}")


def _member_for(plan: _Plan, weights: Path) -> str:
    """Return the member that weights are copied to; the same file is copied once."""
    for member, source in plan.copies.items():
        if source == weights:
            return member
    number = sum(member.startswith("weights.") for member in plan.copies) + 1
    member = f"weights.{number}{weights.suffix.lower()}"
    plan.copies[member] = weights
    return member


def _plan_trained(plan: _Plan, model: TrainedModel, project_dir: Path) -> None:
    name = clean_text(model.path)
    found = _find(model.path, project_dir)
    if found is None:
        raise ConfigRefused(config=name, reason="the trained model is not there")
    folder = model_folder(found)
    try:
        files = model_files(folder)
    except NotAModel as error:
        raise ConfigRefused(config=name, reason=error.reason) from None
    label = folder.name if path_fault(folder.name) is None else model.head
    member = f"{_BROUGHT_FOLDER}/{len(plan.models) + 1}.{label}"
    plan.copies |= {f"{member}/{file.name}": file for file in files}
    plan.models.append(member)


def _plan_published(plan: _Plan, model: PublishedModel, run: RunRequest) -> None:
    """Use a model of the registry: no file of it is in the package."""
    if len(run.models) > 1:
        raise ConfigRefused(
            config=clean_text(model.name), reason="it is used with no other models"
        )
    plan.published = model.id


def _find(path: str, project_dir: Path) -> Path | None:
    """Return where a path of SLEAP's leads: it may be relative to the project."""
    for candidate in (project_dir / path, Path(path)):
        if candidate.exists():
            return candidate.resolve()
    return None


def _add_frames(
    plan: _Plan, project: Project, inference: Inference
) -> EmbeddedLabels | None:
    """Give an inference its labels; None where it has no frame at all."""
    first = inference.selections[0]
    frames = {frame for one in inference.selections for frame in project.select(one)}
    if not frames:
        return None
    if first.is_by_flag and first.only == "suggested":
        plan.main_labels.suggested |= frames
        return plan.main_labels
    labels = plan.main_labels if first.is_by_flag else plan.add_labels()
    labels.frames |= frames
    return labels


def _check(plan: _Plan, project: Project) -> None:
    """Let the reader of packages plan the steps from what will be there."""
    members = {*plan.texts, *plan.copies, *(labels.name for labels in plan.labels)}
    plan_steps(
        PackageContents(
            source=project.path.name,
            members=frozenset(members),
            configs=plan.configs,
            jobs=yaml.safe_load(plan.texts[JOBS_FILE]),
            train_script=plan.texts.get(TRAIN_SCRIPT),
            inference_script=plan.texts.get(INFERENCE_SCRIPT),
        )
    )


# -- writing -----------------------------------------------------------------------


def _write(
    plan: _Plan,
    project: Project,
    building: Path,
    send_wandb_key: bool,
    at_worker: Mapping[int, str],
    on_progress: OnProgress,
) -> None:
    size, total = measure_images(project, plan.labels, at_worker)
    needed = size + SPARE_DISK_BYTES
    check_free_space(building.parent, needed)
    done = 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        on_progress("embedding", done, total)

    with disk_errors(building.parent, needed):
        for member, text in plan.texts.items():
            (building / member).write_text(text, encoding="utf-8")
        for member, source in plan.copies.items():
            target = building.joinpath(*member.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_model_file(source, target, keep_wandb_key=send_wandb_key)
        on_progress("embedding", 0, total)
        write_labels(project, plan.labels, building, at_worker, on_frame)
