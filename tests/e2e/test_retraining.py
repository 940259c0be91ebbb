"""The loop of labelling: train, label two frames more, train again.

The project is a real one from SLEAP, its packages are built as the plugin builds them,
and the real sleap-nn trains.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.packages import CENTROID, CONFIGS, INSTANCE, edit_config, read_members
from support.programs import Programs
from support.trainings import TRAINING_S, assert_same_as_local

from sleap_rtc_plugin.session.package_builder import build_package
from sleap_rtc_plugin.session.run_request import ModelToTrain, ProjectFacts, RunRequest

pytestmark = [pytest.mark.needs_sleap_nn, pytest.mark.timeout(900)]

SHORT = {
    "trainer_config.max_epochs": 2,
    "trainer_config.train_steps_per_epoch": 2,
    "trainer_config.min_train_steps_per_epoch": 2,
}
NEW_FRAMES = (500, 501)


@pytest.fixture
def project(shared_data: Path, tmp_path: Path) -> Path:
    for name in ("flies.slp", "centered_pair_low_quality.mp4"):
        shutil.copyfile(shared_data / name, tmp_path / name)
    return tmp_path / "flies.slp"


@pytest.fixture
def models(shared_data: Path) -> list[ModelToTrain]:
    """The configurations that SLEAP exported for the flies, made shorter."""
    members = read_members(shared_data / "flies.topdown.quick.training_job.zip")
    for name in CONFIGS:
        edit_config(members, name, SHORT)
    return [
        ModelToTrain(head=name.removesuffix(".yaml"), config=members[name].decode())
        for name in (CENTROID, INSTANCE)
    ]


def label_more(project: Path) -> None:
    """Label two frames more, as a user does who copies the instances before."""
    import sleap_io

    labels = sleap_io.load_slp(str(project))
    for frame, number in zip(labels.user_labeled_frames, NEW_FRAMES, strict=False):
        instances = [
            sleap_io.Instance.from_numpy(one.numpy() + 1, skeleton=one.skeleton)
            for one in frame.user_instances
        ]
        labels.append(
            sleap_io.LabeledFrame(
                video=frame.video, frame_idx=number, instances=instances
            )
        )
    sleap_io.save_file(labels, str(project), verbose=False)


def build(project: Path, models: list[ModelToTrain], folder: Path, now: str) -> Path:
    run = RunRequest(project=ProjectFacts(path=str(project)), models=list(models))
    return build_package(run, folder, now=now, on_progress=lambda *_: None)


@pytest.mark.slow
def test_two_frames_more_are_all_that_is_sent_and_the_models_are_the_same(
    programs: Programs, project: Path, models: list[ModelToTrain], tmp_path: Path
) -> None:
    worker = programs.worker("--name", "gpu-box").wait_ready()
    reports: list[dict[str, Any]] = []
    for number, now in enumerate(("261122_074257", "261122_081530")):
        if number:
            label_more(project)
        package = build(project, models, tmp_path / f"package-{number}", now)
        client = programs.train(package, worker.session, tmp_path / f"out-{number}")
        assert client.wait(TRAINING_S) == 0, client.story()
        report = client.report
        assert report["bytes_sent"] + report["bytes_reused"] == report["bytes_total"]
        assert len(report["models"]) == 2
        reports.append(report)

    first, second = reports
    assert first["bytes_sent"] > 0.5 * first["bytes_total"]
    assert second["bytes_reused"] > 0.8 * second["bytes_total"]
    # The images of two frames, and the labels, which are small beside images.
    assert second["bytes_sent"] < 0.2 * first["bytes_sent"]
    assert any("were there already" in line for line in client.err), client.story()
    trained = [Path(model) for model in second["models"]]
    local = Path(shutil.copytree(package, tmp_path / "local"))
    assert_same_as_local(programs, local, trained)
