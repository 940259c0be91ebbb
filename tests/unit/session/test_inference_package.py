"""The package of an inference: data, models, steps, and what is refused."""

import os
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import sleap_io
from support.saved_projects import PREDICTED, SUGGESTED, USER, write_project

from sleap_rtc_plugin.protocol.errors import (
    LabelsUnreadable,
    NotAModel,
    OptionRefused,
    VideoUnreadable,
)
from sleap_rtc_plugin.protocol.limits import MAX_STEPS
from sleap_rtc_plugin.protocol.messages import PredictStep
from sleap_rtc_plugin.session.inference_package import (
    InferenceRequest,
    RoomModel,
    TrainedSet,
    build_inference,
)
from sleap_rtc_plugin.session.model_choice import choose_models
from sleap_rtc_plugin.session.package_scan import scan_package
from sleap_rtc_plugin.session.training_package import TrainingPackage

MODEL = "model-0123456789abcdef0123"
ROOM = RoomModel("flies-v1", MODEL)
LENGTH = 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def video_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "made.mp4"
    frames = np.zeros((LENGTH, 32, 32, 3), np.uint8)
    for number in range(LENGTH):
        frames[number, number] = 200
    imageio.v3.imwrite(path, frames, fps=10, macro_block_size=16)
    return path.read_bytes()


@pytest.fixture
def video(tmp_path: Path, video_bytes: bytes) -> Path:
    path = tmp_path / "videos" / "fly.MP4"
    path.parent.mkdir()
    path.write_bytes(video_bytes)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def model(folder: Path, head: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "best.ckpt").write_bytes(b"weights")
    (folder / "training_config.yaml").write_text(
        f"model_config: {{head_configs: {{{head}: {{confmaps: {{}}}}}}}}\n"
        "trainer_config: {wandb: {api_key: secret}}\n"
    )
    (folder / "labels_pr.val.0.slp").write_bytes(b"not needed")
    return folder


def build(
    tmp_path: Path, *data: Path, models: tuple[object, ...] = (ROOM,), **rest: object
) -> TrainingPackage:
    workdir = tmp_path / "work"
    workdir.mkdir(exist_ok=True)
    request = InferenceRequest(data, models, **rest)  # type: ignore[arg-type]
    return build_inference(request, workdir)


def steps_of(package: TrainingPackage) -> list[PredictStep]:
    steps = package.spec.steps
    assert all(isinstance(step, PredictStep) for step in steps)
    return steps  # type: ignore[return-value]


# -- videos --------------------------------------------------------------------------


def test_a_video_goes_as_it_is(tmp_path: Path, video: Path) -> None:
    options = {"frames": "0-99", "peak_threshold": "0.1"}
    package = build(tmp_path, video, options=options)
    assert package.members == ("fly.mp4",)
    assert (package.root / "fly.mp4").read_bytes() == video.read_bytes()
    (step,) = steps_of(package)
    assert step.data == "fly.mp4"
    assert (step.models, step.published) == ([], MODEL)
    assert step.output == "fly.flies-v1.predictions.slp"
    assert step.options == {"frames": f"0-{LENGTH - 1}", "peak_threshold": "0.1"}
    assert package.video_names == {"fly.mp4": video.as_posix()}


def test_a_video_is_not_copied(tmp_path: Path, video: Path) -> None:
    member = build(tmp_path, video).root / "fly.mp4"
    assert member.samefile(video)
    assert os.path.realpath(member) == str(video)


def test_frames_by_chance_are_told_and_the_same_again(
    tmp_path: Path, video: Path
) -> None:
    first, again, other = (
        build(tmp_path, video, by_chance=2, seed=seed) for seed in (3, 3, 5)
    )
    (step,) = steps_of(first)
    assert len(step.options["frames"].replace("-", ",").split(",")) == 2
    assert first.spec == again.spec
    assert "2 frames chosen by chance with --seed 3" in first.notes[0]
    assert "--seed 5" in other.notes[0]


@pytest.mark.parametrize("name", ["fly.mp4", "fly.avi"])
def test_what_is_no_video_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"#!/bin/sh\n" * 10)
    with pytest.raises(VideoUnreadable, match=f"{name} gives no frames"):
        build(tmp_path, tmp_path / name)


def test_a_video_that_is_cut_off_is_refused(tmp_path: Path, video: Path) -> None:
    video.write_bytes(video.read_bytes()[:60])
    with pytest.raises(VideoUnreadable):
        build(tmp_path, video)


# -- labels --------------------------------------------------------------------------


def loaded(package: TrainingPackage) -> sleap_io.Labels:
    return sleap_io.load_slp(str(package.root / package.labels))


def places(labels: sleap_io.Labels) -> set[tuple[str, int]]:
    return {(str(labels.videos.index(f.video)), f.frame_idx) for f in labels}


def test_labels_go_with_their_images(tmp_path: Path, project: Path) -> None:
    package = build(tmp_path, project)
    (step,) = steps_of(package)
    assert step.data == package.labels == "fly.pkg.slp"
    assert step.options == {"restore_source_videos": ""}
    labels = loaded(package)
    wanted = {(str(v), n) for v, n in USER | PREDICTED | SUGGESTED}
    assert places(labels) == wanted
    assert all(video.backend.has_embedded_images for video in labels.videos)


def test_suggestions_alone(tmp_path: Path, project: Path) -> None:
    package = build(tmp_path, project, options={"only_suggested_frames": ""})
    (step,) = steps_of(package)
    assert "only_suggested_frames" in step.options
    labels = loaded(package)
    assert not labels.labeled_frames
    assert len(labels.suggestions) == len(SUGGESTED - USER)


def test_frames_of_one_of_its_videos(tmp_path: Path, project: Path) -> None:
    options = {"video_index": "1", "frames": "0-2"}
    package = build(tmp_path, project, options=options)
    assert {number for _, number in places(loaded(package))} == {0, 1, 2}
    with pytest.raises(OptionRefused, match="of which video"):
        build(tmp_path, project, options={"frames": "0-2"})


def test_the_same_labels_again_are_the_same_bytes(
    tmp_path: Path, project: Path
) -> None:
    first, again = (build(tmp_path, project) for _ in range(2))
    assert first.root != again.root
    digests = {scan_package(p, lambda *_: None).manifest_digest for p in (first, again)}
    assert len(digests) == 1
    labels = sleap_io.load_slp(str(project))
    labels.suggestions.pop()
    sleap_io.save_file(labels, str(project), verbose=False)
    changed = build(tmp_path, project)
    assert scan_package(changed, lambda *_: None).manifest_digest not in digests


def test_labels_tell_nothing_of_folders_here(tmp_path: Path, project: Path) -> None:
    package = build(tmp_path, project)
    data = (package.root / package.labels).read_bytes()
    assert str(tmp_path / "work").encode() not in data


def test_labels_without_a_frame_are_refused(tmp_path: Path) -> None:
    project = write_project(tmp_path / "empty", labeled=False)
    with pytest.raises(LabelsUnreadable, match="no frame to predict on"):
        build(tmp_path, project, options={"only_labeled_frames": ""})


# -- models, steps and names -----------------------------------------------------------


def test_a_pair_from_here_is_one_set(tmp_path: Path, video: Path) -> None:
    instance = model(tmp_path / "models" / "b.instance", "centered_instance")
    centroid = model(tmp_path / "models" / "a.centroid", "centroid")
    single = model(tmp_path / "models" / "c.single", "single_instance")
    words = [str(instance), str(single), str(centroid / "best.ckpt")]
    chosen = choose_models(words)
    assert chosen.sets == (TrainedSet((centroid, instance)), TrainedSet((single,)))
    package = build(tmp_path, video, models=chosen.sets)
    first, second = steps_of(package)
    assert first.models == ["trained/1.1.a.centroid", "trained/1.2.b.instance"]
    assert second.models == ["trained/2.1.c.single"]
    assert first.output == "fly.a.centroid.predictions.slp"
    config = (package.root / first.models[0] / "training_config.yaml").read_text()
    assert "secret" not in config
    assert not any("labels_pr" in member for member in package.members)


def test_every_data_with_every_model(tmp_path: Path, video: Path) -> None:
    other = tmp_path / "more" / "fly.mp4"
    other.parent.mkdir()
    other.write_bytes(video.read_bytes())
    models = (ROOM, RoomModel("Flies-v1".lower() + ".2", MODEL))
    package = build(tmp_path, video, other, models=models)
    steps = steps_of(package)
    assert package.members == ("fly.2.mp4", "fly.mp4")
    assert [step.output for step in steps] == [
        "fly.flies-v1.predictions.slp",
        "fly.flies-v1.2.predictions.slp",
        "fly.2.flies-v1.predictions.slp",
        "fly.2.flies-v1.2.predictions.slp",
    ]
    assert len({step.output.casefold() for step in steps}) == len(steps)
    assert package.video_names["fly.2.mp4"] == other.as_posix()


def test_more_than_a_job_holds_is_refused(tmp_path: Path, video: Path) -> None:
    models = tuple(RoomModel(f"m{n}", MODEL) for n in range(MAX_STEPS + 1))
    with pytest.raises(OptionRefused, match=f"at most {MAX_STEPS}"):
        build(tmp_path, video, models=models)


# -- the words after --model ---------------------------------------------------------


def test_words_are_folders_or_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = model(tmp_path / "flies-v1", "bottomup")
    chosen = choose_models(["flies-v1", "flies-v2", MODEL])
    assert chosen.sets == (
        TrainedSet((here,)),
        RoomModel("flies-v2"),
        RoomModel(MODEL),
    )
    assert "flies-v1 is a folder here" in chosen.notes[0]
    assert choose_models(["./flies-v1"]).notes == ()


def test_a_folder_of_one_set_is_that_set(tmp_path: Path) -> None:
    centroid = model(tmp_path / "pulled" / "x.centroid", "centroid")
    instance = model(tmp_path / "pulled" / "a.instance", "centered_instance")
    chosen = choose_models([str(tmp_path / "pulled")])
    assert chosen.sets == (TrainedSet((centroid, instance)),)
    model(tmp_path / "pulled" / "z", "centroid")
    with pytest.raises(NotAModel, match="several models"):
        choose_models([str(tmp_path / "pulled")])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [("nothing/here", "no such file"), ("empty/", "no best.ckpt")],
)
def test_a_path_without_a_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAModel, match=sentence):
        choose_models([word])


def test_what_can_be_neither_is_refused() -> None:
    with pytest.raises(OptionRefused, match="no folder here, and an alias must be"):
        choose_models(["Flies V1"])
