"""What we rely on in SLEAP, with the real MainWindow, dialogs, LossViewer and merge."""

import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

pytest.importorskip("sleap")

import sleap_io
import yaml
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton

from sleap_rtc_plugin.gui import sleap_compat
from sleap_rtc_plugin.gui.monitor_ports import SLEAP_PORTS, choose_ports
from sleap_rtc_plugin.session.run_request import (
    MergeChoice,
    ModelToTrain,
    TrainedModel,
)


@pytest.fixture
def project(demo_folder: Path, tmp_path: Path) -> Path:
    """A saved project of two fish: 20 labeled frames, 8 suggestions."""
    for name in ("demo.mp4", "demo.slp"):
        copy(demo_folder / name, tmp_path)
    return tmp_path / "demo.slp"


@pytest.fixture
def window(project: Path, qtbot: QtBot) -> Iterator[Any]:
    """SLEAP's main window with the project open."""
    from sleap.gui.app import MainWindow

    window = MainWindow(str(project), no_usage_data=True)
    yield window
    window.state["has_changes"] = False
    window.close()


@pytest.fixture
def no_box(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SLEAP says in modal boxes, instead of waiting in one for ever."""
    said: list[str] = []
    monkeypatch.setattr(QMessageBox, "exec_", lambda box: said.append(box.text()))
    return said


# -- is this a SLEAP we know? --------------------------------------------------------


def test_the_sleap_that_is_installed_is_supported() -> None:
    assert sleap_compat.missing_names(load=True) == []
    assert sleap_compat.unsupported_reason(load=True) is None


@pytest.mark.parametrize("version", ["1.5.2", "1.7.0", "2.0"])
def test_another_sleap_is_not(version: str) -> None:
    reason = sleap_compat.unsupported_reason(version)
    assert reason is not None
    assert version in reason


def test_a_sleap_without_a_name_we_need_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from sleap.gui.learning.runners import InferenceTask

    monkeypatch.delattr(InferenceTask, "merge_results")
    reason = sleap_compat.unsupported_reason()
    assert reason is not None
    assert "sleap.gui.learning.runners.InferenceTask.merge_results()" in reason


# -- the project ---------------------------------------------------------------------


def test_facts_of_the_open_project(window: Any, project: Path) -> None:
    opened = sleap_compat.require_ready(window)
    assert opened == sleap_compat.open_project(window)
    assert opened.facts.path == str(project)
    assert opened.facts.videos == ["demo.mp4"]
    assert opened.facts.nodes == window.labels.skeletons[0].node_names
    assert (opened.user_frames, opened.has_changes) == (20, False)


def test_a_project_that_cannot_be_sent_says_what_to_do(
    window: Any, project: Path
) -> None:
    window.commands.changestack_push("an edit")
    assert sleap_compat.open_project(window).has_changes  # type: ignore[union-attr]
    with pytest.raises(sleap_compat.ProjectNotReady, match="unsaved changes"):
        sleap_compat.require_ready(window)
    window.state["has_changes"] = False
    window.labels.labeled_frames.clear()
    with pytest.raises(sleap_compat.ProjectNotReady, match="no labeled frames"):
        sleap_compat.require_ready(window)
    assert sleap_compat.require_ready(window, "inference").user_frames == 0
    project.unlink()
    with pytest.raises(sleap_compat.ProjectNotReady, match="is gone"):
        sleap_compat.require_ready(window)
    window.state["filename"] = None
    assert sleap_compat.open_project(window) is None
    with pytest.raises(sleap_compat.ProjectNotReady, match="never saved"):
        sleap_compat.require_ready(window)


def test_an_empty_project(qtbot: QtBot) -> None:
    from sleap.gui.app import MainWindow

    window = MainWindow(no_usage_data=True)
    assert sleap_compat.open_project(window) is None
    with pytest.raises(sleap_compat.ProjectNotReady, match="no videos"):
        sleap_compat.require_ready(window)
    window.close()


# -- SLEAP's own dialog --------------------------------------------------------------


def test_run_remotely_stands_beside_run_and_follows_it(window: Any) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    button = sleap_compat.add_run_remotely_button(dialog)
    assert sleap_compat.add_run_remotely_button(dialog) is button
    assert dialog.findChild(QPushButton, "runRemotelyButton") is button
    row = button.parentWidget().layout()
    assert row.indexOf(dialog.run_button) == row.indexOf(button) + 1
    assert button.isVisible()
    assert not button.isDefault()
    for is_enabled in (True, False, True):
        dialog.run_button.setEnabled(is_enabled)
        assert button.isEnabled() is is_enabled
    dialog.reject()


def test_every_dialog_is_told_once_however_it_was_opened(window: Any) -> None:
    told: list[tuple[Any, str]] = []
    sleap_compat.on_learning_dialog(window, lambda *event: told.append(event))
    entries = {
        entry.text(): entry
        for menu in window.menuBar().actions()
        for entry in menu.menu().actions()
    }
    shown = []
    for text in ("Run Training...", "Run Inference...", "Run Training..."):
        entries[text].trigger()
        shown.append(QApplication.activeModalWidget())
        QApplication.activeModalWidget().reject()
    assert told == [(shown[0], "training"), (shown[1], "inference")]
    assert shown[2] is shown[0]


def test_a_callback_that_fails_leaves_a_line_and_the_dialog(
    window: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(dialog: Any, mode: str) -> None:
        raise RuntimeError("no button")

    sleap_compat.on_learning_dialog(window, fail)
    dialog = sleap_compat.show_learning_dialog(window, "training")
    assert dialog is not None
    dialog.reject()
    assert [r.message for r in caplog.records if "no button" in r.message] != []


def test_where_sleap_refuses_there_is_no_dialog(window: Any, no_box: list[str]) -> None:
    dialog = sleap_compat.show_learning_dialog(window, "training")
    assert dialog is not None
    dialog.reject()
    window.state["has_changes"] = True
    assert sleap_compat.show_learning_dialog(window, "training") is None
    assert "unsaved changes" in no_box[0]


# -- gathering a run -----------------------------------------------------------------


def test_a_training_run_is_what_run_would_do(window: Any, project: Path) -> None:
    before = sorted(path.name for path in project.parent.iterdir())
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    run = sleap_compat.gather_run(dialog)
    assert dialog.isVisible()
    dialog.reject()

    assert run.project == sleap_compat.require_ready(window).facts
    models = [model for model in run.models if isinstance(model, ModelToTrain)]
    assert [model.head for model in models] == ["centroid", "centered_instance"]
    for model in models:
        config = yaml.safe_load(model.config)
        assert config["model_config"]["head_configs"][model.head]
        assert not [key for key in config if key.startswith("_")]
        assert model.run_name == ""
    # The stock dialog predicts on suggestions after a training.
    (argv,) = run.predictions
    assert argv[:5] == ["sleap", "predict", "--gui", "--data_path", str(project)]
    assert "--only_suggested_frames" in argv
    assert "--model_paths" not in argv
    assert run.merge.mode == "replace"
    assert run.merge.target == "suggestions"
    # SLEAP's own way to an argument list makes a folder when it may name the output.
    assert sorted(path.name for path in project.parent.iterdir()) == before


def test_the_name_of_a_run_and_the_choices_of_the_merge(window: Any) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    dialog.pipeline_form_widget._fields["trainer_config.run_name"].setText("my run")
    selection = dialog.frame_target_selector.get_selection()
    selection.target_key, selection.clear_all_first = "video", True
    dialog.frame_target_selector.set_selection(selection)
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    assert {model.run_name for model in run.models} == {"my run"}  # type: ignore[union-attr]
    assert run.merge.target == "video"
    assert run.merge.clear_all_first
    (argv,) = run.predictions
    assert argv[argv.index("--video_index") + 1] == "0"


def test_nothing_to_predict_is_no_prediction(window: Any) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    selection = dialog.frame_target_selector.get_selection()
    selection.target_key = "nothing"
    dialog.frame_target_selector.set_selection(selection)
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    assert run.predictions == []
    assert len(run.models) == 2


@pytest.fixture
def trained(window: Any, project: Path) -> list[Path]:
    """Folders as they are after a training; the checkpoints are not read here."""
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    folders = []
    for model in run.models:
        assert isinstance(model, ModelToTrain)
        folder = project.parent / "models" / f"home.{model.head}.n=20"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").write_bytes(b"")
        (folder / "training_config.yaml").write_text(model.config, encoding="utf-8")
        folders.append(folder)
    return folders


def test_an_inference_run_takes_models_that_are_trained(
    window: Any, trained: list[Path]
) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "inference")
    assert dialog.run_button.isEnabled()
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    assert run.models == [
        TrainedModel(head=head, path=str(folder / "training_config.yaml"))
        for head, folder in zip(("centroid", "centered_instance"), trained, strict=True)
    ]


def test_a_resumed_training_names_its_weights(window: Any, trained: list[Path]) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    dialog.tabs["centroid"]._radio_resume.setChecked(True)
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    config = yaml.safe_load(run.models[0].config)  # type: ignore[union-attr]
    weights = config["model_config"]["pretrained_backbone_weights"]
    assert weights == (trained[0] / "best.ckpt").as_posix()


def test_a_pipeline_for_this_computer_only_is_refused(
    window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialog: Any = sleap_compat.show_learning_dialog(window, "inference")
    form = {**dialog.pipeline_form_widget.get_form_data(), "_pipeline": "movenet-x"}
    monkeypatch.setattr(dialog.pipeline_form_widget, "get_form_data", lambda: form)
    with pytest.raises(sleap_compat.ProjectNotReady, match="MoveNet"):
        sleap_compat.gather_run(dialog)
    dialog.reject()


def test_new_models_are_listed_in_an_open_dialog(
    window: Any, project: Path, trained: list[Path]
) -> None:
    sleap_compat.refresh_model_lists(window)
    dialog: Any = sleap_compat.show_learning_dialog(window, "inference")
    later = project.parent / "models" / "later.centroid.n=20"
    later.mkdir()
    (later / "best.ckpt").write_bytes(b"")
    copy(trained[0] / "training_config.yaml", later)
    sleap_compat.refresh_model_lists(window)
    infos = dialog._cfg_getter.get_filtered_configs("centroid", only_trained=True)
    dialog.reject()
    assert {Path(info.path).parent for info in infos} == {trained[0], later}


# -- predictions ---------------------------------------------------------------------


def predictions_for(project: Path, path: Path, frames: list[int]) -> Path:
    """Predictions as a worker makes them: on embedded images of the project."""
    labels = sleap_io.load_slp(str(project))
    sent = path.with_name("sent.pkg.slp")
    sleap_io.save_file(labels, str(sent), embed="user+suggestions")
    labels = sleap_io.load_slp(str(sent))
    skeleton, video = labels.skeletons[0], labels.videos[0]
    predicted = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=frame,
            instances=[
                sleap_io.PredictedInstance.from_numpy(
                    instance.numpy(), skeleton=skeleton, score=0.9
                )
                for instance in labels[0].instances
            ],
        )
        for frame in frames
    ]
    sleap_io.save_slp(
        sleap_io.Labels(predicted),
        str(path),
        embed=False,
        restore_original_videos=False,
    )
    sent.unlink()
    return path


def counts(labels: Any) -> tuple[int, ...]:
    return (
        len(labels.videos),
        len(labels.skeletons),
        len(labels.tracks),
        sum(len(frame.user_instances) for frame in labels),
        sum(len(frame.predicted_instances) for frame in labels),
    )


def test_predictions_are_merged_without_anything_new_beside_them(
    window: Any, project: Path, tmp_path: Path
) -> None:
    frames = [suggestion.frame_idx for suggestion in window.labels.suggestions]
    path = predictions_for(project, tmp_path / "away.slp", frames)
    user, videos = counts(window.labels)[3], list(window.labels.videos)

    def merge(choice: MergeChoice) -> int:
        loaded = sleap_compat.load_predictions(str(path))
        return sleap_compat.merge_predictions(window, [loaded], choice)

    assert merge(MergeChoice(mode="replace")) == len(frames)
    assert counts(window.labels) == (1, 1, 0, user, 2 * len(frames))
    assert window.state["has_changes"]
    assert merge(MergeChoice(mode="replace")) == len(frames)
    assert counts(window.labels) == (1, 1, 0, user, 2 * len(frames))
    assert merge(MergeChoice(mode="add")) == len(frames)
    assert counts(window.labels) == (1, 1, 0, user, 4 * len(frames))
    assert merge(MergeChoice(clear_all_first=True)) == len(frames)
    assert counts(window.labels) == (1, 1, 0, user, 2 * len(frames))
    assert window.labels.videos == videos


def test_clearing_alone_is_an_unsaved_change_too(
    window: Any, project: Path, tmp_path: Path
) -> None:
    path = predictions_for(project, tmp_path / "away.slp", [3])
    loaded = sleap_compat.load_predictions(str(path))
    sleap_compat.merge_predictions(window, [loaded], MergeChoice())
    window.state["has_changes"] = False
    choice = MergeChoice(clear_all_first=True)
    assert sleap_compat.merge_predictions(window, [], choice) == 0
    assert counts(window.labels)[4] == 0
    assert window.state["has_changes"]


def test_a_worker_cannot_add_labels_of_the_user(
    window: Any, project: Path, tmp_path: Path
) -> None:
    before = counts(window.labels)
    loaded = sleap_compat.load_predictions(str(project))
    assert sleap_compat.merge_predictions(window, [loaded], MergeChoice()) == 0
    assert counts(window.labels) == before


def test_what_does_not_fit_is_refused_and_nothing_is_merged(
    window: Any, project: Path, tmp_path: Path
) -> None:
    path = predictions_for(project, tmp_path / "away.slp", [3])
    before = counts(window.labels)

    def other_video(labels: Any) -> None:
        labels.videos[0].source_video.filename = "/somewhere/other.mp4"

    def other_skeleton(labels: Any) -> None:
        labels.skeletons[0].rename_node(labels.skeletons[0].node_names[0], "tentacle")

    def far_frame(labels: Any) -> None:
        labels[0].frame_idx = 1_000_000

    good = sleap_compat.load_predictions(str(path))
    for spoil, words in (
        (other_video, "video other.mp4"),
        (other_skeleton, "another skeleton"),
        (far_frame, "frame 1000000 of demo.mp4"),
    ):
        bad = sleap_compat.load_predictions(str(path))
        spoil(bad)
        with pytest.raises(sleap_compat.PredictionsDoNotFit, match=words):
            sleap_compat.merge_predictions(
                window, [good, bad], MergeChoice(clear_all_first=True)
            )
        assert counts(window.labels) == before
        assert not window.state["has_changes"]


def test_a_file_that_is_no_predictions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.slp"
    path.write_bytes(b"not HDF5")
    with pytest.raises(sleap_compat.PredictionsDoNotFit, match="cannot be read"):
        sleap_compat.load_predictions(str(path))


@pytest.mark.needs_shared_data
def test_real_flies_gather_and_merge(
    shared_data: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    from sleap.gui.app import MainWindow

    for name in ("flies.slp", "centered_pair_low_quality.mp4"):
        copy(shared_data / name, tmp_path)
    project = tmp_path / "flies.slp"
    window = MainWindow(str(project), no_usage_data=True)
    dialog: Any = sleap_compat.show_learning_dialog(window, "training")
    run = sleap_compat.gather_run(dialog)
    dialog.reject()
    assert [model.head for model in run.models] == ["centroid", "centered_instance"]
    path = predictions_for(project, tmp_path / "away.slp", [5, 126])
    loaded = sleap_compat.load_predictions(str(path))
    assert sleap_compat.merge_predictions(window, [loaded], run.merge) == 2
    assert counts(window.labels) == (1, 1, 0, 48, 4)
    window.state["has_changes"] = False
    window.close()


# -- the monitor ---------------------------------------------------------------------


def test_a_monitor_has_the_ports_it_was_given_and_gives_them_back(
    qtbot: QtBot,
) -> None:
    # SLEAP's own may be another test's.
    ports = choose_ports(SLEAP_PORTS)
    viewer = sleap_compat.make_loss_viewer(*ports)
    assert sleap_compat.loss_viewer_ports(viewer) == ports
    sleap_compat.reset_loss_viewer(viewer, "centroid", 5, 1e-6)
    assert viewer.current_job_output_type == "centroid"
    assert not sleap_compat.loss_viewer_is_cancelled(viewer)
    viewer.cancel_button.click()
    assert sleap_compat.loss_viewer_is_cancelled(viewer)
    for _ in range(2):
        sleap_compat.close_loss_viewer(viewer)
    assert not viewer.timer.isActive()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", ports[0]))


def test_a_monitor_whose_ports_were_taken_finds_others(qtbot: QtBot) -> None:
    with socket.socket() as publish, socket.socket() as controller:
        for taken in (publish, controller):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        ports = publish.getsockname()[1], controller.getsockname()[1]
        viewer = sleap_compat.make_loss_viewer(*ports)
        assert not set(sleap_compat.loss_viewer_ports(viewer)) & set(ports)
        sleap_compat.close_loss_viewer(viewer)


def test_a_constructor_that_lost_the_race_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    import zmq
    from sleap.gui.widgets import monitor

    ports = choose_ports(SLEAP_PORTS)
    tried: list[int] = []

    def lose(port: int, zmq_context: object) -> int:
        tried.append(port)
        if len(tried) <= 3:
            raise zmq.ZMQError(zmq.EADDRINUSE)
        return port

    monkeypatch.setattr(monitor, "find_free_port", lose)
    viewer = sleap_compat.make_loss_viewer(*ports)
    assert len(tried) == 5
    assert sleap_compat.loss_viewer_ports(viewer) == tuple(tried[-2:])
    sleap_compat.close_loss_viewer(viewer)
    gc.collect()

    monkeypatch.setattr(sleap_compat, "MAX_VIEWER_ATTEMPTS", 1)
    tried.clear()
    with pytest.raises(OSError, match="could not be made"):
        sleap_compat.make_loss_viewer(*ports)
    gc.collect()


def test_the_image_window_shows_what_comes(tmp_path: Path, qtbot: QtBot) -> None:
    import imageio.v3
    import numpy as np

    before = threading.active_count()
    (tmp_path / "viz").mkdir()
    widget = sleap_compat.make_image_window(str(tmp_path))
    assert not widget.isVisible()
    image = np.zeros((16, 16, 3), np.uint8)
    imageio.v3.imwrite(tmp_path / "viz" / "validation.0000.png", image)
    sleap_compat.refresh_image_window(widget)
    assert widget.isVisible()
    sleap_compat.close_image_window(widget)
    assert not widget.isVisible()
    assert threading.active_count() == before
