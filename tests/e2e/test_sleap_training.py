"""From SLEAP's menu to predictions on the suggestions, with nothing pretended.

The real SLEAP window driven by object name, a real signaling server and worker, and the
real sleap-nn training two models of the flies.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.programs import SUPPORT, Program, Programs

pytestmark = [
    pytest.mark.needs_sleap_nn,
    pytest.mark.needs_shared_data,
    pytest.mark.timeout(420),
]
QUICK = "flies.topdown.quick.training_job.zip"
HEADS = ("centroid", "centered_instance")
SUGGESTED = [5, 126, 247, 368, 489, 610, 731, 852, 973, 1095]


@pytest.fixture
def project(shared_data: Path, tmp_path: Path) -> Path:
    """The flies, beside them a short configuration for each model."""
    folder = tmp_path / "flies"
    folder.mkdir()
    for name in ("flies.slp", "centered_pair_low_quality.mp4"):
        shutil.copy(shared_data / name, folder)
    shutil.unpack_archive(shared_data / QUICK, tmp_path / "quick")
    for head in HEADS:
        config = yaml.safe_load((tmp_path / "quick" / f"{head}.yaml").read_text())
        config["trainer_config"]["run_name"] = None
        # Long enough for the first to be stopped early.
        config["trainer_config"]["max_epochs"] = 60 if head == "centroid" else 2
        target = folder / "models" / f"quick_{head}" / "quick.yaml"
        target.parent.mkdir(parents=True)
        target.write_text(yaml.safe_dump(config))
    return folder / "flies.slp"


def saw(sleap: Program, what: str) -> dict[str, Any]:
    return sleap.wait_event(saw=what, timeout_s=300)


def test_a_training_and_an_inference_by_their_buttons(
    programs: Programs, project: Path
) -> None:
    worker = programs.worker("--name", "gpu-box").wait_ready()
    sleap = programs.start(
        SUPPORT / "sleap_scenarios.py",
        "train",
        f"session={worker.session}",
        "--",
        project,
        QT_QPA_PLATFORM="offscreen",
    )
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
    seen = saw(sleap, "predictions")
    assert seen["suggested"] == SUGGESTED
    assert seen["predicted"] == SUGGESTED
    assert seen["user_frames"] == 24
    assert (seen["videos"], seen["skeletons"]) == (1, 1)
    assert seen["has_changes"]
    assert "merged from gpu-box" in seen["status"]
    assert seen["boxes"] == []
    assert sleap.wait() == 0
