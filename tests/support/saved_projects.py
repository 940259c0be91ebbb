"""Saved projects of image sequences, drawn here, and packages built from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sleap_io
import yaml

from sleap_rtc_plugin.session.package_builder import build_package
from sleap_rtc_plugin.session.run_request import (
    ModelToTrain,
    ProjectFacts,
    RunRequest,
    TrainedModel,
)
from sleap_rtc_plugin.session.training_package import TrainingPackage, open_package

NOW = "261122_074257"
FRAMES = 6
SIZE_PX = 24
USER = {(0, 0), (0, 2), (1, 1)}
PREDICTED = {(0, 3), (0, 2)}
SUGGESTED = {(0, 4), (1, 1), (1, 5)}


def image(video: int, frame: int) -> Any:
    """Draw a frame that no other frame is like."""
    drawn = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    drawn[frame + 1, :] = 40 * (video + 1)
    return drawn


def write_videos(folder: Path) -> list[Any]:
    import imageio.v3

    videos = []
    for index in range(2):
        place = folder / f"cam{index}"
        place.mkdir(parents=True)
        names = [place / f"{number}.png" for number in range(FRAMES)]
        for number, name in enumerate(names):
            imageio.v3.imwrite(name, image(index, number))
        videos.append(sleap_io.Video.from_filename([str(name) for name in names]))
    return videos


def write_project(folder: Path, *, labeled: bool = True, skeleton: bool = True) -> Path:
    """Write `fly.slp`: two videos, user labels, predictions and suggestions."""
    videos = write_videos(folder)
    fly = sleap_io.Skeleton(["head", "tail"], edges=[("head", "tail")], name="fly")
    points = np.array([[4.0, 5.0], [6.0, 7.0]])
    labels = sleap_io.Labels(videos=videos, skeletons=[fly] if skeleton else [])
    for video, number in sorted(USER | PREDICTED) if labeled else ():
        instances = []
        if (video, number) in USER:
            instances.append(sleap_io.Instance.from_numpy(points, skeleton=fly))
        if (video, number) in PREDICTED:
            guess = sleap_io.PredictedInstance.from_numpy(points, skeleton=fly)
            instances.append(guess)
        labels.append(
            sleap_io.LabeledFrame(
                video=videos[video], frame_idx=number, instances=instances
            )
        )
    labels.suggestions = [
        sleap_io.SuggestionFrame(video=videos[video], frame_idx=number)
        for video, number in sorted(SUGGESTED)
    ]
    path = folder / "fly.slp"
    sleap_io.save_file(labels, str(path), verbose=False)
    return path


def config(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "data_config": {"train_labels_path": None},
        "model_config": {"head_configs": {"centroid": {"confmaps": {}}}},
        "trainer_config": {"wandb": {"api_key": "secret-key"}},
    }
    for dotted, setting in changes.items():
        section, key = dotted.split("__")
        value[section][key] = setting
    return value


def to_train(head: str = "centroid", **changes: Any) -> ModelToTrain:
    return ModelToTrain(head=head, config=yaml.safe_dump(config(**changes)))


def item(*words: str) -> list[str]:
    return ["sleap", "predict", "--gui", "--data_path", "/x/fly.slp", *words]


def write_model(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for name in files or ("best.ckpt", "training_config.yaml", "training_log.csv"):
        text = yaml.safe_dump(config()) if name.endswith(".yaml") else name
        folder.joinpath(name).write_text(text)
    return folder


def build(
    project: Path,
    folder: Path,
    *predictions: list[str],
    models: list[ModelToTrain | TrainedModel] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
    **settings: Any,
) -> TrainingPackage:
    """Build a package and open it, the way the companion does."""
    run = RunRequest(
        project=ProjectFacts(path=str(project)),
        models=[to_train()] if models is None else models,
        predictions=list(predictions),
        **settings,
    )
    built = build_package(run, folder, now=NOW, on_progress=on_progress)
    assert built == folder
    return open_package(
        built, folder.parent / "opened", keep_wandb_key=run.send_wandb_key
    )


def trained(project: Path) -> list[ModelToTrain | TrainedModel]:
    path = write_model(project.parent / "models" / "a.centroid")
    return [TrainedModel(head="centroid", path=str(path))]


def frames_in(package: TrainingPackage, name: str) -> set[tuple[int, int]]:
    """Return the frames of a labels file, and check that each has its own image."""
    labels = sleap_io.load_slp(str(package.root / name))
    places = set()
    for frame in [*labels.labeled_frames, *labels.suggestions]:
        place = labels.videos.index(frame.video), frame.frame_idx
        seen = frame.video[frame.frame_idx][..., 0]
        np.testing.assert_array_equal(seen, image(*place))
        places.add(place)
    return places


def as_typed(run_name: str, model: ModelToTrain) -> dict[str, str]:
    return {"head": model.head, "config": model.config, "run_name": run_name}
