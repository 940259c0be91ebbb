"""The main job with the real sleap-nn: a package out, models and predictions home."""

import csv
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.packages import (
    CENTROID,
    Members,
    edit_config,
    extract,
    rewrite,
    shorten,
)
from support.programs import POSIX, Program, Programs, Worker
from support.trainings import TRAINING_S, assert_same_as_local

REPORT_FIELDS = [
    "state",
    "job_id",
    "worker",
    "models",
    "predictions",
    "bytes_total",
    "bytes_sent",
    "bytes_reused",
    "seconds",
    "link",
    "error",
]
MODEL_FILES = {
    "best.ckpt",
    "initial_config.yaml",
    "labels_gt.train.0.slp",
    "labels_gt.val.0.slp",
    "training_config.yaml",
    "training_log.csv",
}

pytestmark = [pytest.mark.needs_sleap_nn, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Programs]:
    found = Programs(tmp_path_factory.mktemp("lab"), caches)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def worker(lab: Programs) -> Worker:
    """One real worker for all of these trainings."""
    return lab.worker("--name", "gpu-box").wait_ready()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def finished(client: Program, *, is_new: bool = True) -> dict[str, Any]:
    """Wait for a success and return the report; `is_new` if its images are."""
    assert client.wait(TRAINING_S) == 0, client.story()
    report = client.report
    assert list(report) == REPORT_FIELDS
    assert report["state"] == "succeeded"
    assert report["error"] is None
    assert report["worker"] == "gpu-box"
    # The padding behind images is never sent.
    assert report["bytes_sent"] + report["bytes_reused"] == report["bytes_total"]
    assert not is_new or report["bytes_sent"] > report["bytes_total"] // 2
    assert list(report["seconds"]) == ["package", "transfer", "queue", "run", "results"]
    assert list(report["link"]) == ["kind", "engine"]
    return report


def assert_model(model: Path) -> None:
    assert {path.name for path in model.iterdir()} >= MODEL_FILES
    newest = max(model.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "training_config.yaml"


def assert_stopped_and_kept(client: Program, timeout_s: float) -> None:
    """Interrupt after the first epoch; the model made so far comes home."""
    client.wait_event(timeout_s, event="progress", kind="epoch_end")
    client.interrupt()
    assert client.wait(TRAINING_S) == 0, client.story()
    assert client.report["state"] == "succeeded"
    (model,) = client.report["models"]
    assert_model(Path(model))
    assert {"event": "state", "state": "stopping", "step": 0} in client.events


def predicted(path: str) -> Any:
    import sleap_io

    return sleap_io.load_slp(path, open_videos=False)


def source_name(labels: Any) -> str:
    """Return the file name of the one video that the labels belong to."""
    (video,) = labels.videos
    while video.source_video is not None:
        video = video.source_video
    return Path(str(video.filename)).name


# -- the generated project, on every machine -------------------------------------------


def test_a_package_trains_as_it_would_here(
    programs: Programs,
    worker: Worker,
    demo_package: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = rewrite(
        demo_package,
        tmp_path / "demo.zip",
        lambda members: shorten(members, epochs=2, steps=6),
    )
    client = programs.train(package, worker.session, output)
    report = finished(client)

    centroid, instance = models = [Path(model) for model in report["models"]]
    assert centroid == output / "models" / "demo.centroid.n=20"
    assert instance == output / "models" / "demo.centered_instance.n=20"
    for model in models:
        assert_model(model)
    (predictions,) = report["predictions"]
    assert predictions == str(output / "demo.pkg.slp.predictions.slp")
    assert source_name(predicted(predictions)) == "demo.mp4"
    assert sorted(path.name for path in output.iterdir()) == [
        "demo.pkg.slp.predictions.slp",
        "models",
    ]
    # Standard output is for programs: events, then the report, and nothing else.
    assert len(client.events) == len(client.out)
    steps = [e["step"] for e in client.events if e.get("kind") == "epoch_end"]
    assert sorted(set(steps)) == [0, 1]
    assert worker.out == [worker.session]

    local = extract(package, tmp_path / "local")
    assert_same_as_local(programs, local, models)


def test_a_config_that_sleap_nn_refuses(
    programs: Programs,
    worker: Worker,
    demo_package: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    def change(members: Members) -> None:
        edit_config(members, CENTROID, {"trainer_config.optimizer_name": "Nonsense"})

    package = rewrite(demo_package, tmp_path / "bad.zip", change)
    client = programs.train(package, worker.session, output)
    assert client.wait() == 5, client.story()
    error = client.report["error"]
    assert error["code"] == "config_refused"
    assert CENTROID in error["message"]
    assert client.err[-1] == error["message"]
    assert "Traceback" not in "\n".join(client.err)
    assert client.report["state"] == "rejected"
    assert not output.exists() or not list(output.iterdir())


@POSIX
def test_a_long_training_is_stopped_and_kept(
    programs: Programs,
    worker: Worker,
    demo_package: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = rewrite(
        demo_package,
        tmp_path / "long.zip",
        lambda members: shorten(members, epochs=200, steps=6),
    )
    assert_stopped_and_kept(programs.train(package, worker.session, output), TRAINING_S)


@POSIX
@pytest.mark.timeout(1200)
def test_trainings_that_are_cut_off_go_on_from_their_checkpoints(
    programs: Programs,
    lab: Programs,
    worker: Worker,
    demo_package: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    """The first loses its sleap-nn; the second is told to end, as by a shutdown."""
    epochs = 4
    package = rewrite(
        demo_package,
        tmp_path / "cut.zip",
        lambda members: shorten(members, epochs=epochs, steps=6),
    )
    client = programs.train(package, worker.session, output)
    for step, epoch, who, how in (
        (0, 1, "trainer_pid", signal.SIGKILL),
        (1, 0, "pid", signal.SIGTERM),
    ):
        client.wait_event(
            TRAINING_S, event="progress", kind="epoch_end", step=step, epoch=epoch
        )
        os.kill(runner_of(lab, step)[who], how)
    report = finished(client, is_new=False)
    for step, model in enumerate(map(Path, report["models"])):
        said = [e for e in client.events if e.get("step") == step]
        for kind in ("epoch_begin", "epoch_end"):
            told = [e["epoch"] for e in said if e.get("kind") == kind]
            assert told == list(range(epochs)), client.story()
        lines = [text for e in said for text in e.get("lines", [])]
        [line] = [text for text in lines if "was cut off" in text]
        assert "goes on after epoch" in line
        assert_model(model)
        assert not (model / "last.ckpt").exists()
        with (model / "training_log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == list(range(epochs))
        assert all(row["val/loss"] for row in rows)
        config = (model / "training_config.yaml").read_text()
        assert "  resume_ckpt_path: null\n" in config
    assert len(predicted(report["predictions"][0]).labeled_frames) > 0
    left = {path.name for path in (output / "models").iterdir()}
    assert left == {Path(model).name for model in report["models"]}


def runner_of(lab: Programs, step: int) -> dict[str, Any]:
    """Return what the runner of a step says of itself, in the newest job."""
    found = (lab.folder / "worker-data").glob(f"jobs/*/steps/{step}/runner.json")
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    state: dict[str, Any] = json.loads(newest.read_bytes())
    return state


# -- the real projects -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_the_flies(
    programs: Programs, worker: Worker, shared_data: Path, output: Path
) -> None:
    import sleap_io

    package = shared_data / "flies.topdown.quick.training_job.zip"
    report = finished(programs.train(package, worker.session, output))
    models = [Path(model) for model in report["models"]]
    assert [model.name for model in models] == [
        "261122_074257.centroid.n=24",
        "261122_074258.centered_instance.n=24",
    ]
    for model in models:
        assert_model(model)
    (predictions,) = report["predictions"]
    labels = predicted(predictions)
    assert source_name(labels) == "centered_pair_low_quality.mp4"
    project = sleap_io.load_slp(str(shared_data / "flies.slp"), open_videos=False)
    suggested = {suggestion.frame_idx for suggestion in project.suggestions}
    assert len(suggested) == 10
    # The quick models are too weak to find a fly on every one of them.
    assert {frame.frame_idx for frame in labels} <= suggested


@pytest.mark.needs_shared_data
def test_the_robot_trains_as_it_would_here(
    programs: Programs,
    worker: Worker,
    shared_data: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = shared_data / "robot.single.quick.training_job.zip"
    report = finished(programs.train(package, worker.session, output))
    (model,) = [Path(model) for model in report["models"]]
    assert model.name == "261122_074304.single_instance.n=2"
    assert_model(model)
    (predictions,) = report["predictions"]
    assert source_name(predicted(predictions)) == "small_robot.mp4"
    local = extract(package, tmp_path / "local")
    assert_same_as_local(programs, local, [model])


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_the_flies_train_as_they_would_here(
    programs: Programs,
    worker: Worker,
    shared_data: Path,
    tmp_path: Path,
    output: Path,
) -> None:
    package = shared_data / "flies.topdown.quick.training_job.zip"
    report = finished(programs.train(package, worker.session, output))
    models = [Path(model) for model in report["models"]]
    local = extract(package, tmp_path / "local")
    assert_same_as_local(programs, local, models)


@POSIX
@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.needs_shared_data
@pytest.mark.parametrize("name", ["flies.topdown", "robot.single"])
def test_the_untouched_packages_are_stopped_and_kept(
    programs: Programs,
    worker: Worker,
    shared_data: Path,
    output: Path,
    name: str,
) -> None:
    """200 epochs of 200 batches: on a CPU the first alone takes minutes."""
    package = shared_data / f"{name}.training_job.zip"
    client = programs.train(package, worker.session, output)
    assert_stopped_and_kept(client, 2000.0)
