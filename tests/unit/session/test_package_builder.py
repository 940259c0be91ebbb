"""A package from a saved project: small ones, of image sequences, drawn here."""

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sleap_io
import yaml

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    DiskFull,
    LabelsUnreadable,
    OptionRefused,
    PackageTooLarge,
    SourceChanged,
    StorageFailed,
)
from sleap_rtc_plugin.protocol.messages import PredictStep, TrainStep
from sleap_rtc_plugin.session import package_builder
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


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "my project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "job"


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
        project, folder, models=[ModelToTrain(**_as_typed("mine", to_train()))]
    )
    (step,) = package.spec.steps
    assert isinstance(step, TrainStep)
    assert step.run_name == "mine.centroid.n=3"
    assert frames_in(package, "fly.pkg.slp") == USER
    assert "inference-script.sh" not in package.members


def _as_typed(run_name: str, model: ModelToTrain) -> dict[str, str]:
    return {"head": model.head, "config": model.config, "run_name": run_name}


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


# -- what is refused -----------------------------------------------------------------


def refused(kind: type[Exception], project: Path, folder: Path, *args: Any) -> str:
    predictions, models = args or ((), None)
    with pytest.raises(kind) as caught:
        build(project, folder, *predictions, models=models)
    assert not folder.exists()
    assert not folder.parent.exists() or not any(folder.parent.iterdir())
    return str(caught.value)


def test_projects_that_cannot_be_sent(project: Path, folder: Path) -> None:
    there_is = project.parent / "notes.txt"
    there_is.write_text("notes")
    damaged = project.parent / "damaged.slp"
    damaged.write_bytes(project.read_bytes()[:2000])
    for path, words in (
        (project.with_name("gone.slp"), "there is no file"),
        (project.parent, "it is not a SLEAP project"),
        (there_is, "it is not a SLEAP project"),
        (damaged, "it is not a SLEAP project, or damaged"),
    ):
        sentence = refused(LabelsUnreadable, path, folder)
        assert path.name in sentence
        assert words in sentence


def test_nothing_to_train_on(tmp_path: Path, folder: Path) -> None:
    bare = write_project(tmp_path / "bare", labeled=False)
    assert "no user-labeled frame" in refused(LabelsUnreadable, bare, folder)
    empty = write_project(tmp_path / "empty", labeled=False, skeleton=False)
    assert "no skeleton" in refused(LabelsUnreadable, empty, folder)


def test_a_video_that_was_moved_is_named(project: Path, folder: Path) -> None:
    shutil.rmtree(project.parent / "cam1")
    sentence = refused(LabelsUnreadable, project, folder)
    assert "its video cam1 cannot be read" in sentence
    # Frames of the other video can still be predicted on.
    package = build(
        project, folder, item("--video_index", "0"), models=trained(project)
    )
    assert len(package.spec.steps) == 1


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("0.png", "its video cam0 cannot be read: it was moved or deleted"),
        ("4.png", "its video cam0 cannot be read"),  # one of those that are measured
        ("1.png", "frame 2 of its video cam0 cannot be read"),
    ],
)
def test_an_image_that_is_not_there(
    project: Path, folder: Path, missing: str, words: str
) -> None:
    (project.parent / "cam0" / missing).unlink()
    whole = [item("--video_index", "0")]
    sentence = refused(LabelsUnreadable, project, folder, whole, trained(project))
    assert words in sentence


def test_runs_that_cannot_be(project: Path, folder: Path) -> None:
    models = trained(project)
    legacy = write_model(
        project.parent / "models" / "old", "best_model.h5", "training_config.json"
    )
    bare = write_model(project.parent / "models" / "bare", "training_log.csv")
    cases: list[tuple[type[Exception], list[list[str]], list[Any], str]] = [
        (OptionRefused, [item("--tracking")], [], "tracking without a model"),
        (LabelsUnreadable, [], models, "no frame to predict on"),
        (
            LabelsUnreadable,
            [item("--video_index", "0", "--frames", "99")],
            models,
            "no frame to predict on",
        ),
        (
            LabelsUnreadable,
            [item("--video_index", "2")],
            models,
            "has no video number 3",
        ),
        (
            ConfigRefused,
            [],
            [TrainedModel(head="centroid", path="/not/here")],
            "is not there",
        ),
        (
            ConfigRefused,
            [],
            [TrainedModel(head="centroid", path=str(bare))],
            "has no best.ckpt and no training_config.yaml",
        ),
        (
            ConfigRefused,
            [],
            [TrainedModel(head="centroid", path=str(legacy))],
            "SLEAP 1.4 and older",
        ),
        (
            ConfigRefused,
            [],
            [to_train(model_config__pretrained_head_weights="/not/here.ckpt")],
            "the weights it starts from are not at /not/here.ckpt",
        ),
        (ConfigRefused, [], [to_train(), to_train()], "two models"),
        (ConfigRefused, [], [ModelToTrain(head="x", config="[")], "not YAML"),
        (ConfigRefused, [], [ModelToTrain(head="x", config="a: 1")], "head_configs"),
        (
            ConfigRefused,
            [],
            [ModelToTrain(**_as_typed("../x", to_train()))],
            "more than one name",
        ),
    ]
    for kind, predictions, wanted, words in cases:
        sentence = refused(kind, project, folder, predictions, wanted)
        assert words in sentence, sentence


def test_more_images_than_fit_into_memory(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_builder, "MAX_EMBEDDED_BYTES", 100)
    assert "3 frames" in refused(PackageTooLarge, project, folder)


# -- files and folders ---------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_the_project_is_only_read(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [*trained(project), to_train()]
    before = snapshot(project.parent)
    here = Path.cwd()
    told: list[tuple[str, int, int]] = []
    build(
        project,
        folder,
        item("--video_index", "0"),
        models=models,
        on_progress=lambda *progress: told.append(progress),
    )
    assert snapshot(project.parent) == before
    assert Path.cwd() == here
    assert told[0] == ("loading", 0, 0)
    assert told[1:] == [("embedding", n, 9) for n in range(10)]


def test_a_package_is_built_once(project: Path, folder: Path) -> None:
    first = build(project, folder)
    before = snapshot(folder)
    project.unlink()
    assert build(project, folder).spec == first.spec
    assert snapshot(folder) == before


def test_what_a_killed_process_left_is_cleared(project: Path, folder: Path) -> None:
    left = folder.parent / f".{folder.name}.abc"
    other = folder.parent / ".other.abc"
    left.mkdir(parents=True)
    (left / "fly.pkg.slp").write_text("half")
    other.mkdir()
    build(project, folder)
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_giving_up_leaves_nothing(project: Path, folder: Path, stage: int) -> None:
    class GivenUp(Exception):
        pass

    told: list[str] = []

    def on_progress(phase: str, done: int, total: int) -> None:
        told.append(phase)
        if len(told) > stage:
            raise GivenUp

    with pytest.raises(GivenUp):
        build(project, folder, on_progress=on_progress)
    assert not folder.parent.exists() or not any(folder.parent.iterdir())


def test_a_project_that_is_saved_while_it_is_read(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = sleap_io.load_slp

    def load_and_save(path: str) -> Any:
        labels = load(path)
        os.utime(path, ns=(1, 1))
        return labels

    monkeypatch.setattr(sleap_io, "load_slp", load_and_save)
    assert "fly.slp changed" in refused(SourceChanged, project, folder)


def test_embedded_images_that_are_saved_again(project: Path, folder: Path) -> None:
    embedded = project.with_name("fly.pkg.slp")
    labels = sleap_io.load_slp(str(project))
    sleap_io.save_file(labels, str(embedded), embed="user", verbose=False)

    def save_again(phase: str, done: int, total: int) -> None:
        if done == total:
            os.utime(embedded, ns=(done, done))

    with pytest.raises(SourceChanged):
        build(embedded, folder, on_progress=save_again)
    # Of a project whose images lie elsewhere, everything was read in one moment.
    build(project, folder, on_progress=lambda *_: os.utime(project, ns=(1, 1)))


def test_a_disk_that_is_too_small(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    assert "not enough space" in refused(DiskFull, project, folder)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = …"),
    ],
)
def test_a_disk_that_fills_up(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sleap_io, "save_file", fail)
    refused(DiskFull, project, folder)


def test_a_model_that_goes_away(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    models = trained(project)
    monkeypatch.setattr(shutil, "copyfile", fail)
    sentence = refused(
        StorageFailed, project, folder, [item("--only_labeled_frames")], models
    )
    assert "best.ckpt" in sentence
