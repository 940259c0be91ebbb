"""Live frames with sleap-nn itself: what it finds live is what it finds in a file."""

import json
import shlex
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.live_programs import live, start_worker
from support.programs import Programs
from support.trainings import TRAINING_S

pytestmark = [
    pytest.mark.needs_sleap_nn,
    pytest.mark.needs_shared_data,
    pytest.mark.timeout(1200),
]

OPTIONS = ("--peak_threshold=0.0001", "--max_instances=2")
# Loading torch and a model on a machine that is busy.
LIVE_S = 400.0


def train(programs: Programs, package: Path, folder: Path) -> list[Path]:
    """Train what is in a package, by its own script; return the models' folders."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    for line in (folder / "train-script.sh").read_text().splitlines():
        if line.startswith("sleap train "):
            words = shlex.split(line)[1:]
            training = programs.start("-P", "-m", "sleap_nn.cli", *words, cwd=folder)
            assert training.wait(TRAINING_S) == 0, training.story()
    return sorted(path.parent for path in folder.glob("models/*/best.ckpt"))


def predicted(
    programs: Programs, video: Path, models: list[Path], frames: list[int], to: Path
) -> Any:
    """Predict frames with sleap-nn's own command."""
    import sleap_io

    words = [word for model in models for word in ("--model_paths", model)]
    command = programs.start(
        *("-P", "-m", "sleap_nn.cli", "predict", "--data_path", video, *words),
        *("--frames", ",".join(map(str, frames)), "--device", "cpu", "-o", to),
        *OPTIONS,
    )
    assert command.wait(TRAINING_S) == 0, command.story()
    return sleap_io.load_slp(str(to))


def points(frame: Any) -> list[Any]:
    arrays = [instance.numpy(scores=True) for instance in frame.instances]
    return sorted(arrays, key=lambda array: float(np.nansum(array)))


def assert_same(ours: Any, theirs: Any) -> None:
    theirs_by_index = {frame.frame_idx: frame for frame in theirs}
    assert len(ours) > 0
    for frame in ours:
        other = theirs_by_index[frame.frame_idx]
        assert len(frame.instances) == len(other.instances) > 0
        for one, two in zip(points(frame), points(other), strict=True):
            # One frame at a time or four, a GPU may add in another order.
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)


def test_the_same_as_from_a_file(
    programs: Programs, shared_data: Path, tmp_path: Path
) -> None:
    import sleap_io

    package = shared_data / "robot.single.quick.training_job.zip"
    models = train(programs, package, tmp_path / "package")
    worker = start_worker(programs, "real", f"fly={models[0]}")
    video, output = shared_data / "small_robot.mp4", tmp_path / "live.slp"
    words = ("--json", "--output", output, "--fps", 2, "--frames", 10)
    client = live(programs, worker, video, *words, *OPTIONS)
    assert client.wait(LIVE_S) == 0, client.story()
    ours = sleap_io.load_slp(str(output))
    frames = [frame.frame_idx for frame in ours]
    assert len(frames) == client.report["answered"]
    assert_same(
        ours, predicted(programs, video, models, frames, tmp_path / "local.slp")
    )


@pytest.mark.slow
def test_200_frames_of_the_flies(
    programs: Programs, shared_data: Path, tmp_path: Path
) -> None:
    """10 frames a second over loopback; prints how long answers take."""
    import sleap_io

    package = shared_data / "flies.topdown.quick.training_job.zip"
    models = train(programs, package, tmp_path / "package")
    assert len(models) == 2
    folders = "+".join(map(str, models))
    worker = start_worker(programs, "real", f"fly={folders}")
    video = shared_data / "centered_pair_low_quality.mp4"
    output, plot = tmp_path / "live.slp", tmp_path / "latency.png"
    words = ("--json", "--output", output, "--plot", plot, "--fps", 10)
    client = live(programs, worker, video, *words, "--frames", 200, *OPTIONS)
    assert client.wait(LIVE_S) == 0, client.story()
    figures = client.report
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    assert figures["taken"] + figures["missed"] == 200
    assert figures["answered"] > 0
    assert figures["lost"] == 0
    ours = sleap_io.load_slp(str(output))
    frames = [frame.frame_idx for frame in ours]
    assert_same(
        ours, predicted(programs, video, models, frames, tmp_path / "local.slp")
    )
