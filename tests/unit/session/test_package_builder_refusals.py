"""Projects that no package is built from, and what building leaves on the disk."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import sleap_io
from support.saved_projects import (
    as_typed,
    build,
    item,
    to_train,
    trained,
    write_model,
    write_project,
)

from sleap_rtc_plugin.protocol.errors import (
    ConfigRefused,
    DiskFull,
    LabelsUnreadable,
    OptionRefused,
    PackageTooLarge,
    SourceChanged,
    StorageFailed,
)
from sleap_rtc_plugin.session import embedded_labels
from sleap_rtc_plugin.session.run_request import ModelToTrain, TrainedModel


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "my project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "job"


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
            [ModelToTrain(**as_typed("../x", to_train()))],
            "more than one name",
        ),
    ]
    for kind, predictions, wanted, words in cases:
        sentence = refused(kind, project, folder, predictions, wanted)
        assert words in sentence, sentence


def test_more_images_than_fit_into_memory(
    project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_labels, "MAX_EMBEDDED_BYTES", 100)
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
