"""What a package from a saved project holds: steps, frames, models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sleap_io
import yaml
from support.saved_projects import (
    FRAMES,
    NOW,
    PREDICTED,
    SUGGESTED,
    USER,
    as_typed,
    build,
    frames_in,
    image,
    item,
    to_train,
    trained,
    write_model,
    write_project,
)

from sleap_rtc_plugin.protocol.errors import LabelsUnreadable
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.session.package_builder import (
    FindVideos,
    build_package,
    video_names,
)
from sleap_rtc_plugin.session.project_labels import VideoFile, open_project
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    ProjectFacts,
    RunRequest,
    TrainedModel,
)
from sleap_rtc_plugin.session.training_package import check_labels, open_package


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "my project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "job"


# -- what is in it ---------------------------------------------------------------


def test_training_and_suggestions(project: Path, folder: Path) -> None:
    package = build(project, folder, item("--only_suggested_frames"))
    run_name = f"{NOW}.centroid.n=3"
    assert package.spec.steps == [
        TrainStep(
            config="centroid.yaml",
            labels="fly.pkg.slp",
            run_name=run_name,
            head="centroid",
        ),
        PredictStep(
            data="fly.pkg.slp",
            models=[f"models/{run_name}"],
            output=f"fly.{NOW}.predictions.slp",
            options={"only_suggested_frames": "", "restore_source_videos": ""},
        ),
    ]
    # A suggestion that the user has labeled is not predicted on.
    assert frames_in(package, "fly.pkg.slp") == USER | SUGGESTED - USER
    assert set(package.members) == {
        *("centroid.yaml", "fly.pkg.slp", "jobs.yaml"),
        *("train-script.sh", "inference-script.sh"),
    }
    labels = sleap_io.load_slp(str(folder / "fly.pkg.slp"), open_videos=False)
    assert [len(frame.user_instances) for frame in labels] == [1, 1, 1]
    assert len(labels.videos) == 2


def test_training_alone(project: Path, folder: Path) -> None:
    package = build(
        project, folder, models=[ModelToTrain(**as_typed("mine", to_train()))]
    )
    (step,) = package.spec.steps
    assert isinstance(step, TrainStep)
    assert step.run_name == "mine.centroid.n=3"
    assert frames_in(package, "fly.pkg.slp") == USER
    assert "inference-script.sh" not in package.members


def test_predicted_instances_are_trained_on_where_asked(
    project: Path, folder: Path
) -> None:
    models = [to_train(data_config__user_instances_only=False)]
    package = build(project, folder, models=models)
    assert frames_in(package, "fly.pkg.slp") == USER | PREDICTED


@pytest.mark.parametrize(
    ("words", "frames", "option"),
    [
        (["--only_labeled_frames"], USER, "only_labeled_frames"),
        (["--only_suggested_frames"], SUGGESTED - USER, "only_suggested_frames"),
        (["--only_predicted_frames"], PREDICTED, None),
        (["--only_predicted_frames", "--exclude_user_labeled"], {(0, 3)}, None),
        ([], USER | PREDICTED | SUGGESTED, None),
        (["--video_index", "1"], {(1, n) for n in range(FRAMES)}, None),
        (["--video_index", "0", "--frames", "5,1"], {(0, 1), (0, 5)}, None),
        (["--video_index", "0", "--frames", "2,-4"], {(0, 2), (0, 3), (0, 4)}, None),
        (["--video_index", "0", "--frames", "4-999999999"], {(0, 4), (0, 5)}, None),
        (
            ["--video_index", "0", "--exclude_user_labeled"],
            {(0, n) for n in (1, 3, 4, 5)},
            None,
        ),
        (["--video_index", "1", "--only_suggested_frames"], {(1, 5)}, None),
    ],
)
def test_prediction_alone(
    project: Path,
    folder: Path,
    words: list[str],
    frames: set[tuple[int, int]],
    option: str | None,
) -> None:
    package = build(project, folder, item(*words), models=trained(project))
    (step,) = package.spec.steps
    assert isinstance(step, PredictStep)
    assert step.data == package.labels == "fly.pkg.slp"
    assert frames_in(package, "fly.pkg.slp") == frames
    filters = {name for name in step.options if name.startswith("only_")}
    assert filters == ({option} if option else set())
    assert "video_index" not in step.options
    assert "frames" not in step.options


def test_frames_of_two_videos_are_one_step(project: Path, folder: Path) -> None:
    package = build(
        project,
        folder,
        item("--video_index", "0", "--frames", "5", "--tracking"),
        item("--video_index", "1", "--frames", "4", "--tracking"),
        item("--video_index", "1", "--frames", "3"),
        models=[to_train()],
    )
    _, both, one = package.spec.steps
    assert isinstance(both, PredictStep)
    assert isinstance(one, PredictStep)
    assert (both.data, one.data) == ("fly.2.pkg.slp", "fly.3.pkg.slp")
    assert (both.output, one.output) == (
        f"fly.{NOW}.predictions.slp",
        f"fly.{NOW}.2.predictions.slp",
    )
    assert frames_in(package, "fly.pkg.slp") == USER
    assert frames_in(package, "fly.2.pkg.slp") == {(0, 5), (1, 4)}
    assert frames_in(package, "fly.3.pkg.slp") == {(1, 3)}


def test_an_item_without_frames_is_left_out_of_a_training(
    project: Path, folder: Path
) -> None:
    nothing = item("--video_index", "0", "--frames", "2", "--exclude_user_labeled")
    package = build(project, folder, nothing)
    assert [type(step) for step in package.spec.steps] == [TrainStep]


def test_a_project_with_embedded_images(project: Path, folder: Path) -> None:
    embedded = project.with_name("fly.pkg.slp")
    labels = sleap_io.load_slp(str(project))
    sleap_io.save_file(labels, str(embedded), embed="user", verbose=False)
    package = build(
        embedded,
        folder,
        item("--only_labeled_frames"),
        item("--video_index", "0", "--frames", "0,-5", "--peak_threshold", "0.1"),
        item("--video_index", "0"),
        models=trained(project),
    )
    assert frames_in(package, "fly.pkg.slp") == USER
    assert frames_in(package, "fly.2.pkg.slp") == {(0, 0), (0, 2)}
    assert frames_in(package, "fly.3.pkg.slp") == {(0, 0), (0, 2)}


def test_names_that_no_file_may_have(project: Path, folder: Path) -> None:
    odd = project.rename(project.with_name("day 1: fly?.slp"))
    package = build(odd, folder)
    assert package.labels == "day 1_ fly_.pkg.slp"


# -- models --------------------------------------------------------------------------


def test_weights_to_start_from_are_sent_once(project: Path, folder: Path) -> None:
    model = write_model(project.parent / "models" / "a.centroid")
    weights = str(model / "best.ckpt")
    package = build(
        project,
        folder,
        models=[
            to_train(
                model_config__pretrained_backbone_weights=weights,
                model_config__pretrained_head_weights="models/a.centroid/best.ckpt",
            )
        ],
    )
    sent = yaml.safe_load((package.root / "centroid.yaml").read_text())["model_config"]
    assert sent["pretrained_backbone_weights"] == "weights.1.ckpt"
    assert sent["pretrained_head_weights"] == "weights.1.ckpt"
    assert (package.root / "weights.1.ckpt").read_text() == "best.ckpt"
    assert "weights.1.ckpt" in package.members


def test_trained_models_are_sent_without_the_rest(project: Path, folder: Path) -> None:
    first = write_model(project.parent / "models" / "a.centroid.n=3")
    second = write_model(project.parent / "models" / "b.centered")
    package = build(
        project,
        folder,
        item("--only_labeled_frames"),
        models=[
            TrainedModel(head="centroid", path=str(first)),
            TrainedModel(
                head="centered_instance", path=str(second / "training_config.yaml")
            ),
        ],
    )
    (step,) = package.spec.steps
    assert isinstance(step, PredictStep)
    assert step.models == ["trained/1.a.centroid.n=3", "trained/2.b.centered"]
    assert {name for name in package.members if name.startswith("trained/")} == {
        f"{model}/{name}"
        for model in step.models
        for name in ("best.ckpt", "training_config.yaml")
    }


def test_a_trained_model_beside_one_to_train(project: Path, folder: Path) -> None:
    package = build(
        project,
        folder,
        item("--only_labeled_frames"),
        models=[*trained(project), to_train()],
    )
    predict = package.spec.steps[-1]
    assert isinstance(predict, PredictStep)
    assert predict.models == ["trained/1.a.centroid", f"models/{NOW}.centroid.n=3"]


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_wandb_key_goes_only_where_the_user_sends_it(
    project: Path, folder: Path, is_sent: bool
) -> None:
    models = [*trained(project), to_train()]
    package = build(
        project,
        folder,
        item("--only_labeled_frames"),
        models=models,
        send_wandb_key=is_sent,
    )
    assert package.spec.allow_wandb is is_sent
    holders = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and b"secret-key" in path.read_bytes()
    }
    expected = {"centroid.yaml", "trained/1.a.centroid/training_config.yaml"}
    assert holders == (expected if is_sent else set())


# -- videos that the worker has ------------------------------------------------------


def film(project: Path) -> list[Path]:
    """Put two films in place of the project's sequences of images."""
    import h5py
    import numpy as np

    folder = project.parent
    paths = [folder / "cam0.mp4", folder / "cam1.mkv"]
    for index, path in enumerate(paths):
        frames = np.stack([image(index, number) for number in range(FRAMES)])
        sleap_io.save_video(frames[..., None], str(path))
    with h5py.File(project, "r+") as file:
        del file["videos_json"]
        file["videos_json"] = [
            json.dumps(
                {
                    "filename": str(path),
                    "backend": {
                        "type": "MediaVideo",
                        "filename": str(path),
                        "shape": [FRAMES, *image(0, 0).shape, 1],
                        "grayscale": True,
                    },
                }
            )
            for path in paths
        ]
    return paths


def has(*indices: int) -> tuple[FindVideos, list[tuple[list[int], int]]]:
    """Return a worker that has these videos, and what it is asked."""
    asked: list[tuple[list[int], int]] = []

    def find(files: Sequence[VideoFile], used: int) -> dict[int, str]:
        asked.append(([file.index for file in files], used))
        return {index: f"/data/lab/{index}.mp4" for index in indices}

    return find, asked


def built(project: Path, folder: Path, find: FindVideos, *words: list[str]) -> Any:
    run = RunRequest(
        project=ProjectFacts(path=str(project)),
        models=[to_train()],
        predictions=list(words),
    )
    build_package(run, folder, now=NOW, on_progress=lambda *_: None, find_videos=find)
    return sleap_io.load_slp(str(folder / "fly.pkg.slp"), open_videos=False)


def test_videos_that_the_worker_has_are_named_and_not_embedded(
    project: Path, folder: Path
) -> None:
    film(project)
    find, asked = has(0)
    labels = built(project, folder, find)
    assert asked == [([0, 1], 2)]
    first, second = labels.videos
    assert first.filename == "/data/lab/0.mp4"
    assert first.shape[0] == FRAMES
    assert second.filename == str(folder / "fly.pkg.slp")
    places = {(labels.videos.index(f.video), f.frame_idx) for f in labels}
    assert places == USER


def test_nothing_is_embedded_where_the_worker_has_all(
    project: Path, folder: Path
) -> None:
    film(project)
    find, _ = has(0, 1)
    labels = built(project, folder, find, item("--only_suggested_frames"))
    assert [video.filename for video in labels.videos] == [
        "/data/lab/0.mp4",
        "/data/lab/1.mp4",
    ]
    assert {s.frame_idx for s in labels.suggestions} == {4, 5}
    with pytest.raises(LabelsUnreadable, match="not embedded"):
        check_labels(folder / "fly.pkg.slp")
    check_labels(folder / "fly.pkg.slp", needs_images=False)


def test_only_videos_with_frames_go_along_with_those_of_the_worker(
    project: Path, folder: Path
) -> None:
    film(project)
    find, asked = has(0)
    words = item("--video_index", "0", "--frames", "1")
    run = RunRequest(
        project=ProjectFacts(path=str(project)),
        models=trained(project),
        predictions=[words],
    )
    build_package(run, folder, now=NOW, on_progress=lambda *_: None, find_videos=find)
    assert asked == [([0], 1)]
    labels = sleap_io.load_slp(str(folder / "fly.pkg.slp"), open_videos=False)
    assert [video.filename for video in labels.videos] == ["/data/lab/0.mp4"]


def test_frames_that_a_video_does_not_have_are_refused_wherever_it_is(
    project: Path, folder: Path
) -> None:
    paths = film(project)
    sleap_io.save_video(image(0, 0)[None, ..., None], str(paths[0]))
    find, _ = has(0)
    with pytest.raises(LabelsUnreadable, match=r"cam0\.mp4"):
        built(project, folder, find)


def test_no_sequence_of_images_is_looked_for(project: Path, folder: Path) -> None:
    find, asked = has()
    built(project, folder, find)
    assert asked == [([], 2)]


def test_a_list_of_files_is_no_video_to_look_for(project: Path, folder: Path) -> None:
    paths = film(project)
    paths[1].write_text("#EXTM3U\n")
    project_labels = open_project(project)
    assert [file.index for file in project_labels.video_files(USER)] == [0]


def test_what_the_worker_calls_its_videos_is_kept_and_not_sent(
    project: Path, folder: Path
) -> None:
    paths = film(project)
    find, _ = has(0)
    built(project, folder, find)
    assert video_names(folder) == {"/data/lab/0.mp4": paths[0].as_posix()}
    package = open_package(folder, folder.parent / "opened")
    assert set(package.members) == {
        *("centroid.yaml", "fly.pkg.slp", "jobs.yaml", "train-script.sh")
    }
    assert video_names(folder.parent) == {}
