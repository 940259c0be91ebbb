"""Packages built from real projects, worked on by the real sleap-nn, merged at home."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sleap_io
import yaml

from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.session.package_builder import build_package
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    ProjectFacts,
    RunRequest,
    TrainedModel,
)
from sleap_rtc_plugin.session.training_package import TrainingPackage, open_package
from sleap_rtc_worker.config_check import check_configs
from sleap_rtc_worker.package_check import brought_models, check_spec
from sleap_rtc_worker.sleap_nn_command import predict_argv, train_argv, trainer_command
from sleap_rtc_worker.training_config import guard_training_config

pytestmark = [pytest.mark.needs_shared_data, pytest.mark.timeout(400)]

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
NOW = "261122_074257"
HEADS = ("centroid", "centered_instance")
# So short a training gives low peaks; two instances a frame are enough here.
ANY_PEAK = ("--peak_threshold", "0.0001", "--max_instances", "2")
SLEAP_NN_LIMIT_S = 300.0


def copy_data(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        if not (SHARED_DATA / name).exists():
            pytest.skip(f"{name} is not beside the checkout")
        shutil.copyfile(SHARED_DATA / name, folder / name)


@pytest.fixture
def flies(tmp_path: Path) -> Path:
    folder = tmp_path / "laptop"
    copy_data(folder, "flies.slp", "centered_pair_low_quality.mp4")
    return folder / "flies.slp"


def tiny_models() -> list[ModelToTrain | TrainedModel]:
    """Return SLEAP's own configurations, shrunk to one epoch of two steps."""
    package = SHARED_DATA / "flies.topdown.quick.training_job.zip"
    if not package.exists():
        pytest.skip(f"{package.name} is not beside the checkout")
    models: list[ModelToTrain | TrainedModel] = []
    with zipfile.ZipFile(package) as archive:
        for head in HEADS:
            config = yaml.safe_load(archive.read(f"{head}.yaml"))
            config["data_config"]["train_labels_path"] = None
            config["trainer_config"] |= {
                "max_epochs": 1,
                "min_train_steps_per_epoch": 2,
                "train_steps_per_epoch": 2,
                "visualize_preds_during_training": False,
                "trainer_accelerator": "mps",
            }
            text = yaml.safe_dump(config, sort_keys=False)
            models.append(ModelToTrain(head=head, config=text))
    return models


def item(project: Path, *words: str) -> list[str]:
    return ["sleap", "predict", "--gui", "--data_path", str(project), *words]


def build(
    project: Path,
    folder: Path,
    models: list[ModelToTrain | TrainedModel],
    predictions: list[list[str]],
) -> TrainingPackage:
    run = RunRequest(
        project=ProjectFacts(path=str(project)), models=models, predictions=predictions
    )
    built = build_package(run, folder, now=NOW, on_progress=lambda *_: None)
    return open_package(built, folder.parent / "opened")


async def check_as_worker(package: TrainingPackage, scratch: Path) -> None:
    """Judge a package the way a worker does before it queues the job."""
    check_spec(package.spec)
    members, made = frozenset(package.members), set[str]()
    configs, labels = {}, {}
    for step in package.spec.steps:
        match step:
            case TrainStep():
                text = (package.root / step.config).read_text()
                guarded = guard_training_config(text, step, members)
                configs[step.config] = scratch / step.config
                configs[step.config].write_text(guarded.text)
                labels[step.labels] = package.root / step.labels
                made.add(f"models/{step.run_name}")
            case PredictStep():
                brought_models(step, members, made)
                labels[step.data] = package.root / step.data
    await check_configs(configs, labels=labels)


def run_steps(package: TrainingPackage, folder: Path) -> None:
    """Run a package's steps on another machine: only what is sent is there."""
    for member in package.members:
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.root / member, folder / member)
    trainer = trainer_command(sys.executable)
    for step in package.spec.steps:
        match step:
            case TrainStep():
                words = train_argv(
                    trainer, step, config_dir=".", config_name=step.config
                )
                words = [word for word in words if "_PORT@" not in word]
            case PredictStep():
                words = [*predict_argv(trainer, step), "--device=cpu"]
        done = subprocess.run(
            words,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SLEAP_NN_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]


def merge(project: Path, predictions: Path) -> Any:
    """Merge predictions as SLEAP's `InferenceTask.merge_results` does."""
    labels = sleap_io.load_slp(str(project))
    new = sleap_io.load_slp(str(predictions))
    found = [frame for frame in new.labeled_frames if len(frame.instances)]
    labels.merge(sleap_io.Labels(found), track="name", frame="replace_predictions")
    return labels


def predicted(labels: Any) -> set[int]:
    return {f.frame_idx for f in labels.labeled_frames if f.has_predicted_instances}


def indices(frames: Iterable[Any]) -> set[int]:
    return {frame.frame_idx for frame in frames}


@pytest.mark.needs_sleap_nn
async def test_train_there_and_merge_here(flies: Path, tmp_path: Path) -> None:
    pytest.importorskip("sleap_nn", reason="sleap-nn is not installed")
    before = sleap_io.load_slp(str(flies))
    user = indices(before.user_labeled_frames)

    package = build(
        flies,
        tmp_path / "package",
        tiny_models(),
        [item(flies, "--only_suggested_frames", *ANY_PEAK)],
    )
    await check_as_worker(package, tmp_path)
    worker = tmp_path / "worker"
    laptop = flies.parent.rename(tmp_path / "out of the worker's reach")
    run_steps(package, worker)
    laptop.rename(flies.parent)
    suggested = merge(flies, worker / f"flies.{NOW}.predictions.slp")
    assert predicted(suggested) == indices(before.suggestions)

    # The models that came home are sent along for the next inference.
    models = [
        TrainedModel(head=head, path=str(worker / "models" / f"{NOW}.{head}.n=24"))
        for head in HEADS
    ]
    range_words = ("--video_index", "0", "--frames", "46,-48", "--tracking")
    package = build(
        flies,
        tmp_path / "package that only predicts",
        [*models],
        [item(flies, *range_words, *ANY_PEAK, "--exclude_user_labeled")],
    )
    run_steps(package, tmp_path / "other worker")
    tracked = merge(flies, tmp_path / "other worker" / f"flies.{NOW}.predictions.slp")
    assert predicted(tracked) == {46, 47, 48} - user == {46, 48}
    assert tracked.tracks

    for labels in (suggested, tracked):
        assert len(labels.videos) == len(labels.skeletons) == 1
        assert labels.videos[0].filename == before.videos[0].filename
        assert indices(labels.user_labeled_frames) == user


def test_a_whole_video_in_color(tmp_path: Path) -> None:
    copy_data(tmp_path / "laptop", "robot.slp", "small_robot.mp4")
    project = tmp_path / "laptop" / "robot.slp"
    model = tmp_path / "model"
    model.mkdir()
    for name in ("best.ckpt", "training_config.yaml"):
        (model / name).write_text("{}")
    package = build(
        project,
        tmp_path / "package",
        [TrainedModel(head="single_instance", path=str(model))],
        [item(project, "--video_index", "0")],
    )
    sent = sleap_io.load_slp(str(package.root / "robot.pkg.slp"))
    original = sleap_io.load_slp(str(project)).videos[0]
    assert [frame.frame_idx for frame in sent] == list(range(len(original)))
    for number in (0, 80, len(original) - 1):
        assert (sent.videos[0][number] == original[number]).all()


WITHOUT_TRAINER = """
import json, sys
from pathlib import Path
import msgspec
from sleap_rtc_plugin.session.package_builder import build_package
from sleap_rtc_plugin.session.run_request import RunRequest
from sleap_rtc_plugin.session.training_package import open_package

run = msgspec.json.decode(sys.stdin.buffer.read(), type=RunRequest)
folder = Path(sys.argv[1])
build_package(run, folder, now="261122_074257", on_progress=lambda *_: None)
open_package(folder, folder.parent / "opened")
heavy = {"torch", "sleap", "sleap_nn", "qtpy", "PySide6", "matplotlib"}
print(json.dumps(sorted(heavy & sys.modules.keys())))
"""


def test_nothing_heavy_is_imported(flies: Path, tmp_path: Path) -> None:
    import msgspec

    run = RunRequest(
        project=ProjectFacts(path=str(flies)),
        models=tiny_models(),
        predictions=[item(flies, "--only_suggested_frames")],
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAINER, str(tmp_path / "package")],
        input=msgspec.json.encode(run),
        capture_output=True,
        timeout=SLEAP_NN_LIMIT_S,
        check=True,
    )
    assert json.loads(done.stdout) == []
