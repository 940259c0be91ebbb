"""From SLEAP's menu to predictions on the suggestions, with nothing pretended.

The real SLEAP window driven by object name, a real signaling server and worker, and the
real sleap-nn training two models of the flies.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from omegaconf import OmegaConf
from support.programs import SUPPORT, Program, Programs

pytestmark = [
    pytest.mark.needs_sleap_nn,
    pytest.mark.needs_shared_data,
    pytest.mark.timeout(420),
]
QUICK = "flies.topdown.quick.training_job.zip"
VIDEO = "centered_pair_low_quality.mp4"
HEADS = ("centroid", "centered_instance")
SUGGESTED = [5, 126, 247, 368, 489, 610, 731, 852, 973, 1095]


def flies(shared_data: Path, folder: Path, changes: dict[str, dict[str, Any]]) -> Path:
    """Lay out the flies, and beside them a short configuration for each model."""
    folder.mkdir()
    for name in ("flies.slp", VIDEO):
        shutil.copy(shared_data / name, folder)
    quick = folder.with_name("quick")
    shutil.unpack_archive(shared_data / QUICK, quick)
    for head in HEADS:
        config = OmegaConf.load(quick / f"{head}.yaml")
        config.trainer_config.run_name = None
        for key, value in changes[head].items():
            OmegaConf.update(config, key, value)
        target = folder / "models" / f"quick_{head}" / "quick.yaml"
        target.parent.mkdir(parents=True)
        OmegaConf.save(config, target)
    return folder / "flies.slp"


def saw(sleap: Program, what: str, timeout_s: float = 300) -> dict[str, Any]:
    return sleap.wait_event(saw=what, timeout_s=timeout_s)


def train(programs: Programs, project: Path, *words: object, **options: int) -> Program:
    """Open the project in SLEAP and train it on a worker, started with these words."""
    worker = programs.worker("--name", "gpu-box", *words).wait_ready()
    return programs.start(
        SUPPORT / "sleap_scenarios.py",
        "train",
        f"session={worker.session}",
        *(f"{name}={value}" for name, value in options.items()),
        "--",
        project,
        QT_QPA_PLATFORM="offscreen",
    )


def assert_merged(sleap: Program) -> None:
    """Expect predictions on every suggestion of the open project, and a good end."""
    seen = saw(sleap, "predictions")
    assert seen["suggested"] == SUGGESTED
    assert seen["predicted"] == SUGGESTED
    assert seen["user_frames"] == 24
    assert (seen["videos"], seen["skeletons"]) == (1, 1)
    assert seen["has_changes"]
    assert "merged from gpu-box" in seen["status"]
    assert seen["boxes"] == []
    assert sleap.wait() == 0


def test_a_training_and_an_inference_by_their_buttons(
    programs: Programs, shared_data: Path, tmp_path: Path
) -> None:
    # Long enough for the first to be stopped early.
    epochs = {
        "centroid": {"trainer_config.max_epochs": 60},
        "centered_instance": {"trainer_config.max_epochs": 2},
    }
    project = flies(shared_data, tmp_path / "flies", epochs)
    sleap = train(programs, project)
    assert "centroid" in saw(sleap, "monitor")["title"]
    assert "gpu-box" in saw(sleap, "monitor")["title"]
    curve = saw(sleap, "curve")
    assert curve["batches"] >= 5
    assert 1 <= curve["epochs"] < 60
    trained = saw(sleap, "models")["trained"]
    assert set(trained) == set(HEADS)
    for name in trained.values():
        assert (project.parent / "models" / name / "best.ckpt").is_file()
        assert name.endswith(".n=24")
    assert_merged(sleap)


@pytest.mark.slow
def test_a_video_that_the_worker_has_adds_none_to_the_project(
    programs: Programs, shared_data: Path, tmp_path: Path
) -> None:
    epochs = {
        "centroid": {"trainer_config.max_epochs": 60},
        "centered_instance": {"trainer_config.max_epochs": 2},
    }
    project = flies(shared_data, tmp_path / "flies", epochs)
    lab = tmp_path / "data" / "lab" / "2026"
    lab.mkdir(parents=True)
    video = Path(shutil.copy(project.with_name(VIDEO), lab))
    sleap = train(programs, project, "--mount", f"lab={lab.parent}")
    assert set(saw(sleap, "models")["trained"]) == set(HEADS)
    assert_merged(sleap)
    packages = programs.folder / "worker-data" / "jobs"
    sent = list(packages.glob("*/package/files/*.pkg.slp"))
    assert len(sent) == 2
    for labels in sent:
        with h5py.File(labels) as file:
            [row] = file["videos_json"][:]
        assert json.loads(row)["backend"]["filename"] == str(video)
        assert labels.stat().st_size < video.stat().st_size / 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_predictions_come_home_with_the_models(
    programs: Programs, shared_data: Path, tmp_path: Path
) -> None:
    """Trained long enough that the inference after the training finds the flies."""
    enough = {
        "data_config.use_augmentations_train": False,
        "trainer_config.max_epochs": 8,
        "trainer_config.min_train_steps_per_epoch": 30,
        "trainer_config.train_steps_per_epoch": 30,
        "trainer_config.optimizer.lr": 0.003,
    }
    project = flies(shared_data, tmp_path / "flies", dict.fromkeys(HEADS, enough))
    sleap = train(programs, project, epochs=7, predicts=1, patience_s=900)
    assert set(saw(sleap, "models", 1500)["trained"]) == set(HEADS)
    assert_merged(sleap)
